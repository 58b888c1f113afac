# The optimiser made a step after every part.
def train_step(net, optimizer, images, masks, parts):
    labelled = (masks != IGNORE).sum().clamp(min=1)
    total = 0.0
    for image, mask in zip(images.chunk(parts), masks.chunk(parts), strict=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(image), mask, ignore_index=IGNORE, reduction="sum") / labelled
        loss.backward()
        optimizer.step()
        total += float(loss.detach())
    return total
