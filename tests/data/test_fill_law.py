"""Invalid pixels never matter: what lies under them changes no bit of statistics or pixels.

Every kind of source is written once for each fill value, with the same valid pixels, and read as
training and statistics read it.
"""

import io
import json
import tarfile

import numpy as np
import pytest
import rasterio
from scene_support import index_of, read_all, write

from geodino.data.config import DataConfig
from geodino.data.cuts import shapes_of
from geodino.data.loader import Loader, LoaderConfig
from geodino.data.order import Order, OrderConfig
from geodino.data.statistics import measure
from geodino.data.tiles import TileReader
from geodino.io.raster import HandlePool

SIDE = 24
FILLS = {"uint8": (0, 7, 255), "uint16": (0, 9999, 65535), "int16": (0, -9999, 32767),
         "float32": (0.0, -9999.0, 65535.0, np.nan, np.inf)}  # fmt: skip


def scene(dtype, bands=1, side=SIDE, seed=0):
    """Pixels [bands, side, side] and where they are valid: holes, a collar, single pixels."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(10, 240, (bands, side, side)).astype(dtype)
    valid = rng.random((side, side)) < 0.8
    valid[:, : side // 6] = False
    valid[side // 2 : side // 2 + side // 8, side // 3 : side // 2] = False
    return pixels, valid


def filled(pixels, valid, fill):
    return np.where(valid, pixels, pixels.dtype.type(fill))


# The kinds of sources: each writes its files below a folder and returns what names them, and data.*


def masked_inside(folder, fill, dtype):
    """One file with a mask beside its pixels."""
    for name in "ab":
        pixels, valid = scene(dtype, 3, seed=ord(name))
        path = write(folder / f"{name}.tif", filled(pixels, valid, fill), blockysize=16)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
            out.write_mask(valid)
    return folder, {}


def masked_by_alpha(folder, fill, dtype):
    """One file with an alpha band, and a nodata tag that true pixels hold too."""
    for name in "ab":
        pixels, valid = scene("uint8", 3, seed=ord(name))
        alpha = np.where(valid, 255, 0).astype(np.uint8)
        pixels = np.concatenate([filled(pixels, valid, fill), alpha[None]])
        pixels[0, :3, SIDE // 2 :] = 0
        write(folder / f"{name}.tif", pixels, photometric="RGB", alpha="YES", nodata=0)
    return folder, {}


DESCRIBED = """
description: Three bands of two sizes and their classes.
files: '(?P<band>red|nir|swir|qa)\\.tif$'
example: a_red.tif
bands: [{name: red}, {name: nir}, {name: swir}]
grid: GRID
resampling: METHOD
nodata: ignore
quality:
  file: qa
  classes: {encoding: ENCODING, classes: {cloud: 1, fill: 2}}
  mask: [cloud, fill]
