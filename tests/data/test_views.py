"""Multi-crop views: torchvision's crops and changes, one key per sample, blind to invalid pixels."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from geodino.data.views import MultiCrop, ViewsConfig, draw_views
from geodino.data.views_config import CropSizes
from geodino.errors import ContractError
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract

QUIET = {"colour_p": 0.0, "grayscale_p": 0.0, "solarise_p": 0.0, "blur": "none"}
SMALL = {"global_size": 32, "local_size": 16, "local_count": 3}


def contract(names=("red", "green", "blue"), *, dtype="uint8", low=None, high=None):
    count = len(names)
    common = {"red", "green", "blue", "nir"}
    return InputContract(
        bands=tuple(Band(name=n, common_name=n if n in common else None) for n in names),
        dtype=dtype,
        mean=tuple(90.0 + 10 * i for i in range(count)),
        std=tuple(40.0 + 5 * i for i in range(count)),
        low=low or (0.0,) * count,
        high=high or (255.0,) * count,
    )


def chips(b=3, c=3, h=48, w=56, dtype=torch.uint8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(b, c, h, w, generator=generator) * 255).to(dtype)


def all_valid(b=3, h=48, w=56):
    return np.ones((b, h, w), dtype=bool)


def make(config, pixels, valid, *, model=None, first=0, bands=None):
    model = model or contract()
    plan = draw_views(config, seed=7, first=first, valid=valid, rgb=True, bands=bands)
    return MultiCrop(config, model)(pixels, torch.from_numpy(valid), plan), plan


def crop_of(views, plan, crop, sample):
    b = plan.boxes.shape[1]
    return views.globals[crop * b + sample] if crop < 2 else views.locals[(crop - 2) * b + sample]


def by_torchvision(config, plan, pixels, crop, i, model):
    """One crop through torchvision's functions, in float, with the numbers of the plan."""
    size = config.global_size if crop < 2 else config.local_size
    x = tv.resized_crop(
        pixels[i].float(), *plan.boxes[crop, i].tolist(), [size, size],
        interpolation=InterpolationMode.BICUBIC, antialias=True,
    )  # fmt: skip
    x = x.flip([d for d, on in zip((1, 2), plan.mirrored[crop, i].tolist(), strict=True) if on])
    x = (x.transpose(1, 2) if plan.transposed[crop, i] else x) / 255
    mixes, hue = plan.mixes[crop, i].tolist(), plan.hue[crop, i].item()
    if hue or any(m != [1.0, 0.0, 0.0] for m in mixes):
        x = x.clamp(0, 1)
    for a, b, c in mixes[:3]:
        x = tv_mix(x, a, b, c)
    x = tv.adjust_hue(x, hue) if hue else x
    for a, b, c in mixes[3:]:
        x = tv_mix(x, a, b, c)
    if (sigma := plan.sigma[crop, i].item()) > 0:
        x = tv.gaussian_blur(x, [9, 9], [sigma, sigma])
    if plan.solarised[crop, i]:
        x = tv.solarize(x.clamp(0, 1), 0.5)
    return tv.normalize(x, [m / 255 for m in model.mean], [s / 255 for s in model.std])


def tv_mix(x, a, b, c):
    if (b, c) == (0.0, 0.0):
        return x if a == 1.0 else tv.adjust_brightness(x, a)
    if b == 0.0:
        return tv.adjust_contrast(x, a)
    return tv.rgb_to_grayscale(x, 3) if a == 0.0 else tv.adjust_saturation(x, a)


@pytest.mark.parametrize("size", [(48, 56), (220, 200)])
def test_the_whole_chain_is_torchvisions(size):
    config = ViewsConfig(**SMALL, flip_horizontal=0.5, flip_vertical=0.5, turns=True)
    pixels = chips(12, 3, *size)
    views, plan = make(config, pixels, all_valid(12, *size))
    assert views.globals.shape == (24, 3, 32, 32)
    assert views.locals.shape == (36, 3, 16, 16)
    assert plan.solarised.any()
    differences = []
    for crop in range(5):
        for i in range(12):
            theirs = by_torchvision(config, plan, pixels, crop, i, contract())
            differences.append((crop_of(views, plan, crop, i) - theirs).abs().flatten())
    differences = torch.cat(differences)
    # Where a value crosses a half, or three bands are equal, rounding decides between far values.
    assert differences.quantile(0.9995) < 2e-4


