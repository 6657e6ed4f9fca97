#!/usr/bin/python3
"""make_generator.py - expected generator outputs from PyTorch, for tests/core/test_golden_generator.c.

    /usr/bin/python3 tests/golden/make_generator.py        writes tests/golden/generator.inc (about two minutes)

Weights and the 8-bit input picture come from hashgen.py, so the test makes the same ones by itself. For each network,
size and kind of output the file keeps: the 12 corner samples and 256 strided ones (as integers of 1e-6), mean and
standard deviation of all samples, and 16 random projections of the whole output, whose differences estimate the root
mean square error over every pixel. The network runs in float32; the smallest ones run in float64 too, and the largest
difference between the two stands in the file as a measure of PyTorch's own rounding."""
import math
import os
import sys

import numpy as np
import torch

import hashgen
import reference

SIZES = ((256, 256), (250, 333), (16, 16))  # height, width
SAMPLES, PROJECTIONS = 256, 16


def stride_of(n):
    """Coprime to n and near the golden section: k*stride mod n spreads evenly over rows, columns and channels."""
    step = int(0.6180339887498949 * n) | 1
    while math.gcd(step, n) != 1:
        step += 2
    return step


def sample_indices(h, w):
    n = 3 * h * w
    corners = [c * h * w + y * w + x for c in range(3) for y in (0, h - 1) for x in (0, w - 1)]
    return np.array(corners + [k * stride_of(n) % n for k in range(SAMPLES)])


def main():
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    rows, worst = [], 0.0
    for ngf in (16, 32, 64):
        for blocks in (6, 9):
            for residual in (0, 3, 1):
                p = reference.hash_params("G_A", reference.generator_shapes(ngf, blocks, residual))
                for h, w in SIZES:
                    x = torch.from_numpy(hashgen.picture("input", (1, 3, h, w)))
                    with torch.inference_mode():
                        y = reference.derain(p, x, blocks, residual).double().numpy().reshape(-1)
                        if ngf == 16:
                            p64 = {k: v.double() for k, v in p.items()}
                            y64 = reference.derain(p64, x.double(), blocks, residual).numpy().reshape(-1)
                            worst = max(worst, float(np.abs(y - y64).max()))
                    assert y.std() > 0.3, "a flat output proves nothing"
                    proj = hashgen.project("projection", y)[:PROJECTIONS]
                    micro = np.rint(y[sample_indices(h, w)] * 1e6).astype(int)
                    rows.append(
                        "{%d, %d, %d, %d, %d, %d, %.9g, %.9g,\n {%s},\n {%s}},"
                        % (ngf, blocks, residual, h, w, stride_of(3 * h * w), y.mean(), y.std(),
                           ",".join("%.8g" % v for v in proj), ",".join(map(str, micro)))
                    )
                    print("ngf", ngf, "blocks", blocks, "residual", residual, (h, w), "std %.4f" % y.std(), flush=True)
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "generator.inc"), "w") as f:
        f.write(
            "/* generator.inc - written by tests/golden/make_generator.py with PyTorch %s; do not edit.\n"
            " * Largest difference of PyTorch's float32 from its float64 output, ngf 16: %.2g. */\n" % (torch.__version__, worst)
        )
        f.write("enum { GOLDEN_SAMPLES = %d, GOLDEN_PROJECTIONS = %d };\n" % (12 + SAMPLES, PROJECTIONS))
        f.write(
            "typedef struct golden_case {\n    int ngf, blocks, residual, h, w, stride;\n    double mean, std;\n"
            "    double projection[GOLDEN_PROJECTIONS];\n    int micro[GOLDEN_SAMPLES];\n} golden_case;\n"
        )
        f.write("static const golden_case golden_cases[] = {\n" + "\n".join(rows) + "\n};\n")


if __name__ == "__main__":
    main()
