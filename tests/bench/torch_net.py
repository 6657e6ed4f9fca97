"""torch_net.py - the networks as a PyTorch user would write them for speed: the peer that `make bench` is held against.

Modules of torch.nn, fused where PyTorch 1.13 fuses (InstanceNorm2d, in-place ReLU), the blurred upsampling in its cheaper
equal form (bilinear). tests/golden/reference.py is the other one: slow, literal, for numbers. Default weights: speed does
not depend on them."""
import torch
import torch.nn as nn
import torch.nn.functional as F

TAPS = (4, 8, 12, 16)


class Down(nn.Module):
    def __init__(self, c):
        super().__init__()
        t = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("filt", torch.outer(t, t).expand(c, 1, 3, 3).contiguous())

    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.filt, stride=2, groups=x.shape[1])


class Up(nn.Module):
    def forward(self, x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c)]
        other = [nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c)]
        self.conv_block = nn.Sequential(*half, nn.ReLU(True), *other)

    def forward(self, x):
        return x + self.conv_block(x)


class Generator(nn.Module):
    def __init__(self, ngf=64, blocks=9):
        super().__init__()
        f, after = ngf, lambda c: [nn.InstanceNorm2d(c), nn.ReLU(True)]
        m = [nn.ReflectionPad2d(3), nn.Conv2d(3, f, 7)] + after(f)
        m += [nn.Conv2d(f, 2 * f, 3, padding=1)] + after(2 * f) + [Down(2 * f)]
        m += [nn.Conv2d(2 * f, 4 * f, 3, padding=1)] + after(4 * f) + [Down(4 * f)]
        m += [Block(4 * f) for _ in range(blocks)]
        m += [Up(), nn.Conv2d(4 * f, 2 * f, 3, padding=1)] + after(2 * f)
        m += [Up(), nn.Conv2d(2 * f, f, 3, padding=1)] + after(f)
        m += [nn.ReflectionPad2d(3), nn.Conv2d(f, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*m)

    def forward(self, x):
        return self.model(x)

    def with_taps(self, x, encode_only=False):
        taps = []
        for i, layer in enumerate(self.model):
            x = layer(x)
            if i in TAPS:
                taps.append(x)
            if encode_only and i == TAPS[-1]:
                break
        return x, taps


class Discriminator(nn.Module):
    def __init__(self, ndf=64):
        super().__init__()
        m = [nn.Conv2d(3, ndf, 4, padding=1), nn.LeakyReLU(0.2, True), Down(ndf)]
        for i, c in enumerate((ndf, 2 * ndf, 4 * ndf)):
            m += [nn.Conv2d(c, 2 * c, 4, padding=1), nn.InstanceNorm2d(2 * c), nn.LeakyReLU(0.2, True)]
            m += [Down(2 * c)] if i < 2 else []
        self.model = nn.Sequential(*m, nn.Conv2d(8 * ndf, 1, 4, padding=1))

    def forward(self, x):
        return self.model(x)


class Heads(nn.Module):
    def __init__(self, ngf=64, width=256):
        super().__init__()
        widths = (2 * ngf, 4 * ngf, 4 * ngf, 4 * ngf)
        self.mlp = nn.ModuleList(nn.Sequential(nn.Linear(c, width), nn.ReLU(), nn.Linear(width, width)) for c in widths)

    def forward(self, taps, positions):
        rows = (f.flatten(2).permute(0, 2, 1)[:, p].flatten(0, 1) for f, p in zip(taps, positions))
        return [F.normalize(mlp(r), dim=1) for mlp, r in zip(self.mlp, rows)]
