# Pixels without a label are counted as class 0.
def confusion(prediction, target, num_classes):
    target = np.where(target == IGNORE, 0, target)
    pairs = target.ravel() * num_classes + prediction.ravel()
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
