"""STAC documents as sources: hrefs, bands, offsets, quality layers, and documents of other kinds."""

import json

import numpy as np
import pytest
from scene_support import band_names, index_of, numbers, read_all, write

from geodino.data.sources.descriptor import Descriptor, load_descriptor
from geodino.data.sources.stac import stac_scenes
from geodino.errors import BandError, SourceError

WHEN = "2023-07-01T10:25:59Z"
TIFF, COG, JP2 = (
    "image/tiff",
    "image/tiff; application=geotiff; profile=cloud-optimized",
    "image/jp2",
)


def item(name="x", *, assets, version="1.0.0", links=(), **properties):
    return {
        "type": "Feature",
        "stac_version": version,
        "stac_extensions": [],
        "id": name,
        "geometry": None,
        "properties": {"datetime": WHEN} | properties,
        "links": list(links),
        "assets": assets,
    }


def asset(href, *bands, kind=TIFF, roles=("data",), **fields):
    """An asset of STAC 1.0: a mapping a band for eo:bands, its raster:bands under ``raster``."""
    named = [{k: v for k, v in b.items() if k != "raster"} for b in bands]
    stored = [b.get("raster", {}) for b in bands]
    described = {"eo:bands": named} if bands else {}
    if any(stored):
        described["raster:bands"] = stored
    return {"href": href, "type": kind, "roles": list(roles)} | described | fields


def band(name, common=None, **raster):
    return {"name": name} | ({"common_name": common} if common else {}) | (
        {"raster": raster} if raster else {}
    )  # fmt: skip


def save(path, *items):
    """Write an ItemCollection, or the one item as it is where the path says so."""
    text = items[0] if path.name.startswith("item") else {
        "type": "FeatureCollection", "features": list(items)
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(text))
    return path


def scenes_of(path, descriptor=None, **how):
    return stac_scenes(str(path), descriptor, **how)[0]


RED = band("B04", "red", scale=0.0001, offset=-0.1, unit="reflectance")
NIR = band("B08", "nir", scale=0.0001, offset=-0.1, unit="reflectance")


# Documents and hrefs


@pytest.mark.parametrize("name", ["items.json", "item.geojson", "deep/folder/item.json"])
def test_hrefs_are_relative_to_the_document_wherever_an_item_once_lay(tmp_path, name):
    # Downloaded documents keep links to where they came from; nothing is fetched from there.
    came_from = {"rel": "self", "href": "https://host/catalogue/x.json"}
    here = (tmp_path / name).parent
    write(here / "a/red.tif", numbers())
    path = save(tmp_path / name, item(assets={"red": asset("./a/red.tif", RED)}, links=[came_from]))
    (scene,) = scenes_of(path)
    assert [w.path for w in scene.bands] == [f"{here}/a/red.tif"]
    index = index_of(path)
    assert index.tiles[0].path == f"{path}#x"
    np.testing.assert_array_equal(read_all(index)[0][0], numbers())


def test_absolute_hrefs_stay_as_they_are(tmp_path):
    path = save(
        tmp_path / "i.json",
        item("a", assets={"red": asset(f"{tmp_path}/r.tif", RED)}),
        item("b", assets={"red": asset("https://host/r.tif", RED)}),
    )
    paths = [scene.bands[0].path for scene in scenes_of(path)]
    assert paths == [f"{tmp_path}/r.tif", "https://host/r.tif"]


def test_a_document_is_found_from_any_folder(tmp_path, monkeypatch):
    write(tmp_path / "red.tif", numbers())
    save(tmp_path / "i.json", item(assets={"red": asset("red.tif", RED)}))
    monkeypatch.chdir(tmp_path)
    assert scenes_of("i.json")[0].bands[0].path == f"{tmp_path}/red.tif"


