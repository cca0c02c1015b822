"""Networks of timm behind the interface: equal to plain timm, and refused where they do not fit."""

import pytest
import timm
import torch

from geodino.errors import ContractError, RecipeError
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.models.build import assemble, build_backbone
from geodino.models.folder import load_model, save_model
from geodino.models.sizes import ModelConfig
from geodino.models.timm_backbone import check_side, facts_of


def contract(bands: int) -> InputContract:
    return InputContract(
        bands=tuple(Band(name=f"b{i}") for i in range(bands)), dtype="uint8",
        mean=(90.0,) * bands, std=(40.0,) * bands, low=(0.0,) * bands, high=(255.0,) * bands,
    )  # fmt: skip


def built(name: str, bands: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return build_backbone(ModelConfig(name=name), contract(bands), generator=generator).eval()


@pytest.mark.parametrize(
    ("name", "bands", "side"),
    [("timm:resnet10t", 3, 64), ("resnet10t", 5, 64), ("vit_tiny_patch16_224", 4, 64)],
)
def test_the_exported_folder_opens_in_plain_timm_with_difference_0(name, bands, side, tmp_path):
    backbone = built(name, bands)
    config = backbone.config
    save_model(tmp_path, backbone=backbone, heads=None, contract=contract(bands), config=config,
               head_configs=None, card={"image_size": side})  # fmt: skip
    plain = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    image = torch.rand(2, bands, side, side) * 255
    with torch.no_grad():
        tokens = backbone.tokens(image)
        again = load_model(tmp_path).backbone.tokens(image)
        theirs = plain(backbone.normalise(image))
    assert torch.equal(tokens.cls, theirs)
    assert torch.equal(tokens.patches, again.patches)
    assert tokens.grid == (side // config.stride,) * 2
    assert tokens.patches.shape == (2, (side // config.stride) ** 2, config.width)


def test_weights_depend_on_the_generator_alone_and_the_global_state_is_left_as_it_was():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = built("resnet10t", 3), built("resnet10t", 3), built("resnet10t", 3, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    states = [m.state_dict() for m in (one, two, other)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(states[0]["trunk.conv1.0.weight"], states[2]["trunk.conv1.0.weight"])


def test_taps_are_timms_own_maps():
    backbone = built("resnet10t", 3)
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        first, last = backbone.tap(image, [1, -1])
        maps = backbone.trunk.forward_intermediates(
            backbone.normalise(image), intermediates_only=True, indices=[1, backbone.layers - 1]
        )
    assert torch.equal(first.map, maps[0])
    assert torch.equal(last.map, maps[1])


def test_sizes_come_from_timm_without_memory():
    assert (facts_of("resnet10t").dim, facts_of("resnet10t").stride) == (512, 32)
    assert (
        assemble(ModelConfig(name="resnet10t"), mean=(0.0,), std=(1.0,))
        .trunk.conv1[0]
        .weight.is_meta
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mobilenetv3_small_050", "widens its map of 288 channels to 1024"),
        ("resnet10t.c3_in1k", "names trained weights"),
        ("resnettt10t", "Did you mean 'resnet10t'"),
        ("timm:convnext_ato", "Did you mean 'convnext_atto'"),
    ],
)
def test_what_cannot_be_a_student_is_one_clear_sentence(name, words):
    with pytest.raises(RecipeError, match=words):
        ModelConfig.parse({"name": name}, source="--students").size.dim  # noqa: B018


def test_settings_of_other_families_and_masks_are_refused():
    with pytest.raises(RecipeError, match="depth cannot be set for resnet10t"):
        ModelConfig.parse({"name": "resnet10t", "depth": 3}, source="test")
    with pytest.raises(RecipeError, match="patch_size cannot be set for resnet10t of timm"):
        ModelConfig.parse({"name": "resnet10t", "patch_size": 16}, source="test")
    backbone = built("resnet10t", 3)
    with pytest.raises(ValueError, match="no mask token"):
        backbone([torch.rand(1, 3, 64, 64)], masks=[torch.zeros(1, 4, dtype=torch.bool)])
    with pytest.raises(ContractError, match="does not divide into patches of 32"):
        backbone([torch.rand(1, 3, 48, 48)])


def test_a_network_for_one_image_size_says_that_grids_cannot_be_aligned():
    with pytest.raises(RecipeError, match="takes no crops of 96 px"):
        check_side("levit_128s", 96, 3)
    check_side("resnet10t", 96, 3)
