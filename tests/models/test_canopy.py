"""Canopy heights: where each pixel of the result lies, what is frozen, what a fresh head says."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from geodino.errors import ContractError
from geodino.models.backbone import Backbone, Tokens
from geodino.models.canopy import CanopyConfig, CanopyModel, build_canopy, pad
from geodino.models.decoders.dpt import DptConfig
from geodino.models.decoders.linear import LinearHeadConfig
from geodino.models.sizes import ModelConfig

DPT = DptConfig(channels=(8, 12, 16, 20), fusion=16, hidden=12)
HEADS = {"dpt": DPT, "linear": LinearHeadConfig(), "last": LinearHeadConfig(use="last")}


class Averages(Backbone):
    """Its features are the means of each patch: they know where they are in the image."""

    depth, layers = 0, 4

    def __init__(self, *, stride=16):
        trunk = nn.Module()
        trunk.num_features, trunk.feature_info = 3, [{"num_chs": 3, "reduction": stride}] * 4
        super().__init__(trunk, config=ModelConfig(), mean=(0.0,) * 3, std=(1.0,) * 3)

    def encode(self, crops, *, masks=None, draws=None):
        raise NotImplementedError

    def _tap(self, image, layers, *, norm):
        x = F.avg_pool2d(image, self.patch_size)
        patches = x.flatten(2).transpose(1, 2)
        tokens = Tokens(
            cls=x.mean((2, 3)), registers=patches[:, :0], patches=patches, grid=x.shape[-2:]
        )
        return [tokens] * len(layers)


def coordinates(height, width):
    """Each pixel holds its own row and column, and a one."""
    rows, columns = torch.meshgrid(
        torch.arange(float(height)), torch.arange(float(width)), indexing="ij"
    )
    return torch.stack((rows, columns, torch.ones(height, width)))[None]


def repeating(head):
    """Give a DPT head weights with which its result is the row and the column of each cell.

    All convolutions pass on; what makes a map finer adds the offset of the fine cell in the coarse
    one; what makes it coarser takes the mean of two cells; fusion takes the mean of the four maps.
    """
    with torch.no_grad():
        for module in head.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.zero_()
                if module.bias is not None:
                    module.bias.zero_()
        for layer in (*head.project, *head.reduce, *(f.project for f in head.fuse), head.up,
                      head.middle, head.out):  # fmt: skip
            kernel = layer.weight
            middle = kernel.shape[-1] // 2
            for i in range(min(kernel.shape[:2])):
                kernel[i, i, middle, middle] = 1.0
        for layer in head.reduce:
            layer.weight /= 4
        for layer, factor in ((head.resize[0], 4), (head.resize[1], 2)):
            offsets = (torch.arange(float(factor)) - (factor - 1) / 2) * 16 / factor
            for i in range(3):
                layer.weight[i, i] = 1.0
            layer.weight[2, 0] = offsets[:, None].expand(factor, factor)
            layer.weight[2, 1] = offsets[None, :].expand(factor, factor)
        for i in range(3):
            head.resize[3].weight[i, i, 1:, 1:] = 0.25


def knowing(**settings):
    config = DptConfig(channels=(3, 3, 3, 3), fusion=4, hidden=2, **settings)
    model = CanopyModel(Averages(), CanopyConfig(head=config, bins={"count": 2}))
    repeating(model.head)
    return model.eval()


def off(found, size, margin=80):
    """How far each pixel of a result is from the pixel it lies on, away from the borders."""
    inside = (..., slice(margin, -margin), slice(margin, -margin))
    return (found - coordinates(*size)[:, :2])[inside].abs().amax()


@pytest.mark.parametrize("size", [(256, 320), (250, 331), (208, 240), (241, 303)])
def test_pixel_i_j_of_the_result_is_pixel_i_j_of_the_image(size):
    with torch.no_grad():
        found = knowing().logits(coordinates(*size))[:, 0]
    assert found.shape == (1, 2, *size)
    assert float(off(found, size)) < 1e-3


@pytest.mark.parametrize("size", [(250, 331), (208, 240), (241, 303)])
def test_padding_around_and_stretching_back_would_move_everything(size):
    # What the published notebook does: zeros on both sides up to whole patches, then the whole
    # result stretched over the image.
    height, width = size
    below, right = -height % 16, -width % 16
    image = F.pad(
        coordinates(*size), (right // 2, right - right // 2, below // 2, below - below // 2)
    )
    model = knowing()
    with torch.no_grad():
        tokens = model.features(image, torch.ones_like(image[:, 0], dtype=torch.bool))
        found = F.interpolate(model.head(tokens), size, mode="bilinear")
    assert float(off(found, size)) > 1


def test_enlarging_by_corners_squeezes_the_picture_towards_its_centre():
    # Half a cell at each of five steps, of 32, 16, 8, 4 and 2 pixels: what CHMv2 was trained with.
    size = (416, 416)
    with torch.no_grad():
        found = knowing(enlarge="corners").logits(coordinates(*size))[:, 0]
    moved = (found - coordinates(*size)[:, :2])[0, 0, :, 208]
    assert float(moved[208].abs()) < 0.1
    assert float(moved[80]) == pytest.approx(-float(moved[-81]), abs=0.1)
    assert 1 < float(moved[80].abs()) < 16


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["vit_nano", "convnext_atto"])
@pytest.mark.parametrize("size", [(64, 96), (50, 37)])
def test_heights_have_the_size_of_the_image_and_lie_below_the_ceiling(
    head, name, size, backbone_for, noise
):
    config = CanopyConfig(head=HEADS[head], bins={"count": 32, "ceiling_m": 40.0})
    model = build_canopy(backbone_for(name=name), config, generator=torch.Generator())
    image = (100 + 40 * noise(2, 3, *size)).clamp(0, 255).to(torch.uint8)
    heights = model.heights(image).detach()
    assert heights.shape == (2, *size)
    assert heights.dtype == torch.float32
    assert float(heights.min()) > 0
    assert float(heights.max()) < 40


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float32])
def test_images_of_any_type_are_padded_in_place(dtype):
    image = torch.arange(24.0).reshape(1, 1, 4, 6).to(dtype)
    valid = torch.ones(1, 4, 6, dtype=torch.bool)
    valid[0, 2, 3] = False
    for given in (None, valid):
        padded, known = pad(image, given, multiple=8)
        assert padded.shape == (1, 1, 8, 8)
        assert torch.equal(padded[..., :4, :6].float(), image.float())
        assert torch.equal(known[:, :4, :6], valid if given is not None else torch.ones_like(valid))
        assert not known[:, 4:].any()
        assert not known[:, :, 6:].any()


def test_what_lies_in_invalid_pixels_has_no_effect(backbone_for, noise):
    model = build_canopy(
        backbone_for(name="vit_nano"), CanopyConfig(head=DPT), generator=torch.Generator()
    )
    image = 100 + 40 * noise(1, 3, 40, 56)
    valid = torch.ones(1, 40, 56, dtype=torch.bool)
    valid[:, 10:20, 30:] = False
    other = image.masked_fill(~valid[:, None], float("nan"))
    assert torch.equal(model.heights(image, valid), model.heights(other, valid))
    assert not torch.equal(model.heights(image, valid), model.heights(image))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["vit_nano", "convnext_atto"])
def test_a_fresh_head_predicts_a_low_flat_field_with_every_bin_alive(
    head, name, backbone_for, noise
):
    model = build_canopy(
        backbone_for(name=name),
        CanopyConfig(head=HEADS[head]),
        generator=torch.Generator().manual_seed(3),
    )
    image = 100 + 40 * noise(2, 3, 64, 64)
    heights = model.heights(image)
    assert 1 < float(heights.detach().mean()) < 12
    assert float(heights.detach().std()) < 0.3 * float(heights.detach().mean())
    assert bool((model.logits(image) > 0).any(dim=2).all())
    heights.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.head_parameters())


def test_a_frozen_backbone_stays_out_of_training(backbone_for, noise):
    model = build_canopy(
        backbone_for(name="vit_nano", drop_path=0.5),
        CanopyConfig(head=DPT),
        generator=torch.Generator(),
    ).train()
    assert model.is_frozen
    assert model.head.training
    assert not model.backbone.training
    heights = model.heights(100 + 40 * noise(1, 3, 32, 32))
    assert heights.requires_grad
    heights.sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())


def test_a_backbone_that_is_not_frozen_learns_with_the_head(backbone_for, noise):
    model = build_canopy(
        backbone_for(name="vit_nano"),
        CanopyConfig(head=DPT),
        generator=torch.Generator(),
        frozen=False,
    ).train()
    assert model.backbone.training
    model.heights(100 + 40 * noise(1, 3, 32, 32)).sum().backward()
    assert float(model.backbone.trunk.blocks[0].mlp.fc1.weight.grad.abs().max()) > 0


def test_quantiles_are_more_sets_of_bins(backbone_for, noise):
    config = CanopyConfig(head=LinearHeadConfig(), bins={"count": 8}, quantiles=(0.05, 0.95))
    model = build_canopy(backbone_for(name="vit_nano"), config, generator=torch.Generator())
    image = 100 + 40 * noise(1, 3, 32, 48)
    maps = model(image)
    assert maps.shape == (1, 3, 32, 48)
    assert torch.equal(model.heights(image), maps[:, 0])
    # The third set alone: only its channels of the last layer matter to it.
    with torch.no_grad():
        for layer in model.head.out:
            layer.weight[:16] = 0
        changed = model(image)
    torch.testing.assert_close(changed[:, 2], maps[:, 2])
    assert not torch.equal(changed[:, 0], maps[:, 0])


@pytest.mark.parametrize("wrong", [(0.0,), (0.5, 0.5), (0.9, 0.1), (1.2,)])
def test_quantiles_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValidationError, match="ascending"):
        CanopyConfig(quantiles=wrong)


def test_another_number_of_bands_is_refused(backbone_for):
    model = build_canopy(
        backbone_for(4, name="vit_nano"), CanopyConfig(head=DPT), generator=torch.Generator()
    )
    with pytest.raises(ContractError, match="built for 4"):
        model.heights(torch.zeros(1, 3, 32, 32))


def test_bins_stay_in_single_precision_in_a_model_of_half(backbone_for):
    model = build_canopy(
        backbone_for(name="vit_nano"), CanopyConfig(head=DPT), generator=torch.Generator()
    )
    bins = model.bins_m.clone()
    assert torch.equal(model.bfloat16().bins_m, bins)
    assert "bins_m" not in model.state_dict()
