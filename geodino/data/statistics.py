"""Statistics of a source over its valid pixels: streamed, parallel, the same on every machine."""

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from geodino import seeds
from geodino.data.config import DataConfig
from geodino.data.mixed import mixed_contract, with_parts
from geodino.data.parallel import in_order
from geodino.data.tiles import TileIndex, first_reasons, read_tile
from geodino.errors import SourceError
from geodino.geo.contract import InputContract
from geodino.geo.validity import combine
from geodino.geo.windows import super_windows
from geodino.io.raster import HandlePool
from geodino.metrics.moments import FLOAT_ERROR, Moments, ValueCounts

Progress = Callable[[int, int], None]
"""Called with (windows done, windows in all)."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue between 0 and 1, over the training images of ImageNet-1k (the numbers
that torchvision and timm use)."""

PERCENTILES = (1, 2, 5, 25, 50, 75, 95, 98, 99)

_Values = tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """What a source holds. Per-band values follow ``TileIndex.bands``; of stored values."""

    mean: _Values
    """Mean over the pixels used."""

    std: _Values
    """Standard deviation of the population; 1 for a constant band."""

    low: _Values
    """Smallest value."""

    high: _Values
    """Largest value."""

    percentiles: dict[int, _Values]
    """1, 2, 5, 25, 50, 75, 95, 98 and 99 %, interpolated as numpy does."""

    percentile_error: float
    """Largest error of a percentile relative to its value: 0 (exact) for types of up to 16 bits."""

    pixels: tuple[int, ...]
    """Values used, per band."""

    valid_share: _Values
    """Share of the pixels read that are valid, per band."""

    valid_all: float
    """Share of the pixels read that are valid in all bands."""

    valid_any: float
    """Share of the pixels read that are valid in any band."""

    tile_shares: tuple[float | None, ...]
    """Share of valid pixels of each tile by the ``data.valid`` rule; None for tiles not read."""

    pixels_read: int
    """Pixels read, valid or not."""

    pixels_of: int
    """Pixels of the source."""

    constant: tuple[str, ...] = ()
    """Bands that have one value only."""

    bad: dict[str, str] = field(default_factory=dict)
    """Tiles whose pixels could not be read, with the reason."""

    @property
    def is_complete(self) -> bool:
        """Whether every pixel of the source was read."""
        return self.pixels_read == self.pixels_of


@dataclass(frozen=True, slots=True)
class _Part:
    """What one window contributes; ``valid`` counts are per band, then all, any."""

    tile: int
    pixels: int = 0
    valid: NDArray[np.int64] | None = None
    moments: Moments | None = None
    error: SourceError | None = None


def measure(
    index: TileIndex,
    config: DataConfig,
    *,
    threads: int,
    progress: Progress | None = None,
) -> Statistics:
    """Compute statistics over the valid pixels of a source.

    Windows are read by threads and merged in the order of the tiles, in float64, so the result
    does not depend on the number of threads. Types of up to 16 bits are counted value by value:
    everything is exact. Others: mean and variance by Chan's parallel formula; percentiles within
    0.1 % of their value. A source of more than ``config.statistics.max_pixels`` is represented
    by windows drawn with ``config.statistics.seed``.

    Args:
        index: the tiles.
        config: how bands are joined (``valid``), how much is read (``statistics``), ``strict``.
        threads: how many windows are read at once.
        progress: told after each window.

    Raises:
        SourceError: no valid pixel, or with ``strict`` a tile that cannot be read.
    """
    bands = len(index.bands)
    work = _Work(index, config)
    valid = np.zeros(bands + 2, dtype=np.int64)
    per_tile = np.zeros((len(index.tiles), 2), dtype=np.int64)
    moments = Moments.empty(bands)
    bad: dict[str, str] = {}
    total = len(work.windows)
    with (
        HandlePool(config.max_open) as pool,
        closing(
            in_order(lambda w: work.part(pool, int(w)), work.windows, threads=threads)
        ) as parts,
    ):
        for done, part in enumerate(parts, start=1):
            if part.error is not None:
                if config.strict:
                    raise part.error
                bad[index.tiles[part.tile].path] = str(part.error)
            elif part.valid is not None:
                valid += part.valid
                used = part.valid[bands if config.valid == "all" else bands + 1]
                per_tile[part.tile] += used, part.pixels
                if part.moments is not None:
                    moments = moments.merge(part.moments)
            if progress is not None:
                progress(done, total)
    counts = work.merged_counts()
    if counts.is_exact:
        moments = counts.moments()
    _refuse_empty(index, config, moments, bad)
    return _statistics(index, moments, counts, valid, per_tile, bad)


