"""Two tags that lie often enough to be checked against the pixels: alpha and nodata.

Real files tag near infrared as alpha (NAIP) and name a nodata value that true pixels hold (255
in NEON's camera mosaics). Each question is answered once for a source, from a bounded sample
that depends on the list of files alone, and the answer is written down as a sentence.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geodino.data.config import DataConfig
from geodino.data.parallel import in_order
from geodino.errors import SourceError
from geodino.geo.validity import (
    ALPHA_SHARE,
    NODATA_SHARE,
    ReadRule,
    can_hold,
    nodata_counts,
    share_at_extremes,
)
from geodino.geo.windows import super_windows
from geodino.io.raster import HandlePool, RasterInfo, read

FILES = 32
"""Files inspected for each question, evenly spaced among those that carry the tag."""

WINDOWS = 4
"""Windows inspected per file, evenly spaced from its first to its last."""

SIDE = 512
"""Side of such a window, pixels."""

_RAW = ReadRule(alpha="band", nodata="ignore")

Bad = list[tuple[str, str]]


def decide(
    infos: Sequence[RasterInfo], config: DataConfig, *, threads: int
) -> tuple[ReadRule, Bad]:
    """Return how the files of a source are read, and the inspected files that are damaged."""
    with HandlePool(1) as pool:
        look = _Look(pool, threads)
        alpha, why_alpha = _decide_alpha(infos, config, look)
        nodata, why_nodata = _decide_nodata(infos, config, alpha, look)
    reasons = tuple(why for why in (why_alpha, why_nodata) if why is not None)
    return ReadRule(alpha=alpha, nodata=nodata, reasons=reasons), look.bad


def _decide_alpha(
    infos: Sequence[RasterInfo], config: DataConfig, look: "_Look"
) -> tuple[Any, str | None]:
    tagged = [info for info in infos if info.alpha is not None]
    if config.alpha != "auto":
        return config.alpha, f"data.alpha is declared: {config.alpha}" if tagged else None
    if not tagged:
        return "mask", None

    def measure(info: RasterInfo) -> tuple[float, int]:
        band = (info.alpha or 0) - 1
        alpha = np.concatenate([pixels[band].ravel() for pixels in look.sample(info)])
        return share_at_extremes(alpha), len(np.unique(alpha))

    found = look.at(tagged, measure)
    for info, (share, distinct) in found:
        if share < ALPHA_SHARE:
            return "band", (
                f"band {info.alpha} is tagged alpha but holds {distinct} distinct values in "
                f"{Path(info.path).name}: read as data (data.alpha: mask reads it as a mask)"
            )
    return "mask", (
        f"the band tagged alpha holds only 0 and its maximum in {len(found)} of {len(tagged)} "
        "files inspected: read as a mask (data.alpha: band reads it as data)"
    )


def _decide_nodata(
    infos: Sequence[RasterInfo], config: DataConfig, alpha: str, look: "_Look"
) -> tuple[Any, str | None]:
    if config.nodata != "auto":
        return config.nodata, f"data.nodata is declared: {config.nodata}"
    rule = ReadRule(alpha="mask" if alpha == "mask" else "band")
    doubtful = [info for info in infos if len(_tagged_bands(info, rule)) > 1]
    if not doubtful:
        return "tag", None

    def measure(info: RasterInfo) -> Any:
        bands = [i - 1 for i in _tagged_bands(info, rule)]
        values = tuple(info.nodata[i] for i in bands)
        # What lies under an alpha of 0 is invalid whatever it is, and proves nothing.
        mask = None if rule.alpha == "band" or info.alpha is None else info.alpha - 1
        total = np.zeros(2, dtype=np.int64)
        for pixels in look.sample(info):
            seen = pixels[bands] if mask is None else pixels[bands][:, pixels[mask] > 0][:, None]
            total += nodata_counts(seen, values)
        return total

    found = look.at(doubtful, measure)
    touched, everywhere = (sum(int(counts[i]) for _, counts in found) for i in (0, 1))
    tags = sorted({v for info in doubtful for v in info.nodata if v is not None})
    name = " / ".join(f"{v:g}" for v in tags[:3])
    if touched == 0:
        return "tag", (
            f"nodata {name} does not occur in {len(found)} of {len(doubtful)} files inspected: "
            "the tag is believed (data.nodata: ignore drops it)"
        )
    share = everywhere / touched
    if share >= NODATA_SHARE:
        return "tag", (
            f"nodata {name}: {share:.0%} of the pixels it touches hold it in all bands: "
            "the tag is believed (data.nodata: ignore drops it)"
        )
    example = max(found, key=lambda item: int(item[1][0] - item[1][1]))[0]
    return "ignore", (
        f"nodata {name} is tagged, but only {share:.1%} of the pixels it touches hold it in all "
        f"bands (e.g. {Path(example.path).name}): it hides true values and is ignored "
        "(data.nodata: tag believes it)"
    )


def _tagged_bands(info: RasterInfo, rule: ReadRule) -> list[int]:
    """Return the data bands whose integer nodata tag would be tested."""
    dtype = np.dtype(info.dtype)
    if dtype.kind == "f" or info.mask != "none":
        return []
    tags = ((i, info.nodata[i - 1]) for i in info.data_bands(rule))
    return [i for i, value in tags if value is not None and can_hold(dtype, value)]


class _Look:
    """Looks at the pixels of some files of a source, and notes those that are damaged."""

    def __init__(self, pool: HandlePool, threads: int) -> None:
        self.bad: Bad = []
        self._pool = pool
        self._threads = threads

    def at(
        self, infos: Sequence[RasterInfo], measure: Callable[[RasterInfo], Any]
    ) -> list[tuple[RasterInfo, Any]]:
        """Measure up to ``FILES`` files, evenly spaced from the first to the last."""
        chosen = [infos[i] for i in _spaced(len(infos), FILES)]

        def attempt(info: RasterInfo) -> Any:
            try:
                return measure(info)
            except SourceError as error:
                return error

        found = []
        results = in_order(attempt, chosen, threads=self._threads)
        for info, result in zip(chosen, results, strict=True):
            if isinstance(result, SourceError):
                self.bad.append((info.path, str(result)))
            else:
                found.append((info, result))
        return found

    def sample(self, info: RasterInfo) -> list[Any]:
        """Read a few windows of a file as they are stored, all bands."""
        tiling = super_windows(info.grid.height, info.grid.width, block=info.block, size=SIDE)
        windows = [tiling[i] for i in _spaced(len(tiling), WINDOWS)]
        return [read(self._pool, info.path, window, rule=_RAW)[0] for window in windows]


def _spaced(length: int, count: int) -> list[int]:
    """Return up to ``count`` different places in ``range(length)``, first and last included."""
    places = np.linspace(0, length - 1, min(count, length)).round().astype(int)
    return [int(i) for i in np.unique(places)]
