"""Which files are one scene, and what is wrong with a scene."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodino.data.sources.descriptor import Descriptor, load_descriptor
from geodino.data.sources.scenes import described
from geodino.errors import SourceError

SAFE = "S2B_MSIL2A_20230701T102559_N0509_R108_T32UMD_20230701T131503.SAFE"
TILE = "T32UMD_20230701T102559"
IMAGES = f"{SAFE}/GRANULE/L2A_T32UMD_A032998_20230701T102555/IMG_DATA"


def own(files, *bands, example="a_red.tif", **more):
    return Descriptor.model_validate(
        {
            "description": "Mine.",
            "files": files,
            "example": example,
            "bands": [{"name": name} for name in bands or ("red", "nir")],
        }
        | more
    )


SIMPLE = own(r"^(.*)_(?P<band>red|nir|fog|mask)\.tif$")


def group(paths, descriptor=SIMPLE, **how):
    return described([f"/r/{p}" for p in paths], descriptor, root="/r", name="mine", **how)


def paths_of(scene):
    return {w.band.name: w.path.removeprefix("/r/") for w in scene.bands}


# Which files belong together


def test_files_that_differ_in_the_band_alone_are_one_scene():
    found = group(["b/x_nir.tif", "b/x_red.tif", "a_nir.tif", "a_red.tif", "readme.tif"])
    assert [s.name for s in found.scenes] == ["/r/a", "/r/b/x"]
    assert paths_of(found.scenes[1]) == {"red": "b/x_red.tif", "nir": "b/x_nir.tif"}
    assert found.left_out == ["/r/readme.tif"]
    assert all(s.lacks is None for s in found.scenes)


@given(
    scenes=st.sets(st.text("abc/", min_size=1, max_size=5).filter(lambda t: "//" not in t)),
    seed=st.randoms(use_true_random=False),
)
def test_scenes_do_not_depend_on_the_order_of_the_files(scenes, seed):
    names = sorted(s.strip("/") or "d" for s in scenes)
    paths = [f"{name}_{band}.tif" for name in dict.fromkeys(names) for band in ("red", "nir")]
    if not paths:
        return
    expected = group(paths)
    seed.shuffle(paths)
    assert group(paths) == expected
    assert len(expected.scenes) == len(set(names))
    for scene in expected.scenes:
        stem = scene.name.removeprefix("/r/")
        assert paths_of(scene) == {"red": f"{stem}_red.tif", "nir": f"{stem}_nir.tif"}


def test_what_follows_the_band_tells_scenes_apart_too():
    dated = own(r"(?P<band>red|nir)_(?P<date>\d{8})\.tif$", date_format="%Y%m%d",
                example="red_20200101.tif")  # fmt: skip
    found = group(
        [f"t1_{b}_{d}.tif" for b in ("red", "nir") for d in ("20200101", "20210203")], dated
    )
    assert [(s.name, s.datetime[:10]) for s in found.scenes] == [
        ("/r/t1__20200101.tif", "2020-01-01"),
        ("/r/t1__20210203.tif", "2021-02-03"),
    ]
    assert paths_of(found.scenes[1]) == {"red": "t1_red_20210203.tif", "nir": "t1_nir_20210203.tif"}


def test_a_safe_product_is_one_scene_across_its_folders():
    sentinel = load_descriptor("sentinel-2-l2a")
    files = [
        *(f"R10m/{TILE}_{b}_10m.jp2" for b in ("B02", "B04", "TCI", "AOT")),
        *(f"R20m/{TILE}_{b}_20m.jp2" for b in ("B02", "B04", "B05", "SCL", "TCI")),
        *(f"R60m/{TILE}_{b}_60m.jp2" for b in ("B01", "B02", "B05", "SCL")),
    ]
    found = group([f"{IMAGES}/{name}" for name in files], sentinel)
    (scene,) = found.scenes
    assert scene.name == f"/r/{IMAGES}/{TILE}"
    # The finest file of a band wins, also of the quality layer.
    assert {name: path.rsplit("/", 1)[1] for name, path in paths_of(scene).items()} == {
        "B01": f"{TILE}_B01_60m.jp2", "B02": f"{TILE}_B02_10m.jp2",
        "B04": f"{TILE}_B04_10m.jp2", "B05": f"{TILE}_B05_20m.jp2",
    }  # fmt: skip
    assert scene.quality[0].endswith("SCL_20m.jp2")
    assert scene.datetime == "2023-07-01T10:25:59+00:00"
    assert found.absent == ["B03", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
    assert sorted(p.rsplit("_", 2)[1] for p in found.left_out) == ["AOT", "TCI", "TCI"]


def test_the_finest_file_wins_whatever_comes_first():
    sentinel = load_descriptor("sentinel-2-l2a")
    names = [f"{TILE}_B04_{m}m.jp2" for m in (60, 10, 20)]
    for order in (names, names[::-1], names[1:] + names[:1]):
        (scene,) = group(order, sentinel).scenes
        assert paths_of(scene) == {"B04": f"{TILE}_B04_10m.jp2"}


def test_loose_sentinel_files_and_old_names_are_scenes_too():
    sentinel = load_descriptor("sentinel-2-l2a")
    found = group([f"{TILE}_B02_10m.jp2", f"L2A_{TILE[:-6]}102021_B02_10m.jp2"], sentinel)
    assert [s.name for s in found.scenes] == [f"/r/L2A_{TILE[:-6]}102021", f"/r/{TILE}"]


def test_an_optional_part_that_only_some_files_have_does_not_split_a_scene():
    optional = own(r"^(.*)_(?P<band>red|nir)(?P<folder>_v2)?\.tif$")
    (scene,) = group(["a_red_v2.tif", "a_nir.tif"], optional).scenes
    assert scene.lacks is None


def test_groups_may_lie_in_each_other():
    nested = own(r"^(?P<folder>x-(?P<band>red|nir)-v\d)/(.*)\.tif$", example="x-red-v1/a.tif")
    found = group([f"x-{b}/{s}.tif" for b in ("red-v1", "nir-v2") for s in "ab"], nested)
    assert [s.lacks for s in found.scenes] == [None, None]
    assert paths_of(found.scenes[1]) == {"red": "x-red-v1/b.tif", "nir": "x-nir-v2/b.tif"}


def test_several_bands_of_one_file_and_of_another_are_looked_up():
    stacked = Descriptor.model_validate(
        {
            "description": "Mine.", "files": r"(?P<band>rgb|ir)\.tif$", "example": "a_rgb.tif",
            "bands": [
                {"name": "red", "file": "rgb", "number": 1},
                {"name": "blue", "file": "rgb", "number": 3},
                {"name": "nir", "file": "ir"},
            ],
        }
    )  # fmt: skip
    (scene,) = group(["a_rgb.tif", "a_ir.tif"], stacked).scenes
    assert [(w.path, w.number) for w in scene.bands] == [
        ("/r/a_rgb.tif", 1), ("/r/a_rgb.tif", 3), ("/r/a_ir.tif", 1),
    ]  # fmt: skip
    assert scene.paths == ("/r/a_rgb.tif", "/r/a_ir.tif")


def test_remote_files_are_named_by_their_address():
    root = "https://host/data"
    files = [f"{root}/s/a_{band}.tif" for band in ("red", "nir")]
    (scene,) = described(files, SIMPLE, root=root, name="mine").scenes
    assert scene.name == f"{root}/s/a"
    assert [w.path for w in scene.bands] == files


# What is wrong with a scene


def test_a_scene_without_a_band_that_others_have_is_bad_and_named():
    found = group(["a_red.tif", "a_nir.tif", "b_red.tif", "b_fog.tif"])
    complete, other = found.scenes
    assert complete.lacks is None
    assert other.lacks == (
        "/r/b has no file for nir (it has fog, red). Complete it, remove it, or name the bands "
        "that all scenes have in data.bands."
    )


def test_bands_that_are_not_asked_for_are_not_looked_for():
    paths = ["a_red.tif", "a_nir.tif", "b_red.tif"]
    for chosen in (("red",), ["red"]):
        found = group(paths, chosen=chosen)
        assert [s.lacks for s in found.scenes] == [None, None]
        assert [s.paths for s in found.scenes] == [("/r/a_red.tif",), ("/r/b_red.tif",)]
    # Numbers count the bands of a scene, so that none may be missing.
    assert group(paths, chosen=(1,)).scenes[1].lacks is not None
    # An unknown name is refused when bands are chosen, with the nearest that there is.
    assert group(paths, chosen=("rde",)).scenes[1].lacks is not None


def test_bands_are_asked_for_by_common_name_where_no_band_has_it_as_its_own():
    both = Descriptor.model_validate(
        {
            "description": "Mine.", "files": r"(?P<band>B4|B5|nir)\.tif$", "example": "a_B4.tif",
            "bands": [{"name": "B4", "common_name": "red"}, {"name": "B5", "common_name": "nir"},
                      {"name": "nir", "common_name": "nir08"}],
        }
    )  # fmt: skip
    files = ["a_B4.tif", "a_B5.tif", "a_nir.tif"]
    (scene,) = group(files, both, chosen=("red", "nir")).scenes
    assert list(paths_of(scene)) == ["B4", "nir"]
    (scene,) = group(files, both, chosen=("nir08",)).scenes
    assert list(paths_of(scene)) == ["nir"]


def test_a_band_that_no_scene_has_is_absent_and_no_fault_of_any():
    found = group(["a_red.tif", "b_red.tif"])
    assert found.absent == ["nir"]
    assert [s.lacks for s in found.scenes] == [None, None]


def test_two_files_for_one_band_make_the_scene_bad_and_name_both():
    untold = own(r"^(?P<folder>v\d)/(.*)_(?P<band>red|nir)\.tif$", example="v1/a_red.tif")
    found = group(
        ["v1/a_red.tif", "v1/a_nir.tif", "v2/a_red.tif", "v1/b_red.tif", "v1/b_nir.tif"], untold
    )
    first, second = found.scenes
    assert second.lacks is None
    assert first.lacks == (
        "/r/v1/a_red.tif and /r/v2/a_red.tif are both band 'red' of the scene /r/a. Remove one, "
        "or let the groups of the descriptor's pattern tell them apart."
    )


def test_a_name_with_an_impossible_date_makes_its_scene_bad():
    dated = own(r"(?P<date>\d{8})_(?P<band>red|nir|fog)\.tif$", "red", "nir", "fog",
                date_format="%Y%m%d", example="20200101_red.tif")  # fmt: skip
    names = [f"{date}_{band}.tif" for date in ("20200101", "20209999") for band in ("red", "nir")]
    good, bad = group(names, dated).scenes
    assert good.lacks is None
    assert "The date '20209999' in the name of /r/20209999_" in bad.lacks
    assert "is not written as '%Y%m%d'" in bad.lacks
    # A band that only a bad scene has is not missed in the good ones.
    (good, _) = group([*names, "20209999_fog.tif"], dated).scenes
    assert good.lacks is None
    with pytest.raises(SourceError, match="The date '20209999'"):
        group(names[2:], dated)


def test_a_resolution_that_is_no_number_makes_its_scene_bad():
    sized = own(r"(?P<band>red|nir)_(?P<resolution>\w+)\.tif$", example="red_10.tif")
    files = [f"{s}/{f}.tif" for s in "ab" for f in ("red_10", "nir_10")]
    good, bad = group([*files, "b/red_ten.tif"], sized).scenes
    assert good.lacks is None
    assert "The resolution 'ten' in the name of /r/b/red_ten.tif" in bad.lacks


def test_a_scene_may_lack_the_quality_layer():
    masked = own(
        SIMPLE.files,
        quality={"file": "mask", "classes": {"encoding": "values", "classes": {"cloud": 1}},
                 "mask": ["cloud"]},
    )  # fmt: skip
    found = group([f"{s}_{b}.tif" for s in "ab" for b in ("red", "nir")] + ["a_mask.tif"], masked)
    assert [s.quality and s.quality[0] for s in found.scenes] == ["/r/a_mask.tif", None]
    assert found.scenes[0].paths[-1] == "/r/a_mask.tif"


# A pattern that does not fit


def test_a_pattern_that_finds_nothing_names_the_nearest_files():
    with pytest.raises(SourceError) as error:
        group(["x_RED.tif", "b/scan0001.tif", "q.png"])
    text = str(error.value)
    assert "The pattern of mine finds none of the 3 rasters below /r." in text
    assert "It looks for names such as a_red.tif; the nearest there: " in text
    assert "x_RED.tif" in text


def test_of_very_many_files_some_are_compared():
    with pytest.raises(SourceError, match="none of the 20000 rasters") as error:
        group([f"scan{i:06}.png" for i in range(20_000)])
    assert str(error.value).count("scan") == 3


def test_a_pattern_that_finds_no_band_says_what_it_finds():
    with pytest.raises(SourceError) as error:
        group(["a_fog.tif", "a_mask.tif"])
    assert str(error.value) == (
        "The pattern of mine finds 1 scenes below /r, but none of its bands: its group band finds "
        "fog, mask. Name what it finds in `name` or `file` of the descriptor's bands."
    )


def test_bands_with_files_need_a_pattern_that_tells_files_apart():
    whole = Descriptor.model_validate(
        {
            "description": "For a catalogue.", "files": r"\.tif$", "example": "a.tif",
            "bands": [{"name": "red", "file": "B04"}],
        }
    )  # fmt: skip
    with pytest.raises(SourceError, match="its group band finds nothing"):
        group(["a.tif"], whole)
