"""Bands and the input contract."""

import pytest
from pydantic import ValidationError

from geodino.errors import ContractError
from geodino.geo.bands import Band, common_name, rgb_indices
from geodino.geo.contract import InputContract

RGB = tuple(Band(name=n, common_name=n) for n in ("red", "green", "blue"))


def make(**changes):
    values = {
        "bands": RGB,
        "dtype": "uint8",
        "mean": (1.0, 2.0, 3.0),
        "std": (1.0, 1.0, 1.0),
        "low": (0.0, 0.0, 0.0),
        "high": (255.0, 255.0, 255.0),
        "gsd_m": (0.6, 1.0),
        "statistics": {"tiles": 3},
    }
    return InputContract(**(values | changes))


def test_a_contract_comes_back_from_json_as_it_was():
    contract = make()
    assert InputContract.from_json(contract.to_json()) == contract


def test_a_text_that_is_no_contract_is_refused_by_name():
    with pytest.raises(ContractError, match=r"model/contract\.json is not an input contract"):
        InputContract.from_json("{}", source="model/contract.json")


def test_statistics_must_have_one_value_per_band():
    with pytest.raises(ValidationError, match="std has 2 values for 3 bands"):
        make(std=(1.0, 1.0))


def test_a_file_of_other_bands_or_another_type_is_refused():
    make().check_bands(count=3, dtype="uint8", source="a.tif")
    with pytest.raises(ContractError, match=r"a\.tif offers 4 band\(s\), but the model reads 3"):
        make().check_bands(count=4, dtype="uint8", source="a.tif")
    with pytest.raises(ContractError, match="stores uint16, but the model was trained on uint8"):
        make().check_bands(count=3, dtype="uint16", source="a.tif")


def test_only_a_common_name_is_one():
    assert common_name("Red") == "red"
    assert common_name("swir16") == "swir16"
    assert common_name("B04") is None


def test_rgb_is_found_by_common_name_in_any_order():
    blue_first = (RGB[2], Band(name="nir", common_name="nir"), RGB[1], RGB[0])
    assert rgb_indices(blue_first) == (3, 2, 0)
    assert rgb_indices(RGB[:2]) is None
    assert rgb_indices([Band(name="red"), *RGB[1:]]) is None
