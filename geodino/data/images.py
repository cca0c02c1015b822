"""The index of photographs: sizes from headers, no pixel decoded."""

from pathlib import Path

from geodino.data.config import DataConfig
from geodino.data.fit import LONGEST
from geodino.data.metadata import Bad, Progress, describe_rasters
from geodino.data.sources.images import find_images
from geodino.data.tiles import Part, Tile, TileIndex, first_reasons
from geodino.errors import SourceError
from geodino.geo.bands import Band
from geodino.geo.validity import ReadRule
from geodino.io.image_key import ImageKey
from geodino.io.raster import RasterInfo

BANDS = (
    Band(name="red", common_name="red"),
    Band(name="green", common_name="green"),
    Band(name="blue", common_name="blue"),
)
"""What every photograph is read as."""

_OF_MAPS = (
    "dataset", "bands", "band_names", "scale", "offset", "decibel", "grid", "resampling", "mask",
    "aoi", "datetime", "dates", "alpha", "nodata",
)  # fmt: skip
"""Keys of ``data`` that say something about maps only."""

_READ = (
    "files are read as photographs (data.kind: images): upright by their EXIF tag, as 8-bit RGB, "
    "transparent pixels not valid"
)


def image_index(
    src: str | Path, config: DataConfig, *, threads: int, progress: Progress | None = None
) -> TileIndex:
    """Describe every picture of a source; see :func:`geodino.data.index.build_index`.

    Raises:
        SourceError: nothing to read, or ``config`` declares what photographs do not have.
    """
    _refuse_maps_keys(config)
    found = find_images(str(src), threads=threads)
    by_path = {str(key): key for key in found.keys}
    infos, bad_files = describe_rasters(list(by_path), {}, threads, progress)
    bad: Bad = [*found.bad, *((by_path[path].shown, why) for path, why in bad_files)]
    if not infos:
        raise SourceError(
            f"{src} holds no readable picture ({len(by_path)} tried). {first_reasons(bad)}"
        )
    large = {path: i for path, i in infos.items() if _short(i) >= config.min_side}
    if not large:
        longest = max(map(_short, infos.values()))
        raise SourceError(
            f"All {len(infos)} pictures of {src} are smaller than data.min_side = "
            f"{config.min_side} px: the largest shorter side is {longest} px. Lower data.min_side."
        )
    return TileIndex(
        root=found.root,
        tiles=tuple(_tile(info, by_path[path]) for path, info in large.items()),
        bands=BANDS,
        dtype="uint8",
        rule=ReadRule(reasons=(_READ,)),
        notes=(*found.notes, *_notes(infos, large, config)),
        bad=tuple(bad),
        declared=config.model_dump(
            mode="json", include={"kind", "min_side"}, exclude_defaults=True
        ),
    )


def _notes(
    infos: dict[str, RasterInfo], large: dict[str, RasterInfo], config: DataConfig
) -> list[str]:
    notes = []
    if len(large) < len(infos):
        notes.append(
            f"{len(infos) - len(large)} of {len(infos)} pictures are left out: their shorter side "
            f"is below data.min_side = {config.min_side} px"
        )
    strips = sum(max(i.block) > LONGEST * min(i.block) for i in large.values())
    if strips:
        notes.append(
            f"of {strips} pictures longer than {LONGEST} times their shorter side only the middle "
            "is used"
        )
    return notes


def _short(info: RasterInfo) -> int:
    return min(info.grid.height, info.grid.width)


def _tile(info: RasterInfo, key: ImageKey) -> Tile:
    return Tile(path=key.shown, grid=info.grid, parts=(Part(info, (1, 2, 3)),), gsd_m=None)


def _refuse_maps_keys(config: DataConfig) -> None:
    declared = config.model_dump(include=set(_OF_MAPS), exclude_defaults=True)
    if declared:
        keys = ", ".join(f"data.{name}" for name in _OF_MAPS if name in declared)
        raise SourceError(
            f"{keys} cannot be asked of photographs (data.kind: images), which are always red, "
            "green and blue without a place or a time. Leave it out, or read the files as "
            "data.kind: tiles."
        )
