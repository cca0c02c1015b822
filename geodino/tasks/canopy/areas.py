"""Whole labelled areas of a split, which results are measured on, site by site."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from geodino.data.labels.reader import onto_label_grid
from geodino.data.parallel import in_order
from geodino.data.splits import Split, SplitName
from geodino.geo.align import source_window
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.tasks.canopy.source import CanopySource, FootprintLabels, chosen

_SIDE = 2048
"""Longest side of an area, pixels of the image: what is predicted at once."""

_LEAST = 16
"""No area is cut shorter than this, pixels of the label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Area:
    """Labelled ground of one site under one image."""

    image: int
    site: str

    window: Window
    """Of the image, on its own grid: what a map is needed of."""

    label: int | None
    """Number of the label raster; None for footprints."""

    label_window: Window
    """Of the label raster; of the image for footprints."""

    footprints: tuple[int, ...] = ()
    """Numbers of the footprints."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """What belongs to the labels of an area, on their own pixels."""

    area: Area

    values: Float[np.ndarray, "k *s"]
    """Predictions, or whatever map was brought there."""

    true_m: Float[np.ndarray, "*s"]
    """Heights."""

    valid: Bool[np.ndarray, "*s"]
    """Where both mean something, the ground is of the site, and no other label came first."""

    gsd_m: float
    """Pixel of the labels, metres."""


def find_areas(source: CanopySource, which: SplitName, *, threads: int) -> tuple[Area, ...]:
    """Return all areas of a split, in a fixed order."""
    if isinstance(source.labels, FootprintLabels):
        per_image = in_order(
            lambda image: _footprint_areas(source, image, which), source.labelled, threads=threads
        )
        return tuple(area for areas in per_image for area in areas)
    pairs = source.labels.pairs
    both = [(image, label) for image in source.labelled for label in pairs.by_image[image]]
    found = in_order(lambda pair: _raster_areas(source, *pair, which), both, threads=threads)
    return tuple(area for areas in found for area in areas)


def _raster_areas(source: CanopySource, image: int, label: int, which: SplitName) -> list[Area]:
    if isinstance(source.labels, FootprintLabels):
        raise TypeError("the labels are footprints")
    grid = source.labels.index.tiles.tiles[label].grid
    on = source.images.tiles[image].grid
    finer = 1.0 if grid.gsd_m is None or on.gsd_m is None else min(on.gsd_m) / max(grid.gsd_m)
    side = max(_LEAST, round(_SIDE * finer))
    areas = []
    for window in _cells(grid, side):
        for site, part in _sites(source.split_of(image), grid, window, which):
            needed = source_window(on, grid, part)
            if needed is not None:
                areas.append(
                    Area(image=image, site=site, window=needed, label=label, label_window=part)
                )
    return areas


def _footprint_areas(source: CanopySource, image: int, which: SplitName) -> list[Area]:
    """Areas around the footprints whose pixels are all of one site."""
    grid, split = source.images.tiles[image].grid, source.split_of(image)
    whole = Window(0, 0, grid.height, grid.width)
    found = source.find_footprints(image, whole)
    members: dict[tuple[str, int, int], list[tuple[int, Window]]] = {}
    for i in range(len(found)):
        row, column = np.divmod(found.of(i), grid.width)
        top, left = int(row.min()), int(column.min())
        box = Window(top, left, int(row.max()) + 1 - top, int(column.max()) + 1 - left)
        rows = split.rows(grid, box)[row - top, column - left]
        names = {split.site[r] if r >= 0 else "" for r in np.unique(rows).tolist()}
        kinds = {split.split[r] if r >= 0 else "" for r in np.unique(rows).tolist()}
        if len(names) == 1 and kinds == {which}:
            cell = top // _SIDE, left // _SIDE
            key = (names.pop(), *cell)
            members.setdefault(key, []).append((int(found.numbers[i]), box))
    areas = []
    for (site, _, _), inside in sorted(members.items()):
        window = _around([box for _, box in inside])
        window = _grown(window, grid)
        areas.append(
            Area(
                image=image,
                site=site,
                window=window,
                label=None,
                label_window=window,
                footprints=tuple(number for number, _ in inside),
            )
        )
    return areas


def _around(boxes: list[Window]) -> Window:
    top, left = min(b.top for b in boxes), min(b.left for b in boxes)
    bottom, right = max(b.bottom for b in boxes), max(b.right for b in boxes)
    return Window(top, left, bottom - top, right - left)


def _grown(window: Window, grid: Grid) -> Window:
    """A window with a pixel on each side: outlines of footprints cross the pixels' edges."""
    top, left = max(0, window.top - 1), max(0, window.left - 1)
    bottom = min(grid.height, window.bottom + 1)
    right = min(grid.width, window.right + 1)
    return Window(top, left, bottom - top, right - left)


def _cells(grid: Grid, side: int) -> Iterator[Window]:
    for top in range(0, grid.height, side):
        for left in range(0, grid.width, side):
            yield Window(top, left, min(side, grid.height - top), min(side, grid.width - left))


