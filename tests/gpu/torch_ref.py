"""torch_ref.py - PyTorch on the same device and the same networks: the figures that ours are held against.

    torch_ref.py [--device cuda|cpu] [--only infer,train,matmul,compile] [--quick] [--tiny] [--seconds N] [--out FILE.json]

The networks are those of tests/bench/torch_net.py, as a PyTorch user would write them. Inference: the generator of ngf 64
with 9 blocks and of ngf 32 with 6, at 256x256 (batch 1 to 8), 512x512 and 1920x1080, each as bf16 autocast in NCHW and in
channels_last, and as a module of pure bf16 in both layouts. Compile: three of them under torch.compile (mode
reduce-overhead, that is with CUDA graphs), the larger sizes first. Training: a step of the minimal objective of `released` (two generators, two discriminators, contrastive
heads; crop 256, batch 1, 4, 8, 16) and of `product` (one generator, rain transplant; crop 128, batch 8), autocast bf16,
fused Adam where it exists. The matrix peak is a bf16 product of 8192^3.

Times are medians over runs between events on the device, after warm-ups. A cell that fails or is left out (--seconds used
up) keeps its line, with the reason. Nothing here has to match our numbers bit by bit: only the work is the same.
--tiny shrinks every size, so that the code itself runs on a CPU in seconds (tests/e2e/gpu_scripts.sh)."""
import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as e:
    print("torch_ref: no PyTorch here: %s" % e, file=sys.stderr)
    sys.exit(77)

from torch_net import Discriminator, Down, Generator, Heads  # noqa: E402


class Slow(Exception):
    """a cell that ran past its share of the time"""


@contextlib.contextmanager
def at_most(seconds):
    """Raises Slow in the body after so many seconds; a long call into the device ends first."""

    def late(signum, frame):
        raise Slow("stopped after %d s" % seconds)

    old = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


class Clock:
    """Median milliseconds of a call, by events on the device or by the host's clock."""

    def __init__(self, device, runs, warm):
        self.cuda, self.runs, self.warm = device == "cuda", runs, warm

    def __call__(self, call, runs=None):
        for _ in range(self.warm):
            call()
        times = []
        for _ in range(runs or self.runs):
            if self.cuda:
                a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                torch.cuda.synchronize()
                a.record()
                call()
                b.record()
                b.synchronize()
                times.append(a.elapsed_time(b))
            else:
                t = time.perf_counter()
                call()
                times.append((time.perf_counter() - t) * 1e3)
        return statistics.median(times), min(times)


def autocast(device):
    """bf16 on the device; plain float32 on a CPU, where old versions take seconds for a bf16 convolution"""
    return torch.autocast(device_type=device, dtype=torch.bfloat16, enabled=device == "cuda")


# ---- inference -------------------------------------------------------------------------------------------------------
def infer_cell(a, clock, ngf, blocks, w, h, batch, how):
    net = Generator(ngf, blocks).eval().to(a.device)
    x = torch.rand(batch, 3, h, w, device=a.device) * 2 - 1
    if "nhwc" in how:
        net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    if "pure" in how:
        net, x = net.bfloat16(), x.bfloat16()
    run_net = net
    if "compile" in how:
        if not hasattr(torch, "compile"):
            raise RuntimeError("this PyTorch has no torch.compile")
        run_net = torch.compile(net, mode="reduce-overhead")

    def call():
        with torch.inference_mode():
            if "amp" in how:
                with autocast(a.device):
                    return run_net(x)
            return run_net(x)

    y = call()
    if tuple(y.shape) != (batch, 3, h, w) or not bool(torch.isfinite(y.float()).all()):
        raise RuntimeError("the output is not a picture")
    return clock(call)


# ---- training --------------------------------------------------------------------------------------------------------
def adam(nets, lr, betas, device):
    kw = {"fused": True} if device == "cuda" and int(torch.__version__.split(".")[0]) >= 2 else {}
    return torch.optim.Adam([p for n in nets for p in n.parameters()], lr=lr, betas=betas, **kw)


class OneChannel(nn.Module):
    """The generator of `product`: x - tanh(h), h of one channel for all three colours."""

    def __init__(self, ngf, blocks):
        super().__init__()
        g = Generator(ngf, blocks)
        g.model[-2] = nn.Conv2d(ngf, 1, 7)
        self.g = g

    def forward(self, x):
        return x - self.g(x)


class Critic(nn.Module):
    """A discriminator with so many blur-downs: torch_net.Discriminator has three."""

    def __init__(self, ndf, downs):
        super().__init__()
        m = [nn.Conv2d(3, ndf, 4, padding=1), nn.LeakyReLU(0.2, True), Down(ndf)]
        c = ndf
        for i in range(downs):
            m += [nn.Conv2d(c, 2 * c, 4, padding=1), nn.InstanceNorm2d(2 * c), nn.LeakyReLU(0.2, True)]
            m += [Down(2 * c)] if i < downs - 1 else []
            c *= 2
        self.model = nn.Sequential(*m, nn.Conv2d(c, 1, 4, padding=1))

    def forward(self, x):
        return self.model(x)


