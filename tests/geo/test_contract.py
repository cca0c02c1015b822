"""Bands and the input contract."""

import pytest
from pydantic import ValidationError

from geodino.errors import ContractError
from geodino.geo.bands import Band, common_name, rgb_indices
from geodino.geo.contract import InputContract, Offer

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


# What a file brings, and what a contract says about it.

SENTINEL = InputContract(
    bands=tuple(
        Band(name=n, common_name=n, scale=1e-4, offset=-0.1) for n in ("red", "green", "blue")
    ),
    dtype="uint16",
    mean=(1500.0, 1500.0, 1500.0),
    std=(500.0, 500.0, 500.0),
    low=(1000.0, 1000.0, 1000.0),
    high=(4000.0, 4000.0, 4000.0),
    gsd_m=(10.0, 20.0),
)


def offered(**changes):
    values = {
        "source": "a.tif",
        "bands": SENTINEL.bands,
        "dtype": "uint16",
        "gsd_m": (10.0, 10.0),
        "percentiles": ((1100.0, 3500.0),) * 3,
    }
    return Offer(**(values | changes))


def named(*names, **more):
    return tuple(Band(name=n, common_name=common_name(n), **more) for n in names)


def test_a_file_like_the_training_data_has_no_problem():
    assert SENTINEL.problems(offered()) == []
    SENTINEL.check(offered())


def test_bands_in_another_order_are_caught_and_the_option_reads_them_rightly():
    file = offered(bands=named("blue", "green", "red", scale=1e-4, offset=-0.1))
    (problem,) = SENTINEL.problems(file)
    assert "the file has blue, green, red; the model was trained on red, green, blue" in problem
    assert "`--bands red,green,blue`" in problem


def test_bands_are_recognised_by_common_name_and_called_by_their_own():
    bands = tuple(
        Band(name=own, common_name=common, scale=1e-4, offset=-0.1)
        for own, common in (("B02", "blue"), ("B03", "green"), ("B04", "red"), ("B08", "nir"))
    )
    (problem,) = SENTINEL.problems(offered(bands=bands))
    assert "`--bands B04,B03,B02`" in problem


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("band_1", "band_2", "band_3"), "same bands in the same order, `--bands 1,2,3`"),
        (("swir16", "nir", "red"), "same bands in the same order, `--bands 1,2,3`"),
        (("a", "b", "c", "d"), "such as `--bands 1,2,3`"),
        (("red", "green"), "It lacks 1"),
    ],
)
def test_bands_that_cannot_be_matched_are_refused(names, said):
    (problem,) = SENTINEL.problems(offered(bands=named(*names), percentiles=None))
    assert said in problem


def test_bands_the_user_named_are_only_counted():
    bands = named("x", "y", "z", scale=1e-4, offset=-0.1)
    assert SENTINEL.problems(offered(bands=bands, is_chosen=True)) == []
    (problem,) = SENTINEL.problems(offered(bands=bands[:2], is_chosen=True, percentiles=None))
    assert "2 chosen (x, y), but the model was trained on 3" in problem


def test_a_model_trained_without_band_names_takes_any_names():
    nameless = SENTINEL.model_copy(update={"bands": named("band_1", "band_2", "band_3")})
    assert nameless.problems(offered(bands=named("blue", "green", "red"))) == []


def test_reflectance_fed_to_a_model_of_ten_thousands_is_refused_with_the_factor():
    # Training saw up to 4000; the file's 99th percentile 0.4 is 10,000 times smaller.
    small = offered(percentiles=((0.05, 0.4),) * 3, dtype="float32", scale=1.0)
    (problem,) = SENTINEL.problems(small)
    assert "1e+04 times smaller" in problem
    assert "`--scale 10000`" in problem
    assert SENTINEL.problems(small, accept=("values",)) == []
    assert SENTINEL.problems(offered(percentiles=((0.05, 0.4),) * 3, scale=1e4)) == []


def test_ten_thousands_fed_to_a_model_of_reflectance_are_refused_too():
    unit = SENTINEL.model_copy(update={"low": (0.01,) * 3, "high": (0.4,) * 3, "dtype": "float32"})
    (problem,) = unit.problems(offered(dtype="float32"))
    assert "times larger" in problem
    assert "`--scale 0.0001`" in problem


@pytest.mark.parametrize(("high", "factor"), [(4000 / 255, 255), (40.0, 100), (0.4, 10000)])
def test_the_usual_factors_are_told_apart(high, factor):
    (problem,) = SENTINEL.problems(offered(percentiles=((0.0, high),) * 3))
    assert f"`--scale {factor}`" in problem


