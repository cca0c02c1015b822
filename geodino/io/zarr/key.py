"""Names of rasters inside zarr stores: ``STORE#ARRAYS@INDEX``.

==============================  ===========================================================
``cube.zarr``                   everything the store holds
``cube.zarr#r10m``              the group or array ``r10m``: every raster in it
``cube.zarr#r10m/B02,B03``      two variables of the group ``r10m`` as bands of one raster
``cube.zarr#reflectance@3``     the fourth date of an array (the first is 0)
``cube.zarr#``                  the root of the store is itself the array
==============================  ===========================================================

The bands of a raster lie in one group, so only the first name carries its path. ``#``, ``,``,
``@`` and ``%`` inside a name are written as in URLs (``%23``, ``%2C``, ``%40``, ``%25``), so a
name is read from the right: the store's own path may hold any of them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from geodino.errors import SourceError

_ESCAPED = "%#,@"
_STORES = (".zarr", ".zip")
_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreKey:
    """A zarr store, and which part of it is meant; ``str()`` gives the name, ``parse`` reads it.

    Args:
        store: folder, ``.zip`` file or fsspec URL.
        arrays: paths of groups or arrays below the root, all in one group; ``""`` is the root
            itself, and none at all means everything.
        time: which date of the arrays, counted from 0; None for all, or where they have none.
    """

    store: str
    arrays: tuple[str, ...] = ()
    time: int | None = None

    def __str__(self) -> str:
        if not self.arrays:
            return self.store
        first, *others = map(_escape, self.arrays)
        names = ",".join([first, *(path.rpartition("/")[2] for path in others)])
        return f"{self.store}#{names}" + ("" if self.time is None else f"@{self.time}")

    @classmethod
    def parse(cls, text: str) -> "StoreKey":
        """Read what ``str()`` wrote; a text without ``#`` names a whole store."""
        store, mark, part = text.rpartition("#")
        if not mark:
            return cls(store=text)
        names, date, index = part.rpartition("@")
        if not date or not re.fullmatch("[0-9]+", index):
            names, index = part, ""
        first, *others = names.split(",")
        group = first.rpartition("/")[0]
        paths = [first, *(f"{group}/{name}" if group else name for name in others)]
        return cls(
            store=store,
            arrays=tuple(map(_unescape, paths)),
            time=int(index) if index else None,
        )

    @property
    def local(self) -> bool:
        """Whether the store is a folder or file of this machine."""
        return "://" not in self.store


def find_key(text: str | Path) -> StoreKey | None:
    """Return what part of which store ``text`` names; None where it names no zarr store.

    A folder is a store where it holds zarr's metadata, or is called ``.zarr``; a remote place,
    where its name ends in ``.zarr`` or ``.zip``, or where it is followed by ``#``. Local paths
    become absolute.
    """
    name = str(text)
    if name.startswith("~"):
        name = str(Path(name).expanduser())
    whole = StoreKey(store=name)
    if is_store(whole):
        return _absolute(whole)
    part = StoreKey.parse(name)
    if not part.arrays or Path(name).exists():
        return None
    if is_store(part) or (not part.local and not name.startswith("/vsi")):
        return _absolute(part)
    return None


def is_store(key: StoreKey) -> bool:
    """Whether the store of ``key`` looks like one, by its metadata files or its ending."""
    path = Path(key.store)
    if path.suffix.lower() in _STORES:
        return not key.store.startswith("/vsi") and (not key.local or path.exists())
    return key.local and any(
        (path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")
    )


def absolute(text: str | Path) -> StoreKey:
    """Return the key of a text that must name a zarr store.

    Raises:
        SourceError: it does not.
    """
    key = find_key(text)
    if key is None:
        there = Path(StoreKey.parse(str(text)).store).exists()
        raise SourceError(
            f"{text} {'is not a zarr store' if there else 'does not exist (any more)'}: "
            "expected a folder with zarr.json, .zgroup or .zarray, a .zip of one, or a URL. "
            "Name a store, or STORE#ARRAY."
        )
    return key


def stamp(name: str | Path) -> tuple[int, int]:
    """Return the bytes and the last change, nanoseconds since 1970, of the metadata of a raster.

    They are those of ``RasterInfo.size`` and ``.mtime_ns`` as long as no metadata changed: of its
    arrays and of all groups above them. Rewriting a chunk does not change them. Of a ``.zip``
    it is the file's own; (0, 0) where the store is remote or vanished.

    Args:
        name: ``STORE#ARRAYS`` with or without a date.
    """
    key = StoreKey.parse(str(name))
    if not key.local:
        return 0, 0
    store = Path(key.store)
    files = [store] if store.is_file() else [store / name for name in metadata_keys(key.arrays)]
    found = [file.stat() for file in files if file.is_file()]
    return sum(stat.st_size for stat in found), max((s.st_mtime_ns for s in found), default=0)


def metadata_keys(arrays: Iterable[str]) -> list[str]:
    """Return where the metadata of arrays, and of the groups above them, may lie in a store."""
    nodes = {""}
    for path in arrays:
        names = path.split("/")
        nodes.update("/".join(names[: i + 1]) for i in range(len(names)))
    return [f"{node}/{name}".lstrip("/") for node in sorted(nodes) for name in _METADATA]


def _absolute(key: StoreKey) -> StoreKey:
    return replace(
        key, store=str(Path(key.store).absolute()) if key.local else key.store.rstrip("/")
    )


def _escape(name: str) -> str:
    return "".join(f"%{ord(c):02X}" if c in _ESCAPED else c for c in name)


def _unescape(name: str) -> str:
    return re.sub("%(25|23|2C|40)", lambda found: chr(int(found[1], 16)), name)
