"""DINO's linear probe: SGD for a grid of learning rates and inputs, all heads in one run.

Every head sees the same batches. The heads of one input are columns of one matrix, so a step is
one product forward and one back for each input, whatever the number of learning rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Shaped
from torch import Tensor

from geodino.evals.probes.descent import Link
from geodino.evals.probes.prediction import (
    HELD_OUT,
    Prediction,
    held_out_rows,
    many_classes,
    one_class,
)
from geodino.metrics.multilabel import micro_map

_INIT_STD = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class SgdProtocol:
    """How the heads are trained: momentum, no weight decay, learning rate falling by a cosine."""

    name: str
    iterations: int
    batch: int
    rates: tuple[float, ...]
    """Learning rates at the first step, used as they are, whatever the batch."""
    momentum: float = 0.9


DINOV3_APPROX = SgdProtocol(
    name="dinov3-approx",
    iterations=2400,
    batch=32,
    rates=tuple(float(rate) for rate in np.geomspace(1e-5, 1.0, 13)),
)
"""What the DINOv3 paper tells of its GEO-Bench probe: 2400 iterations, batch 32, SGD, cosine, the
rate picked in 1e-5 to 1. How many rates it tries is not told; 13 are as many as DINO's listings."""


def linear_inputs(
    cls: Float[np.ndarray, "n l d"], mean_patch: Float[np.ndarray, "n d"]
) -> tuple[Float32[np.ndarray, "n e"], dict[str, slice]]:
    """Lay class tokens of the last blocks and the mean patch token out as one row, and name parts.

    Args:
        cls: class tokens of the last ``l`` blocks, the last block last.
        mean_patch: mean patch token of the last block.

    Returns:
        The rows, and where the probe's inputs lie in them: ``last``, ``last+mean``, and with more
        than one block ``last4``, ``last4+mean`` (for four).
    """
    n, blocks, d = cls.shape
    rows = np.concatenate([cls.reshape(n, blocks * d), mean_patch], axis=1, dtype=np.float32)
    all_cls, end = blocks * d, (blocks + 1) * d
    views = {"last": slice(all_cls - d, all_cls), "last+mean": slice(all_cls - d, end)}
    if blocks > 1:
        views |= {f"last{blocks}": slice(0, all_cls), f"last{blocks}+mean": slice(0, end)}
    return rows, views


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """Linear classifiers: for each input, one a learning rate."""

    weights: dict[str, Float32[Tensor, "d r k"]]
    biases: dict[str, Float32[Tensor, "r k"]]

    def logits(
        self, x: Float32[np.ndarray, "n e"], view: slice, name: str, rate: int
    ) -> Float32[np.ndarray, "n k"]:
        """Return what the head of input ``name`` and the ``rate``-th learning rate says."""
        weight = self.weights[name][:, rate].numpy()
        return np.asarray(x[:, view] @ weight + self.biases[name][rate].numpy())


