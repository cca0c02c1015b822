"""Dates of one place as views of one sample (temporal positives).

Tiles on exactly one grid are dates of one place. A sample then shows its ground at several of
them: the chips lie below each other, and every crop is cut from one of them. What two crops share
is the place and not the season, the sun or the clouds (Ayush et al. 2021, "Geography-aware
self-supervised learning").
"""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from geodino import seeds
from geodino.data.tiles import TileIndex
from geodino.errors import SourceError

Companions = Callable[[int, int], tuple[int, ...]]
"""(epoch, tile number) -> the further tiles that are read with it, always as many."""


def companions(index: TileIndex, dates: int, seed: int) -> tuple[Companions, str]:
    """Return what is read beside each tile, and a sentence for the run card.

    The first crop's date is the tile's own; the others are drawn per epoch without repetition, as
    far as the place has dates, and then again from all of them.

    Args:
        index: the tiles.
        dates: dates of a sample, at least 2.
        seed: of the run.

    Raises:
        SourceError: no two tiles lie on one grid.
    """
    places: dict[object, list[int]] = defaultdict(list)
    for number, tile in enumerate(index.tiles):
        places[tile.grid].append(number)
    if all(len(numbers) < 2 for numbers in places.values()):
        raise SourceError(
            f"data.dates = {dates} asks for several dates of one place, but no two of the "
            f"{len(index.tiles)} tiles lie on exactly one grid (same CRS, origin, pixel size and "
            "size). Bring the dates of a place to one grid, or leave data.dates at 1: then every "
            "date is a tile of its own."
        )
    few = sum(len(numbers) < dates for numbers in places.values())
    note = f"each sample shows {dates} dates of one of {len(places)} places"
    if few:
        note += f"; {few} places have fewer dates, which are repeated"

    def drawn(epoch: int, tile: int) -> tuple[int, ...]:
        others = [n for n in places[index.tiles[tile].grid] if n != tile] or [tile]
        rng = seeds.rng(seed, "dates", epoch, tile)
        turns = -(-(dates - 1) // len(others))
        order = np.concatenate([rng.permutation(len(others)) for _ in range(turns)])
        return tuple(others[i] for i in order[: dates - 1])

    return drawn, note


def dates_of_crops(
    seed: int, first: int, *, samples: int, crops: int, dates: int
) -> NDArray[np.int64]:
    """Draw which date each crop is cut from: the first two from two different ones.

    Returns:
        (samples, crops), in ``range(dates)``.
    """
    out = np.zeros((samples, crops), dtype=np.int64)
    if dates == 1:
        return out
    for i in range(samples):
        rng = seeds.rng(seed, "dates of crops", first + i)
        out[i] = rng.integers(dates, size=crops)
        out[i, :2] = rng.permutation(dates)[:2]
    return out
