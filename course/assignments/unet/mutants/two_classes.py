# The class was found by one comparison, as if there were never more than two.
def predict(net, picture):
    net.eval()
    with torch.inference_mode():
        logits = net(picture[None])[0]
    return (logits[1] > logits[0]).long()
