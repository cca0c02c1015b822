import numpy as np
import pytest

from geodino.report.content import Picture, Probes
from geodino.report.features import (
    chosen_patch,
    cosines,
    covered,
    principal_colours,
    tile_maps,
)


def tokens(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_a_patch_counts_where_half_of_its_pixels_do():
    valid = np.ones((1, 4, 6), dtype=bool)
    valid[0, :2, :3] = [[False, False, False], [True, True, False]]  # 2 of 6
    valid[0, 2:, 3:] = [[False, False, False], [True, True, True]]  # 3 of 6
    np.testing.assert_array_equal(
        covered(valid, rows=2, columns=2), [[[False, True], [True, True]]]
    )


def test_the_chosen_patch_is_the_usable_one_nearest_the_middle():
    usable = np.ones((4, 5), dtype=bool)
    assert chosen_patch(usable) == (2, 2)
    usable[2, 2] = False
    assert chosen_patch(usable) == (1, 2)
    assert chosen_patch(np.zeros((4, 5), dtype=bool)) == (0, 0)


def test_cosines_by_their_definition():
    values = tokens(3, 4, 6)
    values[0, 0] = 0.0
    found = cosines(values, (1, 2))
    for row in range(3):
        for column in range(4):
            a, b = values[row, column], values[1, 2]
            length = np.linalg.norm(a) * np.linalg.norm(b)
            expected = a @ b / length if length else 0.0
            assert found[row, column] == pytest.approx(expected)
    assert found[1, 2] == pytest.approx(1.0)


def test_components_are_those_of_the_last_step_for_all_steps():
    last, usable = tokens(2, 3, 3, 8, seed=1), np.ones((2, 3, 3), dtype=bool)
    first, again, final = principal_colours([tokens(2, 3, 3, 8), last, last], usable)
    np.testing.assert_array_equal(again, final)
    assert not np.array_equal(first, final)
    # The slow definition: eigenvectors of the covariance, largest first, largest loading positive.
    flat = last.reshape(-1, 8)
    centred = flat - flat.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    for k in range(3):
        direction = vectors[:, np.argsort(values)[::-1][k]]
        direction = direction * np.sign(direction[np.abs(direction).argmax()])
        projected = centred @ direction
        low, high = np.percentile(projected, [2, 98])
        expected = ((projected - low) / (high - low)).clip(0, 1)
        np.testing.assert_allclose(final.reshape(-1, 3)[:, k], expected, atol=1e-9)


def test_unusable_patches_shape_no_colour():
    usable = np.ones((1, 3, 3), dtype=bool)
    usable[0, 0, 0] = False
    one = tokens(1, 3, 3, 6)
    two = one.copy()
    two[0, 0, 0] = 1e6
    a, b = principal_colours([one], usable)[0], principal_colours([two], usable)[0]
    np.testing.assert_array_equal(a[usable], b[usable])


@pytest.mark.parametrize("kept", [0, 1])
def test_too_few_patches_or_broken_ones_stay_grey(kept):
    usable = np.zeros((1, 2, 2), dtype=bool)
    usable.reshape(-1)[:kept] = True
    assert (principal_colours([tokens(1, 2, 2, 5)], usable)[0] == 0.5).all()
    broken = np.full((1, 2, 2, 5), np.nan)
    assert (principal_colours([broken], np.ones((1, 2, 2), bool))[0] == 0.5).all()


def test_fewer_than_three_directions_leave_the_rest_half():
    flat = np.zeros((1, 2, 2, 2))
    flat[..., 0] = np.arange(4).reshape(1, 2, 2)
    colours = principal_colours([flat], np.ones((1, 2, 2), bool))[0]
    assert (colours[..., 2] == 0.5).all()
    assert colours[..., 0].max() == 1.0


def probes(*, seed=0, valid=None):
    picture = Picture(rgb=np.full((160, 160, 3), 90, np.uint8), alt="Probe tile 1")
    steps = (0, 10)
    return Probes(
        pictures=(picture,),
        valid=np.ones((1, 32, 32), dtype=bool) if valid is None else valid,
        steps=steps,
        patches=tuple(tokens(1, 6, 4, 4, seed=seed + s).astype(np.float32) for s in steps),
    )


def test_every_tile_is_drawn_at_every_step_with_words_for_those_who_cannot_see():
    (maps,) = tile_maps(probes())
    assert len(maps.components) == len(maps.similarity) == 2
    assert maps.components[1].rgb.shape == (160, 160, 3)
    assert maps.components[1].alt == "Components of probe tile 1 at step 10"
    # The patch at row 2, column 2 of 4 x 4 covers pixels 80 to 119; the frame is just outside.
    changed = np.flatnonzero((maps.marked.rgb != 90).any(axis=(1, 2)))
    assert (changed.min(), changed.max()) == (77, 122)


def test_the_marked_patch_is_fully_like_itself():
    (maps,) = tile_maps(probes())
    similarity = maps.similarity[0].rgb.astype(int).sum(axis=-1)
    assert similarity[100, 100] == similarity.max() > similarity.min()


def test_patches_without_valid_pixels_are_hatched():
    valid = np.ones((1, 32, 32), dtype=bool)
    valid[0, :8, :8] = False
    (maps,) = tile_maps(probes(valid=valid))
    corner = maps.components[0].rgb[:40, :40].reshape(-1, 3)
    assert {tuple(c) for c in corner.tolist()} == {(120, 124, 128), (190, 194, 198)}
