"""Heights on the pixels of an image, and predictions on the pixels of a label."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from geodino.data.labels.index import LabelIndex
from geodino.data.labels.pairs import Pairs
from geodino.data.tiles import TileIndex
from geodino.geo.align import Statistic, aligned
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool

__all__ = ["LabelReader", "onto_label_grid"]


class LabelReader:
    """Reads the heights of images: metres and validity on any window of any grid.

    Label pixels finer than the target's become one by the declared statistic, of those whose
    centres lie in the target pixel; else the label pixel that holds the target's centre is taken
    (see :mod:`geodino.geo.align`). Of several rasters the first with a valid value wins. Results
    do not depend on how windows are cut. Safe to call from threads.

    Args:
        labels: the label rasters.
        pairs: which of them lie on which image.
        images: the images.
        pool: where open files are kept.
    """

    def __init__(
        self, labels: LabelIndex, pairs: Pairs, images: TileIndex, pool: HandlePool
    ) -> None:
        self._labels = labels
        self._pairs = pairs
        self._images = images
        self._pool = pool

    def __call__(
        self, image: int, window: Window, grid: Grid | None = None
    ) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Read the heights of a window of image number ``image``.

        Args:
            image: its number in the index of images.
            window: rows and columns of ``grid``.
            grid: the wanted grid, such as a coarser one; None is the image's own.

        Returns:
            Float32 metres, 0 where not valid, and where they are valid; 0 m is a valid height.

        Raises:
            SourceError: a file vanished or is damaged.
        """
        target = self._images.tiles[image].grid if grid is None else grid
        return self.heights(self._pairs.by_image[image], target, window)

    def heights(
        self, rasters: Sequence[int], grid: Grid, window: Window
    ) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Read the heights of a window of a grid from these label rasters, the first that is valid."""
        shape = (window.height, window.width)
        heights, valid = np.zeros(shape, np.float32), np.zeros(shape, dtype=bool)
        for number in rasters:
            if valid.all():
                break
            more, known = aligned(
                partial(self._labels.heights, self._pool, number),
                source=self._labels.tiles.tiles[number].grid,
                target=grid,
                window=window,
                statistic=self._labels.config.statistic,
            )
            heights = np.where(valid, heights, more)
            valid |= known
        return heights, valid


def onto_label_grid(
    values_m: Float[np.ndarray, "hs ws"],
    valid: Bool[np.ndarray, "hs ws"],
    *,
    grid_of_values: Grid,
    label_grid: Grid,
    window: Window,
    statistic: Statistic,
) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Bring predictions to the grid of a label, where they are compared.

    Args:
        values_m: predicted heights; what lies under invalid pixels does not matter.
        valid: where they may be used.
        grid_of_values: their grid; its size is that of the array.
        label_grid: the grid of the label raster.
        window: rows and columns of ``label_grid``.
        statistic: how finer predictions become one pixel of the label.

    Returns:
        Float32 metres, 0 where not valid, and where they are valid, as
        :func:`geodino.geo.align.aligned`.

    Raises:
        ValueError: the array has another size than its grid.
    """
    if values_m.shape != (grid_of_values.height, grid_of_values.width):
        raise ValueError(f"values are {values_m.shape}, their grid is {grid_of_values}")
    return aligned(
        lambda part: (values_m[part.slices], valid[part.slices]),
        source=grid_of_values,
        target=label_grid,
        window=window,
        statistic=statistic,
    )
