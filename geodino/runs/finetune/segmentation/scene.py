"""What a run of segmentation is made of, and how its weights are judged."""

from concurrent.futures import Executor
from dataclasses import dataclass

from geodino.errors import RecipeError, SourceError
from geodino.infer.classes import ClassPredictor
from geodino.metrics.segmentation import segmentation_scores
from geodino.models.decoders.dense import OwnLoss
from geodino.models.segmentation import SegmentationModel, build_segmentation
from geodino.runs.finetune.scene import Judgement, Scene
from geodino.runs.finetune.segmentation.prepare import PreparedSegmentation
from geodino.runs.networks import seeded_generator
from geodino.tasks.chips import Chips
from geodino.tasks.drawn import drawn
from geodino.tasks.module import Objective
from geodino.tasks.segmentation.config import ClassLossConfig
from geodino.tasks.segmentation.crops import ClassFeed, ClassWindows, find_windows
from geodino.tasks.segmentation.evaluate import Cell, cells_of, judged
from geodino.tasks.segmentation.objective import ClassObjective
from geodino.tasks.segmentation.scores import ImageConfusions


@dataclass(frozen=True, kw_only=True)
class SegmentationScene(Scene[PreparedSegmentation]):
    """What a prepared run is made of once its labels were looked at."""

    network: SegmentationModel
    windows: ClassWindows
    chips: Chips

    val: tuple[Cell, ...]
    """All of the validation images."""

    @property
    def model(self) -> SegmentationModel:
        """What learns."""
        return self.network

    @property
    def crop(self) -> int:
        """Side of a crop, pixels."""
        return self.windows.crop

    @property
    def judgement(self) -> Judgement:
        """The highest mean IoU wins."""
        return Judgement(score="miou", better="higher", words="mean IoU {:.3f}")

    @property
    def weights(self) -> tuple[float, ...] | None:
        """Weight of each class in the loss of single pixels."""
        said = self.prepared.config.loss.weights
        if said == "none":
            return None
        return self.windows.weights() if said == "inverse" else said

    def objective(self) -> Objective:
        """Return the losses."""
        return ClassObjective(self.prepared.config.loss, self.weights)

    def feed(self) -> ClassFeed:
        """Return what draws crops."""
        config = self.prepared.config
        return ClassFeed(
            self.prepared.source,
            self.windows,
            config.sampling,
            seed=config.train.seed,
            batch=config.train.batch,
            threads=self.prepared.threads,
        )

    def validate(self, threads: Executor) -> dict[str, float]:
        """Return the scores of the model on some of the validation images; it trains on afterwards.

        Raises:
            SourceError: no pixel of them has both a class and a valid image.
        """
        config, source = self.prepared.config, self.prepared.source
        cells = drawn(self.val, config.validation.areas, seed=config.train.seed)
        model = self.network
        was_training, device = model.training, next(model.head.parameters()).device
        found = ImageConfusions(len(source.classes))
        predictor = ClassPredictor(model, device=device)
        for one in judged(source, cells, predictor, self.chips, threads=threads):
            found.add(one.cell.key, one.truth, one.predicted)
        model.train(was_training)
        if not found.images:
            raise SourceError(
                "No pixel of the validation images has both a class and a valid image: declare other "
                "shares (split.shares), another seed of the split (split.seed), or name a file "
                "(--split)."
            )
        scores = segmentation_scores(found.whole, background=source.set.facts.background)
        values = {"miou": float(scores.miou), "pixel_accuracy": float(scores.pixel_accuracy)}
        for name, iou in zip(source.classes, scores.iou.tolist(), strict=True):
            if iou == iou:  # a class that is nowhere has none
                values[f"iou/{name}"] = iou
        return values


def look(prepared: PreparedSegmentation) -> SegmentationScene:
    """Build the model, and look at the labels of training images.

    Raises:
        SourceError: there are no labels on them.
        RecipeError: the head does not fit the backbone, or weights the classes, or losses the head.
    """
    config, source = prepared.config, prepared.source
    classes = len(source.classes)
    if isinstance(config.loss.weights, tuple) and len(config.loss.weights) != classes:
        raise RecipeError(
            f"loss.weights lists {len(config.loss.weights)} numbers for {classes} classes "
            f"({', '.join(source.classes)}): list one for each."
        )
    model = build_segmentation(
        prepared.opened.loaded.backbone,
        config.segmentation,
        classes=classes,
        generator=seeded_generator(config.train.seed, "segmentation head"),
        frozen=not config.optim.unfreeze,
    )
    if isinstance(model.head, OwnLoss) and config.loss != ClassLossConfig():
        raise RecipeError(
            f"The section `loss` says how single pixels teach, and the head "
            f"{config.segmentation.head.kind} brings its own loss: leave the section out, and set "
            "the weights under `segmentation.head`."
        )
    if config.optim.unfreeze:
        model.unfreeze()
    crop = -(-config.sampling.crop // model.multiple) * model.multiple
    windows = find_windows(
        source, config.sampling, crop=crop, seed=config.train.seed, threads=prepared.threads
    )
    maps = config.maps
    chips = Chips.fitting(
        chip=crop if maps.chip == "auto" else maps.chip,
        overlap=None if maps.overlap == "auto" else maps.overlap,
        align=model.backbone.patch_size,
    )
    return SegmentationScene(
        prepared=prepared, network=model, windows=windows, chips=chips,
        val=cells_of(source, "val"),
    )  # fmt: skip
