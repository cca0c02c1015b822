"""What a head that finds objects is asked."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geodino import seeds
from geodino.models.detection.faster_rcnn import DetectionModel
from geodino.tasks.detection.batch import BoxBatch


@dataclass(frozen=True, slots=True)
class BoxObjective:
    """The losses of a step.

    Args:
        seed: of the run. Which boxes are learnt from depends on it and the step alone, so that a
            resumed run goes on as it would have.
    """

    seed: int

    def __call__(self, model: DetectionModel, batch: BoxBatch) -> dict[str, Float[Tensor, ""]]:
        """Return the losses by name; ``total`` is what is minimised."""
        generator = torch.Generator()
        generator.manual_seed(seeds.integer(self.seed, "boxes", batch.step) >> 1)
        return model.losses(
            batch.pixels.float(),
            batch.valid,
            batch.objects,
            ground=batch.ground,
            generator=generator,
        )
