"""A source surveyed: every file opened, and what can be read sorted into kinds."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from geodino.data.config import DataConfig
from geodino.data.filters import select
from geodino.data.index import build_index
from geodino.data.inspection.kinds import Readable, sort_into_kinds
from geodino.data.inspection.scan import Bad, Progress, catalogues, describe_all, other_files
from geodino.data.sources.catalogue import Catalogue
from geodino.data.sources.find import INDEX
from geodino.data.sources.mix import is_mix
from geodino.errors import SourceError
from geodino.io.content import is_virtual
from geodino.io.raster import RasterInfo
from geodino.io.zarr.key import find_key


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """A source after its files were opened, before pixels are measured."""

    source: str
    """What the user called it."""

    root: str
    """The folder its files lie in."""

    listed: tuple[Catalogue, ...]
    """Its scenes, format by format; none for an index file."""

    kinds: tuple[Readable, ...]
    """What can be read, sorted into kinds, the most frequent first."""

    infos: dict[str, RasterInfo]
    """Every raster that can be opened."""

    bad: Bad
    """Files and scenes that cannot be used, with the reason."""

    files: int
    """Files that were opened, or tried."""

    scenes: int
    """Scenes, usable or not."""

    others: dict[str, int]
    """Files of a folder that are no rasters by their ending, and how many."""

    notes: tuple[str, ...]
    """How files were read as scenes."""

    formats: str | None
    """Why the files were taken for several formats; None where they are one."""

    apart: str | None
    """Why the scenes of a format are several kinds; None where they are one."""

    def below_root(self, kind: Readable) -> list[str]:
        """Return the files of a kind, as paths below the root."""
        paths = dict.fromkeys(path for tile in kind.index.tiles for path in tile.files)
        return [below(path, self.root) for path in paths]


def survey(
    src: str | Sequence[str], config: DataConfig, *, threads: int, progress: Progress | None = None
) -> Survey:
    """Open every file of a source and sort what can be read into kinds.

    Raises:
        SourceError: nothing is there, or a filter lets nothing through.
    """
    name = src if isinstance(src, str) else f"{len(src)} files"
    if config.kind == "images" or (isinstance(src, str) and is_mix(src)):
        raise SourceError(
            f"{name}: an inspection looks at the rasters of one source; photographs (data.kind: "
            "images) and mixes are described by `geodino pretrain --dry-run`. Name one source of "
            "the mix."
        )
    if isinstance(src, str) and Path(src).suffix == INDEX:
        return _of_index(src, config, threads)
    listed, refusal = catalogues(src, config)
    infos, bad_files = describe_all(listed, threads=threads, progress=progress)
    reasons = dict(bad_files)
    kinds: list[Readable] = []
    bad: Bad = []
    apart = None
    for one in listed:
        own, bad_scenes, why = sort_into_kinds(one, infos, reasons, config, threads=threads)
        kinds += own
        bad += bad_scenes
        apart = apart or why
    kinds, filtered = _selected(kinds, config)
    return Survey(
        source=name,
        root=listed[0].root,
        listed=tuple(listed),
        kinds=tuple(sorted(kinds, key=lambda kind: -len(kind.index.tiles))),
        infos=infos,
        bad=bad,
        files=len(infos) + len(bad_files),
        scenes=sum(len(one.scenes) + len(one.bad) for one in listed),
        others=other_files(listed[0].root) if _is_folder(src) else {},
        notes=(*(sentence for one in listed for sentence in _reading(one)), *filtered),
        formats=refusal,
        apart=apart,
    )


def below(path: str, root: str) -> str:
    """Return a path below a root, with ``/`` between folders; URLs too."""
    if is_virtual(path):
        return path.removeprefix(root).lstrip("/")
    return os.path.relpath(path, root).replace(os.sep, "/")


def _of_index(src: str, config: DataConfig, threads: int) -> Survey:
    """Take the rows of a tile index, which are one kind."""
    index = build_index(src, config, threads=threads)
    infos = {part.info.path: part.info for tile in index.tiles for part in tile.parts}
    return Survey(
        source=src,
        root=index.root,
        listed=(),
        kinds=(Readable(index=index, listed=None, scenes=()),),
        infos=infos,
        bad=list(index.bad),
        files=len(infos),
        scenes=len(index.tiles) + len(index.bad),
        others={},
        notes=(f"a tile index: its decisions hold for its {len(index.tiles):,} tiles",),
        formats=None,
        apart=None,
    )


def _selected(
    kinds: Sequence[Readable], config: DataConfig
) -> tuple[list[Readable], tuple[str, ...]]:
    """Apply the filters to every kind; a kind of which nothing is left is dropped.

    Raises:
        SourceError: nothing is left of any kind.
    """
    kept, notes, refusal = [], [], None
    for kind in kinds:
        try:
            tiles, said = select(kind.index.tiles, config)
        except SourceError as error:
            refusal = error
            notes.append(str(error))
            continue
        notes += said
        left = {tile.path for tile in tiles}
        scenes = tuple(scene for scene in kind.scenes if scene.name in left)
        kept.append(replace(kind, index=replace(kind.index, tiles=tuple(tiles)), scenes=scenes))
    if refusal is not None and not kept:
        raise refusal
    return kept, tuple(dict.fromkeys(notes))


def _reading(listed: Catalogue) -> list[str]:
    """Say how files became scenes."""
    count = f"{len(listed.scenes):,} {'scene' if len(listed.scenes) == 1 else 'scenes'}"
    if listed.descriptor is not None:
        several = ", each of several files" if listed.descriptor.has_file_per_band else ""
        first = f"{count}{several}"
    elif any(scene.bands is not None for scene in listed.scenes):
        first = f"{count} of a STAC document; bands, dates and offsets are what its items say"
    else:
        first = f"{count}: every file is a tile of its own"
    return [first, *(note.rstrip(".") for note in dict.fromkeys(listed.notes))]


def _is_folder(src: str | Sequence[str]) -> bool:
    """Whether a source is a folder of files; a store is one thing, whatever lies beside it."""
    return isinstance(src, str) and Path(src).is_dir() and find_key(src) is None
