"""Probes: the whole grid at once, and one fit after another.

`logistic` is torchgeo-bench's protocol on 2000 rows of 768 features of 10 classes: 40 strengths.
`ours` is one descent along all of them. `scikit-learn` is 40 fits with its own tolerance (1e-4 on
the gradient), `scikit-learn, tight` every eighth of them with 1e-6, where its probabilities are as
near to the optimum as ours. The peers tell which strength a validation part would choose.

`sgd` is DINO's linear probe: 13 rates on four inputs (class token of the last block or of the last
four, with or without the mean patch token). `ours` trains all 52 heads in one run, `one by one`
is the plain loop of `torch.nn.Linear` and `torch.optim.SGD` on the same batches.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _harness import interleave, main, ratio, table

from geodino import seeds
from geodino.evals.probes.descent import RegularisationPath, fit_path
from geodino.evals.probes.linear import SgdProtocol, linear_inputs, train_heads
from geodino.evals.probes.logistic import TORCHGEO_GRID

CLASSES = 10


def features(rows: int, d: int, *, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Classes that overlap, columns correlated as those of a network are (sizes fall as 1 / j)."""
    r = seeds.rng(0, "bench", d)
    sizes = 1.0 / np.arange(1, d + 1)
    turn, _ = np.linalg.qr(r.normal(size=(d, d)))
    centres = r.normal(size=(CLASSES, d)) * sizes
    y = r.integers(0, CLASSES, size=rows)
    x = (centres[y] + spread * r.normal(size=(rows, d)) * sizes) @ turn
    return ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32), y


