"""Colour, solarisation and blur: torchvision's functions, on hosts and devices, by validity."""

import itertools

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from geodino.data import photometric
from geodino.data.photometric import Colours, blur, change_colour, gaussian, on_rows, solarise
from geodino.data.view_plan import jitter_program

ADJUST = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


def images(n=4, h=20, w=30, seed=0):
    x = torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(seed))
    x[:, :, 0, :10] = x[:, :1, 0, :10]  # some greys,
    x[:, 1, 1] = x[:, 2, 1]  # ties,
    x[:, 0, 2] = x[:, 1, 2]
    x[:, :, 3, 0] = 0.0  # black
    x[:, :, 3, 1] = 1.0  # and white
    return x


def colours(factors, *, order=(0, 1, 2, 3), grey=False, n=1):
    """The same change of colour for ``n`` crops: brightness, contrast, saturation, hue."""
    mixes, hue = jitter_program(
        np.tile(np.array(factors[:3], dtype=float), (n, 1)),
        np.full(n, factors[3], dtype=float),
        order=np.tile(order, (n, 1)),
        grey=np.full(n, grey),
    )
    return Colours.of(torch.from_numpy(mixes).float(), torch.from_numpy(hue).float())


def for_devices(colours, mixes):
    """What a GPU gets: tensors in place of lists, nothing the host decides upon."""
    return Colours(
        mixes=mixes,
        shifts=colours.shifts,
        turned=torch.tensor(colours.turned),
        touched=torch.tensor(colours.touched),
    )


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("strength", [-0.4, -0.1, 0.07, 0.4])
def test_each_change_is_torchvisions(which, strength):
    factors = [1.0, 1.0, 1.0, 0.0]
    factors[which] += strength
    x = images()
    expected = torch.stack([ADJUST[which](image, factors[which]) for image in x])
    change_colour(x, colours(factors, n=4), None)
    torch.testing.assert_close(x, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("turns", [-0.5, -1 / 3, -1 / 6, 0.01, 0.25, 0.5])
def test_hue_is_turned_as_through_hsv_even_by_half_a_circle(turns):
    x = images(n=1, h=64, w=64)
    expected = tv.adjust_hue(x[0], turns)
    change_colour(x, colours([1.0, 1.0, 1.0, turns]), None)
    torch.testing.assert_close(x[0], expected, atol=2e-6, rtol=0)


def test_a_third_of_the_circle_makes_red_green():
    x = torch.tensor([1.0, 0.2, 0.2])[None, :, None, None].clone()
    change_colour(x, colours([1.0, 1.0, 1.0, 1 / 3]), None)
    torch.testing.assert_close(x.flatten(), torch.tensor([0.2, 1.0, 0.2]))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_four_changes_follow_their_order(order):
    factors = (1.3, 0.7, 1.15, -0.08)
    x = images(n=1)
    expected = x[0]
    for which in order:
        expected = ADJUST[which](expected, factors[which])
    change_colour(x, colours(factors, order=order), None)
    torch.testing.assert_close(x[0], expected, atol=3e-6, rtol=0)


def test_grayscale_comes_last_and_is_torchvisions():
    x = images(n=1)
    expected = tv.adjust_brightness(x[0], 1.2)
    expected = tv.rgb_to_grayscale(expected, num_output_channels=3)
    change_colour(x, colours([1.2, 1.0, 1.0, 0.0], grey=True), None)
    torch.testing.assert_close(x[0], expected, atol=2e-6, rtol=0)


def test_crops_of_a_batch_change_each_by_its_own_numbers_on_hosts_and_devices_alike():
    rng = np.random.default_rng(0)
    factors = 1 + rng.uniform(-0.4, 0.4, (6, 3))
    hue = rng.uniform(-0.1, 0.1, 6)
    factors[2], hue[2], hue[4] = 1.0, 0.0, 0.0
    mixes, hue = jitter_program(
        factors, hue, order=rng.permuted(np.tile(range(4), (6, 1)), axis=1), grey=hue > 0.06
    )
    mixes, hue = torch.from_numpy(mixes).float(), torch.from_numpy(hue).float()
    valid = (images(6)[:, :1] > 0.2).float()
    for weights in (None, valid):
        host, device = images(6), images(6)
        change_colour(host, Colours.of(mixes, hue), weights)
        change_colour(device, for_devices(Colours.of(mixes, hue), mixes), weights)
        torch.testing.assert_close(host, device, atol=1e-6, rtol=0)
        for i in range(6):
            alone = images(6)[i : i + 1]
            some = None if weights is None else weights[i : i + 1]
            change_colour(alone, Colours.of(mixes[i : i + 1], hue[i : i + 1]), some)
            assert torch.equal(alone[0], host[i])
    assert torch.equal(host[2], images(6)[2])


def test_contrast_pulls_towards_the_mean_of_valid_pixels():
    x = torch.full((1, 3, 1, 4), 0.4)
    x[..., 2:] = 0.9
    valid = torch.tensor([1.0, 1.0, 0.0, 0.0])[None, None, None]
    x[..., 1] = 0.6
    change_colour(x, colours([1.0, 0.5, 1.0, 0.0]), valid)
    # Grey weighs red, green and blue by 0.9999 in all, as torchvision's does.
    torch.testing.assert_close(x[0, 0, 0, :2], torch.tensor([0.45, 0.55]), atol=1e-4, rtol=0)


def test_values_outside_the_range_are_clipped_first():
    x = torch.tensor([-0.5, 0.5, 1.5])[None, :, None, None].clone()
    change_colour(x, colours([0.5, 1.0, 1.0, 0.0]), None)
    torch.testing.assert_close(x.flatten(), torch.tensor([0.0, 0.25, 0.5]))


def test_the_upper_half_is_inverted():
    x = images(n=1)
    expected = tv.solarize(x[0], 0.5)
    solarise(x)
    torch.testing.assert_close(x[0], expected, atol=1e-6, rtol=0)
    edges = torch.tensor([0.0, 0.5, 1.0, 0.4999999, 1.2])[None, None, None].repeat(1, 3, 1, 1)
    solarise(edges)
    torch.testing.assert_close(
        edges[0, 0, 0], torch.tensor([0.0, 0.5, 0.0, 0.4999999, 0.0]), atol=1e-6, rtol=0
    )


def blurred(x, sigma, valid=None, *, kernel=9, on=None):
    x = x.clone()
    sigma = torch.as_tensor(sigma)
    blur(x, (sigma > 0).tolist() if on is None else on, gaussian(sigma, kernel), valid)
    return x


@pytest.mark.parametrize(("h", "w"), [(20, 30), (5, 7), (256, 256), (150, 40), (33, 161)])
def test_blur_is_torchvisions_with_a_sigma_for_each_crop(h, w):
    x = images(h=max(h, 5), w=max(w, 5))
    sigma = [0.1, 1.0, 0.0, 2.0]
    out = blurred(x, sigma)
    for i, s in enumerate(sigma):
        expected = tv.gaussian_blur(x[i], [9, 9], [s, s]) if s else x[i]
        torch.testing.assert_close(out[i], expected, atol=2e-6, rtol=0)
    assert torch.equal(out[2], x[2])


def test_a_device_blurs_what_the_host_blurs(monkeypatch):
    x, valid = images(h=140, w=140), (images(h=140, w=140)[:, :1] > 0.5).float()
    sigma = torch.tensor([0.5, 0.0, 1.0, 2.0])
    for weights in (None, valid):
        host = blurred(x, sigma, weights)
        with monkeypatch.context() as patched:
            patched.setattr(
                photometric,
                "_filter_by_bags",
                lambda x, kernels, *, out: out.copy_(photometric._filter_by_products(x, kernels)),
            )
            device = blurred(x, sigma, weights, on=sigma > 0)
        torch.testing.assert_close(host, device, atol=1e-6, rtol=0)


def test_blur_is_the_weighted_mean_of_valid_pixels():
    x = images(n=1, h=12, w=13)
    valid = (torch.rand(1, 1, 12, 13, generator=torch.Generator().manual_seed(3)) > 0.5).float()
    out = blurred(x, [1.1], valid)
    kernel = gaussian(torch.tensor([1.1]), 9)[0]
    mirror = lambda i, size: (size - 1) - abs((size - 1) - abs(i))  # noqa: E731
    for row, column in valid[0, 0].nonzero().tolist():
        total, weight = torch.zeros(3), 0.0
        for i, j in itertools.product(range(9), repeat=2):
            r, c = mirror(row + i - 4, 12), mirror(column + j - 4, 13)
            w = float(kernel[i] * kernel[j] * valid[0, 0, r, c])
            total, weight = total + w * x[0, :, r, c], weight + w
        torch.testing.assert_close(out[0, :, row, column], total / weight, atol=2e-6, rtol=0)


def test_blur_never_mixes_in_an_invalid_pixel():
    x = images(n=1)
    valid = torch.ones(1, 1, 20, 30)
    valid[..., 10:] = 0.0
    spoilt = torch.where(valid > 0, x, torch.tensor(1e6))
    inside = blurred(x * valid, [2.0], valid)[..., :10]
    assert torch.equal(blurred(spoilt, [2.0], valid)[..., :10], inside)


@pytest.mark.parametrize("on", [[], [0], [1, 3], [0, 1, 2, 3]])
def test_operations_reach_only_the_crops_they_are_on_for(on):
    def add_rows(some, rows):
        some += torch.arange(1.0, 5.0)[rows, None, None, None]

    expected = images()
    for row in on:
        expected[row] += row + 1
    flags = [row in on for row in range(4)]
    for choice in (flags, torch.tensor(flags)):
        x = images()
        on_rows(x, choice, add_rows)
        assert torch.equal(x, expected)
