import numpy as np
import pytest

from geodino.errors import SourceError
from geodino.world.buildings import KINDS
from geodino.world.scene import CLASSES, changed, scene

GRASS, ARABLE, TREES, WATER, PAVED, TRACK, BUILDING = range(len(CLASSES))


def test_only_trees_and_buildings_stand_up(village):
    tall = village.height_m > 0
    assert set(np.unique(village.classes[tall])) == {TREES, BUILDING}
    for label in (TREES, BUILDING):
        assert (village.height_m[village.classes == label] > 0).all()
    assert 10 < village.height_m.max() < 27
    houses = village.height_m[village.classes == BUILDING]
    assert houses.min() >= 3
    assert houses.max() < 11


@pytest.mark.parametrize("place", ["village", "halls"])
def test_boxes_fit_tightly_around_all_pixels_of_buildings(place, request):
    got = request.getfixturevalue(place)
    boxes = got.buildings.boxes
    built = got.classes == BUILDING
    assert len(boxes) > 5
    assert boxes.min() >= 0
    assert boxes.max() <= 400
    covered = np.zeros_like(built)
    for x0, y0, x1, y1 in boxes:
        inside = built[y0:y1, x0:x1]
        # Every side of the box touches a pixel of a building.
        for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert side.any()
        covered[y0:y1, x0:x1] = True
    assert covered[built].all()


def test_boxes_know_houses_from_halls(village, halls):
    def areas(got, kind):
        boxes = got.buildings.boxes[got.buildings.kind == KINDS.index(kind)]
        return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * 0.36

    assert areas(village, "house").max() < 600
    assert np.median(areas(halls, "hall")) > 900
    assert len(areas(village, "hall")) == 0


def test_buildings_are_cut_where_the_scene_ends():
    whole = scene(7, height=400, width=400, top=-600, left=-700)
    x0, y0, x1, y1 = whole.buildings.boxes[
        np.argmax((whole.buildings.boxes[:, :2] > 20).all(axis=1))
    ].tolist()
    half = (x0 + x1) // 2
    part = scene(7, height=400 - y0 + 5, width=400 - half, top=-600 + y0 - 5, left=-700 + half)
    touching = part.buildings.boxes[part.buildings.boxes[:, 0] == 0]
    ((_, top, right, bottom),) = (b for b in touching.tolist() if b[1] < 5 + y1 - y0 and b[3] > 5)
    # The cut building's box lies in what is left of the whole one's.
    assert 5 <= top < bottom <= 5 + y1 - y0
    assert right == x1 - half


def slow_crowns(got):
    """The highest dome or cone over each pixel, one tree after the other."""
    gsd = got.frame.gsd_m
    height = np.zeros(got.classes.shape)
    rows, columns = np.mgrid[: height.shape[0], : height.shape[1]] + 0.5
    trees = got.trees
    for (x, y), top, radius, conifer in zip(
        trees.xy, trees.height_m, trees.radius_m, trees.conifer, strict=True
    ):
        t2 = ((rows - y) ** 2 + (columns - x) ** 2) * (gsd / radius) ** 2
        crown = top * (1 - (0.75 * t2 if conifer else 0.55 * t2 * t2))
        height = np.where(t2 < 1, np.maximum(height, crown), height)
    return height


def test_trees_are_where_the_heights_and_classes_show_them(village):
    slow = slow_crowns(village)
    # Trees whose stems stand outside of the scene are not listed: stay 5 m away from the rim.
    inner = (slice(9, -9), slice(9, -9))
    height, label, slow = village.height_m[inner], village.classes[inner], slow[inner]
    under_crown = label == TREES
    assert under_crown.sum() > 5000
    np.testing.assert_allclose(height[under_crown], slow[under_crown], rtol=1e-4)
    # No crown without the class, but under a roof.
    assert set(np.unique(label[slow > 0])) <= {TREES, BUILDING}


def test_trees_stand_on_free_ground(village):
    column, row = village.trees.xy.astype(int).T
    assert (village.classes[row, column] == TREES).all()
    assert (village.trees.height_m > 0).all()
    assert village.trees.radius_m.max() < 5


def test_coarse_sensors_list_no_single_things(country):
    assert len(country.buildings.boxes) == len(country.trees.xy) == 0
    assert (country.height_m[country.classes == TREES] > 0).all()


def test_a_year_changes_crops_and_ten_years_change_the_land():
    where = {"height": 400, "width": 400, "sensor": "s2"}
    first, next_, late = (scene(5, date=f"{y}-07-01", **where) for y in (2020, 2021, 2030))
    assert first.frame == late.frame
    soon, later = changed(first, next_), changed(first, late)
    assert 0 < soon.mean() < 0.03
    assert soon.mean() < later.mean() < 0.25
    np.testing.assert_array_equal(later, first.classes != late.classes)
    before, after = first.classes[later], late.classes[later]
    # Woods are felled and grow again, meadows are ploughed and sown, land is built on.
    for gone, come in (
        (TREES, GRASS), (GRASS, TREES), (GRASS, ARABLE), (ARABLE, GRASS), (ARABLE, BUILDING),
    ):  # fmt: skip
        assert ((before == gone) & (after == come)).any(), (CLASSES[gone], CLASSES[come])
    # Water and main roads stay.
    assert not ((first.classes == WATER) != (late.classes == WATER)).any()
    # Other crops on the same arable land: its colour changes where its class does not.
    arable = (first.classes == ARABLE) & (next_.classes == ARABLE)
    red = [s.pixels[3].astype(int) for s in (first, next_)]
    assert (abs(red[0] - red[1])[arable] > 300).mean() > 0.15


def test_new_houses_come_and_old_ones_stay():
    where = {"height": 500, "width": 500, "top": -600, "left": -1000}
    before, after = (scene(0, date=f"{y}-07-01", **where) for y in (2010, 2036))
    old = before.classes == BUILDING
    assert (after.classes[old] == BUILDING).all()
    assert len(after.buildings.boxes) > len(before.buildings.boxes) > 5
    same = (before.buildings.boxes[:, None] == after.buildings.boxes[None]).all(axis=2).any(axis=1)
    assert same.all()


def test_one_season_on_one_grid_leaves_the_land_as_it_is():
    where = {"height": 200, "width": 200, "top": -200, "left": -700}
    summer, winter = (scene(0, date=d, **where) for d in ("2023-07-01", "2023-01-20"))
    assert not changed(summer, winter).any()
    np.testing.assert_array_equal(summer.height_m, winter.height_m)
    # Leaves fall: the crowns lose their green.
    crowns = summer.classes == TREES
    for got, least, most in ((summer, 1.15, 3.0), (winter, 0.7, 1.12)):
        red, green = (got.pixels[i][crowns].mean() for i in (0, 1))
        assert least < green / red < most


def test_changes_are_found_between_scenes_of_one_window_only():
    a, b = scene(0, height=8, width=8), scene(0, height=8, width=8, left=1)
    with pytest.raises(SourceError, match="one seed, pixel size and window"):
        changed(a, b)
