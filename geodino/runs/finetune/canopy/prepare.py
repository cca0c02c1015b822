"""Before the first step: images, labels, split and model are brought together."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from geodino import files
from geodino.data.blocks import make_split
from geodino.data.index import build_index, load_index, save_index
from geodino.data.labels.footprints import FootprintIndex, pair_footprints
from geodino.data.labels.open import open_labels
from geodino.data.labels.pairs import labelled_ground, pair
from geodino.data.parallel import thread_count
from geodino.data.sources.find import absolute
from geodino.data.split_file import load_split, refuse_undated
from geodino.data.tiles import TileIndex
from geodino.errors import BandError
from geodino.geo.contract import InputContract
from geodino.geo.outlines import outlines
from geodino.io.raster import HandlePool
from geodino.runs.finetune.canopy.begin import Beginning, begin_again, begin_with, begin_with_head
from geodino.runs.finetune.canopy.config import CanopyFinetuneConfig, GroundConfig
from geodino.runs.finetune.fitting import check_offer, unplaced
from geodino.runs.finetune.prepared import PreparedFinetune, Relation, unchanged
from geodino.runs.finetune.request import FinetuneJob
from geodino.runs.models import OpenedModel
from geodino.runs.predict.heights import HeightTask
from geodino.runs.recipe import load_finetune_recipe, load_recorded_finetune
from geodino.runs.record import RunFolder
from geodino.runs.sources import Meeting, offer_of
from geodino.tasks.canopy.scored import ScoredGround, scored_ground
from geodino.tasks.canopy.source import CanopySource, FootprintLabels, Labels, RasterLabels

DEFAULT_RECIPE = "canopy"

_LOOKED_AT = 32
"""Images whose values are compared with those the model was trained on."""


G = TypeVar("G", bound=GroundConfig)
"""A kind of recipe."""

P = TypeVar("P", bound="PreparedGround[Any]")
"""What a kind of run is, before it runs."""


@dataclass(frozen=True, kw_only=True)
class PreparedGround(PreparedFinetune[G], Generic[G]):
    """Everything a run on ground with heights is, before it runs."""

    source: CanopySource

    task: HeightTask | None
    """The model it begins with, with its canopy head; None for a backbone alone."""

    @property
    def threads(self) -> int:
        """Threads that read."""
        return thread_count(self.config.data.threads, far=self.source.images.is_far)

    @property
    def contract(self) -> InputContract:
        """What the resulting model demands: the backbone's contract, at the resolution it learnt."""
        grids = [self.source.grid(i) for i in self.source.labelled]
        seen = [gsd for grid in grids for gsd in grid.gsd_m or ()]
        gsd = (min(seen), max(seen)) if seen else None
        return self.opened.loaded.contract.model_copy(update={"gsd_m": gsd})

    @property
    def data_facts(self) -> dict[str, Any]:
        """How much there is to learn from."""
        return {
            "images": len(self.source.images.tiles),
            "labelled": len(self.source.labelled),
        }

    def write(self, folder: RunFolder) -> None:
        """Write the images used and the split."""
        save_index(self.source.images, folder.tiles)
        self.source.split.save(folder.split)


@dataclass(frozen=True, kw_only=True)
class PreparedCanopy(PreparedGround[CanopyFinetuneConfig]):
    """Everything a run of canopy heights is, before it runs."""

    @property
    def begins_with_head(self) -> bool:
        """Whether the head begins with the weights of the model's."""
        start = self.config.start
        return start is not None and start.head_sha256 is not None

    @property
    def relation(self) -> Relation:
        """How the result descends from the model it began with."""
        return "continues" if self.begins_with_head else "initialised from"


