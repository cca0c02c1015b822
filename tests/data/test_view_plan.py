"""Draws of views: torchvision's distributions, one key per sample, few invalid pixels."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from geodino.data.views import ViewsConfig, draw_views


def all_valid(b=3, h=48, w=56):
    return np.ones((b, h, w), dtype=bool)


@pytest.mark.parametrize("shape", [(512, 512), (64, 64), (300, 420)])
def test_boxes_are_distributed_as_torchvisions(shape):
    height, width = shape
    config = ViewsConfig(local_count=1)
    draws = 3000
    ours = draw_views(
        config, seed=0, first=0, valid=np.ones((draws, height, width), dtype=bool), rgb=True
    ).boxes.numpy()
    image = torch.empty(3, height, width)
    torch.manual_seed(0)
    for crop, scale in (
        (0, config.global_scale),
        (1, config.global_scale),
        (2, config.local_scale),
    ):
        peer = v2.RandomResizedCrop(16, scale=scale, antialias=True)
        theirs = [peer.make_params([image]) for _ in range(draws)]
        theirs = np.array([[p[k] for k in ("top", "left", "height", "width")] for p in theirs])
        for statistic in (
            lambda box: box[:, 2] * box[:, 3] / (height * width),
            lambda box: np.log(box[:, 3] / box[:, 2]),
            lambda box: box[:, 0] + box[:, 2] / 2,
            lambda box: box[:, 1] + box[:, 3] / 2,
            lambda box: box[:, 0] / np.maximum(height - box[:, 2], 1),
        ):
            mine, peers = statistic(ours[crop]), statistic(theirs)
            # Kolmogorov and Smirnov's distance; 1.95 sqrt(2 / n) is its 0.1 % point.
            edges = np.sort(np.concatenate([mine, peers]))
            distance = np.abs(
                np.searchsorted(np.sort(mine), edges, "right")
                - np.searchsorted(np.sort(peers), edges, "right")
            ).max()
            assert distance / draws < 1.95 * math.sqrt(2 / draws)
            assert mine.mean() == pytest.approx(
                peers.mean(), abs=5 * peers.std() * math.sqrt(2 / draws)
            )


def test_boxes_lie_inside_the_chip_and_fall_back_to_the_central_crop():
    # Four times as long as wide: a crop of at least 90 % of the area never has an allowed aspect.
    config = ViewsConfig(global_scale=(0.9, 1.0))
    boxes = draw_views(
        config, seed=0, first=0, valid=np.ones((20, 64, 16), dtype=bool), rgb=True
    ).boxes
    assert (boxes[:2] == torch.tensor([21, 0, 21, 16])).all()  # 16 / (3 / 4) = 21.3 rows
    top, left, height, width = boxes.unbind(-1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 64).all()
    assert (left + width <= 16).all()


def test_a_sample_has_the_same_views_in_any_batch():
    config = ViewsConfig(gain=0.2, offset=0.1, turns=True, flip_horizontal=0.5)
    valid = np.random.default_rng(0).random((6, 40, 40)) > 0.4
    whole = draw_views(config, seed=3, first=100, valid=valid, rgb=True, bands=5)
    part = draw_views(config, seed=3, first=102, valid=valid[2:4], rgb=True, bands=5)
    for name in whole.__slots__:
        a, b = getattr(whole, name), getattr(part, name)
        if name == "complete":
            assert torch.equal(a[2:4], b)
        elif isinstance(a, torch.Tensor):
            assert torch.equal(a[:, 2:4], b), name
    other = draw_views(config, seed=4, first=100, valid=valid, rgb=True, bands=5)
    assert not torch.equal(whole.boxes, other.boxes)


@pytest.mark.parametrize(
    ("blur", "shares"), [("paper", (1, 0.1, 0.5)), ("release", (0, 0.9, 0.5)), ("none", (0, 0, 0))]
)
def test_operations_are_as_frequent_as_asked(blur, shares):
    config = ViewsConfig(blur=blur, local_count=1)
    plan = draw_views(config, seed=0, first=0, valid=all_valid(2000, 8, 8), rgb=True)
    for crop, share in enumerate(shares):
        assert (plan.sigma[crop] > 0).float().mean() == pytest.approx(share, abs=0.04)
    assert plan.solarised.float().mean(1).tolist() == pytest.approx([0, 0.2, 0], abs=0.04)
    assert (plan.hue != 0).float().mean(1).tolist() == pytest.approx([0.8] * 3, abs=0.04)
    grey = (plan.mixes[:, :, 6, 1] == 1).float().mean(1)
    assert grey.tolist() == pytest.approx([0.2] * 3, abs=0.04)
    on = plan.sigma[plan.sigma > 0]
    assert len(on) == 0 or (0.1 <= on.min() < 0.2 and 1.9 < on.max() <= 2.0)
    assert plan.hue.abs().max() <= 0.1
    # Hue first, second, third or last, each a quarter of the time: 0 to 3 changes come before.
    before = (plan.mixes[:, :, :3] != torch.tensor([1.0, 0, 0])).any(-1).sum(-1)[plan.hue != 0]
    assert (before.bincount(minlength=4) / len(before)).tolist() == pytest.approx(
        [0.25] * 4, abs=0.03
    )


def test_without_red_green_and_blue_no_colour_is_drawn_and_all_else_stays():
    plan = draw_views(ViewsConfig(), seed=0, first=0, valid=all_valid(), rgb=True)
    bare = draw_views(ViewsConfig(), seed=0, first=0, valid=all_valid(), rgb=False)
    assert torch.equal(plan.boxes, bare.boxes)
    assert torch.equal(plan.sigma, bare.sigma)
    assert (bare.mixes == torch.tensor([1.0, 0.0, 0.0])).all()
    assert not bare.hue.any()
    assert not bare.solarised.any()


def test_crops_with_too_few_valid_pixels_are_drawn_again():
    valid = all_valid(64, 64, 64)
    valid[:, :, :40] = False  # 37.5 % are valid, in a strip at the right
    plan = draw_views(ViewsConfig(min_valid=0.6), seed=0, first=0, valid=valid, rgb=True)
    free = draw_views(ViewsConfig(min_valid=0.0), seed=0, first=0, valid=valid, rgb=True)
    assert not plan.all_complete

    def shares(plan, crops):
        found = [
            valid[i, t : t + h, x : x + w].mean()
            for boxes in plan.boxes[crops]
            for i, (t, x, h, w) in enumerate(boxes.tolist())
        ]
        return np.array(found)

    locals_ = slice(2, None)
    assert (shares(free, locals_) < 0.6).mean() > 0.5
    # A local crop finds the strip about three times in ten; eleven draws rarely all miss.
    assert (shares(plan, locals_) < 0.6).mean() < 0.1
    assert (shares(plan, slice(0, 2)) >= shares(free, slice(0, 2))).all()
    whole = draw_views(ViewsConfig(), seed=0, first=0, valid=all_valid(64, 64, 64), rgb=True)
    keep = torch.tensor(shares(free, slice(0, None)) >= 0.6).view(free.boxes.shape[:2])
    assert torch.equal(plan.boxes[keep], whole.boxes[keep])


def test_gain_and_offset_need_the_number_of_bands():
    with pytest.raises(ValueError, match="how many bands"):
        draw_views(ViewsConfig(gain=0.1), seed=0, first=0, valid=all_valid(), rgb=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"global_scale": (0.5, 0.2)},
        {"local_scale": (0.1, 1.2)},
        {"blur_kernel": 8},
        {"local_size": 8, "blur_kernel": 17},
        {"aspect": (0.0, 1.0)},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must|shares"):
        ViewsConfig(**wrong)
