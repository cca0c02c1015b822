import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import confusion_matrix

from geodino import seeds
from geodino.evals.probes.dense import DenseProtocol, dense_knn, dense_linear, train_dense_heads
from geodino.evals.probes.dense_ridge import dense_ridge
from geodino.evals.probes.maps import (
    Part,
    enlarged,
    patch_class_counts,
    patch_means,
    token_statistics,
)
from geodino.evals.probes.ridge import ridge
from geodino.metrics.regression import regression_scores
from geodino.metrics.segmentation import segmentation_scores

SHORT = DenseProtocol(iterations=60, batch=4, rates=(1e-4, 1e-2))


def scenes(n, *, classes=3, grid=4, patch=4, d=6, seed=0):
    """Maps of squares as large as a patch, tokens that know the class of theirs; some unknown."""
    r = seeds.rng(seed, "scenes")
    patches = r.integers(0, classes, (n, grid, grid))
    features = np.eye(d)[patches].transpose(0, 3, 1, 2) + 0.1 * r.normal(size=(n, d, grid, grid))
    labels = patches.repeat(patch, axis=1).repeat(patch, axis=2).astype(np.uint8)
    labels[:, 0, :] = 255
    return Part(features=(7 + features).astype(np.float32), labels=labels)


def miou(prediction):
    return float(segmentation_scores(prediction.confusion.sum(axis=0)).miou)


def test_pixels_are_counted_in_the_patch_under_their_centre():
    # 5 columns on 2 patches: centres .5 1.5 2.5 3.5 4.5 of 5, the middle one in the second half.
    label = np.array([[0, 0, 1, 255, 1]], dtype=np.uint8)
    np.testing.assert_array_equal(patch_class_counts(label, (1, 2), classes=2), [[2, 0], [0, 2]])
    mean, count = patch_means(np.array([[1.0, 3.0, 5.0, np.nan, 7.0]]), (1, 2))
    np.testing.assert_array_equal(mean, [2, 6])
    np.testing.assert_array_equal(count, [2, 2])


def test_statistics_of_tokens_are_those_of_all_tokens_at_once():
    part = scenes(3)
    mean, factor = token_statistics(part)
    flat = part.features.transpose(1, 0, 2, 3).reshape(6, -1)
    np.testing.assert_allclose(mean[:, 0], flat.mean(axis=1), rtol=1e-6)
    informative = flat.std(axis=1) > 0
    np.testing.assert_allclose(factor[informative, 0], 1 / flat.std(axis=1)[informative], rtol=1e-4)


