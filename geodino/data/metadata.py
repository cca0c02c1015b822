"""Describing many rasters at once, by threads."""

from collections.abc import Callable, Mapping, Sequence

from geodino.data.parallel import in_order
from geodino.errors import SourceError
from geodino.io.raster import RasterInfo, describe

Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""

Bad = list[tuple[str, str]]
"""Files that cannot be used: (path, reason)."""


def describe_rasters(
    paths: Sequence[str],
    known: Mapping[str, RasterInfo],
    threads: int,
    progress: Progress | None,
) -> tuple[dict[str, RasterInfo], Bad]:
    """Describe rasters by threads: what their metadata says, or why they are of no use.

    Args:
        paths: each once.
        known: what is known already, by path; not opened again.
        threads: how many are opened at once.
        progress: told after each.
    """

    def attempt(path: str) -> RasterInfo | SourceError:
        if path in known:
            return known[path]
        try:
            return describe(path)
        except SourceError as error:
            return error

    infos: dict[str, RasterInfo] = {}
    bad: Bad = []
    results = in_order(attempt, paths, threads=threads)
    for done, (path, found) in enumerate(zip(paths, results, strict=True), start=1):
        if isinstance(found, SourceError):
            bad.append((path, str(found)))
        else:
            infos[path] = found
        if progress is not None:
            progress(done, len(paths))
    return infos, bad
