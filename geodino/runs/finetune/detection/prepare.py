"""Before the first step of detection: which images and boxes a run learns from."""

from geodino.data.labelled.open_boxes import is_known_set, layout_of, open_boxes
from geodino.data.labelled.opened import OpenedSet
from geodino.data.labelled.resized import ResizedBoxes
from geodino.data.tiles import TileIndex
from geodino.errors import RecipeError
from geodino.geo.contract import InputContract
from geodino.io.raster import HandlePool
from geodino.runs.finetune.detection.config import DetectionFinetuneConfig
from geodino.runs.finetune.labelled import Preparation, PreparedLabelled
from geodino.tasks.detection.crops import BoxSource

PreparedDetection = PreparedLabelled[DetectionFinetuneConfig, BoxSource]


def _opened(
    images: str,
    labels: str,
    config: DetectionFinetuneConfig,
    *,
    split: str | None,
    pool: HandlePool,
    index: TileIndex | None,
) -> OpenedSet:
    return open_boxes(
        images, labels, config=config.labels, data=config.data, split=split,
        split_config=config.split, pool=pool, index=index, seen_m=config.gsd_m,
    )  # fmt: skip


def _source(
    data: OpenedSet,
    config: DetectionFinetuneConfig,
    contract: InputContract,
    bands: tuple[int, ...],
) -> BoxSource:
    """Let the model read the images, resized where that is asked.

    Raises:
        RecipeError: images with a place are to be resized, or images are by two rules.
    """
    if config.size is None:
        return BoxSource(set=data.set, contract=contract, bands=bands, gsd_m=config.gsd_m)
    if config.gsd_m is not None:
        raise RecipeError(
            f"size: {config.size} and gsd_m: {config.gsd_m:g} both say what the model sees: leave one out."
        )
    if data.images is not None:
        raise RecipeError(
            f"size: {config.size} resizes whole pictures, and these images have a place on the Earth and "
            "a resolution that maps must share: leave it out; sampling.crop says what a step sees."
        )
    made = ResizedBoxes(data.set, config.size)
    return BoxSource(set=made, contract=contract, bands=bands)


PREPARATION = Preparation(
    config=DetectionFinetuneConfig,
    recipe="detection",
    brings_labels=lambda images, config: is_known_set(images, config.labels),
    has_tiles=lambda images, labels, config: layout_of(images, labels, config.labels) == "table",
    open=_opened,
    source=_source,
)
