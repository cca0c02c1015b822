"""Windows a second from COGs behind a network: ours, rasterio, torchgeo, and what the link allows.

A server on this machine answers after 50 ms and sends 125 MB/s (1 Gb/s) over all connections
together. Every case delivers windows of 256 x 256 px, in batches, from four addresses of one COG,
and every round has addresses of its own, so that nothing is cached from the round before. Ours
reads runs of blocks with 16 threads and cuts 16 chips from each; rasterio and torchgeo read random
windows, with the settings that GDAL recommends for COGs in a cloud. Here wall time counts: the
work is waiting.
"""

import itertools
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
import torch
from _harness import Timing, interleave, main
from bench_loader import mosaic, write
from rasterio.windows import Window as GdalWindow
from torch.utils.data import DataLoader

import geodino  # noqa: F401  (torchgeo imports torchvision, which the hook mends)
from geodino.data.cuts import Shapes
from geodino.data.loader import Loader, LoaderConfig
from geodino.data.order import Order, OrderConfig
from geodino.data.parallel import FAR_THREADS
from geodino.geo.validity import ReadRule, combine
from geodino.io.raster import HandlePool, describe, read

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support_http import FarServer, Log

CHIP, SUPER, CHIPS, BATCH = 256, 1024, 16, 32
ADDRESSES = 4
LATENCY_S, BYTES_PER_S = 0.05, 125e6
RECOMMENDED = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_VERSION": "2",
    "VSI_CACHE": "TRUE",
    "GDAL_CACHEMAX": 200,
}
FILES: dict[str, dict] = {
    "uint8 deflate 512": {"bands": 3, "blocksize": 512, "compress": "DEFLATE"},
    "uint8 deflate 256": {"bands": 3, "blocksize": 256, "compress": "DEFLATE"},
    "uint16x4 zstd 512": {"bands": 4, "blocksize": 512, "compress": "ZSTD"},
}

_fresh = itertools.count()


def run(rounds: int = 5, small: bool = False) -> dict:
    """Compare on all files; ``small`` takes one, smaller, over a shorter way."""
    names = ["uint8 deflate 256"] if small else list(FILES)
    size = 2 * SUPER if small else 4096
    result: dict = {"tables": [], "files": {}}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        pictures = {bands: mosaic(size, bands) for bands in {FILES[n]["bands"] for n in names}}
        latency_s = 0.005 if small else LATENCY_S
        with FarServer(Path(folder), latency_s=latency_s, bytes_per_s=BYTES_PER_S) as server:
            for name in names:
                path = Path(folder, name.replace(" ", "_") + ".tif")
                write_cog(path, pictures[FILES[name]["bands"]], FILES[name])
                figures, text = compare(
                    name, path, server, rounds, latency_s, peer_windows=4 if small else 2 * BATCH
                )
                result["files"][name] = figures
                result["tables"].append(text)
                path.unlink()
    return result


def compare(
    name: str, path: Path, server: FarServer, rounds: int, latency_s: float, *, peer_windows: int
) -> tuple[dict, str]:
    """Interleave the readers of one file; first check that ours reads what lies on the disk."""
    check(path, server)
    cases: dict[str, Callable[[], int]] = {
        "ours": lambda: ours(path, server),
        "rasterio random": lambda: raw(path, server, peer_windows),
        "torchgeo": lambda: torchgeo_windows(path, server, peer_windows),
    }
    work: dict[str, int] = {}
    logs: dict[str, Log] = {}

    def logged(case: str) -> Callable[[], None]:
        def once() -> None:
            server.forget()
            work[case] = cases[case]()
            logs[case] = server.log()

        return once

    timings = interleave({case: logged(case) for case in cases}, rounds)
    figures = {case: _figures(timings[case], work[case], logs[case], latency_s) for case in cases}
    figures["ours"]["gets_per_super_window"] = figures["ours"]["gets"] * CHIPS / work["ours"]
    return figures, _table(f"{name}, {latency_s * 1000:.0f} ms", figures)


def _figures(timing: Timing, windows: int, log: Log, latency_s: float) -> dict:
    """What a case did a second, and the least time its requests take on this link."""
    gets = log.count("GET")
    waits = (gets + log.count("HEAD")) * latency_s / max(log.most_in_flight, 1)
    return {
        "windows_per_s": windows / timing.wall_s,
        "wall_s": timing.wall_s,
        "cpu_s": timing.cpu_s,
        "windows": windows,
        "gets": gets,
        "bytes_per_window": log.sent / windows,
        "in_flight": log.most_in_flight,
        "limit_s": max(log.sent / BYTES_PER_S, waits),
    }


