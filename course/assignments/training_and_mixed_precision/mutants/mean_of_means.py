# Each part's mean weighs the same, however many of its pixels have a label.
def train_step(net, optimizer, images, masks, parts):
    optimizer.zero_grad()
    total = 0.0
    for image, mask in zip(images.chunk(parts), masks.chunk(parts), strict=True):
        loss = F.cross_entropy(net(image), mask, ignore_index=IGNORE) / parts
        loss.backward()
        total += float(loss.detach())
    optimizer.step()
    return total
