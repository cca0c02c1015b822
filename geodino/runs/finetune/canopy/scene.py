"""What a run of canopy heights is made of, and what happens to its head once it is trained."""

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from geodino.errors import SourceError
from geodino.infer.heights import HeightPredictor
from geodino.models.canopy import CanopyModel, build_canopy
from geodino.runs.finetune.canopy.judge import Subject
from geodino.runs.finetune.canopy.prepare import PreparedCanopy, PreparedGround
from geodino.runs.finetune.scene import Judgement, Scene
from geodino.runs.networks import seeded_generator
from geodino.tasks.canopy.areas import Area, find_areas
from geodino.tasks.canopy.crops import CropFeed, Windows, find_windows
from geodino.tasks.canopy.evaluate import SiteSums, judged
from geodino.tasks.canopy.objective import CanopyObjective
from geodino.tasks.canopy.source import FootprintLabels
from geodino.tasks.chips import Chips
from geodino.tasks.drawn import drawn
from geodino.tasks.module import Objective


@dataclass(frozen=True, kw_only=True)
class CanopyScene(Scene[PreparedCanopy]):
    """What a prepared run is made of once its labels were looked at."""

    canopy: CanopyModel
    windows: Windows
    chips: Chips

    val: tuple[Area, ...]
    """All validation areas."""

    @property
    def model(self) -> CanopyModel:
        """What learns."""
        return self.canopy

    @property
    def subject(self) -> Subject:
        """What is measured."""
        prepared = self.prepared
        return Subject(
            source=prepared.source,
            model=self.canopy,
            chips=self.chips,
            val=self.val,
            config=prepared.config,
            seed=prepared.config.train.seed,
            threads=prepared.threads,
        )

    @property
    def crop(self) -> int:
        """Side of a crop, pixels."""
        return self.windows.crop

    @property
    def judgement(self) -> Judgement:
        """The lowest mean absolute error wins."""
        return Judgement(score="mae_m", better="lower", words="MAE {:.2f} m")

    def objective(self) -> Objective:
        """Return CHMv2's curriculum."""
        config, labels = self.prepared.config, self.prepared.source.labels
        return CanopyObjective(
            config.curriculum,
            config.train.steps,
            quantiles=config.canopy.quantiles,
            percentile=labels.index.percentile if isinstance(labels, FootprintLabels) else None,
        ).of

    def feed(self) -> CropFeed:
        """Return what draws crops, balanced by height."""
        config = self.prepared.config
        return CropFeed(
            self.prepared.source,
            self.windows,
            config.sampling,
            seed=config.train.seed,
            batch=config.train.batch,
            threads=self.prepared.threads,
        )

    def validate(self, threads: Executor) -> dict[str, float]:
        """Return the scores of the model on some of the validation ground; it trains on afterwards.

        Raises:
            SourceError: no pixel of it has both a label and a valid image.
        """
        config = self.prepared.config
        areas = drawn(self.val, config.validation.areas, seed=config.train.seed)
        model = self.canopy
        was_training = model.training
        sums = SiteSums(config.protocol)
        predictor = HeightPredictor(model, device=model.bins_m.device)
        for compared in judged(
            self.prepared.source, areas, "val", predictor, self.chips, threads=threads
        ):
            sums.add(compared)
        model.train(was_training)
        whole = sums.whole
        if whole is None:
            raise SourceError(
                "No pixel of the validation ground has both a label and a valid image: declare other "
                "shares (split.shares), another seed of the split (split.seed), or name a file "
                "(--split)."
            )
        return {
            name: value
            for name, value in whole.named().items()
            if not name.startswith("class/") and math.isfinite(value)
        }


def validation_areas(prepared: PreparedGround[Any]) -> tuple[Area, ...]:
    """Return all validation areas.

    Raises:
        SourceError: there are none.
    """
    val = find_areas(prepared.source, "val", threads=prepared.threads)
    if not val:
        raise SourceError(
            "There is no label on the ground for validation: declare other shares (split.shares), "
            "another seed of the split (split.seed), or name a file (--split)."
        )
    return val


def look(prepared: PreparedCanopy) -> CanopyScene:
    """Build the model, and look at the labels of all training and validation ground.

    Raises:
        SourceError: there are no labels on one of them.
        RecipeError: the head does not fit the backbone.
    """
    config = prepared.config
    model = build_canopy(
        prepared.opened.loaded.backbone,
        config.canopy,
        generator=seeded_generator(config.train.seed, "canopy head"),
        frozen=not config.optim.unfreeze,
    )
    if prepared.begins_with_head and prepared.task is not None:
        model.head.load_state_dict(prepared.task.canopy.model.head.state_dict())
    if config.optim.unfreeze:
        model.unfreeze()
    crop = -(-config.sampling.crop // model.multiple) * model.multiple
    windows = find_windows(prepared.source, config.sampling, crop=crop, threads=prepared.threads)
    val = validation_areas(prepared)
    maps = config.maps
    chips = Chips.fitting(
        chip=crop if maps.chip == "auto" else maps.chip,
        overlap=None if maps.overlap == "auto" else maps.overlap,
        align=model.backbone.patch_size,
    )
    return CanopyScene(prepared=prepared, canopy=model, windows=windows, chips=chips, val=val)