def _table(title: str, figures: dict[str, dict]) -> str:
    rows = [
        ("case", "windows/s", "ours is faster by", "GETs/window", "kB/window", "in flight",
         "of the link's limit", "CPU-ms/window"),
    ]  # fmt: skip
    for name, f in figures.items():
        gain = figures["ours"]["windows_per_s"] / f["windows_per_s"]
        rows.append(
            (
                name,
                f"{f['windows_per_s']:,.1f}",
                f"{gain:.1f} x",
                f"{f['gets'] / f['windows']:.2f}",
                f"{f['bytes_per_window'] / 1000:,.0f}",
                f"{f['in_flight']}",
                f"{f['limit_s'] / f['wall_s']:.0%}",
                f"{1000 * f['cpu_s'] / f['windows']:.1f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    per = figures["ours"]["gets_per_super_window"]
    return "\n".join([title, *lines, f"ours: {per:.2f} GETs a super-window, headers included"])


def urls(path: Path, server: FarServer, count: int = ADDRESSES) -> list[str]:
    """Addresses of the file that nothing has been read from."""
    return [server.url(f"~{next(_fresh)}/{path.name}") for _ in range(count)]


def loader(path: Path, addresses: list[str], pool: HandlePool) -> Loader:
    """A training loader over the file at all addresses, none of it kept in memory."""
    info = describe(path)
    ones = np.ones(len(addresses), dtype=np.int64)
    shapes = Shapes(
        height=ones * info.grid.height,
        width=ones * info.grid.width,
        block_height=ones * info.block[0],
        block_width=ones * info.block[1],
        pixel_bytes=ones * info.count * np.dtype(info.dtype).itemsize,
        weight=np.ones(len(addresses)),
        far=ones > 0,
    )
    area = info.grid.height * info.grid.width * len(addresses)
    config = OrderConfig(
        seed=0,
        batch=BATCH,
        chip=CHIP,
        super_window=SUPER,
        chips_per_window=CHIPS,
        budget_bytes=int(area * (shapes.pixel_bytes[0] + 1)) - 1,
    )
    rule = ReadRule()

    def read_window(tile, window):
        pixels, valid = read(pool, addresses[tile], window, rule=rule)
        return pixels, combine(valid, "all")

    settings = LoaderConfig(min_valid=0.5, threads=FAR_THREADS, prefetch=8)
    return Loader(Order(shapes, config), read_window, settings)


def ours(path: Path, server: FarServer) -> int:
    """An epoch: every super-window of all addresses once."""
    with HandlePool() as pool, loader(path, urls(path, server), pool) as batches:
        steps = batches.order.samples_per_epoch // BATCH
        return sum(len(batch.pixels) for batch in batches.batches(0, steps))


def raw(path: Path, server: FarServer, windows: int) -> int:
    """rasterio: random windows from one open file, stacked into a batch."""
    random = np.random.default_rng(0)
    with rasterio.Env(**RECOMMENDED), rasterio.open(urls(path, server, 1)[0]) as file:
        chips = []
        for _ in range(windows):
            top, left = (int(random.integers(0, n - CHIP + 1)) for n in file.shape)
            chips.append(file.read(window=GdalWindow(left, top, CHIP, CHIP)))
    return len(torch.from_numpy(np.stack(chips)))


def torchgeo_windows(path: Path, server: FarServer, windows: int) -> int:
    """torchgeo's own way: RasterDataset, RandomGeoSampler, stack_samples."""
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import RandomGeoSampler

    class Mosaic(RasterDataset):
        filename_glob = path.name
        is_image = True

    with rasterio.Env(**RECOMMENDED):
        dataset = Mosaic(urls(path, server, 1))
        sampler = RandomGeoSampler(dataset, size=CHIP, length=windows)
        batches = DataLoader(
            dataset, batch_size=BATCH, sampler=sampler, collate_fn=stack_samples, num_workers=0
        )
        return sum(len(batch["image"]) for batch in batches)


def check(path: Path, server: FarServer) -> None:
    """Every chip of a batch equals what rasterio reads from the disk."""
    with (
        HandlePool() as pool,
        loader(path, urls(path, server), pool) as batches,
        rasterio.open(path) as file,
    ):
        batch = next(batches.batches(1))
        for pixels, (_, w) in zip(batch.pixels.numpy(), batch.source, strict=True):
            window = GdalWindow(w.left, w.top, w.width, w.height)
            np.testing.assert_array_equal(pixels, file.read(window=window))


def write_cog(path: Path, picture: np.ndarray, options: dict) -> None:
    """Write the mosaic as GDAL's COG driver does, overviews included."""
    plain = path.with_suffix(".plain.tif")
    write(plain, picture, {"blockxsize": options["blocksize"]})
    made = {k: v for k, v in options.items() if k != "bands"}
    rasterio.shutil.copy(plain, path, driver="COG", predictor="YES", **made)
    plain.unlink()


if __name__ == "__main__":
    main(run)
