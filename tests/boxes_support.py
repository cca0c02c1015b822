"""Makers of small sets with boxes in the layouts of their publishers."""

import json

import numpy as np
from PIL import Image


def picture(path, *, height=40, width=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 100, np.uint8)).save(path)
    return path


def voc_xml(path, objects, *, height=40, width=60, turned=False):
    """``objects`` holds (name, x0, y0, x1, y1[, difficult])."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, x0, y0, x1, y1, *rest in objects:
        if turned:
            corners = {
                "left_top": (x0, y0), "right_top": (x1, y0), "right_bottom": (x1, y1),
                "left_bottom": (x0, y1),
            }  # fmt: skip
            box = "".join(f"<x_{k}>{x}</x_{k}><y_{k}>{y}</y_{k}>" for k, (x, y) in corners.items())
            box = f"<robndbox>{box}</robndbox>"
        else:
            box = f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
            box = f"<bndbox>{box}</bndbox>"
        hard = f"<difficult>{int(rest[0])}</difficult>" if rest else ""
        rows.append(f"<object><name>{name}</name>{hard}{box}</object>")
    path.write_text(
        f"<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        f"{''.join(rows)}</annotation>"
    )
    return path


def make_dior(root, *, turned=False, lists=True):
    """The authors' layout: two images to train, one to validate, one to test."""
    parts = {"train": ["00001", "00002"], "val": ["00003"], "test": ["00004"]}
    kind = "Oriented" if turned else "Horizontal"
    for part, stems in parts.items():
        for stem in stems:
            folder = "JPEGImages-test" if part == "test" else "JPEGImages-trainval"
            picture(root / folder / f"{stem}.jpg")
            objects = [] if stem == "00002" else [
                ("Expressway-Service-area", 10, 5, 30, 25), ("ship", 40, 30, 55, 38, True)
            ]  # fmt: skip
            path = root / "Annotations" / f"{kind} Bounding Boxes" / f"{stem}.xml"
            voc_xml(path, objects, turned=turned)
        if lists:
            path = root / "ImageSets" / "Main" / f"{part}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(stems) + "\n")
    return root


def coco_json(path, images, annotations, *, categories=((3, "house"), (7, "hall"))):
    """``images``: (id, file name); ``annotations``: (image, category, bbox[, iscrowd])."""
    content = {
        "images": [
            {"id": i, "file_name": name, "height": 40, "width": 60} for i, name in images
        ],
        "categories": [{"id": i, "name": name} for i, name in categories],
        "annotations": [
            {
                "id": n, "image_id": image, "category_id": category, "bbox": list(box),
                "iscrowd": int(rest[0]) if rest else 0,
            }
            for n, (image, category, box, *rest) in enumerate(annotations, start=1)
        ],
    }  # fmt: skip
    path.write_text(json.dumps(content))
    return path
