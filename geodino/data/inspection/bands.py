"""The bands of a kind: what is declared about them, and what their numbers are like."""

import math

import numpy as np
from numpy.typing import NDArray

from geodino.data.config import DataConfig
from geodino.data.inspection.found import BandFacts, BandValues, Histogram, Sampled
from geodino.data.inspection.kinds import Readable
from geodino.data.inspection.pixels import Values
from geodino.data.statistics import PERCENTILES
from geodino.geo.bands import Band
from geodino.io.raster import RasterInfo
from geodino.metrics.moments import ValueCounts

BINS = 64
"""Bins of a histogram at most."""

EMPTY = 0.05
"""A tile is nearly empty if at most this share of its pixels is valid."""

_PILE = 1e-3
_LEAST = 64
_STEEP = 8.0
"""Values are saturated where at least this share of them and this many have the largest one, and
that many times more than have the values just below."""

_BELOW = 16
"""How many values just below the largest one it is compared with."""

_CLASSES = 32
"""Up to so many different values are rather classes than measurements."""

_ENOUGH = 1000
"""Values a band must have before anything is said about what they look like."""

_TAILS = (0.005, 0.995)
_FINE = np.linspace(0.0, 1.0, 2001)


def band_facts(kind: Readable, values: Values | None, config: DataConfig) -> tuple[BandFacts, ...]:
    """Describe every band of a kind; those that were not read have no figures."""
    measured = {} if values is None else _measured(values)
    return tuple(
        BandFacts(
            name=band.name,
            named_by=by,
            common_name=band.common_name,
            wavelength_nm=band.wavelength_nm,
            unit=band.unit,
            scale=band.scale,
            offset=band.offset,
            values=measured.get(place),
        )
        for place, (band, by) in enumerate(
            zip(kind.index.bands, _named_by(kind, config), strict=True)
        )
    )


def sampled(kind: Readable, values: Values, config: DataConfig) -> Sampled:
    """Say how much was read, and how much of it is valid."""
    shares = values.valid / max(values.pixels_read, 1)
    tiles = kind.index.tiles
    return Sampled(
        pixels_read=values.pixels_read,
        pixels_of=kind.index.pixels,
        seed=config.statistics.seed,
        tiles_read=sum(share is not None for share in values.tile_shares),
        valid_all=float(shares[-2]),
        valid_any=float(shares[-1]),
        nearly_empty=tuple(
            tile.path
            for tile, share in zip(tiles, values.tile_shares, strict=True)
            if share is not None and share <= EMPTY
        ),
        bands_read=len(values.positions),
    )


def observations(kind: Readable, values: Values) -> tuple[str, ...]:
    """Say what the numbers look like. Nothing follows from it: units are declared."""
    if values.moments.count.max(initial=0) < _ENOUGH:
        return ()
    low, high = float(values.moments.low.min()), float(values.moments.high.max())
    p1, p99 = values.counts.quantiles(0.01, 0.99)
    p1, p99 = p1[np.isfinite(p1)], p99[np.isfinite(p99)]
    span = f"{_number(low)} to {_number(high)}"
    dtype = np.dtype(kind.index.dtype)
    found = []
    distinct = int((values.counts.counts > 0).sum(axis=1).max())
    if len(kind.index.bands) == 1 and distinct <= _CLASSES and values.is_whole:
        found.append(f"{distinct} different values ({span}): classes rather than measurements")
    elif dtype.kind == "f" and values.is_whole and low >= 0 and 100 < high <= 255:
        found.append(f"whole numbers from {span} stored as {dtype}: as 8-bit pictures have")
    elif dtype.kind == "f" and len(kind.index.bands) == 1 and low >= -5 and 2 < p99.max() < 120:
        found.append(f"values from {span}: as heights in metres have")
    elif dtype.kind == "f" and p1.min() >= -0.3 and p99.max() <= 2:
        found.append(f"values from {span}: as reflectance between 0 and 1 has")
    elif dtype.kind == "f" and p1.min() >= -60 and np.median(p1) < -3 and p99.max() <= 20:
        found.append(f"values from {span}: as radar backscatter in decibel has")
    elif dtype.itemsize == 2 and -3000 < p1.min() < 3000 and 1000 < p99.max() <= 20000:
        found.append(f"values from {span}: as reflectance times 10,000 has")
    if dtype.itemsize == 2 and 4000 < high <= 4095:
        found.append("no value above 4,095: as 12-bit sensors have")
    return tuple(found)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _named_by(kind: Readable, config: DataConfig) -> list[str]:
    """Tell where the names of the bands came from."""
    bands, tile = kind.index.bands, kind.index.tiles[0]
    if kind.listed is None:
        return ["index"] * len(bands)
    if kind.scenes[0].bands is not None:
        return ["stac" if kind.listed.descriptor is None else "descriptor"] * len(bands)
    info = tile.parts[0].info
    return [
        _source_of(band, info, number, config)
        for band, number in zip(bands, tile.parts[0].bands, strict=True)
    ]


