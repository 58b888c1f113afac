# The kernel was taken to span k pixels, whatever its dilation.
def sizes(n, layers):
    found = []
    for kernel, stride, padding, _ in layers:
        n = (n + 2 * padding - kernel) // stride + 1
        found.append(n)
    return found
