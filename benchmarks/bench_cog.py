"""Writing maps as COGs: ours in one pass, GDAL's COG driver, rio-cogeo, and one compression.

Rows of a map in memory become a finished file with statistics, overviews and directories in front.
The peers cannot take rows: they get a tiled, uncompressed GeoTIFF, whose writing is part of what
they need (as it is in any program that streams a map through them). The limit is one pass of
predictor and codec over all tiles, times 4/3 for the overviews. All with one thread that
compresses: two on the two halves of one core would each need more CPU-seconds for the same work.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from _harness import interleave, main, ratio, table
from affine import Affine
from rio_cogeo import cog_translate, cog_validate

from geodino.geo.grid import Grid
from geodino.io.cog.assemble import assemble
from geodino.io.cog.layout import Layer, Layout
from geodino.io.cog.parts import PartsWriter, tiles_of
from geodino.io.cog.tiles import TileCodec

PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)
KINDS = ("heights, float32", "heights, uint16 cm", "classes, uint8")
CODECS = {"zstd": 1, "deflate": 6}
"""Levels: our default, and GDAL's."""


def run(rounds: int = 5, small: bool = False) -> dict:
    """Compare; ``small`` takes maps of 600 pixels a side and zstd only."""
    result: dict = {"tables": [], "cases": {}}
    side = 600 if small else 4096
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            values, layer_fields = made(kind, side)
            for codec, level in list(CODECS.items())[: 1 if small else None]:
                layer = Layer(name="map", count=1, compression=codec, level=level, **layer_fields)
                name = f"{kind}, {side} px, {codec} {level}"
                # A round of deflate takes many seconds, and CPU-seconds repeat well.
                many = rounds if codec == "zstd" else max(1, rounds // 2)
                figures, text = compare(name, Path(folder), values, layer, many)
                result["cases"][name] = figures
                result["tables"].append(text)
    return result


def compare(name: str, folder: Path, values: np.ndarray, layer: Layer, rounds: int):
    """Interleave the writers, after checking that all files hold the same pixels."""
    grid = Grid("EPSG:32632", PLACE, width=values.shape[2], height=values.shape[1])
    cases = {
        "ours": lambda: ours(folder, values, layer, grid),
        "GDAL COG driver": lambda: by_gdal(folder, values, layer, grid),
        "rio-cogeo": lambda: by_rio_cogeo(folder, values, layer, grid),
        "limit: one compression": lambda: encode(values, layer),
    }
    sizes = {}
    for case in list(cases)[:3]:
        path = cases[case]()
        assert cog_validate(path)[0], case
        sizes[case] = path.stat().st_size
        with rasterio.open(path) as found:
            np.testing.assert_array_equal(found.read(), values)
    timings = interleave(cases, rounds, warm_up=False)
    faster = {case: ratio(timings, case, "ours") for case in list(cases)[1:3]}
    share = ratio(timings, "limit: one compression", "ours") * 4 / 3
    text = table(name, timings, work=values.size / 1e6, unit="Mpx", ours="ours")
    told = ", ".join(f"{case} {size / 2**20:.1f} MiB" for case, size in sizes.items())
    figures = {
        "timings": timings,
        "ours_is_faster_by": faster,
        "share_of_limit": share,
        "bytes": sizes,
    }
    return figures, f"{text}\n{share:.2f} of the limit (4/3 compressions); {told}"


def ours(folder: Path, values: np.ndarray, layer: Layer, grid: Grid) -> Path:
    """Rows of blocks as an engine hands them over, then the file."""
    layout = Layout.plan(grid, [layer])
    parts, path = folder / "ours.tif.parts", folder / "ours.tif"
    shutil.rmtree(parts, ignore_errors=True)
    with PartsWriter(parts, layout=layout, layers=[layer], key={}, threads=1) as writer:
        for number in range(len(layout)):
            supertile = writer.open_supertile(number)
            for row in range(layout.block_rows(number)):
                rows, columns = layout.block_window(number, row).slices
                supertile.write(row, {"map": values[:, rows, columns]})
            supertile.commit("")
    assemble(parts, path, layer, layout=layout, threads=1)
    return path


def rows_first(folder: Path, values: np.ndarray, layer: Layer, grid: Grid) -> Path:
    """The GeoTIFF that the peers start from."""
    path = folder / "rows.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        dtype=layer.dtype,
        nodata=layer.nodata,
        width=grid.width,
        height=grid.height,
        crs=grid.crs,
        transform=grid.transform,
        tiled=True,
        blockxsize=512,
        blockysize=512,
    ) as target:
        target.write(values)
    return path


def by_gdal(folder: Path, values: np.ndarray, layer: Layer, grid: Grid) -> Path:
    path = folder / "gdal.tif"
    rasterio.shutil.copy(
        rows_first(folder, values, layer, grid),
        path,
        driver="COG",
        compress=layer.compression,
        level=layer.level,
        predictor="YES",
        blocksize=512,
        overview_resampling=layer.resampling,
        statistics="YES",
        num_threads=1,
    )
    return path


def by_rio_cogeo(folder: Path, values: np.ndarray, layer: Layer, grid: Grid) -> Path:
    path = folder / "rio.tif"
    level = "ZSTD_LEVEL" if layer.compression == "zstd" else "ZLEVEL"
    profile = {
        "driver": "GTiff",
        "interleave": "pixel",
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": layer.compression,
        "predictor": layer.predictor,
        level: layer.level,
        "NUM_THREADS": 1,
    }
    cog_translate(
        rows_first(folder, values, layer, grid),
        path,
        profile,
        overview_resampling=layer.resampling,
        in_memory=False,
        quiet=True,
    )
    return path


def encode(values: np.ndarray, layer: Layer) -> int:
    """One pass of predictor and codec over the tiles; nothing is kept."""
    codec = TileCodec.of(layer, 512)
    return sum(
        len(codec.encode(tile))
        for top in range(0, values.shape[1], 512)
        for tile in tiles_of(values[:, top : top + 512], codec)
    )


def made(kind: str, side: int) -> tuple[np.ndarray, dict]:
    """A map with a falling spectrum, as land has, and an eighth without data."""
    random = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = 1
    base = np.fft.irfft2(np.fft.rfft2(random.normal(size=(side, side))) / frequency, (side, side))
    base = (base - base.mean()) / base.std()
    heights = np.clip(8 + 8 * base + random.normal(scale=0.3, size=base.shape), 0, 60)
    nothing = np.add.outer(np.arange(side), np.arange(side)) < side / 2
    if kind == "heights, float32":
        values = heights.astype(np.float32)
        fields = {"dtype": "float32", "nodata": float("nan")}
    elif kind == "heights, uint16 cm":
        values = np.rint(heights * 100).astype(np.uint16)
        fields = {"dtype": "uint16", "nodata": 65535.0}
    else:
        smooth = np.fft.irfft2(np.fft.rfft2(base) * np.exp(-((40 * frequency) ** 2)), base.shape)
        values = np.digitize(smooth, [-1, -0.5, 0, 0.5, 1]).astype(np.uint8)
        fields = {"dtype": "uint8", "nodata": 255.0, "resampling": "mode"}
    values[nothing] = fields["nodata"]
    return values[None], fields


if __name__ == "__main__":
    main(run)
