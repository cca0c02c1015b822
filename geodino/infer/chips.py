"""How a raster is cut into the chips a model sees, and the grid of patches that comes back."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from affine import Affine
from jaxtyping import Bool, Float, Shaped

from geodino import seeds
from geodino.geo.grid import Grid
from geodino.geo.validity import is_all
from geodino.geo.windows import Window

Pixels = tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]
"""Stored values, and which of them may be used; values elsewhere mean nothing."""

Read = Callable[[Window], Pixels]
"""Reads a window of a raster."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Raster:
    """Something to encode: where it lies, and a way to read it."""

    name: str
    """What to call it in messages and tables."""

    grid: Grid
    """CRS, transform and size."""

    read: Read

    block: tuple[int, int] = (256, 256)
    """Rows and columns that are best read together: a stored block."""

    parts: tuple[Window, ...] = ()
    """Windows outside of which no pixel is valid; without any there may be valid ones anywhere."""

    def may_hold(self, window: Window) -> bool:
        """Whether a window may hold a valid pixel."""
        return not self.parts or any(part.shared(window) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Chipping:
    """Square chips side by side from a raster's first pixel on, each a whole number of patches.

    Chips that reach over the right or lower edge are filled up with invalid pixels; of their
    patches, those that hold a pixel of the raster count.

    Args:
        height: rows of the raster.
        width: columns of the raster.
        chip: side of a chip, pixels; a multiple of ``patch``.
        patch: side of a patch, pixels.
    """

    height: int
    width: int
    chip: int
    patch: int

    @property
    def rows(self) -> int:
        """Chips down."""
        return -(-self.height // self.chip)

    @property
    def columns(self) -> int:
        """Chips across."""
        return -(-self.width // self.chip)

    @property
    def side(self) -> int:
        """Patches along the side of a chip."""
        return self.chip // self.patch

    @property
    def patch_rows(self) -> int:
        """Patches down that hold a pixel of the raster."""
        return -(-self.height // self.patch)

    @property
    def patch_columns(self) -> int:
        """Patches across that hold a pixel of the raster."""
        return -(-self.width // self.patch)

    def window(self, row: int, column: int) -> Window:
        """Return the pixels of a chip that lie within the raster."""
        top, left = row * self.chip, column * self.chip
        return Window(
            top, left, min(self.chip, self.height - top), min(self.chip, self.width - left)
        )

    def strip(self, row: int) -> Window:
        """Return all pixels of a row of chips."""
        top = row * self.chip
        return Window(top, 0, min(self.chip, self.height - top), self.width)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chip:
    """One chip, filled up to its full size."""

    raster: int
    """Number of its raster."""

    row: int
    column: int

    pixels: Shaped[np.ndarray, "c side side"]
    """Stored values; 0 beyond the edge."""

    valid: Bool[np.ndarray, "side side"]
    """Which pixels may be used; False beyond the edge."""

    share: float
    """Valid pixels per pixel of the chip that lies within the raster."""


def patch_grid(grid: Grid, patch: int) -> Grid:
    """Return the grid with one pixel per patch: same CRS and corner, pixels ``patch`` as large."""
    return Grid(
        grid.crs,
        grid.transform @ Affine.scale(patch),
        width=-(-grid.width // patch),
        height=-(-grid.height // patch),
    )


def patch_validity(
    valid: Bool[np.ndarray, "*b h w"], patch: int
) -> Float[np.ndarray, "*b rows columns"]:
    """Return the share of valid pixels of each patch, float32."""
    *batch, height, width = valid.shape
    blocks = valid.reshape(*batch, height // patch, patch, width // patch, patch)
    shares: Float[np.ndarray, "*b rows columns"] = blocks.mean(axis=(-3, -1), dtype=np.float32)
    return shares


class ContentHash:
    """SHA-256 of a digest (BLAKE2b) of the valid pixels of a raster and where they are.

    Compression, blocks, tags and what lies under invalid pixels do not enter, and neither does
    the size of the strips it is fed with.
    """

    def __init__(self) -> None:
        # Twice as fast as SHA-256 where the processor has no instructions for that.
        self._hash = hashlib.blake2b()
        self._is_empty = True

    def add(self, pixels: Shaped[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"]) -> None:
        """Add rows of the whole width, from the top on."""
        bands, height, width = pixels.shape
        if self._is_empty:
            self._hash.update(f"{bands} {width} {pixels.dtype}\n".encode())
            self._is_empty = False
        # Of each row the mask, then its pixels band by band: in one array, hashed at once.
        mask = np.packbits(valid, axis=1)
        rows = np.empty((height, mask.shape[1] + bands * width * pixels.itemsize), dtype=np.uint8)
        rows[:, : mask.shape[1]] = mask
        used = rows[:, mask.shape[1] :].view(pixels.dtype).reshape(height, bands, width)
        used[:] = pixels.transpose(1, 0, 2)
        if not is_all(valid):
            np.copyto(used, 0, where=~valid[:, None])
        self._hash.update(rows.data)

    def hexdigest(self) -> str:
        """Return the hash of what was added so far."""
        return hashlib.sha256(self._hash.digest()).hexdigest()


def all_chips(
    rasters: Sequence[Raster],
    *,
    chip: int,
    patch: int,
    hashes: Sequence[ContentHash] | None = None,
) -> Iterator[Chip]:
    """Yield the chips of each raster, row by row; one strip is in work and one read ahead.

    Args:
        rasters: what to cut.
        chip: side of a chip, pixels.
        patch: side of a patch, pixels.
        hashes: fed with the pixels of each raster.
    """
    strips = [
        (number, row)
        for number, raster in enumerate(rasters)
        for row in range(_chipping(raster, chip, patch).rows)
    ]

    def read(strip: tuple[int, int]) -> Pixels:
        number, row = strip
        pixels, valid = rasters[number].read(_chipping(rasters[number], chip, patch).strip(row))
        if hashes is not None:
            hashes[number].add(pixels, valid)
        return pixels, valid

    for (number, row), (pixels, valid) in zip(strips, _one_ahead(read, strips), strict=True):
        cut = _chipping(rasters[number], chip, patch)
        strip = cut.strip(row)
        for column in range(cut.columns):
            rows, columns = cut.window(row, column).inside(strip).slices
            yield _filled_up(
                pixels[:, rows, columns], valid[rows, columns], (number, row, column), chip
            )


def drawn_chips(
    rasters: Sequence[Raster], *, chip: int, patch: int, count: int, seed: int
) -> Iterator[Chip]:
    """Yield up to ``count`` chips that hold a valid pixel, drawn from all rasters (see below)."""
    cuts = [_chipping(raster, chip, patch) for raster in rasters]
    found = 0
    for number, place in drawn_places([c.rows * c.columns for c in cuts], count=count, seed=seed):
        row, column = divmod(place, cuts[number].columns)
        pixels, valid = rasters[number].read(cuts[number].window(row, column))
        if valid.any():
            yield _filled_up(pixels, valid, (number, row, column), chip)
            found += 1
        if found == count:
            return


def drawn_places(totals: Sequence[int], *, count: int, seed: int) -> Iterator[tuple[int, int]]:
    """Yield rasters and places in them, drawn without return from all of them alike.

    Four times ``count`` at most, so that a raster of mostly nothing does not take for ever.

    Args:
        totals: places of each raster.
        count: how many of use are wanted.
        seed: of the order.
    """
    ends = np.cumsum(totals)
    total = int(ends[-1])
    for place in seeds.permuted(np.arange(min(4 * count, total)), total, seed, "drawn chips"):
        number = int(np.searchsorted(ends, place, side="right"))
        yield number, int(place - ends[number] + totals[number])


def _chipping(raster: Raster, chip: int, patch: int) -> Chipping:
    return Chipping(raster.grid.height, raster.grid.width, chip, patch)


def _filled_up(
    pixels: Shaped[np.ndarray, "c h w"],
    valid: Bool[np.ndarray, "h w"],
    place: tuple[int, int, int],
    chip: int,
) -> Chip:
    share = float(valid.mean())
    missing = chip - valid.shape[0], chip - valid.shape[1]
    if any(missing):
        edges = ((0, missing[0]), (0, missing[1]))
        pixels, valid = np.pad(pixels, ((0, 0), *edges)), np.pad(valid, edges)
    return Chip(
        raster=place[0], row=place[1], column=place[2], pixels=pixels, valid=valid, share=share
    )


def _one_ahead(
    read: Callable[[tuple[int, int]], Pixels], items: Iterable[tuple[int, int]]
) -> Iterator[Pixels]:
    """Yield ``read(item)`` in order; a thread reads the next while this one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="geodino-strip") as executor:
        waiting = None
        for item in items:
            following = executor.submit(read, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
