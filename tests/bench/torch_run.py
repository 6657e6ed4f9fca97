"""torch_run.py - the PyTorch peer of tests/bench/bench.sh: one timed run for each line on stdin, one answer a line.

    torch_run.py infer WxH | torch_run.py train CROP       (ngf 64, 9 blocks, batch 1, float32, 2 threads)

"infer" is a generator pass in inference_mode; "train" is a step of the minimal objective of METHOD.md section 9: two
translations, two identities, two query encoders; key features are those of the translations; the discriminators on real
and detached fake, then the generators and heads. After three warm-ups (one where a run takes longer than 5 s) it says
"ready"; then each line read gives "MILLISECONDS PEAK_RSS_MB". It waits on stdin between runs, so that two programs can
take turns on one machine. MALLOC_* settings come from the caller: without them PyTorch loses a quarter to page faults."""
import resource
import sys
import time

import torch
import torch.nn.functional as F

from torch_net import Discriminator, Generator, Heads


def infer(size):
    w, h = map(int, size.split("x"))
    net, x = Generator().eval(), torch.rand(1, 3, h, w) * 2 - 1

    def run():
        with torch.inference_mode():
            net(x)

    return run


def nce(q, k):
    target = torch.arange(q.shape[0])
    return F.cross_entropy(q @ k.detach().t() / 0.07, target)


def train(crop):
    side = int(crop)
    g_a, g_b, d_a, d_b, f1, f2 = Generator(), Generator(), Discriminator(), Discriminator(), Heads(), Heads()

    def adam(nets, lr, betas):
        return torch.optim.Adam([p for n in nets for p in n.parameters()], lr=lr, betas=betas)

    opt_g, opt_d = adam((g_a, g_b), 1e-4, (0.5, 0.999)), adam((d_a, d_b), 1e-4, (0.5, 0.999))
    opt_f = adam((f1, f2), 1e-3, (0.9, 0.999))
    a, b = torch.rand(1, 3, side, side) * 2 - 1, torch.rand(1, 3, side, side) * 2 - 1

    def positions():
        sides = (side, side // 2, side // 4, side // 4)
        return [torch.randperm(s * s)[:256] for s in sides]

    def mean_nce(head_q, taps_q, head_k, taps_k):
        at = positions()
        with torch.no_grad():
            keys = head_k(taps_k, at)
        return sum(nce(q, k) for q, k in zip(head_q(taps_q, at), keys)) / 4

    def run():
        fake_b, taps_a = g_a.with_taps(a)
        fake_a, taps_b = g_b.with_taps(b)
        idt_a, idt_b = g_a(b), g_b(a)
        for d in (d_a, d_b):
            d.requires_grad_(True)
        opt_d.zero_grad(set_to_none=True)
        for d, real, fake in ((d_a, b, fake_b), (d_b, a, fake_a)):
            loss = 0.5 * (F.relu(1 - d(real)).mean() + F.relu(1 + d(fake.detach())).mean())
            loss.backward()
        opt_d.step()
        for d in (d_a, d_b):
            d.requires_grad_(False)
        opt_g.zero_grad(set_to_none=True)
        opt_f.zero_grad(set_to_none=True)
        adv = F.relu(1 - d_a(fake_b)).mean() + F.relu(1 - d_b(fake_a)).mean()
        contrast = mean_nce(f2, g_b.with_taps(fake_b, True)[1], f1, taps_a)
        contrast = contrast + mean_nce(f1, g_a.with_taps(fake_a, True)[1], f2, taps_b)
        identity = F.l1_loss(idt_a, b) + F.l1_loss(idt_b, a)
        (0.5 * adv + contrast + 0.5 * identity).backward()
        opt_g.step()
        opt_f.step()

    return run


def main():
    torch.set_num_threads(2)
    run = {"infer": infer, "train": train}[sys.argv[1]](sys.argv[2])
    start = time.perf_counter()
    run()
    if time.perf_counter() - start < 5:
        run()
        run()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        ms = (time.perf_counter() - start) * 1e3
        print("%.1f %.0f" % (ms, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6), flush=True)


main()
