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
    """The losses of a step: the head's own where it brings some, else those of the recipe.

    Args:
        config: which.
        weights: of each class; None counts them alike.
    """

    config: ClassLossConfig
    weights: tuple[float, ...] | None = None

    def __call__(self, model: SegmentationModel, batch: ClassBatch) -> dict[str, Float[Tensor, ""]]:
        """Return the losses by name; ``total`` is what is minimised."""
        counted = batch.known & batch.valid
        pixels = batch.pixels.float()
        own = model.own_losses(pixels, batch.valid, batch.classes, counted)
        if own is not None:
            return own
        logits = model(pixels, batch.valid)
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
