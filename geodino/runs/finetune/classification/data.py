"""From what a user calls images to one labelled set with a part for training, choosing, testing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geodino import seeds
from geodino.data.labelled.held_out import HeldOut
from geodino.data.labelled.label_table import open_label_table
from geodino.data.labelled.open import SetOpener, open_sets
from geodino.data.labelled.sets import LabelledSet, PartName
from geodino.data.labelled.yaml_config import FILE, is_labelled
from geodino.errors import RecipeError, SourceError
from geodino.evals.probes.prediction import held_out_rows
from geodino.evals.problems import labels_of
from geodino.runs.finetune.classification.config import LabelledImagesConfig

_OTHERS = {
    "segmentation": "a class for every pixel: `geodino finetune segmentation` learns them",
    "detection": "boxes: `geodino finetune detection` learns them",
    "regression": "numbers: `geodino finetune canopy` learns heights",
}

Labels = Mapping[PartName, np.ndarray]
"""Of each part: the class of each image, or which classes it has."""


@dataclass(frozen=True, kw_only=True)
class OpenedImages:
    """A labelled set, and what was decided on the way."""

    set: LabelledSet
    labels: Labels
    notes: tuple[str, ...]
    """Decisions, as sentences for the run card."""


def open_images(
    images: str, config: LabelledImagesConfig, *, labels: str | None = None, seed: int
) -> OpenedImages:
    """Open the set, and draw a validation part where it has none.

    Args:
        images: a folder, or the name of a set.
        labels: a table with the classes of the folder's images; None where images bring them.
        config: what is declared of it.
        seed: the drawn part follows from it.

    Raises:
        SourceError: there is no such set or there are several, it is damaged, a part lacks, or all
            of its training images are of one class.
        RecipeError: its labels are no classes of whole images.
    """
    data = _found(images, config).open() if labels is None else _table(images, labels, config)
    kind = data.facts.kind
    if kind not in ("classification", "multilabel"):
        raise RecipeError(f"{data.facts.name} holds {_OTHERS[kind]}.")
    for part in ("train", "test"):
        if not data.parts.get(part):
            raise SourceError(
                f"{data.facts.name} has no image for {part}: a head is learnt on train, chosen on "
                "val (or on a share of train) and reported on test. Name such images in its split."
            )
    notes = [f"{data.facts.name}: {data.facts.source}"] if data.facts.source else []
    notes += data.facts.notes
    if not data.parts.get("val"):
        train = labels_of(data, "train")
        generator = seeds.rng(seed, "validation")
        held = held_out_rows(np.asarray(train), config.val_share, generator)
        if not held.any():
            raise SourceError(
                f"{data.facts.name} has no image for val, and too few for training to hold "
                f"{config.val_share:.0%} of each class out (images.val_share): add images."
            )
        data = HeldOut(data, held)
        notes.append(
            f"the set has no validation part: {held.sum()} of its {len(held)} training images are for "
            "that, drawn by seed and class"
        )
    of_parts = {part: np.asarray(labels_of(data, part)) for part in data.parts}
    notes += _looked_at(data, of_parts)
    return OpenedImages(set=data, labels=of_parts, notes=tuple(notes))


def _table(images: str, labels: str, config: LabelledImagesConfig) -> LabelledSet:
    """Open a folder with a table.

    Raises:
        RecipeError: the images bring classes of their own.
    """
    folder = Path(images)
    brings = "" if config.layout == "auto" else f"images.layout: {config.layout} brings its classes"
    if is_labelled(folder):
        brings = f"{folder / FILE} says already what the classes of these images are"
    if brings:
        raise RecipeError(f"{brings}, so --labels {labels} is not used. Leave one of both out.")
    return open_label_table(images, labels, classes=config.classes)


def _found(images: str, config: LabelledImagesConfig) -> SetOpener:
    if config.classes:
        raise RecipeError(
            "images.classes names those of a table of labels (--labels), and these images bring their "
            "own. Leave it out."
        )
    if config.layout == "auto":
        found, missing = open_sets(images, partition=config.partition)
    else:
        found, missing = open_sets(config.layout, Path(images), partition=config.partition)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(one.name for one in found)
        raise SourceError(
            f"{images} holds {len(found)} sets ({names}), and a head learns one: name its own folder."
        )
    raise SourceError(
        f"{images} holds no labelled set. "
        + " ".join(f"{m.name}: {m.reason}. {m.cure}" for m in missing[:3])
    )


def _looked_at(data: LabelledSet, labels: Labels) -> list[str]:
    """Refuse training images of one class; say which classes nothing teaches."""
    names, train = data.facts.classes, labels["train"]
    counts = train.sum(axis=0) if train.ndim == 2 else np.bincount(train, minlength=len(names))
    present = np.flatnonzero(counts)
    alike = train.ndim == 2 and not (train != train[0]).any()
    if alike or (train.ndim == 1 and len(present) < 2):
        which = ", ".join(names[i] for i in present) or "none"
        raise SourceError(
            f"All {len(train)} training images of {data.facts.name} have one label ({which}): there is "
            "nothing to tell apart. Add images of other classes to its training part."
        )
    missing = [name for name, count in zip(names, counts, strict=True) if not count]
    if not missing:
        return []
    return [f"no training image has {', '.join(missing)}: nothing teaches them"]
