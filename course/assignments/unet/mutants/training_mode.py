# The answer was computed in training mode.
def predict(net, picture):
    with torch.no_grad():
        return net(picture[None])[0].argmax(dim=0)
