"""Windows per CPU-second from GeoTIFF mosaics: ours, torchgeo, raw rasterio, the decoding limit.

Every case delivers windows of 256 x 256 px, in batches, from one mosaic in several codecs. Ours
decodes block-aligned super-windows of 1024 px once and cuts 16 (or 8) chips from each; the limit
decodes the same super-windows and throws them away. GDAL's block cache is kept smaller than the
mosaic, as any archive is larger than it.

Also: a folder of small JPEGs, first epoch and later ones, against torchvision's ImageFolder.
"""

import itertools
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
from _harness import interleave, main, ratio, table
from rasterio.transform import from_origin
from rasterio.windows import Window as GdalWindow
from torch.utils.data import DataLoader

import geodino  # noqa: F401  (torchgeo imports torchvision, which the hook mends)
from geodino.data.cuts import Shapes
from geodino.data.loader import Loader, LoaderConfig
from geodino.data.order import Order, OrderConfig
from geodino.geo.validity import ReadRule, combine
from geodino.io.raster import HandlePool, describe, read

CHIP, SUPER, BATCH = 256, 1024, 32
CACHE_MB = 16
CODECS: dict[str, dict] = {
    "uint8 none 256": {"bands": 3, "blockxsize": 256},
    "uint8 zstd 256": {"bands": 3, "blockxsize": 256, "compress": "zstd", "predictor": 2},
    "uint8 deflate 256": {"bands": 3, "blockxsize": 256, "compress": "deflate", "predictor": 2},
    "uint8 deflate 512": {"bands": 3, "blockxsize": 512, "compress": "deflate", "predictor": 2},
    "uint8 jpeg 256": {"bands": 3, "blockxsize": 256, "compress": "jpeg", "photometric": "ycbcr"},
    "uint16x4 zstd 256": {"bands": 4, "blockxsize": 256, "compress": "zstd", "predictor": 2},
    "uint16x4 deflate 256": {"bands": 4, "blockxsize": 256, "compress": "deflate", "predictor": 2},
}


