"""One meaning for one stored value: files whose scale or offset differ are brought together.

Models read stored values. Where two files of a source store the same ground differently (a
Sentinel-2 scene before and one after baseline 04.00, power and decibel), their values are recoded
as they are read, and the bands of the source say what a recoded value means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray

from geodino.data.config import DataConfig
from geodino.errors import BandError
from geodino.geo.bands import Band
from geodino.io.raster import RasterInfo

_WHOLE = 1e-6
"""Differences of offsets are whole numbers of a step to this part."""

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Channel:
    """One band of one tile: the raster, the number in it, and what its values mean."""

    info: RasterInfo
    number: int
    band: Band


@dataclass(frozen=True, kw_only=True, slots=True)
class Recoding:
    """How one tile's stored values become those of the source: ``value * gain + bias``."""

    dtype: str
    """Type of the result."""

    gain: tuple[float, ...]
    """Per band."""

    bias: tuple[float, ...]
    """Per band; whole numbers where the result is of an integer type."""

    decibel: bool = False
    """Whether ``10 * log10`` is taken of the result; values that are not positive are invalid."""

    def __call__(
        self, pixels: Shaped[np.ndarray, "c h w"], valid: Bool[np.ndarray, "c h w"]
    ) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "c h w"]]:
        """Recode pixels; integers are clipped to what their type holds."""
        dtype = np.dtype(self.dtype)
        gain, bias = (np.array(v)[:, None, None] for v in (self.gain, self.bias))
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            moved = pixels.astype(np.int64) + bias.astype(np.int64)
            return np.clip(moved, limits.min, limits.max).astype(dtype), valid
        known = np.where(valid, pixels, pixels.dtype.type(0)).astype(np.float64)
        values = known * gain + bias
        if not self.decibel:
            return values.astype(dtype), valid
        valid = valid & (values > 0)
        return (10 * np.log10(np.maximum(values, _TINY))).astype(dtype), valid


def bring_together(
    tiles: Sequence[tuple[Channel, ...]], config: DataConfig
) -> tuple[tuple[Band, ...], list[Recoding | None], str, list[str]]:
    """Find what a stored value of the source means, and how each tile's values become that.

    Args:
        tiles: the chosen bands of each tile, in one order and of one stored type.
        config: ``decibel``.

    Returns:
        The bands of the source with unit, scale and offset; per tile how it is recoded (None:
        not at all); the dtype of the source; notes for the run card.

    Raises:
        BandError: two files declare different units for a band.
    """
    first = tiles[0]
    stored = first[0].info.dtype
    units, notes = _units(tiles, decibel=config.decibel)
    as_db = [config.decibel and unit in ("power", "dB") for unit in units]
    codes = [tuple((c.band.scale, c.band.offset, c.band.unit) for c in tile) for tile in tiles]
    if len(set(codes)) == 1 and not any(
        db and c.band.unit == "power" for db, c in zip(as_db, first, strict=True)
    ):
        return tuple(c.band for c in first), [None] * len(tiles), stored, notes
    if any(as_db):
        return _in_decibel(tiles, units, as_db, notes)
    reference = _shifted(codes, np.dtype(stored))
    if reference is None:
        why = "scale or offset differ between files: values are read as scale * stored + offset"
        bands = tuple(
            _band(c.band, unit=u, scale=1.0, offset=0.0) for c, u in zip(first, units, strict=True)
        )
        made = {
            code: Recoding(
                dtype="float32",
                gain=tuple(s for s, _, _ in code),
                bias=tuple(o for _, o, _ in code),
            )
            for code in set(codes)
        }
        return bands, [made[code] for code in codes], "float32", [*notes, why]
    bands = tuple(
        _band(c.band, unit=u, scale=s, offset=o)
        for c, u, (s, o) in zip(first, units, reference, strict=True)
    )
    shifts = {
        code: tuple(
            float(round((own - to) / scale))
            for (scale, own, _), (_, to) in zip(code, reference, strict=True)
        )
        for code in set(codes)
    }
    recodings = [
        Recoding(dtype=stored, gain=(1.0,) * len(first), bias=shifts[code])
        if any(shifts[code])
        else None
        for code in codes
    ]
    moved = sum(r is not None for r in recodings)
    most = max(max(shift) for shift in shifts.values())
    notes.append(
        f"offsets differ between files: {most:,.0f} is added to the stored values of {moved} of "
        f"{len(tiles)} tiles, so that one value has one meaning"
    )
    return bands, recodings, stored, notes


