"""Features of chips: in order, independent of their neighbours and of invalid pixels."""

import tracemalloc

import numpy as np
import pytest
import torch
from affine import Affine

from geodino.errors import RunError
from geodino.geo.grid import Grid
from geodino.infer.chips import Chip, Chipping, ContentHash, Raster, all_chips
from geodino.infer.encode import encoded

SIDE, PATCH = 8, 4


def chip(seed, valid=None, place=(0, 0, 0), fill=None):
    pixels = np.random.default_rng(seed).uniform(0, 255, (2, SIDE, SIDE)).astype(np.float32)
    valid = np.ones((SIDE, SIDE), dtype=bool) if valid is None else valid
    if fill is not None:
        pixels = np.where(valid, pixels, np.float32(fill))
    raster, row, column = place
    return Chip(
        raster=raster, row=row, column=column, pixels=pixels, valid=valid, share=valid.mean()
    )


def some_invalid():
    valid = np.ones((SIDE, SIDE), dtype=bool)
    valid[:PATCH, :PATCH] = False  # the first patch whole
    valid[5:, 6:] = False  # a part of the last: 3 x 2 of its 16 pixels
    return valid


EMPTY = np.zeros((SIDE, SIDE), dtype=bool)


def test_a_chip_has_the_tokens_of_its_backbone(encoder_of, backbone):
    one = chip(0, some_invalid())
    (found,) = encoded([one], encoder_of(batch=1))
    with torch.inference_mode():
        tokens = backbone.tokens(
            torch.from_numpy(one.pixels)[None], torch.from_numpy(one.valid)[None]
        )
    np.testing.assert_array_equal(found.cls, tokens.cls[0].numpy())
    np.testing.assert_array_equal(found.patches.reshape(4, 16), tokens.patches[0].numpy())
    np.testing.assert_array_equal(found.weights, np.float32([[0, 1], [1, 1 - 6 / 16]]))


def test_what_else_is_encoded_changes_no_bit_of_a_chip(encoder_of):
    chips = [chip(seed, place=(0, 0, seed)) for seed in range(7)]
    together = list(encoded(chips, encoder_of(batch=3)))
    for number, one in enumerate(chips):
        (alone,) = encoded([one], encoder_of(batch=3))
        np.testing.assert_array_equal(alone.patches, together[number].patches)
        np.testing.assert_array_equal(alone.cls, together[number].cls)


def test_values_under_invalid_pixels_change_no_bit(encoder_of):
    found = [
        next(iter(encoded([chip(1, some_invalid(), fill=fill)], encoder_of(scale=2.0))))
        for fill in (0, -9999, 65535, np.nan, np.inf)
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(other.patches, found[0].patches)
        np.testing.assert_array_equal(other.pooled("mean"), found[0].pooled("mean"))
        np.testing.assert_array_equal(other.pooled("cls"), found[0].pooled("cls"))


def test_a_factor_multiplies_what_the_model_sees(encoder_of):
    one = chip(2)
    doubled = Chip(
        raster=0, row=0, column=0, pixels=one.pixels * 2, valid=one.valid, share=one.share
    )
    (scaled,) = encoded([one], encoder_of(scale=2.0))
    (plain,) = encoded([doubled], encoder_of())
    np.testing.assert_array_equal(scaled.patches, plain.patches)


def test_chips_without_a_valid_pixel_stay_in_their_place_and_are_never_encoded(encoder_of):
    pattern = [True, False, False, True, True, False, True]
    chips = [chip(i, None if full else EMPTY, (0, 0, i)) for i, full in enumerate(pattern)]
    encoder, sizes = encoder_of(batch=3), []

    class Counting(type(encoder)):
        def __call__(self, pixels, valid):
            sizes.append(len(pixels))
            return super().__call__(pixels, valid)

    encoder.__class__ = Counting
    found = list(encoded(chips, encoder))
    assert [f.column for f in found] == list(range(7))
    assert [f.cls is not None for f in found] == pattern
    assert sizes == [3, 1]
    assert found[1].pooled("mean") is None


def test_an_empty_raster_does_not_pile_up(encoder_of):
    taken = 0

    def chips():
        nonlocal taken
        for i in range(500):
            taken += 1
            yield chip(0, None if i == 0 else EMPTY, (0, i, 0))

    ahead = 0
    for given, _ in enumerate(encoded(chips(), encoder_of(batch=2)), start=1):
        ahead = max(ahead, taken - given)
    assert given == 500
    assert ahead <= 16


def test_the_mean_weighs_patches_by_their_valid_pixels(encoder_of):
    (found,) = encoded([chip(3, some_invalid())], encoder_of())
    total, weight = np.zeros(16), 0.0
    for row in range(2):
        for column in range(2):
            share = some_invalid()[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].mean()
            total += share * found.patches[row, column].astype(np.float64)
            weight += share
    np.testing.assert_allclose(found.pooled("mean"), total / weight, rtol=1e-5)
    assert len(found.tokens()) == 3


def test_features_that_are_not_finite_stop_the_job(encoder_of, backbone):
    weight = backbone.trunk.norm.weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0] = torch.nan
        with pytest.raises(RunError, match="not finite"):
            list(encoded([chip(0)], encoder_of()))
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def peak_bytes(height, encoder):
    """Most memory numpy held while a virtual raster of this height was encoded."""

    def read(window):
        pixels = np.random.default_rng(window.top).uniform(size=(2, window.height, window.width))
        return pixels.astype(np.float32), np.ones((window.height, window.width), dtype=bool)

    wide = Raster(name="w", grid=Grid(None, Affine.identity(), width=512, height=height), read=read)
    cut = Chipping(height, 512, SIDE, PATCH)
    tracemalloc.start()
    try:
        chips = all_chips([wide], chip=SIDE, patch=PATCH, hashes=[ContentHash()])
        assert sum(1 for _ in encoded(chips, encoder)) == cut.rows * cut.columns
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_height_of_a_raster(encoder_of):
    short, tall = (peak_bytes(height, encoder_of(batch=16)) for height in (4 * SIDE, 16 * SIDE))
    assert tall < 1.5 * short  # all of it would be 4 times as much
