"""The words and numbers of an inspection, as the text and the page both show them."""

import os
from collections.abc import Iterable, Mapping, Sequence

from geodino.data.inspection import (
    BandFacts,
    Dates,
    Ground,
    Inspection,
    Kind,
    QualityFacts,
    Sampled,
)

SHOWN = 5
"""Files named as examples."""

BANDS = 20
"""Bands shown at most; programs get all of them."""

FOLDED = 6
"""Different values shown of one fact."""

Fact = tuple[str, str]
"""What it is, and what was found."""

COLUMNS = ("band", "known as", "unit", "valid", "mean", "std", "min", "1 %", "50 %", "99 %", "max")
"""Heads of the table of bands."""


def headline(found: Inspection) -> str:
    """Return what a source is, in one line."""
    size = f", {amount(found.size_bytes)}" if found.size_bytes else ""
    return f"{plural(found.files, 'file')}, {plural(found.scenes, 'scene')}{size}"


def source_facts(found: Inspection) -> list[Fact]:
    """Return what is known about a source as a whole; what did not occur is left out."""
    facts = [("read as", "; ".join(found.reading))]
    if found.others:
        facts.append(
            ("left alone", f"{folded(found.others, always=True)} files, which are no rasters")
        )
    if found.unreadable:
        facts.append(
            ("UNUSABLE", first_of([reason for _, reason in found.unreadable], "file", sep="\n"))
        )
    if found.duplicates:
        copies = sum(len(paths) - 1 for paths in found.duplicates)
        sets = [" = ".join(short(p, found.root) for p in paths[:3]) for paths in found.duplicates]
        facts.append(
            ("copies", f"{plural(copies, 'file')} more than needed: {first_of(sets, 'set')}")
        )
    return facts


def kind_facts(kind: Kind, root: str) -> list[Fact]:
    """Return what is known about a kind; what did not occur is left out."""
    facts = [
        ("tiles", f"{kind.tiles:,} of {_sides(kind)} px, {_pixels(kind.pixels)}"),
        ("CRS", folded(kind.crs)),
        ("pixel", _gsd(kind)),
        ("stored as", _stored(kind)),
        ("dates", _dates(kind.dates)),
        ("overlap", _overlap(kind.ground) if kind.tiles > 1 else ""),
        ("invalid by", kind.validity),
    ]
    same = kind.ground.same_date
    if same:
        sets = [" and ".join(short(path, root) for path in paths[:2]) for paths in same]
        facts.append(("twice", f"same ground, same date, other pixels: {first_of(sets, 'set')}"))
    if kind.select:
        facts.insert(0, ("found by", kind.select))
    if kind.sampled is not None:
        facts += [
            ("valid", _valid(kind.sampled, root)),
            ("read", _read(kind.sampled, kind.tiles, len(kind.bands))),
        ]
    if kind.quality is not None:
        facts.append(("quality layer", _quality(kind.quality)))
    notable = [*_notable(kind.bands), *kind.observations]
    if notable:
        facts.append(("looks like", "\n".join(notable)))
    return [fact for fact in facts if fact[1]]


def band_rows(bands: Sequence[BandFacts]) -> list[tuple[str, ...]]:
    """Return one row a band for the columns of ``COLUMNS``."""
    return [_row(band) for band in shown_bands(bands)]


def shown_bands(bands: Sequence[BandFacts]) -> Sequence[BandFacts]:
    """Return all bands; of very many, the first of those that were read."""
    if len(bands) > BANDS:
        bands = [band for band in bands if band.values is not None] or bands
    return bands[:BANDS]


def plural(count: int, thing: str) -> str:
    """Return ``1 file`` or ``2 files``."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def number(value: float | None) -> str:
    """Return a number in as few characters as four digits need."""
    if value is None:
        return "–"
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-3:
        return f"{value:.3g}"
    return f"{value:,.0f}" if size >= 1000 or float(value).is_integer() else f"{value:.4g}"


def percent(share: float | None) -> str:
    """Return a share in per cent; neither 0 nor 100 unless it is."""
    if share is None:
        return "–"
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    if share < 0.001:
        return "under 0.1 %"
    return "over 99.9 %" if share > 0.999 else f"{100 * share:.1f} %"


def amount(size: float) -> str:
    """Return a number of bytes in its largest unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def short(path: str, root: str) -> str:
    """Return a path below the root, where it is there."""
    inside = path.startswith(root.rstrip("/") + "/")
    return os.path.relpath(path, root) if inside and "://" not in path else path


