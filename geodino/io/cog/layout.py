"""What a map is stored as (:class:`Layer`) and how it is cut (:class:`Layout`)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from geodino.errors import RunError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window

BLOCK = 512
"""Side of a block, pixels, where neither many bands nor a small map ask for less."""

LEAST_BLOCK = 64
LARGEST_SIDE = 4096
_BLOCK_BYTES = 128 * 2**20
_SIDE_BYTES = 64 * 2**20

DType = Literal["uint8", "int8", "uint16", "int16", "float32"]
Resampling = Literal["average", "mode"]
Interleave = Literal["band", "pixel"]
Compression = Literal["zstd", "deflate"]

_DTYPES = ("uint8", "int8", "uint16", "int16", "float32")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One file of a map: its bands, how they are stored and what they mean.

    Lists of one entry per band (``descriptions``, ``units``, ``scales``, ``offsets``) may be
    empty: then nothing is said.

    Raises:
        RunError: fields that do not fit together.
    """

    name: str
    """What the layer is called in the parts folder: ``height``, ``colours``."""

    count: int
    """Bands."""

    dtype: DType
    """Stored type."""

    nodata: float | None
    """Value of pixels without data (NaN is one); None where every pixel has data."""

    resampling: Resampling = "average"
    """How overviews are made: means of quantities, the most frequent of classes."""

    interleave: Interleave = "band"
    """Whether the blocks of each band lie apart, or all bands of a block together."""

    descriptions: tuple[str, ...] = ()
    """Name of each band."""

    units: tuple[str, ...] = ()
    """Unit of each band: ``m``."""

    scales: tuple[float, ...] = ()
    """Per band, ``value = stored * scale + offset``."""

    offsets: tuple[float, ...] = ()
    """See ``scales``."""

    colour_table: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict)
    """Red, green, blue and opacity of each class, of one uint8 or uint16 band; empty for none."""

    colours: bool = False
    """Whether three uint8 bands are red, green and blue."""

    compression: Compression = "zstd"
    """Codec of the tiles."""

    level: int = 1
    """Level of the codec. Predicted floats gain little from higher ones, for much more time."""

    statistics: bool = True
    """Whether minimum, maximum, mean and deviation of each band are taken and written."""

    def __post_init__(self) -> None:
        wrong = _wrong(self)
        if wrong:
            raise RunError(f"Layer {self.name!r} cannot be stored as a GeoTIFF: {wrong}.")

    @property
    def itemsize(self) -> int:
        """Bytes of one stored value."""
        return np.dtype(self.dtype).itemsize

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel, all bands."""
        return self.count * self.itemsize

    @property
    def planes(self) -> int:
        """Tiles per block: one per band where bands lie apart, else one."""
        return self.count if self.interleave == "band" else 1

    @property
    def predictor(self) -> int:
        """TIFF's number: 3 for floats, 2 (horizontal differences) for integers."""
        return 3 if self.dtype == "float32" else 2


def _wrong(layer: Layer) -> str:
    """Say what does not fit, or nothing."""
    if layer.dtype not in _DTYPES:
        return f"its type is {layer.dtype}, supported are {', '.join(_DTYPES)}"
    if layer.count < 1:
        return f"it has {layer.count} bands"
    for name in ("descriptions", "units", "scales", "offsets"):
        said = len(getattr(layer, name))
        if said not in (0, layer.count):
            return f"{said} {name} for {layer.count} band(s)"
    if layer.colours and (layer.count, layer.dtype) != (3, "uint8"):
        return f"red, green and blue are 3 bands of uint8, not {layer.count} of {layer.dtype}"
    if layer.colour_table and (layer.count != 1 or layer.dtype not in ("uint8", "uint16")):
        return f"a colour table is of 1 band of uint8 or uint16, not {layer.count} {layer.dtype}"
    if layer.nodata is not None and not _is_value(layer.nodata, layer.dtype):
        return f"nodata {layer.nodata} is no value of {layer.dtype}"
    return ""


def _is_value(number: float, dtype: DType) -> bool:
    if dtype == "float32":
        # Shortest decimals of the largest float32 are a little above it.
        largest = float(np.finfo(dtype).max) * (1 + 2e-8)
        return not math.isfinite(number) or abs(number) <= largest
    limits = np.iinfo(dtype)
    return number in range(limits.min, limits.max + 1)


