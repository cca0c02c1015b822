"""A split made of square blocks of ground, drawn by a seed.

Ground that belongs together (labelled pieces that touch, or lie closer than the buffer) is a site.
A site that is no larger than a block is never cut: it belongs to the block that its middle lies
in. Larger ones are cut along a fixed grid of blocks, and what lies within the buffer of a block of
another split is not used.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from geodino import seeds
from geodino.data.splits import (
    BUFFER,
    NAMES,
    Split,
    SplitConfig,
    SplitName,
    ordered,
    refuse_empty,
)
from geodino.errors import SourceError
from geodino.geo.align import transformer

_ENOUGH = 20
"""Blocks from which shares of a tenth come out fairly."""

_MANY_SITES = 10
"""Sites from which none needs to be cut."""

_CHIP = 128
"""Pixels a side of the smallest block: smaller ones hold no chip."""

_SCRAP = 1 / 20
"""Part of a block below which cut ground is a scrap, not a block."""

_BUFFER_SHARE = 1 / 20

_ROUND = (5, 2, 1)

_ZONE_REACH = 4.0
"""Degrees of longitude that a UTM zone may be used beyond its centre; its scale is 0.2 % off there."""

_EQUAL_AREA = "EPSG:6933"
_TRUE_AT = np.cos(np.deg2rad(30.0))
"""Cosine of the latitude where EPSG:6933 is true to scale."""

_FIRST: tuple[SplitName, ...] = ("train", "val", "test", "calibration")
"""Which splits get a block where there are few."""

_SEGMENTS = 16
_OUTSIDE = 1 / np.cos(np.pi / (4 * _SEGMENTS))
"""What makes the polygon of a rounded buffer lie outside of the true one, not inside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Blocks:
    """Labelled ground by block."""

    side_m: float
    buffer_m: float
    names: tuple[str, ...]
    ground: NDArray[np.object_]
    whole_sites: int
    """Sites that are not cut."""


def make_split(ground: NDArray[np.object_], config: SplitConfig, *, pixel_m: float) -> Split:
    """Split labelled ground in blocks.

    Args:
        ground: polygons with labels, in longitude and latitude; they may overlap. None is left
            out.
        config: shares, sizes and seed.
        pixel_m: pixel of the images, metres: blocks chosen by themselves hold a chip of 128.

    Returns:
        Rows of each block: what of it is used, and what is buffer. The same input gives the same
        split on any machine.

    Raises:
        SourceError: there is no ground, or none for training or validation.
    """
    ground = ground[np.asarray(shapely.area(ground) > 0)]
    if not ground.size:
        raise SourceError("There is no labelled ground to split: no label lies on an image.")
    crs, stretch = _metric_crs(ground)
    to_metres = transformer("OGC:CRS84", crs)
    pieces = shapely.transform(ground, to_metres.transform, interleaved=False)
    touching = shapely.union_all(shapely.buffer(pieces, pixel_m / 4, join_style="mitre"))
    sites = _owned(pieces, _parts(touching))
    blocks = _chosen_blocks(sites, config, pixel_m, stretch)
    words = _assigned(blocks, config)
    return _with_buffer(crs, blocks, words, config, stretch)


