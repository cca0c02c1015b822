"""What file names tell: patterns that select files, dates, and bands that have files of their own.

Names are paths below the root of a source, with ``/`` between folders. What is found here is
proposed to the user and written into drafts, never used by itself.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import get_args

from geodino.geo.bands import CommonName

_BOUNDARIES = "_-. "

_DATES = (
    (r"\d{8}T\d{6}", "%Y%m%dT%H%M%S"),
    (r"\d{4}-\d{2}-\d{2}", "%Y-%m-%d"),
    (r"\d{4}_\d{2}_\d{2}", "%Y_%m_%d"),
    (r"\d{8}", "%Y%m%d"),
)
"""How dates are written in names, and for ``strptime``."""

_YEARS = range(1972, 2100)
"""Years a picture from space or from the air may be of: 1972 is Landsat 1."""

_BAND = re.compile(
    r"(?:^|(?<=[_.\-]))(?:SR_B\d{1,2}|ST_B\d{1,2}|B\d{1,2}A?|band_?\d{1,2}|"
    + "|".join(sorted(get_args(CommonName), key=len, reverse=True))
    + r")(?=[_.\-])",
    re.IGNORECASE,
)

_FOLDERS = 12
"""Folders for which patterns may be put together, and files of a folder that may be listed."""

_FULL = 0.8
"""Share of the scenes that must have several bands before files are taken for bands."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Two ways to name some files of a source."""

    glob: str
    """Pattern below the root, as ``--tiles`` takes it; empty where no single one will do."""

    head: str
    """Regular expression of how their paths begin; empty for anything."""

    tail: str
    """Regular expression of how their paths end."""

    between: str = ".*"
    """What may lie between."""

    @property
    def regex(self) -> str:
        """Regular expression, as ``files`` of a descriptor takes it."""
        return f"{self.head}{self.between}{self.tail}" if self.head else self.tail


@dataclass(frozen=True, slots=True)
class NamedDate:
    """A date in every name."""

    digits: str
    """Regular expression of its form."""

    format: str
    """How it is written, for ``strptime``."""

    example: str
    """One of them."""

    def regex(self, group: str = "") -> str:
        """Return what finds it, and nothing inside longer numbers; in a named group if asked."""
        inner = f"(?P<{group}>{self.digits})" if group else self.digits
        return rf"(?<!\d){inner}(?!\d)"


def select(own: Sequence[str], others: Sequence[str]) -> Selection | None:
    """Return the simplest pattern that finds all of ``own`` and none of ``others``, if any does."""
    if not others:
        return Selection("**/*", "", _endings(own))
    for candidate in _candidates(own):
        pattern = re.compile(candidate.regex)
        if all(map(pattern.search, own)) and not any(map(pattern.search, others)):
            return candidate
    return _folder_by_folder(own, others)


def date_in(names: Sequence[str]) -> NamedDate | None:
    """Return how a date is written that every name holds; None if not all do."""
    for digits, form in _DATES:
        date = NamedDate(digits, form, "")
        pattern = re.compile(date.regex())
        found = [match[0] for name in names if (match := pattern.search(name))]
        if len(found) == len(names) and all(_is_date(text, form) for text in found):
            return replace(date, example=found[0])
    return None


def bands_in(names: Sequence[str]) -> tuple[str, ...]:
    """Return the bands that files are named for, where each band has a file of its own.

    ``scene1_B02.tif``, ``scene1_B03.tif``, ``scene2_B02.tif`` ... give ``B02, B03``. Empty where
    fewer than half of the names call a band, or where many scenes would have only one.
    """
    scenes: dict[str, set[str]] = defaultdict(set)
    called = 0
    for name in names:
        match = _last(name)
        if match is not None:
            called += 1
            scenes[f"{name[: match.start()]}*{name[match.end() :]}"].add(match[0])
    several = sum(len(bands) > 1 for bands in scenes.values())
    if 2 * called < len(names) or several < _FULL * len(scenes):
        return ()
    return tuple(sorted({band for bands in scenes.values() for band in bands}, key=_order))


def names_a_band(name: str) -> bool:
    """Whether the name of a file calls a band, as :func:`bands_in` understands it."""
    return _last(name) is not None


def pattern_of(
    names: Sequence[str], selection: Selection, *, date: NamedDate | None, bands: Sequence[str]
) -> str:
    """Return a descriptor's pattern with the groups ``date`` and ``band``, in the order of names.

    Without the groups where no such pattern finds all names.
    """
    parts: list[tuple[int, str]] = []
    example = names[0]
    if date is not None and (match := re.search(date.regex(), example)):
        parts.append((match.start(), date.regex("date")))
    if bands and (match := _last(example)):
        listed = "|".join(re.escape(band) for band in sorted(bands, key=len, reverse=True))
        parts.append((match.start(), rf"(?:^|[/_.\-])(?P<band>{listed})(?=[_.\-])"))
    middle = ".*".join(text for _, text in sorted(parts))
    # What names share may hold the date itself: then only their endings are kept.
    for head in dict.fromkeys((selection.head, "")):
        for tail in dict.fromkeys((selection.tail, _endings(names))):
            regex = f"{head}.*{middle}.*{tail}" if head else f"{middle}.*{tail}"
            if parts and all(map(re.compile(regex).search, names)):
                return regex
    return selection.regex