def folded(counts: Mapping[str, int], *, always: bool = False) -> str:
    """Return the values that occur and how often, the most frequent; a single one by itself."""
    if len(counts) == 1 and not always:
        return next(iter(counts))
    shown = [f"{count:,} x {name}" for name, count in list(counts.items())[:FOLDED]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def first_of(items: Sequence[str], thing: str, *, sep: str = "; ") -> str:
    """Return the first few of many items, and how many there are."""
    more = len(items) - SHOWN
    said = sep.join(items[:SHOWN])
    return said if more <= 0 else f"{said}{sep}... {plural(len(items), thing)} in all (--json)"


def _sides(kind: Kind) -> str:
    low_h, high_h, low_w, high_w = kind.sides
    return f"{_span(low_h, high_h)} x {_span(low_w, high_w)}"


def _span(low: float, high: float) -> str:
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def _overlap(ground: Ground) -> str:
    if ground.covered_twice is None or ground.mean_cover is None:
        return ""
    if ground.covered_twice == 0:
        return "no ground is covered twice"
    text = f"{percent(ground.covered_twice)} of the ground is covered by more than one tile, "
    text += f"all of it by {ground.mean_cover:.3g} on average"
    if ground.places_revisited:
        text += f"; {plural(ground.places_revisited, 'grid')} with several dates"
    return text


def _pixels(pixels: int) -> str:
    return f"{pixels:,} pixels" if pixels < 1e6 else f"{pixels / 1e6:,.4g} million pixels"


def _gsd(kind: Kind) -> str:
    if kind.gsd_m is None:
        return "of unknown size on the ground"
    low, high = (f"{side:.3g}" if side < 1000 else f"{side:,.0f}" for side in kind.gsd_m)
    text = f"{low} m" if low == high else f"{low} to {high} m"
    lost = (
        f"; {plural(kind.unplaced, 'tile')} without a place on the Earth" if kind.unplaced else ""
    )
    return f"{text} on the ground{lost}"


def _stored(kind: Kind) -> str:
    lines = []
    for layout in kind.layouts[:FOLDED]:
        verdict = (
            f"{layout.remark} (up to {layout.cost:.3g} times); mend:\n  {layout.mend}"
            if layout.remark
            else "good for windows"
        )
        count = f"{layout.files:,} x " if len(kind.layouts) > 1 else ""
        lines.append(f"{count}{layout.text}: {verdict}")
    more = len(kind.layouts) - len(lines)
    lines += [f"... and {more} more forms"] if more > 0 else []
    return f"{folded(kind.drivers)}, " + "\n".join(lines)


def _dates(dates: Dates) -> str:
    if dates.first is None or dates.last is None:
        return "unknown"
    first, last = dates.first[:10], dates.last[:10]
    text = first if first == last else f"{first} to {last}"
    text += f", from {folded(dates.known_from)}"
    if "tiff tag" in dates.known_from:
        text += " (often the time of writing)"
    return text + (f"; unknown for {plural(dates.unknown, 'tile')}" if dates.unknown else "")


def _valid(sampled: Sampled, root: str) -> str:
    every, some = percent(sampled.valid_all), percent(sampled.valid_any)
    text = f"{every} of the pixels" + ("" if every == some else f" in all bands, {some} in any")
    empty = sampled.nearly_empty
    if empty:
        names = ", ".join(short(path, root) for path in empty[:3])
        text += f"; nearly empty: {len(empty):,} of {sampled.tiles_read:,} tiles read, e.g. {names}"
    return text


def _read(sampled: Sampled, tiles: int, count: int) -> str:
    some = sampled.bands_read < count
    bands = f" of {sampled.bands_read} of {count} bands, evenly spaced" if some else ""
    if sampled.is_complete:
        return f"all pixels{bands}"
    return (
        f"{_pixels(sampled.pixels_read)} of {_pixels(sampled.pixels_of)} "
        f"({percent(sampled.pixels_read / sampled.pixels_of)}){bands}, in windows drawn from all "
        f"tiles with seed {sampled.seed}; they touch {sampled.tiles_read:,} of {tiles:,} tiles "
        "(--pixels N reads more)"
    )


def _quality(quality: QualityFacts) -> str:
    shares = sorted(quality.classes.items(), key=lambda item: -item[1])
    classes = [
        f"{name} {percent(share)}" + (" (masked)" if name in quality.masked else "")
        for name, share in shares
        if share or name in quality.masked
    ]
    where = f"in {quality.scenes_read:,} of {quality.scenes_with:,} scenes"
    return f"{', '.join(classes) or 'no class occurs'} ({where})"


def _notable(bands: Iterable[BandFacts]) -> list[str]:
    """Say which bands are constant or saturated."""
    measured = [(band.name, band.values) for band in bands if band.values is not None]
    constant = [f"{name} ({number(v.low)})" for name, v in measured if v.is_constant]
    piled = [
        f"{name} ({percent(v.saturated)} at {number(v.high)})"
        for name, v in measured
        if v.saturated and not v.is_constant
    ]
    found = []
    if constant:
        found.append(f"one value only: {', '.join(constant[:FOLDED])}")
    if piled:
        found.append(f"saturated: {', '.join(piled[:FOLDED])}")
    return found


def _row(band: BandFacts) -> tuple[str, ...]:
    known = [band.common_name] if band.common_name and band.common_name != band.name else []
    known += [f"{band.wavelength_nm:g} nm"] if band.wavelength_nm else []
    unit = band.unit
    if (band.scale, band.offset) != (1.0, 0.0):
        unit += f" = {band.scale:g} x"
        unit += f" {'+' if band.offset > 0 else '-'} {abs(band.offset):g}" if band.offset else ""
    values = band.values
    if values is None:
        return (band.name, " ".join(known), unit, *["–"] * 8)
    p = values.percentiles
    numbers = (values.mean, values.std, values.low, p["1"], p["50"], p["99"], values.high)
    return (
        band.name, " ".join(known), unit, percent(values.valid_share), *map(number, numbers)
    )  # fmt: skip
