import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino import seeds
from geodino.errors import RunError, SourceError
from geodino.evals.cache import cached
from geodino.evals.features import Extraction, encoder, extract
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.models.backbone import Tokens
from geodino.models.build import build_backbone
from geodino.models.pooling import fit_to_patches, pool_patches, resized
from geodino.models.sizes import ModelConfig


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
        tokens = Tokens(
            cls=image.mean(dim=(2, 3)),
            registers=patches[:, :0],
            patches=patches,
            grid=(maps.shape[2], maps.shape[3]),
        )
        return [tokens]


def images_of(*shapes, seed=0):
    """Random images by key, all pixels valid."""
    r = seeds.rng(seed, "images")
    return {
        f"{i}.tif": (
            r.integers(0, 256, size=shape).astype(np.float32),
            np.ones(shape[1:], dtype=bool),
        )
        for i, shape in enumerate(shapes)
    }


def run(images, encode=None, **options):
    given = {"patch_size": 4, "device": torch.device("cpu"), **options}
    return extract(
        {"model": encode or Encoder()},
        list(images),
        reader=images.__getitem__,
        how=Extraction(**given),
    )


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


def test_the_next_batch_is_read_while_one_is_encoded():
    images = images_of(*[(2, 4, 4)] * 12)
    read = []
    second = threading.Event()

    def reader(key):
        read.append(key)
        if len(read) == 8:
            second.set()
        return images[key]

    class Waiting(Encoder):
        def __call__(self, image, valid):
            assert second.wait(timeout=60)
            return super().__call__(image, valid)

    how = Extraction(patch_size=4, batch=4, threads=1, device=torch.device("cpu"))
    got = extract({"model": Waiting()}, list(images), reader=reader, how=how)
    assert got.features["model"].cls.shape == (12, 2)


def test_images_of_many_sizes_do_not_all_wait_for_their_like():
    images = images_of(*[(1, 4, 4 * (1 + i % 7)) for i in range(40)])
    waiting, most = 0, 0

    def reader(key):
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        return images[key]

    class Counting(Encoder):
        def __call__(self, image, valid):
            nonlocal waiting
            waiting -= len(image)
            return super().__call__(image, valid)

    how = Extraction(patch_size=4, batch=3, threads=1, device=torch.device("cpu"))
    got = extract({"model": Counting()}, list(images), reader=reader, how=how)
    expected = np.stack([pixels.mean(axis=(1, 2)) for pixels, _ in images.values()])
    np.testing.assert_allclose(got.features["model"].cls, expected, rtol=1e-5)
    assert waiting == 0
    assert most <= 4 * 3 + 4  # four batches, and what a thread reads ahead


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
    # Band 0 holds 1, 3 and a masked 99: mean 2, deviation 1. Band 1 holds 5, 9: 7 and 2.
    values = np.array([[[1, 3, 99]], [[5, 9, 99]]], dtype=np.float32)
    used = np.array([[True, True, False]])
    got = run({"a.tif": (values, used)}, Encoder(1), patch_size=1)
    np.testing.assert_allclose(got.statistics, [[2, 7, 1, 2]])


@given(fill=st.sampled_from([0.0, -9999.0, 255.0]))
@settings(max_examples=4)
def test_values_under_invalid_pixels_change_no_bit(fill):
    holes, plain = {}, {}
    for key, (values, used) in images_of((2, 8, 8), (2, 7, 9)).items():
        mask = used.copy()
        mask[1:3, 2:6] = False
        holes[key] = (np.where(mask, values, np.float32(fill)), mask)
        plain[key] = (np.where(mask, values, np.float32(13)), mask)
    got, other = run(holes), run(plain)
    assert np.array_equal(got.statistics, other.statistics)
    assert np.array_equal(got.features["model"].concat, other.features["model"].concat)
    assert got.digests == other.digests


def test_copies_have_the_same_digest_and_others_another():
    images = images_of((2, 8, 8), (2, 8, 8))
    images["copy.tif"] = images["1.tif"]
    first, second, copy = run(images).digests
    assert copy == second != first


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


