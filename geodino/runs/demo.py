"""``geodino demo``: a world, a model, a map and a report, in the first three minutes."""

import json
from pathlib import Path
from typing import Any

from geodino.data.generated.worlds import write_world
from geodino.data.index import Tile, load_index
from geodino.runs.embed import EmbedJob, Meeting, embed
from geodino.runs.pretrain import PretrainJob, pretrain
from geodino.runs.record import RunFolder

_STEPS = 120
"""About a minute and a half on two cores: colours and textures part, no more."""


_LARGEST = 1024 * 1024
"""Pixels of the largest tile whose features take seconds."""

_CHIP = 512
"""Side of the chips of the map. A chip is encoded in itself, so small ones show their edges; the
time of attention grows with the fourth power of the side."""


def demo(*, out: Path, tiles: str | None, device: str, quiet: bool = False) -> dict[str, Any]:
    """Make a small world, pretrain on it, map the features of a scene, write the report.

    A demo that was stopped goes on; one that is done is shown again.

    Args:
        out: gets ``tiles/`` (where they are generated), ``run/`` and ``features.tif``.
        tiles: the user's own source instead of generated tiles.
        device: see ``--device``.
        quiet: say nothing while it works.

    Returns:
        What to open: run folder, report, map of features, its picture.

    Raises:
        GeodinoError: the tiles cannot be used.
    """
    source = tiles or str(write_world("demo", out / "tiles"))
    run = RunFolder(out / "run")
    steps = (f"phases.pretrain.steps={_STEPS}", "checkpoint.every=40", "health.every=30")
    pretrain(
        PretrainJob(
            tiles=source,
            out=run.root,
            recipe="laptop",
            overrides=steps,
            device=device,
            resume=run.facts.is_file(),
            quiet=quiet,
        )
    )
    features, shown = out / "features.tif", _shown(run)
    embed(
        EmbedJob(
            rasters=(str(run.tiles),),
            overrides=(f"data.where={json.dumps(f'path == {json.dumps(shown.path)}')}",),
            how=Meeting(chip=_CHIP if shown.height * shown.width <= _CHIP**2 else _CHIP // 2),
            model=str(run.root),
            out=features,
            pca=3,
            device=device,
            overwrite=True,
            quiet=quiet,
        )
    )
    return {
        "run": str(run.root),
        "model": str(run.model),
        "report": str(run.report),
        "features": str(features),
        "picture": str(features.with_suffix(".pca.tif")),
        "tiles": source,
    }


def _shown(run: RunFolder) -> Tile:
    """Return the tile whose features are mapped: the first of a size that takes seconds."""
    tiles = load_index(run.tiles).tiles
    small = [tile for tile in tiles if tile.height * tile.width <= _LARGEST]
    return small[0] if small else min(tiles, key=lambda tile: tile.height * tile.width)


def next_steps(done: dict[str, Any], *, own: bool) -> str:
    """Return the last words of a demo: what to open, and what to try next."""
    tiles = done["tiles"] if own else "YOUR_TILES"
    return f"""
Open
  {done["report"]}    what was learnt, from what, how well
  {done["picture"]}    the features of a scene, as colours
  {done["model"]}    weights for timm: create_model("local-dir:{done["model"]}", pretrained=True)

Try next
  geodino inspect {tiles}
  geodino pretrain --tiles {tiles} --recipe laptop --out runs/first
  geodino embed {tiles} --model runs/first --out features.zarr
"""
