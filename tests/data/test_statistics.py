"""Statistics over valid pixels: numpy's own numbers, whatever lies under the invalid ones."""

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp

from geodino.data.config import DataConfig, StatisticsConfig
from geodino.data.index import build_index, load_index, save_index
from geodino.data.statistics import PERCENTILES, contract, measure, measure_source
from geodino.errors import SourceError
from geodino.geo.contract import InputContract

AUTO = DataConfig()


def write(path, pixels, *, mask=None, colors=None, **profile):
    count, height, width = pixels.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"),
        rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width,
            dtype=pixels.dtype, **profile,
        ) as out,
    ):  # fmt: skip
        out.write(pixels)
        if colors:
            out.colorinterp = [ColorInterp[c] for c in colors]
        if mask is not None:
            out.write_mask(mask)
    return path


def measured(src, config=AUTO, threads=2):
    return measure(build_index(src, config, threads=threads), config, threads=threads)


def random(dtype, shape=(3, 70, 90), seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return (rng.normal(300, 5, shape) * rng.choice([-1, 1, 1e3], shape)).astype(dtype)
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -30_000), min(limits.max, 60_000)
    return rng.integers(low, high, shape, endpoint=True).astype(dtype)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)
@pytest.mark.parametrize("side", [16, 1024], ids=["many windows", "one window"])
def test_mean_and_deviation_are_numpys_on_the_whole_array(tmp_path, dtype, side):
    parts = [random(dtype, seed=i) for i in range(3)]
    for i, part in enumerate(parts):
        write(tmp_path / f"{i}.tif", part, tiled=True, blockxsize=16, blockysize=32)
    found = measured(tmp_path, DataConfig(super_window=side))
    whole = np.concatenate([part.reshape(3, -1) for part in parts], axis=1).astype(np.float64)
    np.testing.assert_allclose(found.mean, whole.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.std, whole.std(axis=1), rtol=1e-6)
    assert found.low == tuple(whole.min(axis=1))
    assert found.high == tuple(whole.max(axis=1))
    assert found.pixels == (whole.shape[1],) * 3
    assert (found.valid_all, found.valid_any, found.is_complete) == (1.0, 1.0, True)
    is_exact = np.dtype(dtype).itemsize <= 2
    assert (found.percentile_error == 0) == is_exact
    for p in PERCENTILES:
        np.testing.assert_allclose(
            found.percentiles[p],
            np.percentile(whole, p, axis=1),
            rtol=1e-12 if is_exact else found.percentile_error,
        )


FILLS = {
    "uint8": [0, 255, 7],
    "uint16": [0, 65535, 7],
    "int16": [0, -9999, 32767],
    "float32": [0, -9999, np.nan, np.inf, 65535, -3.4e38],
    "float64": [0, -9999, np.nan, -1.8e308],
}


@given(
    dtype=st.sampled_from(sorted(FILLS)),
    seed=st.integers(0, 2**16),
    share=st.sampled_from([0.02, 0.5, 0.98]),
    valid=st.sampled_from(["all", "any"]),
)
@settings(max_examples=15)
def test_what_lies_under_invalid_pixels_changes_no_bit(tmp_path_factory, dtype, seed, share, valid):
    folder = tmp_path_factory.mktemp("fill")
    rng = np.random.default_rng(seed)
    pixels = random(dtype, (2, 24, 40), seed=seed)
    mask = rng.random((24, 40)) < share
    mask[0, 0] = True
    config = DataConfig(super_window=16, valid=valid)
    results = []
    for fill in [None, *FILLS[dtype]]:
        filled = pixels.copy() if fill is None else np.where(mask, pixels, fill).astype(dtype)
        write(folder / "t.tif", filled, mask=mask, tiled=True, blockxsize=16, blockysize=16)
        results.append(measured(folder, config))
    assert all(result == results[0] for result in results)
    np.testing.assert_allclose(results[0].valid_all, mask.mean())


def test_a_nan_hole_is_left_out_like_a_mask(tmp_path):
    pixels = random("float32")
    hole = np.random.default_rng(1).random(pixels.shape[1:]) < 0.3
    write(tmp_path / "m/t.tif", pixels, mask=~hole)
    write(tmp_path / "n/t.tif", np.where(hole, np.float32(np.nan), pixels))
    assert measured(tmp_path / "m") == measured(tmp_path / "n")


def test_any_and_all_choose_the_pixels_that_count(tmp_path):
    # Band 1: 1 2 _ _ ; band 2: 5 _ 7 _ (invalid: 0). All: the first pixel; any: three.
    pixels = np.array([[[1, 2, 0, 0]], [[5, 0, 7, 0]]], dtype=np.uint8)
    path = write(tmp_path / "t.tif", pixels, nodata=0)
    strict = measured(path, DataConfig(nodata="tag"))
    assert (strict.mean, strict.pixels, strict.tile_shares) == ((1.0, 5.0), (1, 1), (0.25,))
    lenient = measured(path, DataConfig(nodata="tag", valid="any"))
    assert (lenient.mean, lenient.pixels, lenient.tile_shares) == ((1.5, 6.0), (2, 2), (0.75,))
    for found in (strict, lenient):
        assert found.valid_share == (0.5, 0.5)
        assert (found.valid_all, found.valid_any) == (0.25, 0.75)


def test_the_number_of_threads_changes_no_bit(tmp_path):
    for i in range(6):
        write(tmp_path / f"{i}.tif", random("float32", seed=i))
    config = DataConfig(super_window=32)
    index = build_index(tmp_path, config, threads=2)
    one, four = (measure(index, config, threads=n) for n in (1, 4))
    assert one == four


