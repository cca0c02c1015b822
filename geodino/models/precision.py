"""What matrices are multiplied in, where a model only predicts."""

from contextlib import AbstractContextManager

import torch


def multiplying_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which matrices are multiplied in ``dtype`` and sums stay in float32.

    It is torch's autocast; within it a model may give what it says in ``dtype``.

    Args:
        dtype: bfloat16, or float32 for no change.
        device: where the model is.
    """
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
