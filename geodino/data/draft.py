"""A first descriptor for an archive: what its files and the evidence tell, and what is to be asked."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from geodino.data.inspection import Inspection, Kind, Question
from geodino.data.inspection_kinds import Readable
from geodino.data.inspection_names import Selection, bands_in, names_a_band, pattern_of, select
from geodino.data.inspection_survey import Survey, below
from geodino.data.sources.descriptor import FILE, load_descriptor, root_of
from geodino.data.sources.find import find
from geodino.data.sources.scenes import described
from geodino.errors import SourceError
from geodino.files import write_text
from geodino.geo.bands import common_name
from geodino.io.raster import RasterInfo

_WIDE = 10_000
"""Characters of a line of YAML: patterns are not broken."""

_ORDER = (
    "description", "licence", "source", "root", "files", "example", "date_format", "alpha",
    "nodata", "grid", "resampling", "radiometry", "bands", "quality",
)  # fmt: skip
"""Keys of a descriptor, in the order in which they read best."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drafted:
    """A descriptor that was written."""

    path: Path
    """The file."""

    scenes: int
    """Scenes it finds."""

    left_out: int
    """Files below its root that it does not find."""


def refuse_existing(folder: Path) -> None:
    """Refuse a folder that has a descriptor already.

    Raises:
        SourceError: it has.
    """
    if (folder / FILE).exists():
        raise SourceError(
            f"{folder / FILE} exists already and is not overwritten. Name another folder, or "
            "remove it."
        )


def write_draft(found: Survey, inspection: Inspection, folder: Path) -> Drafted:
    """Write ``dataset.yaml`` for the most frequent kind of a source, and try it.

    Args:
        found: the files.
        inspection: what is known about them.
        folder: where to; in the archive's own folder it makes the archive describe itself.

    Raises:
        SourceError: the source is no folder of files, nothing of it can be read, or the folder
            has a descriptor.
    """
    refuse_existing(folder)
    if not found.kinds:
        raise SourceError(f"{found.source} holds nothing that a descriptor could describe.")
    if not _is_of_files(found.kinds[0]):
        raise SourceError(
            f"{found.source} needs no descriptor: drafts are for files in folders of this machine. "
            "Tile indexes, STAC documents, zarr stores and shards say themselves what they hold."
        )
    path = folder / FILE
    write_text(path, draft(found, inspection, folder))
    descriptor = load_descriptor(path)
    root = root_of(path, descriptor)
    got = described(find(root).files, descriptor, root=root, name=str(path))
    return Drafted(path=path, scenes=len(got.scenes), left_out=len(got.left_out))


def draft(found: Survey, inspection: Inspection, folder: Path) -> str:
    """Return the text of a descriptor for the most frequent kind of a source."""
    kind, facts = found.kinds[0], inspection.kinds[0]
    known = None if kind.listed is None else kind.listed.descriptor
    remarks = [
        f"Draft for {found.root}: {facts.tiles:,} tiles, {facts.name}.",
        "What files and pixels tell is filled in; the questions below are to be answered here.",
    ]
    if known is not None:
        values = known.model_dump(mode="json", exclude_defaults=True)
    else:
        values, more = _drafted(found, kind, facts)
        remarks += more
    # Links are followed: a path through one cannot be retraced with "..".
    values["root"] = os.path.relpath(os.path.realpath(found.root), os.path.realpath(folder))
    remarks += [
        f"Not described here: {other.tiles:,} tiles, {other.name}, such as {other.example}."
        for other in inspection.kinds[1:]
    ]
    lines = [f"# {remark}" for remark in remarks] + _yaml(values)
    for question in (*inspection.questions, *facts.questions):
        lines += ["", *_commented(question)]
    return "\n".join(lines) + "\n"


def _is_of_files(kind: Readable) -> bool:
    """Whether a kind consists of files on this machine that a pattern could find."""
    if kind.listed is None:
        return False
    is_stac = kind.scenes[0].bands is not None and kind.listed.descriptor is None
    return not is_stac and all(Path(path).is_file() for path in kind.index.tiles[0].files)


