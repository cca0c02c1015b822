"""Which variant of DINOv3 suits a task: satellite or web weights, as the published evidence says.

The evidence is mixed, so the table comes with every answer: scores of DINOv3's satellite and web
models with frozen backbones, read in the papers named.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from geodino.errors import RecipeError, suggest

Variant = Literal["satellite", "web", "either"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """One published comparison on the same task, with the same head."""

    task: str
    set: str
    metric: str
    satellite: float
    web: float
    higher_is_better: bool
    gsd_m: float
    """Ground sampling distance of the images, metres."""

    models: str
    """Which two models were compared."""

    source: str

    @property
    def winner(self) -> Variant:
        """The variant with the better score; ``either`` where they are equal."""
        gap = self.satellite - self.web
        if gap == 0:
            return "either"
        return "satellite" if (gap > 0) == self.higher_is_better else "web"


_TABLE_17 = "DINOv3 paper (arXiv 2508.10104), table 17"
_TABLE_18 = "DINOv3 paper (arXiv 2508.10104), table 18"
_TABLE_19 = "DINOv3 paper (arXiv 2508.10104), table 19"
_BENCH = "torchgeo-bench, results of 2026-07-01, linear, z-score, RGB"
_7B = "7B satellite, 7B web"
_L = "ViT-L satellite, ViT-L web"


def _row(
    task: str, name: str, metric: str, scores: tuple[float, float], gsd_m: float, source: str,
    *, models: str = _7B, higher: bool = True,
) -> Evidence:  # fmt: skip
    return Evidence(
        task=task, set=name, metric=metric, satellite=scores[0], web=scores[1],
        higher_is_better=higher, gsd_m=gsd_m, models=models, source=source,
    )  # fmt: skip


EVIDENCE = (
    _row("canopy", "SatLidar val", "MAE, m", (2.2, 2.4), 0.6, _TABLE_17, higher=False),
    _row("canopy", "SatLidar test", "MAE, m", (3.2, 3.6), 0.6, _TABLE_17, higher=False),
    _row("canopy", "NEON", "MAE, m", (2.6, 2.7), 0.6, _TABLE_17, higher=False),
    _row("canopy", "Sao Paulo", "MAE, m", (5.5, 5.9), 0.6, _TABLE_17, higher=False),
    _row("canopy", "Open-Canopy", "MAE, m", (2.02, 2.17), 1.5, _TABLE_17, higher=False),
    _row("classification", "m-bigearthnet", "F1", (74.0, 74.6), 10.0, _TABLE_18),
    _row("classification", "m-brick-kiln", "accuracy", (97.2, 97.7), 10.0, _TABLE_18),
    _row("classification", "m-eurosat", "accuracy", (94.8, 97.0), 10.0, _TABLE_18),
    _row("classification", "m-forestnet", "accuracy", (62.3, 57.9), 15.0, _TABLE_18),
    _row("classification", "m-pv4ger", "accuracy", (96.1, 98.3), 0.1, _TABLE_18),
    _row("classification", "m-so2sat", "accuracy", (62.1, 63.8), 10.0, _TABLE_18),
    _row("classification", "mean of six", "score", (81.2, 80.5), 10.0, _BENCH, models=_L),
    _row("segmentation", "m-cashew-plant", "mIoU", (94.1, 96.0), 10.0, _TABLE_18),
    _row("segmentation", "m-chesapeake", "mIoU", (76.6, 76.5), 1.0, _TABLE_18),
    _row("segmentation", "m-NeonTree", "mIoU", (62.6, 66.4), 0.1, _TABLE_18),
    _row("segmentation", "m-nz-cattle", "mIoU", (83.4, 83.7), 0.1, _TABLE_18),
    _row("segmentation", "m-pv4ger-seg", "mIoU", (95.5, 95.9), 0.1, _TABLE_18),
    _row("segmentation", "m-SA-crop-type", "mIoU", (37.6, 36.8), 10.0, _TABLE_18),
    _row("segmentation", "LoveDA", "mIoU", (55.3, 56.2), 0.3, _TABLE_19),
    _row("segmentation", "iSAID", "mIoU", (64.8, 71.4), 0.3, _TABLE_19),
    _row("detection", "DIOR", "AP50", (76.6, 80.5), 0.5, _TABLE_19),
)
"""Every comparison that the advice rests on."""

TASKS = tuple(dict.fromkeys(row.task for row in EVIDENCE))

_RGB = {"red", "green", "blue"}
_NEAR = 3.0
"""Images within this factor in ground sampling distance count as alike."""

_CLEAR = 0.5
"""Domain score from which on one variant is named alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """Which weights to begin with, and why."""

    variant: Variant
    domain_score: float
    """From -1 (every published comparison speaks for the web model) to 1 (for the satellite model);
    comparisons on images with pixels like one's own weigh most."""

    models: tuple[str, ...]
    """MODEL names to try, the first one first."""

    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    """The published comparisons of the task."""


