"""Maps of canopy height."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, TypeAdapter, ValidationError

from geodino import files
from geodino.errors import CheckpointError, RecipeError
from geodino.infer.engine import Predictor
from geodino.infer.heights import HeightPredictor, HeightProduct, Interval
from geodino.io.qml import write_height_style
from geodino.metrics.conformal import QuantileIntervals, ResidualIntervals
from geodino.metrics.recalibration import HeightCurve
from geodino.models.canopy_folder import FILES, LoadedCanopy
from geodino.models.canopy_open import is_canopy, open_canopy
from geodino.models.foreign.hugging_face import HUB, fetch
from geodino.report.quicklook import highest_shown_m, write_quicklook
from geodino.runs.device import compute_type
from geodino.runs.mapping.maps import Map
from geodino.runs.models import tensors_hash
from geodino.runs.predict.base import Beside, MapTask, item_of, name_of
from geodino.runs.predict.job import HEIGHT_TYPES, Storage
from geodino.runs.sources import Meeting
from geodino.tasks.canopy.applicability import APPLICABILITY, Applicability, load_applicability

RECALIBRATION = "recalibration"
"""Entry of ``extra`` in ``canopy.json``: the curve that the model's heights go through."""

_INTERVALS: TypeAdapter[ResidualIntervals | QuantileIntervals] = TypeAdapter(
    Annotated[ResidualIntervals | QuantileIntervals, Field(discriminator="kind")]
)


@dataclass(frozen=True, kw_only=True)
class HeightTask(MapTask):
    """A model of canopy height."""

    canopy: LoadedCanopy

    curve: HeightCurve | None = None
    """What becomes of its heights: a recalibration on local labels."""

    folder: Path | None = None
    """Its model folder; None where its files are not in ours."""

    files = FILES
    title = "Canopy height"
    what = "canopy height, metres"
    units = "m"
    has_store = True

    @classmethod
    def open(cls, model: str) -> "HeightTask":
        """Open MODEL.

        Raises:
            CheckpointError: there is no canopy model there, or one whose recalibration cannot be
                read.
        """
        loaded, name = open_canopy(model), name_of(model)
        sha256 = tensors_hash(loaded.model.state_dict())
        curve = curve_of(loaded, name)
        if curve is not None:
            sha256 = hashlib.sha256(f"{sha256} {curve.model_dump_json()}".encode()).hexdigest()
        return cls(
            canopy=loaded,
            name=name,
            sha256=sha256,
            item=item_of(model),
            curve=curve,
            folder=FILES.place(model),
        )

    @classmethod
    def within(cls, model: str) -> "HeightTask | None":
        """Open MODEL if it has a canopy head; None for a backbone alone, or one with another head.

        Raises:
            CheckpointError: it is damaged, or cannot be fetched.
        """
        place = str(fetch(model.removeprefix(HUB))) if model.startswith(HUB) else model
        return cls.open(model) if is_canopy(place) else None

    @property
    def loaded(self) -> LoadedCanopy:
        """The model."""
        return self.canopy

    def _predictor(self, device: torch.device, how: Meeting, *, applicability: bool) -> Predictor:
        distances = self.applicability().to(device).distances if applicability else None
        return HeightPredictor(
            self.canopy.model,
            device=device,
            scale=how.scale,
            dtype=compute_type(how.precision, device),
            curve=self.curve,
            distances=distances,
        )

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

    def product(self, how: Storage) -> HeightProduct:
        """Return heights, with the ends of the interval where the model has one.

        Raises:
            RecipeError: probabilities, or a type heights are not stored in.
            CheckpointError: the model's calibration cannot be read.
        """
        if how.probabilities:
            raise RecipeError(
                f"--probabilities: {self.name} gives heights, not classes. Leave it out."
            )
        dtype = how.dtype or "float32"
        if dtype not in HEIGHT_TYPES:
            raise RecipeError(f"--dtype {dtype}: choose {' or '.join(HEIGHT_TYPES)}.")
        interval = self._interval() if how.interval else None
        return HeightProduct(
            dtype=HEIGHT_TYPES[dtype], interval=interval, has_distance=how.applicability
        )

    def beside(self, one: Map) -> Beside:
        """Write style and picture, to one scale."""
        highest = highest_shown_m(one.path)
        return Beside(
            quicklook=write_quicklook(one.path, highest_m=highest),
            style=write_height_style(one.path, highest_m=highest),
            properties={},
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


def curve_of(loaded: LoadedCanopy, name: str) -> HeightCurve | None:
    """Return the curve a model's heights go through; None where they are the head's own.

    Raises:
        CheckpointError: it cannot be read.
    """
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
