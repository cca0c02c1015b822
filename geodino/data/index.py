"""The tile index: every image of a source, what its metadata says, and how it will be read."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from geodino.data.assembly import assemble, snapped
from geodino.data.chips import resolve_chip, too_small
from geodino.data.config import DataConfig
from geodino.data.evidence import decide
from geodino.data.filters import select
from geodino.data.images import image_index
from geodino.data.metadata import Bad, Progress, describe_rasters
from geodino.data.mixed import is_mix, mixed_index
from geodino.data.naming import Channels, channels_of, choose_bands, declared_channels
from geodino.data.overlap import weigh
from geodino.data.parallel import in_order, thread_count
from geodino.data.recoding import bring_together
from geodino.data.sources.catalogue import Catalogue, catalogue
from geodino.data.sources.find import INDEX
from geodino.data.sources.scenes import Scene
from geodino.data.stored import load_index, save_index
from geodino.data.tiles import (
    Part,
    Tile,
    TileIndex,
    TileReader,
    first_reasons,
)
from geodino.errors import SourceError
from geodino.geo.validity import ReadRule
from geodino.io.metadata import is_unchanged
from geodino.io.raster import RasterInfo
from geodino.io.remote import is_far, sidecars_are_read

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

_DECLARED = frozenset(
    {"kind", "min_side", "dataset", "bands", "band_names", "scale", "offset", "decibel", "grid", "resampling", "mask",
     "alpha", "nodata"}
)  # fmt: skip
"""Keys of ``data`` that say what files hold; others choose among tiles or say how to read them."""

_REDECIDED = frozenset({"bands", "alpha", "nodata"})
"""Those that can be declared anew for an index, whose files are not looked at as a whole."""


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
        src: see :func:`geodino.data.sources.catalogue.catalogue`; or an index file; or the YAML
            file of a mix (:mod:`geodino.data.mixed`).
        config: what is declared about the files.
        threads: how many files are opened at once; more where they lie behind a network and
            ``config.threads`` is ``auto``.
        strict: whether a bad file is an error; None takes ``config.strict``.
        progress: told after each file.

    Raises:
        SourceError: nothing to read, or with ``strict`` a bad file.
        BandError: bands or types of two files do not fit.
    """
    is_strict = config.strict if strict is None else strict
    if is_mix(src):

        def build(of: str, own: DataConfig) -> TileIndex:
            return build_index(of, own, threads=threads, strict=strict, progress=progress)

        return mixed_index(Path(src), config, build=build)
    if Path(src).suffix == INDEX:
        index = _refreshed(load_index(src), config, threads, progress)
    else:
        index = _built(src, config, threads, progress)
    if index.bad and is_strict:
        files = len(index.tiles) + len(index.bad)
        raise SourceError(
            f"{len(index.bad)} of {files} files of {src} cannot be used, and --strict makes that an "
            f"error. {first_reasons(index.bad)}"
        )
    tiles, notes = select(index.tiles, config)
    if config.overlap == "once":
        tiles = weigh(tiles)
    notes = list(dict.fromkeys((*index.notes, *notes)))
    return replace(index, tiles=tuple(tiles), notes=tuple(notes))


