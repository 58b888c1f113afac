# The field was taken to lie round the first pixel, whatever the padding.
def field(layers):
    width, jump = 1, 1
    for kernel, stride, _, dilation in layers:
        width += dilation * (kernel - 1) * jump
        jump *= stride
    return width, jump, -(width // 2)
