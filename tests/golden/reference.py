"""reference.py - the method once more, in PyTorch and written from its formulas alone: the judge of the golden tests.

Networks are plain functions of a dict that maps state-dict keys ("model.1.weight") to tensors; nothing here is shared
with the C code. Filters are real depthwise convolutions and the upsampling is the transposed convolution of the
definition, so that the C shortcuts (separable blur, bilinear form, fused norms) are judged by something that does not
take them. Runs in float32 and float64. Debian's python3-torch (1.13) is enough.

Generator: pad 3, conv 7x7, two conv + blur-down, residual blocks, two blur-up + conv, pad 3, conv 7x7, tanh; instance
norm and ReLU after each but the last. residual = 0: y = tanh(h). residual = 3 or 1 (channels of h): y = x - tanh(h); tanh
has both signs, so the generator that adds rain has the same form. Taps: raw outputs of layers 4 and 8, outputs of blocks 1 and 5 (layers 12 and 16)."""
import math

import numpy as np
import torch
import torch.nn.functional as F

import hashgen

TAPS = (4, 8, 12, 16)
TEMPERATURE = 0.07
PATCHES = 256


# ---- parameters ------------------------------------------------------------------------------------------------------


def generator_shapes(ngf, blocks, residual=0):
    """Keys and shapes of the trained tensors, in the order of the layers."""
    last = 12 + blocks  # index of the first upsampling
    convs = [("model.1", 3, ngf, 7), ("model.4", ngf, 2 * ngf, 3), ("model.8", 2 * ngf, 4 * ngf, 3)]
    for i in range(blocks):
        convs += [("model.%d.conv_block.%d" % (12 + i, j), 4 * ngf, 4 * ngf, 3) for j in (1, 5)]
    convs += [("model.%d" % (last + 1), 4 * ngf, 2 * ngf, 3), ("model.%d" % (last + 5), 2 * ngf, ngf, 3)]
    convs += [("model.%d" % (last + 9), ngf, residual or 3, 7)]
    return [s for key, i, o, k in convs for s in ((key + ".weight", (o, i, k, k)), (key + ".bias", (o,)))]


def discriminator_convs(layers):
    """State-dict numbers of the convolutions: 0, 3, 7, 11, 14 for three halvings."""
    return [0] + [4 * i - 1 for i in range(1, layers + 1)] + [4 * layers + 2]


def discriminator_shapes(ndf, layers=3):
    widths = [3] + [ndf * min(2**i, 8) for i in range(layers + 1)] + [1]
    convs = zip(discriminator_convs(layers), widths, widths[1:])
    return [s for n, i, o in convs for s in (("model.%d.weight" % n, (o, i, 4, 4)), ("model.%d.bias" % n, (o,)))]


def head_shapes(ngf, width=256):
    out = []
    for t, c in enumerate((2 * ngf, 4 * ngf, 4 * ngf, 4 * ngf)):
        for layer, i in ((0, c), (2, width)):
            key = "mlp_%d.%d" % (t, layer)
            out += [(key + ".weight", (width, i)), (key + ".bias", (width,))]
    return out


def norm_fed_biases(kind, blocks=9, layers=3):
    """Biases whose layer feeds an instance norm and nothing else: their exact gradient is 0. (Layers 4 and 8 of the
    generator are taps as well, so theirs is not.)"""
    if kind == "D":
        return {"model.%d.bias" % n for n in discriminator_convs(layers)[1:-1]}
    if kind == "G":
        last = 12 + blocks
        inner = {"model.%d.conv_block.%d.bias" % (12 + i, j) for i in range(blocks) for j in (1, 5)}
        return inner | {"model.1.bias", "model.%d.bias" % (last + 1), "model.%d.bias" % (last + 5)}
    return set()


def hash_params(net, shapes, dtype=torch.float32):
    """Weights of variance 1/fan_in, biases in [-0.1, 0.1), named "<net>.<key>" for the hash."""
    p = {}
    for key, shape in shapes:
        scale = 0.1 if len(shape) == 1 else hashgen.scale(1.0, math.prod(shape[1:]))
        p[key] = torch.from_numpy(hashgen.fill(net + "." + key, scale, shape)).to(dtype)
    return p


