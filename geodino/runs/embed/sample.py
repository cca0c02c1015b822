"""Features that are looked at before any is written: scales of int8 and the picture fit them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Bool, Float

from geodino import seeds
from geodino.errors import SourceError
from geodino.geo.windows import Window
from geodino.infer.chips import Chipping, Pixels, Raster, drawn_chips, drawn_places, patch_validity
from geodino.infer.encode import Encoder, encoded
from geodino.infer.quantise import Loss, Quantiser, measure
from geodino.infer.render import Rendering

CHIPS = 256
"""Chips drawn at most, over all rasters."""

_TOKENS = 16_384
"""Patch tokens kept at most."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Features drawn from all rasters with the seed of the job."""

    features: Float[np.ndarray, "n d"]

    is_complete: bool
    """Whether no feature of the job lies outside their range: all chips were drawn and kept."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A chip of a map."""

    number: int
    """Which one it is of those drawn."""

    pixels: Pixels
    used: Bool[np.ndarray, "rows columns"]
    """Its patches that the map has values for."""


def map_sample(maps: Sequence[Rendering], *, seed: int) -> Sample:
    """Return patch tokens of chips of maps, as many of each chip at most.

    What a map blends of two chips lies between what they say: tokens of all chips bound it.

    Raises:
        SourceError: none of the places drawn holds a valid pixel.
    """
    kept: dict[int, Float[np.ndarray, "n d"]] = {}
    is_complete = True
    for number, tokens in _tokens(maps, seed):
        order = seeds.rng(seed, "sample tokens", number).permutation(len(tokens))
        # How many chips will be found is not known yet: of each at most what is left for this
        # many, and in the end less.
        kept[number] = tokens[order[: max(1, _TOKENS // (len(kept) + 1))]]
        is_complete &= len(kept[number]) == len(tokens)
    if not kept:
        raise SourceError(
            f"No valid pixel in any of the places drawn from {maps[0].raster.name} and the "
            "other rasters: there is nothing to fit --pca or --dtype int8 on. Check the nodata "
            "value (--set data.nodata=...)."
        )
    most = max(1, _TOKENS // len(kept))
    is_complete &= all(len(tokens) <= most for tokens in kept.values())
    total = sum(one.cover.rows.count * one.cover.columns.count for one in maps)
    features = np.concatenate([kept[number][:most] for number in sorted(kept)])
    return Sample(features, is_complete and total <= CHIPS)


def table_sample(
    rasters: Sequence[Raster], encoder: Encoder, *, chip: int, pool: str, seed: int
) -> Sample:
    """Return the vectors of chips side by side.

    Raises:
        SourceError: none of the places drawn holds a valid pixel.
    """
    chips = drawn_chips(rasters, chip=chip, patch=encoder.patch, count=CHIPS, seed=seed)
    vectors = [v for found in encoded(chips, encoder) if (v := found.pooled(pool)) is not None]
    if not vectors:
        raise SourceError(
            f"No valid pixel in any of the places drawn from {rasters[0].name} and the other "
            "rasters: there is nothing to fit --dtype int8 on. Check the nodata value (--set "
            "data.nodata=...)."
        )
    cuts = [Chipping(r.grid.height, r.grid.width, chip, encoder.patch) for r in rasters]
    return Sample(np.stack(vectors), sum(cut.rows * cut.columns for cut in cuts) <= CHIPS)


def fit_quantiser(features: np.ndarray, *, seed: int, is_complete: bool) -> tuple[Quantiser, Loss]:
    """Fit scales on a sample, and measure what quantisation costs.

    Where the sample is not everything, features outside it may be clipped: the loss is then that
    of scales fitted on one half and measured on the other, those returned having seen twice as
    many.
    """
    quantiser = Quantiser.fit(features)
    if is_complete or len(features) < 2:
        return quantiser, measure(quantiser, features)
    shuffled = seeds.rng(seed, "halves").permutation(len(features))
    fitted, held_out = np.array_split(shuffled, 2)
    return quantiser, measure(Quantiser.fit(features[fitted]), features[np.sort(held_out)])


def _tokens(maps: Sequence[Rendering], seed: int) -> Iterator[tuple[int, Float[np.ndarray, "n d"]]]:
    """Yield the tokens of each chip drawn that are on the map, by its number."""
    waiting: dict[int, list[_Drawn]] = defaultdict(list)
    for raster, drawn in islice(_drawn(maps, seed), CHIPS):
        waiting[raster].append(drawn)
        if len(waiting[raster]) == maps[raster].cover.group:
            yield from _predicted(maps[raster], waiting.pop(raster))
    for raster, chips in waiting.items():
        yield from _predicted(maps[raster], chips)


def _drawn(maps: Sequence[Rendering], seed: int) -> Iterator[tuple[int, _Drawn]]:
    """Yield chips that hold a pixel to predict, and their map."""
    totals = [one.cover.rows.count * one.cover.columns.count for one in maps]
    found = 0
    for raster, place in drawn_places(totals, count=CHIPS, seed=seed):
        one = maps[raster]
        rows, columns = one.cover.rows, one.cover.columns
        down, across = divmod(place, columns.count)
        top, left = rows.start(down), columns.start(across)
        height, width = min(rows.side, rows.length - top), min(columns.side, columns.length - left)
        window = Window(top, left, height, width)
        pixels, valid = one.raster.read(window)
        wanted = valid if one.wanted is None else valid & one.wanted(window)
        if wanted.any():
            edges = (0, rows.side - height), (0, columns.side - width)
            used = patch_validity(np.pad(wanted, edges), rows.stride) > 0
            chip = np.pad(pixels, ((0, 0), *edges)), np.pad(valid, edges)
            yield raster, _Drawn(found, chip, used)
            found += 1


def _predicted(
    one: Rendering, chips: Sequence[_Drawn]
) -> Iterator[tuple[int, Float[np.ndarray, "n d"]]]:
    """Predict up to a group of chips, in a batch of the size that the map's have."""
    shape = one.cover.group, *chips[0].pixels[0].shape
    pixels = np.zeros(shape, dtype=chips[0].pixels[0].dtype)
    valid = np.zeros((shape[0], *shape[2:]), dtype=bool)
    for place, drawn in enumerate(chips):
        pixels[place], valid[place] = drawn.pixels
    device = one.predictor.device
    values = one.predictor(torch.from_numpy(pixels).to(device), torch.from_numpy(valid).to(device))
    for drawn, tokens in zip(chips, values[: len(chips)].cpu().numpy(), strict=True):
        yield drawn.number, tokens[:, drawn.used].T
