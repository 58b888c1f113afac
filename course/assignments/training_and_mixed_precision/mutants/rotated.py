# The list was rotated, not shuffled.
def order(n, seed, epoch):
    first = 4 * seed + epoch + 1
    return [(i + first) % n for i in range(n)]
