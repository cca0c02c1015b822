"""From what a user calls images and labels to one labelled set of classes per pixel."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from geodino.data.config import DataConfig
from geodino.data.index import build_index
from geodino.data.labelled.class_files import class_files, named_values, values_in_words
from geodino.data.labelled.class_labels import (
    ClassLabels,
    MaskLabels,
    RasterClasses,
    VectorClasses,
    check_sizes,
    elsewhere,
    mask_files,
    numbers_of,
    open_polygons,
    pair_rasters,
)
from geodino.data.labelled.classes import ClassLabelsConfig, ClassTable, Layout, words_of
from geodino.data.labelled.isaid import IsaidSet, is_isaid
from geodino.data.labelled.loveda import LovedaSet, is_loveda
from geodino.data.labelled.opened import OpenedSet
from geodino.data.labelled.parts import divide
from geodino.data.labelled.sets import IGNORED, SetFacts, parts_in_words
from geodino.data.labelled.tile_set import TileSet
from geodino.data.labels.footprints import VECTORS
from geodino.data.parallel import thread_count
from geodino.data.sources.find import RASTERS, local_files
from geodino.data.splits import SplitConfig
from geodino.data.tiles import TileIndex
from geodino.errors import RecipeError
from geodino.io.raster import HandlePool


def open_classes(
    images: str,
    labels: str,
    *,
    config: ClassLabelsConfig,
    data: DataConfig,
    split: str | None,
    split_config: SplitConfig,
    pool: HandlePool,
    index: TileIndex | None = None,
    seen_m: float | None = None,
) -> OpenedSet:
    """Open images with classes per pixel.

    Args:
        images: any source of tiles, or the folder of a known set.
        labels: a folder, pattern or file of masks, class rasters or polygons; for a known set the
            same folder.
        config: what is declared of the labels.
        data: how images are read.
        split: a vector file of polygons, or a CSV of images; None makes a split.
        split_config: how.
        pool: where open files are kept.
        index: the images, where they are listed already.
        seen_m: pixel of the grid a model sees, metres; None is the images'.

    Raises:
        GeodinoError: whatever is wrong with any of them, in a sentence.
    """
    layout = _layout(images, config.layout)
    if layout in ("loveda", "isaid"):
        return _known(images, labels, layout, config=config, split=split, pool=pool)
    threads = thread_count(data.threads)
    tiles = build_index(images, data, threads=threads) if index is None else index
    if layout == "auto" and labels.lower().endswith(VECTORS) and Path(labels).is_file():
        layout = "vectors"
    found: ClassLabels
    if layout == "vectors":
        found, table, said = _vectors(labels, config, tiles)
    else:
        found, table, said, layout = _rasters(labels, config, tiles, layout, pool, threads)
    parts = divide(tiles, found.labelled, split=split, config=split_config, pixel_m=seen_m)
    background = None if config.background is None else table.names.index(config.background)
    facts = SetFacts(
        name=Path(images).name or images,
        kind="segmentation",
        classes=table.names,
        bands=tiles.bands,
        dtype=tiles.dtype,
        metric="miou",
        gsd_m=None if tiles.gsd_m is None else sum(tiles.gsd_m) / 2,
        background=background,
    )
    without = len(tiles.tiles) - len(found.labelled)
    notes = [
        *tiles.rule.reasons,
        *tiles.notes,
        *said,
        f"{len(found.labelled)} of {len(tiles.tiles)} images have labels"
        + (f"; {without} without are not used" if without else ""),
        f"{len(table.names)} classes: {words_of(table.names)}",
        *parts.notes,
        f"images by part: {parts_in_words(parts.images)}",
    ]
    return OpenedSet(
        set=TileSet(facts=facts, images=tiles, labels=found, divided=parts, pool=pool),
        colours=table.colours,
        layout=layout,
        notes=tuple(notes),
        images=tiles,
        split=parts.split,
    )


def is_known_set(images: str, config: ClassLabelsConfig) -> bool:
    """Whether images are the folder of a set whose layout is known."""
    return _layout(images, config.layout) in ("loveda", "isaid")


def _layout(images: str, declared: Layout) -> Layout:
    if declared != "auto":
        return declared
    root = Path(images)
    if root.is_dir():
        if is_loveda(root):
            return "loveda"
        if is_isaid(root):
            return "isaid"
    return "auto"


def _known(
    images: str,
    labels: str,
    layout: Layout,
    *,
    config: ClassLabelsConfig,
    split: str | None,
    pool: HandlePool,
) -> OpenedSet:
    name = {"loveda": "LoveDA", "isaid": "iSAID"}[layout]
    if Path(labels).resolve() != Path(images).resolve():
        raise RecipeError(
            f"{images} is {name}, whose labels lie in the same folder: give --labels {images}, or "
            "declare another labels.layout."
        )
    if split is not None or config.classes is not None:
        what = "--split" if split is not None else "labels.classes"
        raise RecipeError(
            f"{images} is {name}, which has parts and classes of its own: leave {what} out, or declare "
            "labels.layout: masks to read it as any images with masks."
        )
    found: LovedaSet | IsaidSet
    found = LovedaSet(images, pool=pool) if layout == "loveda" else IsaidSet(images, pool=pool)
    return OpenedSet(
        set=found,
        colours=found.colours,
        layout=layout,
        unlabelled=found.unlabelled,
        notes=(f"{name}: {parts_in_words(found.parts)}; {found.facts.source}", *found.facts.notes),
    )


def _vectors(
    labels: str, config: ClassLabelsConfig, tiles: TileIndex
) -> tuple[ClassLabels, ClassTable, list[str]]:
    frame, words = open_polygons(labels, config.column)
    named: Mapping[str, int | str] = words
    if config.elsewhere is not None and config.elsewhere not in words:
        named = {config.elsewhere: config.elsewhere, **words}
    table = ClassTable.of(config, named)
    numbers = numbers_of(frame, config.column, table, source=labels)
    rest = IGNORED if config.elsewhere is None else table.names.index(config.elsewhere)
    found = VectorClasses(labels, frame, numbers, tiles, elsewhere=rest)
    counts = np.bincount(numbers[numbers != IGNORED], minlength=len(table.names)).tolist()
    said = ", ".join(f"{n} {name}" for name, n in zip(table.names, counts, strict=True) if n)
    return found, table, [
        f"polygons: {said}; pixels in none of them are {config.elsewhere or 'ignored'}"
    ]  # fmt: skip


def _rasters(
    labels: str,
    config: ClassLabelsConfig,
    tiles: TileIndex,
    layout: Layout,
    pool: HandlePool,
    threads: int,
) -> tuple[ClassLabels, ClassTable, list[str], Layout]:
    root, listed = local_files(labels, RASTERS)
    paths = [str(path) for path in listed]
    masks = None
    if layout in ("auto", "masks"):
        masks = mask_files(tiles, root, paths, suffix=config.suffix, threads=threads)
    if masks is not None and layout == "auto" and elsewhere(tiles, masks):
        masks = None  # they share stems, but not the ground of each pixel
    if masks is not None:
        check_sizes(tiles, masks)
        files = [file for file in masks if file is not None]
        table = ClassTable.of(config, named_values(files), partial(values_in_words, files))
        return MaskLabels(files=masks, table=table, pool=pool), table, [], "masks"
    if layout == "masks":
        raise RecipeError(
            f"No file of {labels} has the stem of an image: name masks as their images (a suffix is "
            "declared with labels.suffix), or set labels.layout: rasters, if both have a place."
        )
    every = class_files(paths, threads=threads)
    pairs = pair_rasters(tiles, every)
    table = ClassTable.of(config, named_values(every), partial(values_in_words, every))
    found = RasterClasses(
        files=tuple(every), by_image=pairs, images=tiles, table=table,
        statistic=config.statistic, pool=pool,
    )  # fmt: skip
    said = f"class rasters come to the images by place ({config.statistic} of finer pixels)"
    return found, table, [said], "rasters"
