"""Block masks for iBOT: which patches of the global crops the student does not see.

The masks of iBOT (arXiv 2111.07832, section 3) in the form of DINOv2 and DINOv3: a fixed share of
the images is masked, each to an exact count, so that a batch always holds the same number of
masked patches and every tensor of the step keeps its shape.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from geodino.config import Config

_TRIES = 10


class MaskConfig(Config):
    """How many patches are masked and in what shapes."""

    probability: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the global crops that are masked; their number is rounded down."""

    ratio: tuple[float, float] = (0.1, 0.5)
    """Smallest and largest share of masked patches in a masked image. The images of a group take
    the upper ends of an even grid over this range, shuffled, so their sum never changes."""

    min_block: int = Field(default=4, ge=1)
    """Smallest area of a proposed block, in patches."""

    min_aspect: float = Field(default=0.3, gt=0.0, le=1.0)
    """Height over width of a block is log-uniform between this and its inverse."""

    max_share: float = Field(default=0.5, gt=0.0, le=1.0)
    """Largest area of one block, as a share of the grid."""

    circular_shift: bool = False
    """Roll each mask by a random number of rows and columns. Blocks lie inside the grid, so
    without it the centre is masked some five times as often as the border; images from above
    have no privileged centre."""

    @model_validator(mode="after")
    def _ratio_is_a_range(self) -> "MaskConfig":
        if not 0.0 <= self.ratio[0] <= self.ratio[1] <= 1.0:
            raise ValueError("ratio must be two numbers in order between 0 and 1")
        return self


def mask_counts(config: MaskConfig, *, images: int, patches: int) -> list[int]:
    """Return the number of masked patches of each masked image, ascending, before the shuffle.

    ``floor(images * probability)`` images are masked; image i of these n gets
    ``floor(patches * (low + (high - low) * (i + 1) / n))``.
    """
    masked = math.floor(images * config.probability + 1e-9)
    low, high = config.ratio
    shares = (low + (high - low) * (i + 1) / masked for i in range(masked))
    # The small number keeps products that are whole on paper from falling below themselves.
    return [math.floor(patches * share + 1e-6) for share in shares]


def token_budget(config: MaskConfig, *, images: int, grid: tuple[int, int]) -> int:
    """Return how many patches are masked in ``images`` crops; the same for every draw."""
    return sum(mask_counts(config, images=images, patches=grid[0] * grid[1]))


def draw_masks(
    config: MaskConfig, *, rng: np.random.Generator, images: int, grid: tuple[int, int]
) -> NDArray[np.bool_]:
    """Draw the masks of ``images`` crops of ``grid`` (rows, columns) patches.

    Returns:
        Booleans (images, rows * columns), True where the patch is masked; exactly
        :func:`token_budget` of them are.
    """
    masks = np.zeros((images, *grid), dtype=np.bool_)
    counts = mask_counts(config, images=images, patches=grid[0] * grid[1])
    for image, count in zip(rng.permutation(images)[: len(counts)], counts, strict=True):
        _fill(masks[image], count, config, rng)
    if config.circular_shift:
        rows, columns = (
            (np.arange(size) + rng.integers(size, size=(images, 1))) % size for size in grid
        )
        masks = masks[np.arange(images)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return masks.reshape(images, -1)


def _fill(
    mask: NDArray[np.bool_], count: int, config: MaskConfig, rng: np.random.Generator
) -> None:
    """Mask exactly ``count`` cells: blocks while they can be placed, single cells for the rest."""
    largest = config.max_share * mask.size
    draws = _uniforms(rng)
    left = count
    while left > 0:
        added = _add_block(mask, min(float(left), largest), config, draws)
        if added == 0:
            break
        left -= added
    if left > 0:
        free = np.flatnonzero(~mask)
        mask.reshape(-1)[rng.choice(free, left, replace=False, shuffle=False)] = True


def _add_block(
    mask: NDArray[np.bool_], room: float, config: MaskConfig, draws: Iterator[float]
) -> int:
    """Place one block that adds between 1 and ``room`` cells; return how many it added, or 0."""
    rows, columns = mask.shape
    spread = math.log(config.min_aspect)
    for _ in range(_TRIES):
        area = config.min_block + (room - config.min_block) * next(draws)
        aspect = math.exp(spread * (1.0 - 2.0 * next(draws)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= rows or width >= columns:
            continue
        top = int(next(draws) * (rows - height + 1))
        left = int(next(draws) * (columns - width + 1))
        block = mask[top : top + height, left : left + width]
        added = height * width - int(np.count_nonzero(block))
        if 0 < added <= room:
            block[...] = True
            return added
    return 0


def _uniforms(rng: np.random.Generator) -> Iterator[float]:
    """Uniform numbers, drawn 64 at a time: one call for each would take most of the time."""
    while True:
        yield from rng.random(64).tolist()
