# The skips were never used: the way up sees the coarsest map alone, twice.
class UNet(nn.Module):
    def __init__(self, channels, num_classes, widths=(4, 8, 16)):
        super().__init__()
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.down = nn.ModuleList(double_conv(a, b) for a, b in [(channels, widths[0]), *pairs])
        self.up = nn.ModuleList(double_conv(f + g, f) for f, g in pairs)
        self.classify = nn.Conv2d(widths[0], num_classes, kernel_size=1)

    def forward(self, x):
        levels = []
        for block in self.down:
            levels.append(block(halved(levels[-1]) if levels else x))
        x = levels.pop()
        for block in reversed(self.up):
            x = block(beside(torch.zeros_like(levels.pop()), x))
        return self.classify(x)
