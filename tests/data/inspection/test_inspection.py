"""Archives as they lie on disk: what is said of them, and what is asked."""

import json
import shutil

import numpy as np
import pytest
import zarr
from inspection_support import inspected, noise, topics, write

from geodino.data.config import DataConfig
from geodino.data.index import build_index, save_index
from geodino.errors import SourceError


def asked(found, topic):
    return [question for question in found.all_questions if question.topic == topic]


# Files that cannot be used, files that do not fit


def test_files_that_cannot_be_read_are_listed_and_the_rest_is_inspected(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.tif", noise(seed=i), at=(i, 0))
    (tmp_path / "text.tif").write_text("no raster")
    (tmp_path / "zero.tif").write_bytes(b"")
    cut = write(tmp_path / "cut.tif", noise(seed=9))
    cut.write_bytes(cut.read_bytes()[:4000])
    found = inspected(tmp_path)
    assert [path.rsplit("/", 1)[-1] for path, _ in found.unreadable] == [
        "cut.tif", "text.tif", "zero.tif",
    ]  # fmt: skip
    assert "cut off" in dict(found.unreadable)[str(cut)]
    assert (found.files, found.kinds[0].tiles) == (6, 3)


def test_a_folder_of_broken_files_alone_is_told_file_by_file(tmp_path):
    (tmp_path / "a.tif").write_text("no raster")
    found = inspected(tmp_path)
    assert found.kinds == ()
    assert len(found.unreadable) == 1


@pytest.mark.parametrize("name", ["nowhere", "empty", "nowhere*.tif"])
def test_nothing_at_all_is_an_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=name.replace("*", r"\*")):
        inspected(tmp_path / name)


def test_files_of_several_kinds_are_shown_kind_by_kind_with_a_pattern_for_each(tmp_path):
    for i in range(3):
        write(tmp_path / "rgb" / f"{i}.tif", noise(seed=i), at=(i, 0), photometric="RGB")
    for i in range(2):
        write(tmp_path / "chm" / f"{i}.tif", noise(1, dtype="float32", seed=i), at=(i, 0))
    write(tmp_path / "cube.tif", noise(7))
    found = inspected(tmp_path)
    assert [(kind.name, kind.tiles) for kind in found.kinds] == [
        ("3 bands of uint8", 3), ("1 band of float32", 2), ("7 bands of uint8", 1),
    ]  # fmt: skip
    for kind in found.kinds:  # the pattern is a source that training takes
        index = build_index(kind.select, DataConfig(), threads=1)
        assert (len(index.tiles), index.dtype, len(index.bands)) == (
            kind.tiles, kind.dtype, len(kind.bands),
        )  # fmt: skip
    (question,) = asked(found, "kinds")
    assert all(kind.select in question.option for kind in found.kinds)


def test_mixed_band_counts_of_one_type_can_be_joined_by_their_first_bands(tmp_path):
    write(tmp_path / "a.tif", noise(3), at=(0, 0))
    write(tmp_path / "b.tif", noise(4), at=(1, 0))
    (question,) = asked(inspected(tmp_path), "kinds")
    assert "data.bands=[1,2,3]" in question.option
    joined = inspected(tmp_path, bands=(1, 2, 3))
    assert [kind.tiles for kind in joined.kinds] == [2]
    assert joined.apart is None


def test_bands_in_another_order_are_other_kinds(tmp_path):
    write(tmp_path / "a.tif", noise(), names=("red", "green", "blue"))
    write(tmp_path / "b.tif", noise(), at=(1, 0), names=("blue", "green", "red"))
    found = inspected(tmp_path)
    assert [kind.name for kind in found.kinds] == [
        "3 bands of uint8 (red, green, blue)", "3 bands of uint8 (blue, green, red)",
    ]  # fmt: skip
    assert "data.bands: [red, green, blue]" in found.apart


