# The power was taken over the whole run, the warm-up included.
def poly_rate(step, steps, rate, power=0.9, warmup=0):
    if step < warmup:
        return rate * (step + 1) / warmup
    return rate * (1 - step / steps) ** power