@pytest.mark.parametrize("high", [250.0, 4000.0, 60_000.0])
def test_dark_water_and_bright_snow_are_no_wrong_unit(high):
    assert SENTINEL.problems(offered(percentiles=((high / 4, high),) * 3)) == []


def test_one_odd_band_does_not_speak_for_the_others():
    odd = ((1100.0, 3500.0), (0.0, 0.1), (1100.0, 3500.0))
    assert SENTINEL.problems(offered(percentiles=odd)) == []


def test_values_nobody_sampled_are_not_compared():
    assert SENTINEL.problems(offered(percentiles=None)) == []
    assert SENTINEL.problems(offered(percentiles=((0.0, 0.0),) * 3)) == []


def test_another_type_is_refused_until_a_factor_says_what_its_values_are():
    (problem,) = SENTINEL.problems(offered(dtype="float32"))
    assert "the file stores float32, the model was trained on uint16" in problem
    assert "`--scale 1`" in problem
    assert SENTINEL.problems(offered(dtype="float32", scale=1.0)) == []
    (problem,) = SENTINEL.problems(offered(dtype="float32", percentiles=((0.1, 0.4),) * 3))
    assert "`--scale 10000`" in problem


def test_a_sentinel_2_offset_that_training_did_not_have_is_refused():
    old = named("red", "green", "blue", scale=1e-4)
    (problem,) = SENTINEL.problems(offered(bands=old))
    assert "red means stored * 0.0001; in training red meant stored * 0.0001 - 0.1" in problem
    assert SENTINEL.problems(offered(bands=old), accept=("units",)) == []
    # A factor answers for scales, not for an offset.
    assert len(SENTINEL.problems(offered(bands=old, scale=1.0))) == 1
    assert (
        SENTINEL.problems(offered(bands=named("red", "green", "blue", offset=-0.1), scale=1.0))
        == []
    )


def test_units_that_training_declared_must_be_declared():
    bands = named("red", "green", "blue", unit="reflectance")
    declared = SENTINEL.model_copy(update={"bands": bands})
    (problem,) = declared.problems(offered(bands=named("red", "green", "blue")))
    assert "red declares no unit; in training red was in reflectance" in problem
    assert declared.problems(offered(bands=bands)) == []
    (problem,) = declared.problems(offered(bands=named("red", "green", "blue", unit="radiance")))
    assert "is in radiance" in problem
    assert declared.problems(offered(bands=named("red", "green", "blue")), accept=("units",)) == []


@pytest.mark.parametrize(
    ("gsd", "fits"), [(5.0, True), (4.9, False), (40.0, True), (41.0, False), (15.0, True)]
)
def test_pixels_may_be_half_or_twice_as_large_as_in_training(gsd, fits):
    assert (SENTINEL.problems(offered(gsd_m=(gsd, gsd))) == []) is fits


def test_an_unfit_pixel_size_names_both_and_the_way_out():
    (problem,) = SENTINEL.problems(offered(gsd_m=(0.6, 0.6)))
    assert "a pixel of the file is 0.6 m, the model was trained on 10 to 20 m" in problem
    assert SENTINEL.problems(offered(gsd_m=(0.6, 0.6)), accept=("gsd",)) == []


@pytest.mark.parametrize(("gsd", "is_offered"), [(0.6, True), (150.0, True), (300.0, False)])
def test_resampling_is_offered_unless_the_detail_is_not_there(gsd, is_offered):
    (problem,) = SENTINEL.problems(offered(gsd_m=(gsd, gsd)))
    assert ("`--gsd 14.1`" in problem) is is_offered
    assert ("Pixels 15 times as large" in problem) is not is_offered
    assert "--accept gsd" in problem


def test_a_file_without_a_place_is_welcome():
    assert SENTINEL.problems(offered(gsd_m=None)) == []


def test_all_problems_of_a_file_come_in_one_message():
    file = offered(
        bands=named("blue", "green", "red"), dtype="float32", gsd_m=(0.6, 0.6), percentiles=None
    )
    with pytest.raises(ContractError) as caught:
        SENTINEL.check(file)
    message = str(caught.value)
    assert message.startswith("a.tif is not what the model was trained on; 3 things to settle:")
    for option in ("--bands red,green,blue", "--scale", "--accept gsd"):
        assert option in message
