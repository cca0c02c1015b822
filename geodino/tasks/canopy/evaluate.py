"""Maps of labelled areas exactly as predictions are made, and their scores site by site."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from geodino.data.splits import SplitName
from geodino.infer.engine import Predictor
from geodino.infer.whole import predict_window
from geodino.metrics.height import HeightProtocol, HeightSums
from geodino.tasks.canopy.areas import Area, Compared, compare
from geodino.tasks.canopy.source import CanopySource
from geodino.tasks.chips import Chips


def predicted_map(
    source: CanopySource, area: Area, predictor: Predictor, chips: Chips, *, threads: Executor
) -> tuple[Float[np.ndarray, "k h w"], Bool[np.ndarray, "h w"]]:
    """Return the map of an area on its image's own grid, as ``geodino predict`` makes it."""
    grid = source.grid(area.image)
    return predict_window(
        source.raster(area.image),
        predictor,
        chips.cover(grid.height, grid.width, predictor=predictor),
        threads=threads,
        regrid=source.regrid(area.image),
        window=area.window,
    )


def judged(
    source: CanopySource,
    areas: Iterable[Area],
    which: SplitName,
    predictor: Predictor,
    chips: Chips,
    *,
    threads: Executor,
    progress: Callable[[], None] | None = None,
) -> Iterator[Compared]:
    """Predict areas one after the other and bring each map to its labels."""
    for area in areas:
        values, valid = predicted_map(source, area, predictor, chips, threads=threads)
        yield compare(source, area, values, valid, which)
        if progress is not None:
            progress()


class SiteSums:
    """Sums of scores by site.

    Args:
        protocol: what is fixed before heights are scored.
    """

    def __init__(self, protocol: HeightProtocol) -> None:
        self._protocol = protocol
        self.sites: dict[str, HeightSums] = {}

    def add(self, compared: Compared, heights_m: Float[np.ndarray, "*s"] | None = None) -> None:
        """Add an area; ``heights_m`` are what is scored, left out the first map of it."""
        if not compared.valid.any():
            return
        sums = HeightSums.of(
            compared.values[0] if heights_m is None else heights_m,
            compared.true_m,
            compared.valid,
            gsd_m=compared.gsd_m,
            protocol=self._protocol,
        )
        site = compared.area.site
        before = self.sites.get(site)
        self.sites[site] = sums if before is None else before.merge(sums)

    @property
    def whole(self) -> HeightSums | None:
        """All sites together; None without any."""
        total: HeightSums | None = None
        for site in sorted(self.sites):
            total = self.sites[site] if total is None else total.merge(self.sites[site])
        return total


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteValues:
    """All values of one site, one after the other."""

    name: str
    values: Float[np.ndarray, "k n"]
    true_m: Float[np.ndarray, "n"]

    @property
    def valid(self) -> Bool[np.ndarray, "n"]:
        """All of them are."""
        return np.ones(self.true_m.shape, dtype=bool)


def by_site(compared: Sequence[Compared]) -> list[SiteValues]:
    """Gather the valid pixels of areas by site."""
    parts: dict[str, list[Compared]] = {}
    for one in compared:
        if one.valid.any():
            parts.setdefault(one.area.site, []).append(one)
    return [
        SiteValues(
            name=name,
            values=np.concatenate([one.values[:, one.valid] for one in parts[name]], axis=1),
            true_m=np.concatenate([one.true_m[one.valid] for one in parts[name]]),
        )
        for name in sorted(parts)
    ]
