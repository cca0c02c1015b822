"""The report's part about the data: where tiles lie, what they hold, how training sees them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Shaped
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely import Geometry
from torch import Tensor

from geodino import seeds
from geodino.data.tiles import Tile, TileIndex, TileReader
from geodino.data.views import MultiCrop
from geodino.errors import SourceError
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool
from geodino.report.content import BandRow, Data, Histogram, Picture, Place, Sample
from geodino.report.words import count, interval, number, percent
from geodino.runs.build import (
    Feed,
    build_course,
    build_order,
    build_planner,
    loader_config,
    resolved_chip,
    whole_batch,
)
from geodino.runs.display import Display
from geodino.runs.recipe import TrainingConfig
from geodino.runs.record import RunFolder

_MOST_FOOTPRINTS = 20_000
_MOST_UNUSABLE = 50
_MOST_BANDS = 24
"""Bands whose histograms are shown."""

_WINDOWS, _SIDE = 24, 512
"""How many windows of how many pixels a side the histograms are of."""

_BINS = 64
_SAMPLES = 5
_LOCALS = 4
"""Local crops shown of a sample."""


def collect_data(
    folder: RunFolder,
    config: TrainingConfig,
    index: TileIndex,
    contract: InputContract,
    facts: dict[str, Any],
) -> Data:
    """Say what a run learnt from; whatever needs tiles that are gone is left out, with a note."""
    histograms, histograms_of = _histograms(config, index, contract)
    try:
        samples, samples_of = _samples(config, index, contract)
    except SourceError as error:
        samples, samples_of = (), f"No samples: {error}"
    return Data(
        facts=tuple(_facts(folder, index, contract, facts)),
        place=_place(index),
        bands=_bands(contract),
        histograms=histograms,
        histograms_of=histograms_of,
        samples=samples,
        samples_of=samples_of,
        decisions=tuple(facts["data"]["decisions"]),
        unusable=tuple(index.bad[:_MOST_UNUSABLE]),
    )


def _facts(
    folder: RunFolder, index: TileIndex, contract: InputContract, facts: dict[str, Any]
) -> list[tuple[str, str]]:
    sides = [side for tile in index.tiles for side in (tile.height, tile.width)]
    edges = interval(f"{min(sides):,}", f"{max(sides):,}")
    systems = Counter(_crs_name(tile.grid.crs) for tile in index.tiles)
    found = contract.statistics
    pairs = [
        ("source", facts["source"]),
        (
            "tiles",
            f"{len(index.tiles):,} with {index.pixels:,} pixels, {index.dtype}; sides of {edges} px",
        ),
        ("CRS", "; ".join(f"{name} ({count(n, 'tile')})" for name, n in systems.most_common(8))),
        ("GSD", _gsds(index)),
        ("dates", _dates(folder.tiles)),
        ("valid", _valid(index, contract)),
        ("masked by", f"{contract.nodata}; a pixel counts where {contract.valid} of its bands do"),
    ]
    seen, of = found.get("pixels_read"), found.get("of_pixels")
    if seen and of:
        pairs.append(
            ("statistics", "of all pixels" if seen == of else f"of {seen:,} of {of:,} pixels")
        )
    return pairs


def _crs_name(crs: str | None) -> str:
    if crs is None:
        return "none"
    if len(crs) < 32:
        return crs
    try:
        return str(CRS.from_user_input(crs).name)
    except CRSError:
        return crs[:32]


def _gsds(index: TileIndex) -> str:
    steps = [tile.gsd_m for tile in index.tiles if tile.gsd_m is not None]
    if not steps:
        return "not known: no tile has a place on the Earth"
    x, y = (interval(number(min(axis)), number(max(axis))) for axis in zip(*steps, strict=True))
    return f"{x} m along columns, {y} m along rows (geodesic, at the middle of each tile)"


def _dates(tiles: Path) -> str:
    if "datetime" not in pq.read_schema(tiles).names:
        return "not recorded"
    dates = pq.read_table(tiles, columns=["datetime"])["datetime"].to_pylist()
    known = sorted(str(date) for date in dates if date is not None)
    if not known:
        return "not known for any tile"
    of = "" if len(known) == len(dates) else f" ({len(known):,} of {len(dates):,} tiles say)"
    return interval(known[0], known[-1]) + of


def _valid(index: TileIndex, contract: InputContract) -> str:
    found = contract.statistics
    if "valid_all" not in found:
        return "not measured"
    every, some = percent(found["valid_all"]), percent(found["valid_any"])
    text = f"{every} of the pixels" + ("" if every == some else f" in all bands, {some} in any")
    shares = [t.valid_share for t in index.tiles if t.valid_share is not None]
    if shares and min(shares) < max(shares):
        text += f"; by tile {percent(min(shares))} to {percent(max(shares))}"
    return text


def _place(index: TileIndex) -> Place:
    tiles = index.tiles
    every = -(-len(tiles) // _MOST_FOOTPRINTS)
    outlines, placed = [], 0
    for tile in tiles[::every]:
        footprint = tile.grid.footprint_wgs84()
        if footprint is not None:
            placed += 1
            outlines += _rings(footprint)
    without = len(tiles[::every]) - placed
    return Place(outlines=tuple(outlines), tiles=placed, without=without, every=every)


def _rings(footprint: Geometry) -> list[Float[np.ndarray, "n 2"]]:
    parts = getattr(footprint, "geoms", [footprint])
    return [np.asarray(part.exterior.coords, dtype=np.float64)[:, :2] for part in parts]


def _bands(contract: InputContract) -> tuple[BandRow, ...]:
    shares: Sequence[float | None] = contract.statistics.get("valid_share") or [None] * len(
        contract.bands
    )
    return tuple(
        BandRow(
            name=band.name,
            meaning=_meaning(band),
            mean=contract.mean[i],
            std=contract.std[i],
            low=contract.low[i],
            high=contract.high[i],
            valid_share=shares[i],
        )
        for i, band in enumerate(contract.bands)
    )


def _meaning(band: Band) -> str:
    parts = [
        *([band.common_name] if band.common_name else []),
        *([f"{band.wavelength_nm:g} nm"] if band.wavelength_nm else []),
        *([band.unit] if band.unit != "unknown" else []),
    ]
    if (band.scale, band.offset) != (1.0, 0.0):
        parts.append(f"stored × {band.scale:g} + {band.offset:g}")
    return ", ".join(parts)


def _histograms(
    config: TrainingConfig, index: TileIndex, contract: InputContract
) -> tuple[tuple[Histogram, ...], str]:
    """Count values in a seeded choice of windows, over pixels that are valid in all bands."""
    edges = [_edges(index.dtype, low, high) for low, high in _limits(contract)]
    counts = np.zeros((len(edges), _BINS), dtype=np.int64)
    seen, windows, failed = 0, 0, []
    with HandlePool(config.data.max_open) as pool:
        read = TileReader(index, pool)
        for tile, window in _chosen_windows(config, index):
            try:
                pixels, valid = read(tile, window)
            except SourceError as error:
                failed.append(str(error))
                continue
            windows += 1
            seen += int(np.count_nonzero(valid))
            for band, of_band in enumerate(edges):
                counts[band] += np.histogram(pixels[band][valid], bins=of_band)[0]
    text = _what_was_counted(seen, windows, failed, bands=len(contract.bands))
    if not seen:
        return (), text
    return tuple(
        Histogram(
            band=band.name,
            edges=edges[i],
            counts=counts[i],
            beyond=1.0 - int(counts[i].sum()) / seen,
            mean=contract.mean[i],
        )
        for i, band in enumerate(contract.bands[:_MOST_BANDS])
    ), text


def _what_was_counted(seen: int, windows: int, failed: list[str], *, bands: int) -> str:
    if not seen:
        why = failed[0] if failed else "none of the pixels looked at is valid in all bands."
        return f"No histograms: {why}"
    text = (
        f"Values of {seen:,} valid pixels in {count(windows, 'window')} of up to {_SIDE} x {_SIDE} "
        "px, drawn with the run's seed. The line is the mean of the source."
    )
    if failed:
        text += f" {count(len(failed), 'window')} could not be read: {failed[0]}"
    if bands > _MOST_BANDS:
        text += f" The first {_MOST_BANDS} of {bands} bands."
    return text


def _limits(contract: InputContract) -> list[tuple[float, float]]:
    return list(zip(contract.low, contract.high, strict=True))[:_MOST_BANDS]


def _edges(dtype: str, low: float, high: float) -> Float[np.ndarray, " n1"]:
    """Bins over what is black to white, and a fifth more on both sides for other than bytes."""
    margin = 0.0 if dtype == "uint8" else 0.2 * max(high - low, 1e-6)
    if dtype == "uint8":
        high += 1.0  # the last bin holds 255
    return np.linspace(low - margin, high + margin, _BINS + 1)


def _chosen_windows(config: TrainingConfig, index: TileIndex) -> list[tuple[int, Window]]:
    tiles = len(index.tiles)
    key = (config.train.seed, "report", "histograms")
    chosen = np.arange(tiles)
    if tiles > _WINDOWS:
        chosen = np.sort(seeds.permuted(np.arange(_WINDOWS), tiles, *key))
    rng = seeds.rng(*key)
    out = []
    for tile in chosen.tolist():
        of = index.tiles[tile]
        height, width = min(of.height, _SIDE), min(of.width, _SIDE)
        top, left = (int(rng.integers(n)) for n in (of.height - height + 1, of.width - width + 1))
        out.append((tile, Window(top, left, height, width)))
    return out


def _samples(
    config: TrainingConfig, index: TileIndex, contract: InputContract
) -> tuple[tuple[Sample, ...], str]:
    """Make the first crops of the first step again, exactly as training made them."""
    batch = whole_batch(config)
    feed = Feed(
        config,
        contract,
        index,
        order=build_order(
            config, index, seed=config.train.seed, batch=batch, chip=resolved_chip(config)
        ),
        loader=replace(loader_config(config), prefetch=1),
        rank=0,
        world=batch // config.train.group,  # one group of samples, not all of them
        plan_of=build_planner(config, contract, build_course(config).phase(0)),
    )
    try:
        made = next(feed.batches(0))
    finally:
        feed.close()
    settings = config.phases.first.views
    crop = MultiCrop(settings, contract)
    views, display = crop(made.pixels, made.valid, made.plan.views), Display.of(contract)
    rows, complete = len(made.pixels), made.plan.views.complete
    few = min(rows, _SAMPLES)

    def shown(crops: Tensor, place: int, sample: int, name: str) -> Picture:
        one = crops[place * rows + sample].numpy()
        # What is 0 in all bands of a chip with gaps is a gap.
        valid = (one != 0).any(axis=0) | bool(complete[sample])
        return display.normalised(
            one, valid, alt=f"{name} crop", caption=f"{name} {one.shape[-1]} px"
        )

    samples = tuple(
        Sample(
            chip=_chip(
                made.pixels[i].numpy(), made.valid[i].numpy(), display, index, made.source[i]
            ),
            crops=(
                *(shown(views.globals, k, i, "global") for k in range(2)),
                *(
                    shown(views.locals, k, i, "local")
                    for k in range(min(settings.local_count, _LOCALS))
                ),
            ),
        )
        for i in (k * rows // few for k in range(few))
    )
    return samples, (
        f"Chips of the first step and their crops: {crop.describe()} {display.text} "
        "Hatched: invalid pixels, which the model sees as the mean of their band."
    )


def _chip(
    pixels: Shaped[np.ndarray, "c h w"],
    valid: Bool[np.ndarray, "h w"],
    display: Display,
    index: TileIndex,
    source: tuple[int, Window],
) -> Picture:
    tile, window = index.tiles[source[0]], source[1]
    return display.stored(
        pixels, valid, alt=f"Chip of {Path(tile.path).name}", caption=caption_of(tile, window)
    )


def caption_of(tile: Tile, window: Window) -> str:
    """Say where a chip was cut."""
    return f"{Path(tile.path).name}, row {window.top:,}, column {window.left:,}"
