import pytest

from geodino.errors import RecipeError
from geodino.models.decoders.dense import build_head
from geodino.models.decoders.dpt import DptConfig
from geodino.models.decoders.taps import TAPS, even_taps, taps_of


def test_the_rows_of_the_table_are_the_rule_written_out():
    assert TAPS[24] == (5, 11, 17, 23)  # CHMv2's
    for depth, row in TAPS.items():
        assert even_taps(depth) == row


@pytest.mark.parametrize("depth", range(1, 50))
def test_taps_are_spread_over_every_depth_and_end_at_the_last_block(depth):
    taps = even_taps(depth)
    assert taps[-1] == depth - 1
    gaps = [b - a for a, b in zip((-1, *taps), taps, strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_a_vit_is_tapped_at_its_stride(backbone_for):
    taps = taps_of(backbone_for(name="vit_nano", depth=5, patch_size=8))
    assert [tap.layer for tap in taps] == [1, 2, 3, 4]
    assert {(tap.dim, tap.stride) for tap in taps} == {(128, 8)}


@pytest.mark.parametrize(("patch", "strides"), [(32, [4, 8, 16, 32]), (16, [4, 8, 16, 16])])
def test_a_convnext_is_tapped_at_its_stages(patch, strides, backbone_for, noise):
    backbone = backbone_for(name="convnext_atto", patch_size=patch)
    taps = taps_of(backbone)
    assert [tap.stride for tap in taps] == strides
    maps = backbone.feature_maps(100 + noise(1, 3, 64, 96), [tap.layer for tap in taps])
    for tap, found in zip(taps, maps, strict=True):
        assert found.shape == (1, tap.dim, 64 // tap.stride, 96 // tap.stride)


@pytest.mark.parametrize(
    ("name", "layers", "strides"),
    [
        ("resnet10t", [1, 2, 3, 4], [4, 8, 16, 32]),
        ("vit_tiny_patch16_224", [2, 5, 8, 11], [16] * 4),
    ],
)
def test_other_networks_of_timm_are_tapped_where_they_name_maps(
    name, layers, strides, backbone_for, noise
):
    backbone = backbone_for(name=name)
    taps = taps_of(backbone)
    assert [tap.layer for tap in taps] == layers
    assert [tap.stride for tap in taps] == strides
    maps = backbone.feature_maps(100 + noise(1, 3, 64, 64), layers)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (tap.dim, 64 // tap.stride, 64 // tap.stride) for tap in taps
    ]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((0, 1, 2, 9), "has 6 layers"),
        ((3, 2, 1, 0), "shallow to deep"),
        ((-1, 1, 2, 3), "counted from 0"),
    ],
)
def test_taps_that_are_not_there_are_one_sentence(layers, message, backbone_for):
    with pytest.raises(RecipeError, match=message):
        taps_of(backbone_for(name="vit_nano"), layers)


def test_a_readout_without_a_cls_token_is_refused(backbone_for):
    with pytest.raises(RecipeError, match="needs a CLS token, which convnext_atto"):
        build_head(backbone_for(name="convnext_atto"), DptConfig(readout="project"), outputs=2)


def test_patches_that_are_no_power_of_two_are_refused(backbone_for):
    with pytest.raises(RecipeError, match="cells of 14 pixels"):
        build_head(backbone_for(name="vit_nano", patch_size=14), DptConfig(), outputs=2)
