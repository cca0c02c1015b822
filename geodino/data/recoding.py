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

_MOST = 1 / 16
"""Integers are shifted by at most this part of what their type holds: values above are clipped."""

_WIDEST = 4
"""Bytes of the widest integers that are shifted: 64-bit ones leave no room to compute in."""

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
        out = np.empty(pixels.shape, dtype)
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            for band, bias, to in zip(pixels, self.bias, out, strict=True):
                to[:] = np.clip(band.astype(np.int64) + int(bias), limits.min, limits.max)
            return out, valid
        if self.decibel:
            valid = valid.copy()
        for i, (gain, bias) in enumerate(zip(self.gain, self.bias, strict=True)):
            # Band by band, since wide types take memory; 0 for what may be NaN or overflow.
            known = np.where(valid[i], pixels[i], pixels.dtype.type(0)).astype(np.float64)
            values = known * gain + bias
            if self.decibel:
                valid[i] &= values > 0
                values = 10 * np.log10(np.maximum(values, _TINY))
            out[i] = values
        return out, valid


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
        BandError: two files declare different units for a band, or one says nothing of numbers
            that others scale.
    """
    first = tiles[0]
    stored = first[0].info.dtype
    units, notes = _units(tiles, decibel=config.decibel)
    codes = [tuple((c.band.scale, c.band.offset) for c in tile) for tile in tiles]
    if config.decibel:
        _refuse_other_than_radar(first, units)
        if len(set(codes)) > 1 or any(c.band.unit == "power" for tile in tiles for c in tile):
            return _in_decibel(tiles, units, notes)
    if len(set(codes)) == 1:
        bands = tuple(_band(c.band, unit=u) for c, u in zip(first, units, strict=True))
        return bands, [None] * len(tiles), stored, notes
    _refuse_undeclared(tiles, units)
    reference = _shifted(codes, np.dtype(stored))
    if reference is None:
        why = "scale or offset differ between files: values are read as scale * stored + offset"
        bands = tuple(
            _band(c.band, unit=u, scale=1.0, offset=0.0) for c, u in zip(first, units, strict=True)
        )
        made = {
            code: Recoding(
                dtype="float32",
                gain=tuple(s for s, _ in code),
                bias=tuple(o for _, o in code),
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
            for (scale, own), (_, to) in zip(code, reference, strict=True)
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
    if moved:
        notes.append(
            f"offsets differ between files: {most:,.0f} is added to the stored values of {moved} "
            f"of {len(tiles)} tiles, so that one value has one meaning"
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
        is_radar = set(known) == {"power", "dB"}
        if len(known) > 1 and not (is_radar and decibel and "unknown" not in said):
            one, other = (said[unit] for unit in known[:2])
            cure = "Convert one of them, or name files of one kind."
            if is_radar and decibel:
                cure = (
                    f"Declare the unit of {one_name(said['unknown'])}, which is one or the other."
                )
            elif is_radar:
                cure = "data.decibel: true reads both as decibel."
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
    tiles: Sequence[tuple[Channel, ...]], units: list[Any], notes: list[str]
) -> tuple[tuple[Band, ...], list[Recoding | None], str, list[str]]:
    """Read every tile as float32 decibel."""
    bands = tuple(_band(c.band, unit="dB", scale=1.0, offset=0.0) for c in tiles[0])
    recodings: list[Recoding | None] = []
    for tile in tiles:
        # A file that does not say its unit has that of the others.
        kinds = {
            u if c.band.unit == "unknown" else c.band.unit for c, u in zip(tile, units, strict=True)
        }
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


def _refuse_other_than_radar(channels: tuple[Channel, ...], units: list[Any]) -> None:
    for channel, unit in zip(channels, units, strict=True):
        if unit not in ("power", "dB"):
            raise BandError(
                f"data.decibel is for bands in power or dB, but the unit of {one_name(channel)} is "
                f"{unit}. Declare it in a descriptor (data.dataset), or choose the radar bands "
                "with data.bands."
            )


def _refuse_undeclared(tiles: Sequence[tuple[Channel, ...]], units: list[Any]) -> None:
    """Refuse files that say nothing of their numbers beside others that scale theirs."""
    for position, unit in enumerate(units):
        channels = [tile[position] for tile in tiles]
        silent = [c for c in channels if c.band.unit == "unknown" and _code(c) == (1.0, 0.0)]
        said = [c for c in channels if c.band.unit != "unknown" and _code(c) != (1.0, 0.0)]
        if silent and said:
            scale, offset = _code(said[0])
            raise BandError(
                f"{one_name(said[0])} is {unit} as {scale:g} * stored + {offset:g}, but "
                f"{silent[0].info.path} says nothing of what it stores. Declare it for all files "
                "with data.scale and data.offset or a descriptor (data.dataset), or leave it out."
            )


def _code(channel: Channel) -> tuple[float, float]:
    return channel.band.scale, channel.band.offset


def _shifted(
    codes: Sequence[tuple[tuple[float, float], ...]], dtype: np.dtype[Any]
) -> tuple[tuple[float, float], ...] | None:
    """Return scale and offset per band, if codes differ by small whole steps of it; else None.

    The offset is that of the largest stored numbers: shifts are never below 0.
    """
    if dtype.kind not in "iu" or dtype.itemsize > _WIDEST:
        return None
    limits = np.iinfo(dtype)
    room = _MOST * (int(limits.max) - int(limits.min) + 1)
    reference = []
    for column in zip(*set(codes), strict=True):
        scales = {scale for scale, _ in column}
        if len(scales) > 1:
            return None
        scale = scales.pop()
        offset = min((o for _, o in column), key=lambda o: o / scale)
        steps: NDArray[np.float64] = np.array([(o - offset) / scale for _, o in column])
        most = float(steps.max())
        if np.abs(steps - np.rint(steps)).max() > _WHOLE * max(1.0, most) or most > room:
            return None
        reference.append((scale, offset))
    return tuple(reference)


def _band(band: Band, **meaning: Any) -> Band:
    return band.model_copy(update=meaning)
