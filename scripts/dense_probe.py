"""How good are the maps of patches of some models? Measured on labelled pixels, frozen.

    python scripts/dense_probe.py --images FLAIR/aerial --labels FLAIR/mask MODEL...

For each model (run folder, model folder, or `CHECKPOINT:TEACHER` of a run) and each scale: logistic
regression from a patch token to the class that most pixels under the patch have, trained on the
left half of every image, tested on the right half (a strip between them is left out), and the cosine
between the tokens of the same ground seen at the training resolution and enlarged.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from geodino.models.backbone import Backbone
from geodino.models.folder import load_model
from geodino.runs.export import export_run
from geodino.runs.record import model_folder

Pair = tuple[torch.Tensor, torch.Tensor]

_GAP = 0.06
"""Share of the width between the halves that is left out."""


def opened(name: str, scratch: Path) -> Backbone:
    """Open a model, or the teacher of a numbered checkpoint (`RUN@STEP`)."""
    run, at, step = name.partition("@")
    if not at:
        return load_model(model_folder(name)).backbone
    place = scratch / f"{Path(run).name}-{step}"
    if not place.exists():
        copy = scratch / f"{Path(run).name}-{step}-run"
        (copy / "checkpoints").mkdir(parents=True)
        for part in ("recipe.yaml", "contract.json", "run.json", "tiles.parquet"):
            (copy / part).write_bytes((Path(run) / part).read_bytes())
        source = Path(run) / "checkpoints" / f"step-{int(step):08d}.ckpt"
        (copy / "checkpoints" / "last.ckpt").write_bytes(source.read_bytes())
        export_run(copy, out=place)
    return load_model(place).backbone


def read(images: Path, labels: Path, *, bands: int, shrink: int) -> Iterator[Pair]:
    """Yield (pixels [c h w], classes [h w]) of every pair of files of one name, `shrink` times smaller."""
    for path in sorted(images.glob("*.tif")):
        with rasterio.open(path) as source:
            pixels = torch.from_numpy(source.read(list(range(1, bands + 1)))).float()
        with rasterio.open(labels / path.name) as source:
            classes = torch.from_numpy(source.read(1)).long()
        yield F.avg_pool2d(pixels[None], shrink)[0], classes


def patch_classes(classes: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The commonest class under each patch."""
    counts = F.one_hot(classes, 32).permute(2, 0, 1)[None].float()
    return F.interpolate(counts, size=grid, mode="area")[0].argmax(0)


@torch.inference_mode()
def tokens(backbone: Backbone, pixels: torch.Tensor, *, window: int, scale: int) -> torch.Tensor:
    """Patch tokens [d h w] of an image in windows of `window` pixels, each enlarged `scale` times."""
    _, height, width = pixels.shape
    rows = []
    for top in range(0, height - window + 1, window):
        cut = [
            pixels[:, top : top + window, left : left + window]
            for left in range(0, width - window + 1, window)
        ]
        batch = torch.stack(cut)
        if scale > 1:
            batch = F.interpolate(batch, scale_factor=scale, mode="bicubic")
        maps = backbone.tokens(batch).map
        rows.append(torch.cat(list(maps), dim=-1))
    return torch.cat(rows, dim=-2)


def measure(
    backbone: Backbone, pairs: list[Pair], *, window: int, scales: list[int]
) -> dict[str, float]:
    """Return the figures of one model by name."""
    out: dict[str, float] = {}
    plain = [tokens(backbone, pixels, window=window, scale=1) for pixels, _ in pairs]
    for scale in scales:
        maps = [tokens(backbone, p, window=window, scale=scale) for p, _ in pairs]
        near, x, y, test = [], [], [], []
        for of, base, (pixels, classes) in zip(maps, plain, pairs, strict=True):
            small = F.interpolate(of[None], size=base.shape[-2:], mode="area")[0]
            near.append(float(F.cosine_similarity(small, base, dim=0).mean()))
            side = window * (pixels.shape[-1] // window), window * (pixels.shape[-2] // window)
            share = side[1] / pixels.shape[-2], side[0] / pixels.shape[-1]
            seen = classes[: round(share[0] * len(classes)), : round(share[1] * classes.shape[1])]
            wanted = patch_classes(seen, small.shape[-2:])
            columns = (torch.arange(wanted.shape[1]) + 0.5) / wanted.shape[1]
            side_of = torch.where(
                columns < 0.5 - _GAP / 2, 0, torch.where(columns > 0.5 + _GAP / 2, 1, 2)
            )
            x.append(small.flatten(1).T.numpy())
            y.append(wanted.flatten().numpy())
            test.append(side_of.expand(wanted.shape).flatten().numpy())
        a, b, c = np.concatenate(x), np.concatenate(y), np.concatenate(test)
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=0.1))
        probe.fit(a[c == 0], b[c == 0])
        out[f"x{scale} accuracy"] = float(probe.score(a[c == 1], b[c == 1]))
        out[f"x{scale} balanced"] = float(
            balanced_accuracy_score(b[c == 1], probe.predict(a[c == 1]))
        )
        if scale > 1:
            out[f"x{scale} cosine to x1"] = float(np.mean(near))
    return out


def main() -> None:
    """Read arguments, measure, print one line of JSON a model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("models", nargs="+", help="run folder, model folder, or RUN@STEP")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--window", type=int, default=32, help="side of a window, pixels")
    parser.add_argument("--shrink", type=int, default=3, help="how much coarser images are read")
    parser.add_argument("--scales", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--scratch", type=Path, default=Path("dense-probe-scratch"))
    asked = parser.parse_args()
    for name in asked.models:
        backbone = opened(name, asked.scratch)
        pairs = list(read(asked.images, asked.labels, bands=backbone.bands, shrink=asked.shrink))
        found = measure(backbone, pairs, window=asked.window, scales=asked.scales)
        line = json.dumps({"model": name, **{k: round(v, 4) for k, v in found.items()}})
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
