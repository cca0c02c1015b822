"""Label rasters: what their files say, in which unit they are, and whether that can be true."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from geodino.data.index import build_index
from geodino.data.labels.config import LabelsConfig
from geodino.data.labels.heights import (
    TO_M,
    HeightSurvey,
    clean,
    refuse_doubtful,
    survey,
    unit_of,
)
from geodino.data.metadata import Progress
from geodino.data.tiles import Tile, TileIndex, first_reasons, read_tile
from geodino.errors import BandError, SourceError
from geodino.geo.windows import Window, super_windows
from geodino.io.raster import HandlePool

FILES = 64
"""Files whose heights are looked at, evenly spaced from the first to the last."""

PIXELS = 1 << 24
"""Pixels looked at in all."""

_SIDE = 512

_KEYS = (
    "bands", "scale", "offset", "nodata", "dataset", "mask", "aoi", "datetime", "where",
    "band_names",
)  # fmt: skip
_KEY = re.compile(rf"(?<![\w/.])data\.({'|'.join(_KEYS)})\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelIndex:
    """All usable label rasters of a source and the decisions that hold for them."""

    tiles: TileIndex
    """The rasters, with one band."""

    to_m: tuple[float, ...]
    """Metres of one unit of each raster's values."""

    config: LabelsConfig
    """What was declared."""

    found: HeightSurvey
    """What was found of the heights."""

    notes: tuple[str, ...] = ()
    """Decisions, as sentences for the run card."""

    def heights(
        self, pool: HandlePool, tile: int, window: Window
    ) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Read a window of a label raster on its own grid: metres, and where they may be used.

        Small negative heights are 0, those out of range invalid; invalid pixels hold 0.

        Raises:
            SourceError: a file vanished or is damaged.
        """
        heights, valid = _as_read(self.tiles, self.to_m[tile], pool, tile, window)
        return clean(heights, valid, self.config.ceiling_m)


def label_index(
    src: str | Path,
    config: LabelsConfig,
    *,
    threads: int,
    progress: Progress | None = None,
) -> LabelIndex:
    """Index label rasters, decide their unit and look at their heights.

    Args:
        src: any source of tiles, see :func:`geodino.data.index.build_index`.
        config: what is declared about them.
        threads: how many files are opened at once.
        progress: told after each file.

    Raises:
        SourceError: nothing to read, or no valid label.
        BandError: several bands, an undeclared unit, or heights that can hardly be true.
    """
    with _in_words_of_labels():
        tiles = build_index(src, config.data_config(), threads=threads, progress=progress)
    if len(tiles.bands) != 1:
        names = ", ".join(band.name for band in tiles.bands)
        raise BandError(
            f"{src}: the labels have {len(tiles.bands)} bands ({names}). Declare which holds the "
            f"heights, e.g. labels.band: {tiles.bands[0].name}."
        )
    to_m, notes = _units(str(src), tiles, config)
    found, damaged = _look(tiles, to_m, config)
    if damaged:
        if config.strict:
            raise SourceError(next(iter(damaged.values())))
        kept = [f for f, tile in zip(to_m, tiles.tiles, strict=True) if tile.path not in damaged]
        tiles, to_m = tiles.without(damaged), tuple(kept)
    if not found.valid and found.looked_at == found.of and not (found.below or found.above):
        raise SourceError(
            f"{src}: none of the {found.of:,} label pixels is valid. Check the nodata value "
            "(labels.nodata) and the band (labels.band)."
        )
    if "range" not in config.accept:
        refuse_doubtful(found, source=str(src), factors=to_m, ceiling_m=config.ceiling_m)
    told = [label_words(note) for note in (*tiles.rule.reasons, *tiles.notes)]
    bad = [f"{len(tiles.bad)} label files cannot be used: {first_reasons(tiles.bad)}"]
    return LabelIndex(
        tiles=tiles, to_m=to_m, config=config, found=found,
        notes=(*told, *bad[: len(tiles.bad)], *notes, found.text),
    )  # fmt: skip


def label_words(text: str) -> str:
    """Name keys of ``data`` as those of ``labels`` that they stand for here."""
    return _KEY.sub(lambda key: "labels." + ("band" if key[1] == "bands" else key[1]), text)


@contextmanager
def _in_words_of_labels() -> Iterator[None]:
    try:
        yield
    except (SourceError, BandError) as error:
        raise type(error)(label_words(str(error))) from error


def _units(src: str, tiles: TileIndex, config: LabelsConfig) -> tuple[tuple[float, ...], list[str]]:
    """Return metres per unit of every raster, and a note how that is known."""
    said = [_word(tile) for tile in tiles.tiles]
    known = [unit_of(word) for word in said]
    if config.unit is not None:
        others = sorted({unit for unit in known if unit not in (None, config.unit)})
        over = f", over what files say ({', '.join(map(str, others))})" if others else ""
        note = f"heights are in {config.unit}, as labels.unit declares{over}"
        return (TO_M[config.unit],) * len(known), [note]
    if all(unit is None for unit in known) and tiles.bands[0].unit == "m":
        return (1.0,) * len(known), ["heights are in m, as their descriptor declares"]
    missing = [i for i, unit in enumerate(known) if unit is None]
    if missing:
        path, word = tiles.tiles[missing[0]].path, said[missing[0]]
        what = f"calls its unit {word!r}" if word else "does not say in which unit its heights are"
        count = f" (so do {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise BandError(
            f"{src}: {path} {what}{count}. Declare it: --set labels.unit=m (or dm, cm, ft)."
        )
    units = [unit for unit in known if unit is not None]
    return tuple(TO_M[unit] for unit in units), [
        f"heights are in {', '.join(sorted(set(units)))}, as the files declare"
    ]


def _word(tile: Tile) -> str:
    """Return the unit of a raster as the file words it."""
    part = tile.parts[0]
    units = part.info.units
    return (units[part.bands[0] - 1] or "") if units else ""


def _as_read(
    tiles: TileIndex, to_m: float, pool: HandlePool, tile: int, window: Window
) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    of = tiles.tiles[tile]
    pixels, valid = read_tile(pool, of, window, tiles.rule_of(of))
    band = tiles.bands[0]
    stored = np.where(valid[0], pixels[0], pixels.dtype.type(0)).astype(np.float64)
    return (stored * band.scale + band.offset) * to_m, valid[0]


def _look(
    tiles: TileIndex, to_m: Sequence[float], config: LabelsConfig
) -> tuple[HeightSurvey, dict[str, str]]:
    """Look at the heights of some windows of some files: of all where the source is small.

    Returns:
        What was found, and the files that are damaged with the reasons.
    """
    numbers = _spaced(len(tiles.tiles), FILES)
    most = max(1, PIXELS // (len(numbers) * _SIDE * _SIDE))
    heights: list[tuple[str, NDArray[np.float64]]] = []
    damaged: dict[str, str] = {}
    looked_at = 0
    with HandlePool(1) as pool:
        for number in numbers:
            tile = tiles.tiles[number]
            tiling = super_windows(tile.height, tile.width, block=tile.block, size=_SIDE)
            try:
                for window in (tiling[i] for i in _spaced(len(tiling), most)):
                    values, valid = _as_read(tiles, to_m[number], pool, number, window)
                    heights.append((tile.path, values[valid]))
                    looked_at += window.area
            except SourceError as error:
                damaged[tile.path] = str(error)
    found = survey(heights, looked_at=looked_at, of=tiles.pixels, ceiling_m=config.ceiling_m)
    return found, damaged


def _spaced(length: int, count: int) -> list[int]:
    places = np.linspace(0, length - 1, min(count, length)).round().astype(int)
    return [int(i) for i in np.unique(places)]