def run(rounds: int = 5, small: bool = False) -> dict:
    """Compare on all codecs and on small files; ``small`` takes two codecs and a small mosaic."""
    names = ["uint8 deflate 256", "uint16x4 zstd 256"] if small else list(CODECS)
    size = 2 * SUPER if small else 4096
    result: dict = {"tables": [], "windows": {}}
    with (
        tempfile.TemporaryDirectory() as folder,
        rasterio.Env(GDAL_CACHEMAX=CACHE_MB * 2**20),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        pictures = {bands: mosaic(size, bands) for bands in {CODECS[n]["bands"] for n in names}}
        for name in names:
            path = Path(folder, name.replace(" ", "_") + ".tif")
            write(path, pictures[CODECS[name]["bands"]], CODECS[name])
            figures, text = compare(name, path, rounds, peer_windows=8 if small else 2 * BATCH)
            result["windows"][name] = figures
            result["tables"].append(text)
        figures, text = small_files(Path(folder), 64 if small else 1200, rounds)
        result["small_files"] = figures
        result["tables"].append(text)
    return result


def compare(name: str, path: Path, rounds: int, *, peer_windows: int) -> tuple[dict, str]:
    """Interleave the readers of one mosaic; first check that ours reads what rasterio reads.

    Ours and torchgeo's stay open from round to round, as in a training that goes on.
    """
    check(path)
    with (
        HandlePool() as pool,
        loader(path, 16, pool) as sixteen,
        loader(path, 8, pool) as eight,
    ):
        cases: dict[str, Callable[[], int]] = {
            "ours, 16 chips": epochs(sixteen),
            "ours, 8 chips": epochs(eight),
            "torchgeo": torchgeo_windows(path, peer_windows),
            "rasterio random": lambda: raw(path, peer_windows),
            "limit: decoding alone": lambda: limit(path),
        }
        work: dict[str, int] = {}

        def counted(case: str) -> Callable[[], None]:
            return lambda: work.update({case: cases[case]()})

        timings = interleave({case: counted(case) for case in cases}, rounds)
    per_window = {
        peer: ratio(timings, peer, "ours, 16 chips") * work["ours, 16 chips"] / work[peer]
        for peer in cases
    }
    figures = {"timings": timings, "windows": work, "ours_is_faster_by": per_window}
    return figures, table(name, timings, work=work, unit="windows", ours="ours, 16 chips")


def loader(path: Path, chips: int, pool: HandlePool) -> Loader:
    """A loader over one mosaic that does not quite fit into its memory, so nothing is kept."""
    info = describe(path)
    one = np.ones(1, dtype=np.int64)
    shapes = Shapes(
        height=one * info.grid.height,
        width=one * info.grid.width,
        block_height=one * info.block[0],
        block_width=one * info.block[1],
        pixel_bytes=one * info.count * np.dtype(info.dtype).itemsize,
        weight=np.ones(1),
    )
    area = info.grid.height * info.grid.width
    config = OrderConfig(
        seed=0,
        batch=BATCH,
        chip=CHIP,
        super_window=SUPER,
        chips_per_window=chips,
        budget_bytes=int(area * (shapes.pixel_bytes[0] + 1)) - 1,
    )
    rule = ReadRule()

    def read_window(tile, window):
        pixels, valid = read(pool, path, window, rule=rule)
        return pixels, combine(valid, "all")

    settings = LoaderConfig(min_valid=0.5, threads=2, prefetch=2)
    return Loader(Order(shapes, config), read_window, settings)


def epochs(batches: Loader) -> Callable[[], int]:
    """Return what reads the next whole epoch: every super-window is decoded once."""
    steps = batches.order.samples_per_epoch // BATCH
    numbers = itertools.count()

    def epoch() -> int:
        first = next(numbers) * steps
        return sum(len(batch.pixels) for batch in batches.batches(first, first + steps))

    return epoch


def torchgeo_windows(path: Path, windows: int) -> Callable[[], int]:
    """torchgeo's own way: RasterDataset, RandomGeoSampler, stack_samples, kept open."""
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import RandomGeoSampler

    class Mosaic(RasterDataset):
        filename_glob = path.name
        is_image = True

    dataset = Mosaic(str(path.parent))
    sampler = RandomGeoSampler(dataset, size=CHIP, length=windows)
    batches = DataLoader(
        dataset, batch_size=BATCH, sampler=sampler, collate_fn=stack_samples, num_workers=0
    )
    return lambda: sum(len(batch["image"]) for batch in batches)


def raw(path: Path, windows: int) -> int:
    """rasterio alone: random windows from one open file, stacked into a batch."""
    random = np.random.default_rng(0)
    with rasterio.open(path) as file:
        chips = []
        for _ in range(windows):
            top, left = (int(random.integers(0, n - CHIP + 1)) for n in file.shape)
            chips.append(file.read(window=GdalWindow(left, top, CHIP, CHIP)))
    return len(torch.from_numpy(np.stack(chips)))


def limit(path: Path) -> int:
    """Decode every super-window once and cut nothing; counted in chips of its area."""
    with rasterio.open(path) as file:
        for top in range(0, file.height, SUPER):
            for left in range(0, file.width, SUPER):
                file.read(window=GdalWindow(left, top, SUPER, SUPER))
        return file.height * file.width // CHIP**2


def check(path: Path) -> None:
    """Every chip of a batch equals what rasterio reads at the window the batch reports."""
    with HandlePool() as pool, loader(path, 16, pool) as batches, rasterio.open(path) as file:
        batch = next(batches.batches(1))
        for pixels, (_, w) in zip(batch.pixels.numpy(), batch.source, strict=True):
            window = GdalWindow(w.left, w.top, w.width, w.height)
            np.testing.assert_array_equal(pixels, file.read(window=window))


def small_files(folder: Path, count: int, rounds: int) -> tuple[dict, str]:
    """A folder of 64 px JPEGs, kept in memory after the first epoch, against ImageFolder."""
    import torchvision

    root = folder / "jpegs" / "class"
    root.mkdir(parents=True)
    picture = mosaic(1024, 3)
    random = np.random.default_rng(1)
    for number in range(count):
        top, left = random.integers(0, 1024 - 64, 2)
        options = {"driver": "JPEG", "width": 64, "height": 64, "count": 3, "dtype": "uint8"}
        with rasterio.open(root / f"{number:04d}.jpg", "w", **options) as file:
            file.write(picture[:, top : top + 64, left : left + 64])
    paths = sorted(root.iterdir())
    size = np.full(count, 64)
    shapes = Shapes(
        height=size,
        width=size,
        block_height=size,
        block_width=size,
        pixel_bytes=np.full(count, 3),
        weight=np.ones(count),
    )
    config = OrderConfig(
        seed=0,
        batch=BATCH,
        chip=64,
        super_window=SUPER,
        chips_per_window=16,
        budget_bytes=2**28,
    )
    rule = ReadRule()
    steps = count // BATCH

    def first_epoch() -> None:
        with HandlePool() as pool, jpegs(pool) as batches:
            for _ in batches.batches(0, steps):
                pass

    def jpegs(pool: HandlePool) -> Loader:
        def read_window(tile, window):
            pixels, valid = read(pool, paths[tile], window, rule=rule)
            return pixels, combine(valid, "all")

        settings = LoaderConfig(min_valid=0.5, threads=2, prefetch=2)
        return Loader(Order(shapes, config), read_window, settings)

    with HandlePool() as pool, jpegs(pool) as warm:
        for _ in warm.batches(0, steps + 1):
            pass

        def later_epoch() -> None:
            for _ in warm.batches(steps + 1, 2 * steps + 1):
                pass

        dataset = torchvision.datasets.ImageFolder(
            str(root.parent), transform=torchvision.transforms.PILToTensor()
        )

        def image_folder() -> None:
            for _ in DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True):
                pass

        cases = {
            "ours, first epoch": first_epoch,
            "ours, later epochs": later_epoch,
            "torchvision ImageFolder": image_folder,
        }
        timings = interleave(cases, rounds)
    text = table(
        f"{count} JPEGs of 64 px",
        timings,
        work=steps * BATCH,
        unit="images",
        ours="ours, first epoch",
    )
    return {"timings": timings}, text


