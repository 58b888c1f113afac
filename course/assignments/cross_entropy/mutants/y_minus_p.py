# The gradient has the wrong sign: y - p.
def gradient(z, y):
    labelled = np.flatnonzero(y != IGNORE)
    d = np.zeros_like(z, dtype=float)
    d[:, labelled] = -softmax(z)[:, labelled]
    d[y[labelled], labelled] += 1
    return d / max(1, len(labelled))