def _sites(
    split: Split, grid: Grid, window: Window, which: SplitName
) -> Iterator[tuple[str, Window]]:
    """The sites of a split that a window holds pixels of, each with the part it lies in."""
    rows = split.rows(grid, window)
    of_site: dict[str, list[int]] = {}
    for row in np.unique(rows).tolist():
        if row >= 0 and split.split[row] == which:
            of_site.setdefault(split.site[row], []).append(row)
    for site, numbers in sorted(of_site.items()):
        inside = np.isin(rows, numbers)
        down, across = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        yield (
            site,
            Window(
                window.top + int(down[0]),
                window.left + int(across[0]),
                int(down[-1] - down[0]) + 1,
                int(across[-1] - across[0]) + 1,
            ),
        )


def compare(
    source: CanopySource,
    area: Area,
    values: Float[np.ndarray, "k h w"],
    valid: Bool[np.ndarray, "h w"],
    which: SplitName,
    *,
    is_height: bool = True,
) -> Compared:
    """Bring a map of ``area.window`` to the pixels of the area's labels.

    Args:
        source: images and labels.
        area: what is compared.
        values: the map, on the image's own grid.
        valid: where it means something.
        which: the split the area is of.
        is_height: the map is of heights, and is brought there as labels are; else by its mean.
    """
    if isinstance(source.labels, FootprintLabels):
        return _compare_footprints(source, area, values, valid, is_height=is_height)
    labels = source.labels.index
    if area.label is None:
        raise TypeError("an area of footprints among labels that are rasters")
    grid = labels.tiles.tiles[area.label].grid
    on = _part_of(source.images.tiles[area.image].grid, area.window)
    statistic = labels.config.statistic if is_height else "mean"
    brought = [
        onto_label_grid(
            channel, valid, grid_of_values=on, label_grid=grid, window=area.label_window,
            statistic=statistic,
        )
        for channel in values
    ]  # fmt: skip
    true_m, known = labels.heights(source.pool, area.label, area.label_window)
    split = source.split_of(area.image)
    known &= _of_site(split, grid, area.label_window, area.site, which)
    if source.scored is not None:
        known &= source.scored(area.label, grid, area.label_window, true_m)
    earlier = source.labels.pairs.by_image[area.image]
    earlier = earlier[: earlier.index(area.label)]
    if earlier:
        _, taken = source.read_rasters.heights(earlier, grid, area.label_window)
        known &= ~taken
    for _, there in brought:
        known &= there
    return Compared(
        area=area,
        values=np.stack([channel for channel, _ in brought]),
        true_m=true_m.astype(np.float32),
        valid=known,
        gsd_m=_mean_gsd(grid),
    )


def _compare_footprints(
    source: CanopySource,
    area: Area,
    values: Float[np.ndarray, "k h w"],
    valid: Bool[np.ndarray, "h w"],
    *,
    is_height: bool,
) -> Compared:
    """Each footprint becomes a picture of one pixel."""
    if not isinstance(source.labels, FootprintLabels):
        raise TypeError("the labels are rasters")
    found = source.find_footprints(area.image, area.label_window)
    wanted = np.flatnonzero(np.isin(found.numbers, area.footprints))
    found = chosen(found, wanted.tolist())
    flat = valid.reshape(-1)
    whole = np.array([bool(flat[found.of(i)].all()) for i in range(len(found))], dtype=bool)
    true_m = found.height_m.astype(np.float32)[:, None, None]
    if source.scored is not None and len(found):
        grid = source.images.tiles[area.image].grid
        pixel = Window(area.label_window.top, area.label_window.left, 1, 1)
        scored = [source.scored(None, grid, pixel, heights) for heights in true_m]
        whole &= np.concatenate(scored).reshape(-1)
    index = source.labels.index
    percentile = index.percentile if is_height else 50.0
    clean = np.where(valid, values, np.float32(0))
    per = [found.percentiles(channel, percentile) for channel in clean]
    return Compared(
        area=area,
        values=np.stack(per).astype(np.float32)[:, :, None, None],
        true_m=true_m,
        valid=whole[:, None, None],
        gsd_m=index.config.footprints.footprint_m,
    )


def _of_site(
    split: Split, grid: Grid, window: Window, site: str, which: SplitName
) -> Bool[np.ndarray, "h w"]:
    numbers = [
        row
        for row, (name, word) in enumerate(zip(split.site, split.split, strict=True))
        if name == site and word == which
    ]
    return np.asarray(np.isin(split.rows(grid, window), numbers))


def _part_of(grid: Grid, window: Window) -> Grid:
    from affine import Affine

    moved = grid.transform @ Affine.translation(window.left, window.top)
    return Grid(grid.crs, moved, window.width, window.height)


def _mean_gsd(grid: Grid) -> float:
    return 1.0 if grid.gsd_m is None else sum(grid.gsd_m) / 2