def _endings(names: Sequence[str]) -> str:
    """Return a regular expression of the file endings of names."""
    found = sorted({re.escape(name[name.rfind(".") + 1 :]) for name in names})
    return rf"\.{found[0]}$" if len(found) == 1 else rf"\.(?:{'|'.join(found)})$"


def _candidates(own: Sequence[str]) -> Iterator[Selection]:
    """Yield patterns that may find names, the simplest first."""
    if len(own) == 1:
        yield Selection(own[0], "^", f"{re.escape(own[0])}$", between="")
        return
    files = [name.rsplit("/", 1)[-1] for name in own]
    extensions = {file[file.rfind(".") :] for file in files}
    extension = extensions.pop() if len(extensions) == 1 else ""
    ending = _from_boundary(_shared_start([file[::-1] for file in files])[::-1]) or extension
    start = _to_boundary(_shared_start(files))
    folder = _shared_start([_folder(name) for name in own])
    folder = folder[: folder.rfind("/") + 1]
    endings, suffix = _endings(own), f"{re.escape(ending)}$" if ending else _endings(own)
    if extension:
        yield Selection(f"**/*{extension}", "", endings)
    if ending:
        yield Selection(f"**/*{ending}", "", suffix)
    if folder:
        yield Selection(f"{folder}**/*{extension}", f"^{re.escape(folder)}", endings)
        yield Selection(f"{folder}**/*{ending}", f"^{re.escape(folder)}", suffix)
        yield Selection(f"{folder}*{ending}", f"^{re.escape(folder)}", suffix, "[^/]*")
    if start:
        head = rf"(?:^|/){re.escape(start)}"
        yield Selection(f"**/{start}*{ending}", head, suffix, "[^/]*")
    if all("/" not in name for name in own):
        yield Selection(f"*{ending}", "^", suffix, "[^/]*")
    last = {_folder(name).rstrip("/").rsplit("/", 1)[-1] for name in own}
    if len(last) == 1 and (parent := last.pop()):
        head = rf"(?:^|/){re.escape(parent)}/"
        yield Selection(f"**/{parent}/*{ending}", head, suffix, "[^/]*")


def _folder_by_folder(own: Sequence[str], others: Sequence[str]) -> Selection | None:
    """Return one expression made of a pattern for each folder, if there are few."""
    folders: dict[str, list[str]] = defaultdict(list)
    for name in own:
        folders[_folder(name)].append(name.rsplit("/", 1)[-1])
    if not 1 < len(folders) <= _FOLDERS:
        return None
    parts = []
    for folder, files in folders.items():
        beside = [name.rsplit("/", 1)[-1] for name in others if _folder(name) == folder]
        selection = select(files, beside)
        if selection is None and len(files) <= _FOLDERS:
            listed = "|".join(map(re.escape, sorted(files)))
            parts.append(f"{re.escape(folder)}(?:{listed})")
            continue
        if selection is None:
            return None
        inner = selection.regex.removeprefix("^").removesuffix("$")
        before = "" if selection.head.startswith("^") else "[^/]*"
        parts.append(f"{re.escape(folder)}{before}{inner.removeprefix('(?:^|/)')}")
    return Selection("", "^", f"(?:{'|'.join(parts)})$", between="")


def _shared_start(texts: Sequence[str]) -> str:
    """Return the longest text that all of them begin with."""
    low, high = min(texts), max(texts)  # what these two share, all between them share
    differing = (i for i, letter in enumerate(low) if not high.startswith(letter, i))
    return low[: next(differing, len(low))]


def _folder(name: str) -> str:
    return name[: name.rfind("/") + 1]


def _from_boundary(text: str) -> str:
    """Cut an ending so that it begins with a boundary: ``1.tif`` is chance, ``.tif`` is not."""
    places = [text.find(c) for c in _BOUNDARIES if c in text]
    return text[min(places) :] if places else ""


def _to_boundary(text: str) -> str:
    """Cut a beginning so that it ends with a boundary."""
    return text[: max(text.rfind(c) for c in _BOUNDARIES) + 1]


def _is_date(text: str, form: str) -> bool:
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC).year in _YEARS
    except ValueError:
        return False


def _last(name: str) -> re.Match[str] | None:
    """Return the last word of a file's name that calls a band."""
    found = list(_BAND.finditer(name, name.rfind("/") + 1))
    return found[-1] if found else None


def _order(band: str) -> tuple[int, str]:
    """Order bands by their number (B2 before B10, B8 before B8A), names without one last."""
    number = re.search(r"\d+", band)
    return (int(number[0]) if number else 1000, band)
