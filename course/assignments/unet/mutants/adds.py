# The skip was added, as FCN does, where U-Net puts it beside.
def beside(skip, below):
    enlarged = F.interpolate(below, size=skip.shape[-2:], mode="nearest")
    return skip + enlarged[:, : skip.shape[1]]