@dataclass(frozen=True, slots=True)
class Layout:
    """A map cut in blocks, blocks gathered in supertiles, and the overviews above them.

    A supertile is a square of 2**m blocks a side, the unit of journal, resume and shards. Those
    at the right and lower edge of the map are cut short. Numbers run row by row, from 0.

    Args:
        grid: CRS, transform and size of the map.
        block: side of a block, pixels; a multiple of 16.
        side: side of a supertile, pixels: ``block * 2**m``.
        levels: number of overviews; the smallest fits in one block.
    """

    grid: Grid
    block: int
    side: int
    levels: int

    @classmethod
    def plan(cls, grid: Grid, layers: Sequence[Layer]) -> "Layout":
        """Choose block and supertile for what all layers store in a pixel.

        Blocks have 512 pixels a side, halved while one holds more than 128 MiB; a map smaller
        than that is one block of a multiple of 16, as TIFF asks for. A supertile is doubled from
        the block while it holds no more than 64 MiB and is shorter than 4096 pixels.
        """
        pixel = sum(layer.pixel_bytes for layer in layers)
        block = BLOCK
        while block > LEAST_BLOCK and pixel * block**2 > _BLOCK_BYTES:
            block //= 2
        block = min(block, -(-max(grid.height, grid.width) // 16) * 16)
        side = block
        while side < LARGEST_SIDE and pixel * side**2 <= _SIDE_BYTES:
            side *= 2
        levels = 0
        while max(grid.height, grid.width) > block << levels:
            levels += 1
        return cls(grid, block, side, levels)

    @property
    def inner(self) -> int:
        """Overviews that are made inside a supertile: its blocks stay whole up to there."""
        return min(self.levels, (self.side // self.block).bit_length() - 1)

    @property
    def rows(self) -> int:
        """Rows of supertiles."""
        return -(-self.grid.height // self.side)

    @property
    def columns(self) -> int:
        """Columns of supertiles."""
        return -(-self.grid.width // self.side)

    def __len__(self) -> int:
        return self.rows * self.columns

    def window(self, number: int) -> Window:
        """Return the pixels of a supertile, cut at the edges of the map."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        row, column = divmod(number, self.columns)
        top, left = row * self.side, column * self.side
        height = min(self.side, self.grid.height - top)
        return Window(top, left, height, min(self.side, self.grid.width - left))

    def block_rows(self, number: int) -> int:
        """Return how many rows of blocks a supertile has: so often it is written to."""
        return -(-self.window(number).height // self.block)

    def block_window(self, number: int, block_row: int) -> Window:
        """Return the pixels of one row of blocks of a supertile, counted from 0 in it."""
        if not 0 <= block_row < self.block_rows(number):
            raise IndexError(block_row)
        whole = self.window(number)
        top = whole.top + block_row * self.block
        return Window(top, whole.left, min(self.block, whole.bottom - top), whole.width)

    def covering(self, window: Window) -> Iterator[int]:
        """Yield the numbers of the supertiles that share a pixel with ``window``, in order."""
        first, last = window.top // self.side, (window.bottom - 1) // self.side
        left, right = window.left // self.side, (window.right - 1) // self.side
        for row in range(max(first, 0), min(last, self.rows - 1) + 1):
            for column in range(max(left, 0), min(right, self.columns - 1) + 1):
                yield row * self.columns + column

    def size(self, level: int) -> tuple[int, int]:
        """Return rows and columns of an overview in pixels; level 0 is the map itself."""
        return -(-self.grid.height >> level), -(-self.grid.width >> level)

    def tiles(self, level: int) -> tuple[int, int]:
        """Return rows and columns of an overview in blocks."""
        height, width = self.size(level)
        return -(-height // self.block), -(-width // self.block)

    def corner(self, number: int, level: int) -> tuple[int, int]:
        """Return row and column, in blocks of ``level``, of a supertile's first block."""
        row, column = divmod(number, self.columns)
        step = (self.side // self.block) >> level
        return row * step, column * step
