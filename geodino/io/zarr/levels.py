"""Pyramids in zarr stores: which groups and arrays hold coarser copies of others."""

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import zarr

from geodino.io.zarr.open import Node, attributes

Nodes = Mapping[str, Node]


def coarser_levels(nodes: Nodes) -> dict[str, str]:
    """Return the paths of groups and arrays that are made from others, and of those others.

    Understood are GeoZarr's ``multiscales`` (a ``layout`` whose levels say what they are derived
    from, or a tile matrix set) and the lists of OME and ndpyramid, where the level with the most
    pixels is kept.

    Args:
        nodes: everything in a store, by path.
    """
    coarser: dict[str, str] = {}
    for path, node in nodes.items():
        scales = attributes(node).get("multiscales")
        if not scales:
            continue
        levels = dict(_levels(path, scales))
        derived = {level: finer for level, finer in levels.items() if finer is not None}
        if not derived:
            pixels = {level: _pixels(nodes, level) for level in levels}
            finest = max(pixels, key=lambda level: pixels[level], default="")
            derived = {level: finest for level in levels if level != finest}
        coarser |= derived
    return coarser


def level_attributes(find: Callable[[str], Node | None], path: str) -> dict[str, Any]:
    """Return what GeoZarr's pyramids say about an array from above: its level, then their group.

    Args:
        find: returns the group or array at a path.
        path: of an array.
    """
    names = path.split("/")
    for depth in range(len(names) - 1, -1, -1):
        above = "/".join(names[:depth])
        node = find(above)
        said = attributes(node) if node is not None else {}
        scales = said.get("multiscales")
        if not isinstance(scales, Mapping):
            continue
        for level in _mappings(scales.get("layout")):
            asset = join(above, str(level.get("asset")))
            if path == asset or path.startswith(f"{asset}/"):
                return {**said, **level}
    return {}


def join(group: str, name: str) -> str:
    """Return the path of a member of a group; the root is the empty path."""
    return f"{group}/{name}" if group else name


def _levels(group: str, scales: Any) -> Iterator[tuple[str, str | None]]:
    """Yield the paths of levels, and the path each says it is derived from."""
    if isinstance(scales, Mapping) and "layout" in scales:
        for level in _mappings(scales["layout"]):
            source = level.get("derived_from")
            yield join(group, str(level.get("asset"))), source and join(group, str(source))
    elif isinstance(scales, Mapping):
        for matrices in _mappings([scales.get("tile_matrix_set")]):
            for matrix in _mappings(matrices.get("tileMatrices")):
                yield join(group, str(matrix.get("id"))), None
    else:
        for pyramid in _mappings(scales):
            for level in _mappings(pyramid.get("datasets")):
                yield join(group, str(level.get("path"))), None


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return the mappings of a list; nothing else is a description of levels."""
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, (list, tuple)) else []


def _pixels(nodes: Nodes, level: str) -> int:
    arrays = (
        node
        for path, node in nodes.items()
        if isinstance(node, zarr.Array) and (path == level or path.startswith(f"{level}/"))
    )
    return max((prod(array.shape) for array in arrays), default=0)
