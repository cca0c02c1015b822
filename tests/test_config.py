import pytest
from pydantic import Field, ValidationError

from geodino.config import Config, fields
from geodino.errors import RecipeError, suggest
from geodino.runs.recipe import RunConfig


class Inner(Config):
    """Inner."""

    rate: float = Field(default=0.1, gt=0)
    """A rate."""


class Outer(Config):
    """Outer."""

    steps: int
    """Steps."""

    inner: Inner = Inner()
    """Inner."""


def test_all_mistakes_come_in_one_message_each_with_the_nearest_key():
    with pytest.raises(RecipeError) as caught:
        Outer.parse({"stepz": 3, "inner": {"rat": 1, "rate": -1}}, source="x.yaml")
    message = str(caught.value)
    assert message.startswith("x.yaml cannot run; 4 things to fix:")
    assert "stepz: unknown key. Did you mean 'steps'?" in message
    assert "inner.rat: unknown key. Did you mean 'rate'?" in message
    assert "inner.rate: Input should be greater than 0 (found -1)." in message
    assert "steps: Field required" in message


def test_a_config_cannot_change():
    config = Inner()
    with pytest.raises(ValidationError, match="frozen"):
        config.rate = 2.0


def test_every_key_of_a_recipe_is_documented():
    undocumented = [key for key, field in fields(RunConfig) if not field.description]
    assert undocumented == []


def test_the_nearest_name_is_suggested_and_nothing_where_nothing_is_near():
    assert suggest("laptp", ["laptop", "debug"]) == " Did you mean 'laptop'?"
    assert suggest("zzz", ["laptop", "debug"]) == ""