def test_dense_heads_at_once_are_torchs_adamw_one_by_one():
    part = scenes(4)
    heads = train_dense_heads(part, classes=3, protocol=SHORT, generator=seeds.rng(0, "dense"))
    mean, factor = token_statistics(part)
    x = (torch.from_numpy(part.features) - mean[..., None]) * factor[..., None]
    truth = torch.from_numpy(part.labels.astype(np.int64))
    for place, rate in enumerate(SHORT.rates):
        head = torch.nn.Conv2d(6, 3, 1)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        groups = [
            {"params": [head.weight], "weight_decay": SHORT.weight_decay},
            {"params": [head.bias], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, SHORT.iterations)
        for _ in range(SHORT.iterations):  # Batches of 4 of 4 images: all, in any order.
            optimiser.zero_grad()
            logits = enlarged(head(x), truth.shape[1:])
            torch.nn.functional.cross_entropy(logits, truth, ignore_index=255).backward()
            optimiser.step()
            schedule.step()
        expected = head.weight.detach()[:, :, 0, 0]
        torch.testing.assert_close(heads.weight[place], expected, atol=2e-4, rtol=1e-2)


def test_a_linear_head_finds_the_map_and_the_rate_that_learns():
    got = dense_linear(
        scenes(8),
        scenes(4, seed=1),
        classes=3,
        generator=seeds.rng(0, "dense"),
        val=scenes(4, seed=2),
        protocol=SHORT,
    )
    assert got.chosen["lr"] == 1e-2
    assert miou(got) > 0.6
    assert got.confusion.sum() == 4 * 15 * 16  # Ignored rows are not counted.


def test_a_map_is_enlarged_before_it_is_scored():
    # One patch of class 0 beside one of class 1, labels of 4 columns, said half and half.
    features = np.array([[[[3.0, -3.0]], [[-3.0, 3.0]]]], dtype=np.float32)
    part = Part(features=features, labels=np.array([[[0, 0, 1, 1]]], dtype=np.uint8))
    got = dense_linear(part, part, classes=2, generator=seeds.rng(0, "d"), val=part, protocol=SHORT)
    np.testing.assert_array_equal(got.confusion[0], confusion_matrix([0, 0, 1, 1], [0, 0, 1, 1]))


def test_near_patches_name_the_map_and_unlabelled_ones_are_not_remembered():
    test = scenes(3, seed=1)
    got = dense_knn(
        scenes(8), test, classes=3, generator=seeds.rng(0, "knn"), val=scenes(3, seed=2), bank=60
    )
    assert got.chosen["k"] in (5.0, 20.0, 50.0)
    assert miou(got) > 0.6
    blank = Part(features=test.features, labels=np.full_like(test.labels, 255))
    with pytest.raises(ValueError, match="no training patch"):
        dense_knn(blank, test, classes=3, generator=seeds.rng(0, "knn"), k=(5,))
    empty = dense_knn(scenes(8), blank, classes=3, generator=seeds.rng(0, "knn"), k=(5,))
    assert empty.confusion.sum() == 0


def test_without_a_validation_part_some_training_images_choose():
    for probe in (dense_linear, dense_knn):
        options = {"protocol": SHORT} if probe is dense_linear else {}
        got = [
            probe(
                scenes(8), scenes(2, seed=1), classes=3, generator=seeds.rng(0, "no val"), **options
            )
            for _ in range(2)
        ]
        assert "held_out_score" in got[0].chosen
        assert got[0].chosen == got[1].chosen
        np.testing.assert_array_equal(got[0].confusion, got[1].confusion)


def test_ridge_is_scikit_learns():
    r = seeds.rng(0, "ridge")
    x = r.normal(size=(60, 5)) + 4
    y = x @ r.normal(size=5) + 3 + 0.1 * r.normal(size=60)
    got = ridge(x[:40], y[:40], x[50:], generator=r, val=(x[40:50], y[40:50]), grid=(0.1, 1e6))
    assert got.chosen["alpha"] == 0.1
    both = x[:50]
    mean, std = both.mean(axis=0), both.std(axis=0)
    peer = Ridge(alpha=0.1 * 50).fit((both - mean) / std, y[:50])
    np.testing.assert_allclose(got.values, peer.predict((x[50:] - mean) / std))


def test_dense_ridge_is_the_ridge_of_all_patches():
    r = seeds.rng(0, "heights")
    features = r.normal(size=(6, 4, 3, 3)).astype(np.float32)
    heights = 5 + np.einsum("ndhw,d->nhw", features, np.array([1.0, -2.0, 0.5, 0.0]))
    labels = heights.copy()
    labels[0, 0, 0] = np.nan
    part = Part(features=features, labels=labels)
    got = dense_ridge(part, part, generator=r, val=part, grid=(0.3, 1e5))
    z = features.transpose(0, 2, 3, 1).reshape(-1, 4)
    mean, std = z.mean(axis=0), z.std(axis=0)
    known = np.isfinite(labels.ravel())
    peer = Ridge(alpha=0.3 * known.sum()).fit(((z - mean) / std)[known], labels.ravel()[known])
    error = peer.predict(((z - mean) / std)[known]) - labels.ravel()[known]
    scores = regression_scores(got.errors.sum(axis=0))
    assert float(scores["rmse"]) == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert got.errors[:, 0].tolist() == [8, 9, 9, 9, 9, 9]
