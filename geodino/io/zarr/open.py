"""Opening zarr stores: their metadata through zarr-python, their bytes through fsspec."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import zarr
from zarr.storage import FsspecStore, LocalStore, ZipStore

from geodino.errors import SourceError, suggest
from geodino.io.zarr.key import StoreKey

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

ZarrArray = zarr.Array[Any]
Node = ZarrArray | zarr.Group


@dataclass(frozen=True, slots=True)
class Part:
    """Which bytes of a stored object: all, ``length`` from ``start``, or the last ``-start``."""

    key: str
    start: int | None = None
    length: int | None = None

    @property
    def end(self) -> int | None:
        """First byte not wanted; None for all that follow."""
        return None if self.start is None or self.length is None else self.start + self.length

    def cut(self, data: bytes) -> bytes:
        """Return the wanted bytes of what came: a server may send all of an object instead."""
        if self.start is None or len(data) <= (self.length or -self.start):
            return data
        return data[self.start : self.end]


class OpenStore:
    """A zarr store that is read from many threads.

    Args:
        name: folder, ``.zip`` file or fsspec URL.

    Raises:
        SourceError: it is not a zarr store, or cannot be reached.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.local = StoreKey(store=name).local
        zipped = self.local and name.lower().endswith(".zip")
        self.folder = Path(name) if self.local and not zipped else None
        """Where the store is a folder, that folder."""
        try:
            # Another zip file may have come to lie at the same path: no cached file system.
            self._files, self._base = (
                fsspec.url_to_fs(f"zip://::{name}", skip_instance_cache=True)
                if zipped
                else fsspec.url_to_fs(name)
            )
            self._store: Any = (
                LocalStore(name, read_only=True)
                if self.folder
                else ZipStore(name, mode="r")
                if zipped
                else FsspecStore.from_url(name, read_only=True)
            )
            self.root: Node = zarr.open(store=self._store, mode="r")
        # zarr, fsspec, aiohttp, botocore and json each raise their own.
        except Exception as error:
            raise SourceError(
                f"{name} cannot be read as a zarr store: {_words(error)}. "
                "Check the name, and that its metadata (zarr.json, .zgroup or .zarray) is whole."
            ) from error
        self._nodes: dict[str, Node | None] = {"": self.root}
        self._listed = False

    def find(self, path: str) -> Node | None:
        """Return the array or group at ``path``; None if there is none.

        Raises:
            SourceError: its metadata is not readable.
        """
        if path not in self._nodes and not self._listed:
            try:
                self._nodes[path] = self.root[path] if isinstance(self.root, zarr.Group) else None
            except KeyError as error:
                self._check_nothing_at(path, error)
                self._nodes[path] = None
            except Exception as error:
                raise self._unreadable(path, error) from error
        return self._nodes.get(path)

    def node(self, path: str) -> Node:
        """Return the array or group at ``path``.

        Raises:
            SourceError: there is none, or its metadata is not readable.
        """
        node = self.find(path)
        if node is None:
            have = [p for p, n in self.nodes().items() if isinstance(n, zarr.Array)]
            raise SourceError(
                f"{self.name} has no array {path!r}.{suggest(path, have)} "
                f"It has: {', '.join(p or 'an array at its root' for p in have) or 'none'}."
            )
        return node

    def nodes(self) -> dict[str, Node]:
        """Return all arrays and groups by their paths, sorted; the root is ``""``.

        Raises:
            SourceError: the metadata of one of them is not readable.
        """
        if not self._listed:
            members: dict[str, Node] = {}
            try:
                if isinstance(self.root, zarr.Group):
                    members = dict(self.root.members(max_depth=None))
            except Exception as error:
                raise self._unreadable("", error) from error
            if self.local and isinstance(self.root, zarr.Group):
                self._check_all_listed(members)
            self._nodes = {"": self.root, **dict(sorted(members.items()))}
            self._listed = True
        return {path: node for path, node in self._nodes.items() if node is not None}

    def fetch(self, parts: Sequence[Part]) -> list[bytes | None]:
        """Return bytes of stored objects, at once where the store is remote; None if absent.

        Raises:
            SourceError: the store cannot be reached.
        """
        found = self._files.cat_ranges(
            [self._path(part.key) for part in parts],
            [part.start for part in parts],
            [part.end for part in parts],
            on_error="return",
        )
        results: list[bytes | None] = []
        for part, data in zip(parts, found, strict=True):
            if isinstance(data, _ABSENT):
                results.append(None)
            elif isinstance(data, Exception):
                raise SourceError(
                    f"{self.name} cannot be read at {part.key}: {_words(data)}. Check the store "
                    "and the connection, and try again."
                ) from data
            else:
                results.append(part.cut(data))
        return results

    def size(self, key: str) -> int | None:
        """Return the bytes of a stored object; None if it is absent."""
        try:
            return int(self._files.size(self._path(key)) or 0)
        except _ABSENT:
            return None

    def _check_all_listed(self, members: Mapping[str, Node]) -> None:
        """Refuse a store with broken arrays: zarr-python leaves them out of its list."""
        if isinstance(self.root, zarr.Array) or self.root.metadata.consolidated_metadata:
            return
        groups = ["", *(path for path, node in members.items() if isinstance(node, zarr.Group))]
        for group in groups:
            for name in self._folders(group):
                if name not in members:
                    self._check_nothing_at(name, None)

    def _folders(self, group: str) -> list[str]:
        entries = self._files.ls(self._path(group), detail=True)
        names = (Path(e["name"]).name for e in entries if e["type"] == "directory")
        return [f"{group}/{name}" if group else name for name in names]

    def _check_nothing_at(self, path: str, error: Exception | None) -> None:
        """Tell metadata that lack something from metadata that are not there.

        Raises:
            SourceError: there are some.
        """
        keys = [Part(f"{path}/{name}") for name in ("zarr.json", ".zarray", ".zgroup")]
        if any(data is not None for data in self.fetch(keys)):
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: str, error: Exception | None) -> SourceError:
        words = f": {_words(error)}" if error else ""
        place = f" at {path}" if path else ""
        return SourceError(
            f"{self.name} has unreadable metadata{place}{words}. Write them again, or name the "
            "arrays to read, as STORE#ARRAY."
        )

    def __enter__(self) -> "OpenStore":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open of a ``.zip`` file."""
        self._store.close()
        if not self.folder and self.local:
            self._files.close()

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}" if self._base else key


def attributes(node: Node) -> dict[str, Any]:
    """Return the attributes of an array or group."""
    return dict(node.attrs)


def _words(error: BaseException) -> str:
    text = str(error).strip().rstrip(".")
    return text or type(error).__name__
