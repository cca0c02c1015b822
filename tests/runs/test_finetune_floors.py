"""What is said of a model beside the answers that need no network."""

from geodino.runs.finetune.floors import in_doubt

CLEAR, OPEN, WORSE, UNKNOWN = (
    {"value": 0.2, "low": 0.1, "high": 0.3},
    {"value": 0.1, "low": -0.1, "high": 0.3},
    {"value": -0.2, "low": -0.3, "high": -0.1},
    {"value": 0.2, "low": None, "high": None},
)


def test_floors_that_are_not_clearly_beaten_are_named():
    found = {"clear": CLEAR, "open": OPEN, "worse": WORSE, "unknown": UNKNOWN}
    assert in_doubt(found) == ["The model is not clearly better than: open, worse, unknown."]
    assert in_doubt(found, is_error=True) == [
        "The model is not clearly better than: clear, open, unknown."
    ]
    assert in_doubt({"clear": CLEAR}) == in_doubt({"worse": WORSE}, is_error=True) == []
