"""The tile index: every file of a source, what its metadata says, and how it will be read."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from geodino.data.config import DataConfig
from geodino.data.evidence import decide
from geodino.data.naming import choose_bands
from geodino.data.parallel import in_order
from geodino.data.source import INDEX, find
from geodino.data.tiles import (
    Tile,
    TileIndex,
    TileReader,
    first_reasons,
    resolve_chip,
    too_small,
)
from geodino.errors import SourceError
from geodino.geo.bands import Band
from geodino.geo.validity import ReadRule
from geodino.io.index_file import read_index, write_index
from geodino.io.raster import RasterInfo, describe

__all__ = [
    "Tile",
    "TileIndex",
    "TileReader",
    "build_index",
    "load_index",
    "resolve_chip",
    "save_index",
    "too_small",
]

Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""


def build_index(
    src: str | Path,
    config: DataConfig,
    *,
    threads: int,
    strict: bool | None = None,
    progress: Progress | None = None,
) -> TileIndex:
    """Describe every file of a source and decide how they are read.

    Where ``src`` is an index file written by :func:`save_index`, its rows are the source: files
    that did not change since are not opened again, and its decisions hold unless ``config``
    declares others.

    Args:
        src: folder, pattern, file or index file.
        config: declared bands, alpha, nodata.
        threads: how many files are opened at once.
        strict: whether a bad file is an error; None takes ``config.strict``.
        progress: told after each file.

    Raises:
        SourceError: nothing to read, or with ``strict`` a bad file.
        BandError: bands or types of two files do not fit.
    """
    known: TileIndex | None = None
    if Path(src).suffix == INDEX:
        known = load_index(src)
        files = [Path(tile.path) for tile in known.tiles]
    else:
        files = find(src)
    old = {tile.path: tile for tile in known.tiles} if known else {}
    infos, bad = _describe_all(files, {p: t.info for p, t in old.items()}, threads, progress)
    if infos and known is not None and config.alpha == config.nodata == "auto":
        rule, notes = known.rule, known.notes
    else:
        (rule, damaged), notes = decide(infos, config, threads=threads), ()
        bad += damaged
        infos = [info for info in infos if info.path not in dict(damaged)]
    is_strict = config.strict if strict is None else strict
    if not infos or (bad and is_strict):
        raise SourceError(_all_bad(src, bad, len(files), readable=bool(infos)))
    bands, chosen, found = choose_bands(infos, rule, config)
    tiles = []
    for info, numbers in zip(infos, chosen, strict=True):
        same = old.get(info.path)
        share = same.valid_share if same and same.info == info and same.bands == numbers else None
        tiles.append(Tile(info=info, bands=numbers, gsd_m=info.grid.gsd_m, valid_share=share))
    root = known.root if known else _root(files)
    return TileIndex(
        root=root,
        tiles=tuple(tiles),
        bands=bands,
        dtype=infos[0].dtype,
        rule=rule,
        notes=tuple(dict.fromkeys((*notes, *found))),
        bad=tuple(bad),
    )


def save_index(index: TileIndex, path: str | Path) -> None:
    """Write the index as GeoParquet 1.1."""
    write_index(
        path,
        [tile.info for tile in index.tiles],
        columns={
            "bands": [list(tile.bands) for tile in index.tiles],
            "valid_share": [tile.valid_share for tile in index.tiles],
        },
        record={
            "root": index.root,
            "bands": [band.model_dump() for band in index.bands],
            "dtype": index.dtype,
            "rule": index.rule.model_dump(),
            "notes": index.notes,
            "bad": index.bad,
        },
    )


def load_index(path: str | Path) -> TileIndex:
    """Read back what :func:`save_index` wrote; the tiles themselves are not looked at.

    Raises:
        SourceError: not such a file.
    """
    infos, columns, record = read_index(path)
    return TileIndex(
        root=record["root"],
        tiles=tuple(
            Tile(info=info, bands=tuple(bands), gsd_m=_pair(x, y), valid_share=share)
            for info, bands, x, y, share in zip(
                infos,
                columns["bands"],
                columns["gsd_x_m"],
                columns["gsd_y_m"],
                columns["valid_share"],
                strict=True,
            )
        ),
        bands=tuple(Band.model_validate(band) for band in record["bands"]),
        dtype=record["dtype"],
        rule=ReadRule.model_validate(record["rule"]),
        notes=tuple(record["notes"]),
        bad=tuple((path, reason) for path, reason in record["bad"]),
    )


def _describe_all(
    files: list[Path], known: Mapping[str, RasterInfo], threads: int, progress: Progress | None
) -> tuple[list[RasterInfo], list[tuple[str, str]]]:
    def attempt(file: Path) -> RasterInfo | SourceError:
        old = known.get(str(file))
        if old is not None and old.mtime_ns and _is_unchanged(file, old):
            return old
        try:
            return describe(file)
        except SourceError as error:
            return error

    infos: list[RasterInfo] = []
    bad: list[tuple[str, str]] = []
    for done, (file, found) in enumerate(
        zip(files, in_order(attempt, files, threads=threads), strict=True), start=1
    ):
        if isinstance(found, SourceError):
            bad.append((str(file), str(found)))
        else:
            infos.append(found)
        if progress is not None:
            progress(done, len(files))
    return infos, bad


def _is_unchanged(file: Path, old: RasterInfo) -> bool:
    try:
        stat = file.stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (old.size, old.mtime_ns)


def _all_bad(src: str | Path, bad: list[tuple[str, str]], files: int, *, readable: bool) -> str:
    if readable:
        return (
            f"{len(bad)} of {files} files of {src} cannot be used, and --strict makes that an "
            f"error. {first_reasons(bad)}"
        )
    return f"{src} holds no readable raster ({files} files tried). {first_reasons(bad)}"


def _root(files: list[Path]) -> str:
    if len(files) == 1:
        return str(files[0].parent)
    return os.path.commonpath([file.parent for file in files])


def _pair(x: Any, y: Any) -> tuple[float, float] | None:
    return None if x is None or y is None else (x, y)