def test_all_eight_symmetries_occur_and_are_turns_and_flips_of_the_crop():
    config = ViewsConfig(**SMALL, **QUIET, flip_horizontal=0.5, turns=True)
    plain = ViewsConfig(**SMALL, **QUIET)
    pixels = chips(40)
    views, _ = make(config, pixels, all_valid(40))
    bare, _ = make(plain, pixels, all_valid(40))
    seen = set()
    for i in range(40):
        turned, straight = views.globals[i], bare.globals[i]
        options = {
            (k, flip): torch.rot90(straight.flip(2) if flip else straight, k, (1, 2))
            for k in range(4)
            for flip in (False, True)
        }
        near = [key for key, x in options.items() if torch.allclose(x, turned, atol=1e-4)]
        assert len(near) == 1
        seen.add(near[0])
    assert len(seen) == 8


@pytest.mark.parametrize("garbage", [0, 255])
@pytest.mark.parametrize("size", [(48, 56), (220, 200)])
def test_invalid_pixels_are_zero_and_their_values_change_no_bit(garbage, size):
    config = ViewsConfig(**SMALL, turns=True, min_valid=0.2, gain=0.1, offset=0.1)
    pixels = chips(4, 3, *size)
    valid = all_valid(4, *size)
    valid[:3, : size[0] // 2, : size[1] // 2] = False
    valid[1, ::3] = False
    spoilt = torch.where(torch.from_numpy(valid)[:, None], pixels, garbage).to(torch.uint8)
    views, _ = make(config, pixels, valid, bands=3)
    again, _ = make(config, spoilt, valid, bands=3)
    assert torch.equal(views.globals, again.globals)
    assert torch.equal(views.locals, again.locals)
    zero = (views.globals == 0).all(dim=1).float().mean(dim=(1, 2))
    assert (zero.view(2, 4)[:, :3] > 0.05).all()
    assert (zero.view(2, 4)[:, 3] == 0).all()


@pytest.mark.parametrize(("size", "tolerance"), [((48, 56), 2e-5), ((220, 200), 0.0)])
def test_a_complete_chip_is_not_changed_by_holes_in_its_neighbours(size, tolerance):
    # Small chips are resized together, so that a mask changes the order of some sums.
    config = ViewsConfig(**SMALL)
    pixels, valid = chips(3, 3, *size), all_valid(3, *size)
    whole, _ = make(config, pixels, valid)
    valid[0, 20:30] = False
    holed, _ = make(config, pixels, valid)
    a, b = (views.globals.unflatten(0, (2, 3)) for views in (whole, holed))
    torch.testing.assert_close(a[:, 1:], b[:, 1:], atol=tolerance, rtol=0)
    assert not torch.allclose(a[:, 0], b[:, 0], atol=1e-2)


def test_float_chips_with_nan_under_invalid_pixels_give_finite_crops():
    names = ("vv", "vh")
    model = contract(names, dtype="float32", low=(-20.0, -25.0), high=(0.0, -5.0))
    pixels, valid = chips(2, 2, dtype=torch.float32), all_valid(2)
    valid[:, 20:30] = False
    pixels[:, :, 20:30] = float("nan")
    plan = draw_views(ViewsConfig(**SMALL), seed=0, first=0, valid=valid, rgb=False)
    views = MultiCrop(ViewsConfig(**SMALL), model)(pixels, torch.from_numpy(valid), plan)
    assert torch.isfinite(views.globals).all()
    assert torch.isfinite(views.locals).all()


def test_a_constant_picture_with_holes_stays_constant_where_valid():
    config = ViewsConfig(**SMALL, **{**QUIET, "blur": "paper"})
    valid = np.random.default_rng(1).random((3, 48, 56)) > 0.3
    pixels = torch.full((3, 3, 48, 56), 130, dtype=torch.uint8)
    views, _ = make(config, pixels, valid)
    expected = torch.tensor([(130 - 90) / 40, (130 - 100) / 45, (130 - 110) / 50])
    seen = views.globals.abs().sum(dim=1) > 0
    found = views.globals.permute(0, 2, 3, 1)[seen]
    torch.testing.assert_close(found, expected.expand_as(found), atol=1e-5, rtol=0)
    assert seen.float().mean() > 0.6


def test_colour_leaves_other_bands_alone_and_the_order_of_bands_does_not_matter():
    config = ViewsConfig(**SMALL)
    pixels = chips(3, 4)
    names = ("red", "green", "blue", "nir")
    straight = contract(names)
    views, plan = make(config, pixels, all_valid(), model=straight)
    back = [3, 2, 1, 0]
    reverse = straight.model_copy(
        update={k: tuple(reversed(getattr(straight, k))) for k in ("bands", "mean", "std")}
    )
    mirror = MultiCrop(config, reverse)(
        pixels[:, back], torch.ones(3, 48, 56, dtype=torch.bool), plan
    )
    torch.testing.assert_close(mirror.globals[:, back], views.globals, atol=1e-5, rtol=0)
    quiet = ViewsConfig(**SMALL, colour_p=0, grayscale_p=0, solarise_p=0)
    bare, _ = make(quiet, pixels, all_valid(), model=straight)
    torch.testing.assert_close(bare.globals[:, 3], views.globals[:, 3], atol=1e-5, rtol=0)
    assert not torch.allclose(bare.globals[:, 0], views.globals[:, 0], atol=1e-2)


def test_colour_of_16_bit_data_works_between_the_percentiles():
    # The same scene stored as 1000 + 20 v, with percentiles to match, gets the same crops.
    config = ViewsConfig(**SMALL)
    model = contract()
    scaled = model.model_copy(
        update={
            "dtype": "uint16",
            "mean": tuple(1000 + 20 * m for m in model.mean),
            "std": tuple(20 * s for s in model.std),
            "low": (1000.0,) * 3,
            "high": (1000.0 + 20 * 255,) * 3,
        }
    )
    pixels = chips()
    views, plan = make(config, pixels, all_valid(), model=model)
    stored = (1000 + 20 * pixels.to(torch.int32)).to(torch.uint16)
    again = MultiCrop(config, scaled)(stored, torch.ones(3, 48, 56, dtype=torch.bool), plan)
    close = torch.isclose(again.globals, views.globals, atol=1e-3)
    assert close.float().mean() > 0.9995


@pytest.mark.parametrize("which", ["other", "all"])
def test_gain_and_offset_act_about_the_mean_in_standard_deviations(which):
    names = ("red", "green", "blue", "nir", "edge")
    config = ViewsConfig(**SMALL, **QUIET, gain=0.3, offset=0.5, jitter_bands=which)
    still = ViewsConfig(**SMALL, **QUIET)
    pixels = chips(3, 5)
    views, plan = make(config, pixels, all_valid(), model=contract(names), bands=5)
    bare, _ = make(still, pixels, all_valid(), model=contract(names))
    gain = plan.gain[:2].flatten(0, 1)[:, :, None, None].clone()
    offset = plan.offset[:2].flatten(0, 1)[:, :, None, None].clone()
    assert gain.std() > 0.1
    if which == "other":
        gain[:, :3], offset[:, :3] = 1.0, 0.0
    torch.testing.assert_close(views.globals, bare.globals * gain + offset, atol=1e-5, rtol=1e-5)


def test_without_red_green_and_blue_the_description_says_what_is_inactive():
    twelve = tuple(f"B{i:02}" for i in range(12))
    crops = MultiCrop(ViewsConfig(gain=0.1), contract(twelve))
    text = crops.describe()
    assert "inactive" in text
    assert "gain and offset" in text
    assert "inactive" not in MultiCrop(ViewsConfig(), contract()).describe()
    assert "inactive" not in MultiCrop(ViewsConfig(**QUIET), contract(twelve)).describe()
    plan = draw_views(ViewsConfig(), seed=0, first=0, valid=all_valid(2), rgb=False)
    views = MultiCrop(ViewsConfig(), contract(twelve))(
        chips(2, 12), torch.ones(2, 48, 56, dtype=torch.bool), plan
    )
    assert views.locals.shape == (16, 12, 112, 112)


def test_chips_of_other_bands_than_the_contracts_are_refused():
    plan = draw_views(ViewsConfig(), seed=0, first=0, valid=all_valid(), rgb=True)
    with pytest.raises(ContractError, match=r"4 band\(s\), the input contract 3"):
        MultiCrop(ViewsConfig(), contract())(
            chips(3, 4), torch.ones(3, 48, 56, dtype=torch.bool), plan
        )


def test_no_local_crops_are_an_empty_tensor():
    config = ViewsConfig(**{**SMALL, "local_count": 0})
    for size in ((48, 56), (220, 200)):
        views, _ = make(config, chips(3, 3, *size), all_valid(3, *size))
        assert views.locals.shape == (0, 3, 16, 16)
        assert views.globals.shape == (6, 3, 32, 32)


def test_a_device_never_has_to_wait_for_the_host(monkeypatch):
    # The meta device has no values: whatever asks for one there fails. Nor does it know autocast.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    config = ViewsConfig(**SMALL, turns=True, gain=0.1, offset=0.1)
    for holes in (False, True):
        valid = all_valid()
        valid[:, :5] = not holes
        plan = draw_views(config, seed=0, first=0, valid=valid, rgb=True, bands=3).to("meta")
        views = MultiCrop(config, contract()).to("meta")(
            chips().to("meta"), torch.from_numpy(valid).to("meta"), plan
        )
        assert views.globals.shape == (6, 3, 32, 32)


def test_autocast_changes_nothing_and_a_network_can_learn_from_the_crops():
    config = ViewsConfig(**SMALL)
    views, _ = make(config, chips(), all_valid())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again, _ = make(config, chips(), all_valid())
    assert torch.equal(again.globals, views.globals)
    weight = torch.ones(3, requires_grad=True)
    (views.globals * weight[:, None, None]).sum().backward()
    torch.testing.assert_close(weight.grad, views.globals.sum(dim=(0, 2, 3)))


@pytest.mark.parametrize("turns", [False, True])
def test_the_gram_crops_are_the_global_crops_undistorted_at_a_size_of_their_own(turns):
    distorted = ViewsConfig(**SMALL, turns=turns, flip_horizontal=0.5, gain=0.3, jitter_bands="all")
    quiet = ViewsConfig(
        **SMALL | {"global_size": 48}, **QUIET, turns=turns, flip_horizontal=0.5, jitter_p=0.0
    )
    pixels, valid = chips(), all_valid()
    valid[1, :20, :30] = False
    sizes = CropSizes(globals=32, locals=16, gram=48)
    plan = draw_views(distorted, seed=7, first=0, valid=valid, rgb=True, bands=3, sizes=sizes)
    views = MultiCrop(distorted, contract())(pixels, torch.from_numpy(valid), plan)
    plain = draw_views(quiet, seed=7, first=0, valid=valid, rgb=True, bands=3)
    torch.testing.assert_close(
        views.gram, MultiCrop(quiet, contract())(pixels, torch.from_numpy(valid), plain).globals,
        atol=1e-5, rtol=0,
    )  # fmt: skip
    assert views.globals.shape[-1] == 32
    assert not torch.equal(views.gram[..., ::3, ::3], views.globals[..., ::2, ::2])


def test_sizes_of_a_step_replace_those_of_the_config_and_change_no_draw():
    config = ViewsConfig(**SMALL)
    pixels, valid = chips(), all_valid()
    sizes = CropSizes(globals=64, locals=24)
    plan = draw_views(config, seed=7, first=0, valid=valid, rgb=True, sizes=sizes)
    plain = draw_views(config, seed=7, first=0, valid=valid, rgb=True)
    assert torch.equal(plan.boxes, plain.boxes)
    views = MultiCrop(config, contract())(pixels, torch.from_numpy(valid), plan)
    assert (views.globals.shape[-1], views.locals.shape[-1], views.gram) == (64, 24, None)