def train_d(a, critics, opt, triples):
    for d in critics:
        d.requires_grad_(True)
    opt.zero_grad(set_to_none=True)
    with autocast(a.device):
        loss = 0
        for d, real, fake in triples:
            loss = loss + 0.5 * (F.relu(1 - d(real)).mean() + F.relu(1 + d(fake.detach())).mean())
    loss.backward()
    opt.step()
    for d in critics:
        d.requires_grad_(False)


def released_step(a, ngf, blocks, crop, batch):
    dev = a.device
    nets = Generator(ngf, blocks), Generator(ngf, blocks), Discriminator(ngf), Discriminator(ngf), Heads(ngf), Heads(ngf)
    g_a, g_b, d_a, d_b, f1, f2 = (n.to(dev) for n in nets)
    opt_g, opt_d = adam((g_a, g_b), 1e-4, (0.5, 0.999), dev), adam((d_a, d_b), 1e-4, (0.5, 0.999), dev)
    opt_f = adam((f1, f2), 1e-3, (0.9, 0.999), dev)
    x, y = (torch.rand(batch, 3, crop, crop, device=dev) * 2 - 1 for _ in range(2))

    def mean_nce(head_q, taps_q, head_k, taps_k):
        """candidates of a row: the 256 of its own picture"""
        sides = (crop, crop // 2, crop // 4, crop // 4)
        at = [torch.randperm(s * s, device=dev)[:256] for s in sides]
        with torch.no_grad():
            keys = head_k(taps_k, at)
        total = 0
        for q, k in zip(head_q(taps_q, at), keys):
            q, k = q.float().view(batch, -1, q.shape[-1]), k.float().view(batch, -1, k.shape[-1])
            sim = torch.bmm(q, k.transpose(1, 2)) / 0.07
            total = total + F.cross_entropy(sim.flatten(0, 1), torch.arange(sim.shape[1], device=dev).repeat(batch))
        return total / 4

    def step():
        with autocast(dev):
            fake_b, taps_a = g_a.with_taps(x)
            fake_a, taps_b = g_b.with_taps(y)
            idt_a, idt_b = g_a(y), g_b(x)
        train_d(a, (d_a, d_b), opt_d, ((d_a, y, fake_b), (d_b, x, fake_a)))
        opt_g.zero_grad(set_to_none=True)
        opt_f.zero_grad(set_to_none=True)
        with autocast(dev):
            adv = F.relu(1 - d_a(fake_b)).mean() + F.relu(1 - d_b(fake_a)).mean()
            contrast = mean_nce(f2, g_b.with_taps(fake_b, True)[1], f1, taps_a)
            contrast = contrast + mean_nce(f1, g_a.with_taps(fake_a, True)[1], f2, taps_b)
            loss = 0.5 * adv + contrast + 0.5 * (F.l1_loss(idt_a, y) + F.l1_loss(idt_b, x))
        loss.backward()
        opt_g.step()
        opt_f.step()
        return loss

    return step


def product_step(a, ngf, blocks, crop, batch):
    dev = a.device
    g, ema = OneChannel(ngf, blocks).to(dev), OneChannel(ngf, blocks).to(dev).requires_grad_(False)
    d_n, d_r = Critic(32, 2).to(dev), Critic(32, 2).to(dev)
    opt_g, opt_d = adam((g,), 2e-4, (0.5, 0.999), dev), adam((d_n, d_r), 2e-4, (0.5, 0.999), dev)
    x, y = (torch.rand(batch, 3, crop, crop, device=dev) * 2 - 1 for _ in range(2))
    live, slow = list(g.parameters()), list(ema.parameters())

    def step():
        with autocast(dev):
            dry = g(x)
            wet = (y + x - dry).clamp(-1, 1)
        train_d(a, (d_n, d_r), opt_d, ((d_n, y, dry), (d_r, x, wet)))
        opt_g.zero_grad(set_to_none=True)
        with autocast(dev):
            adv = -d_n(dry).mean() - d_r(wet).mean()
            loss = 0.5 * adv + 10 * F.l1_loss(g(wet.detach()), y) + 10 * F.l1_loss(g(y), y)
        loss.backward()
        opt_g.step()
        with torch.no_grad():
            torch._foreach_mul_(slow, 0.999)
            torch._foreach_add_(slow, live, alpha=0.001)
        return loss

    return step


def train_cell(a, clock, preset, ngf, blocks, crop, batch):
    make = {"released": released_step, "product": product_step}[preset]
    step = make(a, ngf, blocks, crop, batch)
    loss = step()
    if not bool(torch.isfinite(loss.float())):
        raise RuntimeError("the loss is not finite")
    return clock(step, max(1, clock.runs // 2))


def matmul_cell(a, clock, n):
    x, y = (torch.randn(n, n, device=a.device, dtype=torch.bfloat16) for _ in range(2))
    return clock(lambda: x @ y)


# ---- the list --------------------------------------------------------------------------------------------------------
def cells(a):
    """(part, name, function, arguments, seconds at most) in the order in which they matter"""
    tiny = a.tiny
    big, small = ((16, 5), (16, 5)) if tiny else ((64, 9), (32, 6))
    sizes = [(64, 64, 1), (64, 64, 2)] if tiny else [(256, 256, 1), (512, 512, 1), (1920, 1080, 1), (256, 256, 8)]
    more = [] if tiny else [(256, 256, 4), (256, 256, 2)]  # of the large network alone, and after all training
    ways = ["amp-nchw", "amp-nhwc", "pure-nchw", "pure-nhwc"]
    row = "ngf%d-%db %dx%d b%d"
    if "matmul" in a.only:
        n = 256 if tiny else 8192
        yield "matmul", "bf16 %d^3" % n, matmul_cell, (n,), 30
    if "infer" in a.only:
        for ngf, blocks in (big, small)[: 1 if tiny else 2]:
            for w, h, batch in sizes:
                for how in ways:
                    yield "infer", row % (ngf, blocks, w, h, batch) + " " + how, infer_cell, (ngf, blocks, w, h, batch, how), 40
    if "train" in a.only:
        for batch in (1,) if tiny else (1, 4, 8, 16):
            crop = 64 if tiny else 256
            name = "released ngf%d-%db crop %d b%d" % (*big, crop, batch)
            yield "train", name, train_cell, ("released", *big, crop, batch), 60
        crop, batch = (64, 1) if tiny else (128, 8)
        yield "train", "product ngf%d-%db crop %d b%d" % (*big, crop, batch), train_cell, ("product", *big, crop, batch), 60
    if "infer" in a.only:
        for w, h, batch in more:
            for how in ways:
                yield "infer", row % (*big, w, h, batch) + " " + how, infer_cell, (*big, w, h, batch, how), 40
    if "compile" in a.only:  # half a minute a size: the caller gives it time of its own
        for w, h in ((64, 64),) if tiny else ((512, 512), (1920, 1080), (256, 256)):
            yield "infer", row % (*big, w, h, 1) + " compile-amp-nchw", infer_cell, (*big, w, h, 1, "compile-amp-nchw"), 90


def measure(a):
    clock = Clock(a.device, 1 if a.tiny else 7 if a.quick else 20, 0 if a.tiny else 3 if a.quick else 5)
    start, out = time.monotonic(), []
    for part, name, call, args, cap in cells(a):
        left = a.seconds - (time.monotonic() - start) if a.seconds else cap
        cell = {"part": part, "name": name}
        if left < min(cap, 5) and a.seconds:
            cell["left_out"] = "no time left of %d s" % a.seconds
        else:
            try:
                if a.device == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                with at_most(min(cap, left)):
                    cell["median_ms"], cell["min_ms"] = (round(v, 4) for v in call(a, clock, *args))
                if a.device == "cuda":
                    cell["peak_mb"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
                if part == "matmul":
                    cell["tflops"] = round(2 * args[0] ** 3 / cell["median_ms"] / 1e9, 2)
            except (Slow, RuntimeError, NotImplementedError, TypeError, AttributeError, ImportError) as e:
                cell["left_out"] = str(e).strip().split("\n")[0][:160] or type(e).__name__
            except Exception as e:  # the compiler raises classes of its own
                cell["left_out"] = "%s: %s" % (type(e).__name__, (str(e).strip() or "?").split("\n")[0][:140])
        text = "%.3f ms" % cell["median_ms"] if "median_ms" in cell else "left out: " + cell["left_out"]
        print("%-7s %-46s %s" % (part, name, text), flush=True)
        out.append(cell)
        write(a, out)
    return out


def write(a, out):
    if not a.out:
        return
    head = {"torch": torch.__version__, "device": a.device, "quick": a.quick, "tiny": a.tiny}
    if a.device == "cuda":
        head["name"], head["cuda"] = torch.cuda.get_device_name(0), torch.version.cuda
        head["cudnn"] = torch.backends.cudnn.version()
    with open(a.out + ".part", "w") as f:
        json.dump({**head, "cells": out}, f, indent=1)
    os.replace(a.out + ".part", a.out)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    p.add_argument("--only", default="matmul,infer,train")
    p.add_argument("--quick", action="store_true")
    p.add_argument("--tiny", action="store_true")
    p.add_argument("--seconds", type=float, default=0)
    p.add_argument("--out")
    a = p.parse_args()
    a.only = a.only.split(",")
    if set(a.only) - {"matmul", "infer", "train", "compile"}:
        p.error("--only takes matmul, infer, train and compile, with commas between")
    if a.device == "cuda" and not torch.cuda.is_available():
        print("torch_ref: this PyTorch (%s) sees no CUDA device" % torch.__version__, file=sys.stderr)
        return 77
    if a.device == "cuda":
        torch.backends.cudnn.benchmark = True  # as a user who wants speed sets it
    else:
        torch.set_num_threads(1)  # the CPU only tests this code; OMP_NUM_THREADS=1 does the same for the backward threads
    out = measure(a)
    return 0 if any("median_ms" in c for c in out) else 1


if __name__ == "__main__":
    sys.exit(main())
