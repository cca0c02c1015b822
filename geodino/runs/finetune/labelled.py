"""Before the first step of a head that learns from a labelled set: images, labels, parts, model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from geodino.data.index import build_index, load_index, save_index
from geodino.data.labelled.boxes import name_of
from geodino.data.labelled.opened import OpenedSet
from geodino.data.labelled.sets import PlacedSet, SetFacts
from geodino.data.parallel import thread_count
from geodino.data.sources.find import absolute
from geodino.data.tiles import TileIndex
from geodino.errors import BandError, SourceError
from geodino.geo.contract import InputContract
from geodino.io.raster import HandlePool
from geodino.runs.finetune.config import TiledFinetuneConfig
from geodino.runs.finetune.fitting import check_offer, unplaced
from geodino.runs.finetune.prepared import PreparedFinetune, opened_again, started, unchanged
from geodino.runs.finetune.request import FinetuneJob
from geodino.runs.models import OpenedModel, open_model
from geodino.runs.recipe import load_finetune_recipe, load_recorded_finetune
from geodino.runs.record import RunFolder
from geodino.runs.sources import Meeting, offer_of
from geodino.tasks.source import LabelledSource, bands_in

C = TypeVar("C", bound=TiledFinetuneConfig)
S = TypeVar("S", bound=LabelledSource)

_LOOKED_AT = 32
"""Images whose values are compared with those the model was trained on."""


@dataclass(frozen=True, kw_only=True)
class PreparedLabelled(PreparedFinetune[C], Generic[C, S]):
    """Everything a run is that learns from a labelled set, before it runs."""

    data: OpenedSet
    source: S

    @property
    def threads(self) -> int:
        """Threads that read."""
        images = self.data.images
        return thread_count(self.config.data.threads, far=images is not None and images.is_far)

    @property
    def contract(self) -> InputContract:
        """What the resulting model demands: the backbone's contract, at the resolution it learnt."""
        images, facts, seen = self.data.images, self.source.set.facts, self.source.gsd_m
        gsd = images.gsd_m if images is not None else None
        if seen is not None:
            gsd = (seen, seen)
        elif gsd is None and facts.gsd_m is not None:
            gsd = (facts.gsd_m, facts.gsd_m)
        return self.opened.loaded.contract.model_copy(update={"gsd_m": gsd})

    @property
    def data_facts(self) -> dict[str, Any]:
        """How much there is to learn from."""
        parts = self.data.set.parts
        return {
            "layout": self.data.layout,
            "classes": list(self.source.classes),
            **{part: len(keys) for part, keys in parts.items()},
        }

    def write(self, folder: RunFolder) -> None:
        """Write the images used and the split, where there are any beside the folders."""
        if self.data.images is not None:
            save_index(self.data.images, folder.tiles)
        if self.data.split is not None:
            self.data.split.save(folder.split)


@dataclass(frozen=True, kw_only=True)
class Preparation(Generic[C, S]):
    """How runs of a task that learns from labelled sets are prepared, and read again."""

    config: type[C]
    recipe: str
    """The default one."""

    brings_labels: Callable[[str, C], bool]
    """Whether images are the folder of a known set, its labels among them: (images, config)."""

    has_tiles: Callable[[str, str, C], bool]
    """Whether images are any source of tiles, and not listed by labels: (images, labels, config)."""

    open: Callable[..., OpenedSet]
    """Brings images and labels together: (images, labels, config, split=, pool=, index=)."""

    source: Callable[[OpenedSet, C, InputContract, tuple[int, ...]], S]
    """How the model reads them: (set, config, contract of the model, places of its bands)."""

    def prepare(self, job: FinetuneJob, model: str, pool: HandlePool) -> PreparedLabelled[C, S]:
        """Read the recipe, open the model, images and labels, and decide what is for what.

        Args:
            job: what was asked.
            model: MODEL.
            pool: where open files are kept.

        Raises:
            GeodinoError: whatever is wrong with any of them.
        """
        config = load_finetune_recipe(self.config, job.recipe or self.recipe, job.settings)
        opened = open_model(model)
        config = started(config, opened, model)
        derived: dict[str, Any] = {}
        index = None
        brings_labels = job.labels is None and self.brings_labels(job.images, config)
        labels = job.images if brings_labels else job.needed_labels
        if self.has_tiles(job.images, labels, config):
            config, index = _images(job.images, config, opened, derived)
        return self._prepared(
            config, opened, index, pool,
            images=absolute(job.images), labels=absolute(labels),
            split=None if job.split is None else absolute(job.split), derived=derived,
        )  # fmt: skip

    def read(self, folder: RunFolder, pool: HandlePool) -> PreparedLabelled[C, S]:
        """Read what a run folder says the run is.

        Raises:
            GeodinoError: a file is missing or damaged, or images, labels or model are others by now.
        """
        config = load_recorded_finetune(self.config, folder.recipe)
        facts = folder.read_facts()
        opened = opened_again(config, folder)
        index = load_index(folder.tiles) if folder.tiles.exists() else None
        # The ground was split once; a list of images or folders tell the same again.
        kept = str(folder.split) if folder.split.exists() else facts["split_from"]
        found = self._prepared(
            config, opened, index, pool, images=facts["source"], labels=facts["labels_from"],
            split=kept, derived=facts["derived"], recorded=facts,
        )  # fmt: skip
        unchanged(found.fingerprint, facts, folder)
        return found

    def _prepared(
        self,
        config: C,
        opened: OpenedModel,
        index: TileIndex | None,
        pool: HandlePool,
        *,
        images: str,
        labels: str,
        split: str | None,
        derived: dict[str, Any],
        recorded: dict[str, Any] | None = None,
    ) -> PreparedLabelled[C, S]:
        data = self.open(images, labels, config, split=split, pool=pool, index=index)
        for part in ("train", "val"):
            if not data.set.parts.get(part):
                raise SourceError(
                    f"{images} holds no image for {part}, and training needs both train and val. Unpack "
                    "that part, declare other shares (split.shares), or name a file with both (--split)."
                )
        bands = _bands(data.set.facts, opened)
        source = self.source(data, config, opened.loaded.contract, bands)
        _refuse_unplaced(source, images)
        _check_images(source, config, opened)
        return PreparedLabelled(
            config=config,
            opened=opened,
            data=data,
            source=source,
            images_from=images,
            labels_from=labels,
            split_from=split if recorded is None else recorded["split_from"],
            fingerprint=data.set.fingerprint,
            notes=data.notes if recorded is None else tuple(recorded["notes"]),
            derived=derived,
        )