def mosaic(size: int, bands: int) -> np.ndarray:
    """Noise with a falling spectrum, as land has, and straight edges, as fields have."""
    random = np.random.default_rng(bands)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1
    base = np.fft.irfft2(np.fft.rfft2(random.normal(size=(size, size))) / frequency, (size, size))
    base = (base - base.mean()) / base.std()
    fields = random.normal(size=(size // 64, size // 64)).repeat(64, 0).repeat(64, 1)
    dtype, middle, scale = (np.uint8, 110, 30) if bands == 3 else (np.uint16, 2000, 500)
    out = np.empty((bands, size, size), dtype=dtype)
    for band in out:
        grain = random.normal(scale=0.12, size=(size, size))
        mixed = random.uniform(0.6, 1.0) * base + 0.5 * fields + grain
        band[:] = np.clip(middle + scale * mixed, 1, np.iinfo(dtype).max).astype(dtype)
    return out


def write(path: Path, picture: np.ndarray, options: dict) -> None:
    """Write the mosaic as a tiled GeoTIFF, pixel-interleaved as most archives are."""
    options = {k: v for k, v in options.items() if k != "bands"}
    options["blockysize"] = options["blockxsize"]
    bands, height, width = picture.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=bands,
        dtype=picture.dtype,
        crs="EPSG:32633",
        transform=from_origin(500000, 5400000, 0.6, 0.6),
        tiled=True,
        interleave="pixel",
        **options,
    ) as file:
        file.write(picture)


if __name__ == "__main__":
    main(run)
