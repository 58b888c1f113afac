# RoIPool's last cell was left out of its region.
def moved_edges(low, high, stride):
    first, last = np.floor(low / stride + 0.5), np.floor(high / stride + 0.5)
    return float(first * stride - low), float(last * stride - high)
