"""Ridge regression: every strength from one decomposition, the best on validation rows."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from geodino.evals.probes.prediction import HELD_OUT, Prediction, held_out_rows, standardise

RIDGE_GRID: tuple[float, ...] = tuple(float(10.0**e) for e in np.linspace(-6, 4, 41))
"""Strengths per training row: the penalty is ``rows * strength * |w|^2`` on standardised features,
so that a value means the same for any number of rows."""


def ridge(
    train_x: Float[np.ndarray, "m d"],
    train_y: Float[np.ndarray, " m"],
    test_x: Float[np.ndarray, "n d"],
    *,
    generator: np.random.Generator,
    val: tuple[Float[np.ndarray, "v d"], Float[np.ndarray, " v"]] | None = None,
    grid: Sequence[float] = RIDGE_GRID,
    held_out: float = HELD_OUT,
) -> Prediction:
    """Linear regression with an L2 penalty, fitted again on all rows that are not test rows.

    Args:
        train_x: training features; columns are standardised by the rows of the fit.
        train_y: the number of each.
        test_x: test features.
        generator: draws the held-out rows.
        val: features and numbers to choose the strength on (least squared error; the larger
            strength in a tie).
        grid: strengths, see ``RIDGE_GRID``.
        held_out: share of the rows held out where ``val`` is None.
    """
    y = np.asarray(train_y, dtype=np.float64)
    if val is None:
        held = held_out_rows(y, held_out, generator)
        fit_x, fit_y, val_x, val_y = train_x[~held], y[~held], train_x[held], y[held]
        all_x, all_y = train_x, y
    else:
        fit_x, fit_y, val_x, val_y = train_x, y, val[0], np.asarray(val[1], dtype=np.float64)
        all_x, all_y = np.concatenate([train_x, val_x]), np.concatenate([y, val_y])
    strengths = sorted(grid, reverse=True)
    chosen: dict[str, float] = {}
    best = len(strengths) // 2  # One row: nothing to hold out, the middle of the grid.
    with threadpool_limits(1, user_api="blas"):
        if len(val_x):
            errors = np.square(ridge_values(fit_x, fit_y, val_x, strengths) - val_y).mean(axis=1)
            best = int(errors.argmin())
            chosen["held_out_rmse"] = float(np.sqrt(errors[best]))
        values = ridge_values(all_x, all_y, test_x, strengths[best : best + 1])[0]
    return Prediction(values=values, chosen={"alpha": strengths[best], **chosen})


def ridge_values(
    x: Float[np.ndarray, "m d"],
    y: Float[np.ndarray, " m"],
    ask_x: Float[np.ndarray, "n d"],
    strengths: Sequence[float],
) -> Float[np.ndarray, "s n"]:
    """Return what the fit of each strength says of ``ask_x``: one SVD for all of them."""
    z, ask = standardise(x, ask_x)
    mean = y.mean()
    left, sizes, turned = np.linalg.svd(z, full_matrices=False)
    alphas = len(x) * np.asarray(strengths)[:, None]
    squares = sizes * sizes
    share = np.where(squares > 0, sizes / (squares + alphas), 0.0)
    return np.asarray((share * (left.T @ (y - mean))) @ (turned @ ask.T) + mean)
