"""Scores of canopy heights, as sums that add up over tiles and sites.

Every score is a function of sums, so parts may be merged in any grouping, and resampling sites costs
next to nothing. Sums are float64. What lies under an invalid pixel changes no bit of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field, field_validator

from geodino.config import Config
from geodino.metrics.height_maps import (
    BLOCK_VALID_SHARE,
    CLASS_EDGES_M,
    HRCH_BLOCK_PX,
    HRCH_TRIM_PX,
    block_means,
    block_side_px,
    class_names,
    edge_errors,
    finite_values,
)

Totals = dict[str, Float[np.ndarray, "..."]]
"""Sums by name: float64 arrays, one value or one per height class, after any leading axes."""


class HeightProtocol(Config):
    """What is fixed before heights are scored."""

    class_edges_m: tuple[float, ...] = CLASS_EDGES_M
    """Lower edges of the height classes, by truth; the last class has no upper edge."""

    tree_m: float = Field(default=2.0, gt=0)
    """From this height on a pixel is tree cover (Open-Canopy: 2 m)."""

    block_px: int = Field(default=HRCH_BLOCK_PX, ge=1)
    """Side of the blocks of ``block_r2_px``, in pixels whatever their size."""

    trim_px: int = Field(default=HRCH_TRIM_PX, ge=0)
    """Rows and columns dropped at the top and left before those blocks are cut."""

    block_m: float = Field(default=30.0, gt=0)
    """Side of the blocks of ``block_r2_m``, on the ground."""

    block_valid_share: float = Field(default=BLOCK_VALID_SHARE, gt=0, le=1)
    """Blocks with a smaller share of valid pixels are left out."""

    clip_truth: bool = True
    """Count a truth below 0 m (noise of laser heights) as 0 m, as published evaluations do."""

    @field_validator("class_edges_m")
    @classmethod
    def _rising(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if not edges or any(a >= b for a, b in pairwise(edges)):
            raise ValueError(f"class edges must rise, found {edges}")
        return edges

    @property
    def class_names(self) -> tuple[str, ...]:
        """``0-2m``, ``2-5m``, ..., ``40m+``."""
        return class_names(self.class_edges_m)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeightClassScores:
    """Errors of the pixels whose true height lies in one class."""

    name: str
    """As ``5-10m``; a lower edge belongs to its class."""

    pixels: int
    """How many."""

    mae_m: float
    """Mean absolute error; NaN for a class without pixels."""

    bias_predicted_minus_true_m: float
    """Mean error; NaN for a class without pixels. Falls with height for any honest regression."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeightScores:
    """What predicted heights are worth, all valid pixels alike; NaN where a score is undefined."""

    pixels: int
    """Valid pixels scored."""

    mae_m: float
    """Mean absolute error."""

    rmse_m: float
    """Root of the mean squared error."""

    bias_predicted_minus_true_m: float
    """Mean error: above 0 means too tall. CHMv2's tables print the other sign, see below."""

    r2: float
    """1 minus squared errors over squared differences of the truth from its mean."""

    block_r2_px: float
    """R2 of the means of blocks of ``block_px`` pixels (HighResCanopyHeight's block R2)."""

    block_r2_m: float
    """R2 of the means of blocks of ``block_m`` metres, comparable across pixel sizes."""

    edge_error_m_per_px: float
    """Mean absolute difference of Sobel slopes, see ``geodino.metrics.height_maps.edge_errors``."""

    tree_cover_iou: float
    """Pixels of ``tree_m`` or more in both, over pixels so in either."""

    nmae: float
    """Mean of ``|error| / (1 + |true|)``, as Open-Canopy's code has it."""

    nmae_above_tree_m: float
    """The same over pixels whose truth is above ``tree_m``, as Open-Canopy's text has it."""

    classes: tuple[HeightClassScores, ...]
    """Errors by true height."""

    @property
    def bias_true_minus_predicted_m(self) -> float:
        """Bias with the sign of CHMv2's tables: above 0 means too low."""
        return -self.bias_predicted_minus_true_m