def prepare(job: FinetuneJob, model: str, pool: HandlePool) -> PreparedCanopy:
    """Read the recipe, open the model, pair images and labels, split the ground.

    Args:
        job: what was asked.
        model: MODEL.
        pool: where open files are kept.

    Raises:
        GeodinoError: whatever is wrong with any of them.
    """
    config = load_finetune_recipe(CanopyFinetuneConfig, job.recipe or DEFAULT_RECIPE, job.settings)
    found = begin_with(model)
    config, notes = begin_with_head(config, found, model)
    return brought_together(PreparedCanopy, config, found, job, pool, notes=notes, derived={})


def brought_together(
    kind: type[P],
    config: GroundConfig,
    begun: Beginning,
    job: FinetuneJob,
    pool: HandlePool,
    *,
    notes: tuple[str, ...],
    derived: dict[str, Any],
) -> P:
    """Pair images and labels, split the ground, and hold the images against the model's contract.

    Args:
        kind: of run.
        config: its recipe, with the model it begins with.
        begun: that model.
        job: what was asked.
        pool: where open files are kept.
        notes: sentences about the model, for the run card.
        derived: values that followed from it, with the reasons; those of the data are added.

    Raises:
        GeodinoError: whatever is wrong with any of them.
    """
    images, labels, split, opened = job.images, job.needed_labels, job.split, begun.opened
    config, index = _images(images, config, opened, derived)
    found, ground, of_labels = _labels(labels, config, index)
    if split is not None:
        chosen = load_split(split)
    else:
        pixel = config.gsd_m or max(index.gsd_m or (1.0,))
        chosen = make_split(ground, config.split, pixel_m=pixel)
    scored = _scored(config, found, labels, pool)
    source = CanopySource(
        images=index,
        contract=opened.loaded.contract,
        labels=found,
        split=chosen,
        gsd_m=config.gsd_m,
        scale=config.scale,
        pool=pool,
        scored=None if scored is None else scored.of,
    )
    if split is not None:
        refuse_undated(chosen, [index.tiles[i] for i in source.labelled], split)
    _check_images(source, config, opened)
    return kind(
        config=config,
        opened=opened,
        task=begun.task,
        source=source,
        images_from=absolute(images),
        labels_from=absolute(labels),
        split_from=None if split is None else absolute(split),
        fingerprint=_fingerprint(source, labels, config, scored),
        notes=(
            *notes,
            *index.rule.reasons,
            *index.notes,
            *of_labels,
            *chosen.notes,
            *(() if scored is None else scored.notes),
        ),
        derived=derived,
    )


def read_prepared(folder: RunFolder, pool: HandlePool) -> PreparedCanopy:
    """Read what a run folder says the run is.

    Raises:
        GeodinoError: a file is missing or damaged, or images, labels or model are others by now.
    """
    config = load_recorded_finetune(CanopyFinetuneConfig, folder.recipe)
    return read_recorded(PreparedCanopy, config, folder, pool)


def read_recorded(kind: type[P], config: GroundConfig, folder: RunFolder, pool: HandlePool) -> P:
    """Read what a run folder says a run of a kind and with this recipe is, as ``read_prepared``."""
    facts = folder.read_facts()
    begun = begin_again(config, folder)
    opened = begun.opened
    index = load_index(folder.tiles)
    labels, _, _ = _labels(facts["labels_from"], config, index)
    scored = _scored(config, labels, facts["labels_from"], pool)
    source = CanopySource(
        images=index,
        contract=opened.loaded.contract,
        labels=labels,
        split=load_split(folder.split),
        gsd_m=config.gsd_m,
        scale=config.scale,
        pool=pool,
        scored=None if scored is None else scored.of,
    )
    fingerprint = _fingerprint(source, facts["labels_from"], config, scored)
    unchanged(fingerprint, facts, folder)
    return kind(
        config=config,
        opened=opened,
        task=begun.task,
        source=source,
        images_from=facts["source"],
        labels_from=facts["labels_from"],
        split_from=facts["split_from"],
        fingerprint=fingerprint,
        notes=tuple(facts["notes"]),
        derived=facts["derived"],
    )


