"""The model of a prediction: what it computes, at which size of chips, and what is stored."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError

from geodino import files
from geodino.errors import CheckpointError
from geodino.geo.contract import InputContract
from geodino.infer.engine import Predictor
from geodino.infer.heights import HeightPredictor, HeightProduct, Interval
from geodino.infer.symmetries import Symmetric
from geodino.metrics.conformal import QuantileIntervals, ResidualIntervals
from geodino.models.canopy_folder import LoadedCanopy, is_canopy_folder
from geodino.models.canopy_open import is_canopy, open_canopy
from geodino.models.folder import ITEM, LoadedModel
from geodino.models.foreign.hugging_face import fetch
from geodino.runs.mapping.chips import chip_overlap, chip_side
from geodino.runs.models import OpenedModel, open_model, tensors_hash
from geodino.runs.predict.job import HEIGHT_TYPES, SYMMETRIES
from geodino.tasks.canopy.applicability import APPLICABILITY, Applicability, load_applicability

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
    item: str
    """Where the model is described: the STAC item of its folder, or its address."""

    folder: Path | None = None
    """Its model folder; None where its files are not in ours."""

    @classmethod
    def open(cls, model: str) -> "Task":
        """Open MODEL.

        Raises:
            CheckpointError: there is no model there, or one without a head.
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
        return cls(
            canopy=loaded, name=name, sha256=sha256, item=_item(model), folder=_folder(model)
        )

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
        self,
        device: torch.device,
        *,
        scale: float | None,
        symmetries: str = "none",
        applicability: bool = False,
    ) -> Predictor:
        """Return the model on its device.

        Args:
            device: that computes.
            scale: what stored values are multiplied by first.
            symmetries: orientations whose mean is taken.
            applicability: whether the distance from the training ground is the last channel.

        Raises:
            CheckpointError: the model does not know that distance.
        """
        distances = self.applicability().to(device).distances if applicability else None
        heights = HeightPredictor(
            self.canopy.model, device=device, scale=scale, distances=distances
        )
        return heights if symmetries == "none" else Symmetric(heights, SYMMETRIES[symmetries])

    def applicability(self) -> Applicability:
        """Return what the model keeps of its training ground.

        Raises:
            CheckpointError: it keeps nothing, or the file is damaged or of another model.
        """
        kept = None if self.folder is None else load_applicability(self.folder)
        if kept is None:
            raise CheckpointError(
                f"{self.name} keeps no features of its training ground ({APPLICABILITY} in its "
                "folder), so it cannot say how far a raster is from it: leave --applicability out, "
                "or train a head that keeps them with `geodino finetune canopy`."
            )
        width = self.canopy.model.backbone.dim
        if kept.tokens.shape[1] != width:
            raise CheckpointError(
                f"{self.folder}/{APPLICABILITY} holds features of width {kept.tokens.shape[1]}, the "
                f"model's have {width}: it is of another model. Export the canopy model again."
            )
        return kept

    def applicability_sha256(self) -> str | None:
        """Return a hash of what is kept of the training ground; None where nothing is."""
        path = None if self.folder is None else self.folder / APPLICABILITY
        return None if path is None or not path.is_file() else files.sha256(path)

    def product(
        self, dtype: str = "float32", *, interval: bool = True, applicability: bool = False
    ) -> HeightProduct:
        """Return what is stored.

        Args:
            dtype: of heights.
            interval: whether the ends of the interval are too, where the model has one.
            applicability: whether the distance from the training ground is.

        Raises:
            CheckpointError: the model's calibration cannot be read.
        """
        return HeightProduct(
            dtype=HEIGHT_TYPES[dtype],
            interval=self._interval() if interval else None,
            has_distance=applicability,
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


def _folder(model: str) -> Path | None:
    """Return the folder of a canopy model of ours; None for other forms."""
    return next((f for f in (Path(model) / "model", Path(model)) if is_canopy_folder(f)), None)


def _item(model: str) -> str:
    """Return the STAC item of a model's folder, or the address of one that has none."""
    if model.startswith(_HUB):
        return f"https://huggingface.co/{model.removeprefix(_HUB)}"
    places = (Path(model) / "model" / ITEM, Path(model) / ITEM)
    return next((str(place) for place in places if place.is_file()), model)