def _owned(pieces: NDArray[np.object_], areas: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return the union of the pieces that lie in each area."""
    of_piece, area = shapely.STRtree(areas).query(pieces, predicate="intersects")
    members: dict[int, list[int]] = defaultdict(list)
    for piece, number in zip(of_piece.tolist(), area.tolist(), strict=True):
        members[number].append(piece)
    return _array([shapely.union_all(pieces[members[number]]) for number in sorted(members)])


def _metric_crs(ground: NDArray[np.object_]) -> tuple[str, float]:
    """Return the CRS to measure in, and the most that it stretches a metre there."""
    west, south, east, north = shapely.total_bounds(ground)
    zone = int(np.clip(((west + east) / 2 + 180) // 6, 0, 59)) + 1
    centre = 6 * zone - 183
    if max(centre - west, east - centre) <= _ZONE_REACH and south >= -80 and north <= 84:
        return f"EPSG:{(32600 if south + north >= 0 else 32700) + zone}", 1.0
    nearest = 0.0 if south <= 0 <= north else min(abs(south), abs(north))
    scales = _TRUE_AT / np.cos(np.deg2rad([nearest, min(max(abs(south), abs(north)), 89.0)]))
    return _EQUAL_AREA, float(np.maximum(scales, 1 / scales).max())


def _chosen_blocks(
    sites: NDArray[np.object_], config: SplitConfig, pixel_m: float, stretch: float
) -> _Blocks:
    """Cut sites in blocks of the declared side, or of the largest that makes enough of them."""
    if isinstance(config.block_m, float):
        return _cut(sites, config.block_m, _buffer(config, config.block_m), stretch)
    best: _Blocks | None = None
    for side in _sides(sites, pixel_m):
        blocks = _cut(sites, side, _buffer(config, side), stretch)
        if best is None or len(blocks.names) > len(best.names):
            best = blocks
        if len(blocks.names) >= _ENOUGH:
            break
    if best is None:
        raise ValueError("no side of a block to choose from")
    return best


def _buffer(config: SplitConfig, side_m: float) -> float:
    return side_m * _BUFFER_SHARE if config.buffer_m == "auto" else float(config.buffer_m)


def _sides(sites: NDArray[np.object_], pixel_m: float) -> Iterator[float]:
    """Yield round lengths from about the whole ground's down to the least a block may have."""
    west, south, east, north = shapely.total_bounds(sites)
    least = _CHIP * pixel_m
    if len(sites) >= _MANY_SITES:
        least = max(_extents(sites))
    largest = max(east - west, north - south)
    for power in range(int(np.ceil(np.log10(max(largest, least)))), -4, -1):
        for digit in _ROUND:
            side = digit * 10.0**power
            if side < least:
                return
            if side <= largest or side < 2.5 * least:
                yield side


def _extents(sites: NDArray[np.object_]) -> list[float]:
    west, south, east, north = shapely.bounds(sites).T
    return [float(extent) for extent in np.maximum(east - west, north - south)]


def _cut(sites: NDArray[np.object_], side_m: float, buffer_m: float, stretch: float) -> _Blocks:
    """Put whole sites in blocks, and cut those that are larger than one."""
    reach = buffer_m * stretch
    joined = sites
    if reach > 0:
        grown = shapely.buffer(sites, reach / 2 * _OUTSIDE, quad_segs=_SEGMENTS)
        joined = _owned(sites, _parts(shapely.union_all(grown)))
    found: dict[tuple[int, int], list[shapely.Geometry]] = defaultdict(list)
    whole = 0
    for site, extent in zip(joined, _extents(joined), strict=True):
        west, south, east, north = site.bounds
        if extent <= side_m:
            place = int((west + east) / 2 // side_m), int((south + north) / 2 // side_m)
            found[place].append(site)
            whole += 1
            continue
        for place, part in _cells(site, side_m):
            found[place].append(part)
    places = sorted(found)
    return _Blocks(
        side_m=side_m,
        buffer_m=buffer_m,
        names=tuple(f"x{x}y{y}" for x, y in places),
        ground=_array([shapely.union_all(found[place]) for place in places]),
        whole_sites=whole,
    )


def _cells(site: shapely.Geometry, side_m: float) -> list[tuple[tuple[int, int], shapely.Geometry]]:
    """Cut a site along the grid of blocks; scraps go to the block they share most of an edge with.

    A block of its own for a strip of ground would take as much into the buffer as a whole one.
    """
    shapely.prepare(site)
    west, south, east, north = site.bounds
    columns = np.arange(west // side_m, east // side_m + 1).astype(int)
    rows = np.arange(south // side_m, north // side_m + 1).astype(int)
    column, row = (places.ravel() for places in np.meshgrid(columns, rows))
    cells = shapely.box(column * side_m, row * side_m, (column + 1) * side_m, (row + 1) * side_m)
    reached = np.flatnonzero(shapely.intersects(site, cells))
    parts = _array([_polygons(shapely.intersection(site, cells[i])) for i in reached])
    areas = shapely.area(parts)
    large = np.flatnonzero(areas >= _SCRAP * side_m**2)
    tree = shapely.STRtree(parts[large])
    out = []
    for i in np.flatnonzero(areas > 0):
        near = np.sort(tree.query(parts[i], predicate="dwithin", distance=1e-6 * side_m))
        home = i
        if i not in large and near.size:
            edges = shapely.length(shapely.intersection(parts[i], parts[large[near]]))
            home = large[near[edges.argmax()]]
        out.append(((int(column[reached[home]]), int(row[reached[home]])), parts[i]))
    return out


def _assigned(blocks: _Blocks, config: SplitConfig) -> list[SplitName]:
    """Draw a split for every block so that shares of the ground come close.

    Large blocks first, in a random order among those of similar area: each goes to the split that
    lacks most. Every split gets one, as far as there are blocks.
    """
    areas = shapely.area(blocks.ground)
    count = len(areas)
    shares = config.shares.by_name
    if count < 2:
        raise SourceError(
            f"All labelled ground lies in one block of {blocks.side_m:g} m, and training needs "
            "both train and val. Declare smaller blocks (split.block_m), or name a file with both "
            "(--split)."
        )
    active = [name for name in _FIRST if shares[name] > 0][:count]
    lacking = {name: shares[name] * float(areas.sum()) for name in active}
    order = seeds.rng(config.seed, "split").permutation(count)
    size = np.floor(np.log2(areas[order] / areas.max()))
    order = order[np.argsort(-size, kind="stable")]
    words: list[SplitName] = ["train"] * count
    empty = set(active)
    for left, block in zip(range(count, 0, -1), order.tolist(), strict=True):
        open_ = [name for name in active if name in empty] if left <= len(empty) else active
        chosen = max(open_, key=lambda name: lacking[name])
        words[block] = chosen
        lacking[chosen] -= float(areas[block])
        empty.discard(chosen)
    return words


def _with_buffer(
    crs: str, blocks: _Blocks, words: Sequence[SplitName], config: SplitConfig, stretch: float
) -> Split:
    """Take what lies near a block of another split out of use."""
    ground, reach = blocks.ground, blocks.buffer_m * stretch
    tree = shapely.STRtree(ground)
    names = np.array(words)
    rows: list[tuple[str, str, shapely.Geometry]] = []
    for i, (name, site) in enumerate(zip(words, blocks.names, strict=True)):
        used, unused = ground[i], shapely.Polygon()
        if reach > 0:
            near = tree.query(ground[i], predicate="dwithin", distance=reach)
            near = np.sort(near[names[near] != name])
            zone = shapely.union_all(
                shapely.buffer(ground[near], reach * _OUTSIDE, quad_segs=_SEGMENTS)
            )
            used = _polygons(shapely.difference(ground[i], zone))
            unused = _polygons(shapely.intersection(ground[i], zone))
        rows += [(str(w), site, g) for w, g in ((name, used), (BUFFER, unused)) if g.area > 0]
    shapes, split, sites = (
        [row[2] for row in rows],
        [row[0] for row in rows],
        [row[1] for row in rows],
    )
    refuse_empty(split, f"Of {len(ground)} blocks of {blocks.side_m:g} m none leaves ground for")
    return ordered(crs, shapes, split, sites, notes=_notes(crs, blocks, rows, config))


def _notes(
    crs: str,
    blocks: _Blocks,
    rows: Sequence[tuple[str, str, shapely.Geometry]],
    config: SplitConfig,
) -> tuple[str, ...]:
    total = float(shapely.area(blocks.ground).sum())
    parts = {name: sum(g.area for word, _, g in rows if word == name) for name in (*NAMES, BUFFER)}
    chosen = " (chosen: split.block_m declares another side)" if config.block_m == "auto" else ""
    what = (
        f"labelled ground is split in {len(blocks.names)} blocks of {blocks.side_m:g} m in {crs}, "
        f"seed {config.seed}{chosen}; {blocks.whole_sites} sites are not cut"
    )
    much = (
        f"of the labelled ground {', '.join(f'{parts[n] / total:.0%} is {n}' for n in NAMES)}; "
        f"{parts[BUFFER] / total:.0%} lies within {blocks.buffer_m:g} m of another split and is "
        "not used"
    )
    notes = [what, much]
    shares = config.shares.by_name
    without = [name for name in NAMES if shares[name] > 0 and parts[name] == 0]
    if without:
        notes.append(f"there is no ground for {' and '.join(without)}: too few blocks")
    return tuple(notes)


def _polygons(shape: shapely.Geometry) -> shapely.Geometry:
    """Return the polygons of a geometry, without the points and lines that cutting leaves."""
    return shapely.union_all(_parts(shape))


def _parts(shape: shapely.Geometry) -> NDArray[np.object_]:
    parts = shapely.get_parts(shape)
    return np.asarray(parts[shapely.area(parts) > 0])


def _array(shapes: Sequence[shapely.Geometry]) -> NDArray[np.object_]:
    out = np.empty(len(shapes), dtype=object)
    out[:] = shapes
    return out
