"""Multi-crop views: ours in the batch, torchvision v2 sample by sample, and two bounds.

`resize only` is torch's own antialiased interpolation of the same boxes of the same uint8 chips;
`write once` copies float32 tensors of the crops' size, the least any pipeline has to do.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _harness import interleave, main, ratio, table

import geodino  # noqa: F401  (lets torchvision load beside a CPU-only torch)
from geodino.data.views import MultiCrop, ViewPlan, ViewsConfig, draw_views
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract

RGB = InputContract(
    bands=tuple(Band(name=name, common_name=name) for name in ("red", "green", "blue")),
    dtype="uint8",
    mean=(109.7, 104.8, 75.5),
    std=(54.3, 39.8, 36.5),
    low=(0, 0, 0),
    high=(255, 255, 255),
)

PAPER = ViewsConfig()
PLAIN = ViewsConfig(
    global_size=64, local_size=32, local_count=4, flip_horizontal=0.5, flip_vertical=0.5,
    colour_p=0, grayscale_p=0, solarise_p=0, blur="none",
)  # fmt: skip


def run(rounds: int, small: bool) -> dict:
    torch.set_num_threads(1)
    settings = {
        "paper, chips of 512": (PAPER, 144 if small else 512, 2 if small else 16),
        "laptop, chips of 64": (PLAIN, 64, 4 if small else 256),
    }
    tables, figures = [], {}
    for name, (config, chip, samples) in settings.items():
        text, figures[name] = _compare(name, config, chip, samples, rounds)
        tables.append(text)
    return {"tables": tables, **figures}


def _compare(name: str, config: ViewsConfig, chip: int, samples: int, rounds: int):
    pixels = _chips(samples, chip)
    valid = np.ones((samples, chip, chip), dtype=bool)
    some_valid = torch.from_numpy(valid)
    holes = valid.copy()
    holes[:, : chip // 4, : chip // 3] = False
    some_holes = torch.from_numpy(holes)
    ours, peer = MultiCrop(config, RGB), _torchvision(config)
    count = iter(range(10**9))

    def make(mask: np.ndarray, tensor: torch.Tensor):
        first = next(count) * samples
        plan = draw_views(config, seed=0, first=first, valid=mask, rgb=True)
        return ours(pixels, tensor, plan)

    plan = draw_views(config, seed=0, first=0, valid=valid, rgb=True)
    views = ours(pixels, some_valid, plan)
    source = [torch.randn_like(views.globals), torch.randn_like(views.locals)]
    target = [torch.empty_like(x) for x in source]
    cases = {
        "geodino": lambda: make(valid, some_valid),
        "geodino, a corner invalid": lambda: make(holes, some_holes),
        "torchvision v2": lambda: [[t(chip) for t in peer] for chip in pixels],
        "draw_views alone": lambda: draw_views(config, seed=0, first=0, valid=valid, rgb=True),
        "bound: resize only": lambda: _resize_only(pixels, plan, config),
        "bound: write once": lambda: [t.copy_(s) for s, t in zip(source, target, strict=True)],
    }
    timings = interleave(cases, rounds)
    error = _error(config, pixels, some_valid)
    assert error < 2e-3, f"crops differ from torchvision's by {error} of the range"
    text = table(
        f"Views, {name} ({config.crops} crops, one thread)",
        timings, work=samples, unit="images", ours="geodino",
    )  # fmt: skip
    text += f"\nlargest difference to torchvision's crops: {error:.1e} of the range"
    return text, {
        "ratio": ratio(timings, "torchvision v2", "geodino"),
        "share_of_resize_bound": ratio(timings, "bound: resize only", "geodino"),
        "ms_per_image": 1e3 * timings["geodino"].cpu_s / samples,
        "error": error,
        "timings": timings,
    }


def _chips(samples: int, size: int) -> torch.Tensor:
    """Smooth relief with noise, so that no branch is always taken."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(samples, 3, 16, 16, generator=generator) * 200
    fine = F.interpolate(coarse, size=(size, size), mode="bicubic")
    noise = torch.randn(fine.shape, generator=generator) * 12
    return (fine + noise).clamp_(0, 255).to(torch.uint8)


def _torchvision(config: ViewsConfig):
    """The same operations with the same probabilities, as the recipes of DINO write them."""
    from torchvision.transforms import InterpolationMode, v2

    def crop(size, scale, blur_p, solarise_p):
        steps = [
            v2.RandomResizedCrop(
                size, scale=scale, interpolation=InterpolationMode.BICUBIC, antialias=True
            ),
            v2.RandomHorizontalFlip(config.flip_horizontal) if config.flip_horizontal else None,
            v2.RandomVerticalFlip(config.flip_vertical) if config.flip_vertical else None,
            v2.RandomApply([jitter], p=config.colour_p) if config.colour_p else None,
            v2.RandomGrayscale(config.grayscale_p) if config.grayscale_p else None,
            v2.RandomApply([v2.GaussianBlur(9, config.blur_sigma)], p=blur_p) if blur_p else None,
            v2.RandomSolarize(128, p=solarise_p) if solarise_p else None,
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([m / 255 for m in RGB.mean], [s / 255 for s in RGB.std]),
        ]
        return v2.Compose([step for step in steps if step is not None])

    jitter = v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
    blur = (1.0, 0.1, 0.5) if config.blur == "paper" else (0.0, 0.0, 0.0)
    big = (config.global_size, config.global_scale)
    local = crop(config.local_size, config.local_scale, blur[2], 0.0)
    return [
        crop(*big, blur[0], 0.0), crop(*big, blur[1], config.solarise_p),
        *[local] * config.local_count,
    ]  # fmt: skip


def _resize_only(pixels: torch.Tensor, plan: ViewPlan, config: ViewsConfig) -> None:
    for crop, boxes in enumerate(plan.boxes.tolist()):
        size = config.global_size if crop < 2 else config.local_size
        for chip, (top, left, height, width) in zip(pixels, boxes, strict=True):
            box = chip[None, :, top : top + height, left : left + width]
            F.interpolate(box, size=(size, size), mode="bicubic", antialias=True)


def _error(config: ViewsConfig, pixels: torch.Tensor, valid: torch.Tensor) -> float:
    """Largest difference to torchvision on the same boxes and flips, as a share of the range."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    plain = PLAIN.model_copy(
        update={"global_size": config.global_size, "local_size": config.local_size}
    )
    plan = draw_views(plain, seed=1, first=0, valid=valid.numpy(), rgb=True)
    views = MultiCrop(plain, RGB)(pixels, valid, plan)
    std, mean = (torch.tensor(v)[:, None, None] for v in (RGB.std, RGB.mean))
    worst = 0.0
    for crop in range(plain.crops):
        size = plain.global_size if crop < 2 else plain.local_size
        crops = views.globals if crop < 2 else views.locals
        for i in range(min(len(pixels), 2)):
            top, left, height, width = plan.boxes[crop, i].tolist()
            theirs = tv.resized_crop(
                pixels[i].float(), top, left, height, width, [size, size],
                interpolation=InterpolationMode.BICUBIC, antialias=True,
            )  # fmt: skip
            dims = [d for d, on in zip((1, 2), plan.mirrored[crop, i].tolist(), strict=True) if on]
            mine = crops[(crop if crop < 2 else crop - 2) * len(pixels) + i] * std + mean
            worst = max(worst, float((mine - theirs.flip(dims)).abs().max()) / 255)
    return worst


if __name__ == "__main__":
    main(run)