@given(holes=st.lists(st.booleans(), min_size=2, max_size=5), size=st.integers(2, 24))
@settings(max_examples=25)
def test_how_an_image_is_resized_does_not_depend_on_those_beside_it(holes, size):
    r = seeds.rng(size, "beside")
    image = torch.from_numpy(r.normal(size=(len(holes), 3, 9, 7)).astype(np.float32))
    valid = torch.ones(len(holes), 9, 7, dtype=torch.bool)
    valid[torch.tensor(holes), 2:6, 1:5] = False
    together, inside = resized(image, valid, (size, size))
    for i in range(len(holes)):
        alone, own = resized(image[i : i + 1], valid[i : i + 1], (size, size))
        assert torch.equal(together[i], alone[0])
        assert torch.equal(inside[i], own[0])
    whole = F.interpolate(image, size=(size, size), mode="bilinear", antialias=True)
    for i, holed in enumerate(holes):
        assert holed or (torch.equal(together[i], whole[i]) and inside[i].all())


def test_patches_are_pooled_by_their_valid_share():
    # Two patches of 2 x 2; the second has one valid pixel of four: (1 * 10 + 1/4 * 20) / (5/4).
    patches = torch.tensor([[[10.0], [20.0]]])
    valid = torch.tensor([[[1, 1, 1, 0], [1, 1, 0, 0]]], dtype=torch.bool)
    torch.testing.assert_close(pool_patches(patches, valid, grid=(1, 2)), torch.tensor([[12.0]]))


def test_an_image_without_valid_pixels_is_refused():
    images = images_of((2, 8, 8))
    images["empty.tif"] = (np.zeros((2, 8, 8), np.float32), np.zeros((8, 8), bool))
    with pytest.raises(SourceError, match=r"empty\.tif has no valid pixel"):
        run(images)


def test_patches_are_kept_in_a_file_and_come_back_from_the_cache(tmp_path):
    images = images_of((2, 8, 8), (2, 8, 8))
    made = []

    def make(place):
        made.append(place)
        return run(images, patches=place)

    first, was_there = cached(tmp_path, {"a": 1}, make)
    again, is_there = cached(tmp_path, {"a": 1}, make)
    assert (was_there, is_there, len(made)) == (False, True, 1)
    assert again.patches["model"].shape == (2, 2, 2, 2)
    np.testing.assert_array_equal(again.patches["model"], first.patches["model"])
    np.testing.assert_array_equal(again.features["model"].blocks, first.features["model"].blocks)
    assert (again.sizes, again.digests) == (first.sizes, first.digests)
    cached(tmp_path, {"a": 2}, make)
    assert len(made) == 2


def test_patches_of_images_of_several_sizes_are_refused(tmp_path):
    with pytest.raises(RunError, match="several sizes"):
        run(images_of((2, 8, 8), (2, 8, 12)), patches=tmp_path)


def test_the_last_blocks_end_with_the_tokens_that_everything_else_uses():
    contract = InputContract(
        bands=(Band(name="a"), Band(name="b")), dtype="uint8", mean=(100.0,) * 2,
        std=(10.0,) * 2, low=(0.0,) * 2, high=(255.0,) * 2,
    )  # fmt: skip
    backbone = build_backbone(
        ModelConfig(name="vit_nano"), contract, generator=torch.Generator().manual_seed(0)
    ).eval()
    image = torch.rand(1, 2, 32, 32) * 255
    valid = torch.ones(1, 32, 32, dtype=torch.bool)
    with torch.inference_mode():
        after = encoder(backbone, blocks=4)(image, valid)
        whole = backbone.tokens(image, valid)
    assert len(after) == min(4, backbone.depth)
    torch.testing.assert_close(after[-1].cls, whole.cls, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[-1].patches, whole.patches, rtol=1e-4, atol=1e-5)


def test_features_that_are_not_finite_are_an_error():
    def broken(image, valid):
        tokens = Encoder()(image, valid)
        tokens[-1].cls[0] = float("nan")
        return tokens

    with pytest.raises(RunError, match="not finite for 1 of 2 images"):
        run(images_of((2, 8, 8), (2, 8, 8)), broken)
