import numpy as np
import pytest

from geodino.data.labelled.generated import CHIP, COVER, mini_names, open_mini
from geodino.data.labelled.sets import LabelledSet
from geodino.errors import SourceError
from geodino.geo.windows import Window


@pytest.mark.parametrize("name", mini_names())
def test_every_set_has_some_hundred_chips_apart_from_each_other(name):
    made = open_mini(name)
    assert isinstance(made, LabelledSet)
    assert {part: len(keys) for part, keys in made.parts.items()} == {
        "train": 160,
        "val": 32,
        "test": 64,
    }
    columns = {p: {int(k.split("/")[2]) for k in keys} for p, keys in made.parts.items()}
    for one, other in (("train", "val"), ("val", "test"), ("train", "test")):
        assert min(abs(a - b) for a in columns[one] for b in columns[other]) >= 2
    for keys in made.parts.values():
        assert {made.traits(key)["region"] for key in keys} == {"north", "east", "south", "west"}
    assert {made.traits(k)["season"] for k in made.parts["test"]} == {"spring", "summer", "autumn"}
    assert made.fingerprint == open_mini(name).fingerprint
    assert made.size(made.parts["val"][0]) == (CHIP, CHIP)


def test_labels_follow_from_the_same_truth():
    cover, covers = open_mini("mini-cover"), open_mini("mini-covers")
    keys = [key for keys in cover.parts.values() for key in keys]
    count = np.bincount([cover.label(key) for key in keys], minlength=len(COVER))
    assert (count > 5).all()
    for key in keys[:40]:
        assert covers.label(key)[cover.label(key)]
        np.testing.assert_array_equal(cover.image(key)[0], covers.image(key)[0])
    assert cover.image(keys[0])[0].shape == (len(cover.facts.bands), CHIP, CHIP)


def test_maps_and_heights_are_cut_with_their_image():
    segments, heights = open_mini("mini-segments"), open_mini("mini-heights")
    window = Window(5, 7, 20, 30)
    tall = 0.0
    for key in segments.parts["test"][::9]:
        whole = segments.label(key)
        np.testing.assert_array_equal(segments.label(key, window), whole[5:25, 7:37])
        np.testing.assert_array_equal(
            segments.image(key, window)[0], segments.image(key)[0][:, 5:25, 7:37]
        )
        metres = heights.label(key)
        assert not metres[np.isin(whole, [COVER.index("water")])].any()
        tall = max(tall, float(metres.max()))
    assert 5 < tall < 60


def test_neighbouring_chips_lie_beside_each_other_on_the_earth():
    made = open_mini("mini-cover")
    first, right = made.outline("east/0/0"), made.outline("east/0/1")
    assert right[0] == pytest.approx(
        first[2], abs=3e-4
    )  # a box of a leaning square is a little wider
    assert made.outline("west/0/0")[0] > first[2]


def test_an_unknown_set_is_refused_with_the_nearest():
    with pytest.raises(SourceError, match="Did you mean 'mini-cover"):
        open_mini("mini-covr")
