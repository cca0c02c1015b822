"""What each labelled image, or the ground under it, is for."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from geodino import seeds
from geodino.data.blocks import make_split
from geodino.data.labelled.sets import PARTS, PartName
from geodino.data.split_file import load_split, refuse_undated
from geodino.data.splits import Split, SplitConfig
from geodino.data.tiles import Tile, TileIndex
from geodino.errors import SourceError, suggest
from geodino.geo.outlines import outlines

PART_OF_FOLDER: dict[str, PartName] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of folders that say what their images are for."""


def part_in(name: str) -> PartName | None:
    """Return the part that one of the words of a name calls: ``instances_val2017``; else None."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((PART_OF_FOLDER[word] for word in words if word in PART_OF_FOLDER), None)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What each image, or the ground under it, is for."""

    images: Mapping[PartName, tuple[int, ...]]
    """Numbers of the images of each part; an image may be of several where ground is split."""

    split: Split | None = None
    """How the ground is split; None where whole images are."""

    notes: tuple[str, ...] = ()
    """How it was made, as sentences for the run card."""


def image_names(images: TileIndex) -> tuple[str, ...]:
    """Return the path of each image below the source; the whole path where it lies elsewhere."""
    return tuple(
        PurePath(tile.path).relative_to(images.root).as_posix()
        if PurePath(tile.path).is_relative_to(images.root)
        else tile.path
        for tile in images.tiles
    )


def keys_of(divided: Parts, names: Sequence[str]) -> dict[PartName, tuple[str, ...]]:
    """Return the keys ``PART/NAME`` of the images of each part."""
    return {
        part: tuple(f"{part}/{names[i]}" for i in numbers)
        for part, numbers in divided.images.items()
    }


def part_of(key: str) -> PartName:
    """Return the part of a key ``PART/NAME``."""
    return PART_OF_FOLDER[key.partition("/")[0]]


def split_facts(split: Split | None) -> list[Any]:
    """Return all that a split is, as JSON holds it: for hashes."""
    if split is None:
        return [None, []]
    rows = zip(split.split, split.site, split.geometry, strict=True)
    return [split.crs, [[word, site, shape.wkb_hex] for word, site, shape in rows], *split.year]


def degrees_of(tile: Tile) -> tuple[float, float, float, float] | None:
    """Return west, south, east, north of an image in degrees; None where it has no place."""
    shape = tile.grid.footprint_wgs84()
    if shape is None:
        return None
    west, south, east, north = (float(v) for v in shape.bounds)
    return west, south, east, north


def divide(
    images: TileIndex,
    labelled: Sequence[int],
    *,
    split: str | None,
    config: SplitConfig,
    pixel_m: float | None = None,
) -> Parts:
    """Decide what each labelled image, or its ground, is for.

    In this order: a file (``split``: polygons, or a CSV of images), folders named train, val and
    test, blocks of ground where all images have a place, else whole images drawn by the seed.

    Args:
        images: all of them.
        labelled: numbers of those that are divided.
        split: the file; None makes a split.
        config: how.
        pixel_m: of the grid a model sees, metres; None is the images'.

    Raises:
        SourceError: the file is wrong, or there is nothing to learn from or to validate on.
    """
    names = image_names(images)
    by_name = _by_name(names, labelled, split)
    if by_name is not None:
        return _checked(by_name)
    if split is None and any(images.tiles[i].gsd_m is None for i in labelled):
        return _checked(_by_chance(labelled, config))
    if split is not None:
        chosen = load_split(split)
        refuse_undated(chosen, [images.tiles[i] for i in labelled], split)
    else:
        ground = outlines([images.tiles[i].grid for i in labelled])
        chosen = make_split(ground, config, pixel_m=pixel_m or max(images.gsd_m or (1.0,)))
    under = {i: chosen.of_time(images.tiles[i].datetime) for i in labelled}
    shares = {i: under[i].shares(images.tiles[i].grid) for i in labelled}
    by_part = {part: tuple(i for i in labelled if part in shares[i]) for part in PARTS}
    notes = [*chosen.notes]
    if chosen.sites("calibration"):
        notes.append("ground for calibration is not used: only heights need some (split.shares)")
    return _checked(Parts(images=by_part, split=chosen, notes=tuple(notes)))