def logistic(rounds: int, small: bool) -> tuple[str, dict]:
    rows, d, grid = (80, 8, TORCHGEO_GRID[::8]) if small else (2000, 768, TORCHGEO_GRID)
    x, y = features(rows + rows // 4, d, spread=4.0)
    train, val = (x[:rows], y[:rows]), (x[rows:], y[rows:])
    targets = (train[1][:, None] == np.arange(CLASSES)).astype(float)
    found: dict[str, object] = {}

    def ours() -> None:
        found["ours"] = fit_path(train[0], targets, grid)

    def peers(name: str, strengths: tuple[float, ...], **options: float) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found[name] = [LogisticRegression(C=c, **options).fit(*train) for c in strengths]

    with threadpool_limits(1):
        timings = interleave(
            {
                "ours": ours,
                "scikit-learn": lambda: peers("scikit-learn", grid, max_iter=1000),
                "scikit-learn, tight": lambda: peers("tight", grid[::8], max_iter=20_000, tol=1e-6),
            },
            rounds,
            warm_up=small,
        )
    path = found["ours"]
    assert isinstance(path, RegularisationPath)
    assert all(path.converged)
    figures: dict[str, object] = {"timings": timings}
    lines = []
    said = [path.logits(val[0], i) for i in range(len(grid))]
    ours_scores = [float((z.argmax(axis=1) == val[1]).mean()) for z in said]
    for name, every in (("scikit-learn", 1), ("tight", 8)):
        fits = found[name]
        scores = [float((fit.predict(val[0]) == val[1]).mean()) for fit in fits]
        gap = max(
            float(np.abs(_softmax(z) - fit.predict_proba(val[0])).max())
            for z, fit in zip(said[::every], fits, strict=True)
        )
        off = max(abs(a - b) for a, b in zip(ours_scores[::every], scores, strict=True))
        best, peer_best = int(np.argmax(ours_scores[::every])), int(np.argmax(scores))
        lines.append(
            f"{name}, {len(fits)} strengths: chooses C = {grid[::every][peer_best]:.3g} (accuracy "
            f"{scores[peer_best]:.3f}), ours C = {grid[::every][best]:.3g} "
            f"({ours_scores[::every][best]:.3f}); largest difference of a probability {gap:.1e}, "
            f"of an accuracy {off:.3f}"
        )
        figures[name] = {"largest_difference": gap, "largest_difference_of_accuracy": off}
    figures["ratio"] = ratio(timings, "scikit-learn", "ours")
    work = {"ours": len(grid), "scikit-learn": len(grid), "scikit-learn, tight": len(grid[::8])}
    title = f"logistic regression, {len(grid)} strengths, {rows} rows, {d} features"
    text = table(title, timings, work=work, unit="fits", ours="ours")
    return "\n".join([text, *lines]), figures


def _softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sgd(rounds: int, small: bool, d: int) -> tuple[str, dict]:
    rows, steps = (40, 5) if small else (2000, 100)
    r = seeds.rng(0, "sgd", d)
    y = r.integers(0, CLASSES, size=rows)
    cls = r.normal(size=(rows, 4, d)) + 0.3 * r.normal(size=(CLASSES, 1, d))[y]
    x, views = linear_inputs(cls.astype(np.float32), r.normal(size=(rows, d)).astype(np.float32))
    rates = tuple(float(rate) for rate in np.geomspace(1e-5, 1e-2, 13))
    protocol = SgdProtocol(name="bench", iterations=steps, batch=32, rates=rates)
    targets = y[:, None] == np.arange(CLASSES)
    found: dict[str, object] = {}

    def ours() -> None:
        found["ours"] = train_heads(
            x,
            targets,
            views,
            protocol=protocol,
            link="softmax",
            generator=seeds.rng(0, "heads"),
        )

    def one_by_one() -> None:
        found["plain"] = [
            _plain(x, y, view, rate, protocol, views) for view in views.values() for rate in rates
        ]

    timings = interleave({"ours": ours, "one by one": one_by_one}, rounds)
    plain = iter(found["plain"])
    gap = 0.0
    for name in views:
        for place in range(len(rates)):
            weight = next(plain)
            mine = found["ours"].weights[name][:, place].T
            gap = max(gap, float((mine - weight).abs().max() / weight.abs().max()))
    assert gap < 1e-4, gap
    title = f"DINO's linear probe, {len(views) * len(rates)} heads, {d} features a token"
    text = table(title, timings, work=steps, unit="steps", ours="ours")
    return text + f"\nlargest relative difference of a weight {gap:.1e}", {
        "ratio": ratio(timings, "one by one", "ours"),
        "largest_difference": gap,
        "timings": timings,
    }


def _plain(x, y, view, rate, protocol, views):
    replay = seeds.rng(0, "heads")
    starts = {}
    for part in views.values():
        dim = len(range(*part.indices(x.shape[1])))
        starts[part.start, part.stop] = replay.normal(0, 0.01, size=(dim, 1, CLASSES))
    start = torch.from_numpy(starts[view.start, view.stop][:, 0].astype(np.float32))
    rows, labels = torch.from_numpy(np.ascontiguousarray(x[:, view])), torch.from_numpy(y)
    head = torch.nn.Linear(len(start), CLASSES)
    with torch.no_grad():
        head.weight.copy_(start.T)
        head.bias.zero_()
    optimiser = torch.optim.SGD(head.parameters(), lr=rate, momentum=protocol.momentum)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, protocol.iterations)
    order = np.zeros(0, dtype=np.int64)
    for _ in range(protocol.iterations):
        while len(order) < protocol.batch:
            order = np.concatenate([order, replay.permutation(len(rows))])
        batch, order = torch.from_numpy(order[: protocol.batch]), order[protocol.batch :]
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(head(rows[batch]), labels[batch]).backward()
        optimiser.step()
        schedule.step()
    return head.weight.detach()


def run(rounds: int, small: bool) -> dict:
    torch.set_num_threads(1)
    text, figures = logistic(rounds, small)
    tables, result = [text], {"logistic": figures}
    for d in (4,) if small else (384, 768):
        text, result[f"sgd_{d}"] = sgd(rounds, small, d)
        tables.append(text)
    return {"tables": tables, **result}


if __name__ == "__main__":
    main(run)
