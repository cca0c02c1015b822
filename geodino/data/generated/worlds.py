"""Named generated worlds: small archives with exact truth, written once into the user's cache."""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from geodino.data.generated.landsat import write_landsat
from geodino.data.generated.safe import Baseline, write_safe
from geodino.data.generated.tiff import HOME, Placement, write_geotiff
from geodino.data.generated.truth import (
    write_buildings,
    write_changes,
    write_classes,
    write_heights,
    write_trees,
)
from geodino.data.generated.zarr import write_zarr
from geodino.data.sources.find import WORLD
from geodino.errors import SourceError, suggest
from geodino.files import writing
from geodino.world.masks import collar, frame_collar, holes, masked
from geodino.world.scene import Scene, scene

VERSION = 1
"""Part of the cache's names: raise it whenever a world's pixels or files change."""

_ELSEWHERE = Placement(crs="EPSG:32633", east_m=400_000.0, north_m=5_410_000.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class _World:
    about: str
    """One sentence."""

    write: Callable[[Path], None]
    """Fills a folder."""

    tiles: str
    """What to pass as tiles, relative to that folder."""


def world_names() -> dict[str, str]:
    """Return the named worlds, each with a sentence that describes it."""
    return {name: world.about for name, world in _WORLDS.items()}


def write_world(name: str, folder: Path) -> Path:
    """Write a named world into a folder; return what to pass as ``--tiles``.

    Args:
        name: one of ``world_names()``, with or without ``world:`` before it.
        folder: made where it is missing; files of the same names are replaced.

    Raises:
        SourceError: there is no world of that name.
    """
    world = _named(name)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    world.write(folder)
    return folder / world.tiles


def materialise(name: str) -> Path:
    """Write a named world once into the user's cache; return what to pass as ``--tiles``.

    The cache is ``$GEODINO_CACHE``, else ``geodino`` in ``$XDG_CACHE_HOME``, else
    ``~/.cache/geodino``. The world appears there whole or not at all, so several processes may
    ask for it at once.

    Raises:
        SourceError: there is no world of that name.
        RunError: the cache cannot be written.
    """
    world = _named(name)
    plain = name.removeprefix(WORLD)
    digest = blake2b(f"{VERSION}:{plain}".encode(), digest_size=4).hexdigest()
    target = _cache() / "world" / f"{plain}-{digest}"
    if not target.is_dir():
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{plain}-", dir=target.parent))
        try:
            with writing(target):
                world.write(temporary)
            # mkdtemp lets nobody else in; other files in a cache follow the user's own rules.
            temporary.chmod(0o755)
            _rename(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target / world.tiles


def _rename(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        # Another process was faster: its world is the same.
        if not target.is_dir():
            raise


def _cache() -> Path:
    own, shared = os.environ.get("GEODINO_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own).expanduser()
    return (Path(shared) if shared else Path.home() / ".cache") / "geodino"


def _named(name: str) -> _World:
    plain = name.removeprefix(WORLD)
    if plain not in _WORLDS:
        raise SourceError(
            f"There is no generated world {plain!r}.{suggest(plain, _WORLDS)} There are: "
            f"{', '.join(_WORLDS)}. Name one of them, e.g. {WORLD}{next(iter(_WORLDS))}."
        )
    return _WORLDS[plain]


def _demo(folder: Path) -> None:
    for number in range(8):
        made = scene(number, height=512, width=512)
        if number == 7:
            made = masked(made, collar(number, height=512, width=512), fill=0)
        place = Placement(east_m=HOME.east_m + 2_000 * number)
        write_geotiff(folder / f"scene_{number}.tif", made, place, nodata=0.0)


def _mixed(folder: Path) -> None:
    side = 320
    gone = collar(3, height=side, width=side)
    spots = holes(5, height=side, width=side, share=0.2)
    files = folder / "uint8"

    def square(seed: int) -> Scene:
        return scene(seed, height=side, width=side)

    write_geotiff(files / "plain_32632.tif", square(1))
    write_geotiff(files / "plain_32633.tif", square(2), _ELSEWHERE)
    made = masked(square(3), gone, fill=0)
    write_geotiff(files / "collar_nodata_0_32633.tif", made, _ELSEWHERE, nodata=0.0)
    made = masked(square(4), frame_collar(height=side, width=side, pixels=40), fill=0)
    write_geotiff(files / "collar_untagged_32632.tif", made, missing="unmarked")
    made = masked(square(5), spots, fill=0)
    write_geotiff(files / "internal_mask_32632.tif", made, missing="mask")
    made = masked(square(6), gone, fill=255)
    write_geotiff(files / "alpha_32633.tif", made, _ELSEWHERE, missing="alpha")
    made = masked(square(7), spots, fill=float("nan"), dtype="float32")
    write_geotiff(folder / "float32" / "nan_32632.tif", made, missing="unmarked")


def _s2(folder: Path) -> None:
    for number, (day, clouds) in enumerate(
        (("2023-04-18", 0.0), ("2023-07-02", 0.15), ("2023-09-08", 0.0), ("2024-07-06", 0.0))
    ):
        made = scene(3, height=256, width=256, sensor="s2", date=day, clouds=clouds)
        if number == 2:
            made = masked(made, collar(2, height=256, width=256), fill=0)
        write_geotiff(folder / f"s2_{day}.tif", made)


def _s2_safe(folder: Path) -> None:
    products: tuple[tuple[str, Baseline, float], ...] = (
        ("2021-06-14", "02.14", 0.1),
        ("2023-07-01", "05.09", 0.0),
    )
    for day, baseline, clouds in products:
        made = scene(3, height=300, width=300, sensor="s2", date=day, clouds=clouds)
        write_safe(folder, masked(made, _swath(300), fill=0), baseline=baseline)


def _landsat(folder: Path) -> None:
    for day, clouds in (("2023-05-30", 0.0), ("2023-07-01", 0.35)):
        made = scene(3, height=256, width=256, sensor="landsat", date=day, clouds=clouds)
        write_landsat(folder, masked(made, _swath(256), fill=0))


def _swath(side: int) -> Bool[np.ndarray, "h w"]:
    """The part of a tile on one side of an orbit's slanting edge."""
    rows, columns = np.mgrid[:side, :side]
    return np.asarray(4 * columns + rows > 0.6 * side)


def _cube(folder: Path) -> None:
    days = (("2023-04-18", 0.0), ("2023-06-02", 0.3), ("2023-07-14", 0.0), ("2023-10-05", 0.0))
    scenes = [
        scene(3, height=256, width=256, sensor="s2", date=day, clouds=clouds)
        for day, clouds in days
    ]
    write_zarr(folder / "cube.zarr", scenes)


def _heights(folder: Path) -> None:
    for number in range(6):
        made = scene(number, height=512, width=512, top=-300, left=-700)
        place = Placement(east_m=HOME.east_m + 2_000 * number)
        name = f"scene_{number}"
        write_geotiff(folder / "images" / f"{name}.tif", made, place)
        write_heights(folder / "heights" / f"{name}.tif", made, place)
        write_classes(folder / "classes" / f"{name}.tif", made, place)
        write_buildings(folder / "buildings" / f"{name}.geojson", made, place)
        write_trees(folder / "trees" / f"{name}.geojson", made, place)


def _changes(folder: Path) -> None:
    def taken(number: int, day: str) -> Scene:
        return scene(number, height=256, width=256, sensor="s2", date=day)

    for number in range(4, 8):
        place = Placement(east_m=HOME.east_m + 3_000 * number)
        before, after = taken(number, "2018-07-01"), taken(number, "2024-07-08")
        name = f"place_{number}.tif"
        write_geotiff(folder / "before" / name, before, place)
        write_geotiff(folder / "after" / name, after, place)
        write_changes(folder / "changes" / name, before, after, place)


_WORLDS = {
    "demo": _World(
        about="Eight RGB GeoTIFFs of 512 x 512 pixels at 0.6 m, one of them with a slanting collar.",
        write=_demo,
        tiles=".",
    ),
    "mixed": _World(
        about="RGB GeoTIFFs in two UTM zones that mark missing pixels in six ways: not at all, by "
        "nodata, an untagged collar, an internal mask, an alpha band; NaN in a folder beside.",
        write=_mixed,
        tiles="uint8",
    ),
    "s2": _World(
        about="One place on four dates as 12-band uint16 GeoTIFFs at 10 m with scale and offset.",
        write=_s2,
        tiles=".",
    ),
    "s2-safe": _World(
        about="Two Sentinel-2 SAFE products of one place, of baselines 02.14 and 05.09, which "
        "store reflectances with another offset.",
        write=_s2_safe,
        tiles=".",
    ),
    "landsat": _World(
        about="Two Landsat 8 products of one place, one of them cloudy, with QA_PIXEL and MTL.json.",
        write=_landsat,
        tiles=".",
    ),
    "cube": _World(
        about="One place on four dates as a zarr cube (time, band, y, x) of 12 bands at 10 m.",
        write=_cube,
        tiles="cube.zarr",
    ),
    "heights": _World(
        about="Six RGB GeoTIFFs at 0.6 m with heights, land cover, boxes of buildings and trees.",
        write=_heights,
        tiles="images",
    ),
    "changes": _World(
        about="Four places at 10 m, 12 bands, before and after six years, with what changed.",
        write=_changes,
        tiles="before",
    ),
}
