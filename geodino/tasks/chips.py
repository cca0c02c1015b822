"""How chips cover what a model is judged on: exactly as predictions are made."""

from dataclasses import dataclass

from geodino.infer.cover import Cover, chip_group
from geodino.infer.engine import Predictor


@dataclass(frozen=True, kw_only=True, slots=True)
class Chips:
    """How chips cover an image."""

    chip: int
    """Side, pixels of the model's grid."""

    overlap: int
    """Pixels that neighbours share."""

    @classmethod
    def fitting(cls, *, chip: int, overlap: int | None, align: int) -> "Chips":
        """Round a chip up, and its overlap to the nearest allowed; None is a quarter of a chip."""
        side = -(-chip // align) * align
        wanted = side / 4 if overlap is None else overlap
        shared = min(round(wanted / align), side // 2 // align) * align
        return cls(chip=side, overlap=shared)

    def cover(self, height: int, width: int, *, predictor: Predictor) -> Cover:
        """Return how they cover an image, and how many are computed together, as predictions do."""
        return Cover.of(
            height,
            width,
            chip=self.chip,
            overlap=self.overlap,
            align=predictor.align,
            group=chip_group(None, chip=self.chip, device=predictor.device),
        )
