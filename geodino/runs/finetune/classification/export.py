"""From a trained head to a model folder that images can be told apart with."""

from typing import Any

from geodino.evals.results import MODEL
from geodino.models.card import ModelCard
from geodino.models.classification_folder import save_classification
from geodino.runs.finetune.classification.results import Results
from geodino.runs.finetune.classification.scene import ClassificationScene, spoken
from geodino.runs.record import RunFolder


def export(scene: ClassificationScene, results: Results, folder: RunFolder, *, step: int) -> None:
    """Write the model folder: backbone, head, contract, classes, what was learnt about it.

    Raises:
        RunError: it cannot be written.
    """
    facts = results.facts
    test = facts["test"]
    save_classification(
        folder.model,
        scene.network,
        classes=scene.prepared.source.classes,
        contract=scene.prepared.contract,
        card=_card(scene, facts, folder, step),
        extra={
            "seen": list(scene.sides),
            "augment": scene.prepared.config.sampling.augment,
            "results": {
                "on": "test",
                "images": test["images"],
                "metric": facts["metric"],
                "scores": {name: s[facts["metric"]]["value"] for name, s in test["scores"].items()},
            },
        },
    )


def _card(
    scene: ClassificationScene, facts: dict[str, Any], folder: RunFolder, step: int
) -> dict[str, Any]:
    prepared, metric = scene.prepared, facts["metric"]
    config, scores = prepared.config, facts["test"]["scores"]
    backbone = "fine-tuned" if config.optim.unfreeze else "frozen"
    values = {name: found[metric]["value"] for name, found in scores.items()}
    floors = ", ".join(f"{name} {value:.3f}" for name, value in values.items() if name != MODEL)
    source = prepared.source.set.facts.source
    many = (
        "Any number of these classes" if facts["kind"] == "multilabel" else "One of these classes"
    )
    return ModelCard(
        name=f"{folder.root.resolve().name}-classification",
        description=f"Classes of whole images ({', '.join(prepared.source.classes)}) from a linear head "
        f"on a {backbone} {prepared.opened.name}.",
        data=f"{len(prepared.source.keys('train'))} labelled images of {prepared.source.set.facts.name}"
        + (f" ({source})" if source else "")
        + ".",
        training=f"{step} steps of {config.train.batch} images, seed {config.train.seed}.",
        evaluation=f"{spoken(metric).capitalize()} {values[MODEL]:.3f} on the test part of its run; "
        f"{floors}.",
        limits=f"{many} is said of every image, whatever it shows.",
        lineage=prepared.lineage,
        image_size=scene.network.image_size or ModelCard().image_size,
    ).model_dump()