def _units(tiles: Sequence[tuple[Channel, ...]], *, decibel: bool) -> tuple[list[Any], list[str]]:
    """Return one unit per band, and a note where some files do not say theirs."""
    units: list[Any] = []
    notes = []
    for position in range(len(tiles[0])):
        said: dict[str, Channel] = {}
        for tile in tiles:
            said.setdefault(tile[position].band.unit, tile[position])
        known = [unit for unit in said if unit != "unknown"]
        if len(known) > 1 and not (decibel and set(known) == {"power", "dB"}):
            one, other = (said[unit] for unit in known[:2])
            cure = (
                "data.decibel: true reads both as decibel."
                if set(known) == {"power", "dB"}
                else "Convert one of them, or name files of one kind."
            )
            raise BandError(
                f"Band {one.band.name} is in {known[0]} in {one.info.path}, but in {known[1]} in "
                f"{other.info.path}. {cure}"
            )
        if known and "unknown" in said:
            notes.append(
                f"the unit of {one_name(said['unknown'])} is not declared; it is taken to be "
                f"{known[0]}, as in other files"
            )
        units.append("dB" if len(known) > 1 else known[0] if known else "unknown")
    return units, list(dict.fromkeys(notes))


def one_name(channel: Channel) -> str:
    """Return the band and the file of a channel, for messages."""
    return f"{channel.band.name} in {channel.info.path.rsplit('/', 1)[-1]}"


def _in_decibel(
    tiles: Sequence[tuple[Channel, ...]], units: list[Any], as_db: list[bool], notes: list[str]
) -> tuple[tuple[Band, ...], list[Recoding | None], str, list[str]]:
    """Read every tile as float32 decibel; all bands of a source are radar bands then."""
    first = tiles[0]
    if not all(as_db):
        named = [c.band.name for c, db in zip(first, as_db, strict=True) if not db]
        raise BandError(
            f"data.decibel is for sources whose bands are all radar bands; {', '.join(named)} is in "
            f"{units[as_db.index(False)]}. Choose the radar bands with data.bands."
        )
    bands = tuple(_band(c.band, unit="dB", scale=1.0, offset=0.0) for c in first)
    recodings: list[Recoding | None] = []
    for tile in tiles:
        kinds = {c.band.unit for c in tile}
        if len(kinds) > 1:
            raise BandError(f"{tile[0].info.path} holds bands in power and in dB. Convert it.")
        recodings.append(
            Recoding(
                dtype="float32",
                gain=tuple(c.band.scale for c in tile),
                bias=tuple(c.band.offset for c in tile),
                decibel=kinds == {"power"},
            )
        )
    return bands, recodings, "float32", [*notes, "power is read as 10 log10 (data.decibel)"]


def _shifted(
    codes: Sequence[tuple[tuple[float, float, str], ...]], dtype: np.dtype[Any]
) -> tuple[tuple[float, float], ...] | None:
    """Return scale and lowest offset per band, if codes differ by whole numbers of it; else None.

    The lowest offset belongs to the largest stored numbers: no value becomes negative.
    """
    if dtype.kind not in "iu":
        return None
    reference = []
    for column in zip(*set(codes), strict=True):
        scales = {scale for scale, _, _ in column}
        if len(scales) > 1:
            return None
        scale, lowest = scales.pop(), min(offset for _, offset, _ in column)
        steps: NDArray[np.float64] = np.array([(o - lowest) / scale for _, o, _ in column])
        if np.abs(steps - np.rint(steps)).max() > _WHOLE * max(1.0, float(np.abs(steps).max())):
            return None
        reference.append((scale, lowest))
    return tuple(reference)


def _band(band: Band, *, unit: Any, scale: float, offset: float) -> Band:
    return band.model_copy(update={"unit": unit, "scale": scale, "offset": offset})
