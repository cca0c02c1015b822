"""What a run of classification is made of, and how its weights are judged."""

from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from geodino.data.labelled.sets import PartName, SetFacts
from geodino.evals.probes.prediction import Prediction, many_classes, one_class
from geodino.evals.scoring import Judged, score_names
from geodino.models.classification import ClassificationModel, build_classification
from geodino.models.pooling import whole_patches
from geodino.runs.finetune.classification.prepare import PreparedClassification
from geodino.runs.finetune.scene import Judgement, Scene
from geodino.runs.networks import seeded_generator
from geodino.tasks.classification.evaluate import probabilities
from geodino.tasks.classification.feed import ImageFeed
from geodino.tasks.classification.objective import ImageObjective
from geodino.tasks.drawn import drawn
from geodino.tasks.module import Objective


@dataclass(frozen=True, kw_only=True)
class ClassificationScene(Scene[PreparedClassification]):
    """What a prepared run is made of."""

    network: ClassificationModel

    @property
    def model(self) -> ClassificationModel:
        """What learns."""
        return self.network

    @property
    def facts(self) -> SetFacts:
        """What is known of the set; its metric is one that classes of images have."""
        facts = self.prepared.source.set.facts
        known = score_names(facts)
        return facts if facts.metric in known else replace(facts, metric=known[0])

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of images as the backbone sees them, pixels."""
        source = self.prepared.source
        if source.image_size is not None:
            return source.image_size, source.image_size
        height, width = source.set.size(source.keys("train")[0])
        patch = source.patch_size
        return whole_patches(height, patch), whole_patches(width, patch)

    @property
    def judgement(self) -> Judgement:
        """The highest score that the set itself reports wins."""
        metric = self.facts.metric
        return Judgement(score=metric, better="higher", words=f"{spoken(metric)} {{:.3f}}")

    def objective(self) -> Objective:
        """Return the loss."""
        return ImageObjective(self.prepared.config.loss)

    def feed(self) -> ImageFeed:
        """Return what draws images."""
        config = self.prepared.config
        return ImageFeed(
            self.prepared.source,
            config.sampling,
            seed=config.train.seed,
            batch=config.train.batch,
            threads=self.prepared.threads,
        )

    def validate(self, threads: Executor) -> dict[str, float]:
        """Return the scores of the model on some of the validation images; it trains on afterwards."""
        config = self.prepared.config
        every = range(len(self.prepared.source.keys("val")))
        rows = np.array(drawn(every, config.validation.areas, seed=config.train.seed))
        judged = Judged(self.facts, self.predicted("val", rows), self.truth("val", rows))
        return {name: judged.value(name) for name in score_names(self.facts)}

    def truth(self, part: PartName, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the labels of images of a part."""
        labels = self.prepared.source.labels[part]
        return labels if rows is None else labels[rows]

    def predicted(self, part: PartName, rows: np.ndarray | None = None) -> Prediction:
        """Return what the model says of images of a part, which goes on as it was."""
        source, model = self.prepared.source, self.network
        keys = source.keys(part)
        chosen = keys if rows is None else [keys[i] for i in rows.tolist()]
        was_training = model.training
        model.eval()
        found = probabilities(model, source, chosen, threads=self.prepared.threads)
        model.train(was_training)
        said = one_class if self.facts.kind == "classification" else many_classes
        return said(found.astype(np.float64), chosen={})


def spoken(metric: str) -> str:
    """Return the name of a score as people say it."""
    words = {
        "micro_f1": "micro F1",
        "macro_f1": "macro F1",
        "micro_map": "micro mAP",
        "macro_map": "macro mAP",
    }
    return words.get(metric, metric.replace("_", " "))


def look(prepared: PreparedClassification) -> ClassificationScene:
    """Build the model: a fresh head on a copy of the backbone."""
    config, source = prepared.config, prepared.source
    model = build_classification(
        prepared.backbone(),
        config.classification,
        classes=len(source.classes),
        kind="multilabel" if source.set.facts.kind == "multilabel" else "classification",
        image_size=source.image_size,
        generator=seeded_generator(config.train.seed, "classification head"),
    )
    if config.optim.unfreeze:
        model.unfreeze()
    return ClassificationScene(prepared=prepared, network=model)
