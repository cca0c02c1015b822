"""Counting pixels: equal to the statistics of training, bounded, and blind to invalid pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspection_support import inspected, noise, write

from geodino.data.config import DataConfig
from geodino.data.index import build_index
from geodino.data.inspection import pixels as inspection_pixels
from geodino.data.inspection.bands import band_facts
from geodino.data.inspection.kinds import Readable
from geodino.data.inspection.pixels import MAX_BANDS, SOLID, look, solid_blocks
from geodino.data.statistics import measure
from geodino.geo.windows import Window

CONFIG = DataConfig()


def read(src, config=CONFIG, *, pixels=2**24, threads=2):
    index = build_index(src, config, threads=1)
    return index, look(index, config, pixels=pixels, threads=threads)


@pytest.mark.parametrize("valid", ["all", "any"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_figures_of_a_whole_source_are_those_that_training_computes(tmp_path, dtype, valid):
    for i in range(3):
        pixels = noise(dtype=dtype, seed=i)
        pixels[0, :20] = 7  # no data in one band only: its neighbours stay valid
        write(tmp_path / f"{i}.tif", pixels, at=(i, 0), nodata=7)
    config = DataConfig(valid=valid, nodata=7.0)
    index, found = read(tmp_path, config)
    expected = measure(index, config, threads=1)
    kind = Readable(index=index, listed=None, scenes=())
    values = [band.values for band in band_facts(kind, found, config)]
    for name in ("mean", "low", "high", "valid_share"):
        assert tuple(getattr(v, name) for v in values) == pytest.approx(getattr(expected, name))
    assert [v.std for v in values] == pytest.approx(expected.std)
    for p, of_bands in expected.percentiles.items():
        assert [v.percentiles[str(p)] for v in values] == pytest.approx(of_bands)
    assert found.tile_shares == expected.tile_shares
    assert found.pixels_read == expected.pixels_read == 3 * 64 * 64


@pytest.mark.parametrize("hidden", [0, 1, 255])
def test_values_under_a_mask_change_nothing_that_is_said(tmp_path, hidden):
    mask = np.full((64, 64), 255, "uint8")
    mask[:24] = 0
    pixels = noise()
    reference = None
    for value in (9, hidden):
        pixels[:, :24] = value
        write(tmp_path / "src" / "a.tif", pixels, mask=mask)
        found = inspected(tmp_path / "src").to_json()
        reference = reference or found
    assert found == reference
    assert reference["kinds"][0]["sampled"]["valid_all"] == 40 / 64


@pytest.mark.parametrize("hidden", [np.nan, np.inf, -9999.0, 0.0, 65535.0])
def test_float_values_under_a_mask_change_nothing_either(tmp_path, hidden):
    mask = np.full((64, 64), 255, "uint8")
    mask[:, 32:] = 0
    pixels = noise(1, dtype="float32") / 100
    told = []
    for value in (0.5, hidden):
        pixels[:, :, 32:] = value
        write(tmp_path / "src" / "a.tif", pixels, mask=mask)
        told.append(inspected(tmp_path / "src").to_json())
    assert told[0] == told[1]


def test_the_number_of_threads_changes_nothing(tmp_path):
    for i in range(4):
        write(tmp_path / f"{i}.tif", noise(dtype="float32", seed=i), at=(i, 0))
    _, one = read(tmp_path, threads=1)
    _, four = read(tmp_path, threads=4)
    np.testing.assert_array_equal(one.moments.mean, four.moments.mean)
    np.testing.assert_array_equal(one.counts.counts, four.counts.counts)
    assert one.fills == four.fills


def test_a_large_source_is_read_in_part_spread_over_its_tiles_and_the_same_part_again(tmp_path):
    for i in range(40):
        write(tmp_path / f"{i:02}.tif", noise(1, side=32, seed=i), at=(i, 0))
    _, found = read(tmp_path, pixels=10 * 32 * 32)
    _, again = read(tmp_path, pixels=10 * 32 * 32)
    touched = [i for i, share in enumerate(found.tile_shares) if share is not None]
    assert found.pixels_read == 10 * 32 * 32
    assert [i // 4 for i in touched] == list(range(10))  # one of every four
    assert found.tile_shares == again.tile_shares
    other = DataConfig.model_validate({"statistics": {"seed": 1}})
    assert read(tmp_path, other, pixels=10 * 32 * 32)[1].tile_shares != found.tile_shares


def test_of_very_many_bands_some_are_read_evenly_spaced(tmp_path):
    count = 3 * MAX_BANDS
    levels = np.arange(count, dtype="uint8")[:, None, None] + np.zeros((1, 16, 16), "uint8")
    write(tmp_path / "cube.tif", levels)
    _, found = read(tmp_path)
    assert len(found.positions) == MAX_BANDS
    assert found.positions[0] == 0
    assert found.positions[-1] == count - 1
    # Band i holds the value i: each place was read from its own band.
    assert tuple(found.moments.mean) == found.positions


@pytest.mark.parametrize(
    "profile",
    [
        {"blockysize": 3},
        {"blockysize": 600},
        {"tiled": True, "blockxsize": 256, "blockysize": 256},
    ],
)
def test_every_pixel_is_read_once_however_it_is_stored(tmp_path, profile):
    pixels = np.zeros((1, 600, 1500), "uint16")
    pixels[0] = np.arange(600)[:, None] + 1
    write(tmp_path / "a.tif", pixels, **profile)
    _, found = read(tmp_path)
    counts = found.counts.counts[0]
    assert counts[0] == 0
    np.testing.assert_array_equal(counts[1:601], 1500)


def test_a_huge_block_is_decoded_once_or_read_in_part(tmp_path, monkeypatch):
    one_block = {"tiled": True, "blockxsize": 2048, "blockysize": 2048, "compress": "deflate"}
    write(tmp_path / "a.tif", np.ones((1, 2048, 2048), "uint8"), **one_block)
    _, found = read(tmp_path, pixels=2**22)
    assert found.pixels_read == 2**22
    # Too large to be held, it is cut into 16 windows of 128 rows, each of which decodes all of
    # it; half of them decode eight times the pixels that may be read.
    monkeypatch.setattr(inspection_pixels, "_BLOCK_BYTES", 1)
    _, found = read(tmp_path, pixels=2**22)
    assert found.pixels_read == 8 * 128 * 2048


def slow_solid(pixels, valid):
    """The definition, block by block."""
    found = {}
    for top in range(0, pixels.shape[1] - SOLID + 1, SOLID):
        for left in range(0, pixels.shape[2] - SOLID + 1, SOLID):
            block = pixels[:, top : top + SOLID, left : left + SOLID]
            usable = valid[top : top + SOLID, left : left + SOLID]
            if usable.all() and (block == block[0, 0, 0]).all():
                value = float(block[0, 0, 0])
                found[value] = found.get(value, 0) + 1
    return found


@given(
    seed=st.integers(0, 10_000),
    bands=st.integers(1, 3),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_solid_blocks_are_those_of_the_definition(seed, bands, height, width):
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 3, (5, 5)).repeat(SOLID, 0).repeat(SOLID, 1)[:height, :width]
    pixels = np.stack([coarse] * bands).astype("int16")
    pixels[:, random.random((height, width)) < 0.005] = 9
    valid = random.random((height, width)) > 0.005
    blocks = solid_blocks(
        pixels, valid, window=Window(0, 0, height, width), height=height, width=width
    )
    assert {value: count for value, count, _ in blocks} == slow_solid(pixels, valid)


def test_blocks_at_the_edge_of_the_raster_are_told_from_those_inside():
    pixels = np.zeros((1, 40, 40), "uint8")
    valid = np.ones((40, 40), bool)
    # 5 x 5 blocks of 8 px: the outer 16 touch the edge.
    where = {"window": Window(0, 0, 40, 40), "height": 40, "width": 40}
    assert solid_blocks(pixels, valid, **where) == [(0.0, 25, 16)]
    inside = {"window": Window(100, 100, 40, 40), "height": 1000, "width": 1000}
    assert solid_blocks(pixels, valid, **inside) == [(0.0, 25, 0)]


def test_a_damaged_tile_is_told_and_the_others_are_counted(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.tif", noise(seed=i), at=(i, 0), compress="deflate")
    index = build_index(tmp_path, CONFIG, threads=1)
    broken = tmp_path / "1.tif"
    content = bytearray(broken.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    broken.write_bytes(content)
    found = look(index, CONFIG, pixels=2**24, threads=2)
    assert list(found.bad) == [str(broken)]
    assert found.tile_shares[0] == found.tile_shares[2] == 1.0