def recommend(
    task: str, *, gsd_m: float | None = None, bands: str | Sequence[str] | None = None
) -> Advice:
    """Say which of DINOv3's variants to begin with.

    Measures of metres (canopy height) go to the satellite model in every published comparison;
    objects and land cover mostly to the web model, by little. The domain score sums them up: each
    comparison counts 1 for its winner, with a weight that falls off with the ratio of its pixels'
    size to one's own (a Gaussian of its logarithm, of deviation ln 3). From 0.5 to either side one
    variant is named; between, both are: `geodino evaluate` on one's own labels decides.

    Args:
        task: ``canopy``, ``classification``, ``segmentation`` or ``detection``.
        gsd_m: ground sampling distance of one's images, metres; None: not known.
        bands: common names of one's bands, a list or words with commas; None: red, green and blue.

    Raises:
        RecipeError: there is no evidence on such a task, or no pixel has such a size.
    """
    if isinstance(bands, str):
        bands = [word.strip() for word in bands.split(",")]
    if gsd_m is not None and not (math.isfinite(gsd_m) and gsd_m > 0):
        raise RecipeError(
            f"gsd is {gsd_m:g}, but a pixel has a size above 0. Give metres, such as 0.3, or leave "
            "it out."
        )
    if task not in TASKS:
        raise RecipeError(
            f"There is no advice on {task!r}.{suggest(task, TASKS)} There is on: {', '.join(TASKS)}."
        )
    rows = tuple(row for row in EVIDENCE if row.task == task)
    near = [row for row in rows if gsd_m is None or 1 / _NEAR <= row.gsd_m / gsd_m <= _NEAR]
    judged = near or list(rows)
    wins = {v: sum(row.winner == v for row in judged) for v in ("satellite", "web")}
    score = _domain_score(rows, gsd_m)
    reasons = [
        f"of {len(judged)} published comparisons on {task}"
        + (f" near {gsd_m:g} m" if near and gsd_m is not None else "")
        + f", the satellite model won {wins['satellite']} and the web model {wins['web']}",
        f"domain score {score:+.2f}, of -1 (web) to +1 (satellite)",
    ]
    if gsd_m is not None and not near:
        reasons.append(f"none of them has pixels near {gsd_m:g} m, so take all of this with care")
    variant: Variant = "either"
    if abs(score) >= _CLEAR:
        variant = "satellite" if score > 0 else "web"
    else:
        reasons.append(
            "that is mixed: evaluate both on labels of your own (geodino evaluate), and keep the "
            "one that is better on ground like yours"
        )
    more = set(bands or _RGB) - _RGB
    if more:
        reasons.append(
            f"both read red, green and blue alone; {', '.join(sorted(more))} need an adapted first "
            "layer, which lost accuracy in torchgeo-bench, or a model pretrained on your tiles "
            "(geodino pretrain --init)"
        )
    return Advice(
        variant=variant,
        domain_score=score,
        models=_models(variant),
        reasons=tuple(reasons),
        evidence=rows,
    )


def _domain_score(rows: Sequence[Evidence], gsd_m: float | None) -> float:
    """Mean vote of the comparisons, those on pixels of a like size first."""
    votes = [{"satellite": 1.0, "web": -1.0, "either": 0.0}[row.winner] for row in rows]
    far = [0.0 if gsd_m is None else math.log(row.gsd_m / gsd_m) / math.log(_NEAR) for row in rows]
    # Relative to the nearest, so that images unlike all others divide by no zero.
    nearest = min(distance * distance for distance in far)
    weights = [math.exp(0.5 * (nearest - distance * distance)) for distance in far]
    return sum(v * w for v, w in zip(votes, weights, strict=True)) / sum(weights)


def _models(variant: Variant) -> tuple[str, ...]:
    satellite = ("timm:vit_large_patch16_dinov3.sat493m", "timm:vit_7b_patch16_dinov3.sat493m")
    web = ("timm:vit_large_patch16_dinov3.lvd1689m", "timm:vit_small_patch16_dinov3.lvd1689m")
    return {"satellite": satellite, "web": web, "either": (satellite[0], web[0])}[variant]


def in_words(advice: Advice) -> str:
    """Return the advice as text, the table below."""
    said = {"satellite": "the satellite model", "web": "the web model", "either": "both, compared"}
    lines = [f"Begin with {said[advice.variant]}: {', '.join(advice.models)}"]
    lines += [f"  * {reason}" for reason in advice.reasons]
    lines.append(f"  {'set':<16} {'metric':<9} {'satellite':>9} {'web':>7}  better     source")
    lines += [
        f"  {row.set:<16} {row.metric:<9} {row.satellite:>9g} {row.web:>7g}  {row.winner:<9}  "
        f"{row.source}, {row.models}"
        for row in advice.evidence
    ]
    return "\n".join(lines)
