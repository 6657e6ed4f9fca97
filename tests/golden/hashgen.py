"""hashgen.py - weights, pictures and patch positions from one integer hash, the same bits as hashgen.h (see there)."""
import math

import numpy as np

M64 = (1 << 64) - 1


def name_hash(name):
    h = 0xCBF29CE484222325  # FNV-1a, 64 bit
    for c in name.encode():
        h = ((h ^ c) * 0x100000001B3) & M64
    return h


def bits(name, n):
    """64 well mixed bits for each of the elements 0..n-1 of the array `name`."""
    with np.errstate(over="ignore"):
        z = np.uint64(name_hash(name)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def unit(name, n):
    """Uniform in [-1,1), exact in f32."""
    return ((bits(name, n) >> np.uint64(40)).astype(np.int64) - (1 << 23)).astype(np.float32) * np.float32(2.0**-23)


def fill(name, scale, shape, offset=0.0):
    """Array `name`, uniform in [-scale, scale); scale is rounded to f32 first. offset is added to the magnitude."""
    v = unit(name, int(np.prod(shape))) * np.float32(scale)
    if offset:
        v = np.where(v < 0, v - np.float32(offset), v + np.float32(offset))
    return v.reshape(shape)


def scale(gain, fan_in):
    """Factor that gives a weight with fan_in inputs the variance gain^2 / fan_in."""
    return np.float32(gain * math.sqrt(3.0 / fan_in))


def pixels(name, shape):
    return (bits(name, int(np.prod(shape))) >> np.uint64(56)).astype(np.uint8).reshape(shape)


def picture(name, shape):
    """8-bit picture as floats in [-1,1], rounded as METHOD.md section 10 does it in f32."""
    x = pixels(name, shape).astype(np.float32) / np.float32(255)
    return (x - np.float32(0.5)) / np.float32(0.5)


def smooth_picture(name, channels, side, cell):
    """Square picture in [-1,1]: 8-bit values of the hash every `cell` pixels, bilinear between them."""
    g = side // cell + 1
    p = pixels(name, (channels, g, g)).astype(np.int64)
    c, f = np.arange(side) // cell, np.arange(side) % cell
    rows = p[:, c] * (cell - f)[:, None] + p[:, c + 1] * f[:, None]
    v = rows[:, :, c] * (cell - f) + rows[:, :, c + 1] * f
    return (v / (cell * cell) / 127.5 - 1.0).astype(np.float32)


def positions(name, n, s):
    """The first s entries of a permutation of 0..n-1: the positions sorted by their hash."""
    return np.argsort(bits(name, n), kind="stable")[:s].astype(np.int64)


def project(name, v):
    """64 random projections of v with the hash's bits as signs (see hg_project)."""
    v = np.asarray(v, dtype=np.float64).reshape(-1)
    b = bits(name, v.size)
    return np.array([np.sum(np.where((b >> np.uint64(k)) & np.uint64(1), v, -v)) for k in range(64)])
