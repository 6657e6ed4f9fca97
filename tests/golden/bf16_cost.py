#!/usr/bin/python3
"""bf16_cost.py - what bf16 costs PyTorch itself: how far the gradients of a training step under its CPU autocast are from
its own float32.

    /usr/bin/python3 tests/golden/bf16_cost.py [NAME...]          of released, cycle, full, transplant; a minute

The same nets, pictures and weights as the golden tests (make_train.py), and the measure of tests/cuda/test_parity_step.c:
||g - ref|| / (||ref|| + 1e-4 sqrt(n)) a tensor: the largest of all, the largest and the median of the weights'. The
figures in docs/internals/cuda.md come from here; nothing is written."""
import sys

import numpy as np
import torch

import make_train


def distances(got, want):
    return {
        k: np.linalg.norm(got[k] - want[k]) / (np.linalg.norm(want[k]) + 1e-4 * np.sqrt(want[k].size)) for k in want
    }


def main():
    torch.set_num_threads(1)
    for name in sys.argv[1:] or ("released", "full", "transplant"):
        run = make_train.RUNS[name]
        _, losses, grads = make_train.train(run, torch.float32, steps=1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, losses16, grads16 = make_train.train(run, torch.float32, steps=1)
        d = distances(grads16, grads)
        loss = max(abs(losses16[0][k] - v) / (abs(v) + 1e-3) for k, v in losses[0].items())
        most = max(d, key=d.get)
        weights = [v for k, v in d.items() if k.endswith(".weight")]
        print(
            "%s: losses %.2g, gradients %.2g (%s), of weights %.2g, median %.2g"
            % (name, loss, d[most], most, max(weights), np.median(weights))
        )


if __name__ == "__main__":
    main()
