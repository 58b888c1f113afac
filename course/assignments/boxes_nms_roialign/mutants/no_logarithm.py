# Sizes were given as factors, not as their logarithms.
def encode(boxes, anchors):
    size, anchor_size = boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]
    moved = (boxes[:, :2] + size / 2 - anchors[:, :2] - anchor_size / 2) / anchor_size
    return np.concatenate([moved, size / anchor_size], axis=1)


def decode(deltas, anchors):
    size = anchors[:, 2:] - anchors[:, :2]
    centre = anchors[:, :2] + size / 2 + deltas[:, :2] * size
    half = size * deltas[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)