def _images(
    images: str, config: G, opened: OpenedModel, derived: dict[str, Any]
) -> tuple[G, TileIndex]:
    """List the images; where they hold more bands than the model reads, take the model's."""
    contract = opened.loaded.contract
    threads = thread_count("auto")
    values: dict[str, Any] = {}
    if config.data.valid != contract.valid:
        values["valid"] = contract.valid
        derived["data.valid"] = {"value": contract.valid, "reason": "as the model was trained"}
        config = config.with_values({"data": values})
    index = build_index(images, config.data, threads=threads)
    wanted = contract.band_names
    have = tuple(band.name for band in index.bands)
    if config.data.bands is None and have != wanted and set(wanted) <= set(have):
        config = config.with_values({"data": {"bands": wanted}})
        derived["data.bands"] = {"value": list(wanted), "reason": "those the model reads"}
        index = build_index(images, config.data, threads=threads)
    lost = [tile.path for tile in index.tiles if tile.grid.gsd_m is None]
    if lost:
        raise unplaced(lost, "no label can be found for it")
    return config, index


def _labels(
    labels: str, config: GroundConfig, index: TileIndex
) -> tuple[Labels, Any, tuple[str, ...]]:
    """Index labels and pair them; return them, the ground they cover, and notes."""
    found = open_labels(labels, config.labels, threads=thread_count("auto"))
    if isinstance(found, FootprintIndex):
        on_images = pair_footprints(index, found)
        places = outlines([index.tiles[i].grid for i in on_images.labelled])
        return (
            FootprintLabels(index=found, pairs=on_images),
            places,
            (*found.notes, *on_images.notes),
        )
    pairs = pair(index, found.tiles, order=config.labels.order)
    ground = labelled_ground(index, found.tiles, pairs)
    return RasterLabels(index=found, pairs=pairs), ground, (*found.notes, *pairs.notes)


def _scored(
    config: GroundConfig, labels: Labels, labels_from: str, pool: HandlePool
) -> ScoredGround | None:
    threads = thread_count("auto")
    return scored_ground(config.protocol, labels, labels_from, pool=pool, threads=threads)


def _check_images(source: CanopySource, config: GroundConfig, opened: OpenedModel) -> None:
    """Refuse images that are not what the backbone was trained on.

    Raises:
        ContractError: naming the first, and how many others there are.
        BandError: there are not the bands that the model reads.
    """
    index, contract = source.images, opened.loaded.contract
    if len(index.bands) != len(contract.bands):
        raise BandError(
            f"The images have {len(index.bands)} bands ({', '.join(b.name for b in index.bands)}), "
            f"the model {opened.name} reads {len(contract.bands)} "
            f"({', '.join(contract.band_names)}). Choose its bands in its order with data.bands, or "
            "take another model."
        )
    how = Meeting(
        accept=config.accept, bands=config.data.bands, gsd_m=config.gsd_m, scale=config.scale
    )
    numbers = np.linspace(0, len(source.labelled) - 1, min(_LOOKED_AT, len(source.labelled)))
    for place in np.unique(numbers.round().astype(int)).tolist():
        image = source.labelled[place]
        offer = offer_of(source.stored(image), index.bands, index.dtype, contract, how)
        check_offer(contract, offer, config)


def _fingerprint(
    source: CanopySource, labels: str, config: GroundConfig, scored: ScoredGround | None
) -> str:
    threads = thread_count(config.data.threads, far=source.images.is_far)
    if isinstance(source.labels, FootprintLabels):
        of_labels = files.sha256(labels)
    else:
        of_labels = source.labels.index.tiles.fingerprint(threads=threads)
    split = source.split
    rows = [
        [word, site, shape.wkb_hex]
        for word, site, shape in zip(split.split, split.site, split.geometry, strict=True)
    ]
    parts: dict[str, Any] = {
        "images": source.images.fingerprint(threads=threads),
        "labels": of_labels,
        "split": [split.crs, rows, list(split.year)] if split.year else [split.crs, rows],
    }
    if scored is not None:
        parts["scored"] = scored.fingerprint(threads=threads)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
