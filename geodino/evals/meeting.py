"""How the images of a set reach a model: which bands, and what their values become."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32

from geodino.data.labelled.sets import BandStatistics, Image, SetFacts
from geodino.errors import BandError, ContractError
from geodino.geo.bands import Band, rgb_indices
from geodino.geo.contract import InputContract
from geodino.models.adapt import Adaptation, adaptation

Values = Literal["contract", "zscore", "minmax"]
"""What stored values become. ``contract``: as the model was trained, converted between declared
units where those differ. ``zscore``: the set's own mean and deviation take the place of the model's
(torchgeo-bench). ``minmax``: the set's range becomes whole numbers from 0 to 255 (DINOv3)."""

WORDS = ("model", "rgb", "all")
"""Choices of bands beside names: those the model reads; red, green and blue; every band."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Meeting:
    """A set's images on their way into a model."""

    contract: InputContract
    """What the model that sees them demands; that of an adapted model where it was adapted."""

    positions: tuple[int, ...]
    """Which bands of the set are read, in the model's order (0-based)."""

    adapted: Adaptation | None
    """How the first layer was changed to read them; None where the model reads them as it is."""

    scale: Float32[np.ndarray, " c"]
    shift: Float32[np.ndarray, " c"]
    """The model sees ``stored * scale + shift``."""

    clipped: bool
    """Whether that is cut to 0..255 and rounded down."""

    words: str
    """What happens to the values, for people."""

    def seen(self, image: Image) -> tuple[Float32[np.ndarray, "b h w"], Bool[np.ndarray, "h w"]]:
        """Return what the model sees of an image: values in its units, and which pixels count.

        A band that lacks where the pixel counts by others holds the contract's mean.
        """
        pixels, valid = image
        chosen = list(self.positions)
        values = pixels[chosen].astype(np.float32)
        values = values * self.scale[:, None, None] + self.shift[:, None, None]
        if self.clipped:
            values = np.floor(np.clip(values, 0.0, 255.0))
        mask = valid[chosen]
        mean = np.asarray(self.contract.mean, dtype=np.float32)[:, None, None]
        values = np.where(mask & np.isfinite(values), values, mean)
        used = mask.all(axis=0) if self.contract.valid == "all" else mask.any(axis=0)
        return values, np.asarray(used)


def meet(
    contract: InputContract,
    facts: SetFacts,
    *,
    bands: str,
    values: Values,
    statistics: BandStatistics | None,
) -> Meeting:
    """Bring a set's bands and values to a model.

    Args:
        contract: the model's.
        facts: the set's.
        bands: ``model``, ``rgb``, ``all``, or names of the set's bands with commas.
        values: what stored values become.
        statistics: of the set's stored values; needed for ``zscore`` and ``minmax``.

    Raises:
        BandError: the set lacks a band.
        ContractError: the values cannot be brought to the model's.
    """
    positions = _positions(contract, facts, bands)
    chosen = [facts.bands[i] for i in positions]
    how = None
    if not _reads(contract.bands, chosen):
        how = _adapted(contract, chosen, facts)
        contract = widened_contract(contract, chosen, how)
    scale, shift, words = _map(contract, facts, chosen, positions, values, statistics)
    if how is not None:
        words += f"; the first layer is adapted: {how.words}"
    return Meeting(
        contract=contract,
        positions=positions,
        adapted=how,
        scale=np.asarray(scale, dtype=np.float32),
        shift=np.asarray(shift, dtype=np.float32),
        clipped=values == "minmax",
        words=words,
    )


def widened_contract(
    contract: InputContract, bands: Sequence[Band], how: Adaptation
) -> InputContract:
    """Return the contract of a model whose first layer was adapted to other bands.

    A band whose filter was kept keeps its statistics; others get the mean of all.
    """

    def per_band(name: str) -> tuple[float, ...]:
        old = getattr(contract, name)
        mean = sum(old) / len(old)
        return tuple(mean if source is None else old[source] for source in how.sources)

    taken = {name: per_band(name) for name in ("mean", "std", "low", "high")}
    return contract.model_copy(update={"bands": tuple(bands), **taken})


def _positions(contract: InputContract, facts: SetFacts, bands: str) -> tuple[int, ...]:
    have = facts.bands
    if bands == "all":
        return tuple(range(len(have)))
    if bands == "rgb":
        found = rgb_indices(have)
        if found is None:
            raise BandError(
                f"{facts.name} has no red, green and blue bands, but {_names(have)}: name bands "
                "with --bands."
            )
        return found
    if bands == "model":
        return _those_of(contract, facts)
    names = [name.strip() for name in bands.split(",") if name.strip()]
    places = [_place(have, name) for name in names]
    lost = [name for name, place in zip(names, places, strict=True) if place is None]
    if lost or not names:
        raise BandError(
            f"{facts.name} has no band {', '.join(lost) or 'of an empty list'}: it has "
            f"{_names(have)}."
        )
    return tuple(place for place in places if place is not None)


