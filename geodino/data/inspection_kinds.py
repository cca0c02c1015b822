"""Scenes sorted into kinds: each kind can be read as one source, with an index of its own.

A source is read as :func:`geodino.data.index.build_index` reads it. Where that refuses, because
files have other bands, types or units, the files are sorted by what differs and tried again, part
by part; declarations that do not fit are told and left out.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pyproj import CRS
from pyproj.exceptions import CRSError

from geodino.data.assembly import assemble
from geodino.data.config import DataConfig
from geodino.data.evidence import decide
from geodino.data.inspection import Question
from geodino.data.naming import Channels, channels_of, choose_bands, declared_channels
from geodino.data.recoding import bring_together
from geodino.data.sources.catalogue import Catalogue
from geodino.data.sources.scenes import Scene
from geodino.data.tiles import TileIndex
from geodino.errors import BandError, SourceError
from geodino.geo.grid import Grid
from geodino.geo.validity import ReadRule
from geodino.io.raster import RasterInfo

Bad = list[tuple[str, str]]

_WITHOUT: tuple[dict[str, object], ...] = (
    {"bands": None},
    {"decibel": False},
    {"mask": ()},
    {"grid": "finest", "resampling": "nearest"},
)
"""Declarations left out, one after the other, until a kind can be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Readable:
    """Scenes that can be read as one source."""

    index: TileIndex
    """Their tiles and what was decided about them."""

    listed: Catalogue | None
    """Where they were found; None for the rows of an index file."""

    scenes: tuple[Scene, ...]
    """One for each tile; none for the rows of an index file."""

    problems: tuple[Question, ...] = ()
    """Declarations that do not fit, or that are missing."""

    offset_unknown: bool = False
    """Whether these are Sentinel-2 scenes whose offset nothing tells."""


def sort_into_kinds(
    listed: Catalogue,
    infos: Mapping[str, RasterInfo],
    reasons: Mapping[str, str],
    config: DataConfig,
    *,
    threads: int,
) -> tuple[list[Readable], Bad, str | None]:
    """Sort the scenes of a catalogue into kinds.

    Args:
        listed: the scenes.
        infos: what is known of their rasters, by path.
        reasons: why other rasters are of no use, by path.
        config: what is declared.
        threads: files looked into at once.

    Returns:
        The kinds, the most frequent first; scenes that cannot be used with reasons; and why
        there are several kinds, None where there is one.
    """
    bad: Bad = list(listed.bad)
    scenes = []
    for scene in listed.scenes:
        why = scene.lacks or next((reasons[p] for p in scene.paths if p in reasons), None)
        if why is None:
            scenes.append(scene)
        else:
            bad.append((scene.name, why))
    sorter = _Sorter(listed, infos, config, threads)
    kinds = sorter.settle(scenes) if scenes else []
    kinds.sort(key=lambda kind: -len(kind.index.tiles))
    return kinds, bad + sorter.bad, sorter.apart


def family(grid: Grid) -> str:
    """Return ``projected``, ``geographic`` or ``local`` for the CRS of a grid; ``no CRS``."""
    return "no CRS" if grid.crs is None else _family(grid.crs)


@lru_cache(maxsize=512)
def _family(crs: str) -> str:
    try:
        parsed = CRS.from_user_input(crs)
    except CRSError:
        return "local"
    return "geographic" if parsed.is_geographic else "projected" if parsed.is_projected else "local"


