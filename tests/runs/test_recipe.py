import pytest

from geodino.errors import RecipeError
from geodino.runs.build import check_sizes
from geodino.runs.finetune.canopy.config import CanopyFinetuneConfig
from geodino.runs.finetune.segmentation.config import SegmentationFinetuneConfig
from geodino.runs.recipe import (
    RunConfig,
    TrainingConfig,
    differences,
    dump,
    explain,
    load_any_recipe,
    load_distill_recipe,
    load_finetune_recipe,
    load_recipe,
    load_recorded_any,
    merged,
    parse_overrides,
    recipe_names,
)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid_and_its_crops_divide_into_patches(name):
    config = load_any_recipe(name)
    if isinstance(config, CanopyFinetuneConfig | SegmentationFinetuneConfig):
        assert config.sampling.crop % 32 == 0  # what a DPT or UPerNet head needs
    elif isinstance(config, TrainingConfig):
        check_sizes(config)


def test_the_recipes_that_are_promised_are_there():
    promised = {"sat-vit7b16", "sat-vitl16", "sat-vitb16", "sat-vits16", "s2-vits16", "laptop"}
    assert promised | {"debug"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recorded_recipe_reads_back_as_the_same_configuration(name, tmp_path):
    config = load_any_recipe(name)
    (tmp_path / "recipe.yaml").write_text(dump(config))
    assert load_recorded_any(tmp_path / "recipe.yaml") == config


def test_a_recipe_of_the_other_command_is_refused_with_its_command():
    with pytest.raises(RecipeError, match="use it with `geodino distill --recipe debug-distill"):
        load_recipe("debug-distill")
    with pytest.raises(RecipeError, match="use it with `geodino pretrain --recipe debug"):
        load_distill_recipe("debug")
    with pytest.raises(RecipeError, match="use it with `geodino finetune canopy --recipe canopy"):
        load_recipe("canopy")
    with pytest.raises(RecipeError, match="Recipes of canopy heights have a section `canopy`"):
        load_finetune_recipe(CanopyFinetuneConfig, "debug")
    settings = [f"model.{key}=null" for key in ("patch_size", "depth", "layer_scale")]
    with pytest.raises(RecipeError, match="resnet18 cannot be pretrained, only taught"):
        load_recipe("debug", ["model.name=resnet18", "model.drop_path=0.0", *settings])


def test_overrides_are_read_as_yaml_and_laid_over_the_recipe():
    assert parse_overrides(["a.b=1", "a.c=[1, 2]", "d=1e-3", "e=true", "f=null", "g=x"]) == {
        "a": {"b": 1, "c": [1, 2]}, "d": 0.001, "e": True, "f": None, "g": "x",
    }  # fmt: skip
    config = load_recipe("debug", ["train.batch=16", "phases.pretrain.lr.peak=2e-4"])
    assert config.train.batch == 16
    assert config.phases.pretrain.lr.peak == 2e-4
    assert config.phases.pretrain.lr.warmup == 5  # its neighbours stay


def test_an_unknown_recipe_names_the_nearest_one():
    with pytest.raises(RecipeError, match=r"no recipe 'laptp'. Did you mean 'laptop'\?"):
        load_recipe("laptp")


def test_unknown_keys_name_the_nearest_one_and_all_mistakes_come_at_once():
    with pytest.raises(RecipeError) as caught:
        load_recipe("debug", ["train.bacth=4", "phases.pretrain.lr.paek=1", "optim.clip=-1"])
    message = str(caught.value)
    assert "3 things to fix" in message
    assert "train.bacth: unknown key. Did you mean 'batch'?" in message
    assert "phases.pretrain.lr.paek: unknown key. Did you mean 'peak'?" in message
    assert "optim.clip" in message


@pytest.mark.parametrize("override", ["train.batch", "=3", "a=[1,"])
def test_an_override_that_is_none_is_refused_in_words(override):
    with pytest.raises(RecipeError, match="--set"):
        parse_overrides([override])


def test_a_missing_recipe_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"nothing\.yaml does not exist"):
        load_recipe(str(tmp_path / "nothing.yaml"))


def test_a_recipe_that_is_not_yaml_is_named(tmp_path):
    (tmp_path / "bad.yaml").write_text("a: [1,\n")
    with pytest.raises(RecipeError, match=r"bad\.yaml is not valid YAML"):
        load_recipe(str(tmp_path / "bad.yaml"))


def test_a_recipe_extends_one_other(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: debug\ndescription: Mine.\ntrain: {batch: 12}\n")
    config = load_recipe(str(tmp_path / "mine.yaml"))
    assert (config.train.batch, config.train.group) == (12, 4)
    (tmp_path / "second.yaml").write_text("extends: mine\ndescription: Second.\n")
    with pytest.raises(RecipeError, match="one level only"):
        load_recipe(str(tmp_path / "second.yaml"))


def test_crops_that_do_not_divide_into_patches_are_refused_with_the_nearest_size():
    config = load_recipe("debug", ["phases.pretrain.views.global_size=44"])
    with pytest.raises(RecipeError, match=r"44 pixels .* patches of 8 .* nearest size is 48"):
        check_sizes(config)


def test_differences_name_key_and_both_values():
    a, b = load_recipe("debug"), load_recipe("debug", ["train.seed=3"])
    assert differences(a, b) == ["train.seed: 0 -> 3"]


def test_every_key_is_explained_with_its_default():
    rows = {key: (default, meaning) for key, default, meaning in explain()}
    assert rows["phases.pretrain.lr.peak"][0] == "required"
    assert rows["train.group"][0] == "16"
    assert all(meaning for _, meaning in rows.values())


def test_mappings_are_merged_without_touching_either():
    base = {"a": {"b": 1, "c": 2}}
    assert merged(base, {"a": {"b": 3}, "d": 4}) == {"a": {"b": 3, "c": 2}, "d": 4}
    assert base == {"a": {"b": 1, "c": 2}}


def test_a_recipes_digest_follows_what_a_step_computes_and_nothing_else():
    recipe = load_recipe("laptop")
    chatty = recipe.with_values({"log": {"every": 1}, "description": "another"})
    other = recipe.with_values({"train": {"seed": recipe.train.seed + 1}})
    assert chatty.digest() == recipe.digest() != other.digest()


def test_a_key_that_a_later_version_adds_leaves_the_digest_as_it_was():
    class Later(RunConfig):
        added: int = 3

    recipe = load_recipe("laptop")
    values = recipe.model_dump()
    assert Later.parse(values, source="a later version").digest() == recipe.digest()
    assert Later.parse(values | {"added": 4}, source="changed").digest() != recipe.digest()
