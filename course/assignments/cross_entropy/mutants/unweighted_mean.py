# The weighted losses were divided by the number of pixels, not by their weights.
def weighted(z, y, w):
    labelled = np.flatnonzero(y != IGNORE)
    if not len(labelled):
        return 0.0
    return float((w[y[labelled]] * (log_sum_exp(z)[labelled] - z[y[labelled], labelled])).mean())
