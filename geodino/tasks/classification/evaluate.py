"""What a model says of whole images."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch
from jaxtyping import Float32

from geodino.data.parallel import in_order
from geodino.models.classification import ClassificationModel
from geodino.tasks.classification.source import ImageSource

_BATCH = 64
"""Images of a forward pass."""


@torch.inference_mode()
def probabilities(
    model: ClassificationModel, source: ImageSource, keys: Sequence[str], *, threads: int
) -> Float32[np.ndarray, "n k"]:
    """Return the probability of each class of images, in their order.

    Args:
        model: in evaluation mode, on its device.
        source: reads them.
        keys: the images.
        threads: that read.
    """
    device = next(model.head.parameters()).device
    found = [np.zeros((0, model.classes), np.float32)]
    with closing(in_order(source.read, keys, threads=threads, ahead=_BATCH)) as images:
        for start in range(0, len(keys), _BATCH):
            part = [next(images) for _ in keys[start : start + _BATCH]]
            pixels = torch.from_numpy(np.stack([values for values, _ in part])).to(device)
            valid = torch.from_numpy(np.stack([used for _, used in part])).to(device)
            found.append(model.probabilities(pixels, valid).cpu().numpy())
    return np.concatenate(found)
