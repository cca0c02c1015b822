"""What a zarr store holds, from its metadata and coordinates alone: its rasters, date by date.

A raster is an array with bands, rows and columns (and dates), or several variables of a group,
each a band, on one grid. Several groups give several rasters. See :mod:`geodino.io.zarr.key` for
their names.
"""

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zarr

from geodino.errors import SourceError
from geodino.io.metadata import RasterInfo
from geodino.io.zarr.array import StoredArray, stored_array
from geodino.io.zarr.chunks import Chunks
from geodino.io.zarr.key import StoreKey, absolute, stamp
from geodino.io.zarr.labels import band_names, dates, nodata, scale_and_offset
from geodino.io.zarr.levels import coarser_levels, join, level_attributes
from geodino.io.zarr.open import Node, OpenStore, ZarrArray, attributes
from geodino.io.zarr.place import Place
from geodino.io.zarr.read import StoreRaster

_SHOWN = 5
"""Arrays named in a message."""

Nodes = Mapping[str, Node]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreContents:
    """The rasters of a store, and what else was found in it."""

    rasters: tuple[RasterInfo, ...]
    """One for each date of each raster; ``path`` opens it."""

    skipped: tuple[tuple[str, str], ...] = ()
    """Arrays and groups that were left out: (``STORE#PATH``, why, as a sentence)."""

    notes: tuple[str, ...] = ()
    """What had to be decided, as sentences for the run card."""


def describe_store(name: str | Path) -> StoreContents:
    """Describe the rasters of a zarr store, or of a part of it; no pixel is read.

    Args:
        name: folder, ``.zip`` file or fsspec URL; ``STORE#GROUP``, ``STORE#ARRAY`` or
            ``STORE#VAR,VAR`` for a part of it, with ``@INDEX`` for one date.

    Raises:
        SourceError: it is not a zarr store, nothing in it is an image, or named arrays cannot
            be read together.
    """
    key = absolute(name)
    with OpenStore(key.store) as store:
        survey = _Survey(store)
        stacks = list(survey.stacks(key.arrays))
        infos: list[RasterInfo] = []
        for stack in stacks:
            try:
                infos += survey.describe(stack, key.time)
            except SourceError as error:
                if len(stacks) == 1:
                    raise
                survey.skip(stack.key(key.store), str(error))
        if not infos:
            raise SourceError(survey.nothing_found(str(key)))
    return StoreContents(
        rasters=tuple(infos),
        skipped=tuple(survey.skipped.items()),
        notes=tuple(dict.fromkeys(survey.notes)),
    )


def describe_raster(name: str | Path) -> RasterInfo:
    """Describe the one raster that ``name`` names.

    Raises:
        SourceError: it names none, or several.
    """
    found = describe_store(name).rasters
    if len(found) > 1:
        raise SourceError(
            f"{name} holds {len(found)} rasters. Name one of them, such as {found[0].path}."
        )
    return found[0]


def open_raster(store: OpenStore, chunks: Chunks, key: StoreKey) -> StoreRaster:
    """Open one raster for reading; its georeference is not looked at.

    Args:
        store: the store of ``key``.
        chunks: what fetches its chunks.
        key: as in ``RasterInfo.path``.

    Raises:
        SourceError: there is no such raster.
    """
    arrays = [_image(store, path) for path in key.arrays]
    if not arrays:
        raise SourceError(f"{key} names a store. Name a raster of it, as STORE#ARRAY.")
    _check_one_raster(str(key), arrays)
    times = arrays[0].times
    if (times is None) != (key.time is None) or (key.time or 0) >= (times or 1):
        have = "no dates" if times is None else f"{times} date(s), counted from 0"
        raise SourceError(f"{key} cannot be opened: its arrays have {have}. Name one as ARRAY@0.")
    tags = tuple(tag for array in arrays for tag in (nodata(array.array),) * array.bands)
    return StoreRaster(str(key), arrays, time=key.time, nodata=tags, chunks=chunks)


@dataclass(frozen=True, slots=True)
class _Stack:
    """The arrays that hold the bands of a raster, at all of its dates."""

    arrays: tuple[StoredArray, ...]

    def key(self, store: str, time: int | None = None) -> str:
        return str(StoreKey(store=store, arrays=tuple(a.path for a in self.arrays), time=time))


