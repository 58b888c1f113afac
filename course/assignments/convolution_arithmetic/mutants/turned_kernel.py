# The kernel was turned round, as in mathematics.
def convolve(x, w, stride=1, padding=0, dilation=1):
    outputs, _, kernel, _ = w.shape
    span = dilation * (kernel - 1) + 1
    padded = np.pad(x, [(0, 0), (padding, padding), (padding, padding)])
    rows, columns = ((size - span) // stride + 1 for size in padded.shape[1:])
    y = np.zeros((outputs, rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            seen = padded[:, top : top + span : dilation, left : left + span : dilation]
            y[:, i, j] = (w[:, :, ::-1, ::-1] * seen).sum(axis=(1, 2, 3))
    return y