def _those_of(contract: InputContract, facts: SetFacts) -> tuple[int, ...]:
    have, want = facts.bands, contract.bands
    places = [next((i for i, b in enumerate(have) if b.is_like(band)), None) for band in want]
    if all(place is not None for place in places):
        return tuple(place for place in places if place is not None)
    if len(have) == len(want) and all(b.common_name is None for b in want):
        return tuple(range(len(have)))  # a model of unnamed bands, as many as the set has
    lost = [band.name for band, place in zip(want, places, strict=True) if place is None]
    rgb = "--bands rgb, " if rgb_indices(have) is not None else ""
    raise BandError(
        f"{facts.name} lacks {', '.join(lost)}, which the model reads; it has {_names(have)}. "
        f"{rgb}--bands all, or names with commas, adapt the first layer to other bands; such rows "
        "are labelled adapted."
    )


def _reads(want: Sequence[Band], chosen: Sequence[Band]) -> bool:
    """Whether a model reads these bands as it is."""
    return len(want) == len(chosen) and all(
        have.is_like(band) or band.common_name is None
        for have, band in zip(chosen, want, strict=True)
    )


def _adapted(contract: InputContract, chosen: Sequence[Band], facts: SetFacts) -> Adaptation:
    try:
        return adaptation(contract.bands, chosen, rule="match")
    except BandError:
        # None of the bands is one of the model's: every one gets the mean filter.
        return adaptation(contract.bands, chosen, rule="mean")


def _map(
    contract: InputContract,
    facts: SetFacts,
    chosen: Sequence[Band],
    positions: Sequence[int],
    values: Values,
    statistics: BandStatistics | None,
) -> tuple[list[float], list[float], str]:
    if values == "contract":
        return _as_declared(contract, facts, chosen)
    if statistics is None:
        raise ContractError(f"{facts.name} has no statistics, which values: {values} needs.")
    if values == "zscore":
        pairs = [
            (std / own, mean - std / own * theirs)
            for mean, std, theirs, own in zip(
                contract.mean,
                contract.std,
                (statistics.mean[i] for i in positions),
                (max(statistics.std[i], 1e-12) for i in positions),
                strict=True,
            )
        ]
        words = "each band by the set's own mean and deviation"
    else:
        if contract.dtype != "uint8":
            raise ContractError(
                f"values: minmax makes 0 to 255 of the set's range, but the model was trained on "
                f"{contract.dtype} values: choose a protocol with other values (--protocol)."
            )
        pairs = []
        for i in positions:
            factor = 255.0 / max(statistics.high[i] - statistics.low[i], 1e-12)
            pairs.append((factor, -factor * statistics.low[i]))
        words = "each band's published range to 0..255, then the model's mean and deviation"
    return [a for a, _ in pairs], [b for _, b in pairs], words


def _as_declared(
    contract: InputContract, facts: SetFacts, chosen: Sequence[Band]
) -> tuple[list[float], list[float], str]:
    """Stored values as the model was trained on: as they are, or through declared units."""
    scales, shifts = [], []
    for have, want in zip(chosen, contract.bands, strict=True):
        if have.unit == want.unit != "unknown":
            scales.append(have.scale / want.scale)
            shifts.append((have.offset - want.offset) / want.scale)
        elif facts.dtype == contract.dtype:
            scales.append(1.0)
            shifts.append(0.0)
        else:
            raise ContractError(
                f"{facts.name} stores {facts.dtype} values ({have.name}: {have.unit}), the model was "
                f"trained on {contract.dtype} ({want.name}: {want.unit}), and no declared unit "
                "leads from one to the other. --protocol torchgeo-bench scales each band by the "
                "set's own statistics."
            )
    same = all(a == 1.0 and b == 0.0 for a, b in zip(scales, shifts, strict=True))
    return scales, shifts, "as stored" if same else "through declared units"


def _place(have: Sequence[Band], name: str) -> int | None:
    for i, band in enumerate(have):
        if name.lower() in (band.name.lower(), (band.common_name or "").lower()):
            return i
    return None


def _names(bands: Sequence[Band]) -> str:
    return ", ".join(band.name for band in bands)
