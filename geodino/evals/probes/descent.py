"""Regularised linear classifiers for a whole grid of strengths, each started from its neighbour.

The problem of scikit-learn's ``LogisticRegression`` (L2, intercept not penalised), for ascending
``C``: mean loss over the rows + ``|w|^2 / (2 C n)``. Six things make the grid cheap:

- the features are turned into their principal axes, where the Hessian is nearly diagonal and its
  diagonal is a good preconditioner;
- a fit starts at the last one, or at the line through the last two where that is lower;
- L-BFGS keeps its pairs from one strength to the next, corrected for the change of the penalty
  (exact, for it is quadratic);
- logits are linear in the step, so the line search needs no product with the features;
- the two products an iteration are float32, all else float64 on rows x classes;
- features with more columns than rows are first reduced to as many axes as rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Shaped
from torch import Tensor

Link = Literal["softmax", "sigmoid"]
"""One class a row, or every class of a row by itself (all classes then share one fit)."""

_PAIRS = 20
_LINE_STEPS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class RegularisationPath:
    """Linear classifiers by strength, for the features as they were given."""

    weights: Float64[np.ndarray, "p d k"]
    intercepts: Float64[np.ndarray, "p k"]

    iterations: tuple[int, ...]
    """Of L-BFGS, for each strength."""

    converged: tuple[bool, ...]
    """Whether the estimated excess of the loss is below the tolerance."""

    def logits(self, x: Float[np.ndarray, "n d"], index: int) -> Float64[np.ndarray, "n k"]:
        """Return the logits of the classifier of the ``index``-th strength."""
        return np.asarray(x @ self.weights[index] + self.intercepts[index], dtype=np.float64)


def fit_path(
    x: Float[np.ndarray, "n d"],
    targets: Shaped[np.ndarray, "n k"],
    strengths: Sequence[float],
    *,
    link: Link = "softmax",
    tolerance: float = 1e-7,
    max_iter: int = 500,
) -> RegularisationPath:
    """Fit one classifier for each strength.

    Args:
        x: features.
        targets: one column a class: a single 1 in each row (softmax), or any number (sigmoid).
        strengths: values of scikit-learn's C, ascending.
        link: what the logits are turned into.
        tolerance: a fit is done when L-BFGS expects to lower the objective by less than this share
            of it. 1e-7 leaves probabilities within about 1e-3 of the optimum's, closer than
            scikit-learn's own default tolerance does.
        max_iter: of L-BFGS, for each strength.

    Raises:
        ValueError: strengths that do not ascend or are not positive.
    """
    if not strengths or any(b <= a for a, b in pairwise((0.0, *strengths))):
        raise ValueError(f"strengths must be positive and ascend, found {tuple(strengths)}")
    centre = x.mean(axis=0, dtype=np.float64)
    axes, scales = _principal_axes(torch.from_numpy(np.float32(x - centre)))
    problem = _Problem(
        rows=_with_ones(torch.from_numpy(np.float32(x - centre)) @ axes),
        curvature=torch.cat([scales, torch.ones(1, dtype=torch.float64)])[:, None],
        targets=torch.from_numpy(np.asarray(targets, dtype=np.float64)),
        link=link,
    )
    walk = _Walk(problem)
    fits = [walk.to(c, tolerance=tolerance, max_iter=max_iter) for c in strengths]
    turned = torch.stack([point for point, _, _ in fits])
    weights = (axes.double() @ turned[:, :-1]).numpy()
    return RegularisationPath(
        weights=weights,
        intercepts=turned[:, -1].numpy() - np.einsum("d,pdk->pk", centre, weights),
        iterations=tuple(count for _, count, _ in fits),
        converged=tuple(done for _, _, done in fits),
    )


def _principal_axes(
    x: Float32[Tensor, "n d"],
) -> tuple[Float32[Tensor, "d r"], Float64[Tensor, "r"]]:
    """Orthonormal axes that hold all of ``x``, and its mean square along each."""
    n, d = x.shape
    if d <= n:
        squares, axes = torch.linalg.eigh((x.T @ x).double() / n)
        return axes.float(), squares.clamp_min(0.0)
    _, sizes, turned = torch.linalg.svd(x.double(), full_matrices=False)
    return turned.T.float().contiguous(), sizes.square() / n


def _with_ones(x: Float32[Tensor, "n d"]) -> Float32[Tensor, "n e"]:
    return torch.cat([x, torch.ones(len(x), 1)], dim=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Problem:
    """The data term: rows with a last column of ones, and what they should give."""

    rows: Float32[Tensor, "n e"]
    curvature: Float64[Tensor, "e 1"]
    targets: Float64[Tensor, "n k"]
    link: Link

    def penalty(self, c: float) -> Float64[Tensor, "e 1"]:
        weight = torch.full_like(self.curvature, 1.0 / (c * len(self.rows)))
        weight[-1] = 0.0
        return weight

    def preconditioner(self, penalty: Float64[Tensor, "e 1"]) -> Float64[Tensor, "e 1"]:
        share = 1.0 / self.targets.shape[1] if self.link == "softmax" else 0.25
        floor = 1e-9 * self.curvature.max()
        return 1.0 / (self.curvature * share + penalty + floor)

    def logits(self, point: Float64[Tensor, "e k"]) -> Float64[Tensor, "n k"]:
        return (self.rows @ point.float()).double()

    def loss(self, logits: Float64[Tensor, "n k"]) -> float:
        told = (logits * self.targets).sum(dim=1)
        if self.link == "softmax":
            return float((torch.logsumexp(logits, dim=1) - told).mean())
        return float((torch.nn.functional.softplus(logits).sum(dim=1) - told).mean())

    def probabilities(self, logits: Float64[Tensor, "n k"]) -> Float64[Tensor, "n k"]:
        return torch.softmax(logits, dim=1) if self.link == "softmax" else torch.sigmoid(logits)

    def gradient(self, logits: Float64[Tensor, "n k"]) -> Float64[Tensor, "e k"]:
        # The difference is taken in float64: near an optimum it is far smaller than its terms.
        residual = (self.probabilities(logits) - self.targets).float()
        return (self.rows.T @ residual).double() / len(self.rows)

    def bend(self, probabilities: Float64[Tensor, "n k"], change: Float64[Tensor, "n k"]) -> float:
        """Second derivative of the loss along ``change`` of the logits."""
        if self.link == "sigmoid":
            weight = probabilities * (1.0 - probabilities)
            return float((weight * change * change).sum(dim=1).mean())
        mean = (probabilities * change).sum(dim=1)
        return float(((probabilities * change * change).sum(dim=1) - mean * mean).mean())


class _Walk:
    """A walk along the strengths; knows where it is, where it was, and the curvature it met."""

    def __init__(self, problem: _Problem) -> None:
        self.problem = problem
        size = (problem.rows.shape[1], problem.targets.shape[1])
        self.point = torch.zeros(size, dtype=torch.float64)
        self.logits = torch.zeros_like(problem.targets)
        self.before = (self.point, self.logits)
        self.penalty: Tensor | None = None
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def to(self, c: float, *, tolerance: float, max_iter: int) -> tuple[Tensor, int, bool]:
        """Move to the optimum of strength ``c``: the point, iterations, and whether it is one."""
        problem, penalty = self.problem, self.problem.penalty(c)
        if self.penalty is not None:
            change = penalty - self.penalty
            self.pairs = [(step, rise + change * step) for step, rise in self.pairs]
        self.penalty = penalty
        value = self._start(penalty)
        gradient = problem.gradient(self.logits) + penalty * self.point
        for count in range(max_iter):
            descent = self._inverse_hessian(gradient, problem.preconditioner(penalty))
            expected = float((gradient * descent).sum())
            if expected <= tolerance * value:
                return self.point, count, True
            step, change = self._step(-descent, expected, penalty)
            point, logits = self.point + step, self.logits + change
            lower = self._value(point, logits, penalty)
            if not lower < value:
                # Rounding of the float32 products: as low as it gets, unless the memory misleads.
                if not self.pairs:
                    return self.point, count, True
                self.pairs.clear()
                continue
            new = problem.gradient(logits) + penalty * point
            self.pairs = [*self.pairs[1 - _PAIRS :], (step, new - gradient)]
            self.point, self.logits, value, gradient = point, logits, lower, new
        return self.point, max_iter, False

    def _start(self, penalty: Float64[Tensor, "e 1"]) -> float:
        """Go on in a straight line where that is lower than to stay; return the objective."""
        here = (self.point, self.logits)
        ahead = (2 * here[0] - self.before[0], 2 * here[1] - self.before[1])
        values = [self._value(*here, penalty), self._value(*ahead, penalty)]
        self.before = here
        if values[1] < values[0]:
            self.point, self.logits = ahead
        return min(values)

    def _value(self, point: Tensor, logits: Tensor, penalty: Tensor) -> float:
        return self.problem.loss(logits) + 0.5 * float((penalty * point * point).sum())

    def _inverse_hessian(self, gradient: Tensor, preconditioner: Tensor) -> Tensor:
        """The two loops of L-BFGS (Nocedal and Wright, algorithm 7.4)."""
        q = gradient.clone()
        shares = []
        for step, rise in reversed(self.pairs):
            shares.append(float((step * q).sum() / (step * rise).sum()))
            q -= shares[-1] * rise
        q *= preconditioner
        if self.pairs:
            step, rise = self.pairs[-1]
            q *= float((step * rise).sum() / (rise * preconditioner * rise).sum())
        for (step, rise), share in zip(self.pairs, reversed(shares), strict=True):
            q += (share - float((rise * q).sum() / (step * rise).sum())) * step
        return q

    def _step(self, direction: Tensor, expected: float, penalty: Tensor) -> tuple[Tensor, Tensor]:
        """Newton's method along the line, on the logits alone; stops at a tenth of the slope."""
        problem, n = self.problem, len(self.problem.rows)
        change = problem.logits(direction)
        pull = float((penalty * self.point * direction).sum())
        stretch = float((penalty * direction * direction).sum())
        length = 1.0
        for _ in range(_LINE_STEPS):
            p = problem.probabilities(self.logits + length * change)
            slope = float(((p - problem.targets) * change).sum()) / n + pull + length * stretch
            if abs(slope) <= 0.1 * expected:
                break
            bend = problem.bend(p, change) + stretch
            length = min(max(length - slope / max(bend, 1e-300), 0.1 * length), 4.0 * length)
        return length * direction, length * change
