"""Heights as an expectation over bins: the bins in metres, and what the logits weigh them with.

CHMv2 (arXiv 2603.06382) spaces its bins between logarithmic and linear: dense near the ground,
where most pixels are, and no coarser than needed at the top. All functions are pure.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from geodino.config import Config

Spacing = Literal["mixlog", "log", "linear"]
Weighting = Literal["relu", "relu_floor", "softmax", "sigmoid"]

_LOWEST = 0.001
"""Smallest bin: metres, and eighths of a metre scale for ``mixlog``."""

_EIGHTH = 8.0
"""``mixlog`` is spaced in units of eight metres. Eight is a power of two: no rounding comes of it."""

_TINY, _FLOOR = 1e-8, 0.1


class BinsConfig(Config):
    """The heights a dense head chooses between, and how it chooses."""

    count: int = Field(default=256, ge=2)
    """How many bins, hence channels of the head."""

    ceiling_m: float = Field(default=96.0, gt=0.01)
    """Highest bin, metres: no prediction exceeds it. 96 covers nearly every forest on Earth."""

    spacing: Spacing = "mixlog"
    """``mixlog``: CHMv2's, logarithmic near the ground and ever more linear above; ``log``;
    ``linear``."""

    weighting: Weighting = "relu"
    """How logits become weights of sum 1. ``relu``: CHMv2's, negative logits count as nothing;
    ``relu_floor``: each bin counts at least a little; ``softmax``; ``sigmoid``."""

    initial_m: float = Field(default=2.0, gt=0)
    """About what the untrained head predicts everywhere, metres; its small random weights add some."""

    def heights(self) -> Float[Tensor, "k"]:
        """Return the bins in metres, float32, ascending."""
        return height_bins(self.count, self.ceiling_m, self.spacing)


def height_bins(
    count: int,
    ceiling_m: float,
    spacing: Spacing = "mixlog",
    *,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "k"]:
    r"""Return ``count`` ascending heights up to ``ceiling_m``, metres.

    ``mixlog`` is :math:`8\,[\,t\,\ell_i + (1 - t)\,u_i\,]` with t falling linearly from 1 to 0, and
    :math:`\ell` spaced logarithmically, u linearly, between 0.001 and ``ceiling_m / 8``. With 256
    bins and 96 m, 26 lie below 1 m and 58 below 5 m. Its lowest bin is 0.008 m, that of ``log``
    and ``linear`` 0.001 m: a weighted mean is never exactly 0.

    Args:
        count: at least 2.
        ceiling_m: the highest bin.
        spacing: see ``BinsConfig``.
        dtype: of the result and of the computation.
    """
    top = ceiling_m / _EIGHTH if spacing == "mixlog" else ceiling_m
    linear = torch.linspace(_LOWEST, top, count, dtype=dtype)
    if spacing == "linear":
        return linear
    ends = torch.tensor([_LOWEST, top], dtype=dtype).log()
    log = torch.linspace(float(ends[0]), float(ends[1]), count, dtype=dtype).exp()
    if spacing == "log":
        return log
    t = torch.linspace(1.0, 0.0, count, dtype=dtype)
    return _EIGHTH * (t * log + (1.0 - t) * linear)


def bin_weights(
    logits: Float[Tensor, "b k *s"], weighting: Weighting = "relu"
) -> Float[Tensor, "b k *s"]:
    """Turn logits into weights that are not negative and sum to 1 over the bins (``dim=1``).

    ``relu`` has no gradient where every logit is negative; all of its weights are then equal.
    """
    if weighting == "softmax":
        return logits.softmax(dim=1)
    raw, floor = _raw(logits, weighting)
    raw = raw + floor
    return raw / raw.sum(dim=1, keepdim=True)


def expected_height(
    logits: Float[Tensor, "b k *s"],
    bins_m: Float[Tensor, "k"],
    *,
    weighting: Weighting = "relu",
) -> Float[Tensor, "b *s"]:
    """Return the mean of the bins, weighed by the logits: metres, at least in float32.

    Logits that are all zero or negative give the plain mean of the bins under ``relu``: 33.1 m for
    CHMv2's, not 0. A head that is dead or was never trained so shows a plausible forest, and such a
    pixel has no gradient. Our heads therefore begin with the bias ``initial_logits`` and small
    random weights: every bin is alive and an untrained head shows a flat, low field.

    Args:
        logits: raw outputs of a head, one channel per bin.
        bins_m: heights of the bins.
        weighting: see ``BinsConfig``.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    bins = bins_m.to(wide)
    if weighting == "softmax":
        return torch.einsum("bk...,k->b...", wide.softmax(dim=1), bins)
    # The sum over the bins and that of the weights in one product: the weights are never divided.
    raw, floor = _raw(wide, weighting)
    both = torch.stack([bins, torch.ones_like(bins)])
    total, weight = torch.matmul(both, raw.reshape(*raw.shape[:2], -1)).unbind(dim=1)
    mean = (total + floor * bins.sum()) / (weight + floor * len(bins))
    return mean.reshape(len(wide), *wide.shape[2:])


def _raw(logits: Float[Tensor, "b k *s"], weighting: Weighting) -> tuple[Tensor, float]:
    """Return weights before they are made to sum to 1, and what is still to be added to each."""
    if weighting == "sigmoid":
        return logits.sigmoid(), 0.0
    return logits.relu(), _TINY if weighting == "relu" else _FLOOR


def initial_logits(
    bins_m: Float[Tensor, "k"], height_m: float, *, weighting: Weighting = "relu"
) -> Float[Tensor, "k"]:
    """Return one logit per bin that together make the expected height ``height_m``.

    The weights fall exponentially with height. Under ``relu`` the largest logit is 1 and none is
    negative: every bin can learn from the first step.

    Args:
        bins_m: heights of the bins, ascending.
        height_m: brought to within the middle 98 % of what the weighting can make.
        weighting: see ``BinsConfig``.
    """
    bins = bins_m.double().cpu()
    low = float(bins[0])
    span = float(bins[-1]) - low

    def logits(rate: float) -> Tensor:
        exponents = -rate * (bins - low) / span
        exponents = exponents - exponents.max()
        if weighting == "softmax":
            return exponents
        share = exponents.exp()
        if weighting == "sigmoid":
            return torch.logit(0.5 * share.clamp_min(_LEAST))
        return share if weighting == "relu" else _OVER_FLOOR * len(bins) * share / share.sum()

    def mean(rate: float) -> float:
        return float(expected_height(logits(rate)[None], bins, weighting=weighting))

    # The mean falls with the rate.
    lower, upper = -_STEEPEST, _STEEPEST
    highest, lowest = mean(lower), mean(upper)
    margin = 0.01 * (highest - lowest)
    wanted = min(max(height_m, lowest + margin), highest - margin)
    for _ in range(_HALVINGS):
        middle = (lower + upper) / 2
        lower, upper = (middle, upper) if mean(middle) > wanted else (lower, middle)
    return logits(lower).to(bins_m.dtype)


_STEEPEST = 1000.0
"""Largest rate of decay that is tried, over the whole range of the bins."""

_HALVINGS = 60
"""Halvings that take the rate to double precision."""

_LEAST, _OVER_FLOOR = 1e-12, 100.0
"""Smallest share of a bin under ``sigmoid``; mean logit beside the floor of ``relu_floor``."""
