"""A small generated town with exact boxes, and runs that learn from it."""

import json

import numpy as np
from PIL import Image

from geodino.data.generated.tiff import HOME, Placement, write_geotiff
from geodino.data.generated.truth import write_buildings
from geodino.runs.finetune import FinetuneJob, finetune
from geodino.world.masks import holes, masked
from geodino.world.scene import scene

SIDE, SCENES = 128, 6


def write_town(folder, *, fill=None):
    """Images and buildings far apart from each other; some pixels invalid, with ``fill`` in them."""
    for number in range(SCENES):
        made = scene(2, height=SIDE, width=SIDE, top=-1400 + SIDE * number, left=-604)
        place = Placement(east_m=HOME.east_m + 2_000 * number)
        write_buildings(folder / "buildings" / f"s{number}.geojson", made, place)
        if fill is not None:
            made = masked(made, holes(number, height=SIDE, width=SIDE, share=0.2), fill=fill)
        write_geotiff(folder / "images" / f"s{number}.tif", made, place, missing="mask")
    return folder


def write_squares(folder, parts, *, side=64, classes=("red", "blue"), only=None):
    """Pictures with a coloured square each, and COCO's JSON: ``parts`` says how many of each part.

    ``only`` names the class of all squares of a part, by part.
    """
    generator = np.random.default_rng(0)
    colours = {"red": (230, 20, 20), "blue": (20, 20, 230)}
    categories = [{"id": 10 + i, "name": name} for i, name in enumerate(classes)]
    for part, count in parts.items():
        images, annotations = [], []
        for number in range(count):
            pixels = generator.integers(70, 110, size=(side, side, 3), dtype=np.uint8)
            left, top = generator.integers(2, side - 22, size=2).tolist()
            kind = number % 2 if only is None or part not in only else classes.index(only[part])
            pixels[top : top + 20, left : left + 16] = colours[classes[kind]]
            name = f"{part}_{number}.png"
            (folder / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / "images" / name)
            images.append({"id": number, "file_name": name, "height": side, "width": side})
            annotations.append(
                {
                    "id": number, "image_id": number, "category_id": 10 + kind,
                    "bbox": [left, top, 16, 20],
                }
            )  # fmt: skip
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "labels").mkdir(exist_ok=True)
        (folder / "labels" / f"instances_{part}.json").write_text(json.dumps(content))
    return folder


def run(images, labels, model, out, *overrides, resume=False, **more):
    return finetune(
        FinetuneJob(
            task="detection",
            images=str(images),
            labels=None if labels is None else str(labels),
            model=None if model is None else str(model),
            out=out,
            recipe=None if resume else "debug-detection",
            overrides=() if resume else ("train.steps=6", "validation.every=3", *overrides),
            device="cpu",
            resume=resume,
            quiet=True,
            **more,
        )
    )