def training_rule(net, key, shape, last):
    """(scale, offset) of a trained tensor: its values are u * scale, pushed away from zero by offset. See Trainer."""
    bias, fan_in = len(shape) == 1, math.prod(shape[1:])
    if net[0] == "F":
        first = ".0." in key
        if bias:
            return (1.0, 1.0) if first else (0.1, 0.0)
        return float(hashgen.scale(0.3 if first else 2.0, fan_in)), 0.0
    if bias:
        return (1.0, 0.0) if (net[0], key) == ("D", "model.0.bias") else (0.1, 0.0)
    return float(hashgen.scale(1.0 if key.startswith(last) else 4.0, fan_in)), 0.0


# ---- layers ----------------------------------------------------------------------------------------------------------


def conv(p, key, x, pad):
    return F.conv2d(x, p[key + ".weight"], p[key + ".bias"], padding=pad)


def instance_norm(x):
    mean = x.mean((2, 3), keepdim=True)
    var = ((x - mean) ** 2).mean((2, 3), keepdim=True)  # biased
    return (x - mean) / torch.sqrt(var + 1e-5)


def depthwise(taps, c, like):
    t = torch.tensor(taps, dtype=like.dtype)
    return torch.outer(t, t).expand(c, 1, len(taps), len(taps))


def blur_down(x):
    c = x.shape[1]
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), depthwise([0.25, 0.5, 0.25], c, x), stride=2, groups=c)


def blur_up(x):
    c = x.shape[1]
    filt = depthwise([0.25, 0.75, 0.75, 0.25], c, x)
    y = F.conv_transpose2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), filt, stride=2, padding=2, groups=c)
    return y[:, :, 1:-1, 1:-1]


def reflect(x, n):
    return F.pad(x, (n, n, n, n), mode="reflect")


def generator(p, x, blocks, residual=0, sign=-1, encode_only=False):
    """x (N,3,H,W), H and W multiples of 4. Returns (picture, taps); the picture is None where encode_only."""
    taps = []
    h = conv(p, "model.1", reflect(x, 3), 0)
    h = conv(p, "model.4", torch.relu(instance_norm(h)), 1)
    taps.append(h)
    h = conv(p, "model.8", blur_down(torch.relu(instance_norm(h))), 1)
    taps.append(h)
    h = blur_down(torch.relu(instance_norm(h)))
    for i in range(blocks):
        key = "model.%d.conv_block." % (12 + i)
        g = torch.relu(instance_norm(conv(p, key + "1", reflect(h, 1), 0)))
        h = h + instance_norm(conv(p, key + "5", reflect(g, 1), 0))
        if 12 + i in TAPS:
            taps.append(h)
        if encode_only and 12 + i == TAPS[-1]:
            return None, taps
    last = 12 + blocks
    h = torch.relu(instance_norm(conv(p, "model.%d" % (last + 1), blur_up(h), 1)))
    h = torch.relu(instance_norm(conv(p, "model.%d" % (last + 5), blur_up(h), 1)))
    h = torch.tanh(conv(p, "model.%d" % (last + 9), reflect(h, 3), 0))
    return (x + sign * h if residual else h), taps


def derain(p, x, blocks, residual=0):
    """Any size: reflect-pad right and bottom to a multiple of 4, run, crop back."""
    hh, ww = x.shape[2:]
    y, _ = generator(p, F.pad(x, (0, -ww % 4, 0, -hh % 4), mode="reflect"), blocks, residual)
    return y[:, :, :hh, :ww]


def discriminator(p, x, layers=3):
    at = discriminator_convs(layers)
    h = blur_down(F.leaky_relu(conv(p, "model.0", x, 1), 0.2))
    for i in range(1, layers + 1):
        h = F.leaky_relu(instance_norm(conv(p, "model.%d" % at[i], h, 1)), 0.2)
        h = blur_down(h) if i < layers else h
    return conv(p, "model.%d" % at[-1], h, 1)


