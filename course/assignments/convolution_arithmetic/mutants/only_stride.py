# A transposed convolution was taken to make a map exactly stride times as large.
def transposed_size(n, kernel, stride, padding, dilation, output_padding=0):
    return stride * n + output_padding


def forgotten(n, kernel, stride, padding, dilation):
    return n % stride
