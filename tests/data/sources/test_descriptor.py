"""Descriptors: those that travel with the package, and what is wrong with others."""

import numpy as np
import pytest
import yaml
from scene_support import band_names, index_of, numbers, read_all, write

from geodino.data.sources.descriptor import (
    Descriptor,
    descriptor_folder,
    descriptor_names,
    descriptor_path,
    load_descriptor,
    root_of,
)
from geodino.data.sources.scenes import described
from geodino.errors import BandError, SourceError

# What the group band finds in the example, and the example's date.
EXAMPLES = {
    "hls-l30": ("B04", "2023-07-01T10:12:34+00:00"),
    "hls-s30": ("B8A", "2023-07-01T10:25:59+00:00"),
    "landsat-c1-l1": ("B2", "2018-01-31T00:00:00+00:00"),
    "landsat-c2-l2": ("SR_B4", "2023-07-01T00:00:00+00:00"),
    "landsat-tm-c2-l2": ("SR_B3", "2010-07-01T00:00:00+00:00"),
    "naip": (None, "2020-05-24T00:00:00+00:00"),
    "open-canopy": (None, "2021-04-06T00:00:00+00:00"),
    "open-canopy-classification": (None, "2021-04-06T00:00:00+00:00"),
    "open-canopy-lidar": (None, "2021-04-06T00:00:00+00:00"),
    "planetscope-sr": ("AnalyticMS_SR_8b", "2023-07-01T10:15:30+00:00"),
    "rgb": (None, None),
    "sentinel-2-l2a": ("B04", "2023-07-01T10:25:59+00:00"),
}


