import pytest
import torch

from geodino.errors import RecipeError
from geodino.models.backbone import Tokens
from geodino.models.decoders.pyramid import STRIDES
from geodino.models.decoders.taps import Tap
from geodino.models.decoders.upernet import UperNetConfig, UperNetHead

SMALL = {"channels": 16, "pools": (1, 2, 3)}


def head_for(strides, *, dim=8, outputs=5, **config):
    taps = tuple(Tap(layer=i, dim=dim, stride=stride) for i, stride in enumerate(strides))
    head = UperNetHead(taps, UperNetConfig(**SMALL, **config), outputs=outputs)
    head.init_weights(torch.Generator().manual_seed(0), bias=torch.zeros(outputs))
    return head.eval()


def tokens(strides, side, *, dim=8, images=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        Tokens(
            cls=torch.zeros(images, dim),
            registers=torch.zeros(images, 0, dim),
            patches=torch.randn(images, (side // s) ** 2, dim, generator=generator),
            grid=(side // s, side // s),
        )
        for s in strides
    ]


@pytest.mark.parametrize("strides", [(16, 16, 16, 16), (4, 8, 16, 32), (8, 8, 8, 8)])
def test_taps_of_any_usual_stride_give_every_pixel_its_outputs(strides):
    head = head_for(strides)
    found = tokens(strides, 64)
    assert [m.shape[-1] for m in head.maps(found)] == [64 // s for s in STRIDES]
    assert head(found).shape == (2, 5, 64, 64)


def test_maps_of_a_convnext_are_taken_as_they_are():
    found = tokens((4, 8, 16, 32), 64)
    for made, given in zip(head_for((4, 8, 16, 32)).maps(found), found, strict=True):
        assert torch.equal(made, given.map)


def test_outputs_by_slabs_are_those_of_one_enlargement():
    strides = (16, 16, 16, 16)
    head, found = head_for(strides), tokens((16, 16, 16, 16), 160)
    cells = head.out(head.fused(head.maps(found)))
    whole = torch.nn.functional.interpolate(cells, scale_factor=4, mode="bilinear")
    assert len(list(head.slabs(found))) > 1
    torch.testing.assert_close(head(found), whole)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_every_weight_is_drawn_and_learns(norm):
    strides = (16, 16, 16, 16)
    head = head_for(strides, norm=norm).train()
    head(tokens(strides, 64)).square().mean().backward()
    for name, parameter in head.named_parameters():
        assert torch.isfinite(parameter).all(), name
        assert parameter.grad is not None, name
    again = head_for(strides, norm=norm)
    for one, other in zip(head.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_batch_of_one_crop_can_be_learnt_from():
    strides = (16, 16, 16, 16)
    head_for(strides).train()(tokens(strides, 64, images=1)).sum().backward()


def test_what_is_far_away_reaches_a_pixel_through_the_pooled_context():
    strides = (16, 16, 16, 16)
    head, found = head_for(strides), tokens((16, 16, 16, 16), 256, images=1)
    found[-1].patches.requires_grad_()
    head(found)[0, :, 0, 0].sum().backward()
    assert found[-1].patches.grad[0, -1].abs().sum() > 0


def test_patches_of_fourteen_pixels_are_refused():
    with pytest.raises(RecipeError, match="cells of 14 pixels"):
        head_for((14, 14, 14, 14))
