import pytest
import torch
from timm.models import model_entrypoint

from geodino.config import fields
from geodino.errors import RecipeError
from geodino.models.build import assemble
from geodino.models.sizes import SIZES, ModelConfig


@pytest.mark.parametrize("name", SIZES)
def test_every_size_builds_on_the_meta_device_for_any_number_of_bands(name):
    config = ModelConfig(name=name)
    backbone = assemble(config, mean=[0.0] * 12, std=[1.0] * 12)
    assert {p.device.type for p in backbone.parameters()} == {"meta"}
    assert backbone.dim == config.width
    assert backbone.depth == config.blocks
    theirs = model_entrypoint(config.size.architecture)(
        num_classes=0, device="meta", in_chans=12, **config.size.overrides
    )
    assert {k: v.shape for k, v in backbone.trunk.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }


def test_building_leaves_the_global_randomness_alone():
    state = torch.get_rng_state()
    assemble(ModelConfig(name="vit_nano"), mean=[0.0], std=[1.0])
    assert torch.equal(state, torch.get_rng_state())


def test_a_wrong_name_is_answered_with_the_nearest_right_one():
    with pytest.raises(RecipeError, match="Did you mean 'vit_small_patch16_dinov3'"):
        ModelConfig.parse({"name": "vit_smal_patch16_dinov3"}, source="recipe.yaml")


@pytest.mark.parametrize(
    "setting",
    [{"depth": 2}, {"local_cls_norm": True}, {"drop_path": 0.1}, {"patch_size": 4}],
)
def test_what_only_a_vit_has_is_refused_for_a_convnext(setting):
    with pytest.raises(RecipeError, match=next(iter(setting))):
        ModelConfig.parse({"name": "convnext_atto", **setting}, source="recipe.yaml")


def test_every_field_is_documented():
    for name, field in fields(ModelConfig):
        assert field.description, name


@pytest.mark.parametrize("patch", [4, 8, 16])
def test_a_patch_size_of_its_own(patch, backbone_for):
    backbone = backbone_for(name="vit_nano", depth=1, patch_size=patch)
    assert backbone.patch_size == patch
    assert backbone.tokens(torch.zeros(1, 3, 32, 48)).grid == (32 // patch, 48 // patch)


def test_layer_scale_starts_where_it_is_told(backbone_for):
    def gammas(**settings):
        backbone = assemble(ModelConfig(**settings), mean=[0.0], std=[1.0])
        return [k for k, _ in backbone.named_parameters() if "gamma" in k]

    assert len(gammas(name="vit_nano")) == 12
    assert gammas(name="vit_nano", layer_scale=0) == []
    assert gammas(name="convnext_atto", layer_scale=0) == []
