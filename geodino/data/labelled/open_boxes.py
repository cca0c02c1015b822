"""From what a user calls images and labels to one labelled set of boxes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from geodino.data.config import DataConfig
from geodino.data.index import build_index
from geodino.data.labelled.box_file import vector_files
from geodino.data.labelled.box_table import open_box_table
from geodino.data.labelled.boxes import BoxLabelsConfig, Layout, PictureBoxes, name_of
from geodino.data.labelled.classes import default_colours
from geodino.data.labelled.coco import open_coco
from geodino.data.labelled.dior import is_dior, open_dior
from geodino.data.labelled.dota import has_dota_labels, is_dota, open_dota
from geodino.data.labelled.opened import OpenedSet
from geodino.data.labelled.parts import divide_names, part_in, part_of, val_of_train
from geodino.data.labelled.sets import PARTS, PartName, parts_in_words
from geodino.data.labels.footprints import VECTORS
from geodino.data.parallel import thread_count
from geodino.data.splits import SplitConfig
from geodino.data.tiles import TileIndex
from geodino.errors import RecipeError, SourceError
from geodino.io.raster import HandlePool

_SETS: tuple[tuple[Layout, Callable[[Path], bool]], ...] = (("dior", is_dior), ("dota", is_dota))
"""Sets with a layout of their own, and how to tell their folders."""


def open_boxes(
    images: str,
    labels: str,
    *,
    config: BoxLabelsConfig,
    data: DataConfig,
    split: str | None,
    split_config: SplitConfig,
    pool: HandlePool,
    index: TileIndex | None = None,
    seen_m: float | None = None,
) -> OpenedSet:
    """Open images with boxes.

    Where pictures come without a part to validate on, some of those to learn from are drawn for it.

    Args:
        images: any source of tiles with a place, for a vector file; else a folder.
        labels: a vector file or a folder of them; COCO's JSON or a folder with one for each part; for
            DIOR and DOTA the same folder; a folder of DOTA's text files.
        config: what is declared of the labels.
        data: how images with a place are read.
        split: a vector file of polygons, or a CSV of images; None makes a split.
        split_config: how.
        pool: where open files are kept.
        index: the images, where they are listed already.
        seen_m: pixel of the grid a model sees, metres; None is the images'.

    Raises:
        GeodinoError: whatever is wrong with any of them, in a sentence.
    """
    layout = layout_of(images, labels, config)
    if layout == "table":
        if index is None:
            index = build_index(images, data, threads=thread_count(data.threads))
        return _table(index, labels, config, split, split_config, pool, seen_m)
    if layout == "dior":
        found, notes = _dior(images, labels, config, split, split_config, pool)
    elif layout == "dota":
        found, notes = _dota(images, labels, config, split, split_config, pool)
    else:
        found, notes = _coco(images, labels, config, split, split_config, pool)
    counts = ", ".join(f"{len(keys)} {part}" for part, keys in found.parts.items() if keys)
    facts = found.facts
    about = f"{facts.name}: {counts}; {facts.source}"
    return OpenedSet(
        set=found,
        colours=default_colours(len(facts.classes)),
        layout=layout,
        unlabelled=found.unlabelled,
        notes=(about, *facts.notes, *notes),
    )


def is_known_set(images: str, config: BoxLabelsConfig) -> bool:
    """Whether images are the folder of a set whose layout is known."""
    return _known(images, config) is not None


def _known(images: str, config: BoxLabelsConfig) -> Layout | None:
    if config.layout == "auto":
        return next((name for name, is_it in _SETS if is_it(Path(images))), None)
    return config.layout if config.layout in dict(_SETS) else None


def layout_of(images: str, labels: str, config: BoxLabelsConfig) -> Layout:
    """Return how the labels lie: as declared, or as their names tell.

    Raises:
        SourceError: they tell nothing.
    """
    known = _known(images, config)
    if known is not None:
        return known
    if config.layout != "auto":
        return config.layout
    path = Path(labels)
    if path.suffix.lower() in VECTORS or (path.is_dir() and vector_files(path)):
        return "table"
    if path.suffix.lower() == ".json" or any(path.glob("*.json")) or any(path.glob("*/*.json")):
        return "coco"
    if has_dota_labels(path):
        return "dota"
    raise SourceError(
        f"{labels} is neither a vector file ({', '.join(VECTORS)}) or a folder of them, nor COCO's JSON "
        "or a folder with one for each part, nor a folder of DOTA's text files, and the images are "
        "neither DIOR nor DOTA: name one of those, or declare labels.layout."
    )


def _table(
    index: TileIndex,
    labels: str,
    config: BoxLabelsConfig,
    split: str | None,
    split_config: SplitConfig,
    pool: HandlePool,
    seen_m: float | None,
) -> OpenedSet:
    found = open_box_table(
        index, labels, config=config, split=split, split_config=split_config, pool=pool,
        seen_m=seen_m,
    )  # fmt: skip
    return OpenedSet(
        set=found,
        colours=default_colours(len(found.facts.classes)),
        layout="table",
        notes=(
            *index.rule.reasons, *index.notes, *found.facts.notes, f"images by part: {parts_in_words(found.parts)}",
        ),
        images=index,
        split=found.divided.split,
    )  # fmt: skip


def _dior(
    images: str,
    labels: str,
    config: BoxLabelsConfig,
    split: str | None,
    split_config: SplitConfig,
    pool: HandlePool,
) -> tuple[PictureBoxes, list[str]]:
    if Path(labels).resolve() != Path(images).resolve():
        raise RecipeError(
            f"{images} is DIOR, whose labels lie in the same folder: give --labels {images}, or declare "
            "another labels.layout."
        )
    if split is not None or config.classes is not None:
        what = "--split" if split is not None else "labels.classes"
        raise RecipeError(
            f"{images} is DIOR, which has parts and classes of its own: leave {what} out."
        )
    return _validated(open_dior(images, pool=pool, turned=config.turned), split_config)


def _dota(
    images: str,
    labels: str,
    config: BoxLabelsConfig,
    split: str | None,
    split_config: SplitConfig,
    pool: HandlePool,
) -> tuple[PictureBoxes, list[str]]:
    found = open_dota(images, labels, pool=pool, classes=config.classes, other=config.other)
    if len(found.parts) == 1:
        return _divided(found, split, split_config)
    if split is not None:
        raise RecipeError(f"{images} is DOTA with parts of its own: leave --split out.")
    return _validated(found, split_config)


def _coco(
    images: str,
    labels: str,
    config: BoxLabelsConfig,
    split: str | None,
    split_config: SplitConfig,
    pool: HandlePool,
) -> tuple[PictureBoxes, list[str]]:
    files = _files(Path(labels))
    one = isinstance(files, Path)
    if split is not None and not one:
        raise RecipeError(
            f"{labels} holds a file for each part: leave --split out, or name one of the files."
        )
    found = open_coco(
        images, {"train": files} if isinstance(files, Path) else files, pool=pool,
        name=Path(labels).stem, classes=config.classes, other=config.other,
    )  # fmt: skip
    if not one:
        return _validated(found, split_config)
    return _divided(found, split, split_config)


def _divided(
    found: PictureBoxes, split: str | None, config: SplitConfig
) -> tuple[PictureBoxes, list[str]]:
    """Divide images that come as one part."""
    names = [name_of(key) for key in found.parts["train"]]
    divided = divide_names(names, split=split, config=config)
    numbers = {names[i]: part for part, chosen in divided.images.items() for i in chosen}
    return found.divided(lambda key: numbers.get(name_of(key))), list(divided.notes)


def _files(labels: Path) -> Path | dict[PartName, Path]:
    """The file, or the file of each part.

    Raises:
        SourceError: there is none for training, or several for one part.
    """
    if labels.is_file():
        return labels
    found: dict[PartName, Path] = {}
    for path in sorted([*labels.glob("*.json"), *labels.glob("*/*.json")]):
        part = part_in(path.stem) or part_in(path.parent.name)
        if part is None:
            continue
        if part in found:
            raise SourceError(
                f"{found[part]} and {path} are both of the part {part}: leave one of them in {labels}."
            )
        found[part] = path
    if "train" not in found:
        raise SourceError(
            f"{labels} holds no JSON file whose name says train: name files after their parts "
            "(train.json, val.json, test.json), or name one file."
        )
    return {part: found[part] for part in PARTS if part in found}


def _validated(found: PictureBoxes, config: SplitConfig) -> tuple[PictureBoxes, list[str]]:
    """Draw a part to validate on where there is none."""
    if found.parts.get("val"):
        return found, []
    train = found.parts.get("train", ())
    drawn, note = val_of_train(len(train), config)
    val = {train[i] for i in drawn}

    def of(key: str) -> PartName:
        return "val" if key in val else part_of(key)

    return replace(found.divided(of), unlabelled=found.unlabelled), [note]