@dataclass(slots=True)
class _Survey:
    """Goes through a store and notes what it leaves out."""

    store: OpenStore
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def stacks(self, named: Sequence[str]) -> Iterator[_Stack]:
        """Yield what makes a raster, below the named groups, or of the named arrays."""
        if named and all(isinstance(self.store.node(path), zarr.Array) for path in named):
            arrays = [_image(self.store, path) for path in named]
            _check_one_raster(_Stack(tuple(arrays)).key(self.store.name), arrays)
            yield _Stack(tuple(arrays))
            return
        arrays_named = [path for path in named if isinstance(self.store.node(path), zarr.Array)]
        if arrays_named:
            raise SourceError(
                f"{self.store.name}: {', '.join(arrays_named)} cannot be read together with groups "
                f"({', '.join(named)}). Name arrays of one group, or one group."
            )
        nodes = self.store.nodes()
        levels = {
            level: finer
            for level, finer in coarser_levels(nodes).items()
            if not any(_below(path, level) for path in named)
        }
        for level, finer in levels.items():
            key = StoreKey(store=self.store.name, arrays=(level,))
            self.skip(
                key, f"{key} is a level of a pyramid, derived from {finer}. Name it to read it."
            )
        groups = [path for path, node in nodes.items() if isinstance(node, zarr.Group)]
        wanted = tuple(named) or ("",)
        for group in groups or [""]:
            inside = any(not top or _below(group, top) for top in wanted)
            if inside and not any(_below(group, level) for level in levels):
                yield from self._stacks_of(group, levels)

    def _stacks_of(self, group: str, levels: Mapping[str, str]) -> Iterator[_Stack]:
        members = _members(self.store.nodes(), group)
        coordinates = _coordinates([*members.values(), self.store.node(group)])
        alone: dict[tuple[Any, ...], list[StoredArray]] = {}
        for name, array in members.items():
            if array.ndim < 2 or name in coordinates or array.path in levels:
                continue
            image = self._image_or_reason(array)
            if image is None:
                continue
            if image.axes.band is not None:
                yield _Stack((image,))
            else:
                alone.setdefault((array.shape, image.axes), []).append(image)
        for images in alone.values():
            try:
                _check_one_raster(_Stack(tuple(images)).key(self.store.name), images)
            except SourceError as error:
                for image in images:
                    self.skip(image.name, str(error))
            else:
                yield _Stack(tuple(images))

    def _image_or_reason(self, array: ZarrArray) -> StoredArray | None:
        name = StoreKey(store=self.store.name, arrays=(array.path,))
        if any(key in attributes(array) for key in ("flag_values", "flag_masks", "flag_meanings")):
            self.skip(
                name, f"{name} holds classes (CF flags), not intensities. Name it to read it."
            )
            return None
        try:
            return _image(self.store, array.path)
        except SourceError as error:
            self.skip(name, str(error))
            return None

    def describe(self, stack: _Stack, time: int | None) -> list[RasterInfo]:
        """Describe a raster at all of its dates, or at one."""
        first = stack.arrays[0]
        place = self._place(first, stack.key(self.store.name))
        grid, notes = place.grid()
        self.notes += notes
        times = range(first.times) if first.times is not None else [None]
        if time is not None and time not in times:
            have = "no dates" if first.times is None else f"{first.times} date(s), counted from 0"
            raise SourceError(
                f"{stack.key(self.store.name, time)} does not exist: its arrays have {have}."
            )
        when, source, problem = dates(place)
        self.notes += [problem] if problem else []
        bands = [(array, i) for array in stack.arrays for i in range(array.bands)]
        tags = {a.path: (nodata(a.array), *scale_and_offset(a.array)) for a in stack.arrays}
        names = [
            name for array in stack.arrays for name in band_names(self._place(array, array.name))
        ]
        size, mtime_ns = stamp(stack.key(self.store.name))
        return [
            RasterInfo(
                path=stack.key(self.store.name, i),
                driver="Zarr",
                grid=grid,
                count=len(bands),
                dtype=first.dtype.name,
                nodata=tuple(tags[array.path][0] for array, _ in bands),
                colors=("undefined",) * len(bands),
                descriptions=tuple(names),
                scales=tuple(tags[array.path][1] for array, _ in bands),
                offsets=tuple(tags[array.path][2] for array, _ in bands),
                mask="none",
                block=first.block,
                size=size,
                mtime_ns=mtime_ns,
                datetime=when[i or 0],
                datetime_from=source if when[i or 0] else None,
            )
            for i in times
            if time is None or i == time
        ]

    def _place(self, image: StoredArray, name: str) -> Place:
        groups = _groups_above(image.path)

        def find(sibling: str) -> ZarrArray | None:
            found = (self.store.find(join(group, sibling)) for group in groups)
            return next((node for node in found if isinstance(node, zarr.Array)), None)

        return Place(
            name=name,
            array=image,
            attributes=ChainMap(
                attributes(image.array),
                *(attributes(self.store.node(group)) for group in groups[:1]),
                level_attributes(self.store.find, image.path),
            ),
            find=find,
        )

    def skip(self, name: object, why: str) -> None:
        """Note that something was left out."""
        self.skipped.setdefault(str(name), why)

    def nothing_found(self, name: str) -> str:
        """Say what there is instead of a raster."""
        arrays = [
            f"{path or 'the root'} ({' x '.join(map(str, node.shape))} {node.dtype})"
            for path, node in self.store.nodes().items()
            if isinstance(node, zarr.Array)
        ]
        more = f" and {len(arrays) - _SHOWN} more" if len(arrays) > _SHOWN else ""
        found = ", ".join(arrays[:_SHOWN]) + more if arrays else "no array at all"
        if not arrays and not self.store.local:
            found += " (places that cannot be listed need consolidated metadata)"
        reasons = " ".join(list(self.skipped.values())[:_SHOWN])
        return f"{name} holds nothing that can be read as images. Found: {found}. {reasons}".strip()


