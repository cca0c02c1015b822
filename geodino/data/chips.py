"""How large a chip is: the window of a tile that a sample is cut from."""

import math

from geodino.data.config import DataConfig
from geodino.data.tiles import Tile, TileIndex
from geodino.errors import SourceError

_FITTING = 0.9
"""Share of the tiles that an automatic chip must fit into."""


def resolve_chip(config: DataConfig, index: TileIndex, wanted: int) -> int:
    """Return the side of the source window that samples are cut from, pixels.

    Args:
        config: a declared ``chip`` is taken as it is.
        index: the tiles.
        wanted: what the views ask for. ``auto`` lowers it to the side that nine tiles in ten
            have; smaller tiles are then left out (:func:`too_small`), smaller photographs are
            enlarged.

    Raises:
        SourceError: the chip is larger than every tile, and none is a photograph.
    """
    sides = sorted((min(t.height, t.width) for t in index.tiles), reverse=True)
    if config.chip == "auto":
        return min(wanted, sides[math.ceil(_FITTING * len(sides)) - 1])
    if config.chip > sides[0] and not any(tile.is_image for tile in index.tiles):
        largest = max(index.tiles, key=lambda t: min(t.height, t.width))
        raise SourceError(
            f"A chip of {config.chip} px (data.chip) is larger than every tile: the largest, "
            f"{largest.path}, has {largest.height} x {largest.width} px. "
            f"Set data.chip to {sides[0]} or less, or to auto."
        )
    return config.chip


def too_small(index: TileIndex, chip: int) -> tuple[Tile, ...]:
    """Return the tiles that a chip does not fit into; samples cannot be cut from them."""
    return tuple(t for t in index.tiles if min(t.height, t.width) < chip and not t.is_image)
