"""From a trained detector to a model folder that boxes can be found with, and the boxes found."""

from pathlib import Path
from typing import Any

import numpy as np

from geodino.data.labelled.boxes import name_of
from geodino.evals.results import MODEL
from geodino.files import replacing
from geodino.models.card import ModelCard
from geodino.models.detection_folder import save_detection
from geodino.runs.finetune.detection.results import RANDOM, Results
from geodino.runs.finetune.detection.scene import DetectionScene
from geodino.runs.record import RunFolder

PREDICTIONS = "predictions.parquet"
"""What was found in the images of the test and validation parts."""


def export(scene: DetectionScene, results: Results, folder: RunFolder, *, step: int) -> None:
    """Write the model folder, and what it found in test and validation images.

    Raises:
        RunError: it cannot be written.
    """
    prepared = scene.prepared
    save_detection(
        folder.model,
        scene.network,
        classes=prepared.source.classes,
        contract=prepared.contract,
        card=_card(scene, results, folder, step),
        extra=extra_of(scene, results),
    )
    write_predictions(results, prepared.source.classes, folder.root / PREDICTIONS)


def extra_of(scene: DetectionScene, results: Results) -> dict[str, Any]:
    """Return what is written into ``detection.json`` beside the head."""
    facts, config = results.facts, scene.prepared.config
    on = facts["reported_on"]
    return {
        "chip": scene.chips.chip,
        "overlap": scene.chips.overlap,
        "gsd_m": config.gsd_m,
        "size": config.size,
        "score": facts["score"],
        "augment": config.sampling.augment,
        "results": {
            "on": on,
            "ap50": _value(facts, MODEL, "ap50"),
            "coco_ap": _value(facts, MODEL, "coco_ap"),
            "ap50_of_random_boxes": _value(facts, RANDOM, "ap50"),
            "ap50_by_class": {name: row["ap50"] for name, row in facts[on]["classes"].items()},
        },
    }


def write_predictions(results: Results, classes: tuple[str, ...], path: Path) -> None:
    """Write every box found: part, image, class, score, corners in pixels, and whether it is right.

    ``is_right`` is null for boxes on a difficult object, which are neither.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [(part, one) for part, measured in results.parts.items() for one in measured.images]
    counts = [len(one.scores) for _, one in rows]
    numbers = np.concatenate([one.found.classes.numpy() for _, one in rows])
    found = [one.matches() for _, one in rows]
    right = np.concatenate([one.right for one in found])
    judged = np.concatenate([one.right | one.wrong for one in found])
    corners = np.concatenate([one.boxes for _, one in rows])
    table = pa.table(
        {
            "part": np.repeat([part for part, _ in rows], counts),
            "image": np.repeat([name_of(one.key) for _, one in rows], counts),
            "class": np.array(classes, dtype=object)[numbers],
            "score": np.concatenate([one.scores for _, one in rows]).astype(np.float32),
            **dict(zip(("x0", "y0", "x1", "y1"), corners.T, strict=True)),
            "is_right": pa.array(right, mask=~judged),
        }
    )
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _value(facts: dict[str, Any], row: str, name: str) -> float | None:
    found: float | None = facts[facts["reported_on"]]["scores"][row][name]["value"]
    return found


def _card(scene: DetectionScene, results: Results, folder: RunFolder, step: int) -> dict[str, Any]:
    prepared, facts = scene.prepared, results.facts
    config, about = prepared.config, prepared.data.set.facts
    ap50, floor = _value(facts, MODEL, "ap50"), _value(facts, RANDOM, "ap50")
    evaluation = ""
    if ap50 is not None and floor is not None:
        evaluation = (
            f"AP50 {ap50:.3f} on the {facts['reported_on']} part of its run; boxes at random have "
            f"{floor:.3f}."
        )
    images = len(prepared.data.set.parts["train"])
    backbone = "fine-tuned" if config.optim.unfreeze else "frozen"
    return ModelCard(
        name=f"{folder.root.resolve().name}-detection",
        description=f"Boxes around objects ({', '.join(prepared.source.classes)}) from Faster R-CNN on "
        f"a {backbone} {prepared.opened.name}.",
        data=f"{len(scene.places.image):,} objects in {images} images of {about.name}"
        + (f" ({about.source})" if about.source else "")
        + "; lists and splits lie in the run folder.",
        training=f"{step} steps of {config.train.batch} crops of {config.sampling.crop} px, seed "
        f"{config.train.seed}.",
        evaluation=evaluation,
        limits="Objects longer than the overlap of chips may be cut in images larger than a chip.",
        lineage=prepared.lineage,
        image_size=config.sampling.crop,
    ).model_dump()
