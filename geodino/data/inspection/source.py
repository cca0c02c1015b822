"""An archive as it lies on disk: looked through, measured a little, and asked about."""

import shlex
from collections.abc import Sequence

from geodino.data.config import DataConfig
from geodino.data.inspection import facts
from geodino.data.inspection.bands import band_facts, observations, sampled
from geodino.data.inspection.found import Inspection, Kind, QualityFacts, Question
from geodino.data.inspection.ground import ground
from geodino.data.inspection.kinds import Readable
from geodino.data.inspection.names import bands_in
from geodino.data.inspection.names import select as select_names
from geodino.data.inspection.pixels import MAX_PIXELS, Values, look
from geodino.data.inspection.quality import quality_facts
from geodino.data.inspection.questions import questions
from geodino.data.inspection.scan import Progress, duplicates
from geodino.data.inspection.survey import Survey, survey
from geodino.data.sources.product import sentinel_2_offset

_NAMED = 12
"""Bands named in a sentence."""


def inspect(
    src: str | Sequence[str],
    config: DataConfig,
    *,
    pixels: int = MAX_PIXELS,
    threads: int,
    progress: Progress | None = None,
) -> Inspection:
    """Say what a source holds, and ask what it cannot tell.

    Args:
        src: see :func:`geodino.data.sources.catalogue.catalogue`; or paths of files that are one source.
        config: what is declared about the files.
        pixels: how many to read at most, about; a seeded choice of windows is read of more.
        threads: files and windows read at once.
        progress: told (what is counted, how many are done, how many there are).

    Raises:
        SourceError: nothing is there, or what is declared cannot be applied to any file.
    """
    found = survey(src, config, threads=threads, progress=progress)
    return examine(found, config, pixels=pixels, threads=threads, progress=progress)


def examine(
    found: Survey,
    config: DataConfig,
    *,
    pixels: int = MAX_PIXELS,
    threads: int,
    progress: Progress | None = None,
) -> Inspection:
    """Measure what a survey found; see :func:`inspect`."""
    copies = duplicates(found.infos, threads=threads, progress=progress)
    budgets = _budgets([kind.index.pixels for kind in found.kinds], pixels)
    bad = list(found.bad)
    kinds = []

    def windows(done: int, total: int) -> None:
        if progress is not None:
            progress("windows", done, total)

    for kind, budget in zip(found.kinds, budgets, strict=True):
        values = look(kind.index, config, pixels=budget, threads=threads, progress=windows)
        bad += values.bad.items()
        quality, bad_layers = quality_facts(kind, config, threads=threads)
        bad += bad_layers
        kinds.append(_kind(found, kind, values, quality, copies, config))
    return Inspection(
        source=found.source,
        root=found.root,
        reading=found.notes,
        files=found.files,
        scenes=found.scenes,
        others=found.others,
        size_bytes=sum(info.size for info in found.infos.values()),
        unreadable=tuple(bad),
        duplicates=copies,
        apart=found.formats or found.apart,
        kinds=tuple(kinds),
        questions=tuple(_source_questions(found, kinds)),
    )


def _kind(
    found: Survey,
    kind: Readable,
    values: Values,
    quality: QualityFacts | None,
    copies: Sequence[Sequence[str]],
    config: DataConfig,
) -> Kind:
    """Put everything together that is known about a kind."""
    index = kind.index
    infos = facts.rasters(index.tiles)
    bands = band_facts(kind, values, config)
    dates = facts.dates(index.tiles)
    own = found.below_root(kind)
    return Kind(
        name=_name(kind, found.kinds),
        tiles=len(index.tiles),
        files=len(infos),
        size_bytes=sum(info.size for info in infos),
        example=infos[0].path,
        select=_pattern(found, kind, own),
        dtype=index.dtype,
        bands=bands,
        crs=facts.crs_counts(index.tiles),
        gsd_m=facts.gsd_range(index.tiles),
        unplaced=sum(tile.gsd_m is None for tile in index.tiles),
        sides=facts.sides(index.tiles),
        pixels=index.pixels,
        drivers=facts.counted(info.driver for info in infos),
        layouts=facts.layouts(infos),
        masks=facts.mask_counts(infos, index.rule),
        nodata=facts.nodata_counts(infos),
        validity=facts.validity(infos, index.rule),
        decisions=(*index.rule.reasons, *index.notes, *_offsets(kind, config)),
        dates=dates,
        ground=ground(index.tiles, copies),
        sampled=sampled(kind, values, config) if values.pixels_read else None,
        quality=quality,
        observations=observations(kind, values),
        questions=questions(kind, bands, values, dates, own, config),
    )


