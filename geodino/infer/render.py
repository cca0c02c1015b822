"""From rows of predictions to the supertiles of a map: regions, blocks, digests, commits."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Shaped

from geodino.geo.windows import Window
from geodino.infer.chips import ContentHash, Raster
from geodino.infer.cover import Cover
from geodino.infer.engine import Predictor, predicted
from geodino.infer.feed import Wanted
from geodino.infer.ground import Ground, Plain, Regrid, Resampled
from geodino.infer.seams import SeamMeter
from geodino.io.cog.layout import Layer, Layout


@runtime_checkable
class Product(Protocol):
    """What is stored of predictions."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The files, each of some bands."""

    def stored(
        self, values: Float[np.ndarray, "k h w"] | None, valid: Bool[np.ndarray, "h w"]
    ) -> Mapping[str, Shaped[np.ndarray, "c h w"]]:
        """Return the pixels of each layer by name: nodata where ``valid`` is False.

        Without values no pixel is valid.
        """

    def counts(
        self, values: Float[np.ndarray, "k h w"], valid: Bool[np.ndarray, "h w"]
    ) -> Mapping[str, int]:
        """Return numbers of pixels by name, to be summed and noted with each supertile."""


@runtime_checkable
class Supertile(Protocol):
    """Takes the rows of blocks of one supertile (see :class:`geodino.io.cog.parts`)."""

    def write(self, block_row: int, values: Mapping[str, Shaped[np.ndarray, "c h w"]]) -> None:
        """Take one row of blocks, each layer by its name; rows come from the top."""

    def commit(self, digest: str, **facts: Any) -> None:
        """Note the supertile as finished."""


@runtime_checkable
class Parts(Protocol):
    """Where supertiles go."""

    def open_supertile(self, number: int) -> Supertile:
        """Begin a supertile; several are open at once, side by side."""


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """Everything a map is made from.

    Args:
        raster: the pixels.
        predictor: the model.
        product: what is stored.
        cover: how chips cover the grid the model sees.
        layout: how the map is cut.
        regrid: the model's grid, where it is not the raster's.
        wanted: which pixels of the raster are predicted; None is all.
        columns: most supertiles side by side that memory allows; no pixel depends on it.
    """

    raster: Raster
    predictor: Predictor
    product: Product
    cover: Cover
    layout: Layout
    regrid: Regrid | None = None
    wanted: Wanted | None = None
    columns: int = 1 << 30

    def run(
        self,
        parts: Parts,
        numbers: Sequence[int],
        *,
        threads: Executor,
        advance: Callable[[int], None],
        facts: Mapping[str, Any],
    ) -> None:
        """Predict supertiles and commit each.

        Args:
            parts: where they go.
            numbers: of the supertiles.
            threads: that read.
            advance: told the pixels of the map that are done.
            facts: noted with every supertile, beside its seam sums.

        Raises:
            SourceError: a block cannot be read; what was committed stays.
            RunError: the disk is full, or a prediction is not finite.
        """
        for window in regions(self.layout, numbers, self.columns):
            ground = self.ground(window, threads)
            region = window if self.regrid is None else self.regrid.region(window)
            strips = predicted(ground, self.predictor, self.cover, region)
            with _Storing(self, parts, window, facts) as storing:
                for strip in ground.on_map(strips):
                    stop = strip.top + strip.height
                    values = None if strip.values is None else strip.values
                    storing.add(strip.top, values, ground.used(strip.top, stop), ground)
                    advance(strip.height * window.width)

    def ground(self, window: Window, threads: Executor) -> Ground:
        """Return what lies under a region of the map."""
        if self.regrid is None:
            return Plain(self.raster, self.cover, window, threads=threads, wanted=self.wanted)
        return Resampled(
            self.raster, self.regrid, self.cover, window, threads=threads, wanted=self.wanted
        )

    def digest(self, number: int, *, threads: Executor) -> str:
        """Return the digest of a supertile's pixels: what it was committed with."""
        window = self.layout.window(number)
        ground = self.ground(window, threads)
        found = ContentHash()
        for row in range(self.layout.block_rows(number)):
            part = self.layout.block_window(number, row)
            ground.ask(part.top, part.bottom)
            found.add(*ground.content(part.top, part.bottom))
        return found.hexdigest()


def regions(layout: Layout, numbers: Sequence[int], columns: int) -> Iterator[Window]:
    """Yield rectangles of whole supertiles, each at most ``columns`` of them wide."""
    for rows, across in rectangles(numbers, layout.columns, columns):
        first = layout.window(rows[0] * layout.columns + across[0])
        last = layout.window(rows[-1] * layout.columns + across[-1])
        yield Window(first.top, first.left, last.bottom - first.top, last.right - first.left)


def rectangles(numbers: Sequence[int], across: int, most: int) -> Iterator[tuple[range, range]]:
    """Yield the rows and columns of rectangles that hold some places of a table, each place once.

    Rows of places that reach from and to the same columns are one rectangle, which is streamed
    without a break.

    Args:
        numbers: of the places, counted row by row.
        across: columns of the table.
        most: columns of a rectangle.
    """
    rows: dict[int, list[int]] = {}
    for number in numbers:
        row, column = divmod(number, across)
        rows.setdefault(row, []).append(column)
    open_: dict[range, range] = {}
    for row in sorted(rows):
        spans = _spans(sorted(rows[row]), most)
        for span in [s for s, before in open_.items() if s not in spans or before.stop != row]:
            yield open_.pop(span), span
        for span in spans:
            open_[span] = range(open_.get(span, range(row, row)).start, row + 1)
    for span, reach in open_.items():
        yield reach, span


