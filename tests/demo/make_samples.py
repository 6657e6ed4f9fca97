#!/usr/bin/python3
"""make_samples.py - how the two pictures of the demo were made: public-domain photographs plus drawn rain.

    apt-get download python3-scipy python3-skimage      # Debian 12: 1.10.1-2 and 0.19.3-8
    dpkg-deb -x python3-scipy_*.deb x; dpkg-deb -x python3-skimage_*.deb x
    tests/demo/make_samples.py x/usr/lib/python3/dist-packages tests/demo

Needs numpy and Pillow. The rain has a fixed seed, so the same inputs give the same pixels. Terms: see LICENSE here.
"""
import bz2
import math
import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 2  # streaks are drawn at twice the size and scaled down, which smooths their edges


def streaks(rng, width, height, count, length, slant_deg, thickness):
    """One layer of falling drops as a picture of 0..1: short lines of nearly the same direction."""
    layer = Image.new("L", (width * SIZE, height * SIZE))
    draw = ImageDraw.Draw(layer)
    for _ in range(count):
        x, y = rng.uniform(-0.1, 1.1) * width * SIZE, rng.uniform(-0.1, 1.1) * height * SIZE
        n = length * rng.uniform(0.6, 1.4) * SIZE
        a = math.radians(slant_deg + rng.normal(0, 1.5))
        draw.line([x, y, x + n * math.sin(a), y + n * math.cos(a)], int(rng.uniform(90, 255)), thickness)
    layer = layer.filter(ImageFilter.GaussianBlur(0.7)).resize((width, height), Image.LANCZOS)
    return np.asarray(layer, np.float64) / 255


def rain(picture, seed, slant_deg, heavy):
    """Picture plus rain, the usual model: drops add the same light to all colours, and the sensor clips."""
    rng = np.random.RandomState(seed)
    clean = np.asarray(picture.convert("RGB"), np.float64) / 255
    h, w, _ = clean.shape
    far = streaks(rng, w, h, int(420 * heavy), 16, slant_deg, 1)
    near = streaks(rng, w, h, int(170 * heavy), 38, slant_deg + 2, 2)
    out = clean + (0.3 * far + 0.5 * near)[:, :, None]
    return Image.fromarray((out.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    src, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    face = bz2.decompress((src / "scipy/misc/face.dat").read_bytes())
    raccoon = Image.fromarray(np.frombuffer(face, np.uint8).reshape(768, 1024, 3)).resize((640, 480), Image.LANCZOS)
    launch = Image.open(src / "skimage/data/rocket.jpg").convert("RGB")
    rain(raccoon, 20, -12, 2.0).save(out / "raccoon.jpg", quality=92, subsampling=0)
    rain(launch, 21, 9, 1.0).save(out / "launch.jpg", quality=92, subsampling=0)


if __name__ == "__main__":
    main()
