# Padding was counted at one end only.
def sizes(n, layers):
    found = []
    for kernel, stride, padding, dilation in layers:
        n = (n + padding - dilation * (kernel - 1) - 1) // stride + 1
        found.append(n)
    return found
