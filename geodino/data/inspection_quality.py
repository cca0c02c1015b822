"""The provider's quality layer: which classes it holds, in a sample of the scenes."""

import numpy as np
from numpy.typing import NDArray

from geodino.data.config import DataConfig
from geodino.data.inspection import QualityFacts
from geodino.data.inspection_kinds import Readable
from geodino.data.parallel import in_order
from geodino.data.sources.descriptor import QualityLayer
from geodino.errors import SourceError
from geodino.geo.quality import usable
from geodino.geo.validity import ReadRule
from geodino.geo.windows import super_windows
from geodino.io.raster import HandlePool, describe, read

SCENES = 32
"""Scenes looked at, evenly spaced among those that have the layer."""

WINDOWS = 4
"""Windows read of each, evenly spaced from the first to the last."""

_SIDE = 512
_AS_STORED = ReadRule(alpha="band", nodata="ignore")


def quality_facts(
    kind: Readable, config: DataConfig, *, threads: int
) -> tuple[QualityFacts | None, list[tuple[str, str]]]:
    """Count the classes of the quality layer of a kind's scenes.

    Returns:
        The shares of the classes (None without a layer), and layers that cannot be read.
    """
    layers = [scene.quality for scene in kind.scenes if scene.quality is not None]
    if not layers:
        return None, []
    known = layers[0][1].known
    chosen = [layers[i] for i in _spaced(len(layers), SCENES)]

    def attempt(layer: tuple[str, QualityLayer]) -> NDArray[np.int64] | SourceError:
        try:
            return _counts(pool, *layer)
        except SourceError as error:
            return error

    total = np.zeros(len(known.classes) + 1, dtype=np.int64)
    bad, scenes_read = [], 0
    with HandlePool(1) as pool:
        for (path, _), result in zip(
            chosen, in_order(attempt, chosen, threads=threads), strict=True
        ):
            if isinstance(result, SourceError):
                bad.append((path, str(result)))
            else:
                total += result
                scenes_read += 1
    shares = total[:-1] / max(int(total[-1]), 1)
    facts = QualityFacts(
        classes={name: float(s) for name, s in zip(known.classes, shares, strict=True)},
        masked=layers[0][1].mask if config.mask is None else config.mask,
        scenes_read=scenes_read,
        scenes_with=len(layers),
    )
    return facts, bad


def _counts(pool: HandlePool, path: str, layer: QualityLayer) -> NDArray[np.int64]:
    """Count the pixels of each class in a few windows, and after them all pixels."""
    known, info = layer.known, describe(path)
    is_bands = known.encoding == "bands"
    numbers = list(known.classes.values())
    tiling = super_windows(info.grid.height, info.grid.width, block=info.block, size=_SIDE)
    counts = np.zeros(len(numbers) + 1, dtype=np.int64)
    for window in (tiling[i] for i in _spaced(len(tiling), WINDOWS)):
        wanted = [n for n in numbers if n <= info.count] if is_bands else [layer.number]
        pixels, _ = read(pool, path, window, bands=wanted, rule=_AS_STORED)
        for i, number in enumerate(numbers):
            if is_bands and number > info.count:
                continue
            of_class = pixels[[wanted.index(number)]] if is_bands else pixels
            counts[i] += int((~usable(of_class, known.encoding, (number,))).sum())
        counts[-1] += window.area
    return counts


def _spaced(length: int, count: int) -> list[int]:
    """Return up to ``count`` different places in ``range(length)``, first and last included."""
    places = np.linspace(0, length - 1, min(count, length)).round().astype(int)
    return [int(i) for i in np.unique(places)]
