"""Scenes: which files belong together, and what is declared about their bands."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

from geodino.data.sources.descriptor import DescribedBand, Descriptor, QualityLayer
from geodino.errors import SourceError

_APART = ("band", "resolution", "folder")
"""Groups of a pattern in which the files of one scene differ."""


_COMPARED = 1000
"""Names compared with the example, where the pattern finds none."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One band of a scene: where it is, and what is declared about it."""

    path: str
    number: int
    band: DescribedBand


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What becomes one tile; nothing has been opened yet."""

    name: str
    """The file, or for several files the part of their paths that they share."""

    bands: tuple[Wanted, ...] | None = None
    """Its bands; None for all data bands of the raster ``name``."""

    quality: tuple[str, QualityLayer] | None = None
    """File and description of its quality layer."""

    datetime: str | None = None
    """ISO 8601, where file names or a catalogue say it."""

    datetime_from: str | None = None
    """Where the time came from."""

    lacks: str | None = None
    """Why the scene cannot be used, in a sentence."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Every raster to open, the quality layer's last."""
        image = (self.name,) if self.bands is None else [w.path for w in self.bands]
        layer = () if self.quality is None else (self.quality[0],)
        return tuple(dict.fromkeys((*image, *layer)))


@dataclass(frozen=True, slots=True)
class Described:
    """Files grouped as a descriptor says."""

    scenes: list[Scene]
    """In the order of their names."""

    left_out: list[str]
    """Files that the pattern does not find."""

    absent: list[str]
    """Bands of the descriptor that no scene has."""


@dataclass(slots=True)
class _Files:
    """The files of one scene while they are collected: file key -> (resolution, path)."""

    name: str
    long_name: str
    """For scenes whose names are the same: with what follows the band."""

    date: str | None = None
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    lacks: str | None = None


