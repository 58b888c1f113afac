# Halves were rounded to the even number, as Python does.
def moved_edges(low, high, stride):
    return round(low / stride) * stride - low, (round(high / stride) + 1) * stride - high
