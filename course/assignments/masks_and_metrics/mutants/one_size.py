# All pictures were taken to have one size.
def set_iou(predictions, targets, num_classes):
    return iou(confusion(np.stack(predictions), np.stack(targets), num_classes))
