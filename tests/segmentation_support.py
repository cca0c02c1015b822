"""A small generated world with exact classes, and a segmentation model with weights that matter."""

from pathlib import Path

import torch
from heights_support import RGB

from geodino.data.generated.tiff import HOME, Placement, write_geotiff
from geodino.data.generated.truth import write_classes
from geodino.models.build import build_backbone
from geodino.models.decoders.linear import LinearHeadConfig
from geodino.models.segmentation import SegmentationConfig, build_segmentation
from geodino.models.segmentation_folder import ClassOfMap, save_segmentation
from geodino.models.sizes import ModelConfig
from geodino.runs.finetune import FinetuneJob, finetune
from geodino.world.masks import holes, masked
from geodino.world.scene import scene

SIDE, SCENES = 128, 6
CLASSES = "{grass: [0, 5], arable: 1, trees: 2, water: 3, built: [4, 6]}"
THREE = (
    ClassOfMap("wood land", (0, 120, 0)),
    ClassOfMap("water", (0, 0, 255)),
    ClassOfMap("rest", (200, 200, 200)),
)


def write_world(folder, *, fill=None):
    """Images and land cover far apart from each other; some pixels invalid, with ``fill`` in them."""
    for number in range(SCENES):
        made = scene(number, height=SIDE, width=SIDE, top=-300, left=-700)
        place = Placement(east_m=HOME.east_m + 2_000 * number)
        write_classes(folder / "classes" / f"s{number}.tif", made, place)
        if fill is not None:
            made = masked(made, holes(number, height=SIDE, width=SIDE, share=0.2), fill=fill)
        write_geotiff(folder / "images" / f"s{number}.tif", made, place, missing="mask")
    return folder


def save_small_segmentation(folder: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(name="vit_nano", patch_size=8, dim=32, depth=2, heads=2, layer_scale=1.0)
    backbone = build_backbone(config, RGB, generator=generator).eval()
    model = build_segmentation(
        backbone, SegmentationConfig(head=LinearHeadConfig()), classes=3, generator=generator
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.3, generator=generator))
    save_segmentation(
        folder, model.eval(), classes=THREE, contract=RGB, card={"name": "small"},
        extra={"chip": 64, "overlap": 16},
    )  # fmt: skip
    return folder


def run(world, model, out, *overrides, resume=False, **more):
    more = {"labels": str(world / "classes"), **more}
    settings = (
        f"labels.classes={CLASSES}", "split.block_m=200.0", "validation.every=10",
        "floors.pixels=200", *overrides,
    )  # fmt: skip
    return finetune(
        FinetuneJob(
            task="segmentation",
            images=str(world / "images"),
            model=None if model is None else str(model),
            out=out,
            recipe=None if resume else "debug-segmentation",
            overrides=() if resume else settings,
            device="cpu",
            resume=resume,
            quiet=True,
            **more,
        )
    )
