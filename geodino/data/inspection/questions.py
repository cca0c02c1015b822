"""What has to be asked: each thing that no file says, why it matters, and the lines that answer it."""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import get_args

import numpy as np

from geodino.data.config import DataConfig
from geodino.data.inspection.found import BandFacts, Dates, Question
from geodino.data.inspection.kinds import Readable, family
from geodino.data.inspection.names import NamedDate, date_in, pattern_of, select
from geodino.data.inspection.pixels import SOLID, Fill, Values
from geodino.geo.bands import Unit

UNITS = ", ".join(unit for unit in get_args(Unit) if unit != "unknown")

_SHOWN = 4
"""Bands spelled out in an answer."""

_FILLED = 0.005
"""A value is asked about if it fills this share of the pixels in solid blocks."""

_USUAL = frozenset({0.0, 255.0, 65535.0, -9999.0, 9999.0, -32768.0, -32767.0, -999.0})
"""Fill values that are also asked about where a source has one band only."""

_HUGE = 1e30

_FLOOR = (900.0, 1400.0)
"""Where the darkest values lie if 1,000 was added to reflectance times 10,000."""

_SENTINEL_2 = re.compile(r"B(?:0[1-9]|1[0-2]|8A)")
_SENTINEL_2_COUNTS = (10, 12, 13)

_RATIO = 4.0
"""Ground sampling distances of one sensor do not differ by more than this factor."""


def questions(
    kind: Readable,
    bands: Sequence[BandFacts],
    values: Values | None,
    dates: Dates,
    names: Sequence[str],
    config: DataConfig,
) -> tuple[Question, ...]:
    """Return what is to be asked about a kind.

    Args:
        kind: the tiles.
        bands: what is known about its bands.
        values: what was read; None if nothing could be.
        dates: what is known about its times.
        names: its files below the root.
        config: what is declared already.
    """
    found = list(kind.problems)
    found += _names(bands)
    # Where the offset is asked, the lines that answer it declare unit and scale as well.
    found += _offset(kind, bands, values, config) or _units(kind, bands, values)
    found += _fill(kind, values)
    found += _families(kind)
    found += _place(kind)
    found += _resolution(kind)
    found += _dates(dates, names)
    return tuple(found)


def _names(bands: Sequence[BandFacts]) -> list[Question]:
    unnamed = [band for band in bands if band.named_by == "position"]
    if not unnamed:
        return []
    names = [
        f"NAME_{i}" if band.named_by == "position" else band.name
        for i, band in enumerate(bands, start=1)
    ]
    what = (
        "What is the band?"
        if len(bands) == 1
        else f"What are the {len(bands)} bands, in this order?"
        if len(unnamed) == len(bands)
        else f"What is {_listed([band.name for band in unnamed])} of {len(bands)} bands?"
    )
    return [
        Question(
            topic="bands",
            text=f"{what} The files do not name {'it' if len(unnamed) == 1 else 'them'}.",
            why="A model knows bands by name and order: files in another order would be read "
            "without a word. STAC names (red, nir, swir16) also say what a band is.",
            descriptor=_band_lines([f"{{name: {name}}}" for name in names]),
            option=f"--set 'data.band_names=[{','.join(names)}]'"
            if len(names) <= 4 * _SHOWN
            else "",
        )
    ]


def _units(kind: Readable, bands: Sequence[BandFacts], values: Values | None) -> list[Question]:
    unknown = [band for band in bands if band.unit == "unknown"]
    # The numbers of 8-bit pictures have no unit that one could declare; nor have classes.
    is_picture = kind.index.dtype in ("uint8", "int8") or (
        values is not None and values.is_whole and _is_bounded(values, 0.0, 255.0)
    )
    if not unknown or is_picture:
        return []
    is_coded = any((band.scale, band.offset) != (1.0, 0.0) for band in unknown)
    coded = "" if is_coded else ", scale: SCALE, offset: OFFSET"
    return [
        Question(
            topic="unit",
            text=f"Which unit are the numbers of {_listed([b.name for b in unknown])} in"
            + (", once scale and offset are applied?" if is_coded else "?"),
            why="Reflectance, digital numbers and decibel look alike to a reader; a model given "
            f"the wrong ones fails silently. Units: {UNITS}; value = stored * scale + offset.",
            descriptor=_band_lines([f"{{name: {b.name}, unit: UNIT{coded}}}" for b in unknown]),
        )
    ]


