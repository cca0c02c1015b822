"""A model with a head, as predictions need it: what it demands, its chips, what is made."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from geodino.errors import RecipeError
from geodino.geo.contract import InputContract
from geodino.infer.engine import Predictor
from geodino.infer.render import Product
from geodino.infer.symmetries import Symmetric
from geodino.models.backbone import Backbone
from geodino.models.folder import ITEM, LoadedModel
from geodino.models.foreign.hugging_face import HUB
from geodino.models.head_folder import HeadFiles, LoadedHead
from geodino.runs.mapping.chips import chip_overlap, chip_side
from geodino.runs.mapping.maps import Map
from geodino.runs.models import OpenedModel, open_model, tensors_hash
from geodino.runs.predict.job import SYMMETRIES, PredictJob, Storage
from geodino.runs.sources import Meeting


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """What lies beside a map."""

    quicklook: Path
    style: Path
    properties: Mapping[str, Any]
    """Of its STAC item, beside the shared ones."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A model with a head, and how it meets rasters."""

    name: str
    sha256: str
    """Hash of what decides its output: the weights, and whatever becomes of what they give."""

    item: str
    """Where the model is described: the STAC item of its folder, or its address."""

    files: ClassVar[HeadFiles]
    """Names of the head's files."""

    title: ClassVar[str]
    """What an output of it shows: ``Canopy height``."""

    what: ClassVar[str]
    """The same with its unit, for the card: ``canopy height, metres``."""

    @classmethod
    @abstractmethod
    def open(cls, model: str) -> "Task":
        """Open MODEL.

        Raises:
            CheckpointError: there is no such model there, or it is damaged.
        """

    @property
    @abstractmethod
    def loaded(self) -> LoadedHead[Any, Any]:
        """The model."""

    @abstractmethod
    def check(self, job: PredictJob) -> None:
        """Refuse what was asked of another kind of model.

        Raises:
            RecipeError: what was asked, what can be, and what to change.
        """

    def described(self, model: str) -> OpenedModel:
        """Return the backbone as every form of MODEL is opened, sharing its weights."""
        loaded = self.loaded
        backbone: Backbone = loaded.model.backbone
        if self.files.place(model) is not None:
            opened = open_model(model)
            return replace(opened, loaded=replace(opened.loaded, backbone=backbone))
        whole = LoadedModel(
            backbone=backbone,
            heads={},
            contract=loaded.contract,
            config=backbone.config,
            head_configs={},
            license=loaded.license,
            lineage=loaded.lineage,
        )
        return OpenedModel(
            loaded=whole,
            name=self.name,
            sha256=tensors_hash(backbone.state_dict()),
            image_size=self.chip(None),
            item=model,
            folder=None,
        )

    @property
    def contract(self) -> InputContract:
        """What the model demands of its input."""
        return self.loaded.contract

    @property
    def license(self) -> str:
        """Licence the weights carry."""
        return self.loaded.license

    @property
    def align(self) -> int:
        """Sides of chips are multiples of it."""
        backbone: Backbone = self.loaded.model.backbone
        return backbone.patch_size

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
        own = self.loaded.extra.get("gsd_m")
        return wanted if wanted is not None else own if isinstance(own, int | float) else None

    def _made(self, name: str) -> int | None:
        """Return what the model was made with."""
        found: Any = self.loaded.extra.get(name)
        return found if isinstance(found, int) else None


@dataclass(frozen=True, kw_only=True)
class MapTask(Task):
    """A model that gives every pixel something, and how its maps are made."""

    units: ClassVar[str]
    """Of a map in memory; empty for none."""

    has_store: ClassVar[bool] = False
    """Whether its maps can be zarr stores too."""

    def check(self, job: PredictJob) -> None:
        """Refuse a table, and what is asked of tables."""
        if job.is_table:
            raise RecipeError(
                f"--out {job.out}: {self.name} gives {self.what}: write a map, FILE.tif or a folder. "
                "Tables are of models that find objects or tell whole images apart."
            )
        if job.score is not None:
            raise RecipeError(
                f"--score {job.score:g}: {self.name} gives {self.what}, not objects with a score. "
                "Leave it out."
            )
        if job.is_store and not self.has_store:
            raise RecipeError(
                f"--out {job.out}: maps of classes are written as GeoTIFFs (FILE.tif, or a folder)."
            )

    @abstractmethod
    def _predictor(self, device: torch.device, how: Meeting, *, applicability: bool) -> Predictor:
        """Return the model on its device.

        Raises:
            CheckpointError: the distance from the training ground is asked of a model that does
                not know it.
        """

    @abstractmethod
    def product(self, how: Storage) -> Product:
        """Return what is stored.

        Raises:
            RecipeError: the task stores nothing of the kind that was asked.
            CheckpointError: what the model needs for it cannot be read.
        """

    @abstractmethod
    def beside(self, one: Map) -> Beside:
        """Write style and picture of a map."""

    def applicability_sha256(self) -> str | None:
        """Return a hash of what is kept of the training ground; None where nothing is."""
        return None

    @property
    def tags(self) -> dict[str, str]:
        """Tags of a map, beside the shared ones."""
        return {}

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of a map in memory, beside the shared ones."""
        return {}

    def predictor(
        self,
        device: torch.device,
        how: Meeting,
        *,
        symmetries: str = "none",
        applicability: bool = False,
    ) -> Predictor:
        """Return the model on its device.

        Args:
            device: that computes.
            how: what stored values are multiplied by first, and the model's matrices in.
            symmetries: orientations whose mean is taken.
            applicability: whether the distance from the training ground is the last channel.

        Raises:
            CheckpointError: the model does not know that distance.
        """
        plain = self._predictor(device, how, applicability=applicability)
        return plain if symmetries == "none" else Symmetric(plain, SYMMETRIES[symmetries])


def refuse_of_maps(job: PredictJob, name: str, what: str) -> None:
    """Refuse options of maps, where rows of a table are made.

    Args:
        job: what was asked.
        name: of the model.
        what: the rows are about.

    Raises:
        RecipeError: naming the option.
    """
    of_maps = {
        f"--dtype {job.dtype}": job.dtype != "float32",
        f"--symmetries {job.symmetries}": job.symmetries != "none",
        "--no-interval": not job.interval,
        "--applicability": job.applicability,
        "--probabilities": job.probabilities,
    }
    for option, is_asked in of_maps.items():
        if is_asked:
            raise RecipeError(
                f"{option} is of maps, but {name} gives {what}, which are rows of a table. Leave it "
                "out."
            )


def name_of(model: str) -> str:
    """Return what a model is called: its address, or the name of its run."""
    name = model if model.startswith(HUB) else Path(model).resolve().name
    return Path(model).resolve().parent.name if name == "model" else name


def item_of(model: str) -> str:
    """Return the STAC item of a model's folder, or the address of one that has none."""
    if model.startswith(HUB):
        return f"https://huggingface.co/{model.removeprefix(HUB)}"
    places = (Path(model) / "model" / ITEM, Path(model) / ITEM)
    return next((str(place) for place in places if place.is_file()), model)
