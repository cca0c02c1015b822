from geodino.report.classes import class_rows
from geodino.report.scores import score_rows, with_interval

WHOLE = {"value": 0.5, "low": 0.25, "high": 0.75}
ALONE = {"value": 0.5, "low": None, "high": None}
UNKNOWN = {"value": None, "low": None, "high": None}


def test_a_score_stands_with_its_interval_where_it_has_one():
    assert with_interval(WHOLE) == "0.500 (0.250 to 0.750)"
    assert with_interval(WHOLE, decimals=2) == "0.50 (0.25 to 0.75)"
    assert with_interval(ALONE) == with_interval({**ALONE, "low": 0.25}) == "0.500"
    assert with_interval(UNKNOWN) == with_interval({**WHOLE, "value": None}) == "none"


def test_rows_hold_the_columns_asked_for_in_their_order_and_one_is_the_models():
    scores = {name: {"a": WHOLE, "b": ALONE, "c": UNKNOWN} for name in ("model", "constant")}
    model, floor = score_rows(scores, ("c", "a"))
    assert model.cells == floor.cells == ("none", "0.500 (0.250 to 0.750)")
    assert (model.name, model.is_model) == ("model", True)
    assert (floor.name, floor.is_model) == ("constant", False)


def test_a_class_that_never_occurs_has_no_score_and_is_counted_last():
    found = {"water": {"pixels": 12_000, "iou": 0.25}, "ice": {"pixels": 0, "iou": None}}
    rows = class_rows(found, ("iou",), counted="pixels")
    assert [(row.name, *row.cells) for row in rows] == [
        ("water", "0.250", "12,000"), ("ice", "none", "0"),
    ]  # fmt: skip
