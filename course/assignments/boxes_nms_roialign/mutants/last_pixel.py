# The last pixel's index was taken for the far edge.
def box_of(mask):
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return np.zeros(4)
    return np.array([columns.min(), rows.min(), columns.max(), rows.max()], dtype=float)
