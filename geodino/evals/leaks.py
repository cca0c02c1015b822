"""Whether a model may have seen the test images: its pretraining tiles against their places."""

from collections.abc import Sequence

import numpy as np
import shapely

from geodino.data.labelled.sets import LabelledSet

Outline = tuple[float, float, float, float]
"""West, south, east, north, degrees."""


def leaks(data: LabelledSet, tiles: Sequence[shapely.Geometry]) -> tuple[tuple[str, ...], str]:
    """Compare the test images with the tiles a model was pretrained on.

    Args:
        data: the set.
        tiles: outlines of the pretraining tiles, longitude and latitude.

    Returns:
        Alarms, and in a sentence what could be compared.
    """
    places = [data.outline(key) for key in data.parts["test"]]
    known = [place for place in places if place is not None]
    if not known:
        return (), f"no test image of {data.facts.name} has a place: overlap cannot be checked"
    if not tiles:
        return (), "the model does not say where its tiles lay: overlap cannot be checked"
    boxes = shapely.box(*np.array(known).T)
    tree = shapely.STRtree(list(tiles))
    image, tile = tree.query(boxes, predicate="intersects")
    outlines = np.array(list(tiles), dtype=object)
    shared = shapely.area(shapely.intersection(boxes[image], outlines[tile]))
    smaller = np.minimum(shapely.area(boxes[image]), shapely.area(outlines[tile]))
    # Neighbours that share an edge share no ground.
    seen = np.unique(image[shared > 1e-3 * smaller])
    checked = f"{len(known)} of {len(places)} test images have a place; {len(seen)} lie on pretraining tiles"
    if not len(seen):
        return (), checked
    alarm = (
        f"{len(seen)} of {len(places)} test images lie on ground of the tiles the model was "
        "pretrained on (without labels): the scores say little about new ground."
    )
    return (alarm,), checked