def test_every_packaged_descriptor_is_tested_here():
    assert descriptor_names() == sorted(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_descriptor_loads_finds_its_example_and_says_what_it_is(name):
    descriptor = load_descriptor(name)
    key, date = EXAMPLES[name]
    (scene,) = described([f"/r/{descriptor.example}"], descriptor, root="/r", name=name).scenes
    assert scene.lacks is None
    assert scene.datetime == date
    if key is None:
        assert [w.number for w in scene.bands] == list(range(1, len(descriptor.bands) + 1))
    else:
        found = [w.band for w in scene.bands]
        assert found
        assert all(descriptor.places[band.name][0] == key for band in found)
    assert len(descriptor.description) > 20
    assert descriptor.description.endswith(".")
    for band in descriptor.bands:
        # Of light, of a height, or a class.
        assert band.common_name is not None or band.unit == "m" or band.name == "class"
        # A number without a unit would be a guess; so would be a unit without scale or offset.
        assert (band.scale is None) == (band.unit == "unknown")
        declares_offset = band.offset is not None or descriptor.radiometry == "sentinel-2"
        assert declares_offset == (band.unit != "unknown")
    if descriptor.quality is not None:
        assert descriptor.quality.mask
        assert set(descriptor.quality.mask) <= set(descriptor.quality.known.classes)


def wavelengths(name):
    found = load_descriptor(name).bands
    return {band.common_name: band.wavelength_nm for band in found if band.wavelength_nm}


@pytest.mark.parametrize("name", [name for name in EXAMPLES if wavelengths(name)])
def test_common_names_lie_at_their_wavelengths(name):
    # STAC's table of common names, in nanometres.
    ranges = {
        "coastal": (400, 450), "blue": (450, 530), "green": (510, 600), "green05": (510, 550),
        "yellow": (585, 625), "red": (620, 690), "rededge": (690, 790), "rededge071": (690, 730),
        "rededge075": (730, 760), "rededge078": (760, 790), "nir": (760, 1000),
        "nir08": (750, 900), "nir09": (850, 1050), "cirrus": (1350, 1400),
        "swir16": (1550, 1750), "swir22": (2080, 2350),
    }  # fmt: skip
    for common, wavelength_nm in wavelengths(name).items():
        low, high = ranges[common]
        assert low <= wavelength_nm <= high, common


# A made-up scene of each format, read as its users would read it


@pytest.mark.parametrize("name", ["landsat-c2-l2", "landsat-tm-c2-l2"])
def test_a_landsat_level_2_scene_is_reflectance_without_clouds_and_fill(tmp_path, name):
    product = {
        "landsat-c2-l2": "LC09_L2SP_193027_20230701_20230710_02_T1",
        "landsat-tm-c2-l2": "LE07_L2SP_193027_20050312_20200914_02_T2",
    }[name]
    bands = [b.name for b in load_descriptor(name).bands]
    for i, band in enumerate(bands):
        stored = numbers(start=7273 + 1000 * i)
        stored[0, 0] = 0
        write(tmp_path / product / f"{product}_{band}.TIF", stored, pixel_m=30.0)
    quality = np.full((8, 8), 21824, np.uint16)
    # Fill, cloud, cloud shadow, dilated cloud, cirrus; then snow and water, which stay.
    quality[1, :7] = [1, 22280, 23888, 21826, 54596, 30048, 21952]
    write(tmp_path / product / f"{product}_QA_PIXEL.TIF", quality, pixel_m=30.0)
    write(tmp_path / product / f"{product}_ST_B10.TIF", quality, pixel_m=30.0)
    index = index_of(tmp_path)
    assert band_names(index) == bands
    pixels, valid = read_all(index)
    expected = np.ones((8, 8), bool)
    expected[0, 0] = expected[1, :5] = False
    np.testing.assert_array_equal(valid, expected)
    # 7273 * 0.0000275 - 0.2 = 0.0000075: what Landsat stores for almost no reflectance.
    band = index.bands[0]
    assert (band.unit, band.scale, band.offset) == ("reflectance", 0.0000275, -0.2)
    assert pixels[0, 0, 1] * band.scale + band.offset == pytest.approx(7274 * 0.0000275 - 0.2)
    date = {"landsat-c2-l2": "2023-07-01", "landsat-tm-c2-l2": "2005-03-12"}[name]
    assert index.tiles[0].datetime == f"{date}T00:00:00+00:00"
    assert index.tiles[0].datetime_from == "file name"
    assert index.tiles[0].path.endswith(f"{product}/{product}")
    assert "1 rasters are not named as" in index.notes[1]
    assert f"{product}_ST_B10.TIF" in index.notes[1]


@pytest.mark.parametrize("name", ["hls-l30", "hls-s30"])
def test_an_hls_granule_is_reflectance_without_clouds(tmp_path, name):
    granule = f"HLS.{name[-3:].upper()}.T32UMD.2023182T101234.v2.0"
    bands = [b.name for b in load_descriptor(name).bands]
    for band in bands:
        stored = numbers(dtype="int16")
        stored[0, 0] = -9999
        write(tmp_path / granule / f"{granule}.{band}.tif", stored, pixel_m=30.0, nodata=-9999)
    fmask = np.full((8, 8), 0b11000000, np.uint8)
    # Fill, cloud, adjacent to cloud, cloud shadow; then snow and water, which stay.
    fmask[1, :6] = [255, 2, 4, 8, 16, 32]
    write(tmp_path / granule / f"{granule}.Fmask.tif", fmask, pixel_m=30.0)
    index = index_of(tmp_path)
    assert band_names(index) == bands
    expected = np.ones((8, 8), bool)
    expected[0, 0] = expected[1, :4] = False
    np.testing.assert_array_equal(read_all(index)[1], expected)
    assert {(b.unit, b.scale, b.offset) for b in index.bands} == {("reflectance", 0.0001, 0.0)}
    # Day 182 of 2023 is the first of July.
    assert index.tiles[0].datetime == "2023-07-01T10:12:34+00:00"


def test_a_landsat_level_1_scene_of_collection_1_is_digital_numbers(tmp_path):
    folder, scene = "LC08_L1TP_013032_20180131_20180207_01_T1", "LC08_L1TP_013032_20180131"
    for product in (scene, folder):  # as some tools rename them, and as USGS delivers them
        for band in ("B2", "B3", "B8", "B10"):
            write(tmp_path / product / f"{product}_{band}.TIF", numbers())
        quality = np.full((8, 8), 2720, np.uint16)
        quality[0, :4] = [1, 2800, 2976, 6816]
        write(tmp_path / product / f"{product}_BQA.TIF", quality)
    index = index_of(tmp_path)
    assert len(index.tiles) == 2
    assert band_names(index) == ["B2", "B3"]
    assert {(b.unit, b.scale, b.offset) for b in index.bands} == {("unknown", 1.0, 0.0)}
    # Fill and cloud are masked; shadow and cirrus are not, unless they are asked for.
    assert read_all(index)[1][0, :4].tolist() == [False, False, True, True]
    asked = index_of(tmp_path, mask=("cloud_shadow", "cirrus"))
    assert read_all(asked)[1][0, :4].tolist() == [True, True, False, False]
    assert read_all(index_of(tmp_path, mask=()))[1].all()
    assert "no scene has B1, B4, B5, B6, B7, B9" in index.notes


@pytest.mark.parametrize("suffix", ["", "_clip", "_harmonized", "_harmonized_clip"])
def test_a_planetscope_scene_finds_its_mask_whatever_was_done_to_it(tmp_path, suffix):
    scene = "20230701_101530_12_2475_3B"
    stored = np.stack([numbers(start=100 * i + 1) for i in range(8)])
    stored[:, 0, 0] = 0
    write(tmp_path / f"{scene}_AnalyticMS_SR_8b{suffix}.tif", stored, nodata=0)
    udm2 = np.zeros((8, 8, 8), np.uint8)
    udm2[0], udm2[6] = 1, 90  # clear, and confidence in percent
    # Snow and light haze stay; shadow, heavy haze, cloud and unusable pixels go.
    for column, band in enumerate((2, 4, 3, 5, 6, 8)):
        udm2[band - 1, 1, column] = 1
    write(tmp_path / f"{scene}_udm2{suffix.replace('_harmonized', '')}.tif", udm2)
    index = index_of(tmp_path)
    assert not index.bad
    assert band_names(index)[0] == "coastal"
    assert {(b.unit, b.scale, b.offset) for b in index.bands} == {("reflectance", 0.0001, 0.0)}
    pixels, valid = read_all(index)
    np.testing.assert_array_equal(pixels, stored)
    expected = np.ones((8, 8), bool)
    expected[0, 0] = expected[1, 2:6] = False
    np.testing.assert_array_equal(valid, expected)
    assert index.tiles[0].datetime == "2023-07-01T10:15:30+00:00"


def test_naip_reads_near_infrared_that_is_tagged_alpha_and_the_date_in_names(tmp_path):
    pixels = np.stack([numbers(dtype="uint8", start=10 * i) for i in range(4)])
    for name in ("m_3712213_ne_10_060_20200524.tif", "m_3712213_nw_10_h_20180701_20190210.tif"):
        write(tmp_path / name, pixels, photometric="RGB", alpha="YES")
    write(tmp_path / "loose.tif", pixels)
    index = index_of(tmp_path, dataset="naip")
    assert [b.common_name for b in index.bands] == ["red", "green", "blue", "nir"]
    assert index.rule.alpha == "band"
    whens = [t.datetime and t.datetime[:10] for t in index.tiles]
    assert whens == [None, "2020-05-24", "2018-07-01"]
    np.testing.assert_array_equal(read_all(index, 1)[0], pixels)


def test_any_picture_can_be_declared_to_be_red_green_and_blue(tmp_path):
    pixels = np.stack([numbers(dtype="uint8")] * 4)
    write(tmp_path / "a.tif", pixels)
    write(tmp_path / "b.png", pixels[:3], crs=None, transform=None)
    index = index_of(tmp_path, dataset="rgb")
    assert [b.common_name for b in index.bands] == ["red", "green", "blue"]
    assert len(index.tiles) == 2


# Descriptors of one's own


def mine(**values):
    """A small descriptor as a dataset.yaml holds it."""
    return {
        "description": "Two bands of my camera.",
        "files": r"(?P<date>\d{8})_(?P<band>red|nir)\.tif$",
        "example": "site/20230701_red.tif",
        "date_format": "%Y%m%d",
        "bands": [{"name": "red"}, {"name": "nir"}],
    } | values


def save(folder, values):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "dataset.yaml").write_text(
        values if isinstance(values, str) else yaml.safe_dump(values)
    )
    return folder


