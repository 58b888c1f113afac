# One greatest logit was taken for all pixels together.
def log_sum_exp(z):
    with np.errstate(all="ignore"):
        return z.max() + np.log(np.exp(z - z.max()).sum(axis=0))
