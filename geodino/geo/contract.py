"""The input contract: what a model was trained on, and what it therefore demands of a file."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from geodino.config import Config
from geodino.errors import ContractError
from geodino.geo.bands import Band

Accept = Literal["gsd", "units", "values"]
"""What a user may take on their own head where a file does not meet a contract."""

GSD_FACTOR = 2.0
"""A file's ground sampling distance may leave the contract's range by this factor."""

_COARSEST = 8.0
"""Pixels that are coarser by more than this are not offered to be resampled: no detail comes back,
and a map of them may take days."""

_FAR = 20.0
"""Values this many times larger or smaller than in training are refused. Snow and deep water
differ from an average scene by less, a wrong unit (100, 255, 10,000) by more."""

_UNIT_FACTORS = (100.0, 255.0, 1000.0, 10000.0)
"""Ratios between the usual ways of storing one quantity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """What a file brings to a model. Per-band values follow ``bands``."""

    source: str
    """The file, for messages."""

    bands: tuple[Band, ...]
    """The bands that would be read, in that order."""

    dtype: str
    """Stored type."""

    gsd_m: tuple[float, float] | None = None
    """Ground sampling distance along columns and rows, metres; None without a place on Earth."""

    percentiles: tuple[tuple[float, float], ...] | None = None
    """1st and 99th percentile of a sample of the valid stored values; None where none is known."""

    is_chosen: bool = False
    """Whether the user named the bands and their order."""

    scale: float | None = None
    """What the user multiplies stored values by before the model; None leaves them alone."""