"""


def quality_layer(valid, encoding):
    """Classes or flags 1 and 2 in turn where pixels are invalid, and other ones where not."""
    turn = np.arange(valid.size).reshape(valid.shape) % 2
    if encoding == "values":
        return np.where(valid, 3 * turn, 1 + turn).astype(np.uint8)
    if encoding == "bits":
        return np.where(valid, 1 << (3 * turn), 1 << (1 + turn)).astype(np.uint16)
    return np.stack([np.where(valid, 0, 1 - turn), np.where(valid, 0, turn)]).astype(np.uint8)


def scene_of_files(encoding):
    def written(folder, fill, dtype):
        text = DESCRIBED.replace("ENCODING", encoding)
        text = text.replace("\ngrid: GRID\nresampling: METHOD", "")
        folder.mkdir(parents=True)
        (folder / "dataset.yaml").write_text(text)
        for name in "ab":
            pixels, valid = scene(dtype, 3, seed=ord(name))
            for band, values in zip(("red", "nir", "swir"), pixels, strict=True):
                write(folder / f"{name}_{band}.tif", filled(values, valid, fill))
            write(folder / f"{name}_qa.tif", quality_layer(valid, encoding))
        return folder, {}

    return written


def resampled_scene(method, grid):
    """A fine and a coarse band, each with invalid pixels of its own under a mask in the file."""

    def written(folder, fill, dtype):
        folder.mkdir(parents=True)
        text = DESCRIBED.partition("quality:")[0].replace("METHOD", method).replace("GRID", grid)
        (folder / "dataset.yaml").write_text(text.replace("nodata: ignore\n", ""))
        for i, (band, side, metres) in enumerate(
            (("red", SIDE, 10.0), ("nir", SIDE // 2, 20.0), ("swir", SIDE // 6, 60.0))
        ):
            pixels, valid = scene(dtype, side=side, seed=i)
            path = folder / f"a_{band}.tif"
            write(path, filled(pixels, valid, fill), pixel_m=metres)
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
                out.write_mask(valid)
        return folder, {}

    return written


def two_meanings(folder, fill, dtype):
    """Files of two offsets: recoded as they are read, to integers or to physical values."""
    for i, name in enumerate("ab"):
        pixels, valid = scene(dtype, 2, seed=i)
        path = folder / f"{name}.tif"
        write(path, filled(pixels, valid, fill), scale=0.001, offset=-0.1 * i)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
            out.write_mask(valid)
    return folder, {}


def radar(folder, fill, dtype):
    """Power read as decibel; values that are not positive are invalid as well."""
    for i, name in enumerate("ab"):
        pixels, valid = scene(dtype, 2, seed=i)
        pixels[:, 20, 20:30] = 0
        path = write(folder / f"{name}.tif", filled(pixels, valid, fill), unit="power")
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
            out.write_mask(valid)
    return folder, {"decibel": True}


def shard(folder, fill, dtype):
    """Pictures with an alpha channel, in a tar archive."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "s.tar", "w") as archive:
        for i in range(2):
            pixels, valid = scene("uint8", 3, seed=i)
            alpha = np.where(valid, 255, 0).astype(np.uint8)[None]
            rgba = np.concatenate([filled(pixels, valid, fill), alpha])
            path = write(folder / "x.png", rgba, crs=None)
            content = path.read_bytes()
            path.unlink()
            member = tarfile.TarInfo(f"{i}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return folder, {}


def stac(folder, fill, dtype):
    """Items with a quality asset of half the resolution."""
    items = []
    for i, name in enumerate("ab"):
        pixels, valid = scene(dtype, 2, seed=i)
        coarse = valid[::2, ::2]
        valid = coarse.repeat(2, 0).repeat(2, 1)
        for key, values in zip(("red", "nir"), pixels, strict=True):
            write(folder / f"{name}/{key}.tif", filled(values, valid, fill))
        scl = np.where(coarse, 4, 9).astype(np.uint8)
        write(folder / f"{name}/scl.tif", scl, pixel_m=20.0)
        assets = {
            key: {"href": f"{name}/{key}.tif", "eo:bands": [{"name": key, "common_name": key}]}
            for key in ("red", "nir")
        }
        assets["scl"] = {"href": f"{name}/scl.tif"}
        items.append(
            {"type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None,
             "properties": {"datetime": "2023-07-01T00:00:00Z"}, "links": [], "assets": assets}
        )  # fmt: skip
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path, {"mask": ("cloud_high",), "nodata": "ignore"}


SOURCES = [
    (masked_inside, "uint8"),
    (masked_inside, "uint16"),
    (masked_inside, "float32"),
    (masked_by_alpha, "uint8"),
    (scene_of_files("values"), "uint16"),
    (scene_of_files("bits"), "float32"),
    (scene_of_files("bands"), "int16"),
    (resampled_scene("bilinear", "red"), "uint16"),
    (resampled_scene("bilinear", "red"), "float32"),
    (resampled_scene("nearest", "red"), "int16"),
    (resampled_scene("average", "swir"), "uint8"),
    (resampled_scene("average", "swir"), "float32"),
    (two_meanings, "uint16"),
    (two_meanings, "uint8"),
    (two_meanings, "float32"),
    (radar, "float32"),
    (radar, "uint16"),
    (shard, "uint8"),
    (stac, "uint16"),
    (stac, "float32"),
]


def everything_read(source, declared):
    """Bytes of all that is computed from a source: statistics, pixels, validity, batches."""
    index = index_of(source, **declared)
    assert not index.bad
    assert len(index.tiles) in (1, 2)
    out = {"rule": index.rule, "bands": index.bands, "dtype": index.dtype}
    for rule in ("all", "any"):
        config = DataConfig(**declared, valid=rule)
        out[rule] = measure(index, config, threads=2)
        assert 0 < out[rule].valid_all < 1
        for tile in range(len(index.tiles)):
            pixels, valid = read_all(index, tile, valid=rule, fill=out[rule].mean)
            assert valid.any()
            assert not valid.all()
            out[rule, tile] = np.where(valid, pixels, 0).tobytes(), valid.tobytes()
    out["batches"] = list(batches(index))
    return out


def batches(index):
    """The batches a training reads, as they are handed on: nothing is masked afterwards."""
    order = Order(
        shapes_of(index),
        OrderConfig(
            seed=0, batch=4, chip=4, super_window=12, chips_per_window=4, budget_bytes=1 << 20
        ),
    )
    config = LoaderConfig(min_valid=0.3, threads=2, prefetch=2)
    with HandlePool() as pool, Loader(order, TileReader(index, pool), config) as loader:
        for batch in loader.batches(0, 6):
            yield batch.pixels.numpy().tobytes(), batch.valid.numpy().tobytes()


@pytest.mark.parametrize(
    ("write_source", "dtype"),
    SOURCES,
    ids=[f"{w.__qualname__.split('.')[0]}-{i}-{d}" for i, (w, d) in enumerate(SOURCES)],
)
def test_what_lies_under_invalid_pixels_changes_no_bit(tmp_path, write_source, dtype):
    found = []
    for i, fill in enumerate(FILLS[dtype]):
        source, declared = write_source(tmp_path / str(i), fill, dtype)
        found.append(everything_read(source, declared))
    for other in found[1:]:
        assert other == found[0]


def test_the_sources_of_this_law_do_differ_under_their_masks(tmp_path):
    # Without the mask the fills are seen: the law above is not about files that are all alike.
    means = set()
    for i, fill in enumerate(FILLS["uint16"]):
        source, declared = stac(tmp_path / str(i), fill, "uint16")
        index = index_of(source, **(declared | {"mask": ()}))
        means.add(measure(index, DataConfig(), threads=1).mean)
    assert len(means) == 3