@dataclass(frozen=True, slots=True)
class HeightSums:
    """What the scores of one tile or site are made of; parts merge into the whole."""

    protocol: HeightProtocol
    totals: Totals

    @classmethod
    def of(
        cls,
        predicted_m: Float[np.ndarray, "*b h w"],
        true_m: Float[np.ndarray, "*b h w"],
        valid: Bool[np.ndarray, "*b h w"],
        *,
        gsd_m: float,
        protocol: HeightProtocol | None = None,
    ) -> "HeightSums":
        """Sum up maps of one pixel size. Blocks and edges never reach from one map into another.

        Raises:
            ValueError: a valid pixel without a finite height.
        """
        rules = protocol or HeightProtocol()
        p = finite_values(predicted_m, valid, name="predicted height")
        t = finite_values(true_m, valid, name="true height")
        if rules.clip_truth:
            t, true_m = np.maximum(t, 0.0), np.maximum(true_m, 0.0)
        metres = block_side_px(rules.block_m, gsd_m=gsd_m)
        totals = _pixel_totals(p, t, rules)
        for kind, side, trim in (("px", rules.block_px, rules.trim_px), ("m", metres, 0)):
            means = block_means(
                predicted_m,
                true_m,
                valid,
                block_px=side,
                trim_px=trim,
                valid_share=rules.block_valid_share,
            )
            totals |= {f"block_{kind}_{k}": v for k, v in _squares(*means).items()}
        edges = edge_errors(predicted_m, true_m, valid)
        totals |= _float64({"edge_n": edges.size, "edge": edges.sum()})
        return cls(rules, totals)

    def merge(self, other: "HeightSums") -> "HeightSums":
        """Return the sums of both parts together.

        Raises:
            ValueError: the parts were summed under different protocols.
        """
        if self.protocol != other.protocol:
            raise ValueError("sums of different protocols cannot be merged")
        totals = {k: np.asarray(v + other.totals[k]) for k, v in self.totals.items()}
        return HeightSums(self.protocol, totals)

    def scores(self) -> HeightScores:
        """Return the scores of everything summed so far."""
        found = scores_of(self.totals)
        of_class = {k: found.pop(k) for k in ("class_mae_m", "class_bias_predicted_minus_true_m")}
        rows = zip(
            self.protocol.class_names, self.totals["class_n"], *of_class.values(), strict=True
        )
        return HeightScores(
            pixels=int(self.totals["n"]),
            classes=tuple(
                HeightClassScores(
                    name=name, pixels=int(n), mae_m=float(mae), bias_predicted_minus_true_m=float(b)
                )
                for name, n, mae, b in rows
            ),
            **{k: float(v) for k, v in found.items()},
        )

    def named(self) -> dict[str, float]:
        """Return the scores under flat names: ``mae_m``, ..., ``class/5-10m/mae_m``, ..."""
        return {k: float(v) for k, v in flat_scores(scores_of(self.totals), self.protocol)}


def _pixel_totals(
    p: Float[np.ndarray, " n"], t: Float[np.ndarray, " n"], rules: HeightProtocol
) -> Totals:
    error = p - t
    size = np.abs(error)
    relative, tall = size / (1.0 + np.abs(t)), t > rules.tree_m
    trees, called = t >= rules.tree_m, p >= rules.tree_m
    edges = np.array(rules.class_edges_m)
    place = np.searchsorted(edges, t, side="right")

    def by_class(weights: Float[np.ndarray, " n"] | None) -> np.ndarray:
        # Place 0 is below the first edge: in no class.
        return np.bincount(place, weights=weights, minlength=len(edges) + 1)[1:]

    return _squares(p, t) | _float64(
        {
            "abs": size.sum(),
            "error": error.sum(),
            "relative": relative.sum(),
            "tall_n": tall.sum(),
            "tall_relative": relative[tall].sum(),
            "trees_both": (trees & called).sum(),
            "trees_either": (trees | called).sum(),
            "class_n": by_class(None),
            "class_abs": by_class(size),
            "class_error": by_class(error),
        }
    )


def _squares(p: Float[np.ndarray, " n"], t: Float[np.ndarray, " n"]) -> Totals:
    """What RMSE and R2 are made of."""
    return _float64(
        {
            "n": t.size,
            "true": t.sum(),
            "true2": np.square(t).sum(),
            "error2": np.square(p - t).sum(),
        }
    )


def _float64(values: Mapping[str, Any]) -> Totals:
    return {k: np.asarray(v, dtype=np.float64) for k, v in values.items()}


def scores_of(t: Totals) -> Totals:
    """Every score from sums with any leading axes, under the names of ``HeightScores``."""
    return _float64(
        {
            "mae_m": _ratio(t["abs"], t["n"]),
            "rmse_m": np.sqrt(_ratio(t["error2"], t["n"])),
            "bias_predicted_minus_true_m": _ratio(t["error"], t["n"]),
            "r2": _r2(t, ""),
            "block_r2_px": _r2(t, "block_px_"),
            "block_r2_m": _r2(t, "block_m_"),
            "edge_error_m_per_px": _ratio(t["edge"], t["edge_n"]),
            "tree_cover_iou": _ratio(t["trees_both"], t["trees_either"]),
            "nmae": _ratio(t["relative"], t["n"]),
            "nmae_above_tree_m": _ratio(t["tall_relative"], t["tall_n"]),
            "class_mae_m": _ratio(t["class_abs"], t["class_n"]),
            "class_bias_predicted_minus_true_m": _ratio(t["class_error"], t["class_n"]),
        }
    )


def flat_scores(
    scores: Totals, protocol: HeightProtocol
) -> Iterator[tuple[str, Float[np.ndarray, "..."]]]:
    """Yield scores one by one, those of height classes as ``class/5-10m/mae_m``."""
    for name, values in scores.items():
        if not name.startswith("class_"):
            yield name, values
            continue
        for index, label in enumerate(protocol.class_names):
            yield f"class/{label}/{name.removeprefix('class_')}", values[..., index]


def _r2(t: Totals, kind: str) -> Float[np.ndarray, "..."]:
    n, true, true2, error2 = (t[f"{kind}{k}"] for k in ("n", "true", "true2", "error2"))
    spread = true2 - np.square(true) / np.maximum(n, 1.0)
    # What is left of a constant truth after the subtraction is rounding, not spread.
    return np.asarray(1.0 - _ratio(error2, np.where(spread > 1e-12 * true2, spread, 0.0)))


def _ratio(
    above: Float[np.ndarray, "..."], below: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """Quotient; NaN where there is nothing to divide by."""
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)