class InputContract(Config):
    """Bands, stored type, statistics and validity rule of a model's input.

    Per-band values follow ``bands``. Statistics are of stored values (before scale and offset),
    over valid pixels.
    """

    bands: tuple[Band, ...]
    """The channels, in the order the model reads them."""

    dtype: str
    """Stored type of the pixels, as numpy names it: ``uint8``, ``uint16``, ``float32``."""

    mean: tuple[float, ...]
    """Mean per band."""

    std: tuple[float, ...]
    """Standard deviation per band (of the population); 1 for a constant band."""

    low: tuple[float, ...]
    """1st percentile per band; 0 for uint8."""

    high: tuple[float, ...]
    """99th percentile per band; 255 for uint8."""

    valid: Literal["all", "any"] = "all"
    """Whether a pixel needs all of its bands, or any, to be valid."""

    nodata: str = ""
    """What made a pixel invalid, in words."""

    gsd_m: tuple[float, float] | None = None
    """Smallest and largest ground sampling distance seen, metres; None for images without place."""

    statistics: dict[str, Any] = Field(default_factory=dict)
    """What the statistics were computed on: tiles, pixels, valid share, method, seed."""

    @model_validator(mode="after")
    def _one_value_per_band(self) -> "InputContract":
        for name in ("mean", "std", "low", "high"):
            if len(getattr(self, name)) != len(self.bands):
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} values for {len(self.bands)} bands"
                )
        return self

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands, in order."""
        return tuple(band.name for band in self.bands)

    def to_json(self) -> str:
        """Return the contract as indented JSON."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str, *, source: str | Path = "contract.json") -> "InputContract":
        """Read a contract back.

        Raises:
            ContractError: naming ``source``, if the text is not a contract.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the text"
            raise ContractError(
                f"{source} is not an input contract ({where}: {first['msg']}). "
                "Export the model again, or restore the file."
            ) from error

    def check_bands(self, *, count: int, dtype: str, source: str | Path) -> None:
        """Refuse a file whose bands or type are not those of the contract.

        Raises:
            ContractError: what the file has, what the model wants, what to do.
        """
        if count != len(self.bands):
            raise ContractError(
                f"{source} offers {count} band(s), but the model reads {len(self.bands)}: "
                f"{', '.join(self.band_names)}. Choose that many, in that order, by band names "
                "or numbers."
            )
        if dtype != self.dtype:
            raise ContractError(
                f"{source} stores {dtype}, but the model was trained on {self.dtype} values. "
                "Convert the file with the scaling of the training data, or train on such files."
            )

    def check(self, offer: Offer, *, accept: Collection[Accept] = ()) -> None:
        """Refuse a file that is not like the training data, unless the user accepts it.

        Raises:
            ContractError: every problem in one message, each with the option that settles it.
        """
        found = self.problems(offer, accept=accept)
        if found:
            count = f"{len(found)} thing{'s' if len(found) > 1 else ''} to settle"
            lines = "\n".join(f"  {problem}" for problem in found)
            raise ContractError(
                f"{offer.source} is not what the model was trained on; {count}:\n{lines}"
            )

    def problems(self, offer: Offer, *, accept: Collection[Accept] = ()) -> list[str]:
        """Say where a file differs from the training data and which option settles it.

        Compared are bands by name, order and number, stored type, units with scale and offset,
        the size of the values, and the ground sampling distance. What either side does not know
        (a file without a place, bands without names in training) is not compared.

        Args:
            offer: what the file brings.
            accept: differences the user takes as they are.
        """
        found = list(_band_problems(self, offer))
        is_comparable = not found  # band by band, once the bands are settled
        if offer.scale is None and offer.dtype != self.dtype:
            found.append(_dtype_problem(self, offer, is_comparable=is_comparable))
        elif is_comparable and "values" not in accept:
            found += _value_problems(self, offer)
        if is_comparable and "units" not in accept:
            found += _unit_problems(self, offer)
        if "gsd" not in accept:
            found += _gsd_problems(self, offer)
        return found


def _band_problems(contract: InputContract, offer: Offer) -> Iterator[str]:
    have, want = offer.bands, contract.bands
    names, wanted = _names(have), _names(want)
    says = f"bands: the file has {names}; the model was trained on {wanted}."
    if offer.is_chosen:
        if len(have) != len(want):
            yield (
                f"bands: {len(have)} chosen ({names}), but the model was trained on {len(want)}: "
                f"{wanted}. Name {len(want)} in that order with --bands."
            )
        return
    if len(have) == len(want) and all(map(_agrees, have, want)):
        return
    places = [_place(have, band) for band in want]
    if all(place is not None for place in places):
        chosen = ",".join(have[place].name for place in places if place is not None)
        yield f"{says} `--bands {chosen}` reads them in the model's order."
    elif len(have) == len(want):
        numbers = ",".join(str(i + 1) for i in range(len(have)))
        yield f"{says} If these are the same bands in the same order, `--bands {numbers}` says so."
    elif len(have) > len(want):
        numbers = ",".join(str(i + 1) for i in range(len(want)))
        yield (
            f"{says} Choose {len(want)} in the model's order by name or number, such as "
            f"`--bands {numbers}`."
        )
    else:
        yield f"{says} It lacks {len(want) - len(have)}: name files that have them, or use another model."


def _agrees(have: Band, want: Band) -> bool:
    """Whether a band may stand where the model reads ``want``; any may, if training had no name."""
    return want.is_positional or have.is_like(want)


def _place(have: tuple[Band, ...], want: Band) -> int | None:
    places = [i for i, band in enumerate(have) if band.is_like(want)]
    return places[0] if len(places) == 1 else None


def _names(bands: tuple[Band, ...]) -> str:
    return ", ".join(band.name for band in bands)


def _dtype_problem(contract: InputContract, offer: Offer, *, is_comparable: bool) -> str:
    says = f"dtype: the file stores {offer.dtype}, the model was trained on {contract.dtype}"
    ratio = _ratio(contract, offer) if is_comparable else None
    if ratio is None:
        return f"{says}. `--scale 1` reads its values as they are, another number multiplies them."
    factor = _unit_factor(ratio)
    return (
        f"{says}; {_ranges(contract, offer)}. `--scale {factor:g}` reads it and multiplies its "
        f"values by {factor:g}."
    )


def _value_problems(contract: InputContract, offer: Offer) -> Iterator[str]:
    ratio = _ratio(contract, offer)
    if ratio is None or 1 / _FAR <= ratio <= _FAR or offer.dtype == contract.dtype == "uint8":
        return
    times = f"{1 / ratio:,.3g} times smaller" if ratio < 1 else f"{ratio:,.3g} times larger"
    factor = _unit_factor(ratio) * (1.0 if offer.scale is None else offer.scale)
    yield (
        f"values: {_ranges(contract, offer)}: about {times}. `--scale {factor:g}` multiplies them "
        f"by {factor:g}; `--accept values` takes them as they are."
    )


def _ranges(contract: InputContract, offer: Offer) -> str:
    after = "" if offer.scale is None else f" times {offer.scale:g} (--scale)"
    trained = tuple(zip(contract.low, contract.high, strict=True))
    return (
        f"98 % of its valid values lie within {_span(offer.percentiles)}{after}, in training "
        f"within {_span(trained)}"
    )


def _ratio(contract: InputContract, offer: Offer) -> float | None:
    """How many times larger the values are than in training, the median over the bands."""
    if offer.percentiles is None:
        return None
    factor = 1.0 if offer.scale is None else offer.scale
    pairs = [
        (max(abs(low), abs(high)) * abs(factor), max(abs(low_seen), abs(high_seen)))
        for (low, high), low_seen, high_seen in zip(
            offer.percentiles, contract.low, contract.high, strict=True
        )
    ]
    ratios = [have / seen for have, seen in pairs if have > 0 and seen > 0]
    return median(ratios) if ratios else None


def _unit_factor(ratio: float) -> float:
    """Return the usual factor that comes nearest to undoing ``ratio``, or 1."""
    known = (1.0, *_UNIT_FACTORS, *(1 / f for f in _UNIT_FACTORS))
    return min(known, key=lambda factor: abs(math.log(factor * ratio)))


def _span(pairs: tuple[tuple[float, float], ...] | None) -> str:
    if not pairs:
        return "no values"
    return f"{min(low for low, _ in pairs):.4g} to {max(high for _, high in pairs):.4g}"


def _unit_problems(contract: InputContract, offer: Offer) -> Iterator[str]:
    for have, want in zip(offer.bands, contract.bands, strict=True):
        if want.unit != "unknown" and have.unit != want.unit:
            unit = "declares no unit" if have.unit == "unknown" else f"is in {have.unit}"
            yield (
                f"units: {have.name} {unit}; in training {want.name} was in {want.unit}. "
                "`--accept units` takes it as the same."
            )
            return
        # A user's factor is their word on scales; an offset it cannot undo.
        same_scale = offer.scale is not None or math.isclose(have.scale, want.scale, rel_tol=1e-6)
        if not same_scale or not math.isclose(have.offset, want.offset, abs_tol=1e-12):
            yield (
                f"units: {have.name} means {have.decoding}; in training {want.name} meant "
                f"{want.decoding}. The model reads stored values, so one of them would mean two "
                "things: convert the file, or `--accept units` takes them as the same."
            )
            return


def _gsd_problems(contract: InputContract, offer: Offer) -> Iterator[str]:
    if contract.gsd_m is None or offer.gsd_m is None:
        return
    low, high = contract.gsd_m
    if low / GSD_FACTOR <= min(offer.gsd_m) and max(offer.gsd_m) <= high * GSD_FACTOR:
        return
    seen = f"{low:.3g}" if math.isclose(low, high, rel_tol=0.01) else f"{low:.3g} to {high:.3g}"
    said = (
        f"gsd: a pixel of the file is {max(offer.gsd_m):.3g} m, the model was trained on {seen} m."
    )
    coarser = max(offer.gsd_m) / high
    if coarser > _COARSEST:
        yield (
            f"{said} Pixels {coarser:.0f} times as large do not show what the model knows: use another "
            "model, or `--accept gsd` takes the file as it is."
        )
        return
    yield (
        f"{said} `--gsd {math.sqrt(low * high):.3g}` shows it to the model resampled, `--accept gsd` "
        "takes it as it is."
    )