def _images(
    images: str, config: C, opened: OpenedModel, derived: dict[str, Any]
) -> tuple[C, TileIndex]:
    """List the images; where they hold more bands than the model reads, take the model's."""
    contract = opened.loaded.contract
    threads = thread_count("auto")
    if config.data.valid != contract.valid:
        derived["data.valid"] = {"value": contract.valid, "reason": "as the model was trained"}
        config = config.with_values({"data": {"valid": contract.valid}})
    index = build_index(images, config.data, threads=threads)
    wanted = contract.band_names
    have = tuple(band.name for band in index.bands)
    if config.data.bands is None and have != wanted and set(wanted) <= set(have):
        config = config.with_values({"data": {"bands": wanted}})
        derived["data.bands"] = {"value": list(wanted), "reason": "those the model reads"}
        index = build_index(images, config.data, threads=threads)
    return config, index


def _bands(facts: SetFacts, opened: OpenedModel) -> tuple[int, ...]:
    """Return the places of the model's bands in the images.

    Raises:
        BandError: there are not the bands that the model reads.
    """
    have = tuple(band.name for band in facts.bands)
    wanted = opened.loaded.contract.band_names
    found = bands_in(have, wanted)
    if found is None:
        raise BandError(
            f"The images have {len(have)} bands ({', '.join(have)}), the model {opened.name} reads "
            f"{len(wanted)} ({', '.join(wanted)}). Choose its bands in its order with data.bands, or "
            "take another model."
        )
    return found


def _refuse_unplaced(source: LabelledSource, images: str) -> None:
    """Refuse images that no resolution is known of, where the model is to see a certain one.

    Raises:
        SourceError: naming the first, and how many others there are.
    """
    gsd_m, found = source.gsd_m, source.set
    if gsd_m is None:
        return
    if not isinstance(found, PlacedSet):
        if found.facts.gsd_m is None:
            raise SourceError(
                f"{images}: {found.facts.name} declares no ground sampling distance, so its images "
                f"cannot be resampled to {gsd_m:g} m. Leave gsd_m out."
            )
        return
    keys = {name_of(key): key for keys in found.parts.values() for key in keys}
    lost = [name for name, key in keys.items() if source.pixel_m(key) is None]
    if lost:
        raise unplaced(lost, f"it cannot be resampled to {gsd_m:g} m", otherwise="gsd_m")


def _check_images(source: LabelledSource, config: TiledFinetuneConfig, opened: OpenedModel) -> None:
    """Refuse images that are not what the backbone was trained on.

    Raises:
        ContractError: naming the first.
    """
    contract, facts = opened.loaded.contract, source.set.facts
    gsd_m = facts.gsd_m if source.gsd_m is None else source.gsd_m
    how = Meeting(accept=config.accept, bands=config.data.bands, gsd_m=gsd_m)
    keys = [key for keys in source.set.parts.values() for key in keys]
    bands = tuple(facts.bands[i] for i in source.bands)
    numbers = np.linspace(0, len(keys) - 1, min(_LOOKED_AT, len(keys)))
    for place in np.unique(numbers.round().astype(int)).tolist():
        offer = offer_of(source.raster(keys[place]), bands, facts.dtype, contract, how)
        check_offer(contract, offer, config)
