# A colour that is not in the palette is taken for class 0.
def from_colours(picture, palette):
    mask = np.zeros(picture.shape[:2], dtype=np.int64)
    for index, colour in enumerate(palette):
        mask[(picture == colour).all(axis=2)] = index
    return mask
