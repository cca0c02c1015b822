"""The truth behind a generated scene as files: land cover, heights, buildings, trees, changes."""

from pathlib import Path

import numpy as np

from geodino.data.generated.tiff import HOME, Placement, write_layer
from geodino.files import replacing
from geodino.world.buildings import KINDS
from geodino.world.scene import Scene, changed

NO_CLASS = 255.0
"""Stored in ``classes`` and ``changes`` where the scene has no valid pixel."""


def write_classes(path: Path, scene: Scene, placement: Placement = HOME) -> Path:
    """Write land cover as uint8, an index into ``world.scene.CLASSES``; nodata 255."""
    return write_layer(
        path, scene.classes, scene, placement, name="class", nodata=NO_CLASS, where=scene.valid
    )


def write_heights(path: Path, scene: Scene, placement: Placement = HOME) -> Path:
    """Write heights above ground as float32 metres; nodata NaN, 0 is bare ground."""
    return write_layer(
        path, scene.height_m, scene, placement, name="height", nodata=float("nan"), unit="m",
        where=scene.valid,
    )  # fmt: skip


def write_changes(path: Path, before: Scene, after: Scene, placement: Placement = HOME) -> Path:
    """Write 1 where the land cover of two dates differs, 0 elsewhere; nodata 255."""
    both = before.valid & after.valid
    layer = changed(before, after).astype(np.uint8)
    return write_layer(path, layer, before, placement, name="changed", nodata=NO_CLASS, where=both)


def write_buildings(path: Path, scene: Scene, placement: Placement = HOME) -> Path:
    """Write the boxes of buildings as GeoJSON in the scene's own coordinate system.

    Properties: ``class`` (house or hall) and the half-open pixel box ``x0, y0, x1, y1``. Boxes are
    upright in pixels, hence in the coordinates: nothing is lost on the way there and back.
    """
    from shapely import box

    a, _, west, _, e, north = placement.transform(scene.frame)[:6]
    boxes = scene.buildings.boxes
    x0, y0, x1, y1 = boxes.T
    columns = {name: boxes[:, i] for i, name in enumerate(("x0", "y0", "x1", "y1"))}
    columns["class"] = np.array([KINDS[kind] for kind in scene.buildings.kind], dtype=object)
    shapes = box(west + a * x0, north + e * y1, west + a * x1, north + e * y0)
    return _write_geojson(path, columns, shapes, placement)


def write_trees(path: Path, scene: Scene, placement: Placement = HOME) -> Path:
    """Write stems as GeoJSON points in the scene's own coordinate system.

    Properties: ``class`` (conifer or broadleaf), ``height_m``, ``radius_m`` of the crown, and the
    place in pixels, ``x`` and ``y``, counted from the corner of the first.
    """
    from shapely import points

    a, _, west, _, e, north = placement.transform(scene.frame)[:6]
    trees = scene.trees
    x, y = trees.xy.T
    columns = {
        "class": np.where(trees.conifer, "conifer", "broadleaf").astype(object),
        "height_m": trees.height_m.astype(np.float64),
        "radius_m": trees.radius_m.astype(np.float64),
        "x": x,
        "y": y,
    }
    return _write_geojson(path, columns, points(west + a * x, north + e * y), placement)


def _write_geojson(
    path: Path, columns: dict[str, np.ndarray], shapes: np.ndarray, placement: Placement
) -> Path:
    import geopandas

    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=placement.crs)
    with replacing(path) as temporary:
        # The temporary name has no ending that tells the format; a micrometre is enough.
        frame.to_file(temporary, driver="GeoJSON", engine="pyogrio", COORDINATE_PRECISION=6)
    return path