def project_heads(p, taps, positions):
    """Rows (N,S,256) of unit length for each tap; positions: one index array per tap."""
    out = []
    for t, (f, pos) in enumerate(zip(taps, positions)):
        rows = f.flatten(2).permute(0, 2, 1)[:, pos, :]
        v = torch.relu(F.linear(rows, p["mlp_%d.0.weight" % t], p["mlp_%d.0.bias" % t]))
        v = F.linear(v, p["mlp_%d.2.weight" % t], p["mlp_%d.2.bias" % t])
        out.append(v / (v.norm(dim=2, keepdim=True) + 1e-7))
    return out


# ---- losses ----------------------------------------------------------------------------------------------------------


def gan_real(s, mode="hinge"):
    return {"hinge": lambda: torch.relu(1 - s).mean(), "lsgan": lambda: ((s - 1) ** 2).mean()}[mode]()


def gan_fake(s, mode="hinge"):
    return {"hinge": lambda: torch.relu(1 + s).mean(), "lsgan": lambda: (s**2).mean()}[mode]()


def gan_generator(s, mode="hinge"):
    """What the generator minimises: the released code's max(0, 1-s), or -mean(s)."""
    return -s.mean() if mode == "neg_mean" else gan_real(s, mode)


def patch_nce(queries, keys):
    """Mean over taps of the cross entropy over the keys of the same image; keys get no gradient."""
    total = 0
    for q, k in zip(queries, keys):
        k = k.detach()
        norms = q.norm(dim=2)[:, :, None] * k.norm(dim=2)[:, None, :]
        c = q @ k.transpose(1, 2) / norms.clamp_min(1e-8)
        n, s, _ = c.shape
        eye = torch.eye(s, dtype=torch.bool)
        positive = torch.diagonal(c, dim1=1, dim2=2)[:, :, None]
        negative = c.masked_fill(eye, -10.0)
        logits = torch.cat([positive, negative], dim=2) / TEMPERATURE
        total = total + (torch.logsumexp(logits, 2) - logits[:, :, 0]).mean()
    return total / len(queries)


def l1(a, b):
    return (a - b).abs().mean()


def spectral(a, b):
    """Mean over all bins of the magnitude of the difference of the spectra."""
    return (torch.fft.fft2(a, norm="ortho") - torch.fft.fft2(b, norm="ortho")).abs().mean()


def broad_colors(a, b, halvings=4):
    """L1 between both pictures after a wide blur, seen at every 2^halvings-th pixel. Halving by [1,2,1]/4 again and again is
    one filter: the binomials, spread by 1, 2, 4, ... and convolved with each other. Sides are multiples of 2^halvings,
    so that only the first edges are mirrored."""
    taps, step = torch.ones(1, dtype=torch.float64), 2**halvings
    for i in range(halvings):
        spread = torch.zeros(2 ** (i + 1) + 1, dtype=torch.float64)
        spread[0], spread[2**i], spread[-1] = 0.25, 0.5, 0.25
        taps = torch.from_numpy(np.convolve(taps.numpy(), spread.numpy()))
    assert len(taps) == 2 * step - 1 and a.shape[2] % step == 0 and a.shape[3] % step == 0

    def wide(x):
        c = x.shape[1]
        filt = torch.outer(taps, taps).to(x.dtype).expand(c, 1, len(taps), len(taps))
        return F.conv2d(F.pad(x, (step - 1, 0, step - 1, 0), mode="reflect"), filt, stride=step, groups=c)

    return l1(wide(a), wide(b))


# ---- training --------------------------------------------------------------------------------------------------------

RELEASED = dict(
    residual=0, d_layers=3, gan="hinge", gan_g="hinge", w_gan=1.0, w_nce=2.0, w_idt=1.0, w_cycle=0.0, w_nce_extra=0.0, w_color=0.0,
    w_freq=0.0, w_transplant=0.0, lr=1e-4, lr_f=1e-3,
)


