"""A small generated world with exact heights, and a backbone to learn them with."""

import geopandas
import numpy as np
import rasterio
import torch
from rasterio.transform import xy

from geodino.data.generated.tiff import HOME, Placement, write_geotiff
from geodino.data.generated.truth import write_heights
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.models.build import build_backbone
from geodino.models.folder import save_model
from geodino.models.sizes import ModelConfig
from geodino.runs.finetune import FinetuneJob, finetune
from geodino.world.masks import holes, masked
from geodino.world.scene import scene

SIDE = 128
SCENES = 6


def write_world(folder, *, fill=None, hidden_m=None):
    """Images and heights far apart from each other; some pixels invalid, with ``fill`` in them."""
    for number in range(SCENES):
        made = scene(number, height=SIDE, width=SIDE, top=-300, left=-700)
        place = Placement(east_m=HOME.east_m + 2_000 * number)
        write_heights(folder / "heights" / f"s{number}.tif", made, place)
        if fill is not None:
            spots = holes(number, height=SIDE, width=SIDE, share=0.2)
            made = masked(made, spots, fill=fill)
        write_geotiff(folder / "images" / f"s{number}.tif", made, place, missing="mask")
        if hidden_m is not None:
            hide(folder / "heights" / f"s{number}.tif", hidden_m)
    return folder


def hide(path, value):
    """Make a corner of the labels invalid, with ``value`` under the nodata tag."""
    with rasterio.open(path) as file:
        heights, profile = file.read(1), file.profile
    heights[:40, :60] = value
    profile.update(nodata=value)
    with rasterio.open(path, "w", **profile) as file:
        file.write(heights, 1)
        file.units = ("m",)


def write_footprints(folder, count=60):
    """Points on every scene, with the 98th percentile of the heights within 12.5 m."""
    points, heights = [], []
    for path in sorted((folder / "heights").glob("*.tif")):
        with rasterio.open(path) as file:
            truth, transform, crs = file.read(1), file.transform, file.crs
        generator = np.random.default_rng(len(points))
        rows, columns = np.mgrid[:SIDE, :SIDE]
        for row, column in generator.integers(24, SIDE - 24, size=(count, 2)):
            near = np.hypot(rows - row, columns - column) * 0.6 <= 12.5
            points.append(xy(transform, row, column))
            heights.append(float(np.percentile(truth[near], 98)))
    frame = geopandas.GeoDataFrame(
        {"rh98": heights}, geometry=geopandas.points_from_xy(*zip(*points, strict=True)), crs=crs
    )
    frame.to_file(folder / "footprints.gpkg")
    return folder / "footprints.gpkg"


def write_backbone(folder, *, bands=("red", "green", "blue"), lineage=()):
    contract = InputContract(
        bands=tuple(Band(name=name, common_name=name) for name in bands),
        dtype="uint8",
        mean=(90.0,) * len(bands),
        std=(40.0,) * len(bands),
        low=(0.0,) * len(bands),
        high=(255.0,) * len(bands),
        gsd_m=(0.6, 0.6),
    )
    config = ModelConfig(name="vit_nano", patch_size=8, dim=32, depth=2, heads=2, layer_scale=1.0)
    backbone = build_backbone(config, contract, generator=torch.Generator().manual_seed(0))
    save_model(
        folder, backbone=backbone, heads=None, contract=contract, config=config,
        head_configs=None, card={"name": "tiny", "lineage": list(lineage)},
    )  # fmt: skip
    return folder


def run(world, model, out, *overrides, labels=None, resume=False, recipe="debug-canopy", **more):
    return finetune(
        FinetuneJob(
            task="canopy",
            images=str(world / "images"),
            labels=str(labels or world / "heights"),
            model=None if model is None else str(model),
            out=out,
            recipe=None if resume else recipe,
            overrides=() if resume else ("split.block_m=200.0", *overrides),
            device="cpu",
            resume=resume,
            quiet=True,
            **more,
        )
    )
