# The first and the last pixel of a mask were taken for its corners.
def box_of(mask):
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return np.zeros(4)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
