"""Before the first step: labelled images and model are brought together."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geodino.data.labelled.label_table import TABLES, is_table
from geodino.data.labelled.sets import LabelledSet, SetFacts
from geodino.data.parallel import in_order, thread_count
from geodino.data.sources.find import absolute
from geodino.errors import BandError, ContractError, RecipeError, SourceError
from geodino.evals.meeting import Meeting, meet
from geodino.evals.statistics import measured
from geodino.geo.contract import InputContract, Offer
from geodino.io.raster import HandlePool
from geodino.models.backbone import Backbone
from geodino.models.pooling import whole_patches
from geodino.models.widen import widened
from geodino.runs.finetune.classification.config import ClassificationFinetuneConfig
from geodino.runs.finetune.classification.data import OpenedImages, open_images
from geodino.runs.finetune.fitting import check_offer
from geodino.runs.finetune.prepared import PreparedFinetune, opened_again, started, unchanged
from geodino.runs.finetune.request import FinetuneJob
from geodino.runs.models import OpenedModel, open_model
from geodino.runs.recipe import load_finetune_recipe, load_recorded_finetune
from geodino.runs.record import RunFolder
from geodino.tasks.classification.source import ImageSource

DEFAULT_RECIPE = "classification"

_LOOKED_AT = 32
"""Training images whose values are compared with those the model was trained on."""

_VALUES = 2048
"""Pixels of each of them."""


@dataclass(frozen=True, kw_only=True)
class PreparedClassification(PreparedFinetune[ClassificationFinetuneConfig]):
    """Everything a run of classification is, before it runs."""

    source: ImageSource
    met: Meeting
    """How images come to the model: values as they are stored."""

    @property
    def threads(self) -> int:
        """Threads that read."""
        return thread_count("auto")

    @property
    def contract(self) -> InputContract:
        """What the resulting model demands: the set's bands and stored values, at its resolution."""
        return self.met.contract

    @property
    def data_facts(self) -> dict[str, Any]:
        """How much there is to learn from."""
        data = self.source.set
        return {
            "set": data.facts.name,
            "kind": data.facts.kind,
            "classes": list(data.facts.classes),
            **{part: len(keys) for part, keys in data.parts.items()},
        }

    def write(self, folder: RunFolder) -> None:
        """Nothing: the set has parts of its own, or they follow from the seed."""

    def backbone(self) -> Backbone:
        """Return a copy of the backbone the run begins with, as it reads the set."""
        return widened(self.opened.loaded.backbone, self.met.contract, self.met.adapted)


def prepare(job: FinetuneJob, model: str, pool: HandlePool) -> PreparedClassification:
    """Read the recipe, open the model and the set, and bring them together.

    Raises:
        GeodinoError: whatever is wrong with any of them.
    """
    config = load_finetune_recipe(
        ClassificationFinetuneConfig, job.recipe or DEFAULT_RECIPE, job.settings
    )
    labels = _table_of(job)
    if job.split is not None:
        raise RecipeError(
            f"--split {job.split}: labelled images have parts of their own, by their folders or the "
            "column split of their table (docs/own-benchmark.md). Leave --split out."
        )
    opened = open_model(model)
    config = started(config, opened, model)
    data = open_images(job.images, config.images, labels=labels, seed=config.train.seed)
    return _prepared(config, opened, data, images=_called(job.images), labels=labels or "")


def _table_of(job: FinetuneJob) -> str | None:
    """Return the table of labels; None where images bring them.

    Raises:
        RecipeError: what was named is no table.
    """
    if job.labels is None or absolute(job.labels) == absolute(job.images):
        return None
    if not is_table(job.labels):
        raise RecipeError(
            f"--labels {job.labels}: labels of whole images are a table ({', '.join(TABLES)}) with the "
            "columns image and label. Images in folders of classes, or with a dataset.yaml, bring theirs "
            "with them (docs/classification.md): leave --labels out for those."
        )
    return absolute(job.labels)


def read_prepared(folder: RunFolder, pool: HandlePool) -> PreparedClassification:
    """Read what a run folder says the run is.

    Raises:
        GeodinoError: a file is missing or damaged, or images or model are others by now.
    """
    config = load_recorded_finetune(ClassificationFinetuneConfig, folder.recipe)
    facts = folder.read_facts()
    opened = opened_again(config, folder)
    labels = facts["labels_from"]
    data = open_images(
        facts["source"], config.images, labels=labels or None, seed=config.train.seed
    )
    unchanged(data.set.fingerprint, facts, folder)
    return _prepared(config, opened, data, images=facts["source"], labels=labels)


def _called(images: str) -> str:
    """Return what images are called from any folder: a set of a suite by its name."""
    return absolute(images) if Path(images).exists() else images


def _prepared(
    config: ClassificationFinetuneConfig,
    opened: OpenedModel,
    data: OpenedImages,
    *,
    images: str,
    labels: str,
) -> PreparedClassification:
    facts = data.set.facts
    met = _met(config, opened, data.set)
    source = ImageSource(
        set=data.set,
        seen=met.seen,
        image_size=_image_size(config, opened, data.set),
        patch_size=opened.loaded.backbone.patch_size,
        labels=data.labels,
    )
    _check_values(source, met, config, opened)
    notes = [*data.notes]
    if config.images.values != "contract" or met.words != "as stored" or met.adapted is not None:
        notes.append(f"values: {met.words}")
    return PreparedClassification(
        config=config,
        opened=opened,
        source=source,
        met=replace(met, contract=met.contract.model_copy(update={"gsd_m": _gsd(facts)})),
        images_from=images,
        labels_from=labels,
        split_from=None,
        fingerprint=data.set.fingerprint,
        notes=tuple(notes),
    )


