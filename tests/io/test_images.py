"""Photographs of every kind become upright 8-bit RGB with their validity."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images_support import encoded, exif, picture, stored, write_tar
from PIL import Image

from geodino.errors import SourceError
from geodino.geo.validity import ReadRule
from geodino.geo.windows import Window
from geodino.io.image_key import ImageKey, find_image
from geodino.io.images import describe_image, exif_orientation, read_image
from geodino.io.metadata import is_unchanged
from geodino.io.raster import HandlePool, describe, read


def put(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return ImageKey(str(path))


def rgb(array):
    """(height, width, 3) as the bands of a raster."""
    return array.transpose(2, 0, 1)


def test_a_key_is_read_back_from_its_name():
    for key in (ImageKey("/a b/c.jpg"), ImageKey("/s/0.tar", 512, 77, "x/1.jpg")):
        assert find_image(str(key)) == key
    assert find_image("/a/b.jpg") is None
    assert ImageKey("/s/0.tar", 512, 77, "x/1.jpg").shown == "/s/0.tar/x/1.jpg"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_every_orientation_gives_the_same_upright_picture(tmp_path, orientation, form):
    upright = picture(1, 40, 64)
    data = encoded(stored(upright, orientation), form, exif=exif(orientation))
    key = put(tmp_path, f"a.{form.lower()}", data)
    info = describe_image(key)
    assert (info.grid.height, info.grid.width) == (40, 64)
    pixels, valid = read_image(key)
    np.testing.assert_array_equal(pixels, rgb(upright))
    assert valid.all()
    plain = put(tmp_path, "plain.png", encoded(upright, "PNG"))
    np.testing.assert_array_equal(
        read_image(key, size=(20, 32))[0], read_image(plain, size=(20, 32))[0]
    )


@pytest.mark.parametrize("orientation", [6, 8])
def test_a_turned_jpeg_is_decoded_small_and_still_the_same_picture(tmp_path, orientation):
    """Patches of 16 px are whole blocks of the JPEG and of its eighth, so they keep their colour."""
    upright = picture(2, 160, 320)
    keys = [
        put(tmp_path, f"{o}.jpg", encoded(stored(upright, o), "JPEG", quality=95, subsampling=0,
                                          exif=exif(o)))
        for o in (1, orientation)
    ]  # fmt: skip
    plain, turned = (read_image(key, size=(40, 80))[0].astype(int) for key in keys)
    assert plain.shape == (3, 40, 80)
    assert np.abs(plain - turned).max() <= 6
    assert np.abs(plain[:, 1::4, 1::4] - rgb(upright)[:, 8::16, 8::16]).max() <= 12


def test_the_real_photographs_with_orientation_1_6_and_8_stand_upright(shared_data):
    folder = shared_data / "web" / "exif_orientation"
    keys = [ImageKey(str(p)) for p in sorted(folder.glob("Landscape_*.jpg"))]
    shapes = [describe_image(key).block for key in keys]
    assert shapes == [(1200, 1800)] * 2
    one, six = (read_image(key, size=(60, 90))[0].astype(float) for key in keys)
    assert np.corrcoef(one.ravel(), six.ravel())[0, 1] > 0.98
    portrait = ImageKey(str(folder / "Portrait_8.jpg"))
    assert describe_image(portrait).block == (1800, 1200)
    assert read_image(portrait)[0].shape == (3, 1800, 1200)


def test_colour_modes_become_rgb(tmp_path):
    flat = np.full((8, 8, 3), (200, 100, 50), dtype=np.uint8)
    grey = np.full((8, 8), 77, dtype=np.uint8)
    cases = {
        "cmyk.jpg": (encoded(flat, "JPEG", mode="CMYK", quality=98), (200, 100, 50)),
        "palette.png": (paletted(np.ones((8, 8), dtype=np.uint8)), (200, 100, 50)),
        "grey.png": (encoded(grey, "PNG"), (77, 77, 77)),
        "bilevel.png": (encoded(grey + 178, "PNG", mode="1"), (255, 255, 255)),
        "lossless.webp": (encoded(flat, "WEBP", lossless=True), (200, 100, 50)),
        "wrong-ending.jpg": (encoded(flat, "PNG"), (200, 100, 50)),
    }
    for name, (data, colour) in cases.items():
        key = put(tmp_path, name, data)
        assert describe_image(key).count == 3, name
        pixels, valid = read_image(key)
        assert pixels.dtype == np.uint8
        off = np.abs(pixels.astype(int) - np.array(colour)[:, None, None]).max()
        assert off <= (4 if name.startswith("cmyk") else 0), name
        assert valid.all()
        assert valid.strides == (0, 0)


def test_of_16_bits_the_upper_8_are_kept(tmp_path):
    deep = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    for form, name in (("PNG", "a.png"), ("TIFF", "a.tif")):
        key = put(tmp_path, name, encoded(deep, form))
        np.testing.assert_array_equal(read_image(key)[0], np.stack([deep >> 8] * 3))
    rgb16 = png_of_16_bit_rgb(np.stack([deep, deep, deep[::-1]], axis=-1))
    pixels, _ = read_image(put(tmp_path, "rgb.png", rgb16))
    np.testing.assert_array_equal(pixels, np.stack([deep >> 8, deep >> 8, deep[::-1] >> 8]))


def png_of_16_bit_rgb(array):
    """Pillow writes none: by hand, after the PNG specification."""
    import zlib

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width, _ = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def transparent_files():
    colour = picture(3, 16, 16)
    alpha = np.full((16, 16), 255, dtype=np.uint8)
    alpha[:, :4] = 0
    alpha[:, 4] = 127
    alpha[:, 5] = 128
    rgba = np.dstack([colour, alpha])
    la = np.dstack([colour[..., 0], alpha])
    index = np.tile(np.arange(16, dtype=np.uint8) % 7, (16, 1))
    index[:, :5] = 7
    return {"rgba.png": encoded(rgba, "PNG"), "la.png": encoded(la, "PNG"),
            "palette.png": paletted(index, transparency=bytes([255] * 7 + [0]))}  # fmt: skip


def paletted(index, **options):
    """A PNG of numbers into a palette of eight colours; number 1 is (200, 100, 50)."""
    image = Image.fromarray(index).convert("L")
    image.putpalette([10, 20, 30, 200, 100, 50, *range(60, 78)])
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def test_transparent_pixels_are_not_valid_and_never_bleed(tmp_path):
    for name, data in transparent_files().items():
        key = put(tmp_path, name, data)
        assert describe_image(key).mask == "shared", name
        _, valid = read_image(key)
        expected = np.broadcast_to(np.arange(16) > 4, (16, 16))
        np.testing.assert_array_equal(valid, expected, err_msg=name)
    # Black and white left of column 8 under full transparency: resized, the rest is the same.
    rest = []
    for hidden in (0, 255):
        array = np.dstack([np.full((16, 16, 3), 90), np.full((16, 16), 255)]).astype(np.uint8)
        array[:, :8] = (hidden, hidden, hidden, 0)
        key = put(tmp_path, f"hidden{hidden}.png", encoded(array, "PNG"))
        pixels, valid = read_image(key, size=(8, 8))
        rest.append(np.where(valid, pixels, 0))
        assert valid[:, 4:].all()
        assert not valid[:, :3].any()
    np.testing.assert_array_equal(*rest)
    assert np.abs(rest[0][:, :, 4:].astype(int) - 90).max() <= 1


def test_what_is_no_picture_is_refused_in_words(tmp_path):
    whole = encoded(picture(4), "JPEG")
    cases = {
        "text.jpg": (b"not a picture at all", "it is no picture"),
        "empty.png": (b"", "it is no picture"),
        "float.tif": (encoded(np.ones((4, 4), dtype=np.float32), "TIFF"), "no colours"),
    }
    for name, (data, words) in cases.items():
        with pytest.raises(SourceError, match=words):
            describe_image(put(tmp_path, name, data))
    cut = put(tmp_path, "cut.jpg", whole[: -len(whole) // 8])
    describe_image(cut)  # its header is whole
    with pytest.raises(SourceError, match=r"cannot be read as a picture .*[Tt]runcated"):
        read_image(cut)
    with pytest.raises(SourceError, match="does not exist"):
        read_image(ImageKey(str(tmp_path / "gone.jpg")))
    changed = put(tmp_path, "changed.png", encoded(picture(5, 16, 16), "PNG"))
    with pytest.raises(SourceError, match="16 x 16 px now, fewer"):
        read_image(changed, Window(0, 0, 32, 16))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150)
@given(data=st.data())
def test_damage_is_a_source_error_or_nothing(tmp_path_factory, data):
    """Whatever bytes are overwritten: a picture comes out, or a sentence."""
    form = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "GIF"]))
    whole = bytearray(encoded(picture(6, 32, 48), form))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(len(whole) // 2, len(whole)))
    key = put(tmp_path_factory.getbasetemp(), "damaged", bytes(whole[:cut]))
    try:
        info = describe_image(key)
        if info.grid.height * info.grid.width > 10**6:
            return
        pixels, valid = read_image(key)
    except SourceError:
        return
    assert pixels.shape[1:] == valid.shape


@given(st.binary(max_size=80))
def test_any_exif_block_gives_an_orientation(block):
    assert exif_orientation(b"Exif\0\0II*\0" + block) in range(1, 9)


def test_a_window_of_a_resized_picture_is_the_part_that_was_asked(tmp_path):
    upright = picture(7, 64, 256)
    key = put(tmp_path, "long.png", encoded(upright, "PNG"))
    middle = Window(0, 64, 64, 128)
    np.testing.assert_array_equal(read_image(key, middle)[0], rgb(upright[:, 64:192]))
    small, _ = read_image(key, middle, size=(16, 32))
    own = put(tmp_path, "part.png", encoded(upright[:, 64:192], "PNG"))
    # Within 2 px of the cut the filter sees what lies beyond it.
    np.testing.assert_array_equal(small[:, :, 2:-2], read_image(own, size=(16, 32))[0][:, :, 2:-2])


def test_a_member_of_a_shard_reads_as_its_file(tmp_path):
    data = encoded(picture(8), "JPEG")
    deep = encoded(picture(9), "TIFF")  # its directory is at its end
    shard = write_tar(tmp_path / "0.tar", {"../../etc/1.jpg": data, "2.tif": deep})
    raw = shard.read_bytes()
    for name, part in (("../../etc/1.jpg", data), ("2.tif", deep)):
        key = ImageKey(str(shard), raw.index(part), len(part), name)
        alone = put(tmp_path, "alone", part)
        assert describe_image(key).grid == describe_image(alone).grid
        np.testing.assert_array_equal(read_image(key)[0], read_image(alone)[0])


def test_a_picture_is_a_raster_to_everybody_else(tmp_path):
    array = picture(10)
    key = put(tmp_path, "a.png", encoded(array, "PNG"))
    info = describe(str(key))
    assert (info.driver, info.count, info.dtype) == ("image", 3, "uint8")
    assert is_unchanged(info)
    with HandlePool() as pool:
        pixels, valid = read(pool, str(key), Window(8, 16, 24, 32), bands=(3, 1), rule=ReadRule())
    np.testing.assert_array_equal(pixels, rgb(array)[[2, 0], 8:32, 16:48])
    assert valid.shape == pixels.shape
    assert valid.all()
    put(tmp_path, "a.png", encoded(picture(11), "PNG", compress_level=1))
    assert not is_unchanged(info)