def _built(
    src: str | Path, config: DataConfig, threads: int, progress: Progress | None
) -> TileIndex:
    """Index a source that is looked at for the first time."""
    if config.kind == "images":
        return image_index(src, config, threads=threads, progress=progress)
    listed = catalogue(src, config)
    far = any(is_far(path) for scene in listed.scenes for path in scene.paths)
    threads = _enough(threads, config, far=far)
    infos, bad_files = _describe_all(listed, threads, progress)
    images = [infos[p] for scene in listed.scenes for p in _image_paths(scene) if p in infos]
    rule, damaged = decide(images, _declared(config, listed), threads=threads)
    reasons = dict(bad_files) | dict(damaged)
    bad: Bad = list(listed.bad)
    scenes, channels = [], []
    for scene in listed.scenes:
        why = scene.lacks or next((reasons[p] for p in scene.paths if p in reasons), None)
        if why is None:
            try:
                found = _channels(scene, infos, rule, config, listed)
            except SourceError as error:
                why = str(error)
            else:
                scenes.append(scene)
                channels.append(found)
        if why is not None:
            bad.append((scene.name, why))
    if not scenes:
        count = len(listed.scenes) + len(listed.bad)
        raise SourceError(
            f"{src} holds no readable raster ({count} files tried). {first_reasons(bad)}"
        )
    chosen, named = choose_bands(channels, config)
    bands, recodings, dtype, coded = bring_together(chosen, config)
    tiles, unfit = assemble(
        scenes, chosen, recodings, infos, config=config, descriptor=listed.descriptor
    )
    return TileIndex(
        root=listed.root,
        tiles=tuple(tiles),
        bands=bands,
        dtype=dtype,
        rule=rule,
        notes=tuple(dict.fromkeys((*listed.notes, *_far_notes(infos), *named, *coded))),
        bad=(*bad, *unfit),
        declared=_what_is_declared(config),
    )


