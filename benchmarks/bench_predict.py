"""Maps of large rasters: ours, terratorch's tiled inference, and a plain loop.

First stitching alone, between arrays in memory, with a model that returns the first band. Then end
to end: a tiled RGB raster on disk becomes a map on disk, chips of 256 pixels with 64 in common, once
with that model (all that is measured is what surrounds a model) and once with ViT-S/16. Ours streams and ends in a COG. terratorch (its module alone is loaded) holds the raster
and the map in memory, and the plain loop too, which averages by a count of chips; both write a
tiled GeoTIFF that GDAL's COG driver copies, terratorch once more without that copy, hence without
overviews and statistics. Limits: reading alone, writing the COG alone, the model alone on as many
chips. One thread computes, one reads and one compresses. With ``--memory`` each case also runs in a
process of its own that tells its peak.
"""

import argparse
import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
import torch
from _harness import Timing, interleave, main, ratio, table
from _terratorch import ABSENT, terratorch
from affine import Affine
from rasterio.windows import Window as GdalWindow

from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.geo.grid import Grid
from geodino.geo.validity import ReadRule
from geodino.geo.windows import Window
from geodino.infer.chips import Pixels, Raster
from geodino.infer.cover import Cover
from geodino.infer.engine import Predictor, predicted
from geodino.infer.heights import HeightPredictor, HeightProduct
from geodino.infer.render import Rendering
from geodino.io.cog.assemble import assemble
from geodino.io.cog.layout import Layout
from geodino.io.cog.parts import PartsWriter
from geodino.io.raster import HandlePool, read
from geodino.models.build import build_backbone
from geodino.models.canopy import CanopyConfig, build_canopy
from geodino.models.decoders.bins import BinsConfig
from geodino.models.decoders.linear import LinearHeadConfig
from geodino.models.sizes import ModelConfig
from geodino.runs.mapping.memory import used_memory

CHIP, OVERLAP, BATCH = 256, 64, 4
STEP = CHIP - OVERLAP
CPU = torch.device("cpu")
GEOTIFF = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512}
GEOTIFF |= {"compress": "zstd", "zstd_level": 1, "num_threads": 1}
RULE = ReadRule(alpha="band", nodata="ignore")


class FirstBand:
    """A model that costs next to nothing."""

    channels, stride, align, device = 1, 1, 16, CPU

    def __call__(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return pixels[:, :1].float()


class InMemory:
    """A raster that is there already, with what chips need beyond its edge."""

    def __init__(self, pixels: np.ndarray, needed: Window) -> None:
        self._pixels = np.zeros((len(pixels), needed.height, needed.width), dtype=pixels.dtype)
        self._valid = np.zeros((needed.height, needed.width), dtype=bool)
        rows, columns = slice(0, pixels.shape[1]), slice(0, pixels.shape[2])
        self._pixels[:, rows, columns], self._valid[rows, columns] = pixels, True

    def pixels(self, top: int, stop: int) -> Pixels:
        return self._pixels[:, top:stop], self._valid[top:stop]

    def used_columns(self, top: int, stop: int) -> np.ndarray:
        return self._valid[top]


def run(rounds: int = 5, small: bool = False, *, memory: bool = False) -> dict:
    """Compare both models; ``small`` takes a raster of 600 pixels a side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result: dict = {"tables": [], "cases": {}}
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures, text = stitching(600 if small else 4096, rounds)
            result["cases"]["stitching"], result["tables"] = figures, [text]
            cases = [("first band", 4096), ("vit_small_patch16_dinov3", 1024)]
            for model, side in [("first band", 600), ("vit_nano", 600)] if small else cases:
                path = made(Path(folder) / "scene.tif", side)
                figures, text = compare(model, path, rounds)
                if memory:
                    figures["peak_bytes"] = found = peaks(model, path)
                    told = (f"{name} {peak / 2**20:,.0f} MiB" for name, peak in found.items())
                    text += "\nmost memory held: " + ", ".join(told)
                result["cases"][model], result["tables"] = figures, [*result["tables"], text]
    finally:
        torch.set_num_threads(threads)
    return result


def stitching(side: int, rounds: int) -> tuple[dict, str]:
    """Interleave ours and terratorch's between arrays; every value must come back."""
    grid = Grid("EPSG:32632", Affine.scale(0.6), side, side)
    predictor, cover, whole = FirstBand(), cover_of(grid), Window(0, 0, side, side)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (3, side, side), dtype=np.uint8)
    source = InMemory(pixels, cover.needed(whole))
    made = np.empty((1, side, side), dtype=np.float32)

    def by_ours() -> np.ndarray:
        for strip in predicted(source, predictor, cover, whole):
            assert strip.values is not None
            made[:, strip.top : strip.top + strip.height] = strip.values
        return made

    cases = {"ours": by_ours}
    tiled = terratorch()
    if tiled is not None:
        cases["terratorch"] = lambda: stitched_by(tiled.tiled_inference, predictor, pixels)
    for name, case in cases.items():
        np.testing.assert_allclose(case()[0], pixels[0], rtol=1e-5, err_msg=name)
    timings = interleave(cases, rounds, warm_up=False)
    text = table(
        f"stitching alone, {side} px a side", timings, work=pixels[0].size / 1e6, unit="Mpx",
        ours="ours",
    )  # fmt: skip
    faster = {name: ratio(timings, name, "ours") for name in cases if name != "ours"}
    return {"timings": timings, "ours_is_faster_by": faster}, text


