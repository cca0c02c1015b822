"""Windows per CPU-second from zarr cubes: ours, zarr-python, xarray, and the codec's limit.

Every case delivers windows of 256 x 256 px, in batches, from one cube of two dates, four bands
and chunks of 512 px, in several layouts. Ours decodes chunk-aligned super-windows of 1024 px once
and cuts 16 chips from each; the peers read random windows, as their users do. Reading alone, by ours
and by zarr-python, is compared on the same super-windows. The limit decompresses every chunk of a
date with numcodecs and throws it away.
"""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numcodecs
import numpy as np
import torch
import xarray as xr
import zarr
from _harness import interleave, main, ratio, table
from zarr.codecs import BloscCodec, ZstdCodec

from geodino.data.config import DataConfig
from geodino.data.cuts import shapes_of
from geodino.data.index import TileReader, build_index
from geodino.data.loader import Loader, LoaderConfig
from geodino.data.order import Order, OrderConfig
from geodino.geo.validity import ReadRule
from geodino.geo.windows import Window
from geodino.io.metadata import RasterInfo
from geodino.io.raster import HandlePool, read
from geodino.io.zarr.store import describe_store

CHIP, SUPER, BATCH, CHUNK = 256, 1024, 32, 512
DIMS = ("time", "band", "y", "x")
LAYOUTS: dict[str, dict] = {
    "zstd": {"compressors": ZstdCodec(level=3)},
    "zstd, sharded": {"compressors": ZstdCodec(level=3), "shards": (1, 4, 2048, 2048)},
    "blosc": {"compressors": BloscCodec(cname="zstd", clevel=3)},
    "format 2, blosc": {"zarr_format": 2, "compressors": numcodecs.Blosc()},
}


def run(rounds: int = 5, small: bool = False) -> dict:
    """Compare on all layouts; ``small`` takes two of them and a small cube."""
    names = ["zstd, sharded", "format 2, blosc"] if small else list(LAYOUTS)
    result: dict = {"tables": [], "windows": {}}
    cube = reflectance(2 * SUPER if small else 4096)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            store = Path(folder, name.replace(" ", "_") + ".zarr")
            write(store, cube, LAYOUTS[name])
            figures, text = compare(name, store, rounds, peer_windows=8 if small else 2 * BATCH)
            result["windows"][name] = figures
            result["tables"].append(text)
    return result


def compare(name: str, store: Path, rounds: int, *, peer_windows: int) -> tuple[dict, str]:
    """Interleave the readers of one cube; first check that ours reads what zarr-python reads.

    All stay open from round to round, as in a training that goes on.
    """
    rasters = describe_store(store).rasters
    check(store, rasters)
    array = zarr.open_array(store, path="s2", mode="r")
    with HandlePool() as pool, loader(store, pool) as batches:
        cases: dict[str, Callable[[], int]] = {
            "ours": epochs(batches),
            "zarr-python": lambda: direct(array, peer_windows),
            "ours, reading alone": lambda: reading(rasters[0], pool),
            "zarr-python aligned": lambda: aligned(array),
            "xarray": lambda: labelled(store, peer_windows),
            "limit: codec alone": lambda: limit(array, store),
        }
        work: dict[str, int] = {}

        def counted(case: str) -> Callable[[], None]:
            return lambda: work.update({case: cases[case]()})

        timings = interleave({case: counted(case) for case in cases}, rounds)
    per_window = {peer: ratio(timings, peer, "ours") * work["ours"] / work[peer] for peer in cases}
    figures = {"timings": timings, "windows": work, "ours_is_faster_by": per_window}
    return figures, table(name, timings, work=work, unit="windows", ours="ours")


def loader(store: Path, pool: HandlePool) -> Loader:
    """A loader over the dates of a cube that do not quite fit into its memory."""
    # The dates share their ground; here each counts in full, as it does for the peers.
    index = build_index(store, DataConfig(overlap="all"), threads=1)
    shapes = shapes_of(index)
    pixels = int((shapes.height * shapes.width * (shapes.pixel_bytes + 1)).sum())
    config = OrderConfig(
        seed=0,
        batch=BATCH,
        chip=CHIP,
        super_window=SUPER,
        chips_per_window=16,
        budget_bytes=pixels - 1,
    )
    settings = LoaderConfig(min_valid=0.5, threads=2, prefetch=2)
    return Loader(Order(shapes, config), TileReader(index, pool), settings)


def epochs(batches: Loader) -> Callable[[], int]:
    """Return what reads the next whole epoch: every super-window is decoded once."""
    steps = batches.order.samples_per_epoch // BATCH
    numbers = itertools.count()

    def epoch() -> int:
        first = next(numbers) * steps
        return sum(len(batch.pixels) for batch in batches.batches(first, first + steps))

    return epoch


def places(shape: tuple[int, ...], count: int) -> list[tuple[int, int, int]]:
    """Random (date, top, left) of windows, the same in every round."""
    random = np.random.default_rng(0)
    limits = [shape[0], shape[2] - CHIP + 1, shape[3] - CHIP + 1]
    return [tuple(int(random.integers(0, n)) for n in limits) for _ in range(count)]


