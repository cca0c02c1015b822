"""What a run of detection is made of, and how its weights are judged."""

from concurrent.futures import Executor
from dataclasses import dataclass

from geodino.data.parallel import in_order
from geodino.errors import SourceError
from geodino.infer.search import BoxFinder
from geodino.metrics.detection import DetectionScorer
from geodino.models.detection.faster_rcnn import DetectionModel, build_detection
from geodino.runs.finetune.detection.prepare import PreparedDetection
from geodino.runs.finetune.scene import Judgement, Scene
from geodino.runs.networks import seeded_generator
from geodino.tasks.chips import Chips
from geodino.tasks.detection.crops import BoxFeed, BoxPlaces, find_places
from geodino.tasks.detection.judge import judged
from geodino.tasks.detection.objective import BoxObjective
from geodino.tasks.drawn import drawn
from geodino.tasks.module import Objective

_UNFIT = (
    "Declare other shares (split.shares) or another seed (split.seed), or name a file (--split)."
)


@dataclass(frozen=True, kw_only=True)
class DetectionScene(Scene[PreparedDetection]):
    """What a prepared run is made of once its labels were looked at."""

    network: DetectionModel
    places: BoxPlaces
    chips: Chips

    @property
    def model(self) -> DetectionModel:
        """What learns."""
        return self.network

    @property
    def judgement(self) -> Judgement:
        """The highest AP50 wins."""
        return Judgement(score="ap50", better="higher", words="AP50 {:.3f}")

    @property
    def joined_iou(self) -> float:
        """Neighbouring chips say the same object where their boxes overlap by more."""
        return self.prepared.config.detection.box_iou

    def objective(self) -> Objective:
        """Return the losses."""
        return BoxObjective(self.prepared.config.train.seed)

    def feed(self) -> BoxFeed:
        """Return what draws crops."""
        config = self.prepared.config
        return BoxFeed(
            self.prepared.source,
            self.places,
            config.sampling,
            seed=config.train.seed,
            batch=config.train.batch,
            threads=self.prepared.threads,
        )

    def validate(self, threads: Executor) -> dict[str, float]:
        """Return the scores of the model on some of the validation images; it trains on afterwards.

        Raises:
            SourceError: none of them holds an object.
        """
        config, source, model = self.prepared.config, self.prepared.source, self.network
        keys = drawn(source.set.parts["val"], config.validation.areas, seed=config.train.seed)
        was_training, device = model.training, next(model.head.parameters()).device
        scorer = DetectionScorer(len(source.classes))
        finder = BoxFinder(model, device=device)
        for one in judged(finder, source, keys, self.chips, iou=self.joined_iou, device=device):
            one.add_to(scorer)
        model.train(was_training)
        scores = scorer.scores()
        if not scores.truths.any():
            raise SourceError(
                f"None of the {len(keys)} images that are validated on holds an object that counts: "
                f"look at more (validation.areas). {_UNFIT}"
            )
        values = {"ap50": scores.ap50, "coco_ap": scores.coco_ap}
        for name, ap50 in zip(source.classes, scores.ap50_by_class.tolist(), strict=True):
            if ap50 == ap50:  # a class that is nowhere has none
                values[f"ap50/{name}"] = ap50
        return values


def look(prepared: PreparedDetection) -> DetectionScene:
    """Build the model, and look at the labels of training and validation images.

    Raises:
        SourceError: there are no objects on them.
        RecipeError: the head does not fit the backbone.
    """
    config, source = prepared.config, prepared.source
    model = build_detection(
        prepared.opened.loaded.backbone,
        config.detection,
        classes=len(source.classes),
        generator=seeded_generator(config.train.seed, "detection head"),
        frozen=not config.optim.unfreeze,
    )
    if config.optim.unfreeze:
        model.unfreeze()
    places = find_places(source, threads=prepared.threads, parts=config.sampling.parts)
    val = in_order(source.label, source.set.parts["val"], threads=prepared.threads)
    if not sum(int((~label.difficult).sum()) for label in val):
        raise SourceError(f"No image for validation holds an object. {_UNFIT}")
    maps = config.maps
    chips = Chips.fitting(
        chip=config.sampling.crop if maps.chip == "auto" else maps.chip,
        overlap=None if maps.overlap == "auto" else maps.overlap,
        align=model.backbone.patch_size,
    )
    return DetectionScene(prepared=prepared, network=model, places=places, chips=chips)
