import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.data.labelled.sets import BandStatistics, SetFacts
from geodino.errors import BandError, ContractError
from geodino.evals.meeting import meet
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract

RGB = tuple(Band(name=n, common_name=n) for n in ("red", "green", "blue"))


def contract_of(bands=RGB, *, dtype="uint8", valid="all", mean=(100.0, 110.0, 120.0)):
    count = len(bands)
    return InputContract(
        bands=bands, dtype=dtype, mean=mean[:count], std=(10.0, 20.0, 30.0)[:count],
        low=(0.0,) * count, high=(255.0,) * count, valid=valid,
    )  # fmt: skip


def facts_of(*bands, dtype="uint8"):
    return SetFacts(
        name="m-set", kind="classification", classes=("a", "b"), bands=bands, dtype=dtype,
        metric="accuracy",
    )  # fmt: skip


SENTINEL = tuple(
    Band(name=name, common_name=common, unit="reflectance", scale=1e-4)
    for name, common in (("B02", "blue"), ("B03", "green"), ("B04", "red"), ("B08", "nir"))
)
STATISTICS = BandStatistics(
    low=(0.0, 10.0, 20.0, 30.0), high=(510.0, 265.0, 275.0, 285.0),
    mean=(1.0, 2.0, 3.0, 4.0), std=(2.0, 4.0, 6.0, 8.0),
)  # fmt: skip


def met(contract, facts, *, bands="model", values="contract", statistics=None):
    return meet(contract, facts, bands=bands, values=values, statistics=statistics)


def test_the_models_bands_are_found_by_their_common_names_in_its_order():
    found = met(contract_of(), facts_of(*SENTINEL, dtype="uint8"))
    assert found.positions == (2, 1, 0)
    assert found.adapted is None


@pytest.mark.parametrize(("bands", "positions"), [("rgb", (2, 1, 0)), ("B08,green", (3, 1)),
                                                  ("all", (0, 1, 2, 3))])  # fmt: skip
def test_other_bands_adapt_the_first_layer_and_say_so(bands, positions):
    found = met(
        contract_of(), facts_of(*SENTINEL), bands=bands, values="zscore", statistics=STATISTICS
    )
    assert found.positions == positions
    assert (found.adapted is None) == (bands == "rgb")
    if bands == "all":
        # Blue keeps its statistics; near infrared, which the model never saw, gets the mean.
        assert found.contract.mean == (120.0, 110.0, 100.0, 110.0)
        assert "adapted" in found.words


def test_lacking_bands_are_named_with_the_way_out():
    with pytest.raises(BandError, match=r"m-set lacks B08.*--bands rgb"):
        met(contract_of((*RGB[:2], SENTINEL[3])), facts_of(*RGB))
    with pytest.raises(BandError, match=r"has no band purple"):
        met(contract_of(), facts_of(*RGB), bands="purple")


def test_values_of_the_same_type_are_left_alone_and_units_are_converted():
    assert met(contract_of(), facts_of(*RGB)).words == "as stored"
    percent = tuple(
        Band(name=b.name, common_name=b.common_name, unit="reflectance", scale=0.01) for b in RGB
    )
    found = met(
        contract_of(percent, dtype="float32"), facts_of(*SENTINEL, dtype="uint16"), bands="model"
    )
    # 3000 is a reflectance of 0.3, which the model's training data stored as 30.
    values, _ = found.seen((np.full((4, 1, 1), 3000, np.uint16), np.ones((4, 1, 1), bool)))
    np.testing.assert_allclose(values, 30.0, rtol=1e-6)


def test_values_that_nothing_leads_to_are_refused():
    with pytest.raises(ContractError, match="--protocol torchgeo-bench"):
        met(contract_of(), facts_of(*SENTINEL, dtype="uint16"))
    with pytest.raises(ContractError, match="uint16 values"):
        met(
            contract_of(dtype="uint16"), facts_of(*SENTINEL), values="minmax",
            statistics=STATISTICS,
        )  # fmt: skip


def test_a_z_score_of_the_set_becomes_the_same_z_score_of_the_model():
    found = met(contract_of(), facts_of(*SENTINEL), values="zscore", statistics=STATISTICS)
    image = np.array([7.0, 10.0, 9.0, 0.0], np.float32)[:, None, None]
    values, _ = found.seen((image, np.ones((4, 1, 1), bool)))
    # Red 9: (9 - 3) / 6 = 1 deviation above, so 100 + 10; green (10 - 2) / 4 = 2; blue 3.
    np.testing.assert_allclose(values[:, 0, 0], [110, 150, 210], rtol=1e-6)


def test_a_range_becomes_whole_numbers_to_255():
    found = met(contract_of(), facts_of(*SENTINEL), values="minmax", statistics=STATISTICS)
    image = np.array([101.0, 500.0, 0.0, 0.0], np.float32)[:, None, None]
    values, _ = found.seen((image, np.ones((4, 1, 1), bool)))
    # Red 0 is below its range; green 500 above; blue 101 / 2 = 50.5, rounded down.
    assert values[:, 0, 0].tolist() == [0.0, 255.0, 50.0]


@given(
    fill=st.sampled_from([0.0, -9999.0, float("nan"), 65535.0]), how=st.sampled_from(["all", "any"])
)
@settings(max_examples=8)
def test_what_lies_under_invalid_pixels_is_never_seen(fill, how):
    image = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    valid = np.ones((3, 2, 2), bool)
    valid[0, 0, 0] = valid[:, 1, 1] = False
    found = met(contract_of(valid=how, dtype="float32"), facts_of(*RGB, dtype="float32"))
    values, used = found.seen((np.where(valid, image, np.float32(fill)), valid))
    assert used.tolist() == [[how == "any", True], [True, False]]
    assert values[0, 0, 0] == 100.0
    assert values[:, 1, 1].tolist() == [100.0, 110.0, 120.0]
    assert values[1, 0, 0] == 4.0
