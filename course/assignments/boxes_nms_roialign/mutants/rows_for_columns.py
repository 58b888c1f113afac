# Rows and columns of the box were exchanged.
def roi_align(f, box, bins, stride, samples=2):
    y1, x1, y2, x2 = np.asarray(box) / stride
    share = (np.arange(bins * samples) + 0.5) / (bins * samples)
    read = [[bilinear(f, y, x) for x in x1 + (x2 - x1) * share] for y in y1 + (y2 - y1) * share]
    return np.reshape(read, (bins, samples, bins, samples)).mean(axis=(1, 3))
