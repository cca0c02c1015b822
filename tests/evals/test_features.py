from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino import seeds
from geodino.errors import ContractError, RunError, SourceError
from geodino.evals.features import (
    choose_rule,
    extract,
    fit_to_patches,
    image_reader,
    pool_patches,
)
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.io.raster import HandlePool
from geodino.models.backbone import Tokens


def contract_of(bands=2, dtype="uint8", valid="all"):
    return InputContract(
        bands=tuple(Band(name=f"band_{i}") for i in range(bands)),
        dtype=dtype,
        mean=(100.0,) * bands,
        std=(10.0,) * bands,
        low=(0.0,) * bands,
        high=(255.0,) * bands,
        valid=valid,
    )


@dataclass
class Encoder:
    """The patch token is the mean of the patch, per band; CLS is the mean of the image."""

    patch: int = 4
    seen: list = None

    def __call__(self, image, valid):
        if self.seen is not None:
            self.seen.append(tuple(image.shape))
        image = image.masked_fill(~valid[:, None], 0.0)
        maps = torch.nn.functional.avg_pool2d(image, self.patch)
        patches = maps.flatten(2).transpose(1, 2)
        return Tokens(
            cls=image.mean(dim=(2, 3)),
            registers=patches[:, :0],
            patches=patches,
            grid=(maps.shape[2], maps.shape[3]),
        )


def images_of(*shapes, seed=0):
    """Random images by name, all pixels valid."""
    r = seeds.rng(seed, "images")
    return {
        Path(f"{i}.tif"): (
            r.integers(0, 256, size=shape).astype(np.uint8),
            np.ones(shape, dtype=bool),
        )
        for i, shape in enumerate(shapes)
    }


def run(images, encode=None, **options):
    encode = encode or Encoder()
    given = {"contract": contract_of(), "patch_size": 4, **options}
    return extract({"model": encode}, list(images), reader=images.__getitem__, **given)


def test_features_come_back_in_the_order_of_the_images_whatever_their_sizes():
    images = images_of((2, 8, 8), (2, 4, 12), (2, 8, 8), (2, 4, 4))
    seen = []
    got = run(images, Encoder(seen=seen), batch=8)
    expected = np.stack([pixels.mean(axis=(1, 2)) for pixels, _ in images.values()])
    np.testing.assert_allclose(got.features["model"].cls, expected, rtol=1e-5)
    np.testing.assert_allclose(got.features["model"].mean_patch, expected, rtol=1e-5)
    assert got.features["model"].concat.shape == (4, 4)
    assert sorted(seen) == [(1, 2, 4, 4), (1, 2, 4, 12), (2, 2, 8, 8)]
    assert got.sizes == ((4, 4), (4, 12), (8, 8))


def test_batches_do_not_change_the_features():
    images = images_of(*[(2, 8, 8)] * 7)
    whole, single = run(images, batch=8), run(images, batch=1)
    np.testing.assert_allclose(
        whole.features["model"].concat, single.features["model"].concat, rtol=1e-6
    )


def test_odd_sizes_are_enlarged_to_whole_patches_and_a_wanted_size_is_taken():
    seen = []
    run(images_of((2, 5, 9)), Encoder(seen=seen))
    run(images_of((2, 5, 9)), Encoder(seen=seen), image_size=16)
    assert seen == [(1, 2, 8, 12), (1, 2, 16, 16)]
    with pytest.raises(RunError, match="Choose 20"):
        run(images_of((2, 5, 9)), image_size=18)


def test_statistics_are_means_and_deviations_over_valid_pixels():
    # Band 0 holds 1, 3 and a masked 99: mean 2, deviation 1. Band 1 holds 5, 5, 8: 6 and sqrt(2).
    pixels = np.array([[[1, 3, 99]], [[5, 5, 8]]], dtype=np.uint8)
    valid = np.ones((2, 1, 3), dtype=bool)
    valid[0, 0, 2] = False
    images = {Path("a.tif"): (pixels, valid)}
    got = run(images, Encoder(1), patch_size=1)
    np.testing.assert_allclose(got.statistics, [[2, 6, 1, 2**0.5]])


