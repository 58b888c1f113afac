# Layers behind a stride were taken to see no farther than those before it.
def field(layers):
    width, jump, first = 1, 1, 0
    for kernel, stride, padding, dilation in layers:
        width += dilation * (kernel - 1)
        first -= padding
        jump *= stride
    return width, jump, first
