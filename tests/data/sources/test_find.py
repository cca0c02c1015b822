"""From a source to its files."""

import tarfile
from pathlib import Path

import pytest

from geodino.data.sources.find import find
from geodino.errors import SourceError


@pytest.fixture
def archive(tmp_path):
    for name in (
        "b/2.tif", "b/10.TIF", "a.png", "c/d/e.jpeg", "z.jp2", "a-1/x.tiff",
        "labels.csv", "b/2.tif.msk", "b/2.tif.aux.xml", "b/2.tif.ovr", "b/.2.tif", ".trash/3.tif",
        "__MACOSX/a.png",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def names(root, found):
    return [Path(path).relative_to(root).as_posix() for path in found.files]


def test_a_folder_is_searched_whole_sorted_and_without_what_is_no_raster(archive):
    expected = ["a-1/x.tiff", "a.png", "b/10.TIF", "b/2.tif", "c/d/e.jpeg", "z.jp2"]
    assert names(archive, find(archive)) == expected
    assert names(archive, find(str(archive))) == expected


def test_patterns_match_rasters_only_at_any_depth(archive):
    assert names(archive, find(f"{archive}/b/*")) == ["b/10.TIF", "b/2.tif"]
    assert names(archive, find(f"{archive}/**/*.tif")) == ["b/2.tif"]
    assert names(archive, find(f"{archive}/[ab]*.p?g")) == ["a.png"]


def test_paths_are_absolute_whatever_was_given(archive, monkeypatch):
    monkeypatch.chdir(archive / "b")
    assert names(archive, find("2.tif")) == ["b/2.tif"]
    assert names(archive, find("../b/*.tif")) == ["b/../b/2.tif"]
    assert names(archive, find(".")) == ["b/10.TIF", "b/2.tif"]


def test_a_file_is_a_source_whatever_its_ending(archive):
    (archive / "dem.img").touch()
    assert names(archive, find(archive / "dem.img")) == ["dem.img"]


def test_links_are_followed_and_a_circle_of_links_ends(archive):
    (archive / "b" / "again").symlink_to(archive)
    (archive / "other").symlink_to(archive / "c")
    found = names(archive, find(archive))
    assert len(found) == len(set(found))
    assert "b/2.tif" in found
    assert sum(name.endswith("e.jpeg") for name in found) == 1


def test_a_file_name_with_brackets_is_not_a_pattern(tmp_path):
    (tmp_path / "a[1].tif").touch()
    assert names(tmp_path, find(tmp_path / "a[1].tif")) == ["a[1].tif"]


def test_a_store_is_one_source_and_nothing_inside_it_is_looked_for(archive):
    (archive / "cube.zarr" / "c").mkdir(parents=True)
    (archive / "cube.zarr" / "c" / "0.tif").touch()
    assert "cube.zarr" in names(archive, find(archive))
    assert not any("0.tif" in name for name in names(archive, find(archive)))
    assert names(archive, find(archive / "cube.zarr")) == ["cube.zarr"]
    assert names(archive, find(f"{archive}/*.zarr")) == ["cube.zarr"]


def shard(path, *members):
    with tarfile.open(path, "w") as archive:
        for name in members:
            file = path.parent / "member"
            file.write_bytes(b"x" * 10)
            archive.add(file, name)
    return path


def test_the_pictures_of_a_shard_are_files_that_gdal_opens_where_they_lie(tmp_path):
    path = shard(tmp_path / "a.tar", "2.jpg", "2.txt", "sub/1.png")
    expected = (f"/vsitar/{path}/2.jpg", f"/vsitar/{path}/sub/1.png")
    assert find(path).files == expected
    assert find(tmp_path).files == expected
    assert find(f"{tmp_path}/*.tar").files == expected


def test_a_shard_that_is_compressed_or_holds_no_picture_is_refused_by_name(tmp_path):
    with tarfile.open(tmp_path / "c.tar", "w:gz"):
        pass
    with pytest.raises(SourceError, match=r"c\.tar cannot be read as an uncompressed tar"):
        find(tmp_path / "c.tar")
    shard(tmp_path / "t.tar", "a.txt")
    with pytest.raises(SourceError, match=r"t\.tar holds no picture: none of its 1 files"):
        find(tmp_path / "t.tar")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "does not exist. Name a folder, a file or a pattern"),
        ("empty", "holds no raster: no file below it ends in .tif"),
        ("empty/*.tif", "matches no raster"),
    ],
)
def test_a_source_without_rasters_is_refused_by_name(tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError) as error:
        find(tmp_path / source)
    assert message in str(error.value)
    assert source in str(error.value)
