# Sides were counted in pixels from first to last, one more than the edges lie apart.
def iou(one, other):
    a, b = one[:, None], other[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    common = np.clip(sides, 0, None).prod(axis=-1)
    areas = [(x[..., 2:] - x[..., :2] + 1).prod(axis=-1) for x in (a, b)]
    return common / (areas[0] + areas[1] - common)
