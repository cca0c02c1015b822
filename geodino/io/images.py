"""Reading photographs: any picture becomes upright red, green and blue of 8 bits.

Pillow decodes; it releases the interpreter's lock while it does. What is done to a picture:

* it is turned as its EXIF orientation says;
* palettes, grey, black and white and CMYK become RGB (an embedded colour profile is not applied);
* of 16 bits the upper 8 are kept, as Pillow itself does with 16-bit colour;
* a transparent pixel (alpha below one half) is not valid: what lies under it is not looked at;
* of several frames the first is read.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from affine import Affine
from jaxtyping import Bool, UInt8
from PIL import Image, UnidentifiedImageError

from geodino.errors import SourceError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.io.image_key import DRIVER, ImageKey, stamp
from geodino.io.metadata import RasterInfo

IMAGES: Final = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
"""Endings of files and members that are taken for pictures."""

_FORMATS: Final = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
"""What may stand in them: on the web an ending promises little."""

_BROKEN: Final = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError,
    struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow's decoders raise at damaged files."""

_MODES: Final = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"}
)
_DEEP: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""

_OPAQUE: Final = 128
"""Least alpha of a pixel that is taken for there."""

_GAP: Final = 3.0
"""Pictures this many times larger than wanted are first averaged over whole pixels, fast."""


def describe_image(key: ImageKey) -> RasterInfo:
    """Read the header of a picture; its size is that of the upright picture.

    Raises:
        SourceError: it vanished, is no picture, or holds numbers that are no colours.
    """
    with _open(key) as image:
        width, height = image.size
        if image.mode not in _MODES | _DEEP:
            raise SourceError(
                f"{key.shown} holds numbers of type {image.mode}, which are no colours. Leave it "
                "out, or convert it to 8 bits; rasters of measurements are read with "
                "data.kind: tiles."
            )
        if _orientation(image) >= 5:
            width, height = height, width
        has_alpha = _has_alpha(image)
    size, mtime_ns = stamp(key)
    return RasterInfo(
        path=str(key),
        driver=DRIVER,
        grid=Grid(crs=None, transform=Affine.identity(), width=width, height=height),
        count=3,
        dtype="uint8",
        nodata=(None,) * 3,
        colors=("red", "green", "blue"),
        descriptions=(None,) * 3,
        scales=(1.0,) * 3,
        offsets=(0.0,) * 3,
        mask="shared" if has_alpha else "none",
        block=(height, width),
        size=size,
        mtime_ns=mtime_ns,
        datetime=None,
        datetime_from=None,
    )


