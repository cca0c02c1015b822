"""Cut labelled sample files into sets that `geodino evaluate` reads.

    python scripts/sample_sets.py DATA OUT

DATA holds (each is left out where it is absent): ``segdet/flair2`` (aerial tiles and masks),
``scenes/cloud_mask/*.npz`` (reflectances and a map of clouds), ``tiles/naip_urban_trees`` (tiles and
the places of trees). OUT gets a folder each, with a ``dataset.yaml``:

- ``flair``: 64 px crops, 19 classes, whole tiles in train, val or test;
- ``clouds``: 32 px crops of one scene; west trains, east tests, a strip between is left out;
- ``trees``: how many trees a crop of 64 px has; Chico trains, Bishop and Eureka test.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from rasterio.transform import Affine

_PARTS = ("train", "val", "test")


def main() -> None:
    """Cut what is there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    for name, cut in (("flair", flair), ("clouds", clouds), ("trees", trees)):
        count = cut(asked.data, asked.out / name)
        said = f"{count} crops" if count else "its files are not there"
        sys.stdout.write(f"{name}: {said}\n")


def flair(data: Path, out: Path) -> int:
    """Cut FLAIR-2 tiles; the band of heights is left out."""
    tiles = sorted((data / "segdet/flair2/aerial").glob("*.tif"))
    bands = [_band(name) for name in ("red", "green", "blue", "nir")]
    classes = ["none", *(f"class_{i}" for i in range(1, 20))]
    about = {
        "kind": "segmentation",
        "classes": classes,
        "ignore": [0],
        "bands": bands,
        "gsd_m": 0.2,
    }
    count = 0
    for number, tile in enumerate(tiles):
        part = _PARTS[max(0, number - len(tiles) + 3)]
        with (
            rasterio.open(tile) as image,
            rasterio.open(tile.parents[1] / "mask" / tile.name) as mask,
        ):
            pixels, labels = image.read()[:4], mask.read(1)
            place, crs = image.transform, image.crs
        for row, column in _corners(pixels.shape[1:], 64):
            name = f"{part}/{tile.stem}_{row}_{column}.tif"
            at = place * Affine.translation(column, row)
            _write(out / "img" / name, _crop(pixels, row, column, 64), transform=at, crs=crs)
            _write(out / "mask" / name, _crop(labels[None], row, column, 64), transform=at, crs=crs)
            count += 1
    return _described(out, count, about)


def clouds(data: Path, out: Path) -> int:
    """Cut a scene of six bands with its map of clouds."""
    files = sorted((data / "scenes/cloud_mask").glob("*.npz"))
    if not files:
        return 0
    scene = np.load(files[0])
    pixels, labels = scene["img"].transpose(2, 0, 1), scene["msk"][None, :, :, 0]
    names = ("blue", "green", "red", "nir", "swir16", "swir22")
    about = {
        "kind": "segmentation",
        "classes": [f"class_{i}" for i in range(int(labels.max()) + 1)],
        "bands": [_band(name) for name in names],
        "gsd_m": 10.0,
    }
    width, count = pixels.shape[2], 0
    for row, column in _corners(pixels.shape[1:], 32):
        place = column / width
        part = "train" if place < 0.5 else "val" if 0.55 < place < 0.65 else "test"
        if 0.5 <= place <= 0.55 or 0.65 <= place <= 0.7:
            continue
        name = f"{part}/{row}_{column}.tif"
        _write(out / "img" / name, _crop(pixels, row, column, 32))
        _write(out / "mask" / name, _crop(labels, row, column, 32))
        count += 1
    return _described(out, count, about)


def trees(data: Path, out: Path) -> int:
    """Cut NAIP tiles, with the number of trees that were marked in each crop."""
    rows: list[dict[str, Any]] = []
    for path in sorted((data / "tiles/naip_urban_trees/csv").glob("*.csv")):
        with path.open(encoding="utf-8") as stream:
            points = np.array([[float(p["y"]), float(p["x"])] for p in csv.DictReader(stream)])
        tile = path.parents[1] / "images" / f"{path.stem}.tif"
        town = path.stem.split("_")[0]
        part = "test" if town != "chico" else "val" if path.stem.endswith("5") else "train"
        with rasterio.open(tile) as image:
            pixels, place, crs = image.read(), image.transform, image.crs
        for row, column in _corners(pixels.shape[1:], 64):
            inside = ((points >= (row, column)) & (points < (row + 64, column + 64))).all(axis=1)
            name = f"img/{path.stem}_{row}_{column}.tif"
            at = place * Affine.translation(column, row)
            _write(out / name, _crop(pixels, row, column, 64), transform=at, crs=crs)
            rows.append({"path": name, "label": int(inside.sum()), "split": part, "region": town})
    if rows:
        with (out / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    bands = [_band(name) for name in ("red", "green", "blue", "nir")]
    about = {"kind": "regression", "unit": "trees", "table": "labels.csv", "bands": bands}
    return _described(out, len(rows), {**about, "gsd_m": 0.6})


def _band(name: str) -> dict[str, str]:
    return {"name": name, "common_name": name}


def _corners(shape: Sequence[int], side: int) -> Iterator[tuple[int, int]]:
    for row in range(0, shape[0] - side + 1, side):
        for column in range(0, shape[1] - side + 1, side):
            yield row, column


def _crop(pixels: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    return pixels[:, row : row + side, column : column + side]


def _write(path: Path, pixels: np.ndarray, **place: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width,
        dtype=pixels.dtype, photometric="MINISBLACK", **place,
    ) as file:  # fmt: skip
        file.write(pixels)


def _described(out: Path, count: int, about: dict[str, Any]) -> int:
    if not count:
        return 0
    if about["kind"] == "segmentation":
        about["images"] = r"img/(?P<split>train|val|test)/(?P<key>[^/]+)\.tif"
        about["labels"] = "mask/{split}/{key}.tif"
    (out / "dataset.yaml").write_text(yaml.safe_dump(about, sort_keys=False), encoding="utf-8")
    return count


if __name__ == "__main__":
    main()
