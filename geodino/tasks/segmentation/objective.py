"""What a head that tells classes apart is asked."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from geodino.losses.segmentation import dice_loss, focal_loss, pixel_cross_entropy
from geodino.models.segmentation import SegmentationModel
from geodino.tasks.segmentation.batch import ClassBatch
from geodino.tasks.segmentation.config import ClassLossConfig


@dataclass(frozen=True, slots=True)
class ClassObjective:
    """The losses of a step.

    Args:
        config: which.
        weights: of each class; None counts them alike.
    """

    config: ClassLossConfig
    weights: tuple[float, ...] | None = None

    def __call__(self, model: SegmentationModel, batch: ClassBatch) -> dict[str, Float[Tensor, ""]]:
        """Return the losses by name; ``total`` is what is minimised."""
        logits = model(batch.pixels.float(), batch.valid)
        counted = batch.known & batch.valid
        config = self.config
        if config.kind == "focal":
            pixel = focal_loss(
                logits, batch.classes, counted, gamma=config.gamma, weights=self.weights
            )
        else:
            pixel = pixel_cross_entropy(logits, batch.classes, counted, weights=self.weights)
        parts: dict[str, Tensor] = {config.kind: pixel}
        total = pixel
        if config.dice > 0:
            parts["dice"] = dice_loss(logits, batch.classes, counted)
            total = total + config.dice * parts["dice"]
        return {"total": total, **parts}
