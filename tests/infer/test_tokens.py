"""Tokens as a map: what a backbone says of a chip's middle, and how features are stored."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maps_support import CPU, Dizzy, picture, raster_of

from geodino.geo.windows import Window
from geodino.infer.cover import Cover
from geodino.infer.preview import Preview
from geodino.infer.quantise import Quantiser
from geodino.infer.tokens import FEATURES, PICTURE, TokenPredictor, TokenProduct
from geodino.infer.whole import predict_window


def cover_of(pixels, predictor, *, chip, overlap, group=2):
    return Cover.of(
        *pixels.shape[1:],
        chip=chip,
        overlap=overlap,
        align=predictor.align,
        stride=predictor.stride,
        group=group,
    )


def mapped(pixels, valid, predictor, cover, window=None):
    with ThreadPoolExecutor(2) as threads:
        return predict_window(
            raster_of(pixels, valid), predictor, cover, threads=threads, window=window
        )


def tokens(backbone, pixels, valid):
    with torch.inference_mode():
        found = backbone.tokens(torch.from_numpy(pixels)[None], torch.from_numpy(valid)[None])
    return found.map[0].numpy()


def test_what_one_chip_has_alone_is_what_the_backbone_says_of_it(backbone):
    # 40 x 28 pixels, chips of 16 with 8 in common: 0..16, 8..24, ... A chip's patches 1 and 2 of
    # four lie next to the cut at 12, where the fade of 10..14 ends: in patches, 2.5..3.5.
    pixels, valid = picture(40, 28, holes=0.1)
    pixels = 100 + 50 * pixels
    predictor = TokenPredictor(backbone, device=CPU)
    cover = cover_of(pixels, predictor, chip=16, overlap=8)
    features, _ = mapped(pixels, valid, predictor, cover)
    alone = 0
    for row in range(cover.rows.count):
        for column in range(cover.columns.count):
            top, left = cover.rows.start(row), cover.columns.start(column)
            part = np.s_[top : top + 16, left : left + 16]
            expected = tokens(backbone, pixels[:, *part], valid[part])
            rows = slice(cover.rows.full(row), cover.rows.first(row + 1))
            columns = slice(cover.columns.full(column), cover.columns.first(column + 1))
            own = np.s_[:, rows.start - top // 4 : rows.stop - top // 4,
                        columns.start - left // 4 : columns.stop - left // 4]  # fmt: skip
            np.testing.assert_allclose(features[:, rows, columns], expected[own], atol=1e-5)
            alone += expected[own].shape[1] * expected[own].shape[2]
    assert alone >= 10 * 7 / 4


def test_side_by_side_chips_are_those_of_the_backbone(backbone):
    pixels, valid = picture(32, 46, holes=0.2)
    pixels = 100 + 50 * pixels
    predictor = TokenPredictor(backbone, device=CPU, scale=0.5)
    cover = cover_of(pixels, predictor, chip=16, overlap=0)
    features, used = mapped(pixels, valid, predictor, cover)
    whole = np.pad(pixels, ((0, 0), (0, 0), (0, 2))), np.pad(valid, ((0, 0), (0, 2)))
    for top in (0, 16):
        for left in (0, 16, 32):
            part = np.s_[top : top + 16, left : left + 16]
            expected = tokens(backbone, whole[0][:, *part] * np.float32(0.5), whole[1][part])
            place = np.s_[:, top // 4 : top // 4 + 4, left // 4 : left // 4 + 4]
            np.testing.assert_allclose(
                features[place], np.where(used[place[1:]], expected, np.nan), atol=1e-5
            )
    shares = whole[1].reshape(8, 4, 12, 4).any(axis=(1, 3))
    np.testing.assert_array_equal(used, shares)


def test_the_last_chip_of_a_row_ends_with_the_raster(backbone):
    # 40 pixels with chips of 16 side by side: 0..16, 16..32, and the last from 24. What it shares
    # with the one before is cut in the middle, at pixel 28, or patch 7.
    pixels, valid = picture(16, 40)
    predictor = TokenPredictor(backbone, device=CPU)
    features, _ = mapped(pixels, valid, predictor, cover_of(pixels, predictor, chip=16, overlap=0))
    last = tokens(backbone, pixels[:, :, 24:], valid[:, 24:])
    before = tokens(backbone, pixels[:, :, 16:32], valid[:, 16:32])
    np.testing.assert_allclose(features[:, :, 7:], last[:, :, 1:], atol=1e-5)
    np.testing.assert_allclose(features[:, :, 4:7], before[:, :, :3], atol=1e-5)


@settings(max_examples=25)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    side=st.integers(1, 5),
    data=st.data(),
)
def test_a_part_of_a_map_of_patches_has_the_bits_of_the_whole(size, side, data):
    pixels, valid = picture(*size, holes=0.6)
    predictor = Dizzy(stride=4)
    overlap = 4 * data.draw(st.integers(0, side // 2))
    cover = cover_of(pixels, predictor, chip=4 * side, overlap=overlap)
    rows, columns = cover.rows.out_length, cover.columns.out_length
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    window = Window(
        top,
        left,
        data.draw(st.integers(1, rows - top)),
        data.draw(st.integers(1, columns - left)),
    )
    whole, _ = mapped(pixels, valid, predictor, cover)
    part, _ = mapped(pixels, valid, predictor, cover, window)
    np.testing.assert_array_equal(part, whole[:, *window.slices])


def test_features_are_stored_with_nodata_where_there_is_none():
    values = np.float32([[[1.0, -2.0]], [[0.5, 0.25]]])
    valid = np.array([[True, False]])
    plain = TokenProduct(dim=2)
    np.testing.assert_array_equal(
        plain.stored(values, valid)[FEATURES], np.float32([[[1, np.nan]], [[0.5, np.nan]]])
    )
    assert np.isnan(plain.stored(None, valid)[FEATURES]).all()
    fitted = TokenProduct(
        dim=2,
        is_quantised=True,
        has_picture=True,
        quantiser=Quantiser(np.float32([0.1, 0.25])),
        preview=Preview.fit(np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)),
    )
    found = fitted.stored(values, valid)
    np.testing.assert_array_equal(found[FEATURES], np.int8([[[10, -128]], [[2, -128]]]))
    assert (found[PICTURE][:, 0, 0] > 0).all()
    assert (found[PICTURE][:, 0, 1] == 0).all()
    nothing = fitted.stored(None, valid)
    assert (nothing[FEATURES] == -128).all()
    assert (nothing[PICTURE] == 0).all()
    features, colours = fitted.layers
    assert (features.dtype, features.nodata, features.scales[1]) == ("int8", -128, 0.25)
    assert colours.colours
    assert "of the variance" in colours.descriptions[0]


def test_what_was_not_fitted_is_not_made_up():
    valid = np.ones((1, 1), dtype=bool)
    for product in (
        TokenProduct(dim=1, is_quantised=True),
        TokenProduct(dim=1, has_picture=True),
    ):
        with pytest.raises(ValueError, match="not fitted"):
            product.stored(np.zeros((1, 1, 1), dtype=np.float32), valid)
