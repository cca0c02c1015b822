"""Randomness as a function of a key: the same key gives the same numbers on any machine.

Everything random in geodino is drawn from a key such as ``(seed, "views", sample)``, never from
the state of a generator that was used before. A resumed or redistributed run therefore draws
what the uninterrupted run on one process draws.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Key = int | str
"""One part of a key. Integers and strings never collide with each other."""

_ROUNDS = 6


def integer(*key: Key) -> int:
    """Return the 64-bit integer of a key: BLAKE2b over its parts, each with its type and length."""
    digest = blake2b(digest_size=8)
    for part in key:
        text = f"{type(part).__name__}:{part}"
        digest.update(f"{len(text)}:{text}".encode())
    return int.from_bytes(digest.digest(), "little")


def rng(*key: Key) -> np.random.Generator:
    """Return a generator that belongs to ``key`` (Philox, counter-based)."""
    return np.random.Generator(np.random.Philox(key=integer(*key)))


def permuted(index: NDArray[np.int64], size: int, *key: Key) -> NDArray[np.int64]:
    """Return where a pseudo-random permutation of ``range(size)`` sends each entry of ``index``.

    A Feistel network over the next even power of two, walked until the value falls inside the
    range (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Needs no memory
    beyond its input, so an order over 1e9 samples costs nothing to start anywhere.

    Args:
        index: integers in ``[0, size)``.
        size: the length of the permuted range, at least 1.
        key: which permutation.

    Raises:
        ValueError: an index outside the range.
    """
    values = np.asarray(index, dtype=np.int64)
    if values.size and (values.min() < 0 or values.max() >= size):
        raise ValueError(f"index outside [0, {size})")
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    keys = [integer(*key, "feistel", r) for r in range(_ROUNDS)]
    out = _feistel(values.astype(np.uint64), half, keys)
    while (outside := out >= size).any():
        out[outside] = _feistel(out[outside], half, keys)
    return out.astype(np.int64)


def _feistel(values: NDArray[np.uint64], half: int, keys: list[int]) -> NDArray[np.uint64]:
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for k in keys:
        left, right = right, left ^ (_mix(right ^ np.uint64(k)) & mask)
    return (left << bits) | right


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
