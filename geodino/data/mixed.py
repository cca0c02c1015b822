"""The index of a mix: the tiles of several sources in one, each with the name of its source."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from geodino.config import merged
from geodino.data.config import DataConfig
from geodino.data.members import Member
from geodino.data.sources.mix import MixConfig, SourceConfig, is_mix, load_mix
from geodino.data.tiles import TileIndex
from geodino.errors import BandError, SourceError, suggest
from geodino.geo.contract import InputContract

__all__ = ["is_mix", "mixed_contract", "mixed_index", "with_parts"]

_OF_FILES = (
    "kind", "min_side", "dataset", "bands", "band_names", "scale", "offset", "decibel", "grid",
    "resampling", "mask", "aoi", "datetime", "where", "overlap", "alpha", "nodata",
)  # fmt: skip
"""Keys of ``data`` that a source of a mix may set for itself."""

Build = Callable[[str, DataConfig], TileIndex]
"""Indexes one source."""


def mixed_index(path: Path, config: DataConfig, *, build: Build) -> TileIndex:
    """Index every source of a mix and join them.

    Args:
        path: the mix's file.
        config: what holds for all sources; each may declare more.
        build: indexes one of them.

    Raises:
        SourceError: the mix or one of its sources cannot be read.
        BandError: two sources differ in bands or type.
    """
    mix = load_mix(path)
    indexes = {
        name: build(source.tiles, _own_config(config, name, source, path))
        for name, source in mix.sources.items()
    }
    _refuse_unlike(indexes)
    members = tuple(_member(name, mix.sources[name], index) for name, index in indexes.items())
    first = next(iter(indexes.values()))
    empty = replace(
        first,
        root=str(path.absolute().parent),
        tiles=(),
        rule=first.rule.model_copy(update={"reasons": ()}),
        notes=_shares(mix, indexes),
        bad=(),
        declared={},
        members=members,
        homogeneous=mix.homogeneous,
    )
    parts = [
        replace(index, notes=(*index.rule.reasons, *index.notes)) for index in indexes.values()
    ]
    return with_parts(empty, parts)


def with_parts(index: TileIndex, parts: Sequence[TileIndex]) -> TileIndex:
    """Return the index of a mix with the tiles of its members as they are now.

    What is noted about a part, and its bad files, are added to those of the mix.
    """
    pairs = list(zip(index.members, parts, strict=True))
    notes = [f"{m.name}: {note}" for m, part in pairs for note in part.notes]
    return replace(
        index,
        tiles=tuple(replace(t, source=m.name) for m, part in pairs for t in part.tiles),
        notes=(*index.notes, *notes),
        bad=(*index.bad, *(bad for part in parts for bad in part.bad)),
    )


def mixed_contract(index: TileIndex, contracts: Sequence[InputContract]) -> InputContract:
    r"""Join the contracts of the members: statistics of pixels drawn from them by weight.

    .. math:: \mu = \sum_i w_i \mu_i, \quad
        \sigma^2 = \sum_i w_i (\sigma_i^2 + \mu_i^2) - \mu^2

    ``low`` and ``high`` are the lowest and the highest of the members.
    """
    weights = np.array([member.weight for member in index.members])
    weights = weights / weights.sum()
    means, stds = (np.array([getattr(c, name) for c in contracts]) for name in ("mean", "std"))
    mean = weights @ means
    # About the mean: small differences of large squares would lose digits.
    variance = weights @ (stds**2 + (means - mean) ** 2)
    of_each = {m.name: c.statistics for m, c in zip(index.members, contracts, strict=True)}
    return contracts[0].model_copy(
        update={
            "mean": tuple(float(v) for v in mean),
            "std": tuple(float(v) for v in np.sqrt(variance)),
            "low": tuple(min(values) for values in zip(*(c.low for c in contracts), strict=True)),
            "high": tuple(max(values) for values in zip(*(c.high for c in contracts), strict=True)),
            "nodata": index.rule_text,
            "gsd_m": index.gsd_m,
            "statistics": _joined(list(of_each.values()), weights) | {"sources": of_each},
        }
    )


def _joined(found: Sequence[dict[str, Any]], weights: Any) -> dict[str, Any]:
    """Add up what was counted, and weigh what is a share."""
    out: dict[str, Any] = {
        name: sum(one[name] for one in found)
        for name in ("tiles", "of_tiles", "pixels_read", "of_pixels")
    }
    used = np.array([one["pixels_used"] for one in found])
    out["pixels_used"] = [int(n) for n in used.sum(axis=0)]
    for name in ("valid_share", "valid_all", "valid_any"):
        joined = np.tensordot(weights, np.array([one[name] for one in found]), axes=1)
        out[name] = joined.tolist()
    out["percentile_error"] = max(one["percentile_error"] for one in found)
    constant = [set(one["constant_bands"]) for one in found]
    out["constant_bands"] = sorted(set.intersection(*constant))
    out["seed"] = next((one["seed"] for one in found if one["seed"] is not None), None)
    return out


def _own_config(config: DataConfig, name: str, source: SourceConfig, path: Path) -> DataConfig:
    where = f"{path}: sources.{name}.data"
    for key in source.data:
        if key not in _OF_FILES:
            raise SourceError(
                f"{where}.{key} cannot be set for one source of a mix.{suggest(key, _OF_FILES)} "
                f"These can: {', '.join(_OF_FILES)}; others belong to the recipe."
            )
    values = config.model_dump(exclude_unset=True)
    return DataConfig.parse(merged(values, source.data), source=where)


def _refuse_unlike(indexes: dict[str, TileIndex]) -> None:
    """Refuse members that no network could read alike."""
    nested = next((name for name, index in indexes.items() if index.members), None)
    if nested is not None:
        raise SourceError(f"Source {nested} of the mix is a mix itself: name its sources here.")
    first_name, first = next(iter(indexes.items()))
    for name, index in indexes.items():
        if _what(index) != _what(first):
            raise BandError(
                f"The sources of a mix must have the same bands and type: {first_name} has "
                f"{_what(first)}, {name} has {_what(index)}. Choose common bands by name with "
                f"`data: {{bands: [...]}}` under each source, or name them with band_names."
            )


def _what(index: TileIndex) -> str:
    """Say what the pixels of an index are, as far as it matters to who learns from them."""
    words = []
    for band in index.bands:
        scaled = (band.scale, band.offset) != (1.0, 0.0)
        law = f" ({band.unit}, {band.scale:g} x + {band.offset:g})"
        name = band.common_name or band.name
        words.append(name + law if scaled or band.unit != "unknown" else name)
    return f"{', '.join(words)} of {index.dtype}"


def _member(name: str, source: SourceConfig, index: TileIndex) -> Member:
    return Member(
        name=name,
        tiles=source.tiles,
        root=index.root,
        weight=source.weight,
        homogeneous=source.homogeneous,
        rule=index.rule,
    )


def _shares(mix: MixConfig, indexes: dict[str, TileIndex]) -> tuple[str, ...]:
    """Say in a sentence for each source how much of the run it is."""
    every = sum(source.weight for source in mix.sources.values())
    alone = sum(s.weight for s in mix.sources.values() if s.homogeneous)
    notes = []
    for name, source in mix.sources.items():
        share = source.weight / every * (1 - mix.homogeneous)
        pure = mix.homogeneous * source.weight / alone if source.homogeneous and alone else 0.0
        batches = f", {pure:.1%} in batches of its own" if pure else ""
        notes.append(
            f"{name}: {share + pure:.1%} of the samples{batches}; {len(indexes[name].tiles)} "
            f"tiles of {source.tiles}"
        )
    return tuple(notes)
