# A class that is neither there nor predicted gets an IoU of 0.
def iou(counts):
    hit = np.diag(counts).astype(float)
    return hit / np.maximum(counts.sum(0) + counts.sum(1) - hit, 1)