def _budgets(sizes: Sequence[int], pixels: int) -> list[int]:
    """Share pixels among kinds: what small ones do not need goes to the larger ones."""
    budgets, left = [0] * len(sizes), pixels
    for place, i in enumerate(sorted(range(len(sizes)), key=lambda i: sizes[i])):
        budgets[i] = min(sizes[i], left // (len(sizes) - place))
        left -= budgets[i]
    return budgets


def _offsets(kind: Readable, config: DataConfig) -> list[str]:
    """Say which Sentinel-2 offsets products declare, and where."""
    descriptor = None if kind.listed is None else kind.listed.descriptor
    is_by_baseline = descriptor is not None and descriptor.radiometry == "sentinel-2"
    if not is_by_baseline or kind.offset_unknown or config.offset is not None:
        return []
    found = (sentinel_2_offset(scene.paths[0]) for scene in kind.scenes)
    counts = facts.counted(f"{o.value:g} ({o.found_in})" for o in found if o is not None)
    listed = ", ".join(f"{count:,} x {said}" for said, count in counts.items())
    return [f"Sentinel-2 offsets of reflectance: {listed}"]


def _name(kind: Readable, kinds: Sequence[Readable]) -> str:
    """Name a kind by what tells it from the others."""
    plain = _plain_name(kind)
    alike = [other for other in kinds if _plain_name(other) == plain]
    if len(alike) == 1:
        return plain
    return f"{plain} ({', '.join(band.name for band in kind.index.bands[:_NAMED])})"


def _plain_name(kind: Readable) -> str:
    count = len(kind.index.bands)
    return f"{count} {'band' if count == 1 else 'bands'} of {kind.index.dtype}"


def _pattern(found: Survey, kind: Readable, own: Sequence[str]) -> str | None:
    """Return the pattern that finds a kind among the others; empty where there is no simple one."""
    if len(found.kinds) == 1:
        return None
    others = [
        path for other in found.kinds if other is not kind for path in found.below_root(other)
    ]
    selection = select_names(own, others)
    return f"{found.root}/{selection.glob}" if selection and selection.glob else ""


def _source_questions(found: Survey, kinds: Sequence[Kind]) -> list[Question]:
    if found.formats is not None:
        return [
            Question(
                topic="formats",
                text="Which of the formats is meant?",
                why=f"One source holds one format. {found.formats}",
                option="--set data.dataset=NAME",
            )
        ]
    if found.apart is None:
        return _band_files(found)
    lines = [
        f"{shlex.quote(kind.select)}   # {kind.name}"
        if kind.select
        else f"# {kind.name}: no simple pattern finds them alone; one is {kind.example}"
        for kind in kinds
    ]
    shared = min(len(kind.bands) for kind in kinds)
    if len({kind.dtype for kind in kinds}) == 1 and shared < len(max(kinds, key=_bands).bands):
        numbers = ",".join(str(i) for i in range(1, shared + 1))
        lines.append(f"--set 'data.bands=[{numbers}]'   # the bands that all have")
    return [
        Question(
            topic="kinds",
            text=f"Which of {len(kinds)} kinds of files is meant? Name it as the source.",
            why=f"One model reads one kind. {found.apart}",
            option="\n".join(lines),
        ),
        *_band_files(found),
    ]


def _band_files(found: Survey) -> list[Question]:
    """Ask whether files of one band are bands of common scenes, where names look like it."""
    single = [
        k for k in found.kinds if len(k.index.bands) == 1 and k.scenes and not k.scenes[0].bands
    ]
    names = [path for kind in single for path in found.below_root(kind)]
    bands = bands_in(names) if names else ()
    if len(bands) < 2:
        return []
    return [
        Question(
            topic="bands",
            text=f"Are {', '.join(bands[:_NAMED])} bands of common scenes? {len(names):,} files of "
            "one band each are named for them, and are taken for tiles of their own.",
            why="Read one by one, every band is a picture of its own and none has a colour.",
            descriptor=f"files: '[_.](?P<band>{'|'.join(bands[:_NAMED])})[_.]'",
            option="--write-descriptor FOLDER drafts a descriptor that puts them together",
        )
    ]


def _bands(kind: Kind) -> int:
    return len(kind.bands)