class _Sorter:
    def __init__(
        self,
        listed: Catalogue,
        infos: Mapping[str, RasterInfo],
        config: DataConfig,
        threads: int,
    ) -> None:
        self.bad: Bad = []
        self.apart: str | None = None
        self._listed = listed
        self._infos = infos
        self._config = config
        self._threads = threads

    def settle(self, scenes: Sequence[Scene]) -> list[Readable]:
        """Read scenes as one source, or as several where they do not fit."""
        images = [self._infos[p] for p in dict.fromkeys(p for s in scenes for p in _images(s))]
        rule, damaged = decide(images, self._declared(), threads=self._threads)
        scenes, channels, problems, offset_unknown = self._all_channels(scenes, rule, dict(damaged))
        if not scenes:
            return []

        def read(config: DataConfig, *more: Question) -> Readable:
            return self._as_one(
                scenes, channels, rule, config, (*problems, *more), offset_unknown=offset_unknown
            )

        try:
            return [read(self._config)]
        except BandError as error:
            refusal = str(error)
        kinds = _grouped(scenes, [_type(c) for c in channels])
        if len(kinds) == 1:
            config = self._config
            for update in _WITHOUT:
                config = config.model_copy(update=update)
                try:
                    return [read(config, _misfit(refusal, missing="grid" in update))]
                except BandError:
                    continue
            kinds = _grouped(scenes, [_meaning(c) for c in channels])
        if len(kinds) == 1:
            self.bad += [(scene.name, refusal) for scene in scenes]
            return []
        self.apart = self.apart or refusal
        return [kind for part in kinds for kind in self.settle(part)]

    def _declared(self) -> DataConfig:
        """The config with what the descriptor declares about alpha and nodata, unless overruled."""
        descriptor = self._listed.descriptor
        if descriptor is None:
            return self._config
        values = {
            name: getattr(descriptor, name)
            for name in ("alpha", "nodata")
            if getattr(self._config, name) == "auto"
        }
        return self._config.model_copy(update=values)

    def _all_channels(
        self, scenes: Sequence[Scene], rule: ReadRule, damaged: Mapping[str, str]
    ) -> tuple[list[Scene], list[Channels], list[Question], bool]:
        """Return the scenes whose bands can be told, their bands, and what did not fit."""
        config = self._config
        descriptor = self._listed.descriptor
        by_baseline = descriptor is not None and descriptor.radiometry == "sentinel-2"
        offset_unknown = False
        problems: list[Question] = []
        while True:
            kept, channels, bad = [], [], []
            try:
                for scene in scenes:
                    why = next((damaged[p] for p in scene.paths if p in damaged), None)
                    try:
                        if why is None:
                            channels.append(self._channels(scene, rule, config, by_baseline))
                            kept.append(scene)
                            continue
                    except SourceError as error:
                        why = str(error)
                    bad.append((scene.name, why))
            except BandError as error:
                if config.band_names is not None:
                    config = config.model_copy(update={"band_names": None})
                    problems.append(_misfit(str(error)))
                elif by_baseline:
                    by_baseline, offset_unknown = False, True
                else:
                    raise
                continue
            self.bad += bad
            return kept, channels, problems, offset_unknown

    def _channels(
        self, scene: Scene, rule: ReadRule, config: DataConfig, by_baseline: bool
    ) -> Channels:
        if scene.bands is None:
            return channels_of(self._infos[scene.name], rule, config)
        return declared_channels(scene, self._infos, config, by_baseline=by_baseline)

    def _as_one(
        self,
        scenes: Sequence[Scene],
        channels: Sequence[Channels],
        rule: ReadRule,
        config: DataConfig,
        problems: tuple[Question, ...],
        *,
        offset_unknown: bool,
    ) -> Readable:
        """Make the index of scenes that fit together; see ``build_index``.

        Raises:
            BandError: they do not.
        """
        chosen, named = choose_bands(channels, config)
        bands, recodings, dtype, coded = bring_together(chosen, config)
        tiles, unfit = assemble(
            scenes,
            chosen,
            recodings,
            self._infos,
            config=config,
            descriptor=self._listed.descriptor,
        )
        self.bad += unfit
        by_name = {scene.name: scene for scene in scenes}
        index = TileIndex(
            root=self._listed.root,
            tiles=tuple(tiles),
            bands=bands,
            dtype=dtype,
            rule=rule,
            notes=tuple(dict.fromkeys((*named, *coded))),
        )
        return Readable(
            index=index,
            listed=self._listed,
            scenes=tuple(by_name[tile.path] for tile in tiles),
            problems=problems,
            offset_unknown=offset_unknown,
        )


def _misfit(refusal: str, *, missing: bool = False) -> Question:
    """Say what could not be done as declared."""
    if missing:
        return Question(
            topic="grid",
            text=f"Which grid do the bands of a scene take? {refusal}",
            why="Nothing is resampled without being told; here the finest grid and nearest "
            "neighbours were taken, for this inspection alone.",
            descriptor="grid: NAME_OF_A_BAND\nresampling: bilinear",
            option="--set data.grid=finest --set data.resampling=bilinear",
        )
    return Question(
        topic="declared",
        text=f"What was meant? {refusal}",
        why="The declaration was left out here; training stops at it.",
    )


def _images(scene: Scene) -> Iterable[str]:
    return (scene.name,) if scene.bands is None else (wanted.path for wanted in scene.bands)


def _type(channels: Channels) -> tuple[Hashable, ...]:
    return len(channels), tuple(sorted({channel.info.dtype for channel in channels}))


def _meaning(channels: Channels) -> tuple[Hashable, ...]:
    return tuple((channel.band.name, channel.band.unit) for channel in channels)


def _grouped(scenes: Sequence[Scene], keys: Iterable[Hashable]) -> list[list[Scene]]:
    groups: dict[Hashable, list[Scene]] = defaultdict(list)
    for scene, key in zip(scenes, keys, strict=True):
        groups[key].append(scene)
    return list(groups.values())