def compare(model: str, path: Path, rounds: int) -> tuple[dict, str]:
    """Interleave, after checking that every map is right."""
    predictor = model_of(model)
    cases, limits = cases_of(predictor, path), limits_of(predictor, path)
    for name, case in cases.items():
        check(name, case(), path, predictor)
    timings = interleave({**cases, **limits}, rounds, warm_up=False)
    with rasterio.open(path) as source:
        size = source.width * source.height / 1e6
        title = f"{model}, {source.width} px a side"
    faster = {name: ratio(timings, name, "ours") for name in cases if name != "ours"}
    share = sum(ratio(timings, name, "ours") for name in limits)
    text = table(title, timings, work=size, unit="Mpx", ours="ours")
    text += f"\nthe limits together are {share:.2f} of ours"
    text += "" if "terratorch" in cases else f"\n{ABSENT}"
    figures: dict[str, dict[str, Timing] | dict[str, float] | float] = {
        "timings": timings,
        "ours_is_faster_by": faster,
        "share_of_limits": share,
    }
    return figures, text


def cases_of(predictor: Predictor, path: Path) -> dict[str, Callable[[], Path]]:
    """Return ways to make the map of a raster."""
    cases = {"ours": lambda: ours(predictor, path), "plain loop": lambda: plain(predictor, path)}
    tiled = terratorch()
    if tiled is not None:
        by_it = functools.partial(by_terratorch, tiled.tiled_inference, predictor, path)
        cases["terratorch"] = lambda: cog_of(by_it(), "terratorch_cog.tif")
        cases["terratorch, no COG"] = by_it
    return cases


def limits_of(predictor: Predictor, path: Path) -> dict[str, Callable[[], object]]:
    """Return what any way must do at least."""
    with rasterio.open(path) as source:
        grid = Grid(source.crs.to_string(), source.transform, source.width, source.height)
        heights = source.read(1).astype(np.float32)[None]
    return {
        "limit: reading": lambda: read_all(path),
        "limit: writing the COG": lambda: write_cog(path.with_name("limit.tif"), heights, grid),
        "limit: the model": lambda: compute(predictor, grid),
    }


def check(name: str, made: Path, path: Path, predictor: Predictor) -> None:
    """Every pixel of the first band comes back; a ViT's where one chip alone counts."""
    with rasterio.open(made) as found, rasterio.open(path) as source:
        assert found.transform == source.transform, name
        if isinstance(predictor, FirstBand):
            np.testing.assert_allclose(found.read(1), source.read(1), rtol=1e-5, err_msg=name)
            return
        chip = torch.from_numpy(source.read(window=GdalWindow(0, 0, CHIP, CHIP)))[None]
        expected = predictor(chip, torch.ones((1, CHIP, CHIP), dtype=torch.bool))[0, 0].numpy()
        middle = slice(OVERLAP, STEP), slice(OVERLAP, STEP)
        heights = found.read(1)[middle]
        np.testing.assert_allclose(heights, expected[middle], rtol=1e-3, atol=1e-3, err_msg=name)


