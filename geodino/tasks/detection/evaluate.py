"""Boxes of whole labelled images, and what boxes without a model are."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Num
from torch import Tensor

from geodino import seeds
from geodino.geo.windows import Window
from geodino.infer.boxes import chips_for, joined, taken
from geodino.infer.cover import Cover
from geodino.models.detection.faster_rcnn import Found
from geodino.tasks.detection.crops import BoxPlaces, BoxSource

Find = Callable[[Num[Tensor, "b c h w"], Bool[Tensor, "b h w"]], list[Found]]
"""Finds the objects of images: a model, or what stands in for one."""


def find_in(
    find: Find,
    source: BoxSource,
    key: str,
    *,
    chip: int,
    overlap: int,
    iou: float,
    device: torch.device,
) -> Found:
    """Find the objects of one image, however large, chip by chip, on ground of its key's part.

    Boxes near that ground may be among them. They are in pixels of the grid that the model sees.

    Args:
        find: finds objects in chips; it gets one at a time, at its own size.
        source: where the image is read.
        key: of the image.
        chip: side of the chips, pixels; an image no larger is looked at whole.
        overlap: pixels that chips share; at least the longest side of an object, for each object
            to be seen whole by a chip.
        iou: chips say the same object where their boxes overlap by more.
        device: where to find.
    """
    seen = source.seen(key)
    cover = Cover.of(seen.grid.height, seen.grid.width, chip=chip, overlap=overlap, align=1)
    said = {}
    for row, column in chips_for(cover, lambda area: bool(source.seen_ground(key, area).any())):
        corner = cover.rows.start(row), cover.columns.start(column)
        window = Window(*corner, cover.rows.side, cover.columns.side)
        pixels, valid = seen.read(window)
        if not valid.any():
            continue
        image = torch.from_numpy(np.array(pixels))[None].to(device)
        mask = torch.from_numpy(np.array(valid))[None].to(device)
        (found,) = find(image, mask)
        said[row, column] = taken(cover, (row, column), found)
    boxes = joined(said, iou=iou)
    return Found(
        boxes=torch.from_numpy(boxes.xyxy).float(),
        classes=torch.from_numpy(boxes.classes),
        scores=torch.from_numpy(boxes.scores).float(),
    )


def random_boxes(
    places: BoxPlaces, key: str, size: tuple[int, int], *, classes: int, seed: int
) -> Found:
    """Return boxes that know the training labels but not the image: the floor of a detector.

    As many as the training images hold on the same ground, of sizes and classes drawn from theirs,
    anywhere in the image, with scores drawn at random. (Saying nothing scores 0.)

    Args:
        places: the training labels.
        key: of the image; what is drawn depends on it and the seed.
        size: height and width of the image.
        classes: how many there are, for a check.
        seed: of the draw.

    Raises:
        ValueError: the training labels hold a class that does not exist.
    """
    if places.classes.max() >= classes:
        raise ValueError(f"a training label has class {places.classes.max()} of {classes}")
    generator = seeds.rng(seed, "random boxes", key)
    height, width = size
    density = len(places.image) / places.area.sum()
    count = max(1, round(density * height * width))
    rows = generator.integers(0, len(places.image), size=count)
    sides = np.minimum(places.side[rows], [height, width])
    corner = generator.random((count, 2)) * (np.array([height, width]) - sides)
    xyxy = np.concatenate([corner[:, ::-1], (corner + sides)[:, ::-1]], axis=1)
    order = np.argsort(-(scores := generator.random(count)), kind="stable")
    return Found(
        boxes=torch.from_numpy(xyxy[order].astype(np.float32)),
        classes=torch.from_numpy(places.classes[rows][order]),
        scores=torch.from_numpy(scores[order].astype(np.float32)),
    )
