"""Maps of classes from patch tokens: a linear head, and the nearest patches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64, Integer, Shaped
from torch import Tensor

from geodino.evals.probes.maps import Part, enlarged, patch_class_counts, split, token_statistics
from geodino.evals.probes.neighbours import neighbour_weights, usable
from geodino.evals.probes.prediction import HELD_OUT, Prediction
from geodino.metrics.segmentation import IGNORED, pixel_confusion, segmentation_scores


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseProtocol:
    """How linear heads on patch tokens are trained: AdamW, rate falling by a cosine."""

    iterations: int = 1000
    batch: int = 8
    """Images a step."""
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    """Learning rates at the first step, one head each."""
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseHeads:
    """Linear classifiers of patch tokens, one a learning rate."""

    mean: Float32[Tensor, "d 1"]
    factor: Float32[Tensor, "d 1"]
    weight: Float32[Tensor, "r k d"]
    bias: Float32[Tensor, "r k"]

    def logits(self, features: Float32[np.ndarray, "d h w"]) -> Float32[Tensor, "r k h w"]:
        """Return the logits of every head on the patch grid of one image."""
        tokens = (torch.from_numpy(features).flatten(1) - self.mean) * self.factor
        flat = torch.matmul(self.weight, tokens) + self.bias[..., None]
        return flat.view(*flat.shape[:2], *features.shape[1:])

    def only(self, rate: int) -> "DenseHeads":
        """Return one of the heads."""
        return DenseHeads(
            mean=self.mean,
            factor=self.factor,
            weight=self.weight[rate : rate + 1],
            bias=self.bias[rate : rate + 1],
        )


def train_dense_heads(
    part: Part, *, classes: int, protocol: DenseProtocol, generator: np.random.Generator
) -> DenseHeads:
    """Train one head a learning rate on the same batches, from zero weights.

    Features are standardised by the part's own statistics. Logits are enlarged to the labels' size
    before the cross-entropy, which is the mean over the labelled pixels of a batch; images may
    differ in size. A batch without a labelled pixel changes nothing.
    """
    mean, factor = token_statistics(part)
    rates = torch.tensor(protocol.rates)[:, None, None]
    shape = (len(protocol.rates), classes, len(mean) + 1)
    state = [torch.zeros(shape) for _ in range(3)]
    taken = 0
    for step, batch in enumerate(_batches(len(part), protocol, generator)):
        gradient, pixels = torch.zeros(shape), 0
        for i in batch:
            features = np.asarray(part.features[i], dtype=np.float32)
            label = np.asarray(part.labels[i])
            pixels += int((label != IGNORED).sum())
            gradient += _gradient(state[0], (features, label), mean, factor)
        if not pixels:
            continue
        taken += 1
        rate = rates * 0.5 * (1.0 + cos(pi * step / protocol.iterations))
        _adamw(state, gradient / pixels, rate, taken, protocol)
    return DenseHeads(mean=mean, factor=factor, weight=state[0][..., :-1], bias=state[0][..., -1])


def _gradient(
    weight: Float32[Tensor, "r k e"],
    image: tuple[Float32[np.ndarray, "d h w"], Integer[np.ndarray, "rows columns"]],
    mean: Float32[Tensor, "d 1"],
    factor: Float32[Tensor, "d 1"],
) -> Float32[Tensor, "r k e"]:
    """Gradient of the summed cross-entropy of one image to the weights and biases."""
    features, label = image
    tokens = (torch.from_numpy(features).flatten(1) - mean) * factor
    tokens = torch.cat([tokens, torch.ones(1, tokens.shape[1])])
    flat = torch.matmul(weight, tokens)
    small = flat.view(*flat.shape[:2], *features.shape[1:]).requires_grad_()
    truth = torch.from_numpy(label.astype(np.int64)).expand(len(weight), *label.shape)
    loss = F.cross_entropy(
        enlarged(small, (label.shape[0], label.shape[1])),
        truth,
        ignore_index=IGNORED,
        reduction="sum",
    )
    (rise,) = torch.autograd.grad(loss, small)
    return torch.matmul(rise.flatten(2), tokens.T)


def _adamw(
    state: list[Tensor], gradient: Tensor, rate: Tensor, step: int, protocol: DenseProtocol
) -> None:
    """One step of AdamW (Loshchilov and Hutter 2019), a rate of its own for each head."""
    weight, first, second = state
    beta1, beta2 = protocol.betas
    first.lerp_(gradient, 1.0 - beta1)
    second.lerp_(gradient * gradient, 1.0 - beta2)
    weight[..., :-1] *= 1.0 - rate * protocol.weight_decay
    spread = (second / (1.0 - beta2**step)).sqrt() + 1e-8
    weight -= rate * (first / (1.0 - beta1**step)) / spread


def _batches(
    images: int, protocol: DenseProtocol, generator: np.random.Generator
) -> Iterator[list[int]]:
    """Yield the images of each step: one permutation after another."""
    ahead: list[int] = []
    for _ in range(protocol.iterations):
        while len(ahead) < min(protocol.batch, images):
            ahead += [int(i) for i in generator.permutation(images)]
        yield ahead[: protocol.batch]
        ahead = ahead[protocol.batch :]


def dense_linear(
    train: Part,
    test: Part,
    *,
    classes: int,
    generator: np.random.Generator,
    val: Part | None = None,
    protocol: DenseProtocol | None = None,
    background: int | None = None,
    held_out: float = HELD_OUT,
) -> Prediction:
    """Train linear heads on patch tokens, answer with the one of the best mean IoU on ``val``.

    The smaller rate wins a tie. Without ``val`` a share of the training images chooses, and the
    chosen head is trained again on all of them.

    Args:
        train: training images.
        test: test images; only their confusion matrices are returned.
        classes: how many classes there are.
        generator: draws the held-out images and the batches.
        val: images to choose on.
        protocol: numbers of the training; None: the defaults.
        background: class left out of the mean IoU that chooses.
        held_out: share of the training images held out where ``val`` is None.
    """
    numbers = protocol or DenseProtocol()
    fit, choose = split(train, held_out, generator) if val is None else (train, val)
    heads = train_dense_heads(fit, classes=classes, protocol=numbers, generator=generator)
    found = _confusions(heads, choose, classes).sum(axis=1)
    rate, chosen = _best(found, background, middle=len(numbers.rates) // 2)
    if val is None and len(choose):
        again = DenseProtocol(
            iterations=numbers.iterations,
            batch=numbers.batch,
            rates=(numbers.rates[rate],),
            weight_decay=numbers.weight_decay,
            betas=numbers.betas,
        )
        heads = train_dense_heads(train, classes=classes, protocol=again, generator=generator)
    else:
        heads = heads.only(rate)
    return Prediction(
        confusion=_confusions(heads, test, classes)[0],
        chosen={"lr": numbers.rates[rate], **chosen},
    )


def _confusions(heads: DenseHeads, part: Part, classes: int) -> Int64[np.ndarray, "r n k k"]:
    out = np.zeros((len(heads.bias), len(part), classes, classes), dtype=np.int64)
    with torch.no_grad():
        for i, (features, label) in enumerate(part.images()):
            for rate, small in enumerate(heads.logits(features)):
                out[rate, i] = _confusion(small[None], label, classes)
    return out


def _confusion(
    small: Float[Tensor, "1 k h w"], label: Shaped[np.ndarray, "rows columns"], classes: int
) -> Int64[np.ndarray, "k k"]:
    """Confusion matrix of the most probable class, after enlarging."""
    said = enlarged(small, (label.shape[0], label.shape[1]))[0].argmax(dim=0).numpy()
    return pixel_confusion(label, said, classes=classes)


def _best(
    confusion: Int64[np.ndarray, "r k k"], background: int | None, *, middle: int
) -> tuple[int, dict[str, float]]:
    """The first of the best, or the middle where there is nothing to choose on."""
    scores = segmentation_scores(confusion, background=background).miou
    if np.isnan(scores).all():
        return middle, {}
    best = int(np.nanargmax(scores))
    return best, {"held_out_score": float(scores[best])}


def dense_knn(
    train: Part,
    test: Part,
    *,
    classes: int,
    generator: np.random.Generator,
    val: Part | None = None,
    k: Sequence[int] = (5, 20, 50),
    temperature: float = 0.07,
    bank: int = 20_000,
    background: int | None = None,
    held_out: float = HELD_OUT,
) -> Prediction:
    """Name each patch by its nearest training patches (cosine, softmax-weighted), then enlarge.

    The memory holds at most about ``bank`` training patches, equally many from each image, drawn
    among those with a labelled pixel; each is labelled by most of its labelled pixels (the first
    class in a tie). ``k`` is chosen by mean IoU on ``val`` or on held-out images; then the memory is
    drawn from all training images.

    Args:
        train: training images.
        test: test images; only their confusion matrices are returned.
        classes: how many classes there are.
        generator: draws the held-out images and the memory.
        val: images to choose ``k`` on; they do not enter the memory.
        k: numbers of neighbours to try.
        temperature: of the weighted vote.
        bank: most patches kept.
        background: class left out of the mean IoU that chooses.
        held_out: share of the training images held out where ``val`` is None.

    Raises:
        ValueError: no training patch has a labelled pixel.
    """
    fit, choose = (train, val) if val is not None else (train, train.subset(np.arange(0)))
    if val is None and len(k) > 1:
        fit, choose = split(train, held_out, generator)
    memory = _memory(fit, classes, bank, generator)
    ks = usable(tuple(min(value, len(memory[1])) for value in k), len(memory[1]))
    place, chosen = len(ks) // 2, dict[str, float]()
    if len(choose) and len(ks) > 1:
        found = _neighbour_confusions(memory, choose, classes, ks, temperature).sum(axis=1)
        place, chosen = _best(found, background, middle=place)
    if val is None:
        memory = _memory(train, classes, bank, generator)
    confusion = _neighbour_confusions(memory, test, classes, [ks[place]], temperature)
    return Prediction(confusion=confusion[0], chosen={"k": float(ks[place]), **chosen})


def _memory(
    part: Part, classes: int, bank: int, generator: np.random.Generator
) -> tuple[Float32[np.ndarray, "m d"], Int64[np.ndarray, " m"]]:
    each = -(-bank // max(len(part), 1))
    tokens, labels = [], []
    for features, label in part.images():
        grid = (features.shape[1], features.shape[2])
        counts = patch_class_counts(label, grid, classes=classes)
        known = np.flatnonzero(counts.sum(axis=1))
        kept = np.sort(generator.permutation(known)[:each])
        tokens.append(features.reshape(len(features), -1).T[kept])
        labels.append(counts[kept].argmax(axis=1))
    if not sum(map(len, labels)):
        raise ValueError("no training patch has a labelled pixel")
    return np.concatenate(tokens), np.concatenate(labels)


def _neighbour_confusions(
    memory: tuple[Float32[np.ndarray, "m d"], Int64[np.ndarray, " m"]],
    part: Part,
    classes: int,
    ks: Sequence[int],
    temperature: float,
) -> Int64[np.ndarray, "r n k k"]:
    rows, labels = memory
    out = np.zeros((len(ks), len(part), classes, classes), dtype=np.int64)
    for i, (features, label) in enumerate(part.images()):
        index, weights = neighbour_weights(
            rows,
            features.reshape(len(features), -1).T,
            k=ks,
            vote="weighted",
            metric="cosine",
            temperature=temperature,
        )
        votes = np.zeros((len(index), classes))
        start = 0
        # Weights only grow with k, and a common factor moves no argmax: add the next neighbours.
        for place, value in enumerate(ks):
            cells = np.arange(len(index))[:, None] * classes + labels[index[:, start:value]]
            added = np.bincount(cells.ravel(), weights[:, start:value].ravel(), votes.size)
            votes += added.reshape(votes.shape)
            start = value
            total = votes.sum(axis=1, keepdims=True)
            small = torch.from_numpy((votes / total).T.reshape(1, classes, *features.shape[1:]))
            out[place, i] = _confusion(small, label, classes)
    return out
