"""DIOR: objects of 20 classes in pictures of 800 x 800 pixels.

As its authors pack it: ``JPEGImages-{trainval,test}/00001.jpg``, ``Annotations/Horizontal Bounding
Boxes/00001.xml``, ``ImageSets/Main/{train,val,test}.txt`` (or ``Main``). As torchgeo packs it:
``Images/{trainval,test}/*.jpg``, ``Annotations/trainval/*.xml``, ``sample_df.csv``.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geodino.data.labelled.boxes import (
    PICTURES,
    RGB,
    BoxCounts,
    BoxPicture,
    PictureBoxes,
    Turned,
)
from geodino.data.labelled.common import listed
from geodino.data.labelled.sets import PARTS, PartName, SetFacts
from geodino.data.labelled.voc import read_voc
from geodino.errors import SourceError
from geodino.io.raster import HandlePool, describe

CLASSES = (
    "airplane", "airport", "baseballfield", "basketballcourt", "bridge", "chimney", "dam",
    "expresswayservicearea", "expresswaytollstation", "golffield", "groundtrackfield", "harbor",
    "overpass", "ship", "stadium", "storagetank", "tenniscourt", "trainstation", "vehicle",
    "windmill",
)  # fmt: skip

_LISTS = ("ImageSets/Main", "Main", "ImageSets")
_IMAGES = ("JPEGImages-trainval", "JPEGImages-test", "Images/trainval", "Images/test", "JPEGImages")
_UPRIGHT = (
    "Annotations", "Annotations/Horizontal Bounding Boxes", "Annotations/trainval",
    "Annotations/test",
)  # fmt: skip
_TURNED = "Annotations/Oriented Bounding Boxes"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    image: Path
    label: Path | None


def is_dior(root: Path) -> bool:
    """Whether a folder holds DIOR."""
    return any((root / name).is_dir() for name in _IMAGES[:4]) and (root / "Annotations").is_dir()


def open_dior(root: Path | str, *, pool: HandlePool, turned: Turned = "refuse") -> PictureBoxes:
    """Open DIOR in either layout; keys are ``train/00001``.

    Without lists of a part, what lies in the folder trainval is for training and there is no part
    to validate on. A test part without labels keeps its images.

    Args:
        root: the folder that holds images and annotations.
        pool: where open files are kept.
        turned: what becomes of turned boxes, where only those are there.

    Raises:
        SourceError: images or labels are missing or damaged.
    """
    root = Path(root)
    rows = _of_table(root) or _of_lists(root) or _of_folders(root)
    counts = BoxCounts()
    pictures: dict[str, BoxPicture] = {}
    parts: dict[PartName, tuple[str, ...]] = {}
    bare: set[PartName] = set()
    for part, of_part in rows.items():
        _check_labels(of_part)
        keys = []
        for row in of_part:
            key = f"{part}/{row.image.stem}"
            keys.append(key)
            if row.label is None:
                bare.add(part)
                grid = describe(row.image).grid
                pictures[key] = BoxPicture(
                    path=row.image, size=(grid.height, grid.width), boxes=None
                )
                continue
            found = read_voc(row.label, CLASSES, turned=turned, counts=counts)
            pictures[key] = BoxPicture(path=row.image, size=found.size, boxes=found.boxes)
        parts[part] = tuple(keys)
    if not pictures:
        raise SourceError(
            f"{root} holds no image of DIOR: expected JPEGImages-trainval/*.jpg or Images/trainval/"
            "*.jpg, and Annotations beside it. Unpack its archives there."
        )
    notes = [*counts.words(), "coordinates are used as they are, as corners in pixels"]
    notes += [f"the {part} part has no labels here" for part in sorted(bare)]
    labels = [row.label for of_part in rows.values() for row in of_part if row.label is not None]
    facts = SetFacts(
        name="DIOR", kind="detection", classes=CLASSES, bands=RGB, dtype="uint8", metric="map50",
        notes=tuple(notes),
        source="DIOR (arXiv 1909.00133), pictures of Google Earth: for academic use",
    )  # fmt: skip
    return PictureBoxes(
        facts=facts, parts=parts, pictures=pictures, label_files=tuple(labels),
        rule=PICTURES, pool=pool, unlabelled=frozenset(bare),
    )  # fmt: skip


def _check_labels(rows: Sequence[_Row]) -> None:
    """Refuse a part of which some images have labels and some have none."""
    bare = [row.image for row in rows if row.label is None]
    if bare and len(bare) < len(rows):
        raise SourceError(
            f"{bare[0]} has no XML file, though other images of its part have: unpack the labels again."
        )


def _of_table(root: Path) -> dict[PartName, list[_Row]] | None:
    path = root / "sample_df.csv"
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8-sig") as handle:
        table = list(csv.DictReader(handle))
    if not table or not {"image_path", "split"} <= table[0].keys():
        raise SourceError(f"{path} needs the columns image_path, label_path and split.")
    rows: dict[PartName, list[_Row]] = {}
    for row in table:
        part = next((p for p in PARTS if p == row["split"]), None)
        if part is None:
            raise SourceError(
                f"{path}: {row['split']!r} of {row['image_path']} is not one of {', '.join(PARTS)}."
            )
        said = row.get("label_path") or ""
        label = root / said if said and (root / said).is_file() else None
        if label is None and part != "test":
            raise SourceError(f"{path}: {row['image_path']} has no label {said!r}: unpack it.")
        rows.setdefault(part, []).append(_Row(image=root / row["image_path"], label=label))
    return rows


def _of_lists(root: Path) -> dict[PartName, list[_Row]] | None:
    folder = next((root / n for n in _LISTS if (root / n / "train.txt").is_file()), None)
    if folder is None:
        return None
    images, labels = _images(root), _labels(root)
    rows: dict[PartName, list[_Row]] = {}
    for part in PARTS:
        path = folder / f"{part}.txt"
        if not path.is_file():
            continue
        rows[part] = []
        for stem in path.read_text(encoding="utf-8").split():
            if stem not in images:
                raise SourceError(f"{path} lists {stem}, of which there is no image: unpack it.")
            if stem not in labels and part != "test":
                raise SourceError(f"{path} lists {stem}, which has no XML file: unpack it.")
            rows[part].append(_Row(image=images[stem], label=labels.get(stem)))
    return rows


def _of_folders(root: Path) -> dict[PartName, list[_Row]]:
    labels = _labels(root)
    rows: dict[PartName, list[_Row]] = {}
    for stem, image in sorted(_images(root).items()):
        part: PartName = "test" if image.parent.name.endswith("test") else "train"
        if stem not in labels and part == "train":
            raise SourceError(f"{image} has no XML file of its name below {root / 'Annotations'}.")
        rows.setdefault(part, []).append(_Row(image=image, label=labels.get(stem)))
    return rows


def _images(root: Path) -> Mapping[str, Path]:
    return {p.stem: p for name in _IMAGES for p in listed(root / name, ".jpg", ".jpeg")}


def _labels(root: Path) -> Mapping[str, Path]:
    found = {p.stem: p for name in _UPRIGHT for p in listed(root / name, ".xml")}
    return found or {p.stem: p for p in listed(root / _TURNED, ".xml")}
