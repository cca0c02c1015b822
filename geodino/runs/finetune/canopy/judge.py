"""Measuring a canopy model on the ground of each split, beside what it must beat."""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from geodino import seeds
from geodino.data.splits import SplitName
from geodino.infer.engine import Predictor
from geodino.infer.symmetries import Symmetric, Symmetries
from geodino.metrics.height import HeightSums
from geodino.models.canopy import CanopyModel
from geodino.runs.finetune.canopy.config import GroundConfig
from geodino.tasks.canopy.areas import Area, Compared, find_areas
from geodino.tasks.canopy.evaluate import SiteSums, SiteValues, by_site, judged
from geodino.tasks.canopy.floors import Floors, fit_floors, green_map
from geodino.tasks.canopy.source import CanopySource
from geodino.tasks.chips import Chips
from geodino.tasks.drawn import drawn

MEAN, GREEN = "mean height", "height by greenness"
"""What the floors are called."""

BEFORE = "before recalibration"
"""What a model is called whose heights were not yet set right."""

SHOWN = 6
"""Sites that pictures are made of."""

_FLOOR_AREAS = 256
"""Areas of training ground that floors are fitted on, at most."""

_EFFECT_AREAS = 4
"""Validation areas on which the effect of chips and turns is measured."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and the ground it is measured on."""

    source: CanopySource
    model: CanopyModel
    chips: Chips

    val: tuple[Area, ...]
    """All validation areas."""

    config: GroundConfig
    seed: int

    threads: int
    """Threads that read."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found on the areas of one split."""

    which: SplitName
    model: dict[str, HeightSums]
    floors: dict[str, dict[str, HeightSums]]
    """By the name of the floor."""

    values: list[SiteValues]
    """A part of the pixels of each site."""

    shown: list[Compared] = field(default_factory=list)
    """One area each of some sites."""


class Judge:
    """Measures a model on the ground of each split.

    Args:
        subject: images, labels, chips.
        predictor: the model. A channel after those of the model is its heights before they were set
            right, and is scored beside the floors.
        threads: that read.
    """

    def __init__(self, subject: Subject, predictor: Predictor, threads: Executor) -> None:
        self._subject = subject
        self._predictor = predictor
        self._threads = threads

    def floors(self) -> Floors:
        """Fit the floors on training ground."""
        subject = self._subject
        areas = find_areas(subject.source, "train", threads=subject.threads)
        return fit_floors(subject.source, drawn(areas, _FLOOR_AREAS, seed=subject.seed))

    def measure(self, which: SplitName, floors: Floors | None) -> Measured | None:
        """Predict all areas of a split; None where it has none."""
        subject, config = self._subject, self._subject.config
        source = subject.source
        areas = find_areas(source, which, threads=subject.threads)
        model = SiteSums(config.protocol)
        beside = {name: SiteSums(config.protocol) for name in (BEFORE, MEAN, GREEN)}
        channels = 1 + len(subject.model.config.quantiles)
        parts: list[Compared] = []
        shown: dict[str, Compared] = {}
        for one in self._judged(areas, which):
            model.add(one)
            if len(one.values) > channels:
                beside[BEFORE].add(one, one.values[channels])
            if floors is not None:
                beside[MEAN].add(one, floors.mean.predict(one.true_m.shape))
                if floors.by_greenness is not None:
                    green = green_map(source, one.area, which, floors.greenness)
                    guess = floors.by_greenness.predict(green.values[0].astype(np.float64))
                    beside[GREEN].add(replace(one, valid=one.valid & green.valid), guess)
            parts.append(thinned(one, config.intervals.pixels_per_site, subject.seed))
            if one.area.site not in shown and len(shown) < SHOWN and one.valid.any():
                shown[one.area.site] = one
        if not model.sites:
            return None
        return Measured(
            which=which,
            model=model.sites,
            floors={name: sums.sites for name, sums in beside.items() if sums.sites},
            values=by_site(parts),
            shown=list(shown.values()),
        )

    def effects(self) -> dict[str, Any]:
        """Return what other chips and moved chips change on a few validation areas."""
        subject = self._subject
        areas = drawn(subject.val, _EFFECT_AREAS, seed=subject.seed)
        usual = list(self._judged(areas, "val"))
        found: dict[str, Any] = {"areas": len(areas), "mae_m": _mae(usual)}
        align = self._predictor.align
        for name, factor in (("chips half as large", 0.5), ("chips twice as large", 2.0)):
            side = max(align, round(subject.chips.chip * factor / align) * align)
            if side == subject.chips.chip:
                continue
            chips = Chips.fitting(chip=side, overlap=None, align=align)
            found[f"{name} ({side} px)"] = _change(
                usual, list(self._judged(areas, "val", chips=chips))
            )
        means: tuple[tuple[str, Symmetries], ...] = (
            ("mean of 4 flips of each chip", "flips"),
            ("mean of 8 flips and turns of each chip", "turns"),
        )
        for name, symmetries in means:
            found[name] = _change(usual, list(self._judged(areas, "val", symmetries=symmetries)))
        return found

    def _judged(
        self,
        areas: tuple[Area, ...],
        which: SplitName,
        *,
        chips: Chips | None = None,
        symmetries: Symmetries = "none",
    ) -> Iterator[Compared]:
        return judged(
            self._subject.source,
            areas,
            which,
            Symmetric(self._predictor, symmetries),
            chips or self._subject.chips,
            threads=self._threads,
        )


def thinned(one: Compared, most: int, seed: int) -> Compared:
    """An area with at most so many of its valid pixels, as a list: memory is bounded."""
    values, true_m = one.values[:, one.valid], one.true_m[one.valid]
    if true_m.size > most:
        area = one.area
        key = (area.image, -1 if area.label is None else area.label, area.site, str(area.window))
        some = np.sort(seeds.rng(seed, "pixels of areas", *key).permutation(true_m.size)[:most])
        values, true_m = values[:, some], true_m[some]
    valid = np.ones(true_m.shape, dtype=bool)
    return replace(one, values=values, true_m=true_m, valid=valid)


def _mae(compared: list[Compared]) -> float:
    errors = [np.abs(one.values[0] - np.maximum(one.true_m, 0))[one.valid] for one in compared]
    joined = np.concatenate(errors) if errors else np.zeros(0)
    return float(joined.mean()) if joined.size else float("nan")


def _change(usual: list[Compared], other: list[Compared]) -> dict[str, float]:
    def gap(a: Compared, b: Compared) -> Float[np.ndarray, " n"]:
        return np.asarray(np.abs(a.values[0] - b.values[0])[a.valid & b.valid])

    gaps = [gap(a, b) for a, b in zip(usual, other, strict=True)]
    joined = np.concatenate(gaps) if gaps else np.zeros(0)
    mean = float(joined.mean()) if joined.size else float("nan")
    return {"mean_change_m": mean, "mae_m": _mae(other)}
