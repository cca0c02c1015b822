"""`geodino predict --applicability`: how far the ground is from what the model was trained on."""

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from heights_support import save_small_canopy
from rasterio.transform import from_origin
from tests_support import textured, write_tile

import geodino
from geodino.cli.main import main
from geodino.errors import CheckpointError
from geodino.infer.heights import between_patches
from geodino.metrics.conformal import ResidualIntervals
from geodino.models.canopy_open import open_canopy
from geodino.runs.predict import PredictJob, predict
from geodino.tasks.canopy.applicability import load_applicability

PATCH = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_canopy(tmp_path_factory.mktemp("models") / "small", ground=True)


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    """A scene of several supertiles, with a hole and a collar of nodata."""
    pixels = np.maximum(np.tile(textured(3), (1, 3, 3))[:, :260, :210], 1)
    pixels[:, 120:150, 70:160] = 0
    pixels[:, :, :20] = 0
    return write_tile(tmp_path_factory.mktemp("scenes") / "scene.tif", pixels, nodata=0)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("geodino.io.cog.layout.BLOCK", 64)
    monkeypatch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 128)


def run(model, out, *rasters, applicability=True, **options):
    job = PredictJob(
        rasters=tuple(map(str, rasters)), model=str(model), out=out, quiet=True, device="cpu",
        applicability=applicability, **options,
    )  # fmt: skip
    return predict(job)


@pytest.fixture(scope="module")
def whole(model, tile, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geodino.io.cog.layout.BLOCK", 64)
        patch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 128)
        out = tmp_path_factory.mktemp("maps") / "map.tif"
        return out, run(model, out, tile)


def bands_and_tags(path):
    with rasterio.open(path) as found:
        tags = {k: v for k, v in found.tags().items() if k != "GEODINO_COMMAND"}
        return found.read(), tags


def test_the_last_band_is_the_distance_and_the_heights_stay_as_they_are(
    model, tile, whole, tmp_path
):
    run(model, tmp_path / "plain.tif", tile, applicability=False)
    with rasterio.open(whole[0]) as found, rasterio.open(tmp_path / "plain.tif") as plain:
        assert found.descriptions == ("height", "dissimilarity")
        assert found.units == ("m", None)
        bands, heights = found.read(), plain.read(1)
        tags = found.tags()
        assert "GEODINO_DISSIMILARITY" not in plain.tags()
    np.testing.assert_array_equal(bands[0], heights)
    np.testing.assert_array_equal(np.isfinite(bands[1]), np.isfinite(heights))
    assert "without a unit" in tags["GEODINO_DISSIMILARITY"]
    share = np.mean(bands[1][np.isfinite(heights)] > 1)
    assert float(tags["GEODINO_DISSIMILAR_SHARE"]) == pytest.approx(share, abs=1e-6)
    assert whole[1]["dissimilar_share"] == pytest.approx(share, abs=1e-4)
    assert 0 < share < 1
    # What shows the map shows heights.
    for ending in (".qml", ".png"):
        shown, expected = (p.with_suffix(ending) for p in (whole[0], tmp_path / "plain.tif"))
        assert shown.read_bytes() == expected.read_bytes()


def test_at_the_middle_of_a_chip_it_is_interpolated_between_the_tokens(model, tile, whole):
    with rasterio.open(tile) as source:
        pixels = torch.from_numpy(source.read()[:, 48:112, 48:112])
        valid = torch.from_numpy(source.read_masks(1)[48:112, 48:112] > 0)
    assert valid.all()
    backbone = open_canopy(model).model.backbone
    with torch.inference_mode():
        tokens = backbone.tokens(pixels[None].float(), valid[None]).patches
        by_patch = load_applicability(model).distances(tokens).reshape(8, 8).numpy()
    # Linear between the centres of patches, along one axis after the other.
    places = (np.arange(64) + 0.5) / PATCH - 0.5
    across = np.stack([np.interp(places, np.arange(8), row) for row in by_patch])
    expected = np.stack([np.interp(places, np.arange(8), column) for column in across.T]).T
    with rasterio.open(whole[0]) as found:
        middle = found.read(2)[48 + 12 : 112 - 12, 48 + 12 : 112 - 12]
    np.testing.assert_allclose(middle, expected[12:-12, 12:-12], rtol=1e-4)


