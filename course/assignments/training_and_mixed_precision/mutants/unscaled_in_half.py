# The gradient was divided by the scale in float16, where it vanishes again.
def scaled_step(weight, scaled, scale, good, rate, interval):
    if not torch.isfinite(scaled).all():
        return weight, scale / 2, 0
    weight = weight - rate * (scaled / scale).float()
    return (weight, scale * 2, 0) if good + 1 == interval else (weight, scale, good + 1)