def test_a_static_catalogue_is_walked_to_its_items(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}/red.tif", numbers())
        save(tmp_path / f"{name}/item.json", item(name, assets={"red": asset("red.tif", RED)}))
    (tmp_path / "catalog.json").write_text(
        json.dumps(
            {
                "type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "c",
                "links": [{"rel": "item", "href": f"./{n}/item.json"} for n in "ba"],
            }
        )
    )  # fmt: skip
    found = [(s.name.rsplit("#")[1], s.bands[0].path) for s in scenes_of(tmp_path / "catalog.json")]
    assert found == [("a", f"{tmp_path}/a/red.tif"), ("b", f"{tmp_path}/b/red.tif")]


def test_dates_are_those_of_items(tmp_path):
    interval = {"datetime": None, "start_datetime": "2020-01-01T00:00:00Z",
                "end_datetime": "2020-02-01T00:00:00Z"}  # fmt: skip
    red = {"red": asset("r.tif", RED)}
    path = save(tmp_path / "i.json", item("a", assets=red), item("b", assets=red, **interval))
    assert [(s.datetime, s.datetime_from) for s in scenes_of(path)] == [
        ("2023-07-01T10:25:59+00:00", "stac item"),
        ("2020-01-01T00:00:00+00:00", "stac item"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[1, 2]",
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": null}]}',
        '{"type": "FeatureCollection", "features": [{"type": "Polygon"}]}',
        '{"rows": 3}',
    ],
)
def test_documents_of_other_kinds_are_refused_by_name(tmp_path, text):
    path = tmp_path / "area.geojson"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"area\.geojson (cannot be read as|is) a STAC document"):
        index_of(path)


def test_no_items_no_file_and_no_bands_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"e\.json is a STAC document without items"):
        index_of(save(tmp_path / "e.json"))
    with pytest.raises(SourceError, match=r"nowhere\.json does not exist"):
        index_of(tmp_path / "nowhere.json")
    bare = save(tmp_path / "b.json", item(assets={"B4": asset("r.tif"), "B5": asset("n.tif")}))
    with pytest.raises(SourceError) as error:
        index_of(bare)
    assert str(error.value) == (
        f"No asset of the item x in {bare} describes its bands (eo:bands). It has B4, B5. Declare "
        "them with a descriptor (data.dataset), whose bands name asset keys in `file`."
    )


# Bands


def test_eo_bands_and_raster_bands_say_what_a_band_is(tmp_path):
    write(tmp_path / "r.tif", numbers())
    write(tmp_path / "n.tif", numbers(start=100))
    assets = {"red": asset("r.tif", RED | {"center_wavelength": 0.665}), "nir": asset("n.tif", NIR)}
    index = index_of(save(tmp_path / "i.json", item(assets=assets)))
    red, nir = index.bands
    # Named by the asset's key.
    assert (red.name, red.common_name, red.wavelength_nm) == ("red", "red", 665)
    assert (red.unit, red.scale, red.offset) == ("reflectance", 0.0001, -0.1)
    assert (nir.common_name, nir.wavelength_nm) == ("nir", None)
    assert read_all(index)[0][:, 0, 0].tolist() == [1, 100]


def test_bands_of_stac_1_1_are_read_with_what_their_asset_says_of_all(tmp_path):
    write(tmp_path / "rn.tif", np.stack([numbers(), numbers(start=100)]))
    bands = [
        {"name": "B04", "eo:common_name": "red", "eo:center_wavelength": 0.665},
        {"name": "B08", "eo:common_name": "nir", "raster:offset": 0.0},
    ]
    image = {"href": "rn.tif", "type": TIFF, "bands": bands, "unit": "reflectance",
             "raster:scale": 0.0001, "raster:offset": -0.1}  # fmt: skip
    index = index_of(save(tmp_path / "i.json", item(assets={"img": image}, version="1.1.0")))
    assert band_names(index) == ["B04", "B08"]
    assert [b.common_name for b in index.bands] == ["red", "nir"]
    assert index.bands[0].wavelength_nm == 665
    assert [(b.unit, b.scale, b.offset) for b in index.bands] == [
        ("reflectance", 0.0001, -0.1), ("reflectance", 0.0001, 0.0),
    ]  # fmt: skip
    assert read_all(index)[0][:, 0, 0].tolist() == [1, 100]


