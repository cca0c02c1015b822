"""What names tell: patterns, dates, bands."""

import re
from fnmatch import fnmatch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.data.inspection.names import (
    _shared_start,
    bands_in,
    date_in,
    names_a_band,
    pattern_of,
    select,
)
from geodino.data.sources.descriptor import Descriptor
from geodino.data.sources.scenes import described


@pytest.mark.parametrize(
    ("own", "others", "glob"),
    [
        (["a.tif", "b/c.tif"], [], "**/*"),
        (["a.tif", "b/c.tif"], ["a.jpg"], "**/*.tif"),
        (["x/a_CHM.tif", "y/b_CHM.tif"], ["x/a.tif", "y/b.tif"], "**/*_CHM.tif"),
        (["rgb/1.tif", "rgb/2/3.tif"], ["chm/1.tif"], "rgb/**/*.tif"),
        (["a/img_1.tif", "b/img_2.tif"], ["a/lab_1.tif"], "**/img_*.tif"),
        (["a/RGB/1.tif", "b/RGB/2.tif"], ["a/CHM/1.tif"], "**/RGB/*.tif"),
        (["one/of/many.tif"], ["one/of/few.tif"], "one/of/many.tif"),
    ],
)
def test_the_simplest_pattern_that_tells_files_apart_is_found(own, others, glob):
    found = select(own, others)
    assert found.glob == glob
    assert all(re.search(found.regex, name) for name in own)
    assert not any(re.search(found.regex, name) for name in others)


def test_files_without_a_common_pattern_are_found_folder_by_folder():
    own = ["a/1.tif", "a/2.tif", "b/x_CHM.tif", "b/y_CHM.tif"]
    others = ["b/x.tif", "b/y.tif", "c/1.tif"]
    found = select(own, others)
    assert found.glob == ""  # no single pattern of a shell does it
    assert [bool(re.search(found.regex, n)) for n in [*own, *others]] == [True] * 4 + [False] * 3


names = st.lists(
    st.from_regex(r"\A(?:[ab]{1,2}/){0,2}[ab1]{1,2}(?:_[xy])?\.(?:tif|jpg)\Z"),
    min_size=1, max_size=8, unique=True,
)  # fmt: skip


@settings(max_examples=150)
@given(both=names, cut=st.integers(1, 8))
def test_what_is_selected_is_all_of_the_files_and_no_other(both, cut):
    own, others = both[:cut], both[cut:]
    found = select(own, others)
    if found is not None:
        matched = [name for name in both if re.search(found.regex, name)]
        assert matched == own


def test_dates_are_those_that_every_name_holds():
    assert date_in(["a_20200701.tif", "b_19991231_x.tif"]).format == "%Y%m%d"
    assert date_in(["S2_20200701T102030_B02.tif"]).example == "20200701T102030"
    assert date_in(["2020-07-01/a.tif"]).format == "%Y-%m-%d"
    assert date_in(["a_20200701.tif", "b.tif"]) is None
    assert date_in(["tile_20201301.tif"]) is None  # there is no 13th month
    assert date_in(["id_120200701.tif"]) is None  # part of a longer number
    assert date_in(["a_12340101.tif"]) is None  # before there were cameras


def test_bands_are_told_where_scenes_have_several():
    scenes = [f"d/S{i}_2020010{i}_{band}.tif" for i in (1, 2) for band in ("B04", "B8A", "B11")]
    assert bands_in(scenes) == ("B04", "B8A", "B11")
    assert bands_in(["a_red.tif", "a_nir.tif"]) == ("nir", "red")
    assert bands_in(["x_VV.tif", "x_VH.tif", "x_readme.tif"]) == ("VH", "VV")
    assert bands_in(["a_red.tif", "b_nir.tif"]) == ()  # every scene has one only
    assert bands_in(["tile_1.tif", "tile_2.tif"]) == ()
    assert not names_a_band("reduced_1.tif")


def test_the_pattern_of_a_draft_puts_bands_together_and_dates_them():
    files = [f"d/S{i}_2020010{i}_{band}.tif" for i in (1, 2) for band in ("B04", "B8A")]
    selection = select(files, ["d/readme.jpg"])
    pattern = pattern_of(files, selection, date=date_in(files), bands=bands_in(files))
    descriptor = Descriptor.model_validate(
        {
            "description": "made up", "files": pattern, "example": files[0],
            "date_format": "%Y%m%d", "bands": [{"name": "B04"}, {"name": "B8A"}],
        }
    )  # fmt: skip
    got = described([f"/r/{f}" for f in files], descriptor, root="/r", name="x")
    scenes, left_out = got.scenes, got.left_out
    assert [scene.datetime[:10] for scene in scenes] == ["2020-01-01", "2020-01-02"]
    assert [len(scene.bands) for scene in scenes] == [2, 2]
    assert left_out == []


def test_a_date_that_all_names_share_is_still_found():
    files = ["p_20200101.tif", "q_20200101.tif"]
    pattern = pattern_of(files, select(files, ["z.tif"]), date=date_in(files), bands=())
    assert all(re.search(pattern, name)["date"] == "20200101" for name in files)
    assert fnmatch("p_20200101.tif", select(files, ["z.tif"]).glob.removeprefix("**/"))


@given(st.lists(st.text("ab", max_size=6), min_size=1, max_size=4))
def test_the_shared_start_is_the_longest_text_that_all_begin_with(texts):
    start = _shared_start(texts)
    assert all(text.startswith(start) for text in texts)
    longer = {text[: len(start) + 1] for text in texts}
    assert len(longer) > 1 or longer == {start}
