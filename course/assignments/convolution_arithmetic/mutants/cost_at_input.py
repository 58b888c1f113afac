# Multiplications were counted at every pixel of the input, not of the output.
def cost(height, width, layers):
    weights = multiplications = 0
    for before, after, kernel, stride, padding, groups in layers:
        taps = before // groups * kernel**2 * after
        weights += taps + after
        multiplications += taps * height * width
        height = (height + 2 * padding - kernel) // stride + 1
        width = (width + 2 * padding - kernel) // stride + 1
    return weights, multiplications
