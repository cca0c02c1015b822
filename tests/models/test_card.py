import json

import pytest
import yaml
from pydantic import ValidationError
from stac_model.schema import MLModelProperties

from geodino.errors import RecipeError
from geodino.geo.bands import Band
from geodino.models.card import ModelCard, Parent, license_of, readme, stac_item

META = Parent(name="timm/vit_large_patch16_dinov3.sat493m", relation="distilled from")
OURS = Parent(name="my-model", license="apache-2.0", relation="continues")


@pytest.mark.parametrize(
    ("declared", "lineage", "expected"),
    [
        ("apache-2.0", (), "apache-2.0"),
        ("mit", (OURS,), "mit"),
        ("apache-2.0", (META,), "dinov3-license"),
        ("apache-2.0", (OURS, Parent(name="x", license="dinov3-license")), "dinov3-license"),
        ("apache-2.0", (Parent(name="x", license="cc-by-nc-4.0"),), "cc-by-nc-4.0"),
        ("apache-2.0", (Parent(name="x", license="cc-by-nc-4.0"), META), "dinov3-license"),
        # A parent that claims a freer licence than its name tells does not make it so.
        ("mit", (META.model_copy(update={"license": "mit"}),), "dinov3-license"),
        (
            "mit",
            (Parent(name="vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m"),),
            "fair-noncommercial-research-license",
        ),
    ],
)
def test_the_licence_follows_from_the_parents(declared, lineage, expected):
    assert license_of(declared, lineage) == expected


def page(contract, **card):
    return readme(
        ModelCard(**card), contract, architecture="vit_x", parameters=1_200_000, stride=16
    )


def head(text):
    return yaml.safe_load(text.split("---")[1])


def test_the_card_opens_with_what_the_hub_reads(contract_for):
    found = head(page(contract_for(), datasets=("naip",)))
    assert found["license"] == "apache-2.0"
    assert found["pipeline_tag"] == "image-feature-extraction"
    assert found["datasets"] == ["naip"]
    assert "base_model" not in found


def test_a_derived_model_names_its_parents_and_their_licence(contract_for):
    text = page(contract_for(), lineage=(META,))
    found = head(text)
    assert (found["license"], found["license_name"]) == ("other", "dinov3-license")
    assert found["base_model"] == [META.name]
    assert "distilled from timm/vit_large_patch16_dinov3.sat493m (dinov3-license)" in text
    assert "Declared as apache-2.0" in text


def test_the_card_lists_every_band(contract_for):
    text = page(contract_for(12, dtype="uint16"))
    assert "| band_12 |  | unknown | 133 | 51 |" in text
    assert "stored as uint16" in text


def item(contract, **card):
    return stac_item(
        ModelCard(**card),
        contract,
        architecture="vit_x",
        parameters=7,
        dim=64,
        framework_version="2.13.0",
        hyperparameters={"name": "vit_x"},
    )


def test_the_item_has_what_stac_and_the_mlm_extension_require(contract_for):
    found = json.loads(json.dumps(item(contract_for(4), name="My model (v1)")))
    assert found["stac_version"] == "1.1.0"
    assert any("mlm/v1.5" in url for url in found["stac_extensions"])
    assert {"type", "id", "geometry", "properties", "links", "assets"} <= found.keys()
    properties = found["properties"]
    assert properties["mlm:name"] == "My-model-v1"
    assert properties["mlm:architecture"] == "vit_x"
    assert properties["mlm:tasks"] == ["similarity-search"]
    (model_input,) = properties["mlm:input"]
    assert model_input["bands"] == ["band_1", "band_2", "band_3", "band_4"]
    assert model_input["input"]["shape"] == [-1, 4, 256, 256]
    assert model_input["input"]["data_type"] == "uint8"
    assert model_input["value_scaling"][1] == {"type": "z-score", "mean": 103.0, "stddev": 41.0}
    assert properties["mlm:output"][0]["result"]["shape"] == [-1, 64]
    (asset,) = found["assets"].values()
    assert "mlm:model" in asset["roles"]
    assert asset["mlm:artifact_type"] == "safetensors"
    assert [band["name"] for band in asset["bands"]] == model_input["bands"]


def test_the_items_model_properties_are_what_the_extensions_own_schema_reads(contract_for):
    contract = contract_for(4)
    properties = item(contract)["properties"]
    read = MLModelProperties.model_validate(properties)
    assert read.architecture == "vit_x"
    assert read.total_parameters == 7
    assert [band if isinstance(band, str) else band.name for band in read.input[0].bands] == list(
        contract.band_names
    )
    del properties["mlm:input"]
    with pytest.raises(ValidationError, match="input"):
        MLModelProperties.model_validate(properties)


def test_an_item_without_a_place_has_no_box_and_one_with_a_place_has_both(contract_for):
    nowhere = item(contract_for())
    assert nowhere["geometry"] is None
    assert "bbox" not in nowhere
    somewhere = item(contract_for(), bbox=(-10.0, 40.0, -9.0, 41.0))
    assert somewhere["bbox"] == [-10.0, 40.0, -9.0, 41.0]
    ring = somewhere["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1] == [-10.0, 40.0]
    assert len(ring) == 5


def test_times_are_those_of_the_data_where_known(contract_for):
    times = {"start_datetime": "2020-01-01T00:00:00Z", "end_datetime": "2021-01-01T00:00:00Z"}
    found = item(contract_for(), created="2026-01-01T00:00:00Z", **times)["properties"]
    assert found["datetime"] is None
    assert {k: found[k] for k in times} == times
    assert item(contract_for(), created="2026-01-01T00:00:00Z")["properties"]["datetime"] == (
        "2026-01-01T00:00:00Z"
    )


def test_bands_keep_their_wavelength_scale_and_unit(contract_for):
    nir = Band(
        name="B08",
        common_name="nir",
        wavelength_nm=842,
        unit="reflectance",
        scale=1e-4,
        offset=-0.1,
    )
    contract = contract_for(1).model_copy(update={"bands": (nir,)})
    (band,) = item(contract)["assets"]["model"]["bands"]
    assert band["eo:center_wavelength"] == 0.842
    assert (band["raster:scale"], band["raster:offset"]) == (1e-4, -0.1)


def test_a_wrong_entry_of_the_card_is_named():
    with pytest.raises(RecipeError, match="licence: unknown key"):
        ModelCard.parse({"licence": "mit"}, source="The model card")
