# The score was taken in training mode.
def accuracy(net, batches):
    right = count = 0
    with torch.no_grad():
        for image, mask in batches:
            labelled = mask != IGNORE
            right += int((net(image).argmax(dim=1) == mask)[labelled].sum())
            count += int(labelled.sum())
    return right / count if count else 0.0