def _image(store: OpenStore, path: str) -> StoredArray:
    """Return an array as a stack of images.

    Raises:
        SourceError: it is none.
    """
    node = store.node(path)
    name = str(StoreKey(store=store.name, arrays=(path,)))
    if not isinstance(node, zarr.Array):
        raise SourceError(f"{name} is a group. Name an array of it.")
    group = attributes(store.node(path.rpartition("/")[0])) if path else {}
    return stored_array(node, name=name, around=ChainMap(attributes(node), group))


def _check_one_raster(name: str, arrays: Sequence[StoredArray]) -> None:
    """Refuse arrays that do not make one raster.

    Raises:
        SourceError: one of several has a band axis, or their shapes or types differ.
    """
    if len(arrays) == 1:
        return
    if any(array.axes.band is not None for array in arrays):
        raise SourceError(f"{name}: an array with a band axis is a raster alone. Name one of them.")
    if len({(array.array.shape, array.axes) for array in arrays}) > 1:
        shapes = (f"{a.path} {' x '.join(map(str, a.array.shape))}" for a in arrays)
        raise SourceError(f"{name}: its arrays differ in shape ({', '.join(shapes)}). Name those "
                          "of one grid.")  # fmt: skip
    by_type: dict[str, list[str]] = {}
    for array in arrays:
        by_type.setdefault(array.dtype.name, []).append(array.path.rpartition("/")[2])
    if len(by_type) > 1:
        types = "; ".join(f"{dtype}: {', '.join(names)}" for dtype, names in by_type.items())
        raise SourceError(f"{name} mixes types ({types}). Name the variables of one type.")


def _members(nodes: Nodes, group: str) -> dict[str, ZarrArray]:
    """Return the arrays right below a group, by name; a root that is an array is its own."""
    prefix = f"{group}/" if group else ""
    return {
        path.removeprefix(prefix): node
        for path, node in nodes.items()
        if isinstance(node, zarr.Array)
        and path.startswith(prefix)
        and "/" not in path.removeprefix(prefix)
    }


def _coordinates(nodes: Iterable[Node]) -> set[str]:
    """Return the names of arrays that CF calls coordinates or bounds of others."""
    names: set[str] = set()
    for node in nodes:
        said = attributes(node)
        for key in ("coordinates", "bounds", "grid_mapping"):
            names.update(str(said.get(key, "")).replace(":", " ").split())
        if said.get("standard_name") in ("latitude", "longitude"):
            names.add(node.basename)
    return names


def _groups_above(path: str) -> list[str]:
    """Return the groups an array lies in, nearest first: ``a/b``, ``a`` and the root."""
    names = path.split("/")
    return ["/".join(names[:i]) for i in range(len(names) - 1, -1, -1)] if path else []


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top}/")
