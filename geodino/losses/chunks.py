"""How many rows to work on at once, so that temporaries stay small and, on a CPU, in its cache."""

import torch

_CACHE_BYTES = {"cpu": 1 << 20, "other": 1 << 28}
"""One temporary of an elementwise block: half a CPU core's L2; elsewhere launches are dear."""

_MATMUL_BYTES = {"cpu": 1 << 26, "other": 1 << 29}
"""One block of logits that matrix products read and write."""


def cache_rows(columns: int, device: torch.device, *, itemsize: int = 4) -> int:
    """Return how many rows of ``columns`` numbers an elementwise block should hold, at least 1."""
    return _rows(_CACHE_BYTES, columns, device, itemsize)


def matmul_rows(columns: int, device: torch.device, *, itemsize: int = 4) -> int:
    """Return how many rows of ``columns`` numbers a block of matrix products should hold.

    Larger than `cache_rows`: the gradient of the prototypes is read and written once a block.
    """
    return _rows(_MATMUL_BYTES, columns, device, itemsize)


def _rows(budget: dict[str, int], columns: int, device: torch.device, itemsize: int) -> int:
    limit = budget["cpu" if device.type == "cpu" else "other"]
    return max(1, limit // max(1, columns * itemsize))
