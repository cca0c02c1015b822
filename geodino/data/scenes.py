"""Scenes: which files belong together, and what is declared about their bands."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

from geodino.data.descriptor import DescribedBand, Descriptor, QualityLayer
from geodino.errors import SourceError

_APART = ("band", "resolution", "folder")
"""Groups of a pattern in which the files of one scene differ."""


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


@dataclass(slots=True)
class _Files:
    """The files of one scene while they are collected: file key -> (resolution, path)."""

    name: str
    date: str | None
    files: dict[str, tuple[int, str]] = field(default_factory=dict)


def described(
    files: Sequence[str], descriptor: Descriptor, *, root: str, name: str
) -> tuple[list[Scene], list[str]]:
    """Group files into scenes as a descriptor says.

    Args:
        files: paths below ``root``.
        descriptor: the format.
        root: what paths are relative to.
        name: what the descriptor is called, for messages.

    Returns:
        Scenes in the order of their names, and the files that the pattern does not find.

    Raises:
        SourceError: the pattern finds none of the files; the nearest are named.
    """
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
            date = _date(match, descriptor.date_format, path)
            full = _full(scene, root) if descriptor.has_file_per_band else path
            entry = found[key] = _Files(full, date)
        groups = match.groupdict()
        _add(entry, groups.get("band") or "", int(groups.get("resolution") or 0), path)
    if not found:
        nearest = get_close_matches(descriptor.example, [_relative(p, root) for p in files], 3, 0.0)
        raise SourceError(
            f"The pattern of {name} finds none of the {len(files)} rasters below {root}. "
            f"It looks for names such as {descriptor.example}; the nearest there: "
            f"{', '.join(nearest)}. Change `files` in the descriptor, or name other files."
        )
    used = [b for b in descriptor.bands if _is_in_any(b, descriptor, found.values())]
    scenes = [_scene(entry, descriptor, used) for entry in found.values()]
    return sorted(scenes, key=lambda s: s.name), left_out


def missing_bands(scenes: Iterable[Scene], descriptor: Descriptor) -> list[str]:
    """Return the bands of a descriptor that no scene has."""
    have = {w.band.name for scene in scenes for w in scene.bands or ()}
    return [band.name for band in descriptor.bands if band.name not in have]


def _key(relative: str, match: re.Match[str]) -> tuple[str, str]:
    """Return what the files of a scene share, and its readable form."""
    if "band" not in match.re.groupindex:
        return relative, relative
    spans = sorted(match.span(g) for g in match.re.groupindex if g in _APART and match[g])
    first = match.start("band")
    key, scene, at = "", "", 0
    for start, stop in spans:
        key += relative[at:start] + "*"
        scene += relative[at : min(start, first)] if at < first else ""
        at = stop
    return key + relative[at:], scene.replace("//", "/").rstrip("_-./")


def _add(entry: _Files, key: str, resolution: int, path: str) -> None:
    other = entry.files.get(key)
    if other is None or resolution < other[0]:
        entry.files[key] = (resolution, path)
    elif resolution == other[0]:
        raise SourceError(
            f"{other[1]} and {path} are both band {key!r} of the scene {entry.name}. Remove one, or "
            "let the groups of the descriptor's pattern tell them apart."
        )


def _is_in_any(band: DescribedBand, descriptor: Descriptor, all_files: Iterable[_Files]) -> bool:
    key, _ = descriptor.place(band)
    return key is None or any(key in entry.files for entry in all_files)


def _scene(entry: _Files, descriptor: Descriptor, used: Sequence[DescribedBand]) -> Scene:
    """Look the bands of a scene up among its files."""
    only = next(iter(entry.files.values()))[1]
    bands, lacks = [], None
    for band in used:
        key, number = descriptor.place(band)
        path = only if key is None else entry.files.get(key, (0, ""))[1]
        if not path:
            lacks = (
                f"{entry.name} has no file for band {band.name} (it has "
                f"{', '.join(sorted(entry.files))}). Complete it, remove it, or choose the bands "
                "that all scenes have with data.bands."
            )
            continue
        bands.append(Wanted(path, number, band))
    quality = descriptor.quality
    layer = None
    if quality is not None:
        found = only if quality.file is None else entry.files.get(quality.file, (0, ""))[1]
        layer = (found, quality) if found else None
    return Scene(
        name=entry.name,
        bands=tuple(bands),
        quality=layer,
        datetime=entry.date,
        datetime_from="file name" if entry.date else None,
        lacks=lacks,
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
