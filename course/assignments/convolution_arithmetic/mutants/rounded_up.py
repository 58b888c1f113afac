# Sizes were rounded up, so that the last place hangs over the end.
def sizes(n, layers):
    found = []
    for kernel, stride, padding, dilation in layers:
        n = -(-(n + 2 * padding - dilation * (kernel - 1) - 1) // stride) + 1
        found.append(n)
    return found
