"""Pictures that tests write: upright, turned, odd, broken, in folders and in shards."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from geodino import seeds

ORIENTATION = 274


def picture(seed: int, height: int = 96, width: int = 128, bands: int = 3) -> np.ndarray:
    """Patches of colour: a turn, a flip or a swap of channels cannot go unseen."""
    rng = seeds.rng(seed, "picture")
    coarse = rng.integers(10, 245, size=(-(-height // 16), -(-width // 16), bands))
    fine = coarse.repeat(16, 0).repeat(16, 1)[:height, :width]
    return fine.astype(np.uint8)


def encoded(array: np.ndarray, form: str, *, mode: str | None = None, **options) -> bytes:
    """Return the bytes of a file."""
    image = Image.fromarray(array)
    if mode is not None:
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Return the pixels that a file holds whose orientation tag makes them ``upright``."""
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: np.rot90,  # shown turned by a quarter clockwise
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(undo[orientation](upright))


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """Write a shard; members in the order given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_pictures(folder: Path, count: int, *, first: int = 0) -> Path:
    """Write JPEGs of several shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(first, first + count):
        array = picture(n, 80 + 16 * (n % 3), 128 - 16 * (n % 4))
        (folder / f"{n:03d}.jpg").write_bytes(encoded(array, "JPEG", quality=90))
    return folder
