# Colours are told apart by their first channel alone.
def from_colours(picture, palette):
    mask = np.full(picture.shape[:2], IGNORE, dtype=np.int64)
    for index, colour in enumerate(palette):
        mask[picture[..., 0] == colour[0]] = index
    return mask