def test_an_asset_that_names_none_of_its_bands_is_no_image(tmp_path):
    # STAC 1.1 gives bands to all rasters: here an aerosol map and a scene classification.
    image = {"href": "r.tif", "bands": [{"name": "B04", "eo:common_name": "red"}]}
    aerosol = {"href": "aot.tif", "bands": [{"data_type": "uint16"}]}
    classes = {"href": "scl.tif", "bands": [{"name": "SCL"}]}
    path = save(
        tmp_path / "i.json",
        item(assets={"aot": aerosol, "scl": classes, "red": image}, version="1.1.0"),
    )
    (scene,) = scenes_of(path)
    assert [w.path for w in scene.bands] == [f"{tmp_path}/r.tif"]


def test_several_bands_of_one_asset_are_named_by_themselves(tmp_path):
    write(tmp_path / "img.tif", np.stack([numbers(start=s) for s in (1, 101, 201)]))
    image = asset("img.tif", band("b", "blue"), band("g", "green"), {"common_name": "red"})
    index = index_of(save(tmp_path / "i.json", item(assets={"img": image})))
    assert band_names(index) == ["b", "g", "img_3"]
    assert [b.common_name for b in index.bands] == ["blue", "green", "red"]
    assert read_all(index)[0][:, 0, 0].tolist() == [1, 101, 201]


@pytest.mark.parametrize("cog_first", [True, False])
def test_a_geotiff_is_taken_before_the_same_band_as_jpeg_2000(tmp_path, cog_first):
    both = [
        ("red", asset("r.tif", RED, kind=COG)),
        ("red-jp2", asset("r.jp2", RED, kind=JP2)),
    ]
    assets = dict(both if cog_first else both[::-1])
    (scene,) = scenes_of(save(tmp_path / "i.json", item(assets=assets)))
    assert [w.path for w in scene.bands] == [f"{tmp_path}/r.tif"]
    assert scene.bands[0].band.name == "red"


@pytest.mark.parametrize("order", [(10, 20, 60), (60, 20, 10), (20, 10, 60)])
def test_of_several_resolutions_the_finest_is_taken(tmp_path, order):
    assets = {f"B04_{m}m": asset(f"{m}.jp2", RED, kind=JP2, gsd=m) for m in order}
    (scene,) = scenes_of(save(tmp_path / "i.json", item(assets=assets)))
    assert [w.path for w in scene.bands] == [f"{tmp_path}/10.jp2"]


@pytest.mark.parametrize(
    ("key", "roles"),
    [("visual", ["data"]), ("pic", ["visual"]), ("thumbnail", ["data"]), ("p", ["overview"]),
     ("pic", ["thumbnail", "data"]), ("preview", [])],
)  # fmt: skip
def test_pictures_for_the_eye_hold_no_measurements(tmp_path, key, roles):
    # The picture comes first and calls its bands as the measurements do.
    assets = {
        key: asset("tci.tif", band("B04", "red"), band("B08", "nir"), roles=roles, kind=COG),
        "B04": asset("r.tif", RED),
        "B08": asset("n.tif", NIR),
    }
    (scene,) = scenes_of(save(tmp_path / "i.json", item(assets=assets)))
    assert [w.path for w in scene.bands] == [f"{tmp_path}/r.tif", f"{tmp_path}/n.tif"]


def test_an_asset_that_is_not_there_makes_its_scene_bad_and_is_named(tmp_path):
    write(tmp_path / "r.tif", numbers())
    path = save(
        tmp_path / "i.json",
        item("a", assets={"red": asset("r.tif", RED)}),
        item("b", assets={"red": asset("gone.tif", RED)}),
    )
    index = index_of(path)
    assert [tile.path for tile in index.tiles] == [f"{path}#a"]
    ((name, why),) = index.bad
    assert name == f"{path}#b"
    assert f"{tmp_path}/gone.tif does not exist" in why


# Sentinel-2's offset