def _gsd(facts: SetFacts) -> tuple[float, float] | None:
    return None if facts.gsd_m is None else (facts.gsd_m, facts.gsd_m)


def _met(config: ClassificationFinetuneConfig, opened: OpenedModel, data: LabelledSet) -> Meeting:
    """Bring bands and values of the set to the model, whose statistics take in what is done to them.

    Raises:
        BandError: the set lacks bands of the model.
        ContractError: its values cannot be brought to the model's.
    """
    how, statistics = config.images, data.facts.statistics
    if statistics is None and how.values == "zscore":
        statistics = measured(data, threads=thread_count("auto"))
    try:
        met = meet(
            opened.loaded.contract, data.facts, bands=how.bands, values=how.values,
            statistics=statistics,
        )  # fmt: skip
    except (BandError, ContractError) as error:
        raise type(error)(
            f"{error}\nIn a recipe, `images.bands` says what --bands says, and `images.values: zscore` "
            "scales each band by the set's own statistics."
        ) from error
    return as_stored(met, data.facts)


def as_stored(met: Meeting, facts: SetFacts) -> Meeting:
    """Return the same meeting with stored values unchanged: the statistics are changed instead.

    ``(stored * scale + shift - mean) / std`` is ``(stored - (mean - shift) / scale) / (std / scale)``,
    so a model that reads the set's own values needs no other pixels, only other statistics.
    """

    def moved(values: tuple[float, ...]) -> tuple[float, ...]:
        found = (np.asarray(values) - met.shift.astype(np.float64)) / met.scale
        return tuple(float(value) for value in found)

    old = met.contract
    if (met.scale == 1).all() and (met.shift == 0).all():
        values: Mapping[str, Any] = {}
    else:
        spread = tuple(float(v) for v in np.asarray(old.std) / met.scale)
        values = {
            "mean": moved(old.mean), "std": spread, "low": moved(old.low), "high": moved(old.high),
        }  # fmt: skip
    bands = tuple(facts.bands[i] for i in met.positions)
    contract = old.model_copy(update={**values, "bands": bands, "dtype": facts.dtype})
    return replace(
        met, contract=contract, scale=np.ones_like(met.scale), shift=np.zeros_like(met.shift)
    )


def _image_size(
    config: ClassificationFinetuneConfig, opened: OpenedModel, data: LabelledSet
) -> int | None:
    """Return the side images are resized to; None where they have one size.

    Raises:
        SourceError: images of several sizes, or none that can be turned, and no size is declared.
    """
    patch, declared = opened.loaded.backbone.patch_size, config.sampling.size
    if declared is not None:
        return whole_patches(declared, patch)
    keys = [key for part in data.parts.values() for key in part]
    first, whole = "", (0, 0)
    for key, size in zip(
        keys, in_order(data.size, keys, threads=thread_count("auto")), strict=True
    ):
        sides = whole_patches(size[0], patch), whole_patches(size[1], patch)
        if not first:
            first, whole = key, sides
        elif sides != whole:
            raise SourceError(
                f"Images of {data.facts.name} have several sizes (in whole patches {first} has {whole[0]} x "
                f"{whole[1]} px, {key} {sides[0]} x {sides[1]}), and those of a step need one: declare it "
                "in the recipe, such as sampling.size=224."
            )
    if whole[0] != whole[1] and config.sampling.augment == "turns":
        raise SourceError(
            f"Images of {data.facts.name} have {whole[0]} x {whole[1]} px, and a quarter turn needs "
            "squares: declare sampling.size, or sampling.augment=flips."
        )
    return None


def _check_values(
    source: ImageSource, met: Meeting, config: ClassificationFinetuneConfig, opened: OpenedModel
) -> None:
    """Refuse images that are not what the backbone was trained on.

    Raises:
        ContractError: naming what differs.
    """
    facts = source.set.facts
    trained = met.contract.model_copy(update={"gsd_m": opened.loaded.contract.gsd_m})
    offer = Offer(
        source=facts.name,
        bands=met.contract.bands,
        dtype=facts.dtype,
        gsd_m=_gsd(facts),
        percentiles=_percentiles(source),
    )
    check_offer(trained, offer, config)


def _percentiles(source: ImageSource) -> tuple[tuple[float, float], ...]:
    """The 1st and 99th percentile of each band over some pixels of some training images."""
    keys = source.keys("train")
    numbers = np.unique(np.linspace(0, len(keys) - 1, min(_LOOKED_AT, len(keys))).round())
    parts = []
    for number in numbers.astype(int).tolist():
        values, valid = source.read(keys[number])
        seen = values[:, valid]
        parts.append(seen[:, :: max(1, seen.shape[1] // _VALUES)])
    low, high = np.percentile(np.concatenate(parts, axis=1).astype(np.float64), (1, 99), axis=1)
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))
