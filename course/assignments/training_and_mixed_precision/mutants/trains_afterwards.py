# Afterwards the network is in training mode, whatever it was in before.
def accuracy(net, batches):
    net.eval()
    right = count = 0
    with torch.inference_mode():
        for image, mask in batches:
            labelled = mask != IGNORE
            right += int((net(image).argmax(dim=1) == mask)[labelled].sum())
            count += int(labelled.sum())
    net.train()
    return right / count if count else 0.0
