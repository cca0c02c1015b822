"""What lies under a region of a map: pixels for the model, and where the map has values.

A model may see the ground at another resolution than the map has: the pixels are resampled to the
model's grid, and its values back to the map's.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
from affine import Affine
from jaxtyping import Bool, Float

from geodino.geo.grid import Grid
from geodino.geo.regrid import Axis, Resampling, axes, resample, source_window
from geodino.geo.windows import Window
from geodino.infer.chips import Pixels, Raster
from geodino.infer.cover import Cover
from geodino.infer.engine import Strip
from geodino.infer.feed import Feed, Wanted

RESAMPLED = 1 << 18
"""Pixels, of the raster or of the model's grid, that a thread resamples at a time."""


class Ground(ABC):
    """The raster under a region of a map; rows are asked for from top to bottom."""

    @abstractmethod
    def pixels(self, top: int, stop: int) -> Pixels:
        """Return rows of the model's grid: stored values, and which of them may be used."""

    @abstractmethod
    def used_columns(self, top: int, stop: int) -> Bool[np.ndarray, "w"]:
        """Return the columns of the model's grid in which some rows hold a pixel to predict."""

    @abstractmethod
    def used(self, top: int, stop: int) -> Bool[np.ndarray, "h w"]:
        """Return which pixels of rows of the map, within the region, get a value."""

    @abstractmethod
    def ask(self, top: int, stop: int) -> None:
        """Begin to read what rows of the map are made from, where no model asks for it."""

    @abstractmethod
    def content(self, top: int, stop: int) -> Pixels:
        """Return the pixels that rows of the region were made from, without their surroundings."""

    @abstractmethod
    def columns(self, window: Window) -> slice:
        """Return the columns of ``content`` that belong to a window of the map."""

    @abstractmethod
    def on_map(self, strips: Iterator[Strip]) -> Iterator[Strip]:
        """Turn strips of the model's grid to strips of the map."""


class Plain(Ground):
    """A map with a value per pixel, or per patch of ``stride`` pixels, of its raster.

    Args:
        raster: the pixels.
        cover: how chips cover it.
        window: the region, in pixels of the map.
        threads: that read.
        wanted: which pixels of the raster are predicted; None is all.
    """

    def __init__(
        self,
        raster: Raster,
        cover: Cover,
        window: Window,
        *,
        threads: Executor,
        wanted: Wanted | None,
    ) -> None:
        self._needed = cover.needed(window)
        self._feed = Feed(raster, self._needed, threads=threads, wanted=wanted)
        self._stride = cover.rows.stride
        self._window = window
        self._height, self._width = raster.grid.height, raster.grid.width
        self._shown: tuple[range, Pixels] | None = None

    def pixels(self, top: int, stop: int) -> Pixels:
        """Return rows of the raster."""
        self._feed.ask(top, stop)
        found = self._feed.pixels(top, stop)
        self._shown = range(top, stop), found
        return found

    def used_columns(self, top: int, stop: int) -> Bool[np.ndarray, "w"]:
        """Return the columns that hold a pixel to predict."""
        return self._feed.used_columns(top, stop)

    def used(self, top: int, stop: int) -> Bool[np.ndarray, "h w"]:
        """Return where any pixel of a patch is valid and wanted."""
        n = self._stride
        found = self._feed.used(top * n, stop * n)
        left = self._window.left * n - self._needed.left
        columns = self._window.width * n
        if n == 1:
            return found[:, left : left + columns]
        lack = max(0, left + columns - found.shape[1])  # the last patch may reach over the edge
        inside = np.pad(found[:, left : left + columns], ((0, 0), (0, lack)))
        patches = inside.reshape(stop - top, n, self._window.width, n)
        used: Bool[np.ndarray, "h w"] = np.asarray(patches.any(axis=(1, 3)))
        return used

    def ask(self, top: int, stop: int) -> None:
        """Begin to read the pixels under rows of the map."""
        self._feed.ask(top * self._stride, stop * self._stride)

    def content(self, top: int, stop: int) -> Pixels:
        """Return the pixels of the raster under rows of the region."""
        n = self._stride
        pixels, valid = self._rows(top * n, min(stop * n, self._height))
        first = self._window.left * n - self._needed.left
        part = slice(first, min(self._window.right * n, self._width) - self._needed.left)
        return pixels[:, :, part], valid[:, part]

    def _rows(self, top: int, stop: int) -> Pixels:
        """Return rows of the raster: of those the model was shown last, if they are among them."""
        if self._shown is None:
            return self._feed.pixels(top, stop)
        shown, (pixels, valid) = self._shown
        if top not in shown or stop > shown.stop:
            return self._feed.pixels(top, stop)
        rows = slice(top - shown.start, stop - shown.start)
        return pixels[:, rows], valid[rows]

    def columns(self, window: Window) -> slice:
        """Return the pixels of the raster under a window of the map."""
        left = (window.left - self._window.left) * self._stride
        return slice(left, left + window.width * self._stride)

    def on_map(self, strips: Iterator[Strip]) -> Iterator[Strip]:
        """Return the strips: the two grids are one."""
        return strips