def test_a_folder_of_several_formats_is_read_format_by_format(shared_data):
    found = inspected(shared_data / "timeseries")
    assert [(kind.tiles, len(kind.bands)) for kind in found.kinds] == [(19, 4), (3, 4)]
    assert found.kinds[0].dates.known_from == {"file name": 19}
    (question,) = asked(found, "formats")
    assert "data.dataset" in question.why


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"band_names": ("a", "b")}, "declares 2 bands"),
        ({"bands": ("red", "swir16")}, "no band 'swir16'"),
        ({"mask": ("cloud",)}, "no quality layer"),
    ],
)
def test_a_declaration_that_does_not_fit_is_told_and_left_out(tmp_path, declared, said):
    write(tmp_path / "a.tif", noise(), photometric="RGB")
    found = inspected(tmp_path, **declared)
    (question,) = asked(found, "declared")
    assert said in question.text
    assert [band.name for band in found.kinds[0].bands] == ["red", "green", "blue"]


def test_filters_choose_tiles_and_say_so(tmp_path):
    for i in range(4):
        write(tmp_path / f"{i}.tif", noise(side=32 * (1 + i % 2)), at=(i, 0))
    found = inspected(tmp_path, where="width > 40")
    assert found.kinds[0].tiles == 2
    assert any("2 of 4 tiles pass" in sentence for sentence in found.reading)
    with pytest.raises(SourceError, match="lets none"):
        inspected(tmp_path, where="width > 400")


# Copies and covers


def test_copies_are_found_by_content_not_by_size(tmp_path):
    write(tmp_path / "a.tif", noise())
    write(tmp_path / "same_size.tif", noise(seed=1))
    shutil.copy(tmp_path / "a.tif", tmp_path / "copy.tif")
    found = inspected(tmp_path)
    assert [{p.rsplit("/", 1)[-1] for p in paths} for paths in found.duplicates] == [
        {"a.tif", "copy.tif"}
    ]


def test_the_same_ground_at_the_same_date_is_told_unless_files_are_copies(tmp_path):
    when = {"TIFFTAG_DATETIME": "2020:07:01 10:20:30"}
    for name, seed in (("a", 0), ("b", 1), ("later", 2)):
        path = write(tmp_path / f"{name}.tif", noise(seed=seed))
        tag(path, **(when if name != "later" else {"TIFFTAG_DATETIME": "2021:07:01 10:20:30"}))
    shutil.copy(tmp_path / "a.tif", tmp_path / "copy_of_a.tif")
    found = inspected(tmp_path)
    ground = found.kinds[0].ground
    (pair,) = ground.same_date
    assert [path.rsplit("/", 1)[-1] for path in pair] == ["a.tif", "b.tif"]
    assert ground.places_revisited == 1
    assert len(found.duplicates) == 1


def tag(path, **tags):
    import rasterio

    with rasterio.open(path, "r+") as out:
        out.update_tags(**tags)


# Questions


def test_a_collar_that_no_file_tags_is_asked_about_and_the_answer_settles_it(tmp_path):
    for i in range(4):
        pixels = noise(dtype="uint16", seed=i, high=9000)
        pixels[:, :, :16] = 0
        write(tmp_path / f"{i}.tif", pixels, at=(i, 0))
    found = inspected(tmp_path)
    (question,) = asked(found, "nodata")
    assert "Does 0 mean" in question.text
    assert "fills 25.0% of the pixels" in question.text
    assert "in 4 of 4 tiles" in question.text
    assert question.option == "--set data.nodata=0"
    answered = inspected(tmp_path, nodata=0.0)
    assert "nodata" not in topics(answered)
    assert answered.kinds[0].sampled.valid_all == 0.75


def test_scattered_zeros_and_tagged_collars_are_no_question(tmp_path):
    pixels = noise()
    pixels[:, np.random.default_rng(0).random((64, 64)) < 0.2] = 0
    write(tmp_path / "scattered.tif", pixels, at=(0, 0))
    collar = noise(seed=1)
    collar[:, :20] = 0
    write(tmp_path / "tagged.tif", collar, at=(1, 0), nodata=0)
    assert "nodata" not in topics(inspected(tmp_path))


