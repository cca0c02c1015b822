"""Names of rasters in stores: what is written is read back, and files are not mistaken for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodino.errors import SourceError
from geodino.io.zarr.key import StoreKey, absolute, find_key

names = st.text(st.characters(exclude_characters="/", exclude_categories=("Cs",)), min_size=1)


@given(
    store=st.text(min_size=1).filter(lambda s: "#" not in s) | st.just("/a#b/c@1,d.zarr"),
    group=st.lists(names, max_size=2),
    arrays=st.lists(names, min_size=1, max_size=3),
    time=st.none() | st.integers(0, 10_000),
)
def test_a_name_that_was_written_is_read_back(store, group, arrays, time):
    paths = tuple("/".join([*group, name]) for name in arrays)
    key = StoreKey(store=store, arrays=paths, time=time)
    assert StoreKey.parse(str(key)) == key


def test_names_look_as_documented():
    def name(*arrays, time=None):
        return str(StoreKey(store="/d/cube.zarr", arrays=arrays, time=time))

    assert name() == "/d/cube.zarr"
    assert name("r10m/B02", "r10m/B03") == "/d/cube.zarr#r10m/B02,B03"
    assert name("reflectance", time=3) == "/d/cube.zarr#reflectance@3"
    assert name("") == "/d/cube.zarr#"
    assert name("a,b", "c@1", "50%") == "/d/cube.zarr#a%2Cb,c%401,50%25"


def test_an_index_needs_a_number_and_other_at_signs_belong_to_the_name():
    assert StoreKey.parse("s.zarr#a@b").arrays == ("a@b",)
    assert StoreKey.parse("s.zarr#a@").time is None
    assert StoreKey.parse("s.zarr#a@07").time == 7


def test_files_and_folders_with_hashes_in_their_names_are_no_stores(tmp_path):
    plain = tmp_path / "scene#1.tif"
    plain.touch()
    assert find_key(plain) is None
    assert find_key(tmp_path / "gone#2.tif") is None
    assert find_key(tmp_path) is None
    assert find_key("/vsicurl/https://example.org/a#b.tif") is None


def test_a_store_is_known_by_its_metadata_or_its_ending(tmp_path, monkeypatch):
    for folder, file in (("a", "zarr.json"), ("b", ".zgroup"), ("c#1", ".zarray")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).touch()
        assert find_key(tmp_path / folder) == StoreKey(store=str(tmp_path / folder))
    assert find_key(f"{tmp_path}/c#1#B02").arrays == ("B02",)
    assert find_key("https://example.org/cube.zarr") is not None
    assert find_key("s3://bucket/cube#B02,B03@1").time == 1
    monkeypatch.chdir(tmp_path)
    assert find_key("a#B02").store == str(tmp_path / "a")


def test_what_is_no_store_is_refused_in_words(tmp_path):
    with pytest.raises(
        SourceError, match=r"is not a zarr store: expected a folder with zarr\.json"
    ):
        absolute(tmp_path)
    with pytest.raises(SourceError, match=r"gone\.zarr does not exist"):
        absolute(tmp_path / "gone.zarr")
