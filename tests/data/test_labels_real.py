"""Real RGB images and canopy-height models: found by place, half a pixel off, and aligned."""

import csv

import numpy as np
import pytest
import rasterio
from scene_support import index_of

from geodino.data.labels.config import LabelsConfig
from geodino.data.labels.index import label_index
from geodino.data.labels.pairs import labelled_ground, pair
from geodino.data.labels.reader import LabelReader, onto_label_grid
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool


def labels_of(src):
    return label_index(src, LabelsConfig(unit="m"), threads=1)


@pytest.fixture(scope="module")
def real(shared_data):
    """Heights of every image of the real pairs: {image: (heights, valid, label file)}."""
    with (shared_data / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = labels_of(str(shared_data / "canopy/*/{CHM/*,*_CHM}.tif"))
    found = {}
    for source in ("idtrees/RGB", "neon_teak/RGB", "neon_eval/RGB", "neon_bart/*_rgb.tif"):
        images = index_of(shared_data / "canopy" / source)
        pairs = pair(images, labels.tiles, order="path")
        assert len(labelled_ground(images, labels.tiles, pairs)) == len(images.tiles)
        with HandlePool() as pool:
            reader = LabelReader(labels, pairs, images, pool)
            for i, tile in enumerate(images.tiles):
                (number,) = pairs.by_image[i]
                got = reader(i, Window(0, 0, tile.height, tile.width))
                found[tile.path] = (*got, labels.tiles.tiles[number].path)
    return shared_data, rows, found


def test_every_real_image_finds_its_label_by_place_alone_and_holds_its_heights(real):
    folder, rows, found = real
    assert len(rows) == len(found) == 26
    for row in rows:
        got, valid, label = found[str(folder / row["rgb"])]
        assert label == str(folder / row["chm"])
        shift = float(row["bounds_diff_m"])
        assert valid.mean() > (0.999 if shift == 0 else 0.97)
        assert got[valid].min() == pytest.approx(float(row["h_min"]), abs=0.01)
        assert got[valid].max() == pytest.approx(float(row["h_max"]), abs=0.01)
        assert got[valid].mean() == pytest.approx(float(row["h_mean"]), abs=0.1)


def test_real_sparse_stands_are_greener_where_they_are_taller_but_not_8_m_aside(real):
    _, _, found = real
    at_place, aside = [], []
    for path, (heights_m, _, _) in found.items():
        if "TEAK" not in path and "JERC" not in path:
            continue
        with rasterio.open(path) as file:
            red, green, blue = file.read().astype(float)
        greenness = (2 * green - red - blue) / (red + green + blue + 1)
        tall = np.minimum(heights_m, 5)

        def agreement(down, across, greenness=greenness, tall=tall):
            inner = (slice(100, 300), slice(100, 300))
            moved = np.roll(tall, (down, across), (0, 1))[inner]
            return np.corrcoef(greenness[inner].ravel(), moved.ravel())[0, 1]

        at_place.append(agreement(0, 0))
        aside.append(np.mean([agreement(*s) for s in ((80, 0), (-80, 0), (0, 80), (0, -80))]))
    assert len(at_place) == 7
    assert np.median(at_place) > np.median(aside) + 0.15


def test_a_label_read_on_its_fine_image_comes_back_as_it_was(shared_data):
    images = index_of(shared_data / "canopy/neon_eval/RGB")
    labels = labels_of(shared_data / "canopy/neon_eval/CHM")
    image = images.tiles[0].grid
    with HandlePool() as pool:
        reader = LabelReader(labels, pair(images, labels.tiles, order="path"), images, pool)
        got, valid = reader(0, Window(0, 0, image.height, image.width))
    grid = labels.tiles.tiles[0].grid
    window = Window(0, 0, grid.height, grid.width)
    back, kept = onto_label_grid(
        got, valid, grid_of_values=image, label_grid=grid, window=window,
        statistic="max",
    )  # fmt: skip
    with HandlePool() as pool:
        own, _ = labels.heights(pool, 0, window)
    # Half a pixel off: a column of the label lies beyond the image.
    assert kept.mean() == pytest.approx(0.975)
    np.testing.assert_array_equal(back[kept], own[kept].astype(np.float32))