def test_a_dark_field_inside_a_tile_is_no_collar(tmp_path):
    pixels = noise()
    pixels[:, 16:48, 16:48] = 0
    write(tmp_path / "a.tif", pixels)
    assert "nodata" not in topics(inspected(tmp_path))


def test_zero_metres_are_ground_where_another_value_is_tagged(tmp_path):
    heights = noise(1, dtype="float32")
    heights[:, :32] = 0
    write(tmp_path / "chm.tif", heights, nodata=-9999)
    assert "nodata" not in topics(inspected(tmp_path))


def test_units_are_asked_of_measurements_and_not_of_pictures(tmp_path):
    write(tmp_path / "a/picture.tif", noise(), photometric="RGB")
    write(tmp_path / "b/float_picture.tif", noise(dtype="float32"))
    write(tmp_path / "c/measured.tif", noise(dtype="uint16", high=9000))
    write(tmp_path / "d/declared.tif", noise(1, dtype="float32"), names=("height",))
    unit(tmp_path / "d/declared.tif", "m")
    asks = {name: "unit" in topics(inspected(tmp_path / name)) for name in "abcd"}
    assert asks == {"a": False, "b": False, "c": True, "d": False}


def unit(path, name):
    import rasterio

    with rasterio.open(path, "r+") as out:
        out.set_band_unit(1, name)


def test_bands_without_names_are_asked_for_and_the_answer_names_them(tmp_path):
    write(tmp_path / "a.tif", noise(4), colors=("red", "green", "blue", "undefined"))
    (question,) = asked(inspected(tmp_path), "bands")
    assert question.option == "--set 'data.band_names=[red,green,blue,NAME_4]'"
    answered = inspected(tmp_path, band_names=("red", "green", "blue", "nir"))
    assert "bands" not in topics(answered)
    assert {band.named_by for band in answered.kinds[0].bands} == {"declared"}


@pytest.mark.parametrize(("floor", "added", "below"), [(1020, 2, 0), (60, 0, 2), (2500, 0, 0)])
def test_an_unknown_sentinel_2_offset_is_asked_with_what_the_darkest_values_tell(
    tmp_path, floor, added, below
):
    for i in range(2):
        pixels = noise(3, dtype="uint16", seed=i, low=floor, high=floor + 4000)
        write(tmp_path / f"{i}.tif", pixels, at=(i, 0), names=("B02", "B03", "B8A"))
    (question,) = asked(inspected(tmp_path), "offset")
    assert f"near 1,000 in {added}" in question.text
    assert f"below in {below}" in question.text
    assert "offset" not in topics(inspected(tmp_path, scale=0.0001, offset=-0.1))


def test_a_sentinel_2_product_without_a_baseline_is_inspected_all_the_same(tmp_path):
    granule = "L2A_T32UMD/IMG_DATA/R10m"
    for band in ("B02", "B03", "B04", "B08"):
        write(
            tmp_path / f"S2A.SAFE/{granule}/T32UMD_20230701T102601_{band}_10m.jp2",
            noise(1, dtype="uint16", low=1100, high=3000), driver="JP2OpenJPEG",
        )  # fmt: skip
    found = inspected(tmp_path)
    assert [band.name for band in found.kinds[0].bands] == ["B02", "B03", "B04", "B08"]
    assert topics(found) == ["offset"]
    with pytest.raises(Exception, match=r"offset of .* is not known"):
        build_index(tmp_path, DataConfig(), threads=1)


