"""From a trained head to a model folder that maps of classes can be made with."""

from typing import Any

from geodino.models.card import ModelCard
from geodino.models.segmentation_folder import ClassOfMap, save_segmentation
from geodino.runs.finetune.segmentation.results import MODEL, Results
from geodino.runs.finetune.segmentation.scene import SegmentationScene
from geodino.runs.record import RunFolder
from geodino.tasks.segmentation.floors import MAJORITY


def export(scene: SegmentationScene, results: Results, folder: RunFolder, *, step: int) -> None:
    """Write the model folder: backbone, head, contract, classes, what was learnt about it.

    Raises:
        RunError: it cannot be written.
    """
    prepared = scene.prepared
    save_segmentation(
        folder.model,
        scene.network,
        classes=classes_of(scene),
        contract=prepared.contract,
        card=_card(scene, results, folder, step),
        extra=extra_of(scene, results),
    )


def classes_of(scene: SegmentationScene) -> tuple[ClassOfMap, ...]:
    """Return names and colours of the classes."""
    data = scene.prepared.data
    pairs = zip(scene.prepared.source.classes, data.colours, strict=True)
    return tuple(ClassOfMap(name, colour) for name, colour in pairs)


def extra_of(scene: SegmentationScene, results: Results) -> dict[str, Any]:
    """Return what is written into ``segmentation.json`` beside the head."""
    facts, prepared = results.facts, scene.prepared
    on = facts["reported_on"]
    return {
        "chip": scene.chips.chip,
        "overlap": scene.chips.overlap,
        "gsd_m": prepared.config.gsd_m,
        "background": facts["background"],
        "augment": prepared.config.sampling.augment,
        "results": {
            "on": on,
            "miou": _miou(facts, MODEL),
            "miou_of_most_frequent_class": _miou(facts, MAJORITY),
            "iou": {name: row["iou"] for name, row in facts[on]["classes"].items()} if on else {},
        },
    }


def _miou(facts: dict[str, Any], row: str) -> float | None:
    on = facts["reported_on"]
    scores = facts[on]["scores"].get(row) if on else None
    return None if scores is None else scores["miou"]["value"]


def _card(
    scene: SegmentationScene, results: Results, folder: RunFolder, step: int
) -> dict[str, Any]:
    prepared, facts = scene.prepared, results.facts
    config = prepared.config
    miou, floor = _miou(facts, MODEL), _miou(facts, MAJORITY)
    backbone = "fine-tuned" if config.optim.unfreeze else "frozen"
    evaluation = ""
    if miou is not None and floor is not None:
        evaluation = (
            f"Mean IoU {miou:.3f} on the {facts['reported_on']} part of its run; the most frequent "
            f"class everywhere has {floor:.3f}."
        )
    images = {part: len(keys) for part, keys in prepared.data.set.parts.items()}
    source = prepared.data.set.facts.source
    return ModelCard(
        name=f"{folder.root.resolve().name}-segmentation",
        description=f"Classes of pixels ({', '.join(prepared.source.classes)}) from a "
        f"{config.segmentation.head.kind} head on a {backbone} {prepared.opened.name}.",
        data=f"{images.get('train', 0)} labelled images of {prepared.data.set.facts.name}"
        + (f" ({source})" if source else "")
        + "; lists and splits lie in the run folder.",
        training=f"{step} steps of {config.train.batch} crops of {scene.crop} px, seed "
        f"{config.train.seed}.",
        evaluation=evaluation,
        limits="Every valid pixel gets one of these classes, whatever is there.",
        lineage=prepared.lineage,
        image_size=scene.crop,
    ).model_dump()