class _Work:
    """The windows to read, and what is counted in them; one set of counters per thread."""

    def __init__(self, index: TileIndex, config: DataConfig) -> None:
        self._index = index
        self._config = config
        self._tilings = [
            super_windows(t.height, t.width, block=t.block, size=config.super_window)
            for t in index.tiles
        ]
        self._starts = np.concatenate([[0], np.cumsum([len(t) for t in self._tilings])])
        self.windows = self._chosen()
        self._local = threading.local()
        self._counts: list[ValueCounts] = []
        self._lock = threading.Lock()

    def _chosen(self) -> NDArray[np.int64]:
        """Return the numbers of the windows to read, ascending: all, or a seeded choice."""
        settings, total = self._config.statistics, int(self._starts[-1])
        pixels = self._index.pixels
        if pixels <= settings.max_pixels:
            return np.arange(total)
        wanted = max(1, int(total * (settings.max_pixels / pixels)))
        return np.sort(seeds.permuted(np.arange(wanted), total, settings.seed, "statistics"))

    def part(self, pool: HandlePool, number: int) -> _Part:
        """Read and count one window; runs in a thread."""
        tile = int(np.searchsorted(self._starts, number, side="right")) - 1
        of, tiling = self._index.tiles[tile], self._tilings[tile]
        window = tiling[number - int(self._starts[tile])]
        try:
            pixels, valid = read_tile(pool, of, window, self._index.rule)
        except SourceError as error:
            return _Part(tile, error=error)
        every, some = combine(valid, "all"), combine(valid, "any")
        found = [int(np.count_nonzero(v)) for v in (*valid, every, some)]
        if every.all():
            values = [band.ravel() for band in pixels]
        else:
            # The choice drops invalid values before any arithmetic could see them.
            is_all = self._config.valid == "all"
            pairs = zip(pixels, valid, strict=True)
            values = [band[every if is_all else of_band] for band, of_band in pairs]
        counts = self._counters()
        for band, of_band in enumerate(values):
            counts.add(band, of_band)
        moments = None if counts.is_exact else Moments.of(values)
        return _Part(tile, window.area, np.array(found, dtype=np.int64), moments)

    def _counters(self) -> ValueCounts:
        counts: ValueCounts | None = getattr(self._local, "counts", None)
        if counts is None:
            counts = ValueCounts(self._index.dtype, len(self._index.bands))
            self._local.counts = counts
            with self._lock:
                self._counts.append(counts)
        return counts

    def merged_counts(self) -> ValueCounts:
        """Return the counts of all threads together."""
        merged = ValueCounts(self._index.dtype, len(self._index.bands))
        for counts in self._counts:
            merged.merge(counts)
        return merged


def _refuse_empty(
    index: TileIndex, config: DataConfig, moments: Moments, bad: dict[str, str]
) -> None:
    if moments.count.all():
        return
    where = f"{len(index.tiles)} tile(s) below {index.root}"
    if len(bad) == len(index.tiles):
        raise SourceError(f"No pixel of {where} can be read. {first_reasons(list(bad.items()))}")
    if moments.count.any():
        empty = [b.name for b, n in zip(index.bands, moments.count, strict=True) if n == 0]
        raise SourceError(
            f"{where} hold no valid pixel in {', '.join(empty)}. Leave such bands out with "
            "data.bands, or overrule the nodata tag with data.nodata."
        )
    hint = " in all bands at once (data.valid: any asks for less)" if config.valid == "all" else ""
    raise SourceError(
        f"{where} hold no valid pixel{hint}; masked by: {index.rule.text}. If a tag is wrong, "
        "overrule it with data.nodata or data.alpha."
    )


def _statistics(
    index: TileIndex,
    moments: Moments,
    counts: ValueCounts,
    valid: NDArray[np.int64],
    per_tile: NDArray[np.int64],
    bad: dict[str, str],
) -> Statistics:
    bands = len(index.bands)
    read_pixels = int(per_tile[:, 1].sum())
    shares = valid / max(read_pixels, 1)
    constant = moments.low == moments.high
    names = [band.name for band in index.bands]
    quantiles = counts.quantiles(*(p / 100 for p in PERCENTILES))
    return Statistics(
        mean=_floats(moments.mean),
        # Normalisation divides by it; the differences it would divide are all 0.
        std=_floats(np.where(constant | (moments.std == 0), 1.0, moments.std)),
        low=_floats(moments.low),
        high=_floats(moments.high),
        percentiles={
            p: _floats(np.clip(values, moments.low, moments.high))
            for p, values in zip(PERCENTILES, quantiles, strict=True)
        },
        percentile_error=0.0 if counts.is_exact else FLOAT_ERROR,
        pixels=tuple(int(n) for n in moments.count),
        valid_share=_floats(shares[:bands]),
        valid_all=float(shares[bands]),
        valid_any=float(shares[bands + 1]),
        tile_shares=tuple(float(used / n) if n else None for used, n in per_tile),
        pixels_read=read_pixels,
        pixels_of=index.pixels,
        constant=tuple(
            name for name, is_constant in zip(names, constant, strict=True) if is_constant
        ),
        bad=bad,
    )


