"""``geodino inspect``: what an archive holds, said, shown and drafted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodino.config import parse_overrides
from geodino.data.config import DataConfig
from geodino.data.inspection.draft import Drafted, refuse_existing, write_draft
from geodino.data.inspection.found import Inspection
from geodino.data.inspection.source import examine
from geodino.data.inspection.survey import survey
from geodino.data.parallel import thread_count
from geodino.data.sources.find import INDEX, SHARDS, STORES, is_remote
from geodino.data.tiles import first_reasons
from geodino.errors import RecipeError, SourceError
from geodino.files import write_text
from geodino.runs.inspect.text import as_text
from geodino.runs.progress import StagedProgress


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectJob:
    """What is to be inspected, and how."""

    sources: tuple[str, ...]
    """Sources; several files of this machine are one source together."""

    overrides: tuple[str, ...] = ()
    """``data.x=y``, as recipes have it."""

    aoi: str | None = None
    """``data.aoi``."""

    datetime: str | None = None
    """``data.datetime``."""

    where: str | None = None
    """``data.where``."""

    pixels: int | None = None
    """Pixels read at most; None takes the default."""

    html: Path | None = None
    """Where a page is written."""

    draft: Path | None = None
    """Folder where a descriptor is drafted."""

    strict: bool = False
    """Whether a file that cannot be used is an error."""

    quiet: bool = False
    """Show no progress."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspected:
    """What came of it."""

    inspections: tuple[Inspection, ...]
    """One a source."""

    written: tuple[str, ...]
    """What was written, as sentences."""

    refusal: str | None
    """Why it is a failure nevertheless: nothing can be read, or ``strict`` finds it wanting."""

    @property
    def text(self) -> str:
        """For people."""
        parts = [as_text(inspection) for inspection in self.inspections]
        return "\n\n\n".join([*parts, *(["\n".join(self.written)] if self.written else [])])

    @property
    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {"sources": [inspection.to_json() for inspection in self.inspections]}


def inspect(job: InspectJob) -> Inspected:
    """Look through sources, and write what was asked for.

    Raises:
        GeodinoError: a source or a declaration that cannot be used.
    """
    config = _config(job)
    sources = _together(job.sources)
    if job.draft is not None:
        if len(sources) > 1:
            raise SourceError(
                f"A descriptor describes one source, and {len(sources)} are named. Draft one at a "
                "time."
            )
        refuse_existing(job.draft)
    threads = max(2, thread_count(config.threads))
    inspections, written = [], []
    for source in sources:
        with StagedProgress(quiet=job.quiet) as stages:
            found = survey(source, config, threads=threads, progress=stages)
            more = {} if job.pixels is None else {"pixels": job.pixels}
            inspection = examine(found, config, threads=threads, progress=stages, **more)
        inspections.append(inspection)
        if job.draft is not None and found.kinds:
            written.append(_drafted(write_draft(found, inspection, job.draft)))
    if job.html is not None:
        from geodino.runs.inspect.html import as_html

        write_text(job.html, as_html(inspections))
        written.append(f"The page is {job.html}")
    return Inspected(
        inspections=tuple(inspections),
        written=tuple(written),
        refusal=_refusal(inspections, strict=job.strict or config.strict),
    )


def _config(job: InspectJob) -> DataConfig:
    values: dict[str, Any] = {}
    if job.overrides:
        values = parse_overrides(job.overrides)
    data = dict(values.pop("data", None) or {})
    shorthands = {"aoi": job.aoi, "datetime": job.datetime, "where": job.where}
    data |= {name: value for name, value in shorthands.items() if value is not None}
    if values:
        raise RecipeError(
            f"--set {next(iter(values))}: an inspection has no such section. Of a recipe it takes "
            "data.* only, such as --set data.nodata=0."
        )
    return DataConfig.parse(data, source="--set data")


def _together(sources: Sequence[str]) -> list[str | Sequence[str]]:
    """Take several files as one source: a shell that expands ``*.tif`` names them one by one."""
    files = [name for name in sources if _is_raster_file(name)]
    if len(files) < 2:
        return list(sources)
    return [files, *(name for name in sources if name not in files)]


def _is_raster_file(name: str) -> bool:
    """Whether a source is a file that is one raster, not a list or a box of them."""
    lists = (INDEX, SHARDS, *STORES, ".json", ".geojson", ".yaml", ".yml")
    return not is_remote(name) and Path(name).is_file() and not name.lower().endswith(lists)


def _drafted(drafted: Drafted) -> str:
    out = f", and leaves {drafted.left_out:,} files out" if drafted.left_out else ""
    return (
        f"{drafted.path} is drafted: it finds {drafted.scenes:,} scenes{out}. Answer the questions "
        f"in it; then {drafted.path.parent} is a source."
    )


def _refusal(inspections: Sequence[Inspection], *, strict: bool) -> str | None:
    for inspection in inspections:
        bad = inspection.unreadable
        if not inspection.kinds:
            return (
                f"{inspection.source} holds no readable raster ({len(bad)} files tried). "
                f"{first_reasons(bad)}"
            )
        if bad and strict:
            return (
                f"{len(bad)} of {inspection.files} files of {inspection.source} cannot be used, and "
                f"--strict makes that an error. {first_reasons(bad)}"
            )
    return None
