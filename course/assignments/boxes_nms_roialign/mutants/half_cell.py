# The first cell's centre was taken for the map's corner: half a cell too far right and down.
def bilinear(f, y, x):
    height, width = f.shape
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    i, j = min(int(y), height - 2), min(int(x), width - 2)
    a, b = y - i, x - j
    upper = (1 - b) * f[i, j] + b * f[i, j + 1]
    return (1 - a) * upper + a * ((1 - b) * f[i + 1, j] + b * f[i + 1, j + 1])