class Trainer:
    """Nets with weights from the hash, and one training step. Rain transplant uses G_A, D_A and D_B alone.

    The weights are chosen so that float32 can be judged by 1e-3 at all. A ReLU whose input lies within rounding of zero
    has its gradient switched by any other order of summation, and one switched unit moves a gradient by 1e-3 and more;
    Adam's first steps then turn such noise into other weights. So convolutions in front of an instance norm are four
    times as large (the network computes the same, Adam's fixed steps move it less), the first biases of heads and
    discriminators are large (fewer units near their kink), and pictures are smooth (neighbours' gradients agree)."""

    def __init__(self, ngf, blocks, ndf, dtype=torch.float32, **options):
        self.o = dict(RELEASED, **options)
        self.blocks, self.layers = blocks, self.o["d_layers"]
        r = self.o["residual"]
        shapes = {"G_A": generator_shapes(ngf, blocks, r), "D_A": discriminator_shapes(ndf, self.layers)}
        shapes["D_B"] = shapes["D_A"]
        if not self.o["w_transplant"]:
            shapes.update({"G_B": shapes["G_A"], "F1": head_shapes(ngf), "F2": head_shapes(ngf)})
        self.rules, self.nets = {}, {}  # rules: full name -> (shape, scale, offset)
        for net, tensors in shapes.items():
            last = tensors[-1][0].rsplit(".", 1)[0] + "."
            self.nets[net] = {}
            for key, shape in tensors:
                scale, offset = training_rule(net, key, shape, last)
                self.rules[net + "." + key] = (shape, scale, offset)
                v = torch.from_numpy(hashgen.fill(net + "." + key, scale, shape, offset)).to(dtype)
                self.nets[net][key] = v.requires_grad_(True)

        def adam(names, lr, betas):
            tensors = [t for n in names if n in self.nets for t in self.nets[n].values()]
            return torch.optim.Adam(tensors, lr=lr, betas=betas, eps=1e-8) if tensors else None

        self.opt_g = adam(("G_A", "G_B"), self.o["lr"], (0.5, 0.999))
        self.opt_d = adam(("D_A", "D_B"), self.o["lr"], (0.5, 0.999))
        self.opt_f = adam(("F1", "F2"), self.o["lr_f"], (0.9, 0.999))

    def g(self, net, x, encode_only=False):
        return generator(self.nets[net], x, self.blocks, self.o["residual"], -1, encode_only)

    def d(self, net, x):
        return discriminator(self.nets[net], x, self.layers)

    def encode(self, net, x):
        return self.g(net, x, encode_only=True)[1]

    def clear_exact_zeros(self, names):
        for n in names:
            for key in norm_fed_biases(n[0], self.blocks, self.layers):
                self.nets[n][key].grad = torch.zeros_like(self.nets[n][key])

    def gradients(self, names):
        """Float64 copies by full name, without the biases whose gradient is exactly 0."""
        out = {}
        for n in names:
            for key, t in self.nets[n].items():
                if key not in norm_fed_biases(n[0], self.blocks, self.layers) and t.grad is not None:
                    out[n + "." + key] = t.grad.detach().double().numpy().copy()
        return out

    def step(self, a, b, positions):
        """One step on rainy a and clean b, both (N,3,H,W). positions[call][tap]: index arrays for the NCE calls "nce_1",
        "nce_2" and, with w_nce_extra, "nce_3", "nce_4". Returns (losses, gradients)."""
        o, nets = self.o, self.nets
        loss, grads = {}, {}
        transplant = o["w_transplant"] > 0

        # 1. pictures
        fake_b, taps_a = self.g("G_A", a)
        idt_a, _ = self.g("G_A", b)
        if transplant:
            fake_a = torch.clamp(b + (a - fake_b), -1, 1)
        else:
            fake_a, taps_b = self.g("G_B", b)
            idt_b, _ = self.g("G_B", a)

        # 2. discriminators: D_A judges clean pictures, D_B rainy ones; one Adam step for both
        self.opt_d.zero_grad()
        for d, real, fake in (("D_A", b, fake_b), ("D_B", a, fake_a)):
            loss["d" + d[1:] + "_real"] = gan_real(self.d(d, real), o["gan"])
            loss["d" + d[1:] + "_fake"] = gan_fake(self.d(d, fake.detach()), o["gan"])
            (0.5 * (loss["d" + d[1:] + "_real"] + loss["d" + d[1:] + "_fake"])).backward()
        self.clear_exact_zeros(("D_A", "D_B"))
        grads.update(self.gradients(("D_A", "D_B")))
        self.opt_d.step()

        # 3. generators and heads, against the updated discriminators
        generators, heads_ = (("G_A",), ()) if transplant else (("G_A", "G_B"), ("F1", "F2"))
        self.opt_g.zero_grad()
        if heads_:
            self.opt_f.zero_grad()
        loss["adv_A"] = gan_generator(self.d("D_A", fake_b), o["gan_g"])
        loss["adv_B"] = gan_generator(self.d("D_B", fake_a), o["gan_g"])
        total = 0.5 * o["w_gan"] * (loss["adv_A"] + loss["adv_B"])
        loss["idt_A"] = l1(idt_a, b)
        if transplant:
            back, _ = self.g("G_A", fake_a.detach())
            loss["transplant"] = l1(back, b)
            total = total + o["w_idt"] * loss["idt_A"] + o["w_transplant"] * loss["transplant"]
        else:
            loss["idt_B"] = l1(idt_b, a)
            total = total + 0.5 * o["w_idt"] * (loss["idt_A"] + loss["idt_B"])

            def heads(net, taps, call):
                return project_heads(nets[net], taps, positions[call])

            query_taps = self.encode("G_B", fake_b)
            nce_1 = patch_nce(heads("F2", query_taps, "nce_1"), heads("F1", taps_a, "nce_1"))
            query_taps_2 = self.encode("G_A", fake_a)
            nce_2 = patch_nce(heads("F1", query_taps_2, "nce_2"), heads("F2", taps_b, "nce_2"))
            loss["nce_1"], loss["nce_2"] = nce_1, nce_2
            total = total + 0.5 * o["w_nce"] * (nce_1 + nce_2)
            if o["w_cycle"] > 0 or o["w_nce_extra"] > 0 or o["w_freq"] > 0:
                rec_a, taps_fake_b = self.g("G_B", fake_b)
                rec_b, taps_fake_a = self.g("G_A", fake_a)
            if o["w_cycle"] > 0:
                loss["cycle_A"], loss["cycle_B"] = l1(rec_a, a), l1(rec_b, b)
                total = total + o["w_cycle"] * (loss["cycle_A"] + loss["cycle_B"])
            if o["w_freq"] > 0:
                loss["freq_A"], loss["freq_B"] = spectral(rec_a, a), spectral(rec_b, b)
                total = total + o["w_freq"] * (loss["freq_A"] + loss["freq_B"])
            if o["w_color"] > 0:
                loss["color_A"], loss["color_B"] = broad_colors(fake_b, a), broad_colors(fake_a, b)
                total = total + o["w_color"] * (loss["color_A"] + loss["color_B"])
            if o["w_nce_extra"] > 0:
                # R* comes out of G_B, so its key side is G_B's encoder with F2 and its query side G_A's with F1; mirrored
                nce_3 = patch_nce(heads("F1", self.encode("G_A", rec_a), "nce_3"), heads("F2", taps_fake_b, "nce_3"))
                nce_4 = patch_nce(heads("F2", self.encode("G_B", rec_b), "nce_4"), heads("F1", taps_fake_a, "nce_4"))
                loss["nce_3"], loss["nce_4"] = nce_3, nce_4
                total = total + 0.5 * o["w_nce_extra"] * (nce_3 + nce_4)
        total.backward()
        self.clear_exact_zeros(generators)
        grads.update(self.gradients(generators + heads_))
        self.opt_g.step()
        if heads_:
            self.opt_f.step()
        return {k: float(v.detach()) for k, v in loss.items()}, grads
