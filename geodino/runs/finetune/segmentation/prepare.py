"""Before the first step of segmentation: which images and classes a run learns from."""

from geodino.data.labelled.open_classes import is_known_set, open_classes
from geodino.data.labelled.opened import OpenedSet
from geodino.data.tiles import TileIndex
from geodino.geo.contract import InputContract
from geodino.io.raster import HandlePool
from geodino.runs.finetune.labelled import Preparation, PreparedLabelled
from geodino.runs.finetune.segmentation.config import SegmentationFinetuneConfig
from geodino.tasks.segmentation.source import ClassSource

PreparedSegmentation = PreparedLabelled[SegmentationFinetuneConfig, ClassSource]


def _opened(
    images: str,
    labels: str,
    config: SegmentationFinetuneConfig,
    *,
    split: str | None,
    pool: HandlePool,
    index: TileIndex | None,
) -> OpenedSet:
    return open_classes(
        images, labels, config=config.labels, data=config.data, split=split,
        split_config=config.split, pool=pool, index=index, seen_m=config.gsd_m,
    )  # fmt: skip


def _source(
    data: OpenedSet,
    config: SegmentationFinetuneConfig,
    contract: InputContract,
    bands: tuple[int, ...],
) -> ClassSource:
    return ClassSource(
        set=data.set, contract=contract, bands=bands, gsd_m=config.gsd_m,
        statistic=config.labels.statistic,
    )  # fmt: skip


PREPARATION = Preparation(
    config=SegmentationFinetuneConfig,
    recipe="segmentation",
    brings_labels=lambda images, config: is_known_set(images, config.labels),
    has_tiles=lambda images, _, config: not is_known_set(images, config.labels),
    open=_opened,
    source=_source,
)