def read_image(
    key: ImageKey,
    window: Window | None = None,
    *,
    size: tuple[int, int] | None = None,
    cut: Window | None = None,
) -> tuple[UInt8[np.ndarray, "3 h w"], Bool[np.ndarray, "h w"]]:
    """Decode a picture, upright.

    Args:
        key: the picture.
        window: which part, in pixels of the upright picture; None for all of it.
        size: rows and columns that this part is resized to, bicubic and antialiased. A JPEG is
            then decoded at a half, quarter or eighth where that still has as many pixels.
        cut: which pixels of the resized part are wanted; None for all of them.

    Returns:
        Red, green and blue (a read-only view of pixels that lie together), and where they may be
        used; a read-only view of one value where the picture has no transparent pixel.

    Raises:
        SourceError: it vanished, is damaged, or is another picture than it was.
    """
    with _open(key) as image:
        turn = _TURNS.get(_orientation(image))
        stored = image.size
        is_tipped = turn in (
            Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270,
        )  # fmt: skip
        width, height = stored[::-1] if is_tipped else stored
        part = window or Window(0, 0, height, width)
        if not Window(0, 0, height, width).contains(part):
            raise SourceError(
                f"{key.shown} has {height} x {width} px now, fewer than when the index was built. "
                "Restore it, or build the index again."
            )
        if size is not None:
            wanted = -(-height * size[0] // part.height), -(-width * size[1] // part.width)
            image.draft("", wanted if is_tipped else wanted[::-1])
        upright = _as_rgb(image)
        if turn is not None:
            upright = upright.transpose(turn)
        upright = _resized(upright, part, (height, width), size, cut)
        array = np.asarray(upright)
    pixels = array[..., :3].transpose(2, 0, 1)
    if array.shape[2] == 4:
        opaque = array[..., 3] >= _OPAQUE
        if not opaque.all():
            return pixels, opaque
    return pixels, np.broadcast_to(np.True_, array.shape[:2])


def _resized(
    image: Image.Image,
    part: Window,
    whole: tuple[int, int],
    size: tuple[int, int] | None,
    cut: Window | None,
) -> Image.Image:
    """Cut ``part`` of the ``whole`` out of an image that may be decoded smaller, and resize it."""
    height, width = size or (part.height, part.width)
    cut = cut or Window(0, 0, height, width)
    if size in (None, (part.height, part.width)) and image.size == whole[::-1]:
        left, top = part.left + cut.left, part.top + cut.top
        box = (left, top, left + cut.width, top + cut.height)
        return image if box == (0, 0, *image.size) else image.crop(box)
    # From pixels of the resized part to those of the image as it was decoded.
    down, across = image.height / whole[0], image.width / whole[1]
    rows, columns = part.height / height, part.width / width
    bounds = (
        (part.left + cut.left * columns) * across,
        (part.top + cut.top * rows) * down,
        min((part.left + cut.right * columns) * across, image.width),
        min((part.top + cut.bottom * rows) * down, image.height),
    )
    # Colour is weighed by alpha on the way, so nothing bleeds out of transparent pixels.
    return image.resize(
        (cut.width, cut.height), Image.Resampling.BICUBIC, box=bounds, reducing_gap=_GAP
    )


def _as_rgb(image: Image.Image) -> Image.Image:
    """Decode to RGB, or to RGBA where pixels may be transparent."""
    if image.mode in _DEEP:
        upper = (np.asarray(image) >> 8).astype(np.uint8)
        return Image.fromarray(upper).convert("RGB")
    if _has_alpha(image):
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or (
        "transparency" in image.info and image.mode in ("1", "L", "P", "RGB")
    )


@contextmanager
def _open(key: ImageKey) -> Iterator[Image.Image]:
    """Open a picture; whatever its decoder raises becomes a sentence."""
    try:
        with Path(key.file).open("rb") as file:
            source = file if key.size is None else _member(file, key)
            with Image.open(source, formats=_FORMATS) as image:
                yield image
    except FileNotFoundError as error:
        raise SourceError(
            f"{key.shown} does not exist (any more). Restore it, or build the index again."
        ) from error
    except _BROKEN as error:
        words = str(error).strip().rstrip(".") or type(error).__name__
        words = "it is no picture" if isinstance(error, UnidentifiedImageError) else words
        raise SourceError(
            f"{key.shown} cannot be read as a picture ({words}). Copy it again, or remove it."
        ) from error


def _member(file: io.BufferedReader, key: ImageKey) -> io.BufferedReader:
    return io.BufferedReader(_Span(file, key.start, key.size or 0), 1 << 16)


class _Span(io.RawIOBase):
    """Some bytes of an open file, as a file of their own."""

    def __init__(self, file: io.BufferedReader, start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left = min(len(buffer), self._size - self._at)
        if left <= 0:
            return 0
        self._file.seek(self._start + self._at)
        data = self._file.read(left)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


_ORIENTATION: Final = 274


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that is still to be applied, 1 for none.

    Pillow turns a TIFF by itself; its own way for the others decodes a whole PNG to look for the
    tag, and warns of damage that can be passed over.
    """
    return 1 if image.format == "TIFF" else exif_orientation(image.info.get("exif") or b"")


def exif_orientation(exif: bytes) -> int:
    """Read the orientation out of an EXIF block: 1 to 8; 1 where it says nothing sensible."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 10:
        return 1
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (entries,) = struct.unpack_from(f"{order}H", tiff, start)
    for number in range(entries):
        at = start + 2 + 12 * number
        if at + 12 > len(tiff):
            return 1
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, at)
        if tag == _ORIENTATION:
            return value if value in _TURNS else 1
    return 1
