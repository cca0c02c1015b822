"""One tile: TIFF's predictors, codecs, and tiles that are not stored."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numcodecs import zstd

from geodino.io.cog.layout import Layer
from geodino.io.cog.tiles import TileCodec

laws = settings(max_examples=12)


def codec(dtype, *, count=1, nodata=None, interleave="pixel", compression="zstd"):
    layer = Layer(
        name="map",
        count=count,
        dtype=dtype,
        nodata=nodata,
        interleave=interleave,
        compression=compression,
    )
    return TileCodec.of(layer, 16)


@laws
@given(data=st.data())
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("compression", ["zstd", "deflate"])
def test_tiles_come_back_bit_for_bit(data, dtype, compression):
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 16), st.integers(1, 16)))
    values = data.draw(hnp.arrays(dtype, shape))
    found = codec(dtype, count=shape[0], compression=compression)
    back = found.decode(found.encode(values))[:, : shape[1], : shape[2]]
    assert back.tobytes() == values.tobytes()


def test_integers_are_stored_as_differences_along_the_row():
    values = np.zeros((1, 16, 16), dtype=np.uint8)
    values[0, 0, :4] = [10, 12, 12, 5]
    stored = np.frombuffer(zstd.decompress(codec("uint8").encode(values)), np.uint8)
    # Modulo 256: 5 - 12 = 249, 0 - 5 = 251.
    assert stored[:6].tolist() == [10, 2, 0, 249, 251, 0]


def test_bands_of_a_pixel_differ_from_their_own_band():
    values = np.zeros((2, 16, 16), dtype=np.uint16)
    values[:, 0, :2] = [[1000, 1001], [7, 5]]
    stored = np.frombuffer(zstd.decompress(codec("uint16", count=2).encode(values)), np.uint16)
    assert stored[:4].tolist() == [1000, 7, 1, 65534]


def test_floats_are_stored_byte_by_byte_highest_first_then_as_differences():
    values = np.zeros((1, 16, 16), dtype=np.float32)
    values[0, 0, :2] = [1.0, 2.0]  # 3f800000, 40000000
    raw = zlib.decompress(codec("float32", compression="deflate").encode(values))
    stored = np.frombuffer(raw, np.uint8)[:64].reshape(4, 16)
    assert stored[0, :4].tolist() == [0x3F, 1, 0x100 - 0x40, 0]
    assert stored[1, :4].tolist() == [0x80, 0x80, 0, 0]
    assert not stored[2:].any()


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("float32", float("nan")),
        ("float32", -9999.0),
        ("uint8", 0.0),
        ("int16", -1.0),
        ("int8", 5.0),
    ],
)
def test_tiles_without_data_are_not_stored(dtype, nodata):
    found = codec(dtype, nodata=nodata)
    values = np.full((1, 9, 16), nodata, dtype=dtype)
    assert found.encode(values) == b""
    np.testing.assert_array_equal(found.decode(b""), np.full((1, 16, 16), nodata, dtype=dtype))
    values[0, 8, 15] = 1
    assert found.encode(values) != b""


def test_without_a_nodata_value_every_tile_is_stored():
    assert codec("uint8").encode(np.zeros((1, 16, 16), dtype=np.uint8)) != b""