def _what_is_declared(config: DataConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", include=set(_DECLARED), exclude_defaults=True)


def _enough(threads: int, config: DataConfig, *, far: bool) -> int:
    """Return how many threads open files: waiting for answers takes more of them than decoding."""
    if config.threads != "auto" or not far:
        return threads
    return max(threads, thread_count("auto", far=True))


def _far_notes(infos: Mapping[str, RasterInfo]) -> list[str]:
    far = sum(is_far(info.path) and info.driver != "Zarr" for info in infos.values())
    if not far or sidecars_are_read():
        return []
    note = (
        f"files behind a network ({far}) are read without what may lie beside them (.msk, "
        ".aux.xml, .tfw); set GDAL_DISABLE_READDIR_ON_OPEN=TRUE to have such files looked for"
    )
    return [note]


def _image_paths(scene: Scene) -> tuple[str, ...]:
    """The rasters of a scene without its quality layer, whose numbers prove nothing."""
    return (
        (scene.name,) if scene.bands is None else tuple(dict.fromkeys(w.path for w in scene.bands))
    )


def _declared(config: DataConfig, listed: Catalogue) -> DataConfig:
    """The config with what the descriptor declares about alpha and nodata, unless overruled."""
    if listed.descriptor is None:
        return config
    values = {
        name: getattr(listed.descriptor, name)
        for name in ("alpha", "nodata")
        if getattr(config, name) == "auto"
    }
    return config.model_copy(update=values)


def _channels(
    scene: Scene,
    infos: Mapping[str, RasterInfo],
    rule: ReadRule,
    config: DataConfig,
    listed: Catalogue,
) -> Channels:
    if scene.bands is None:
        return channels_of(infos[scene.name], rule, config)
    by_baseline = listed.descriptor is not None and listed.descriptor.radiometry == "sentinel-2"
    return declared_channels(scene, infos, config, by_baseline=by_baseline)


def _describe_all(
    listed: Catalogue, threads: int, progress: Progress | None
) -> tuple[dict[str, RasterInfo], Bad]:
    """Describe every raster of a catalogue that is not known yet, each once."""
    paths = list(dict.fromkeys(p for scene in listed.scenes for p in scene.paths))
    return describe_rasters(paths, listed.infos, threads, progress)


def _refreshed(
    index: TileIndex, config: DataConfig, threads: int, progress: Progress | None
) -> TileIndex:
    """Take an index as the source: files that changed are described again, and the rest holds.

    Raises:
        SourceError: ``config`` declares something that needs the files looked at as a whole.
    """
    changed: Bad = []
    old = {part.info.path: part.info for tile in index.tiles for part in _all_parts(tile)}
    threads = _enough(threads, config, far=any(map(is_far, old)))
    unchanged = in_order(is_unchanged, old.values(), threads=threads)
    kept = {path: old[path] for path, is_kept in zip(old, unchanged, strict=True) if is_kept}
    infos, bad = describe_rasters(list(old), kept, threads, progress)
    reasons = dict(bad)
    tiles = []
    for tile in index.tiles:
        paths = tile.files
        why = next((reasons[p] for p in paths if p in reasons), None)
        if why is None and all(infos[p] == old[p] for p in paths):
            tiles.append(tile)
            continue
        if why is None:
            # Corners may differ from the tile's in the last decimals, as they did at first.
            new = {p: snapped(infos[p], tile.grid) for p in paths}
            why = next((w for p in paths if (w := _misfit(tile, old[p], new[p]))), None)
            if why is None:
                tiles.append(_with_infos(tile, new))
                continue
        changed.append((tile.path, why))
    if not tiles:
        raise SourceError(f"No tile of the index can be used. {first_reasons(changed)}")
    taken = replace(index, tiles=tuple(tiles), bad=tuple(changed))
    return _redecided(taken, config, threads)


def _all_parts(tile: Tile) -> tuple[Part, ...]:
    return tile.parts if tile.quality is None else (*tile.parts, tile.quality.part)


def _with_infos(tile: Tile, infos: Mapping[str, RasterInfo]) -> Tile:
    """Put new metadata in the place of the old, after files were rewritten."""
    parts = tuple(replace(part, info=infos[part.info.path]) for part in tile.parts)
    quality = tile.quality
    if quality is not None:
        part = quality.part
        quality = replace(quality, part=replace(part, info=infos[part.info.path]))
    grid = parts[0].info.grid if len(_all_parts(tile)) == 1 else tile.grid
    return replace(
        tile, parts=parts, quality=quality, grid=grid, gsd_m=grid.gsd_m, valid_share=None
    )


def _redecided(index: TileIndex, config: DataConfig, threads: int) -> TileIndex:
    """Apply what ``config`` declares over the decisions of an index.

    What was declared already when the index was built is part of them.
    """
    asked = {k: v for k, v in _what_is_declared(config).items() if index.declared.get(k) != v}
    if not asked:
        return index
    is_simple = not index.members and all(
        len(_all_parts(tile)) == 1 and tile.recoding is None and not tile.is_image
        for tile in index.tiles
    )
    if not (asked.keys() <= _REDECIDED and is_simple):
        keys = ", ".join(f"data.{name}" for name in sorted(asked))
        raise SourceError(
            f"{keys} cannot be declared anew for this index of tiles: its files would have to be "
            "looked at as a whole. Name their folder instead of the index."
        )
    infos = [tile.parts[0].info for tile in index.tiles]
    rule, damaged = decide(infos, config, threads=threads)
    reasons = dict(damaged)
    if reasons:
        index = index.without(reasons)
    by_path = [tile.parts[0].info for tile in index.tiles]
    chosen, notes = choose_bands([channels_of(info, rule, config) for info in by_path], config)
    bands, recodings, dtype, coded = bring_together(chosen, config)
    tiles = [
        replace(
            tile,
            parts=(replace(tile.parts[0], bands=tuple(c.number for c in channels)),),
            recoding=recoding,
            valid_share=None,
        )
        for tile, channels, recoding in zip(index.tiles, chosen, recodings, strict=True)
    ]
    return replace(
        index,
        tiles=tuple(tiles),
        bands=bands,
        dtype=dtype,
        rule=rule,
        notes=(*notes, *coded),
        declared=index.declared | asked,
    )


def _misfit(tile: Tile, old: RasterInfo, new: RasterInfo) -> str | None:
    """Say how a rewritten file cannot take the place it has in the index."""
    # The only file of a tile may have another size: the tile then has it too.
    place = () if len(_all_parts(tile)) == 1 else ("grid",)
    for name in ("count", "dtype", "scales", "offsets", "units", *place):
        if getattr(old, name) != getattr(new, name):
            return (
                f"{new.path} was rewritten since the index was built: its {name} was "
                f"{getattr(old, name)} and is {getattr(new, name)}. Build the index again."
            )
    return None