def _offset(
    kind: Readable, bands: Sequence[BandFacts], values: Values | None, config: DataConfig
) -> list[Question]:
    declared = config.offset is not None or any(
        (band.scale, band.offset) != (1.0, 0.0) or band.unit not in ("unknown", "reflectance")
        for band in bands
    )
    if not kind.offset_unknown and (declared or not _is_like_sentinel_2(kind, bands)):
        return []
    floors = np.array(values.floors if values is not None else ())
    added = int(((floors >= _FLOOR[0]) & (floors <= _FLOOR[1])).sum())
    clear = int((floors < _FLOOR[0]).sum())
    seen = (
        f" Of {len(floors):,} windows read, the darkest values lie near 1,000 in {added:,}, as if it "
        f"had been, below in {clear:,}, and above, which tells nothing, in "
        f"{len(floors) - added - clear:,}."
        if len(floors)
        else ""
    )
    return [
        Question(
            topic="offset",
            text="Are these Sentinel-2 numbers to which 1,000 was added (processing baseline "
            f"04.00 and later, from January 2022 on)?{seen}",
            why="Products from before and after differ by 0.1 in reflectance; mixed, they look "
            "like a change of the land.",
            descriptor=_band_lines(
                [
                    f"{{name: {b.name}, unit: reflectance, scale: 0.0001, offset: -0.1}}"
                    for b in bands
                ],
                note="offset: 0.0 if nothing was added",
            ),
            option="--set data.scale=0.0001 --set data.offset=-0.1\n"
            "--set data.scale=0.0001 --set data.offset=0.0   # if nothing was added",
        )
    ]


def _fill(kind: Readable, values: Values | None) -> list[Question]:
    if values is None or not values.pixels_read:
        return []
    tagged = {v for t in kind.index.tiles for p in t.parts for v in p.info.nodata if v is not None}
    read = sum(share is not None for share in values.tile_shares)
    found = []
    for fill in values.fills:
        share = fill.blocks * SOLID**2 / values.pixels_read
        if share < _FILLED:
            break  # the most frequent come first
        if not _is_suspicious(fill, kind, tagged):
            continue
        number = (
            repr(fill.value).removesuffix(".0") if abs(fill.value) < _HUGE else repr(fill.value)
        )
        found.append(
            Question(
                topic="nodata",
                text=f"Does {number} mean that there is no data? It fills {share:.1%} of the "
                "pixels in solid areas"
                + (", in all bands at once" if len(values.positions) > 1 else "")
                + f", up to the edge, in {fill.tiles:,} of {read:,} tiles read (e.g. "
                f"{kind.index.tiles[fill.first].path.rsplit('/', 1)[-1]})"
                + (", and no file tags it." if not tagged else "; other values are tagged."),
                why="Collars that count as ground bend the statistics and are learnt as texture.",
                descriptor=f"nodata: {number}",
                option=f"--set data.nodata={number}",
            )
        )
    return found[:_SHOWN]


def _is_suspicious(fill: Fill, kind: Readable, tagged: set[float]) -> bool:
    """Whether a value is rather fill than ground: at the edge, and usual where it is alone."""
    if not fill.at_edge or fill.value in tagged:
        return False  # the evidence about tags is told as a decision
    if len(kind.index.bands) > 1:
        return True
    if any(band.unit in ("m", "dB") for band in kind.index.bands):
        return False  # 0 m is bare ground
    is_float = kind.index.dtype.startswith("float")
    if fill.value == 0 and is_float and tagged:
        return False  # one value is tagged already; 0 is a height or a share
    return fill.value in _USUAL or abs(fill.value) > _HUGE


def _families(kind: Readable) -> list[Question]:
    """Ask about degrees beside metres."""
    families = Counter(family(t.grid) for t in kind.index.tiles if t.gsd_m is not None)
    if len(families) < 2:
        return []
    codes = [t.grid.crs for t in kind.index.tiles if family(t.grid) == "geographic"]
    counts = " and ".join(f"{count:,} with {name}" for name, count in families.most_common())
    return [
        Question(
            topic="crs",
            text=f"Do tiles in degrees and tiles in metres belong together? There are {counts} "
            "coordinates.",
            why="Nothing is reprojected: pixels in degrees are narrower than high away from the "
            "equator, so that shapes differ between the two.",
            option=f"--set \"data.where=crs != '{codes[0]}'\"",
        )
    ]