def measure_source(
    index: TileIndex,
    config: DataConfig,
    *,
    threads: int,
    progress: Progress | None = None,
) -> tuple[TileIndex, InputContract]:
    """Measure a source; return its index with what was learnt about the tiles, and the contract.

    The index has each tile's share of valid pixels, notes for the run card, and among its ``bad``
    files those whose pixels turned out to be damaged. Where ``config.statistics.source`` names
    known statistics nothing is measured; the members of a mix are measured one by one and joined
    by weight. See :func:`measure` for arguments and errors.
    """
    if config.statistics.source == "imagenet":
        return _as_imagenet(index, config)
    if index.members:
        parts = [
            measure_source(index.part(m.name), config, threads=threads, progress=progress)
            for m in index.members
        ]
        contracts = [of_part for _, of_part in parts]
        return with_parts(index, [part for part, _ in parts]), mixed_contract(index, contracts)
    found = measure(index, config, threads=threads, progress=progress)
    index = index.with_valid_shares(found.tile_shares)
    if found.bad:
        index = index.without(found.bad)
    index = replace(index, notes=(*index.notes, *_notes(found)))
    return index, contract(index, found, config)


def _as_imagenet(index: TileIndex, config: DataConfig) -> tuple[TileIndex, InputContract]:
    names = [band.common_name for band in index.bands]
    if names != ["red", "green", "blue"] or index.dtype != "uint8":
        raise SourceError(
            "data.statistics.source: imagenet is for red, green and blue of 8 bits, but "
            f"{index.root} has {', '.join(band.name for band in index.bands)} of {index.dtype}. "
            "Use measured, or choose such bands with data.bands."
        )
    note = "mean and standard deviation are ImageNet's (data.statistics.source): none is measured"
    return replace(index, notes=(*index.notes, note)), InputContract(
        bands=index.bands,
        dtype=index.dtype,
        mean=tuple(255 * value for value in IMAGENET_MEAN),
        std=tuple(255 * value for value in IMAGENET_STD),
        low=(0.0,) * 3,
        high=(255.0,) * 3,
        valid=config.valid,
        nodata=index.rule_text,
        gsd_m=index.gsd_m,
        statistics={
            "source": "imagenet", "tiles": len(index.tiles), "of_tiles": len(index.tiles),
        },
    )  # fmt: skip


def _notes(found: Statistics) -> list[str]:
    notes = []
    if not found.is_complete and not found.bad:
        notes.append(
            f"statistics are of {found.pixels_read:,} of {found.pixels_of:,} pixels, in windows "
            "drawn from the whole source (data.statistics.max_pixels reads more)"
        )
    if found.constant:
        notes.append(
            f"{', '.join(found.constant)} has one value only in the pixels read: its standard "
            "deviation is taken as 1"
        )
    return notes


def contract(index: TileIndex, statistics: Statistics, config: DataConfig) -> InputContract:
    """Write down what a model trained on this source will demand of a file."""
    is_byte = index.dtype == "uint8"
    bands = len(index.bands)
    return InputContract(
        bands=index.bands,
        dtype=index.dtype,
        mean=statistics.mean,
        std=statistics.std,
        low=(0.0,) * bands if is_byte else statistics.percentiles[1],
        high=(255.0,) * bands if is_byte else statistics.percentiles[99],
        valid=config.valid,
        nodata=index.rule_text,
        gsd_m=index.gsd_m,
        statistics={
            "tiles": sum(share is not None for share in statistics.tile_shares),
            "of_tiles": len(index.tiles),
            "pixels_read": statistics.pixels_read,
            "of_pixels": statistics.pixels_of,
            "pixels_used": list(statistics.pixels),
            "valid_share": list(statistics.valid_share),
            "valid_all": statistics.valid_all,
            "valid_any": statistics.valid_any,
            "percentile_error": statistics.percentile_error,
            "constant_bands": list(statistics.constant),
            "seed": None if statistics.is_complete else config.statistics.seed,
        },
    )


def _floats(values: NDArray[np.float64]) -> _Values:
    return tuple(float(v) for v in values)