def reading(raster: RasterInfo, pool: HandlePool) -> int:
    """The super-windows of one date, cutting nothing."""
    for top in range(0, raster.grid.height, SUPER):
        for left in range(0, raster.grid.width, SUPER):
            read(pool, raster.path, Window(top, left, SUPER, SUPER), rule=ReadRule())
    return raster.grid.height * raster.grid.width // CHIP**2


def direct(array: zarr.Array, windows: int) -> int:
    """zarr-python alone: random windows from one open array, stacked into a batch."""
    chips = [
        array[date, :, top : top + CHIP, left : left + CHIP]
        for date, top, left in places(array.shape, windows)
    ]
    return len(torch.from_numpy(np.stack(chips)))


def aligned(array: zarr.Array) -> int:
    """zarr-python on the same super-windows, which cannot say what was never written."""
    *_, height, width = array.shape
    for top in range(0, height, SUPER):
        for left in range(0, width, SUPER):
            array[0, :, top : top + SUPER, left : left + SUPER]
    return height * width // CHIP**2


def labelled(store: Path, windows: int) -> int:
    """xarray without dask: the same random windows by ``isel``."""
    with xr.open_zarr(store, consolidated=False, chunks=None) as data:
        cube = data["s2"]
        chips = [
            cube.isel(time=date, y=slice(top, top + CHIP), x=slice(left, left + CHIP)).to_numpy()
            for date, top, left in places(cube.shape, windows)
        ]
    return len(torch.from_numpy(np.stack(chips)))


def limit(array: zarr.Array, store: Path) -> int:
    """Read and decompress every chunk of the first date once; counted in chips of its area."""
    zstd = isinstance(array.compressors[0], ZstdCodec)
    codec = numcodecs.Zstd() if zstd else numcodecs.Blosc()
    *_, height, width = array.shape
    for data in stored_chunks(array, store):
        codec.decode(data)
    return height * width // CHIP**2


def stored_chunks(array: zarr.Array, store: Path):
    """Bytes of every chunk of the first date, from its file or its place in a shard."""
    if array.shards is None:
        nested = array.metadata.zarr_format == 3
        for path in sorted((store / "s2").glob("c/0/*/*/*" if nested else "0.*")):
            yield path.read_bytes()
        return
    inner = int(np.prod(np.divide(array.shards, array.chunks)))
    for path in sorted((store / "s2").glob("c/0/*/*/*")):
        data = path.read_bytes()
        entries = np.frombuffer(data, "<u8", count=2 * inner, offset=len(data) - 16 * inner - 4)
        for start, length in entries.reshape(-1, 2).tolist():
            yield data[start : start + length]


def check(store: Path, rasters: tuple[RasterInfo, ...]) -> None:
    """Every chip of a batch equals what zarr-python reads at the window the batch reports."""
    array = zarr.open_array(store, path="s2", mode="r")
    with HandlePool() as pool, loader(store, pool) as batches:
        batch = next(batches.batches(1))
        for pixels, (tile, window) in zip(batch.pixels.numpy(), batch.source, strict=True):
            np.testing.assert_array_equal(pixels, array[tile, :, *window.slices])
        assert batch.valid is None or bool(batch.valid.all())
    chunks = sum(1 for _ in stored_chunks(array, store))
    assert chunks == 4 * (array.shape[2] // CHUNK) * (array.shape[3] // CHUNK)


def reflectance(size: int) -> np.ndarray:
    """Noise with a falling spectrum, as land has, and straight edges, as fields have."""
    random = np.random.default_rng(4)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1
    base = np.fft.irfft2(np.fft.rfft2(random.normal(size=(size, size))) / frequency, (size, size))
    base = (base - base.mean()) / base.std()
    fields = random.normal(size=(size // 64, size // 64)).repeat(64, 0).repeat(64, 1)
    out = np.empty((2, 4, size, size), dtype=np.uint16)
    for image in out.reshape(-1, size, size):
        grain = random.normal(scale=0.12, size=(size, size))
        mixed = random.uniform(0.6, 1.0) * base + 0.5 * fields + grain
        image[:] = np.clip(2000 + 500 * mixed, 1, 65535).astype(np.uint16)
    return out


def write(store: Path, cube: np.ndarray, options: dict) -> None:
    """Write the cube, one chunk for each date, band and 512 x 512 px."""
    options = dict(options)
    attributes = {}
    if options.get("zarr_format") == 2:
        attributes["_ARRAY_DIMENSIONS"] = list(DIMS)
        options["fill_value"] = None
    else:
        options["dimension_names"] = DIMS
    zarr.open_group(store, mode="w", zarr_format=options.get("zarr_format", 3))
    array = zarr.create_array(
        store,
        name="s2",
        shape=cube.shape,
        dtype=cube.dtype,
        chunks=(1, 1, CHUNK, CHUNK),
        attributes=attributes,
        **options,
    )
    for date, image in enumerate(cube):
        array[date] = image


if __name__ == "__main__":
    main(run)