@dataclass(frozen=True, slots=True)
class Regrid:
    """The grid a model works on, and how it lies on the grid of the raster and its map.

    Both have parallel axes; nothing is reprojected.
    """

    raster: Grid
    model: Grid

    @classmethod
    def to_gsd(
        cls, grid: Grid, gsd_m: float, *, own_m: tuple[float, float] | None = None
    ) -> "Regrid":
        """Return the grid whose pixels are ``gsd_m`` long on the ground, along both axes.

        Args:
            grid: of the raster.
            gsd_m: metres.
            own_m: how long a column step and a row step of the raster are, metres; None is what
                its place on the Earth says.

        Raises:
            ValueError: the raster has no place on the Earth, and its pixels no length.
        """
        lengths = own_m or grid.gsd_m
        if lengths is None:
            raise ValueError("a raster without a place has no ground sampling distance")
        across, down = (gsd_m / own for own in lengths)
        model = Grid(
            grid.crs,
            grid.transform @ Affine.scale(across, down),
            width=max(1, round(grid.width / across)),
            height=max(1, round(grid.height / down)),
        )
        return cls(grid, model)

    @property
    def down(self) -> tuple[Axis, Axis]:
        """How rows and columns of the model's grid lie on the raster."""
        return _placed(self.raster, self.model)

    @property
    def up(self) -> tuple[Axis, Axis]:
        """How rows and columns of the raster lie on the model's grid."""
        return _placed(self.model, self.raster)

    def seen(self, raster: Raster, *, how: Resampling | None = None) -> Raster:
        """Return the raster as the model sees it.

        Args:
            raster: on its own grid.
            how: the method; None takes means of valid pixels, or values between them where the
                model's pixels are finer.
        """
        rows, columns = self.down
        how = how or ("average" if max(rows.step, columns.step) > 1 else "bilinear")
        return self._seen(raster, rows, columns, how)

    def _seen(self, raster: Raster, rows: Axis, columns: Axis, how: Resampling) -> Raster:

        def read(window: Window) -> Pixels:
            needed = source_window(rows, columns, window, how)
            pixels, valid = raster.read(needed)
            values = np.empty((len(pixels), window.height, window.width), dtype=pixels.dtype)
            kept = np.empty(values.shape[1:], dtype=bool)
            # A few rows at a time: what lies between is float64, several times over.
            step = max(1, int(RESAMPLED // (window.width * max(1.0, rows.step * columns.step))))
            for top in range(0, window.height, step):
                part = Window(
                    window.top + top, window.left, min(step, window.height - top), window.width
                )
                source = source_window(rows, columns, part, how)
                y, x = source.inside(needed).slices
                done = slice(top, top + part.height)
                values[:, done], (kept[done],) = resample(
                    pixels[:, y, x],
                    valid[None, y, x],
                    read=source,
                    rows=rows,
                    columns=columns,
                    window=part,
                    how=how,
                )
            return values, kept

        block = tuple(
            max(1, round(n / axis.step)) for n, axis in zip(raster.block, self.down, strict=True)
        )
        parts = tuple(_reached(part, rows, columns) for part in raster.parts)
        return replace(raster, grid=self.model, read=read, block=(block[0], block[1]), parts=parts)

    def region(self, window: Window) -> Window:
        """Return the window of the model's grid that a window of the map draws on."""
        return source_window(*self.up, window, "bilinear")


class Resampled(Ground):
    """A map on its raster's grid from a model that sees another; arguments as of :class:`Plain`.

    The raster is read twice: for the model, and for which pixels of the map are valid.
    """

    def __init__(
        self,
        raster: Raster,
        regrid: Regrid,
        cover: Cover,
        window: Window,
        *,
        threads: Executor,
        wanted: Wanted | None,
    ) -> None:
        rows, columns = regrid.down
        self._down = rows, columns
        self._window = window
        self._up = regrid.up
        self._region = regrid.region(window)
        self._needed = cover.needed(self._region)
        self._seen = Feed(regrid.seen(raster), self._needed, threads=threads, keep=2)
        # All pixels of the raster under the chips, and some around them.
        left = max(0, int((self._needed.left - 2) * columns.step))
        right = min(raster.grid.width, int((self._needed.right + 2) * columns.step) + 1)
        self._ground = Window(0, left, raster.grid.height, right - left)
        self._valid = Feed(
            _only_validity(raster),
            self._ground,
            threads=threads,
            wanted=wanted,
            keep=int(4 * rows.step) + 4,
        )

    def pixels(self, top: int, stop: int) -> Pixels:
        """Return rows of the model's grid."""
        self._seen.ask(top, stop)
        return self._seen.pixels(top, stop)

    def used_columns(self, top: int, stop: int) -> Bool[np.ndarray, "w"]:
        """Return the columns whose values any pixel to predict may be drawn from."""
        rows, columns = self._down
        height = self._ground.height
        first, end = (
            max(0, int((top - 1) * rows.step)),
            min(height, int((stop + 1) * rows.step) + 1),
        )
        self._valid.ask(first, max(end, first + 1))
        used = self._valid.used_columns(first, end)
        found = np.zeros(self._needed.width, dtype=bool)
        places = ((np.flatnonzero(used) + self._ground.left + 0.5) / columns.step).astype(int)
        for near in (-1, 0, 1):
            inside = places + near - self._needed.left
            found[inside[(inside >= 0) & (inside < len(found))]] = True
        return found

    def used(self, top: int, stop: int) -> Bool[np.ndarray, "h w"]:
        """Return which pixels of the raster are valid and wanted."""
        left = self._window.left - self._ground.left
        return self._valid.used(top, stop)[:, left : left + self._window.width]

    def ask(self, top: int, stop: int) -> None:
        """Begin to read what the model sees under rows of the map."""
        first, last = self._seen_rows(top, stop)
        self._seen.ask(first, max(last, first + 1))

    def content(self, top: int, stop: int) -> Pixels:
        """Return what the model saw under rows of the region."""
        pixels, valid = self._seen.pixels(*self._seen_rows(top, stop))
        part = self._seen_columns(self._window, -self._needed.left)
        return pixels[:, :, part], valid[:, part]

    def columns(self, window: Window) -> slice:
        """Return the columns the model saw under a window of the map."""
        return self._seen_columns(window, -self._seen_columns(self._window, 0).start)

    def _seen_rows(self, top: int, stop: int) -> tuple[int, int]:
        first, last = (round(edge / self._down[0].step) for edge in (top, stop))
        return first, max(first, min(last, self._needed.bottom))

    def _seen_columns(self, window: Window, shift: int) -> slice:
        step = self._down[1].step
        right = min(round(window.right / step), self._needed.right)
        return slice(round(window.left / step) + shift, right + shift)

    def on_map(self, strips: Iterator[Strip]) -> Iterator[Strip]:
        """Interpolate between the values of the model's grid, linearly."""
        rows, columns = self._up
        places, weights = columns.taps(np.arange(self._window.left, self._window.right), "bilinear")
        places, weights = places - self._region.left, weights.astype(np.float32)
        down = np.arange(self._window.top, self._window.bottom)
        ends = rows.taps(down, "bilinear")[0].max(axis=0) + 1  # they never fall from row to row
        done, held, first = self._window.top, None, self._region.top
        for strip in strips:
            values = strip.values
            if values is None:
                values = np.zeros((1, strip.height, self._region.width), dtype=np.float32)
            across = values[..., places[0]] * weights[0] + values[..., places[1]] * weights[1]
            held = across if held is None else _joined(held, across)
            end = first + held.shape[1]
            stop = self._window.top + int(np.searchsorted(ends, end, side="right"))
            if stop > done:
                index, weight = rows.taps(np.arange(done, stop), "bilinear")
                low, high = index - first
                share = weight.astype(np.float32)[:, :, None]
                yield Strip(done, stop - done, held[:, low] * share[0] + held[:, high] * share[1])
                done = stop
            keep = max(0, end - 2 - first)
            held, first = held[:, keep:], first + keep


def _joined(above: Float[np.ndarray, "..."], below: Float[np.ndarray, "..."]) -> np.ndarray:
    """Put rows below rows; those without predictions have one channel, for as many as needed."""
    channels = max(len(above), len(below))
    parts = [np.broadcast_to(part, (channels, *part.shape[1:])) for part in (above, below)]
    return np.concatenate(parts, axis=1)


def _placed(source: Grid, target: Grid) -> tuple[Axis, Axis]:
    placed = axes(source, target)
    if placed is None:
        raise ValueError(f"{target} does not lie along {source}")
    return placed


def _reached(part: Window, rows: Axis, columns: Axis) -> Window:
    """Return the pixels of the target, and one more on each side, that a part of the source meets."""
    edges = [
        (int((first - axis.start) // axis.step) - 1, int(-((axis.start - stop) // axis.step)) + 1)
        for axis, first, stop in (
            (rows, part.top, part.bottom),
            (columns, part.left, part.right),
        )
    ]
    (top, bottom), (left, right) = edges
    return Window(top, left, bottom - top, right - left)


def _only_validity(raster: Raster) -> Raster:
    def read(window: Window) -> Pixels:
        pixels, valid = raster.read(window)
        return np.empty_like(pixels[:0]), valid.copy()  # a view would keep the pixels

    return replace(raster, read=read)