def ours(predictor: Predictor, path: Path) -> Path:
    """The engine and the writer, as ``geodino predict`` drives them."""
    out, product = path.with_name("ours.tif"), HeightProduct()
    with rasterio.open(path) as source:
        grid = Grid(source.crs.to_string(), source.transform, source.width, source.height)
    layout = Layout.plan(grid, product.layers)
    with HandlePool() as pool, ThreadPoolExecutor(1) as threads:

        def pixels(window: Window) -> Pixels:
            values, valid = read(pool, path, window, rule=RULE)
            return values, valid[0]

        job = Rendering(
            raster=Raster(name="scene", grid=grid, read=pixels, block=(512, 512)),
            predictor=predictor,
            product=product,
            cover=cover_of(grid),
            layout=layout,
        )
        folder = fresh(out)
        with PartsWriter(folder, layout=layout, layers=product.layers, key={}, threads=1) as parts:
            every = range(len(layout))
            job.run(parts, every, threads=threads, advance=lambda done: None, facts={})
    assemble(folder, out, product.layers[0], layout=layout, threads=1)
    return out


def plain(predictor: Predictor, path: Path) -> Path:
    """All chips one after the other, summed and counted in memory; then GDAL's COG driver."""
    with rasterio.open(path) as source:
        pixels, profile = torch.from_numpy(source.read()), source.profile
    height, width = pixels.shape[1:]
    total, count = torch.zeros(height, width), torch.zeros(height, width)
    places = [(top, left) for top in starts(height) for left in starts(width)]
    valid = torch.ones((BATCH, CHIP, CHIP), dtype=torch.bool)
    for first in range(0, len(places), BATCH):
        batch = places[first : first + BATCH]
        chips = torch.stack([pixels[:, y : y + CHIP, x : x + CHIP] for y, x in batch])
        for (y, x), values in zip(batch, predictor(chips, valid[: len(batch)]), strict=True):
            total[y : y + CHIP, x : x + CHIP] += values[0]
            count[y : y + CHIP, x : x + CHIP] += 1
    rows = path.with_name("rows.tif")
    write_rows(rows, (total / count).numpy(), profile)
    return cog_of(rows, "plain.tif")


def cog_of(rows: Path, name: str) -> Path:
    """Copy a GeoTIFF with GDAL's COG driver, compressed as ours."""
    out = rows.with_name(name)
    options = {"compress": "zstd", "level": 1, "predictor": "YES", "num_threads": 1}
    rasterio.shutil.copy(rows, out, driver="COG", blocksize=512, statistics="YES", **options)
    return out


def by_terratorch(tiled_inference: Callable, predictor: Predictor, path: Path) -> Path:
    """Its function as it is, of the whole raster; without its padding, which costs it more."""
    with rasterio.open(path) as source:
        pixels, profile = source.read(), source.profile
    out = path.with_name("terratorch.tif")
    write_rows(out, stitched_by(tiled_inference, predictor, pixels)[0], profile)
    return out


def stitched_by(tiled_inference: Callable, predictor: Predictor, pixels: np.ndarray) -> np.ndarray:
    """All of an array by terratorch's function."""
    valid = torch.ones((BATCH, CHIP, CHIP), dtype=torch.bool)
    values = tiled_inference(
        lambda chips: predictor(chips, valid[: len(chips)]),
        torch.from_numpy(pixels)[None],
        crop=CHIP,
        stride=STEP,
        delta=0,
        padding=False,
        batch_size=BATCH,
        device="cpu",
    )
    return values[0].numpy()


def read_all(path: Path) -> None:
    """Every block once, rows of blocks at a time."""
    with rasterio.open(path) as source:
        for top in range(0, source.height, 512):
            source.read(window=GdalWindow(0, top, source.width, min(512, source.height - top)))