def divide_names(names: Sequence[str], *, split: str | None, config: SplitConfig) -> Parts:
    """Decide what each of some images is for that have no ground: arguments as of ``divide``.

    Raises:
        SourceError: the file is wrong, or there is nothing to learn from or to validate on.
    """
    every = range(len(names))
    by_name = _by_name(names, every, split)
    if by_name is None and split is not None:
        raise SourceError(
            f"{split} splits ground, and these images are divided whole: name a CSV with the columns "
            "image and split."
        )
    return _checked(by_name or _by_chance(every, config))


def val_of_train(count: int, config: SplitConfig) -> tuple[frozenset[int], str]:
    """Draw the images to validate on from ``count`` to learn from.

    Returns:
        Their numbers, and how it was done as a sentence.
    """
    train, val = config.shares.train, config.shares.val
    drawn = _drawn(range(count), {"train": train, "val": val, "test": 0.0}, seed=config.seed)
    return frozenset(drawn["val"]), (
        f"there is no part to validate on: {len(drawn['val'])} of {count} images for training were "
        "drawn for it (split.shares, split.seed)"
    )


def _by_name(names: Sequence[str], labelled: Sequence[int], split: str | None) -> Parts | None:
    """By a list of images, or by folders named after the parts; None without either."""
    if split is not None:
        is_list = Path(split).suffix.lower() == ".csv"
        return _by_list(names, labelled, split) if is_list else None
    folders = {i: PART_OF_FOLDER.get(names[i].partition("/")[0].lower()) for i in labelled}
    if not folders or not all(folders.values()):
        return None
    found = {part: tuple(i for i in labelled if folders[i] == part) for part in PARTS}
    return Parts(images=found, notes=("split by folders named after the parts",))


def _by_list(names: Sequence[str], labelled: Sequence[int], path: str) -> Parts:
    try:
        with Path(path).open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as a table of images ({error}).") from error
    if not rows or not {"image", "split"} <= rows[0].keys():
        raise SourceError(
            f"{path} needs the columns image and split: the path of an image below --images, and "
            f"one of {', '.join(PARTS)}."
        )
    said: dict[str, str] = {}
    for row in rows:
        if row["split"] not in PARTS:
            raise SourceError(
                f"{path}: {row['split']!r} of {row['image']} is not one of {', '.join(PARTS)}."
                f"{suggest(row['split'], PARTS)}"
            )
        said[row["image"]] = row["split"]
    if strange := sorted(said.keys() - set(names)):
        raise SourceError(
            f"{path} names {strange[0]!r}, which is no image of the source.{suggest(strange[0], names)} "
            f"{len(strange)} name(s) are unknown: write paths below --images, endings included."
        )
    by_part = {p: tuple(i for i in labelled if said.get(names[i]) == p) for p in PARTS}
    return Parts(images=by_part, notes=(f"split by {path}",))


def _by_chance(labelled: Sequence[int], config: SplitConfig) -> Parts:
    shares = config.shares
    wanted: dict[PartName, float] = {"train": shares.train, "val": shares.val, "test": shares.test}
    note = (
        "ground cannot be split, so whole images are drawn for each part (split.seed): if several "
        "were cut from one scene, name a CSV with the columns image and split (--split)"
    )
    return Parts(images=_drawn(labelled, wanted, seed=config.seed), notes=(note,))


def _drawn(
    labelled: Sequence[int], wanted: Mapping[PartName, float], *, seed: int
) -> Mapping[PartName, tuple[int, ...]]:
    """Draw whole images by the seed: at least one for each part, where there are three."""
    total = sum(wanted.values())
    order = seeds.rng(seed, "images").permutation(len(labelled)).tolist()
    count = {part: int(len(labelled) * share / total) for part, share in wanted.items()}
    for part in ("test", "val"):
        if wanted[part] > 0 and len(labelled) > 2:
            count[part] = max(1, count[part])
    if len(labelled) == 2:
        count["val"], count["test"] = 1, 0
    val, test = count["val"], count["test"]
    drawn: dict[PartName, list[int]] = {
        "val": order[:val], "test": order[val : val + test], "train": order[val + test :],
    }  # fmt: skip
    return {part: tuple(sorted(labelled[i] for i in drawn[part])) for part in PARTS}


def _checked(parts: Parts) -> Parts:
    for part in ("train", "val"):
        if not parts.images[part]:
            raise SourceError(
                f"There is no labelled image for {part}, and training needs both train and val. "
                "Declare other shares (split.shares), or name a file with both (--split)."
            )
    return parts