def train_heads(
    x: Float32[np.ndarray, "m e"],
    targets: Shaped[np.ndarray, "m k"],
    views: Mapping[str, slice],
    *,
    protocol: SgdProtocol,
    link: Link,
    generator: np.random.Generator,
) -> Heads:
    """Train a head for each input and learning rate.

    Rows are drawn by epochs, each a permutation. The loss is the cross-entropy (softmax), or the
    mean over classes of the binary one (sigmoid). Heads of one input start at the same weights, drawn
    with deviation 0.01.

    Args:
        x: features of all inputs side by side.
        targets: one column a class, 0 or 1.
        views: which columns each input has.
        protocol: numbers of the training.
        link: what the logits are turned into.
        generator: draws the first weights and the batches.
    """
    rows, wanted = torch.from_numpy(x), torch.from_numpy(np.asarray(targets, dtype=np.float32))
    rates, k = len(protocol.rates), wanted.shape[1]
    groups = [_Group.of(view, rows.shape[1], rates, k, generator) for view in views.values()]
    count = min(protocol.batch, len(rows))
    logits = torch.empty(count, len(groups), rates * k)
    # Gradients are scaled by each head's own rate, so that one factor a step serves all heads.
    scale = torch.tensor(protocol.rates).repeat_interleave(k) / count
    if link == "sigmoid":
        scale = scale / k
    order = _Order(len(rows), generator)
    with torch.no_grad():
        for step in range(protocol.iterations):
            index = order.next(count)
            batch, target = rows[index], wanted[index]
            for place, group in enumerate(groups):
                torch.addmm(group.bias, batch[:, group.view], group.weight, out=logits[:, place])
            heads = logits.view(count, len(groups), rates, k)
            told = torch.softmax(heads, dim=-1) if link == "softmax" else torch.sigmoid(heads)
            residual = (told - target[:, None, None]).view(count, len(groups), rates * k)
            residual *= scale
            factor = 0.5 * (1.0 + cos(pi * step / protocol.iterations))
            for place, group in enumerate(groups):
                group.step(batch, residual[:, place], protocol.momentum, factor)
    return Heads(
        weights={n: g.weight.view(-1, rates, k) for n, g in zip(views, groups, strict=True)},
        biases={n: g.bias.view(rates, k) for n, g in zip(views, groups, strict=True)},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """The heads of one input as columns: weights, biases, and their momentum."""

    view: slice
    weight: Float32[Tensor, "d c"]
    bias: Float32[Tensor, " c"]
    weight_momentum: Float32[Tensor, "d c"]
    bias_momentum: Float32[Tensor, " c"]

    @classmethod
    def of(
        cls, view: slice, width: int, rates: int, k: int, generator: np.random.Generator
    ) -> "_Group":
        dim = len(range(*view.indices(width)))
        start = generator.normal(0.0, _INIT_STD, size=(dim, 1, k)).astype(np.float32)
        weight = torch.from_numpy(np.tile(start, (1, rates, 1)).reshape(dim, rates * k))
        bias = torch.zeros(rates * k)
        return cls(
            view=view,
            weight=weight,
            bias=bias,
            weight_momentum=torch.zeros_like(weight),
            bias_momentum=torch.zeros_like(bias),
        )

    def step(self, batch: Tensor, residual: Tensor, momentum: float, factor: float) -> None:
        self.weight_momentum.addmm_(batch[:, self.view].T, residual, beta=momentum)
        self.bias_momentum.mul_(momentum).add_(residual.sum(dim=0))
        self.weight.sub_(self.weight_momentum, alpha=factor)
        self.bias.sub_(self.bias_momentum, alpha=factor)


class _Order:
    """Rows in the order of training: one permutation after another."""

    def __init__(self, rows: int, generator: np.random.Generator) -> None:
        self.rows, self.generator = rows, generator
        self.ahead = np.zeros(0, dtype=np.int64)

    def next(self, count: int) -> Int[Tensor, " b"]:
        while len(self.ahead) < count:
            self.ahead = np.concatenate([self.ahead, self.generator.permutation(self.rows)])
        index, self.ahead = self.ahead[:count], self.ahead[count:]
        return torch.from_numpy(index)


def linear_sgd(
    train_x: Float32[np.ndarray, "m e"],
    train_y: Int[np.ndarray, " m"] | Bool[np.ndarray, "m k"],
    test_x: Float32[np.ndarray, "n e"],
    *,
    classes: int,
    generator: np.random.Generator,
    views: Mapping[str, slice] | None = None,
    val: tuple[np.ndarray, np.ndarray] | None = None,
    protocol: SgdProtocol = DINOV3_APPROX,
    held_out: float = HELD_OUT,
) -> Prediction:
    """Train all heads on the training rows and answer with the one that is best on ``val``.

    Best by accuracy, or by micro-mAP where a row has any number of classes; the first input and the
    smaller rate in a tie. Validation rows choose and train nothing. Without them a share of the
    training rows chooses, and the chosen head is trained again on all training rows.

    Args:
        train_x: training features, as :func:`linear_inputs` lays them out.
        train_y: their classes, or which classes each has.
        test_x: test features.
        classes: how many classes there are.
        generator: draws held-out rows, first weights and batches.
        views: which columns each input has; None: one input, all columns.
        val: features and labels to choose on.
        protocol: numbers of the training.
        held_out: share of the training rows held out where ``val`` is None.
    """
    parts = {"all": slice(None)} if views is None else dict(views)
    many = train_y.ndim == 2
    link: Link = "sigmoid" if many else "softmax"

    def trained(
        x: np.ndarray, y: np.ndarray, inputs: Mapping[str, slice], rates: Sequence[float]
    ) -> Heads:
        targets = y if many else y[:, None] == np.arange(classes)
        numbers = SgdProtocol(
            name=protocol.name,
            iterations=protocol.iterations,
            batch=protocol.batch,
            rates=tuple(rates),
            momentum=protocol.momentum,
        )
        return train_heads(x, targets, inputs, protocol=numbers, link=link, generator=generator)

    held = np.zeros(len(train_x), dtype=bool)
    if val is None:
        held = held_out_rows(train_y, held_out, generator)
        val = (train_x[held], train_y[held])
    val_x, val_y = val
    heads = trained(train_x[~held], train_y[~held], parts, protocol.rates)
    best, score, name, rate = -1.0, float("nan"), next(iter(parts)), len(protocol.rates) // 2
    for one, view in parts.items():
        for place in range(len(protocol.rates) if len(val_x) else 0):
            logits = heads.logits(val_x, view, one, place)
            found = micro_map(val_y, logits) if many else (logits.argmax(axis=1) == val_y).mean()
            if found > best:
                best, score, name, rate = float(found), float(found), one, place
    chosen = {"lr": protocol.rates[rate], "input": float(list(parts).index(name))}
    if not np.isnan(score):
        chosen["held_out_score"] = score
    if held.any():
        heads = trained(train_x, train_y, {name: parts[name]}, [protocol.rates[rate]])
        rate = 0
    said = torch.from_numpy(heads.logits(test_x, parts[name], name, rate)).double()
    if many:
        return many_classes(torch.sigmoid(said).numpy(), chosen=chosen)
    return one_class(torch.softmax(said, dim=1).numpy(), chosen=chosen)
