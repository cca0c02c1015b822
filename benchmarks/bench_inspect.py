"""Inspecting archives: files per second and memory at 100,000 files; pixels against the decoder.

1. Files: the survey of `geodino inspect` (everything a file's metadata says, whether the file is
   whole, how files fit together) and the tile index, against `rasterio.open` and reading the same
   tags, and against torchgeo's RasterDataset, which takes bounds and CRS only.
2. Memory and rate of a whole inspection of 100,000 files, in a process of its own.
3. Pixels: what `inspect` counts over large files, against decoding the same windows and throwing
   them away.
"""

import json
import struct
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import rasterio
from _harness import interleave, main, ratio, table
from rasterio.transform import from_origin
from rasterio.windows import Window as GdalWindow

import geodino  # noqa: F401  (torchgeo imports torchvision, which the hook mends)
from geodino.data.config import DataConfig
from geodino.data.index import build_index
from geodino.data.inspection.pixels import look
from geodino.data.inspection.survey import survey
from geodino.geo.windows import super_windows

THREADS = 2
SIDE, GSD_M = 64, 10
CONFIG = DataConfig()

MOSAICS: dict[str, dict] = {
    "uint8 x 3, deflate, tiles of 256": {"count": 3, "dtype": "uint8", "compress": "deflate"},
    "uint16 x 4, deflate, tiles of 256": {"count": 4, "dtype": "uint16", "compress": "deflate"},
    "uint16 x 4, zstd, tiles of 256": {"count": 4, "dtype": "uint16", "compress": "zstd"},
    "float32 x 1, zstd, tiles of 256": {"count": 1, "dtype": "float32", "compress": "zstd"},
}

WHOLE = """
import json, re, sys, time
from pathlib import Path
from geodino.data.config import DataConfig
from geodino.data.inspection.source import inspect
def peak_mb():  # unlike getrusage, this does not count what the parent held
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e3
before = peak_mb()
cpu, wall = time.process_time(), time.perf_counter()
found = inspect(sys.argv[1], DataConfig(), threads=int(sys.argv[2]))
assert found.files == int(sys.argv[3]) and not found.unreadable and len(found.kinds) == 1
print(json.dumps({
    "files": found.files, "wall_s": time.perf_counter() - wall,
    "cpu_s": time.process_time() - cpu,
    "rss_mb": peak_mb(), "idle_mb": before,
}))
"""


def run(rounds: int = 5, small: bool = False) -> dict:
    """Compare; ``small`` takes 100 and 500 files and one small mosaic."""
    result: dict = {"tables": [], "pixels": {}}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        few = archive(Path(folder, "few"), 100 if small else 2000)
        result["files"], text = files(few, rounds)
        result["tables"].append(text)
        count = 500 if small else 100_000
        result["whole"], text = whole(archive(Path(folder, "many"), count), count)
        result["tables"].append(text)
        for name in list(MOSAICS)[: 1 if small else None]:
            path = mosaic(Path(folder, "mosaic"), MOSAICS[name], 512 if small else 4096)
            result["pixels"][name], text = pixels(name, path, rounds)
            result["tables"].append(text)
    return result


def files(folder: Path, rounds: int) -> tuple[dict, str]:
    """Interleave what is asked of every file of an archive."""
    paths = sorted(folder.rglob("*.tif"))
    assert len(survey(str(folder), CONFIG, threads=1).infos) == len(paths)
    cases = {
        "ours, survey": lambda: survey(str(folder), CONFIG, threads=THREADS),
        "ours, index": lambda: build_index(folder, CONFIG, threads=THREADS),
        "rasterio, same tags": lambda: [tags(path) for path in paths],
        "rasterio.open alone": lambda: [rasterio.open(path).close() for path in paths],
        "torchgeo RasterDataset": lambda: torchgeo_index(folder),
    }
    timings = interleave(cases, rounds)
    faster = {case: ratio(timings, case, "ours, survey") for case in cases}
    text = table(
        f"{len(paths):,} files of {SIDE} x {SIDE} px",
        timings,
        work=len(paths),
        unit="files",
        ours="ours, survey",
    )
    return {"timings": timings, "ours_is_faster_by": faster}, text