def _drafted(found: Survey, kind: Readable, facts: Kind) -> tuple[dict[str, Any], list[str]]:
    """Return the keys of a descriptor for files that no known one describes, and remarks."""
    own = found.below_root(kind)
    remarks = []
    bands = bands_in(own) if len(facts.bands) == 1 else ()
    if bands:
        own = [name for name in own if names_a_band(name)]
        remarks.append(f"Files named for {', '.join(bands)} are taken for bands of common scenes.")
    # Files that cannot be read are told whenever the source is; patterns need not avoid them.
    free = {*own, *(below(path, found.root) for path, _ in found.bad)}
    others = [path for path in _all_below(found.root) if path not in free]
    selection = select(own, others)
    if selection is None:
        selection = select(own, []) or Selection("**/*", "", "$")
        remarks.append(
            f"The pattern also finds {len(others):,} other files, such as {others[0]}: change it, "
            "or give these a folder of their own."
        )
    values: dict[str, Any] = {
        "description": f"{facts.name} below {Path(found.root).name}",
        "files": pattern_of(own, selection, date=None, bands=bands),
        "example": own[0],
    }
    rule = kind.index.rule
    if any(info.alpha is not None for info in _infos(kind)):
        values["alpha"] = rule.alpha
    if rule.nodata != "tag" or set(facts.nodata) != {"none"}:
        values["nodata"] = rule.nodata
    values["bands"] = _band_files(bands, facts) if bands else _bands(kind)
    return values, remarks


def _all_below(root: str) -> list[str]:
    return [below(path, root) for path in find(root).files]


def _infos(kind: Readable) -> list[RasterInfo]:
    return [part.info for tile in kind.index.tiles for part in tile.parts]


def _bands(kind: Readable) -> list[dict[str, Any]]:
    """Return the bands of files that hold all of them."""
    part = kind.index.tiles[0].parts[0]
    out = []
    for place, (band, number) in enumerate(zip(kind.index.bands, part.bands, strict=True), start=1):
        said = (part.info.scales[number - 1], part.info.offsets[number - 1])
        out.append(
            {
                "name": band.name,
                **({} if number == place else {"number": number}),
                **_meaning(band.common_name, band.wavelength_nm, band.unit),
                # What files say themselves may differ among them, and is left to them.
                **({} if (band.scale, band.offset) == said else _code(band.scale, band.offset)),
            }
        )
    return out


def _band_files(bands: Sequence[str], facts: Kind) -> list[dict[str, Any]]:
    """Return the bands of scenes with a file for each."""
    unit = facts.bands[0].unit
    return [{"name": band, **_meaning(common_name(band), None, unit)} for band in bands]


def _meaning(common: str | None, wavelength_nm: float | None, unit: str) -> dict[str, Any]:
    known = {"common_name": common, "wavelength_nm": wavelength_nm}
    declared = {} if unit == "unknown" else {"unit": unit}
    return {name: value for name, value in known.items() if value is not None} | declared


def _code(scale: float, offset: float) -> dict[str, float]:
    return {"scale": scale, "offset": offset}


def _yaml(values: Mapping[str, Any]) -> list[str]:
    """Write the keys of a descriptor: one line a band, the rest as YAML has it."""
    lines = []
    for key in _ORDER:
        if key not in values:
            continue
        if key == "bands":
            lines += ["bands:", *(f"  - {_flow(band)}" for band in values[key])]
        else:
            lines.append(yaml.safe_dump({key: values[key]}, sort_keys=False, width=_WIDE).rstrip())
    return lines


def _flow(value: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(value), default_flow_style=True, sort_keys=False, width=_WIDE)
    return text.strip()


def _commented(question: Question) -> list[str]:
    lines = [f"# {line}" for line in textwrap.wrap(question.text, 96)]
    return lines + [f"#   {line}" for line in question.descriptor.splitlines()]