def test_a_folder_with_a_descriptor_is_a_source(tmp_path):
    save(tmp_path, mine(root="pixels"))
    for band, start in (("red", 1), ("nir", 101)):
        write(tmp_path / f"pixels/site/20230701_{band}.tif", numbers(start=start))
    for source in (tmp_path, tmp_path / "dataset.yaml"):
        index = index_of(source)
        assert band_names(index) == ["red", "nir"]
        assert read_all(index)[0][:, 0, 0].tolist() == [1, 101]
    declared = index_of(tmp_path / "pixels", dataset=str(tmp_path))
    assert declared.tiles[0].parts == index.tiles[0].parts


def test_where_files_lie_is_relative_to_the_descriptor_unless_it_is_an_address(tmp_path):
    path = tmp_path / "dataset.yaml"
    of = Descriptor.model_validate(mine())
    assert root_of(path, of) == str(tmp_path)
    assert root_of(path, of.model_copy(update={"root": "a/*.tif"})) == f"{tmp_path}/a/*.tif"
    assert root_of(path, of.model_copy(update={"root": "s3://b/c/"})) == "s3://b/c/"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"file": "x"}, "file: unknown key. Did you mean 'files'?"),
        ({"files": "(red"}, "files: not a regular expression (missing )"),
        ({"example": "a.tif"}, "example: the pattern of files does not find it"),
        ({"date_format": None}, "date_format: needed for the group date"),
        ({"grid": "red"}, "resampling: needed beside grid (nearest, bilinear or average)"),
        (
            {"grid": "rde", "resampling": "nearest"},
            "grid: there is no band 'rde'. Did you mean 'red'?",
        ),
        ({"bands": [{"name": "red"}, {"name": "red"}]}, "bands: two have the same name"),
        ({"bands": []}, "bands: there are none"),
        (
            {"bands": [{"name": "a", "file": "red"}, {"name": "b", "file": "red", "number": 1}]},
            "bands: two are the same band of the same file; give them a number",
        ),
        (
            {"bands": [{"name": "red", "common": "red"}]},
            "bands.0.common: unknown key. Did you mean 'common_name'?",
        ),
        ({"bands": [{"name": "red", "unit": "percent"}]}, "bands.0.unit: Input should be"),
        (
            {"quality": {"classes": "slc"}},
            "classes: there is no quality layer 'slc'. Did you mean 'scl'?",
        ),
        (
            {"quality": {"classes": "scl", "mask": ["clouds_high"]}},
            "mask: the layer has no class 'clouds_high'. Did you mean 'cloud_high'?",
        ),
        ({"quality": {"classes": "scl", "number": 0}}, "quality.number: Input should be greater"),
        ({"radiometry": "sentinel2"}, "radiometry: Input should be 'declared' or 'sentinel-2'"),
    ],
)  # fmt: skip
def test_every_kind_of_mistake_is_named(tmp_path, values, said):
    folder = save(tmp_path / "d", {k: v for k, v in mine(**values).items() if v is not None})
    with pytest.raises(SourceError) as error:
        load_descriptor(folder)
    text = str(error.value)
    assert text.startswith(f"{folder}/dataset.yaml is not a valid descriptor; 1 thing to fix:")
    assert said in text
    assert "recipes explain" not in text