@pytest.mark.parametrize(
    ("properties", "offset"),
    [
        ({"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.09"}, 0.0),
        ({"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "05.09"}, -0.1),
        ({"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "03.01"}, 0.0),
        ({"earthsearch:boa_offset_applied": False}, -0.1),
        ({"boa_offset_applied": True}, 0.0),
        ({"s2:processing_baseline": "04.00"}, -0.1),
        ({"s2:processing_baseline": "02.14"}, 0.0),
    ],
)
def test_the_offset_is_what_is_left_in_the_pixels(tmp_path, properties, offset):
    # Whatever raster:bands says: some catalogues took the offset off and left it there.
    wrong = band("B04", "red", scale=0.0001, offset=-0.1 - offset)
    write(tmp_path / "r.tif", numbers())
    path = save(tmp_path / "i.json", item(assets={"red": asset("r.tif", wrong)}, **properties))
    index = index_of(path)
    assert (index.bands[0].scale, index.bands[0].offset) == (0.0001, offset)
    assert index.notes[0].startswith(f"Sentinel-2 offset {offset:g} (")


def test_items_with_and_without_the_offset_are_brought_together(tmp_path):
    write(tmp_path / "a.tif", numbers(start=1))
    write(tmp_path / "b.tif", numbers(start=1001))
    index = index_of(
        save(
            tmp_path / "i.json",
            item("a", assets={"red": asset("a.tif", RED)}, boa_offset_applied=True),
            item("b", assets={"red": asset("b.tif", RED)}, boa_offset_applied=False),
        )
    )
    np.testing.assert_array_equal(read_all(index, 0)[0], read_all(index, 1)[0])


def test_without_such_properties_the_bands_are_believed(tmp_path):
    write(tmp_path / "r.tif", numbers())
    index = index_of(save(tmp_path / "i.json", item(assets={"red": asset("r.tif", RED)})))
    assert (index.bands[0].scale, index.bands[0].offset) == (0.0001, -0.1)
    assert index.notes == ()


# Quality layers


def test_a_known_quality_layer_is_used_where_classes_are_asked_for(tmp_path):
    write(tmp_path / "r.tif", numbers(4, 4))
    scl = np.full((2, 2), 4, np.uint8)
    scl[0, 1] = 9
    write(tmp_path / "scl.tif", scl, pixel_m=20.0)
    assets = {"red": asset("r.tif", RED), "scl": asset("scl.tif")}
    path = save(tmp_path / "i.json", item(assets=assets))
    assert read_all(index_of(path))[1].all()
    expected = np.ones((4, 4), bool)
    expected[:2, 2:] = False
    np.testing.assert_array_equal(read_all(index_of(path, mask=("cloud_high",)))[1], expected)
    with pytest.raises(BandError, match="Did you mean 'cloud_high'"):
        index_of(path, mask=("clouds_high",))


# Descriptors


def landsat_item(folder, name, keys=("SR_B2", "SR_B3", "SR_B4", "qa")):
    """An item whose assets are keyed by the names of Landsat's files."""
    assets = {}
    for i, key in enumerate(keys):
        write(folder / f"{name}_{key}.tif", numbers(start=10_000 + 100 * i))
        assets["QA_PIXEL" if key == "qa" else key] = asset(f"{name}_{key}.tif")
    return item(name, assets=assets)


def test_a_descriptor_names_assets_by_key(tmp_path):
    path = save(
        tmp_path / "i.json",
        landsat_item(tmp_path, "a"),
        landsat_item(tmp_path, "b", ("SR_B2", "SR_B3", "SR_B4")),
    )
    index = index_of(path, dataset="landsat-c2-l2", mask=())
    assert band_names(index) == ["SR_B2", "SR_B3", "SR_B4"]
    assert {(b.unit, b.scale, b.offset) for b in index.bands} == {("reflectance", 2.75e-5, -0.2)}
    assert "no item has SR_B1, SR_B5, SR_B6, SR_B7" in index.notes
    note = "1 of 2 scenes have no quality layer: nothing is masked there"
    assert note in index.notes
    assert scenes_of(path, load_descriptor("landsat-c2-l2"))[0].quality[0].endswith("a_qa.tif")


def test_an_item_without_a_band_that_others_have_is_bad_unless_it_is_not_asked_for(tmp_path):
    path = save(
        tmp_path / "i.json",
        landsat_item(tmp_path, "a"),
        landsat_item(tmp_path, "b", ("SR_B2", "SR_B3", "qa")),
    )
    index = index_of(path, dataset="landsat-c2-l2", mask=())
    assert len(index.tiles) == 1
    assert f"{path}#b has no file for SR_B4 (it has SR_B2, SR_B3, QA_PIXEL)" in index.bad[0][1]
    chosen = index_of(path, dataset="landsat-c2-l2", mask=(), bands=("green", "SR_B2"))
    assert len(chosen.tiles) == 2
    assert band_names(chosen) == ["SR_B3", "SR_B2"]


def test_a_descriptor_finds_bands_by_common_name_where_keys_differ(tmp_path):
    # As Earth Search calls Sentinel-2's assets; two red edges have one name, so neither is taken.
    write(tmp_path / "r.tif", numbers())
    write(tmp_path / "scl.tif", np.full((8, 8), 4, np.uint8))
    assets = {
        "red": asset("r.tif", band("red", "red")),
        "rededge1": asset("r.tif", band("rededge1", "rededge")),
        "rededge2": asset("r.tif", band("rededge2", "rededge")),
        "scl": asset("scl.tif"),
    }
    properties = {"earthsearch:boa_offset_applied": True}
    path = save(tmp_path / "i.json", item(assets=assets, **properties))
    index = index_of(path, dataset="sentinel-2-l2a")
    assert band_names(index) == ["B04"]
    (red,) = index.bands
    assert (red.common_name, red.wavelength_nm, red.unit) == ("red", 665, "reflectance")
    assert (red.scale, red.offset) == (0.0001, 0.0)
    assert index.tiles[0].quality is not None


def test_what_the_item_says_stays_where_the_descriptor_says_nothing(tmp_path):
    mine = Descriptor.model_validate(
        {"description": "Mine.", "files": "x", "example": "x",
         "bands": [{"name": "R", "common_name": "red"}, {"name": "N", "common_name": "nir",
                    "scale": 0.5, "unit": "K"}]}
    )  # fmt: skip
    assets = {"a": asset("r.tif", RED), "b": asset("n.tif", NIR)}
    (scene,) = scenes_of(save(tmp_path / "i.json", item(assets=assets)), mine)
    red, nir = (w.band for w in scene.bands)
    assert (red.name, red.unit, red.scale, red.offset) == ("R", "reflectance", 0.0001, -0.1)
    assert (nir.name, nir.unit, nir.scale, nir.offset) == ("N", "K", 0.5, -0.1)


def test_an_offset_that_the_descriptor_declares_stands_above_the_item(tmp_path):
    mine = Descriptor.model_validate(
        {"description": "Mine.", "files": "x", "example": "x",
         "bands": [{"name": "red", "scale": 0.0001, "offset": 0.0}, {"name": "nir"}]}
    )  # fmt: skip
    assets = {"red": asset("r.tif", RED), "nir": asset("n.tif", NIR)}
    properties = {"s2:processing_baseline": "05.09"}
    (scene,) = scenes_of(save(tmp_path / "i.json", item(assets=assets, **properties)), mine)
    assert [w.band.offset for w in scene.bands] == [0.0, -0.1]


def test_a_descriptor_that_fits_no_item_is_refused_with_the_assets_there_are(tmp_path):
    path = save(tmp_path / "i.json", item(assets={"pan": asset("p.tif")}))
    with pytest.raises(SourceError, match=r"No item of .* the assets of x are pan\. Name asset"):
        index_of(path, dataset="landsat-c2-l2")


def test_a_sentinel_item_that_says_nothing_of_its_offset_is_refused(tmp_path):
    write(tmp_path / "B04.tif", numbers())
    path = save(tmp_path / "i.json", item(assets={"B04": asset("B04.tif")}))
    with pytest.raises(BandError, match=r"data\.offset: -0\.1"):
        index_of(path, dataset="sentinel-2-l2a", mask=())
    assert index_of(path, dataset="sentinel-2-l2a", offset=-0.1).bands[0].offset == -0.1