def test_the_offsets_that_sentinel_2_products_declare_are_told(tmp_path):
    for day, baseline in (("20200701", "N0214"), ("20230701", "N0509"), ("20230711", "N0509")):
        product = f"S2A_MSIL2A_{day}T102601_{baseline}_R108_T32UMD_{day}T150000.SAFE"
        write(
            tmp_path / product / f"GRANULE/L2A/IMG_DATA/R10m/T32UMD_{day}T102601_B02_10m.jp2",
            noise(1, dtype="uint16", low=1100, high=3000), driver="JP2OpenJPEG",
        )  # fmt: skip
    found = inspected(tmp_path)
    assert "offset" not in topics(found)
    (said,) = [s for s in found.kinds[0].decisions if s.startswith("Sentinel-2 offsets")]
    assert said.endswith(
        "2 x -0.1 (baseline 05.09 in the product's name), "
        "1 x 0 (baseline 02.14 in the product's name)"
    )


def test_tiles_without_a_place_are_asked_for_one(tmp_path):
    write(tmp_path / "a.tif", noise(), crs=None, transform=None)
    write(tmp_path / "b.tif", noise(seed=1))
    found = inspected(tmp_path)
    assert found.kinds[0].unplaced == 1
    (question,) = asked(found, "gsd")
    assert "1 of 2 tiles" in question.text
    assert "gdal_edit.py" in question.option


def test_ground_resolutions_that_cannot_be_one_sensor_are_asked_about(tmp_path):
    from rasterio.transform import from_origin

    for i, gsd in enumerate((0.5, 0.6, 10.0)):
        at = from_origin(500_000 + 10_000 * i, 5_400_000, gsd, gsd)
        write(tmp_path / f"{i}.tif", noise(seed=i), transform=at)
    (question,) = asked(inspected(tmp_path), "gsd")
    assert "0.6 and 10 m" in question.text
    condition = question.option.removeprefix("--set 'data.where=").removesuffix("'")
    assert inspected(tmp_path, where=condition).kinds[0].tiles == 2


def test_degrees_beside_metres_are_asked_about(shared_data):
    found = inspected(shared_data / "scenes/rio_tiler/mosaic_cog*.tif")
    (question,) = asked(found, "crs")
    condition = question.option.removeprefix('--set "data.where=').removesuffix('"')
    left = inspected(shared_data / "scenes/rio_tiler/mosaic_cog*.tif", where=condition)
    assert list(left.kinds[0].crs) == ["EPSG:32618 (WGS 84 / UTM zone 18N)"]


def test_a_date_in_the_names_is_asked_about_and_a_time_of_writing_is_told(tmp_path):
    write(tmp_path / "a/tile_20200701.tif", noise())
    path = write(tmp_path / "b/tile.tif", noise())
    tag(path, TIFFTAG_DATETIME="2020:07:01 10:20:30")
    (named,) = asked(inspected(tmp_path / "a"), "date")
    assert "Is 20200701 the day" in named.text
    written = inspected(tmp_path / "b")
    assert written.kinds[0].dates.known_from == {"tiff tag": 1}
    assert "time of writing" in asked(written, "date")[0].text


def test_bands_in_files_of_their_own_are_recognised_by_their_names(tmp_path):
    for scene in ("s1", "s2"):
        for band in ("B02", "B03"):
            write(tmp_path / f"{scene}_{band}.tif", noise(1, dtype="uint16"))
    found = inspected(tmp_path)
    assert "Are B02, B03 bands of common scenes?" in found.questions[0].text


# Facts


def test_storage_that_makes_windows_dear_is_told_with_the_command_that_mends_it(tmp_path):
    big = np.ones((1, 64, 5000), "uint8")
    write(tmp_path / "rows.tif", big, blockysize=1)
    write(tmp_path / "picture.png", np.ones((1, 5000, 64), "uint8"), driver="PNG")
    write(tmp_path / "tiled.tif", big, tiled=True, blockxsize=256, blockysize=256)
    write(tmp_path / "small.tif", noise(1))
    layouts = inspected(tmp_path).kinds[0].layouts
    told = {(layout.text, bool(layout.remark)): layout for layout in layouts}
    # A row of 5,000 px is decoded for each of the 5 windows on it, and so is a whole picture.
    assert told["strips of 1 row", True].cost == pytest.approx(5.0)
    assert told["pictures decoded from the first row on", True].cost == pytest.approx(5.0)
    assert ("tiles of 256 x 256", False) in told
    assert ("one block a file", False) in told  # small.tif is read at once
    for layout in layouts:
        starts = layout.mend.startswith("gdal_translate -co TILED=YES")
        assert starts == bool(layout.remark)