def whole(folder: Path, count: int) -> tuple[dict, str]:
    """Inspect a large archive once, in a process of its own, so that its memory can be told."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WHOLE, str(folder), str(THREADS), str(count)],
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(done.stdout)
    rate = figures["files"] / figures["cpu_s"]
    text = (
        f"inspection of {count:,} files: {figures['wall_s']:.1f} s ({rate:,.0f} files/CPU-s), "
        f"peak memory {figures['rss_mb']:,.0f} MB, of which {figures['idle_mb']:,.0f} MB before"
    )
    return figures, text


def pixels(name: str, path: Path, rounds: int) -> tuple[dict, str]:
    """Interleave counting all pixels of a mosaic with decoding them alone."""
    index = build_index(path, CONFIG, threads=1)
    area = index.pixels
    found = look(index, CONFIG, pixels=area, threads=1)
    assert found.pixels_read == area
    cases = {
        "ours": lambda: look(index, CONFIG, pixels=area, threads=THREADS),
        "limit: decoding alone": lambda: decode(path),
    }
    timings = interleave(cases, rounds)
    share = 1 / ratio(timings, "ours", "limit: decoding alone")
    text = table(name, timings, work=area / 1e6, unit="Mpx", ours="ours")
    return {"timings": timings, "share_of_limit": share}, f"{text}\n{share:.2f} of the limit"


def tags(path: Path) -> tuple:
    """Ask rasterio for what our description of a file holds, the check for damage apart."""
    with rasterio.open(path) as file:
        return (
            file.crs.to_wkt() if file.crs else None, file.transform, file.shape, file.count,
            file.dtypes, file.nodatavals, file.colorinterp, file.descriptions, file.scales,
            file.offsets, file.units, file.mask_flag_enums, file.block_shapes, file.tags(),
            file.tags(ns="IMAGERY"), path.stat(),
        )  # fmt: skip


def torchgeo_index(folder: Path) -> int:
    """torchgeo's own index: bounds of every file in the CRS of the first."""
    from torchgeo.datasets import RasterDataset

    class Tiles(RasterDataset):
        filename_glob = "*.tif"

    return len(Tiles(str(folder)))


def decode(path: Path) -> None:
    """Decode the windows that an inspection reads, once each."""
    with rasterio.open(path) as file:
        for w in super_windows(file.height, file.width, block=file.block_shapes[0], size=512):
            file.read(window=GdalWindow(w.left, w.top, w.width, w.height))


def archive(folder: Path, count: int) -> Path:
    """Write many small files side by side: copies of one, each with a place and a pixel of its own.

    The tie point and a pixel are changed in the bytes of the file: writing 100,000 files through
    GDAL would take longer than all that is measured.
    """
    folder.mkdir(parents=True)
    first = folder / "first.tif"
    east, north = 400_000.0, 5_400_000.0
    random = np.random.default_rng(0)
    tile = random.integers(1, 250, (3, SIDE, SIDE), dtype=np.uint8)
    with rasterio.open(
        first,
        "w",
        driver="GTiff",
        width=SIDE,
        height=SIDE,
        count=3,
        dtype="uint8",
        crs="EPSG:32632",
        transform=from_origin(east, north, GSD_M, GSD_M),
        photometric="RGB",
    ) as file:
        file.write(tile)
    content = bytearray(first.read_bytes())
    first.unlink()
    tie = content.find(struct.pack("<2d", east, north))
    pixel = content.find(tile.transpose(1, 2, 0).tobytes()[:64])
    if min(tie, pixel) < 0:
        raise RuntimeError("GDAL writes another form of file: the tie point is not where it was")
    for number in range(count):
        row, column = divmod(number, 400)
        place = (east + column * SIDE * GSD_M, north - row * SIDE * GSD_M)
        content[tie : tie + 16] = struct.pack("<2d", *place)
        content[pixel : pixel + 4] = struct.pack("<I", number)
        into = folder / f"{number // 1000:03d}"
        into.mkdir(exist_ok=True)
        (into / f"tile_{number:06d}.tif").write_bytes(content)
    return folder


def mosaic(path: Path, profile: dict, size: int) -> Path:
    """Write noise with a falling spectrum, as land has, tiled and pixel-interleaved."""
    random = np.random.default_rng(profile["count"])
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1
    base = np.fft.irfft2(np.fft.rfft2(random.normal(size=(size, size))) / frequency, (size, size))
    base = (base - base.mean()) / base.std()
    middle, scale, top = (110, 30, 255) if profile["dtype"] == "uint8" else (2000, 500, 9999)
    predictor = 3 if profile["dtype"] == "float32" else 2
    path = path.with_suffix(".tif")
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=size,
        height=size,
        crs="EPSG:32632",
        transform=from_origin(500_000, 5_400_000, 0.6, 0.6),
        tiled=True,
        blockxsize=256,
        blockysize=256,
        interleave="pixel",
        predictor=predictor,
        **profile,
    ) as file:
        for band in range(1, profile["count"] + 1):
            values = middle + scale * (base + random.normal(scale=0.12, size=base.shape))
            file.write(np.clip(values, 1, top).astype(profile["dtype"]), band)
    return path


if __name__ == "__main__":
    main(run)