def test_shards_and_memory_change_neither_a_pixel_nor_the_share(
    model, tile, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr("geodino.runs.mapping.parts.columns_for", lambda *a, **k: 1)
    for number in (3, 1, 2):
        run(model, tmp_path / "map.tif", tile, shard=(number, 3))
    facts = run(model, tmp_path / "map.tif", tile, assemble=True)
    bands, tags = bands_and_tags(tmp_path / "map.tif")
    expected, said = bands_and_tags(whole[0])
    np.testing.assert_array_equal(bands, expected)
    assert tags == said
    assert facts["dissimilar_share"] == whole[1]["dissimilar_share"]


def test_an_area_changes_no_pixel_in_it_and_the_share_is_of_the_area(model, tile, whole, tmp_path):
    with rasterio.open(tile) as source:
        left, top = source.transform @ (40, 30)
        right, bottom = source.transform @ (150, 170)
        frame = geopandas.GeoDataFrame(
            geometry=[shapely.box(left, bottom, right, top)], crs=source.crs
        )
    frame.to_file(tmp_path / "area.geojson")
    run(model, tmp_path / "part.tif", tile, aoi=tmp_path / "area.geojson")
    found, tags = bands_and_tags(tmp_path / "part.tif")
    expected, _ = bands_and_tags(whole[0])
    inside = np.isfinite(found[0])
    assert 0 < inside.mean() < 0.5
    np.testing.assert_array_equal(found[:, inside], expected[:, inside])
    share = np.mean(expected[1][inside] > 1)
    assert float(tags["GEODINO_DISSIMILAR_SHARE"]) == pytest.approx(share, abs=1e-6)


def test_it_stands_behind_the_interval_and_is_stored_in_hundredths(tile, whole, tmp_path):
    calibrated = ResidualIntervals(
        coverage=0.9, sites=12, pixels=1000, height_m=(0.0, 40.0), scale_m=(1.0, 5.0), factor=2.0
    )
    extra = {"chip": 64, "overlap": 16, "intervals": calibrated.model_dump(mode="json")}
    model = save_small_canopy(tmp_path / "model", extra=extra, ground=True)
    run(model, tmp_path / "map.tif", tile, dtype="uint16", symmetries="none")
    expected, _ = bands_and_tags(whole[0])
    with rasterio.open(tmp_path / "map.tif") as found:
        assert found.descriptions == ("height", "lower", "upper", "dissimilarity")
        assert found.scales == (0.01,) * 4
        stored = found.read(4)
    valid = np.isfinite(expected[1])
    np.testing.assert_array_equal(stored[~valid], 65535)
    np.testing.assert_array_equal(stored[valid], np.rint(expected[1][valid] * 100))


def test_at_another_resolution_and_over_orientations_it_has_the_grid_of_the_map(model, tmp_path):
    fine = tmp_path / "fine.tif"
    with rasterio.open(
        fine, "w", driver="GTiff", width=192, height=192, count=3, dtype="uint8", crs="EPSG:32632",
        transform=from_origin(500_000, 5_400_000, 0.3, 0.3), photometric="RGB",
    ) as target:  # fmt: skip
        target.write(np.maximum(textured(4), 1).repeat(2, axis=1).repeat(2, axis=2))
    run(model, tmp_path / "map.tif", fine, gsd_m=0.6, symmetries="flips")
    bands, _ = bands_and_tags(tmp_path / "map.tif")
    assert bands.shape == (2, 192, 192)
    assert np.isfinite(bands).all()
    assert (bands[1] > 0).all()


def test_in_memory_it_is_that_of_the_file(model, tile, whole):
    found = geodino.load(model).predict(tile, device="cpu", applicability=True)
    expected, _ = bands_and_tags(whole[0])
    np.testing.assert_array_equal(found.values, expected)
    assert list(found.band.values) == ["height", "dissimilarity"]
    assert "held-out" in found.attrs["dissimilarity"]


def test_a_model_that_keeps_no_ground_is_refused_in_a_sentence(
    model, tile, tmp_path, monkeypatch, capsys
):
    bare = save_small_canopy(tmp_path / "bare")
    command = ["predict", str(tile), "--model", str(bare), "--out", str(tmp_path / "map.tif")]
    monkeypatch.setattr("sys.argv", ["geodino", *command, "--applicability", "--device", "cpu"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "keeps no features of its training ground" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="leave --applicability out"):
        geodino.load(bare).predict(tile, device="cpu", applicability=True)
    kept = load_applicability(model)
    type(kept)(tokens=kept.tokens[:, :5], scales=kept.scales, unit=kept.unit).save(bare)
    with pytest.raises(CheckpointError, match="holds features of width 5"):
        run(bare, tmp_path / "map.tif", tile)


def test_a_map_of_other_bands_is_not_taken_for_this_one(model, tile, whole, tmp_path):
    run(model, tmp_path / "map.tif", tile, applicability=False)
    with pytest.raises(geodino.errors.RunError, match="exists: nothing was changed"):
        run(model, tmp_path / "map.tif", tile, resume=True)


def test_a_patch_counts_by_its_valid_pixels():
    values = torch.tensor([[[2.0, 6.0], [50.0, 6.0]]])
    valid = torch.ones((1, 8, 8), dtype=torch.bool)
    valid[:, 4:, :4] = False  # the patch of 50 shows nothing
    found = between_patches(values, valid, patch=4)[0, 0]
    assert (found[0, 0], found[0, 7]) == (2.0, 6.0)
    # Row 4, column 3: 1/8 below the middle of the rows, 1/8 left of that of the columns. Weights
    # of the four patches: 3/8 and 5/8 down, 5/8 and 3/8 across; the lower left one drops out.
    weights = np.array([3 / 8 * 5 / 8, 3 / 8 * 3 / 8, 5 / 8 * 3 / 8])
    assert float(found[4, 3]) == pytest.approx(weights @ [2, 6, 6] / weights.sum(), rel=1e-5)
    valid[:, :4, :4] = False
    valid[:, 0, 0] = True  # one of sixteen pixels
    found = between_patches(values, valid, patch=4)[0, 0]
    weights = np.array([3 / 8 * 5 / 8 / 16, 3 / 8 * 3 / 8, 5 / 8 * 3 / 8])
    assert float(found[4, 3]) == pytest.approx(weights @ [2, 6, 6] / weights.sum(), rel=1e-5)
    nothing = between_patches(values, torch.zeros_like(valid), patch=4)
    assert (nothing == 0).all()


def test_heights_and_tokens_come_from_one_pass(model):
    canopy = open_canopy(model).model
    image = torch.from_numpy(textured(1)[None, :, :50, :75])
    passes = []
    canopy.backbone.trunk.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    with torch.inference_mode():
        maps, tokens = canopy.maps_and_tokens(image)
        assert passes == [1]
        torch.testing.assert_close(maps, canopy(image), rtol=0, atol=0)
        padded = torch.nn.functional.pad(image, (0, 5, 0, 6))
        valid = torch.ones((1, 56, 80), dtype=torch.bool)
        valid[:, 50:], valid[:, :, 75:] = False, False
        expected = canopy.backbone.tokens(padded, valid)
    assert tokens.grid == (7, 10)
    torch.testing.assert_close(tokens.patches, expected.patches)