def described(
    files: Sequence[str],
    descriptor: Descriptor,
    *,
    root: str,
    name: str,
    chosen: Sequence[str | int] | None = None,
) -> Described:
    """Group files into scenes as a descriptor says.

    A scene whose files contradict each other, or that lacks a band which others have, is returned
    with ``lacks``.

    Args:
        files: paths below ``root``.
        descriptor: the format.
        root: what paths are relative to.
        name: what the descriptor is called, for messages.
        chosen: ``data.bands``; bands it does not name are not looked for.

    Raises:
        SourceError: the pattern finds none of the files (the nearest are named), or no band.
    """
    found, left_out = _grouped(files, descriptor, root)
    if not found:
        relative = [_relative(p, root) for p in files[:: 1 + len(files) // _COMPARED]]
        nearest = get_close_matches(descriptor.example, relative, 3, 0.0)
        raise SourceError(
            f"The pattern of {name} finds none of the {len(files)} rasters below {root}. "
            f"It looks for names such as {descriptor.example}; the nearest there: "
            f"{', '.join(nearest)}. Change `files` in the descriptor, or name other files."
        )
    wanted = [_bands_of(entry, descriptor) for entry in found.values()]
    have = {band for bands in wanted for band in bands}
    used = bands_in_use(descriptor, have, chosen)
    if not used:
        raise SourceError(_no_band(found.values(), name, root))
    twice = Counter(entry.name for entry in found.values())
    scenes = [
        _scene(entry, bands, descriptor, used, is_unique=twice[entry.name] == 1)
        for entry, bands in zip(found.values(), wanted, strict=True)
    ]
    scenes.sort(key=lambda s: s.name)
    return Described(scenes, left_out, [b.name for b in descriptor.bands if b.name not in have])


def _grouped(
    files: Sequence[str], descriptor: Descriptor, root: str
) -> tuple[dict[str, _Files], list[str]]:
    """Return what belongs together, and the files that the pattern does not find."""
    found: dict[str, _Files] = {}
    left_out = []
    for path in files:
        relative = _relative(path, root)
        match = descriptor.pattern.search(relative)
        if match is None:
            left_out.append(path)
            continue
        key, scene = _key(relative, match)
        entry = found.get(key)
        if entry is None:
            names = path, path
            if descriptor.has_file_per_band:
                names = _full(scene, root), _full(key, root)
            entry = found[key] = _Files(*names)
        try:
            entry.date = _date(match, descriptor.date_format, path)
            _add(entry, match.groupdict(), path)
        except SourceError as error:
            entry.lacks = str(error)
    return found, left_out


def _no_band(found: Collection[_Files], name: str, root: str) -> str:
    why = next((entry.lacks for entry in found if entry.lacks), None)
    keys = sorted({key for entry in found for key in entry.files})
    return why or (
        f"The pattern of {name} finds {len(found)} scenes below {root}, but none of its bands: its "
        f"group band finds {', '.join(keys) or 'nothing'}. Name what it finds in `name` or `file` "
        "of the descriptor's bands."
    )


def bands_in_use(
    descriptor: Descriptor, have: Collection[str], chosen: Sequence[str | int] | None
) -> list[DescribedBand]:
    """Return the bands that every scene must have.

    Args:
        descriptor: all bands there are.
        have: names of bands that some scene has; others are in none, as the run card says.
        chosen: ``data.bands``; where it names bands, by name or else by common name, only those.
            Numbers count the bands of a scene, so that none can be left out.
    """
    used = [band for band in descriptor.bands if band.name in have]
    named = [c for c in chosen or () if isinstance(c, str)]
    if not chosen or len(named) < len(chosen):
        return used
    by_name = {band.name for band in used}
    picked = [b for b in used if b.name in named or b.common_name in set(named) - by_name]
    # A name that is nobody's is refused later, beside the names that there are.
    known = {name for band in picked for name in (band.name, band.common_name)}
    return picked if known.issuperset(named) else used


def lacking(
    name: str, bands: Collection[str], used: Sequence[DescribedBand], has: Iterable[str]
) -> str | None:
    """Say which of the bands in use a scene lacks; None if it has them all."""
    missing = [band.name for band in used if band.name not in bands]
    if not missing:
        return None
    return (
        f"{name} has no file for {', '.join(missing)} (it has {', '.join(has)}). Complete it, "
        "remove it, or name the bands that all scenes have in data.bands."
    )


def _key(relative: str, match: re.Match[str]) -> tuple[str, str]:
    """Return what the files of a scene share, and the part of it before the band."""
    if "band" not in match.re.groupindex:
        return relative, relative
    spans = sorted(match.span(g) for g in match.re.groupindex if g in _APART and match[g])
    first = match.start("band")
    key, scene, at = "", "", 0
    for start, stop in spans:
        key += relative[at:start]
        scene += relative[at : min(start, first)] if at < first else ""
        at = max(at, stop)
    key, scene = (text.replace("//", "/").lstrip("/") for text in (key + relative[at:], scene))
    return key, scene.rstrip("_-./") or key


def _add(entry: _Files, groups: Mapping[str, str | None], path: str) -> None:
    key, size = groups.get("band") or "", groups.get("resolution") or "0"
    if not size.isdecimal():
        raise SourceError(
            f"The resolution {size!r} in the name of {path} is not a whole number. Change the "
            "group `resolution` in the descriptor's pattern."
        )
    resolution = int(size)
    other = entry.files.get(key)
    if other is None or resolution < other[0]:
        entry.files[key] = (resolution, path)
    elif resolution == other[0]:
        raise SourceError(
            f"{other[1]} and {path} are both band {key!r} of the scene {entry.name}. Remove one, or "
            "let the groups of the descriptor's pattern tell them apart."
        )


def _bands_of(entry: _Files, descriptor: Descriptor) -> dict[str, Wanted]:
    """Look the bands of a scene up among its files."""
    found = {}
    for band in descriptor.bands:
        key, number = descriptor.places[band.name]
        path = _path(entry, key)
        if path is not None:
            found[band.name] = Wanted(path, number, band)
    return found


def _path(entry: _Files, key: str | None) -> str | None:
    """Return the file of a key; None as key means the scene's only file."""
    if key is None:
        return next((path for _, path in entry.files.values()), None)
    return entry.files[key][1] if key in entry.files else None


def _scene(
    entry: _Files,
    bands: Mapping[str, Wanted],
    descriptor: Descriptor,
    used: Sequence[DescribedBand],
    *,
    is_unique: bool,
) -> Scene:
    name = entry.name if is_unique else entry.long_name
    quality = descriptor.quality
    layer = None if quality is None else _path(entry, quality.file)
    return Scene(
        name=name,
        bands=tuple(bands[band.name] for band in used if band.name in bands),
        quality=None if quality is None or layer is None else (layer, quality),
        datetime=entry.date,
        datetime_from="file name" if entry.date else None,
        lacks=entry.lacks or lacking(name, bands, used, sorted(entry.files)),
    )


def _relative(path: str, root: str) -> str:
    if "://" in path or path.startswith("/vsi"):
        return path.removeprefix(root).lstrip("/")
    return os.path.relpath(path, root).replace(os.sep, "/")


def _full(scene: str, root: str) -> str:
    return f"{root.rstrip('/')}/{scene}" if "://" in root else str(Path(root, scene))


def _date(match: re.Match[str], form: str | None, path: str) -> str | None:
    text = match.groupdict().get("date")
    if text is None or form is None:
        return None
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC).isoformat()
    except ValueError:
        raise SourceError(
            f"The date {text!r} in the name of {path} is not written as {form!r}. Change "
            "`date_format` or the group `date` in the descriptor."
        ) from None