@given(fill=st.sampled_from([0, 7, 255]), how=st.sampled_from(["all", "any"]))
@settings(deadline=None, derandomize=True, max_examples=6)
def test_values_under_invalid_pixels_change_no_bit(fill, how):
    images = images_of((2, 8, 8), (2, 7, 9))
    holes = {}
    for i, (path, (pixels, valid)) in enumerate(images.items()):
        mask = valid.copy()
        mask[:, 1:3, 2:6] = False
        mask[i % 2, 5:] = False
        holes[path] = (np.where(mask, pixels, fill).astype(np.uint8), mask)
    got = run(holes, contract=contract_of(valid=how))
    plain = {
        path: (np.where(mask, pixels, 13).astype(np.uint8), mask)
        for path, (pixels, mask) in holes.items()
    }
    other = run(plain, contract=contract_of(valid=how))
    assert np.array_equal(got.statistics, other.statistics)
    assert np.array_equal(got.features["model"].concat, other.features["model"].concat)


def test_resizing_averages_valid_pixels_only():
    # Halving 2 x 2 blocks of constants: every kernel stays near its block; the invalid value
    # 1000 reaches no output pixel.
    image = torch.full((1, 1, 8, 8), 5.0)
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    image[..., 3:5, 3:5] = 1000.0
    valid[:, 3:5, 3:5] = False
    small, mask = fit_to_patches(image, valid, patch_size=4, image_size=4)
    torch.testing.assert_close(small[mask[:, None]], torch.full((int(mask.sum()),), 5.0))
    same, untouched = fit_to_patches(image, valid, patch_size=4)
    assert same is image
    assert untouched is valid


def test_patches_are_pooled_by_their_valid_share():
    # Two patches of 2 x 2; the second has one valid pixel of four: (1 * 10 + 1/4 * 20) / (5/4).
    patches = torch.tensor([[[10.0], [20.0]]])
    valid = torch.tensor([[[1, 1, 1, 0], [1, 1, 0, 0]]], dtype=torch.bool)
    torch.testing.assert_close(pool_patches(patches, valid, grid=(1, 2)), torch.tensor([[12.0]]))


def test_an_image_without_valid_pixels_is_refused():
    images = images_of((2, 8, 8))
    images[Path("empty.tif")] = (np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8), bool))
    with pytest.raises(SourceError, match=r"empty\.tif has no valid pixel"):
        run(images)


@pytest.mark.parametrize(
    ("contract", "sentence"),
    [
        (contract_of(bands=3), r"0\.tif offers 2 band"),
        (contract_of(dtype="uint16"), r"0\.tif stores uint8"),
    ],
)
def test_an_image_that_is_not_the_models_is_refused(contract, sentence):
    with pytest.raises(ContractError, match=sentence):
        run(images_of((2, 8, 8)), contract=contract)


def test_features_that_are_not_finite_are_an_error():
    def broken(image, valid):
        tokens = Encoder()(image, valid)
        tokens.cls[0] = float("nan")
        return tokens

    with pytest.raises(RunError, match="not finite for 1 of 2 images"):
        run(images_of((2, 8, 8), (2, 8, 8)), broken)


def test_a_picture_cut_off_in_transfer_is_refused(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"0" * 100)
    with pytest.raises(SourceError, match=r"cut\.jpg"):
        choose_rule([tmp_path / "cut.jpg"])


def test_near_infrared_tagged_alpha_is_read_as_a_band(shared_data):
    tiles = sorted((shared_data / "tiles" / "naip_urban_trees" / "images").glob("*.tif"))[:4]
    rule = choose_rule(tiles)
    with HandlePool(max_open=1) as pool:
        pixels, valid = image_reader(pool, rule)(tiles[0])
    assert pixels.shape == (4, 256, 256)
    assert valid.all()
