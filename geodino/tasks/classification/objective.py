"""What a head that tells whole images apart is asked."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from geodino.models.classification import ClassificationModel
from geodino.tasks.classification.batch import ImageBatch
from geodino.tasks.classification.config import ImageLossConfig


@dataclass(frozen=True, slots=True)
class ImageObjective:
    """The loss of a step.

    Args:
        config: how the truth is smoothed.
    """

    config: ImageLossConfig

    def __call__(
        self, model: ClassificationModel, batch: ImageBatch
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the loss by name; ``total`` is what is minimised."""
        logits = model(batch.pixels, batch.valid).float()
        smooth = self.config.label_smoothing
        if batch.labels.ndim == 1:
            loss = F.cross_entropy(logits, batch.labels, label_smoothing=smooth)
        else:
            truth = batch.labels.float() * (1 - smooth) + smooth / 2
            loss = F.binary_cross_entropy_with_logits(logits, truth)
        return {"total": loss, "cross_entropy": loss}
