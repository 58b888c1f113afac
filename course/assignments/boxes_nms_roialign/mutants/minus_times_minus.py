# Boxes that lie apart in both directions overlap: two negative sides were multiplied.
def iou(one, other):
    a, b = one[:, None], other[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.clip(sides.prod(axis=-1), 0, None)
    areas = [(x[..., 2:] - x[..., :2]).prod(axis=-1) for x in (a, b)]
    union = areas[0] + areas[1] - common
    return np.divide(common, union, out=np.zeros_like(union), where=union > 0)