def write_cog(out: Path, heights: np.ndarray, grid: Grid) -> None:
    """Our writer, from a map in memory."""
    layers = HeightProduct().layers
    layout, folder = Layout.plan(grid, layers), fresh(out)
    with PartsWriter(folder, layout=layout, layers=layers, key={}, threads=1) as writer:
        for number in range(len(layout)):
            supertile = writer.open_supertile(number)
            for row in range(layout.block_rows(number)):
                rows, columns = layout.block_window(number, row).slices
                supertile.write(row, {"height": heights[:, rows, columns]})
            supertile.commit("")
    assemble(folder, out, layers[0], layout=layout, threads=1)


def compute(predictor: Predictor, grid: Grid) -> None:
    """The model on the batches that ours computes."""
    cover = cover_of(grid)
    size = cover.group, 3, cover.rows.side, cover.columns.side
    chips = torch.full(size, 100, dtype=torch.uint8)
    valid = torch.ones((cover.group, *size[2:]), dtype=torch.bool)
    for _ in range(cover.rows.count):
        for group in cover.groups(range(cover.columns.count)):
            many = len(cover.members(group))
            predictor(chips[:many], valid[:many])


def cover_of(grid: Grid) -> Cover:
    return Cover.of(
        grid.height, grid.width, chip=CHIP, overlap=OVERLAP, align=16, group=BATCH
    )  # fmt: skip


def starts(length: int) -> list[int]:
    """First pixels of chips along an axis; the last chip ends with the raster."""
    return [*range(0, length - CHIP, STEP), length - CHIP]


def fresh(out: Path) -> Path:
    """Return an empty folder of parts for a map."""
    folder = out.with_name(f"{out.name}.parts")
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def write_rows(path: Path, values: np.ndarray, profile: dict) -> None:
    """A tiled GeoTIFF of one band."""
    place = {name: profile[name] for name in ("crs", "transform", "width", "height")}
    kind = {"count": 1, "dtype": "float32", "nodata": float("nan"), "predictor": 3}
    with rasterio.open(path, "w", **GEOTIFF, **place, **kind) as target:
        target.write(values, 1)


def model_of(name: str) -> Predictor:
    """Return the model that costs nothing, or a canopy model with drawn weights."""
    if name == "first band":
        return FirstBand()
    bands = tuple(Band(name=colour, common_name=colour) for colour in ("red", "green", "blue"))
    contract = InputContract(
        bands=bands, dtype="uint8", mean=(110.0,) * 3, std=(60.0,) * 3, low=(0.0,) * 3,
        high=(255.0,) * 3, gsd_m=(0.5, 0.7),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    backbone = build_backbone(ModelConfig(name=name), contract, generator=generator)
    config = CanopyConfig(head=LinearHeadConfig(), bins=BinsConfig(count=16))
    return HeightPredictor(build_canopy(backbone, config, generator=generator), device=CPU)


def made(path: Path, side: int) -> Path:
    """Write an RGB raster that compresses as aerial images do, by about a third."""
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.uniform(20, 200, (1, 3, side // 8 + 1, side // 8 + 1)))
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")[0].numpy()
    pixels = np.clip(smooth + random.normal(0, 4, (1, side, side)), 1, 255).astype(np.uint8)
    size = {"width": side, "height": side, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": Affine(0.6, 0, 500_000, 0, -0.6, 5_400_000)}
    with rasterio.open(
        path, "w", **GEOTIFF, **size, **place, interleave="pixel", photometric="RGB"
    ) as target:
        target.write(pixels)
    return path


def peaks(model: str, path: Path) -> dict[str, int]:
    """Run every case in a process of its own; return the most bytes each held."""
    found = {}
    for name in ("nothing", *cases_of(model_of(model), path)):
        command = [sys.executable, __file__, "--case", model, name, str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = int(done.stdout)
    return found


def tell_peak(model: str, name: str, path: str) -> None:
    """Run one case and print the most bytes this process held."""
    torch.set_num_threads(1)
    cases = cases_of(model_of(model), Path(path))
    if name in cases:
        cases[name]()
    print(used_memory())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--case", nargs=3)
    options, rest = parser.parse_known_args()
    if options.case:
        tell_peak(*options.case)
    else:
        main(functools.partial(run, memory=options.memory), rest)