def test_alpha_and_nodata_are_told_as_they_are_read(shared_data):
    naip = inspected(shared_data / "tiles").kinds[0]
    assert naip.validity == "not the band tagged alpha, which is data"
    neon = inspected(shared_data / "canopy/neon_teak/RGB").kinds[0]
    assert neon.validity == "not the nodata tag (255), which is ignored"
    triplet = inspected(shared_data / "scenes/rio_tiler/hro_colorado_*.tif").kinds[0]
    assert triplet.tiles == 3
    for part in ("nodata tag (0)", "alpha band", "mask of all bands"):
        assert part in triplet.validity


def test_quality_layers_are_told_by_class(shared_data):
    quality = inspected(shared_data / "timeseries/landsat8_ny_2018").kinds[0].quality
    assert quality.scenes_with == quality.scenes_read == 19
    assert quality.masked == ("fill", "cloud")
    assert 0.05 < quality.classes["cloud"] < 0.2


def test_saturation_and_constant_bands_are_told(tmp_path):
    pixels = noise(2, dtype="uint16", low=100, high=3000)
    pixels[0, :16] = 4095
    pixels[1] = 7
    write(tmp_path / "a.tif", pixels)
    first, second = (band.values for band in inspected(tmp_path).kinds[0].bands)
    assert first.saturated == pytest.approx(0.25)
    assert second.is_constant
    assert second.saturated == 0


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_histograms_hold_every_value_once(tmp_path, dtype):
    write(tmp_path / "a.tif", noise(1, dtype=dtype))
    histogram = inspected(tmp_path).kinds[0].bands[0].values.histogram
    assert sum(histogram.shares) + histogram.outside == pytest.approx(1.0)
    assert histogram.outside < 0.02
    assert len(histogram.shares) <= 64


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("scenes/s2_100k_patches", "as reflectance times 10,000 has"),
        ("canopy/neon_teak/CHM", "as heights in metres have"),
        ("canopy/idtrees/RGB", "as 8-bit pictures have"),
        ("segdet/flair2/mask", "classes rather than measurements"),
    ],
)
def test_what_numbers_look_like_is_said_and_declares_nothing(shared_data, folder, said):
    kind = inspected(shared_data / folder).kinds[0]
    assert any(said in sentence for sentence in kind.observations)
    assert {band.unit for band in kind.bands} == {"unknown"}


def test_an_index_file_is_a_source(tmp_path):
    write(tmp_path / "tiles/a.tif", noise())
    save_index(build_index(tmp_path / "tiles", DataConfig(), threads=1), tmp_path / "i.parquet")
    found = inspected(tmp_path / "i.parquet")
    assert (found.files, found.kinds[0].tiles) == (1, 1)


@pytest.mark.parametrize(
    "folder", ["tiles", "scenes", "canopy", "timeseries", "segdet", "scene_cls/eurosat_rgb/Forest"]
)
def test_every_real_folder_gives_valid_json_and_only_readable_files(shared_data, folder):
    found = inspected(shared_data / folder, pixels=2**18)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["files"] == found.files
    assert found.unreadable == ()
    assert sum(kind.tiles for kind in found.kinds) == found.scenes


def test_a_store_is_one_thing_whatever_lies_beside_it(tmp_path):
    (tmp_path / "notes.csv").touch()
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(2, 64, 64), chunks=(2, 32, 32), dtype="uint8",
        dimension_names=("band", "y", "x"),
    )  # fmt: skip
    array[:] = noise(2)
    assert inspected(tmp_path / "a.zarr").others == {}
    assert inspected(tmp_path).others == {".csv": 1}
