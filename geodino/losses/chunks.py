"""How many rows to work on at once, so that temporaries stay small and, on a CPU, in its cache."""

from torch import Tensor

_CACHE_BYTES = {"cpu": 1 << 20, "other": 1 << 27}
"""One temporary of an elementwise block: half a CPU core's L2; elsewhere launches are dear."""

_MATMUL_BYTES = {"cpu": 3 << 24, "other": 1 << 29}
"""One block of logits that matrix products read and write."""

_MATMUL_ROWS = 256
"""Rows at which a CPU's matrix products are as fast as they get; more would only cost memory."""


def cache_rows(columns: int, like: Tensor) -> int:
    """Return how many rows of ``columns`` numbers an elementwise block should hold, at least 1."""
    return _rows(_CACHE_BYTES, columns, like)


def matmul_rows(columns: int, like: Tensor) -> int:
    """Return how many rows of ``columns`` numbers a block of matrix products should hold.

    Larger than `cache_rows`: the gradient of the prototypes is read and written once a block.
    """
    rows = _rows(_MATMUL_BYTES, columns, like)
    return min(rows, _MATMUL_ROWS) if like.device.type == "cpu" else rows


def _rows(budget: dict[str, int], columns: int, like: Tensor) -> int:
    limit = budget["cpu" if like.device.type == "cpu" else "other"]
    return max(1, limit // max(1, columns * like.itemsize))
