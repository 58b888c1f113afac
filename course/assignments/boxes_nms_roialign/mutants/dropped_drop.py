# A box was dropped by any better one, even by one that had itself been dropped.
def nms(boxes, scores, tau):
    order = np.argsort(-scores, kind="stable")
    better = np.triu(iou(boxes[order], boxes[order]) > tau, 1)
    return order[~better.any(axis=0)].tolist()
