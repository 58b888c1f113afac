# The boxes that stay are right, and in the order of the list.
def nms(boxes, scores, tau):
    left, stay = np.argsort(-scores, kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        stay.append(int(best))
        left = left[iou(boxes[[best]], boxes[left])[0] <= tau]
    return sorted(stay)