def _place(kind: Readable) -> list[Question]:
    lost = [tile for tile in kind.index.tiles if tile.gsd_m is None]
    if not lost:
        return []
    tiles, first = kind.index.tiles, lost[0]
    have = "a CRS without a place" if first.grid.crs else "no CRS"
    which = (
        "is the tile"
        if len(tiles) == 1
        else f"are the {len(lost):,} tiles"
        if len(lost) == len(tiles)
        else f"are {len(lost):,} of {len(tiles):,} tiles"
    )
    return [
        Question(
            topic="gsd",
            text=f"Where on the Earth {which}, and how large is a pixel? "
            f"{'It has' if len(tiles) == 1 else 'They have'} {have}.",
            why="Without a place there is no ground sampling distance, no --aoi, and no telling "
            "that two tiles show the same ground. Pictures that have none can be trained on.",
            option="gdal_edit.py -a_srs EPSG:CODE -a_ullr WEST NORTH EAST SOUTH "
            + shlex.quote(first.files[0]),
        )
    ]


def _resolution(kind: Readable) -> list[Question]:
    sides = np.sort([max(tile.gsd_m) for tile in kind.index.tiles if tile.gsd_m])
    if not len(sides) or sides[-1] < _RATIO * sides[0]:
        return []
    steps = sides[1:] / sides[:-1]
    at = int(steps.argmax())
    cut = float(np.sqrt(sides[at] * sides[at + 1]))
    return [
        Question(
            topic="gsd",
            text=f"Do pixels of {_metres(sides[0])} and of {_metres(sides[-1])} m belong together? "
            f"The widest gap lies between {_metres(sides[at])} and {_metres(sides[at + 1])} m.",
            why="A crop then shows a tree or a town: a model learns both scales worse than one.",
            option=f"--set 'data.where=gsd_y_m < {cut:.3g}'",
        )
    ]


def _dates(dates: Dates, names: Sequence[str]) -> list[Question]:
    said = date_in(names) if dates.unknown or "tiff tag" in dates.known_from else None
    if said is not None:
        return [
            Question(
                topic="date",
                text=f"Is {said.example} the day of the picture? All names hold such a number.",
                why="Dates choose tiles (--datetime) and tell revisits from overlaps.",
                descriptor=f"files: '{_dated(names, said)}'\ndate_format: '{said.format}'",
            )
        ]
    if dates.known_from.get("tiff tag"):
        return [
            Question(
                topic="date",
                text=f"Were pictures taken when their files say? {dates.known_from['tiff tag']:,} "
                "tiles have only a TIFFTAG_DATETIME, often the time of writing.",
                why="Dates choose tiles (--datetime) and tell revisits from overlaps.",
                descriptor="files: 'PATTERN_WITH_(?P<date>\\d{8}).*\\.tif$'\ndate_format: '%Y%m%d'",
            )
        ]
    return []


def _is_like_sentinel_2(kind: Readable, bands: Sequence[BandFacts]) -> bool:
    is_known = kind.listed is not None and kind.listed.descriptor is not None
    if is_known or kind.index.dtype not in ("uint16", "int16"):
        return False
    if len(bands) > 2 and all(_SENTINEL_2.fullmatch(band.name) for band in bands):
        return True
    gsd = kind.index.gsd_m
    return (
        len(bands) in _SENTINEL_2_COUNTS
        and all(band.named_by == "position" for band in bands)
        and (gsd is None or 9 < gsd[0] < 61)
    )


def _is_bounded(values: Values, low: float, high: float) -> bool:
    some = values.moments.count > 0
    return bool(
        some.any()
        and values.moments.low[some].min() >= low
        and values.moments.high[some].max() <= high
    )


def _dated(names: Sequence[str], date: NamedDate) -> str:
    """Return a descriptor's pattern that finds these names and their dates."""
    every = select(names, [])
    return "" if every is None else pattern_of(names, every, date=date, bands=())


def _metres(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _band_lines(entries: Sequence[str], note: str = "") -> str:
    lines = [f"  - {entry}" for entry in entries[:_SHOWN]]
    if note:
        lines[0] += f"   # {note}"
    if len(entries) > _SHOWN:
        lines.append(f"  # and so on: one line for each of {len(entries)} bands")
    return "\n".join(["bands:", *lines])


def _listed(names: Sequence[str]) -> str:
    if len(names) > _SHOWN:
        return f"{names[0]} to {names[-1]}"
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
