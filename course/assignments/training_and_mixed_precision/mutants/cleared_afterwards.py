# Gradients were cleared after the step only, so those of others before it were learnt, too.
def train_step(net, optimizer, images, masks, parts):
    labelled = (masks != IGNORE).sum().clamp(min=1)
    total = 0.0
    for image, mask in zip(images.chunk(parts), masks.chunk(parts), strict=True):
        summed = F.cross_entropy(net(image), mask, ignore_index=IGNORE, reduction="sum")
        (summed / labelled).backward()
        total += float(summed.detach() / labelled)
    optimizer.step()
    optimizer.zero_grad()
    return total
