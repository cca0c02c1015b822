import numpy as np

from geodino.world.cells import cells, scatter
from geodino.world.noise import Frame

FRAME = Frame(top=-20, left=35, height=40, width=50, gsd_m=1.0)


def scattered():
    y, x = FRAME.mesh()
    points = scatter((y.min(), y.max()), (x.min(), x.max()), 3, "cells", size_m=13.0)
    return y, x, points


def test_cells_are_those_of_the_nearest_point():
    y, x, points = scattered()
    found = cells(y, x, points)
    # The slow way: every distance.
    distance = np.hypot(y[..., None] - points.y_m, x[..., None] - points.x_m)
    assert (distance.argmin(axis=2) == found.nearest).mean() > 0.999
    order = np.argsort(distance, axis=2)[..., :2]
    assert (order[..., 1] == found.second).mean() > 0.999


def test_the_border_is_the_bisector_of_two_points():
    y, x, points = scattered()
    found = cells(y, x, points)
    a, b = (np.stack([points.y_m[n], points.x_m[n]]) for n in (found.nearest, found.second))
    across = (b - a) / np.linalg.norm(b - a, axis=0)
    middle = (a + b) / 2
    slow = ((middle - np.stack([y, x])) * across).sum(axis=0)
    np.testing.assert_allclose(found.border_m, slow, atol=1e-3)
    assert found.border_m.min() >= 0


def test_points_stay_in_their_squares():
    _, _, points = scattered()
    row = points.top + np.arange(len(points.hashes)) // points.columns
    assert (np.floor(points.y_m / 13) == row).all()
    # Jitter 0.9 keeps a twentieth of a square free on each side.
    assert points.y.min() >= 0.05
    assert points.y.max() < 0.95