def test_a_large_archive_is_represented_by_a_seeded_choice_that_is_stated(tmp_path):
    for i in range(40):
        write(tmp_path / f"{i:02}.tif", np.full((1, 32, 32), i, np.uint8))
    config = DataConfig(statistics=StatisticsConfig(max_pixels=10 * 32 * 32))
    index = build_index(tmp_path, config, threads=2)
    found = measure(index, config, threads=2)
    assert found == measure(index, config, threads=1)
    assert found.pixels_read == 10 * 32 * 32
    assert not found.is_complete
    assert sum(share is not None for share in found.tile_shares) == 10
    other = StatisticsConfig(max_pixels=10 * 32 * 32, seed=1)
    assert measure(index, DataConfig(statistics=other), threads=2).mean != found.mean
    index, made = measure_source(index, config, threads=2)
    assert "10,240 of 40,960 pixels" in index.notes[0]
    assert made.statistics["seed"] == 0
    assert made.statistics["tiles"] == 10


def test_a_constant_band_has_deviation_one_and_is_reported(tmp_path):
    pixels = np.stack([np.full((8, 8), 9), np.arange(64).reshape(8, 8)]).astype(np.uint8)
    write(tmp_path / "t.tif", pixels)
    index, made = measure_source(build_index(tmp_path, AUTO, threads=1), AUTO, threads=1)
    assert made.std[0] == 1.0
    assert made.std[1] == pytest.approx(np.arange(64).std())
    assert "band_1 has one value only" in index.notes[0]


@pytest.mark.parametrize("valid", ["all", "any"])
def test_a_source_without_a_valid_pixel_is_refused(tmp_path, valid):
    write(tmp_path / "t.tif", np.zeros((3, 8, 8), np.uint8), nodata=0)
    with pytest.raises(SourceError, match=r"hold no valid pixel.*data\.nodata or data\.alpha"):
        measured(tmp_path, DataConfig(valid=valid))


def test_a_band_without_a_valid_pixel_is_named(tmp_path):
    pixels = random("uint8", (2, 8, 8))
    pixels[1] = 0
    write(tmp_path / "t.tif", pixels, nodata=0)
    with pytest.raises(SourceError, match="hold no valid pixel in band_2"):
        measured(tmp_path, DataConfig(nodata="tag", valid="any"))


def test_a_damaged_tile_is_counted_left_out_and_fatal_when_strict(tmp_path):
    good = random("uint8", (1, 512, 512))
    write(tmp_path / "a.tif", good)
    bad = write(tmp_path / "b.tif", random("uint8", (1, 512, 512), seed=1), compress="deflate")
    content = bytearray(bad.read_bytes())
    content[100_000:101_000] = bytes(1000)
    bad.write_bytes(content)
    index = build_index(tmp_path, AUTO, threads=2)
    assert len(index.tiles) == 2
    found = measure(index, AUTO, threads=2)
    assert found.mean[0] == pytest.approx(good.mean())
    assert list(found.bad) == [str(bad)]
    left, _ = measure_source(index, AUTO, threads=2)
    assert [tile.path for tile in left.tiles] == [str(tmp_path / "a.tif")]
    assert left.tiles[0].valid_share == 1.0
    assert "b.tif is damaged" in left.bad[0][1]
    with pytest.raises(SourceError, match=r"b\.tif is damaged"):
        measure(index, DataConfig(strict=True), threads=2)
    (tmp_path / "a.tif").unlink()
    with pytest.raises(SourceError, match=r"No pixel of 2 tile\(s\).*can be read"):
        measure(index, AUTO, threads=2)


def test_the_contract_holds_what_was_measured_and_survives_json(tmp_path):
    write(tmp_path / "t.tif", random("uint16"), photometric="RGB")
    index = build_index(tmp_path, AUTO, threads=1)
    found = measure(index, AUTO, threads=1)
    made = contract(index, found, AUTO)
    assert InputContract.from_json(made.to_json()) == made
    assert (made.mean, made.std, made.dtype) == (found.mean, found.std, "uint16")
    assert (made.low, made.high) == (found.percentiles[1], found.percentiles[99])
    assert made.band_names == ("red", "green", "blue")
    assert made.nodata == index.rule.text
    assert made.statistics["pixels_read"] == 70 * 90
    write(tmp_path / "b/t.tif", random("uint8"))
    bytes_ = build_index(tmp_path / "b", AUTO, threads=1)
    assert contract(bytes_, measure(bytes_, AUTO, threads=1), AUTO).high == (255.0,) * 3


def test_shares_of_tiles_travel_with_the_index(tmp_path):
    half = np.ones((1, 8, 8), np.uint8)
    half[:, :4] = 0
    write(tmp_path / "t/a.tif", half, nodata=0)
    write(tmp_path / "t/b.tif", np.full((1, 8, 8), 3, np.uint8))
    index, _ = measure_source(build_index(tmp_path / "t", AUTO, threads=1), AUTO, threads=1)
    save_index(index, tmp_path / "i.parquet")
    assert [tile.valid_share for tile in load_index(tmp_path / "i.parquet").tiles] == [0.5, 1.0]


def test_real_sources_have_the_statistics_of_their_pixels(shared_data):
    naip = shared_data / "tiles/naip_urban_trees/images"
    found = measured(naip)
    arrays = [rasterio.open(path).read().reshape(4, -1) for path in sorted(naip.glob("*.tif"))]
    whole = np.concatenate(arrays, axis=1)
    np.testing.assert_allclose(found.mean, whole.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.std, whole.std(axis=1), rtol=1e-6)
    assert found.percentiles[99] == tuple(np.percentile(whole, 99, axis=1))
    patches = measured(shared_data / "scenes/s2_100k_patches")
    assert len(patches.mean) == 12
    pair = measured(str(shared_data / "scenes/rio_tiler/mosaic_cog*.tif"))
    assert 0.6 < pair.valid_all < 0.7
