# Stamps were taken to lie side by side, each covering its own pixels.
def cover(n, kernel, stride):
    return np.ones(stride * (n - 1) + kernel, dtype=int)
