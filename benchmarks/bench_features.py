"""From labelled images on disk to features, against the model alone.

`ours` is what `geodino evaluate` does once per set: PNG files are read, judged pixel by pixel for
validity, hashed, summed up, resized and encoded. `model alone` encodes the same pixels, which lie
in memory at their final size, in the same batches: what cannot be undercut with this network. The
share of the two is the one that counts. `one by one` is the loop people write first: read an
image, encode it alone.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _harness import interleave, main, ratio, table

from geodino import seeds
from geodino.data.labelled.image_folder import find_suite
from geodino.evals.features import Extraction, encoder, extract, fit_to_patches, pool_patches
from geodino.evals.meeting import meet
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.models.build import build_backbone
from geodino.models.sizes import ModelConfig

SIDE = 64
CONTRACT = InputContract(
    bands=tuple(Band(name=n, common_name=n) for n in ("red", "green", "blue")),
    dtype="uint8",
    mean=(120.0,) * 3, std=(40.0,) * 3, low=(0.0,) * 3, high=(255.0,) * 3,
)  # fmt: skip


def written(folder: Path, count: int) -> Path:
    """Write smooth pictures of two classes."""
    r = seeds.rng(0, "pictures")
    for number in range(count):
        coarse = r.integers(0, 255, size=(8, 8, 3)).astype(np.uint8)
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(path)
    return folder


def measured(folder: Path, rounds: int, count: int, *, name: str, size: int | None) -> tuple:
    """Compare the three on one network and size."""
    data = find_suite(written(folder, count))
    keys = [key for part in data.parts.values() for key in part]
    backbone = build_backbone(
        ModelConfig(name=name), CONTRACT, generator=torch.Generator().manual_seed(0)
    ).eval()
    met = meet(CONTRACT, data.facts, bands="model", values="contract", statistics=None)
    encode = encoder(backbone, blocks=4)
    how = Extraction(
        patch_size=backbone.patch_size, image_size=size, batch=64, threads=2,
        device=torch.device("cpu"),
    )  # fmt: skip
    seen = [met.seen(data.image(key)) for key in keys]
    values = torch.from_numpy(np.stack([pixels for pixels, _ in seen]))
    valid = torch.from_numpy(np.stack([used for _, used in seen]))
    image, mask = fit_to_patches(values, valid, patch_size=how.patch_size, image_size=size)
    found: dict[str, np.ndarray] = {}

    def ours() -> None:
        features = extract(
            {"model": encode}, keys, reader=lambda key: met.seen(data.image(key)), how=how
        )
        found["ours"] = features.features["model"].mean_patch

    @torch.inference_mode()
    def alone() -> None:
        rows = []
        for start in range(0, len(keys), how.batch):
            part = slice(start, start + how.batch)
            last = encode(image[part], mask[part])[-1]
            rows.append(pool_patches(last.patches, mask[part], grid=last.grid))
        found["alone"] = torch.cat(rows).numpy()

    @torch.inference_mode()
    def one_by_one() -> None:
        rows = []
        for key in keys:
            pixels, used = (torch.from_numpy(a)[None] for a in met.seen(data.image(key)))
            if size is not None:
                pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
                used = torch.ones(1, size, size, dtype=torch.bool)
            rows.append(encode(pixels, used)[-1].patches.mean(dim=1))
        found["plain"] = torch.cat(rows).numpy()

    timings = interleave({"ours": ours, "model alone": alone, "one by one": one_by_one}, rounds)
    scale = float(np.abs(found["alone"]).max())
    for other in found.keys() - {"alone"}:
        gap = float(np.abs(found[other] - found["alone"]).max()) / scale
        assert gap < 1e-4, (other, gap)
    share = ratio(timings, "model alone", "ours")
    title = f"{name}, {count} images of {SIDE} px, seen at {size or SIDE} px"
    text = table(title, timings, work=count, unit="images", ours="ours")
    return f"{text}\n  ours reaches {share:.1%} of the rate of the model alone", {"share": share}


def run(rounds: int, small: bool) -> dict:
    """Measure a small network at the images' size and a larger one at 224 px."""
    cases = (
        ("vit_nano", None, 16 if small else 400),
        ("vit_small_patch16_dinov3", 32 if small else 224, 4 if small else 128),
    )
    tables, figures = [], {}
    for name, size, count in cases:
        with tempfile.TemporaryDirectory() as folder:
            text, figures[name] = measured(Path(folder), rounds, count, name=name, size=size)
            tables.append(text)
    return {"tables": tables, "figures": figures}


if __name__ == "__main__":
    main(run)
