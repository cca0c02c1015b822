"""The rasters a command reads, each checked against what its model demands."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np

from geodino.config import parse_overrides
from geodino.data.config import DataConfig
from geodino.data.index import Tile, TileIndex, TileReader, build_index
from geodino.data.loader import default_threads
from geodino.errors import ContractError, RecipeError
from geodino.geo.bands import Band
from geodino.geo.contract import Accept, InputContract, Offer
from geodino.geo.regrid import Resampling
from geodino.geo.windows import Window
from geodino.infer.chips import Chipping, Raster, Read
from geodino.io.metadata import Point, area_or_point
from geodino.io.raster import HandlePool
from geodino.runs.device import Precision

_SAMPLES = 12
"""Windows of a raster that the size of its values is judged by."""

_SAMPLE_SIDE = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Meeting:
    """What the user says about how a model and an image meet."""

    bands: tuple[str | int, ...] | None = None
    """Bands to read, in the model's order: names, or numbers (the first is 1)."""

    scale: float | None = None
    """What stored values are multiplied by before the model."""

    accept: tuple[Accept, ...] = ()
    """Differences from the training data that are taken as they are."""

    gsd_m: float | None = None
    """Ground sampling distance the model is shown; None is the raster's own."""

    chip: int | None = None
    """Side of a chip, pixels; None is that of the crops the model was trained on."""

    batch: int | None = None
    """Chips per forward pass; None fits the device."""

    precision: Precision = "auto"
    """What the model's matrices are multiplied in."""

    @classmethod
    def asked(
        cls,
        *,
        bands: Sequence[str | int] | None,
        scale: float | None,
        accept: Sequence[str],
        chip: int | None,
        batch: int | None,
        precision: str = "auto",
        gsd_m: float | None = None,
    ) -> "Meeting":
        """Check what a user wrote; see the fields.

        Raises:
            RecipeError: an unknown word in ``accept`` or ``precision``, or a factor that is none.
        """
        if scale is not None and not 0 < scale < math.inf:
            raise RecipeError(
                f"--scale {scale:g}: stored values are multiplied by it, so it is above 0."
            )
        return cls(
            bands=None if bands is None else tuple(bands),
            scale=scale,
            accept=parse_accept(accept),
            gsd_m=gsd_m,
            chip=chip,
            batch=batch,
            precision=parse_precision(precision),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One raster of a job."""

    path: str
    """The file, or what the files of a scene share."""

    name: str
    """Unique among the sources; good in a file name."""

    raster: Raster
    files: tuple[str, ...]
    """Everything that is opened to read it."""

    bands: tuple[Band, ...]
    """What is read of it."""

    dtype: str
    """Type of the pixels that are read."""

    time: str | None = None
    """Acquisition, RFC 3339; None where unknown."""

    area_or_point: Point = "Area"
    members: tuple["Source", ...] = ()
    """What it is made of, the one that counts most first; without any it is one raster."""

    @property
    def origins(self) -> tuple["Source", ...]:
        """The rasters that its pixels come from: those of its members, or itself."""
        return tuple(origin for one in self.members for origin in one.origins) or (self,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """All rasters of a job, in the order they were named."""

    sources: tuple[Source, ...]
    resampling: Resampling | None
    """How a raster comes to the grid of another (``data.resampling``); None: not at all."""

    notes: tuple[str, ...]
    """Decisions on how files are read, as sentences."""

    bad: tuple[tuple[str, str], ...]
    """Files that cannot be used, with the reason."""


def parse_accept(words: Sequence[str]) -> tuple[Accept, ...]:
    """Check the words of ``--accept``.

    Raises:
        RecipeError: an unknown one.
    """
    known: dict[str, Accept] = {word: word for word in get_args(Accept)}
    for word in words:
        if word not in known:
            raise RecipeError(f"--accept {word}: known are {', '.join(known)}.")
    return tuple(known[word] for word in words)


def parse_precision(word: str) -> Precision:
    """Check what ``--precision`` says.

    Raises:
        RecipeError: an unknown word.
    """
    known: dict[str, Precision] = {one: one for one in get_args(Precision)}
    if word not in known:
        raise RecipeError(f"--precision {word}: choose {', '.join(known)}.")
    return known[word]


def parse_bands(words: Sequence[str]) -> tuple[str | int, ...] | None:
    """Return the bands of ``--bands``: numbers where they are numbers, else names."""
    return tuple(int(w) if w.isdigit() else w for w in words) or None


def open_sources(
    rasters: Sequence[str],
    contract: InputContract,
    how: Meeting,
    *,
    pool: HandlePool,
    overrides: Sequence[str] = (),
    time: str | None = None,
    strict: bool = False,
) -> Sources:
    """Find and describe rasters, and check each against the contract before any is encoded.

    Args:
        rasters: folders, patterns, files or tile indexes.
        contract: of the model.
        how: what the user says about it.
        pool: where open files are kept.
        overrides: ``data.KEY=VALUE``, how files are read (``data.nodata``, ``data.alpha``).
        time: acquisition of all of them; None takes each file's own, if it has one.
        strict: whether an unreadable file among readable ones is an error.

    Raises:
        SourceError: a raster cannot be read.
        BandError: a band that was asked for is not there.
        ContractError: a raster is not what the model was trained on.
    """
    config = _data_config(overrides, contract, how)
    found: dict[str, tuple[Tile, Raster, Offer]] = {}
    again = 0
    notes: list[str] = []
    bad: list[tuple[str, str]] = []
    for source in rasters:
        index = build_index(source, config, threads=default_threads(), strict=strict)
        reader = TileReader(index, pool, valid=contract.valid, fill=contract.mean)
        notes += [*index.rule.reasons, *index.notes]
        bad += index.bad
        for i, tile in enumerate(index.tiles):
            again += tile.path in found
            found[tile.path] = (tile, *_tile(index, i, reader, contract, how))
    if again:
        notes.append(f"{again} raster(s) were named more than once: read once")
    _refuse([offer for _, _, offer in found.values()], contract, how)
    names = unique_names(list(found))
    return Sources(
        sources=tuple(
            _source(tile, name, raster, offer, time)
            for (tile, raster, offer), name in zip(found.values(), names, strict=True)
        ),
        resampling=config.resampling,
        notes=tuple(dict.fromkeys(notes)),
        bad=tuple(bad),
    )


def value_range(raster: Raster) -> tuple[tuple[float, float], ...] | None:
    """Return the 1st and 99th percentile per band of a few windows; None without a valid pixel."""
    cut = Chipping(raster.grid.height, raster.grid.width, _SAMPLE_SIDE, 1)
    total = cut.rows * cut.columns
    parts = []
    for place in np.unique(np.linspace(0, total - 1, min(_SAMPLES, total)).astype(int)):
        pixels, valid = raster.read(cut.window(*divmod(int(place), cut.columns)))
        parts.append(pixels[:, valid])
    values = np.concatenate(parts, axis=1).astype(np.float64)
    if values.shape[1] == 0:
        return None
    low, high = np.percentile(values, (1, 99), axis=1)
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))


def unique_names(paths: Sequence[str]) -> list[str]:
    """Name files by their stems; where two share one, by their paths below the common folder."""
    stems = [Path(path).stem for path in paths]
    if max(Counter(stems).values(), default=1) == 1:
        return stems
    root = os.path.commonpath([Path(path).parent for path in paths])
    below = [os.path.relpath(path, root).replace(os.sep, "_") for path in paths]
    short = [str(Path(name).with_suffix("")) for name in below]
    return short if max(Counter(short).values()) == 1 else below


def rfc3339(text: str) -> str:
    """Return an ISO 8601 time as STAC wants it; a time without a zone is UTC.

    Raises:
        RecipeError: not a time.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise RecipeError(
            f"--datetime {text}: expected a time such as 2020-07-01 or 2020-07-01T10:20:30Z."
        ) from error
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _data_config(overrides: Sequence[str], contract: InputContract, how: Meeting) -> DataConfig:
    asked: Mapping[str, Any] = parse_overrides(overrides)
    others = [key for key in asked if key != "data"]
    if others:
        raise RecipeError(
            f"--set {others[0]}...: only data.KEY=VALUE can be set here, such as data.nodata=0."
        )
    values = {"valid": contract.valid, **asked.get("data", {})}
    if how.bands is not None:
        values["bands"] = how.bands
    config = DataConfig.parse(values, source="--set")
    if config.valid != contract.valid:
        raise RecipeError(
            f"--set data.valid={config.valid}: the model was trained with data.valid="
            f"{contract.valid}, which holds for what it reads as well."
        )
    return config


def _tile(
    index: TileIndex, number: int, reader: TileReader, contract: InputContract, how: Meeting
) -> tuple[Raster, Offer]:
    tile = index.tiles[number]
    raster = Raster(
        name=tile.path, grid=tile.grid, read=_window_of(reader, number), block=tile.block
    )
    return raster, offer_of(raster, index.bands, index.dtype, contract, how)


def _window_of(reader: TileReader, number: int) -> Read:
    def read(window: Window) -> Any:
        return reader(number, window)

    return read


def offer_of(
    raster: Raster, bands: tuple[Band, ...], dtype: str, contract: InputContract, how: Meeting
) -> Offer:
    """Return what a raster brings to a model; a few windows are read if the bands can be its."""
    fits = len(bands) == len(contract.bands)
    return Offer(
        source=raster.name,
        bands=bands,
        dtype=dtype,
        gsd_m=raster.grid.gsd_m if how.gsd_m is None else (how.gsd_m, how.gsd_m),
        percentiles=value_range(raster) if fits else None,
        is_chosen=how.bands is not None,
        scale=how.scale,
    )


def _refuse(offers: Sequence[Offer], contract: InputContract, how: Meeting) -> None:
    """Raise what is wrong with the first file that does not fit, and say how many there are."""
    wrong = [offer for offer in offers if contract.problems(offer, accept=how.accept)]
    if not wrong:
        return
    try:
        contract.check(wrong[0], accept=how.accept)
    except ContractError as error:
        if len(wrong) == 1:
            raise
        others = len(wrong) - 1
        raise ContractError(f"{error}\n{others} other file(s) do not fit either.") from error


def _source(tile: Tile, name: str, raster: Raster, offer: Offer, time: str | None) -> Source:
    # A TIFF tag is often the time of writing: no acquisition is better than a wrong one.
    own = None if tile.datetime_from == "tiff tag" else tile.datetime
    when = time or own
    return Source(
        path=tile.path,
        name=name,
        raster=raster,
        files=tile.files,
        bands=offer.bands,
        dtype=offer.dtype,
        time=None if when is None else rfc3339(when),
        area_or_point="Area" if tile.base.driver == "Zarr" else area_or_point(tile.base.path),
    )
