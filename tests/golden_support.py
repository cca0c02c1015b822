"""Numbers that the reference's inputs and weights were made of."""

from zlib import crc32

import numpy as np
import torch


def fill(key, shape):
    """The reference's made-up numbers: uniform of variance 1, made from a name (SplitMix64)."""
    count = torch.Size(shape).numel()
    with np.errstate(over="ignore"):
        z = np.uint64(crc32(key.encode()) << 32)
        z = z + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    uniform = ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
    return torch.from_numpy(3**0.5 * (2 * uniform - 1)).float().reshape(shape)
