"""What lies there: the scenes of a source, whatever it is called, and its rasters one by one.

Unlike an index, an inspection goes on where files do not fit together: a folder of several
formats becomes several catalogues, and what was in the way is told.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from geodino.data.config import DataConfig
from geodino.data.metadata import describe_rasters
from geodino.data.parallel import in_order
from geodino.data.sources.catalogue import Catalogue, catalogue
from geodino.data.sources.descriptor import FILE, descriptor_names, load_descriptor
from geodino.data.sources.find import RASTERS, SHARDS, STORES, Found, find
from geodino.data.sources.scenes import Scene, described
from geodino.data.sources.stac import is_stac
from geodino.errors import SourceError
from geodino.io.content import content_sample, is_virtual
from geodino.io.raster import RasterInfo

Progress = Callable[[str, int, int], None]
"""Called with (what is counted, how many are done, how many there are)."""

_LOOKED_AT = frozenset(
    (*RASTERS, *STORES, SHARDS, ".msk", ".ovr", ".xml", ".tfw", ".jgw", ".pgw", ".wld", ".prj")
)
"""Endings of rasters and of what lies beside them."""

_SEVERAL = (
    "The files are of several formats. Name those of one, or declare it with data.dataset "
    "(none takes every file as a tile of its own)."
)

Bad = list[tuple[str, str]]


def catalogues(src: str | Sequence[str], config: DataConfig) -> tuple[list[Catalogue], str | None]:
    """List the scenes of a source, format by format where it holds several.

    Args:
        src: see :func:`geodino.data.sources.catalogue.catalogue`; or the paths of several files, which
            are one source together.
        config: what is declared about the files.

    Returns:
        Catalogues, and why they could not be one; None where there is only one.

    Raises:
        SourceError: nothing usable is there, or a declared descriptor does not fit.
    """
    if not isinstance(src, str):
        listed = _of_files(_joined([find(path) for path in src]), config)
        return listed, _SEVERAL if len(listed) > 1 else None
    try:
        return [catalogue(src, config)], None
    except SourceError as error:
        if _is_declared(src, config):
            raise
        try:
            found = find(src)
        except SourceError:
            raise error from None
        return _by_format(found), str(error)


def describe_all(
    listed: Sequence[Catalogue], *, threads: int, progress: Progress | None
) -> tuple[dict[str, RasterInfo], Bad]:
    """Describe every raster of catalogues once: what its metadata says, or why it is of no use."""
    known: dict[str, RasterInfo] = {}
    for one in listed:
        known |= one.infos
    scenes = (scene for one in listed for scene in one.scenes)
    paths = list(dict.fromkeys(path for scene in scenes for path in scene.paths))

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress("files", done, total)

    return describe_rasters(paths, known, threads, told)


def duplicates(
    infos: Mapping[str, RasterInfo], *, threads: int, progress: Progress | None
) -> tuple[tuple[str, ...], ...]:
    """Return the files that are copies of each other, set by set.

    Only files that agree in size and metadata are looked into; of those the first, middle and
    last 64 KiB are compared (by their hash). Files inside others and remote ones are not compared.
    """
    alike: dict[object, list[str]] = defaultdict(list)
    for path, info in infos.items():
        if info.size and not is_virtual(path):
            alike[info.size, info.grid, info.count, info.dtype, info.driver].append(path)
    suspects = [path for paths in alike.values() if len(paths) > 1 for path in paths]

    def attempt(path: str) -> tuple[int, str] | None:
        try:
            return content_sample(path)
        except SourceError:  # it vanished since it was described: it is no copy of anything
            return None

    same: dict[tuple[int, str], list[str]] = defaultdict(list)
    results = in_order(attempt, suspects, threads=threads)
    for done, (path, content) in enumerate(zip(suspects, results, strict=True), start=1):
        if content is not None:
            same[content].append(path)
        if progress is not None:
            progress("files compared", done, len(suspects))
    return tuple(tuple(paths) for paths in same.values() if len(paths) > 1)


def other_files(src: str) -> dict[str, int]:
    """Count the files of a folder that are not looked at, by their ending; sidecars apart."""
    if is_virtual(src) or not Path(src).is_dir() or src.rstrip("/").endswith(STORES):
        return {}
    counts: Counter[str] = Counter()
    for _, folders, names in os.walk(src, followlinks=False):
        folders[:] = [f for f in folders if not f.startswith(".") and not f.endswith(STORES)]
        visible = (name for name in names if not name.startswith(".") and name != FILE)
        endings = (Path(name).suffix.lower() for name in visible)
        counts.update(ending for ending in endings if ending not in _LOOKED_AT)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _is_declared(src: str, config: DataConfig) -> bool:
    """Whether a descriptor was declared, so that a misfit is a mistake to be told at once."""
    is_own = (Path(src) / FILE).is_file() or Path(src).name == FILE
    return config.dataset is not None or is_own or is_stac(src)


def _joined(found: Sequence[Found]) -> Found:
    files = sorted({file for one in found for file in one.files}, key=lambda f: Path(f).parts)
    roots = {one.root for one in found}
    return Found(roots.pop() if len(roots) == 1 else os.path.commonpath(roots), tuple(files))


def _of_files(found: Found, config: DataConfig) -> list[Catalogue]:
    """Take files that were named one by one: by a declared descriptor, or each as a tile."""
    if config.dataset is None or config.dataset == "none":
        return _by_format(found) if config.dataset is None else [_each(found, found.files)]
    descriptor = load_descriptor(config.dataset)
    scenes = described(found.files, descriptor, root=found.root, name=config.dataset).scenes
    return [Catalogue(root=found.root, scenes=scenes, descriptor=descriptor)]


def _by_format(found: Found) -> list[Catalogue]:
    """Give the files of each packaged format to its descriptor; others are tiles of their own."""
    rest, listed = list(found.files), []
    for name in descriptor_names():
        descriptor = load_descriptor(name)
        fitting = [path for path in rest if descriptor.pattern.search(path)]
        if not (descriptor.has_file_per_band and fitting):
            continue
        try:
            scenes = described(fitting, descriptor, root=found.root, name=name).scenes
        except SourceError as error:
            note = f"files named as {name} are read as tiles of their own: {error}"
            listed.append(_each(found, fitting, note))
        else:
            note = f"files are read as {name} describes them: {descriptor.description}"
            listed.append(
                Catalogue(root=found.root, scenes=scenes, descriptor=descriptor, notes=[note])
            )
        taken = set(fitting)
        rest = [path for path in rest if path not in taken]
    if rest:
        listed.append(_each(found, rest))
    return listed


def _each(found: Found, files: Sequence[str], *notes: str) -> Catalogue:
    return Catalogue(
        root=found.root, scenes=[Scene(name=path) for path in files], notes=list(notes)
    )