def _spans(columns: Sequence[int], most: int) -> list[range]:
    """Return runs of neighbours, cut in equal pieces of at most ``most``."""
    cuts = [0, *(i for i, (a, b) in enumerate(pairwise(columns), 1) if b != a + 1), len(columns)]
    spans = []
    for begin, end in pairwise(cuts):
        pieces = -(-(end - begin) // most)
        edges = [begin + (end - begin) * i // pieces for i in range(pieces + 1)]
        spans += [range(columns[a], columns[b - 1] + 1) for a, b in pairwise(edges)]
    return spans


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows within one row of blocks of a region."""

    top: int
    values: Float[np.ndarray, "k h w"] | None
    used: Bool[np.ndarray, "h w"]
    pixels: Shaped[np.ndarray, "c hh ww"]
    """What they were made from."""

    valid: Bool[np.ndarray, "hh ww"]
    shares: Mapping[int, tuple[slice, slice]]
    """The supertiles under them: each one's columns of the map, and of what it was made from."""


@dataclass(slots=True)
class _Open:
    """A supertile that is being written."""

    writer: Supertile
    digest: ContentHash
    meter: SeamMeter
    counts: Counter[str]


class _Storing:
    """Gathers rows of a region to rows of blocks, and hands these to its supertiles.

    A thread of its own stores, one strip behind the model.
    """

    def __init__(
        self, of: Rendering, parts: Parts, window: Window, facts: Mapping[str, Any]
    ) -> None:
        self._layout = of.layout
        self._product = of.product
        self._parts = parts
        self._window = window
        self._facts = facts
        self._cover = of.cover
        self._measures = of.regrid is None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="geodino-store")
        self._storing: Future[None] | None = None
        self._block: dict[str, Shaped[np.ndarray, "c block w"]] = {}
        self._top = window.top
        self._open: dict[int, _Open] = {}

    def add(
        self,
        top: int,
        values: Float[np.ndarray, "k h w"] | None,
        used: Bool[np.ndarray, "h w"],
        ground: Ground,
    ) -> None:
        """Take rows; what they need of the ground is fetched before this returns."""
        pieces = []
        for low, high in self._cuts(top, top + len(used)):
            rows = Window(low, self._window.left, high - low, self._window.width)
            part = slice(low - top, high - top)
            mine = None if values is None else values[:, part]
            shares = {
                n: (self._columns(n), ground.columns(self._layout.window(n)))
                for n in self._layout.covering(rows)
            }
            pieces.append(_Piece(low, mine, used[part], *ground.content(low, high), shares))
        self._wait()
        self._storing = self._threads.submit(self._store, pieces)

    def _cuts(self, top: int, stop: int) -> list[tuple[int, int]]:
        """Cut rows at the edges of rows of blocks."""
        block = self._layout.block
        edges = [top, *range((top // block + 1) * block, stop, block), stop]
        return list(pairwise(edges))

    def _store(self, pieces: Sequence[_Piece]) -> None:
        for piece in pieces:
            for number, (columns, content) in piece.shares.items():
                found = self._opened(number)
                found.digest.add(piece.pixels[:, :, content], piece.valid[:, content])
                if piece.values is None:
                    continue
                mine, used = piece.values[:, :, columns], piece.used[:, columns]
                found.counts.update(self._product.counts(mine, used))
                if self._measures:
                    found.meter.add(piece.top, mine[0], used)
            values = piece.values if piece.used.any() else None
            first, stop = piece.top - self._top, piece.top - self._top + len(piece.used)
            for name, rows in self._product.stored(values, piece.used).items():
                if name not in self._block:
                    size = len(rows), self._layout.block, rows.shape[2]
                    self._block[name] = np.empty(size, dtype=rows.dtype)
                self._block[name][:, first:stop] = rows
            self._flush(self._top + stop, list(piece.shares))

    def _opened(self, number: int) -> _Open:
        if number not in self._open:
            self._open[number] = _Open(
                self._parts.open_supertile(number),
                ContentHash(),
                SeamMeter(self._cover, self._layout.window(number)),
                Counter(),
            )
        return self._open[number]

    def _columns(self, number: int) -> slice:
        """Return the columns of a supertile, counted in the region."""
        window = self._layout.window(number)
        return slice(window.left - self._window.left, window.right - self._window.left)

    def _flush(self, bottom: int, numbers: Sequence[int]) -> None:
        """Hand a row of blocks over once it is whole."""
        if bottom % self._layout.block and bottom != self._layout.grid.height:
            return
        height = bottom - self._top
        for number in numbers:
            window = self._layout.window(number)
            row = (self._top - window.top) // self._layout.block
            columns, found = self._columns(number), self._open[number]
            found.writer.write(
                row, {name: rows[:, :height, columns] for name, rows in self._block.items()}
            )
            if bottom == window.bottom:
                own = {"seams": asdict(found.meter.sums), "counts": dict(found.counts)}
                facts = {**self._facts, **own}
                found.writer.commit(found.digest.hexdigest(), **facts)
                del self._open[number]
        self._top = bottom

    def _wait(self) -> None:
        if self._storing is not None:
            self._storing.result()
            self._storing = None

    def __enter__(self) -> "_Storing":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._wait()
        finally:
            self._threads.shutdown(cancel_futures=True)
