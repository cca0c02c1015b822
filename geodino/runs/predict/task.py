"""The model of a prediction: what it computes, at which size of chips, and what is stored."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError

from geodino.errors import CheckpointError, RecipeError
from geodino.geo.contract import InputContract
from geodino.infer.engine import Predictor
from geodino.infer.heights import HeightPredictor, HeightProduct, Interval
from geodino.infer.symmetries import Symmetric
from geodino.metrics.conformal import QuantileIntervals, ResidualIntervals
from geodino.models.canopy_folder import LoadedCanopy
from geodino.models.canopy_open import is_canopy, open_canopy
from geodino.models.folder import ITEM
from geodino.runs.models import tensors_hash
from geodino.runs.predict.job import HEIGHT_TYPES, SYMMETRIES, PredictJob

_BATCH_PIXELS = {"cpu": 512 * 512, "cuda": 2048 * 2048}
"""Pixels of a batch: enough to keep the device busy."""

_INTERVALS: TypeAdapter[ResidualIntervals | QuantileIntervals] = TypeAdapter(
    Annotated[ResidualIntervals | QuantileIntervals, Field(discriminator="kind")]
)

_OVERLAP = 64
"""Pixels that chips share by default, a patch of which at each end is not used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A model with a head, and how its maps are made."""

    canopy: LoadedCanopy
    name: str
    sha256: str
    item: str
    """Where the model is described: the STAC item of its folder, or its address."""

    @classmethod
    def open(cls, model: str) -> "Task":
        """Open MODEL.

        Raises:
            CheckpointError: there is no model there, or one without a head.
        """
        if not model.startswith("hub:") and Path(model).exists() and not is_canopy(model):
            raise CheckpointError(
                f"{model} holds a backbone and no head: it has features, not heights. Train a head "
                "with `geodino finetune canopy --model`, or write features with `geodino embed`."
            )
        loaded = open_canopy(model)
        name = model if model.startswith("hub:") else Path(model).resolve().name
        if name == "model":
            name = Path(model).resolve().parent.name
        return cls(
            canopy=loaded,
            name=name,
            sha256=tensors_hash(loaded.model.state_dict()),
            item=_item(model),
        )

    @property
    def contract(self) -> InputContract:
        """What the model demands of its input."""
        return self.canopy.contract

    @property
    def align(self) -> int:
        """Sides of chips are multiples of it."""
        return self.canopy.model.backbone.patch_size

    def chip(self, wanted: int | None) -> int:
        """Return the side of a chip, pixels.

        Raises:
            RecipeError: not a whole number of patches.
        """
        patch = self.align
        side = self._made("chip", 448) if wanted is None else wanted
        if side < patch or side % patch:
            below = max(patch, side // patch * patch)
            raise RecipeError(
                f"--chip {side}: a chip is a whole number of patches of {patch} px. "
                f"Choose {below} or {below + patch}."
            )
        return side

    def overlap(self, wanted: int | None, *, chip: int) -> int:
        """Return the pixels that chips share.

        Raises:
            RecipeError: not a whole number of patches, or more than half a chip.
        """
        patch, most = self.align, chip // 2 // self.align * self.align
        if wanted is None:
            return min(self._made("overlap", -(-_OVERLAP // patch) * patch), most)
        if not 0 <= wanted <= most or wanted % patch:
            raise RecipeError(
                f"--overlap {wanted}: chips of {chip} px share a multiple of {patch} px, at most "
                f"{most}."
            )
        return wanted

    def gsd(self, wanted: float | None) -> float | None:
        """Return the ground sampling distance the model is shown, metres; None is the raster's."""
        own = self.canopy.extra.get("gsd_m")
        return wanted if wanted is not None else own if isinstance(own, int | float) else None

    def predictor(self, device: torch.device, job: PredictJob) -> Predictor:
        """Return the model on its device."""
        heights = HeightPredictor(self.canopy.model, device=device, scale=job.how.scale)
        return (
            heights if job.symmetries == "none" else Symmetric(heights, SYMMETRIES[job.symmetries])
        )

    def group(self, device: torch.device, job: PredictJob, *, chip: int) -> int:
        """Return how many chips are computed together: part of the result, to the last bit."""
        fitting = _BATCH_PIXELS[device.type] // (chip * chip)
        return job.how.batch or max(1, min(64, fitting))

    def product(self, job: PredictJob) -> HeightProduct:
        """Return what is stored.

        Raises:
            CheckpointError: the model's calibration cannot be read.
        """
        interval = self._interval() if job.interval else None
        return HeightProduct(dtype=HEIGHT_TYPES[job.dtype], interval=interval)

    def _interval(self) -> Interval | None:
        """Return the calibrated interval of the model; None where it has none."""
        found = self.canopy.extra.get("intervals")
        if found is None:
            return None
        try:
            calibrated: ResidualIntervals | QuantileIntervals = _INTERVALS.validate_python(found)
        except ValidationError as error:
            raise CheckpointError(
                f"{self.name}: its calibration in canopy.json cannot be read ({error}). Train or "
                "calibrate it again, or leave the interval out with --no-interval."
            ) from error
        if isinstance(calibrated, ResidualIntervals):
            residuals = calibrated
            return lambda values: residuals.interval(values[0])
        quantiles = calibrated
        return lambda values: quantiles.interval(values[1], values[-1])

    def _made(self, name: str, default: int) -> int:
        """Return what the model was made with."""
        found: Any = self.canopy.extra.get(name)
        return found if isinstance(found, int) else default


def _item(model: str) -> str:
    """Return the STAC item of a model's folder, or the address of one that has none."""
    if model.startswith("hub:"):
        return f"https://huggingface.co/{model.removeprefix('hub:')}"
    places = (Path(model) / "model" / ITEM, Path(model) / ITEM)
    return next((str(place) for place in places if place.is_file()), model)
