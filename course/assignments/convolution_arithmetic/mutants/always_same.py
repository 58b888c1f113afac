# Padding of any width was taken to keep the size, but for the stride.
def sizes(n, layers):
    found = []
    for kernel, stride, padding, dilation in layers:
        n = -(-n // stride) if padding else (n - dilation * (kernel - 1) - 1) // stride + 1
        found.append(n)
    return found