def _source_of(band: Band, info: RasterInfo, number: int, config: DataConfig) -> str:
    if config.band_names is not None and band.name in config.band_names:
        return "declared"
    if (info.descriptions[number - 1] or "").strip() == band.name:
        return "description"
    return "colour" if info.colors[number - 1] == band.name else "position"


def _measured(values: Values) -> dict[int, BandValues]:
    """Return what each band that was read holds, by its place in the index."""
    counts, moments = values.counts, values.moments
    shares = values.valid / max(values.pixels_read, 1)
    quantiles = counts.quantiles(*(p / 100 for p in PERCENTILES))
    # A percentile of binned floats may lie outside of the true extremes by one bin.
    quantiles = np.clip(quantiles, moments.low, moments.high)
    tails = np.clip(counts.quantiles(*_TAILS), moments.low, moments.high)
    return {
        place: BandValues(
            valid_share=float(shares[i]),
            mean=float(moments.mean[i]),
            std=float(moments.std[i]),
            low=float(moments.low[i]),
            high=float(moments.high[i]),
            percentiles={str(p): float(q[i]) for p, q in zip(PERCENTILES, quantiles, strict=True)},
            histogram=_histogram(counts, i, float(tails[0, i]), float(tails[1, i])),
            saturated=_saturated(counts.counts[i]),
        )
        for i, place in enumerate(values.positions)
        if moments.count[i]
    }


def _histogram(counts: ValueCounts, band: int, low: float, high: float) -> Histogram:
    """Count values between two: bins of a whole number of values where these are whole."""
    total = int(counts.counts[band].sum())
    if counts.is_exact:
        first, least = math.floor(low), int(np.iinfo(counts.dtype).min)
        span = math.ceil(high) - first + 1
        width = math.ceil(span / BINS)
        bins = math.ceil(span / width)
        row = counts.counts[band, first - least : first - least + bins * width]
        padded = np.zeros(bins * width, dtype=np.int64)
        padded[: row.size] = row
        shares = padded.reshape(bins, width).sum(axis=1) / total
        edges = (first - 0.5, first + bins * width - 0.5)
    elif low == high:
        shares, edges = np.ones(1), (low, high)
    else:
        # Values of equal rank distance stand for all; each for one part in 2,001.
        one = ValueCounts(counts.dtype, 1)
        one.counts[0] = counts.counts[band]
        points = one.quantiles(*_FINE)[:, 0]
        inside = points[(points >= low) & (points <= high)]
        found, _ = np.histogram(inside, bins=BINS, range=(low, high))
        shares, edges = found / len(points), (low, high)
    return Histogram(
        low=edges[0],
        high=edges[1],
        shares=tuple(float(s) for s in shares),
        outside=max(0.0, 1.0 - float(shares.sum())),
    )


def _saturated(row: NDArray[np.int64]) -> float:
    """Return the share of values at the largest one, or 0 where they do not pile up there."""
    occupied = np.flatnonzero(row)
    if occupied.size <= _CLASSES:
        return 0.0
    top = int(occupied[-1])
    share = float(row[top] / row.sum())
    below = float(row[max(0, top - _BELOW) : top].mean())
    is_pile = share >= _PILE and row[top] >= max(_LEAST, _STEEP * below)
    return share if is_pile else 0.0
