"""Photographs as chips: the whole picture at the scale where its shorter side is the chip.

A tile of a map keeps its scale, because a pixel is a length on the ground; a photograph has none,
and what is in it fills it. So a picture is resized, as it is decoded, to a shorter side of the
chip, and a sample is a random square of that: all of a square picture, a window along the longer
side of any other. Every picture gives one sample an epoch, whatever its size.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped

from geodino.data.tiles import Tile, TileIndex, TileReader
from geodino.geo.windows import Window
from geodino.io.image_key import find_image
from geodino.io.images import read_image

LONGEST = 4
"""Of a picture longer than this many times its shorter side only the middle is used."""


def used_part(height: int, width: int) -> Window:
    """Return the part of a picture that samples are cut from: all but the ends of a long strip."""
    longest = LONGEST * min(height, width)
    rows, columns = min(height, longest), min(width, longest)
    return Window((height - rows) // 2, (width - columns) // 2, rows, columns)


def fitted_size(height: int, width: int, chip: int) -> tuple[int, int]:
    """Return rows and columns of the used part once its shorter side is ``chip``."""
    part = used_part(height, width)
    short = min(part.height, part.width)
    return round(part.height * chip / short), round(part.width * chip / short)


def enlarged(tiles: Sequence[Tile], chip: int) -> tuple[str, ...]:
    """Say how many photographs are smaller than the chip and are enlarged; nothing if none is."""
    sides = [min(tile.height, tile.width) for tile in tiles if tile.is_image]
    small = [side for side in sides if side < chip]
    if not small:
        return ()
    sentence = (
        f"{len(small)} of {len(sides)} pictures are smaller than the chip of {chip} px and are "
        f"enlarged, the smallest from a shorter side of {min(small)} px (data.min_side leaves "
        "such pictures out)"
    )
    return (sentence,)


class FittedReader:
    """Reads windows of tiles as they are stored, and windows of photographs at the chip's scale.

    Args:
        index: the tiles.
        reader: what reads tiles of maps.
        chip: the side of a chip, pixels.
    """

    def __init__(self, index: TileIndex, reader: TileReader, chip: int) -> None:
        self._index = index
        self._reader = reader
        self._chip = chip

    def __call__(
        self, tile: int, window: Window
    ) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read a window of tile number ``tile``: pixels, and where they may be used.

        The window of a photograph is one of the fitted picture (see :func:`fitted_size`).

        Raises:
            SourceError: a file vanished or is damaged.
        """
        of = self._index.tiles[tile]
        key = find_image(of.parts[0].info.path) if of.is_image else None
        if key is None:
            return self._reader(tile, window)
        size = fitted_size(of.height, of.width, self._chip)
        return read_image(key, used_part(of.height, of.width), size=size, cut=window)
