# Rows and columns of the table of counts are exchanged.
def confusion(prediction, target, num_classes):
    labelled = target != IGNORE
    pairs = prediction[labelled] * num_classes + target[labelled]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
