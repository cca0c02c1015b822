"""The model of a prediction: what it computes, at which size of chips, and what is stored."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError

from geodino.errors import CheckpointError
from geodino.geo.contract import InputContract
from geodino.infer.engine import Predictor
from geodino.infer.heights import HeightPredictor, HeightProduct, Interval
from geodino.infer.symmetries import Symmetric
from geodino.metrics.conformal import QuantileIntervals, ResidualIntervals
from geodino.metrics.recalibration import HeightCurve
from geodino.models.canopy_folder import LoadedCanopy, is_canopy_folder
from geodino.models.canopy_open import is_canopy, open_canopy
from geodino.models.folder import ITEM, LoadedModel
from geodino.models.foreign.hugging_face import fetch
from geodino.runs.mapping.chips import chip_overlap, chip_side
from geodino.runs.models import OpenedModel, open_model, tensors_hash
from geodino.runs.predict.job import HEIGHT_TYPES, SYMMETRIES

RECALIBRATION = "recalibration"
"""Entry of ``extra`` in ``canopy.json``: the curve that the model's heights go through."""

_HUB = "hub:"

_INTERVALS: TypeAdapter[ResidualIntervals | QuantileIntervals] = TypeAdapter(
    Annotated[ResidualIntervals | QuantileIntervals, Field(discriminator="kind")]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A model with a head, and how its maps are made."""

    canopy: LoadedCanopy
    name: str
    sha256: str
    """Hash of its weights, and of the curve its heights go through, if there is one."""

    item: str
    """Where the model is described: the STAC item of its folder, or its address."""

    curve: HeightCurve | None = None
    """What becomes of its heights: a recalibration on local labels."""

    @classmethod
    def open(cls, model: str) -> "Task":
        """Open MODEL.

        Raises:
            CheckpointError: there is no model there, one without a head, or one whose recalibration
                cannot be read.
        """
        if not model.startswith(_HUB) and Path(model).exists() and not is_canopy(model):
            raise CheckpointError(
                f"{model} holds a backbone and no head: it has features, not heights. Train a head "
                "with `geodino finetune canopy --model`, or write features with `geodino embed`."
            )
        loaded = open_canopy(model)
        name = model if model.startswith(_HUB) else Path(model).resolve().name
        if name == "model":
            name = Path(model).resolve().parent.name
        sha256 = tensors_hash(loaded.model.state_dict())
        curve = _curve(loaded, name)
        if curve is not None:
            sha256 = hashlib.sha256(f"{sha256} {curve.model_dump_json()}".encode()).hexdigest()
        return cls(canopy=loaded, name=name, sha256=sha256, item=_item(model), curve=curve)

    @classmethod
    def within(cls, model: str) -> "Task | None":
        """Open MODEL if it has a head; None for a backbone alone.

        Raises:
            CheckpointError: it is damaged, or cannot be fetched.
        """
        place = str(fetch(model.removeprefix(_HUB))) if model.startswith(_HUB) else model
        return cls.open(model) if is_canopy(place) else None

    def described(self, model: str) -> OpenedModel:
        """Return the backbone as every form of MODEL is opened, sharing its weights."""
        canopy = self.canopy
        backbone = canopy.model.backbone
        if any(is_canopy_folder(folder) for folder in (Path(model), Path(model) / "model")):
            opened = open_model(model)
            return replace(opened, loaded=replace(opened.loaded, backbone=backbone))
        loaded = LoadedModel(
            backbone=backbone,
            heads={},
            contract=canopy.contract,
            config=backbone.config,
            head_configs={},
            license=canopy.license,
            lineage=canopy.lineage,
        )
        return OpenedModel(
            loaded=loaded,
            name=self.name,
            sha256=tensors_hash(backbone.state_dict()),
            image_size=self.chip(None),
            item=model,
            folder=None,
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
        side = (self._made("chip") or 448) if wanted is None else wanted
        return chip_side(side, patch=self.align)

    def overlap(self, wanted: int | None, *, chip: int) -> int:
        """Return the pixels that chips share.

        Raises:
            RecipeError: not a whole number of patches, or more than half a chip.
        """
        return chip_overlap(wanted, chip=chip, patch=self.align, default=self._made("overlap"))

    def gsd(self, wanted: float | None) -> float | None:
        """Return the ground sampling distance the model is shown, metres; None is the raster's."""
        own = self.canopy.extra.get("gsd_m")
        return wanted if wanted is not None else own if isinstance(own, int | float) else None

    def predictor(
        self, device: torch.device, *, scale: float | None, symmetries: str = "none"
    ) -> Predictor:
        """Return the model on its device.

        Args:
            device: that computes.
            scale: what stored values are multiplied by first.
            symmetries: orientations whose mean is taken.
        """
        heights = HeightPredictor(self.canopy.model, device=device, scale=scale, curve=self.curve)
        return heights if symmetries == "none" else Symmetric(heights, SYMMETRIES[symmetries])

    def product(self, dtype: str = "float32", *, interval: bool = True) -> HeightProduct:
        """Return what is stored.

        Args:
            dtype: of heights.
            interval: whether the ends of the interval are too, where the model has one.

        Raises:
            CheckpointError: the model's calibration cannot be read.
        """
        return HeightProduct(
            dtype=HEIGHT_TYPES[dtype], interval=self._interval() if interval else None
        )

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

    def _made(self, name: str) -> int | None:
        """Return what the model was made with."""
        found: Any = self.canopy.extra.get(name)
        return found if isinstance(found, int) else None


def _curve(loaded: LoadedCanopy, name: str) -> HeightCurve | None:
    """Return the curve a model's heights go through; None where they are the head's own."""
    found = loaded.extra.get(RECALIBRATION)
    if found is None:
        return None
    try:
        return HeightCurve.model_validate(found)
    except ValidationError as error:
        raise CheckpointError(
            f"{name}: its recalibration in canopy.json cannot be read ({error}). Recalibrate the "
            "model it began with again."
        ) from error


def _item(model: str) -> str:
    """Return the STAC item of a model's folder, or the address of one that has none."""
    if model.startswith(_HUB):
        return f"https://huggingface.co/{model.removeprefix(_HUB)}"
    places = (Path(model) / "model" / ITEM, Path(model) / ITEM)
    return next((str(place) for place in places if place.is_file()), model)
