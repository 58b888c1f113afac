# An odd last row was dropped on the way down.
def halved(x):
    return F.max_pool2d(x, kernel_size=2)