def test_all_mistakes_come_at_once(tmp_path):
    folder = save(tmp_path, {"description": "x", "bands": [{"unit": "dB"}]})
    with pytest.raises(SourceError, match="3 things to fix") as error:
        load_descriptor(folder)
    for key in ("files: Field required", "example: Field required", "bands.0.name: Field"):
        assert key in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [1", "is not valid YAML"), ("- a\n- b", "holds no keys"), ("", "holds no keys")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, said):
    with pytest.raises(SourceError, match=said):
        load_descriptor(save(tmp_path, text))


def test_an_unknown_descriptor_is_refused_with_the_nearest_name():
    with pytest.raises(SourceError) as error:
        load_descriptor("sentinel-2")
    assert "There is no data set descriptor 'sentinel-2'." in str(error.value)
    assert "Did you mean 'sentinel-2-l2a'?" in str(error.value)
    assert "Known: hls-l30, hls-s30, landsat-c1-l1" in str(error.value)


def test_a_descriptor_is_found_by_name_folder_and_file(tmp_path):
    assert descriptor_path("rgb") == descriptor_folder() / "rgb" / "dataset.yaml"
    folder = save(tmp_path / "own", mine())
    other = (folder / "dataset.yaml").rename(folder / "two.yml")
    assert descriptor_path(other) == other
    save(folder, mine())
    assert descriptor_path(folder) == descriptor_path(str(folder / "dataset.yaml"))


def test_where_a_band_lies_follows_from_the_pattern():
    split = Descriptor.model_validate(
        mine(bands=[{"name": "r", "file": "red"}, {"name": "nir", "number": 3}])
    )
    assert split.places == {"r": ("red", 1), "nir": ("nir", 3)}
    stacked = Descriptor.model_validate(
        mine(
            files=r"\.tif$", example="a.tif",
            bands=[{"name": "r"}, {"name": "g"}, {"name": "nir", "number": 5}],
        )
    )  # fmt: skip
    assert stacked.places == {"r": (None, 1), "g": (None, 2), "nir": (None, 5)}
    both = [{"name": "r", "file": "red"}, {"name": "g", "file": "red"}, {"name": "nir"}]
    mixed = Descriptor.model_validate(mine(bands=both))
    assert mixed.places == {"r": ("red", 1), "g": ("red", 2), "nir": ("nir", 1)}


def test_what_the_user_declares_stands_above_the_descriptor(tmp_path):
    save(
        tmp_path,
        mine(
            nodata=0.0,
            bands=[
                {"name": "red", "unit": "reflectance", "scale": 0.001, "offset": 0.1},
                {"name": "nir", "unit": "reflectance", "scale": 0.001, "offset": 0.1},
            ],
        ),
    )
    for band in ("red", "nir"):
        write(tmp_path / f"20230701_{band}.tif", numbers(start=0), nodata=5)
    index = index_of(tmp_path)
    assert index.rule.nodata == 0.0
    assert [(b.scale, b.offset) for b in index.bands] == [(0.001, 0.1)] * 2
    own = index_of(tmp_path, nodata="tag", scale=0.5, offset=2.0)
    assert own.rule.nodata == "tag"
    assert [(b.scale, b.offset) for b in own.bands] == [(0.5, 2.0)] * 2


def test_bands_that_a_descriptor_names_cannot_be_named_again(tmp_path):
    save(tmp_path, mine())
    for band in ("red", "nir"):
        write(tmp_path / f"20230701_{band}.tif", numbers())
    with pytest.raises(BandError, match=r"data\.band_names names the bands of files that do not"):
        index_of(tmp_path, band_names=("a", "b"))
