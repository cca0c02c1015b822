"""What is random in the crops of a batch: drawn on the host, from one key per sample.

The device that makes the crops only computes. A sample gets the same crops whatever batch, rank
or thread it is in, and again after a resume.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from geodino import seeds
from geodino.data.dates import dates_of_crops
from geodino.data.views_config import BLUR_P, CropSizes, Range, ViewsConfig

_TRIES: Final = 10
_PER_BOX: Final = 2 * _TRIES + 2
_PER_CROP: Final = _PER_BOX + 16


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewPlan:
    """The draws for a batch of samples: crops first (two global, then local), samples second."""

    boxes: Int64[Tensor, "crops b 4"]
    """Top, left, height and width in the chip, pixels."""

    mirrored: Bool[Tensor, "crops b 2"]
    """Whether rows and whether columns run backwards; before ``transposed``."""

    transposed: Bool[Tensor, "crops b"]
    """Whether rows and columns change places: with ``mirrored``, all turns and flips."""

    mixes: Float32[Tensor, "crops b 7 3"]
    """Seven changes ``clip(a x + b grey(x) + c mean(grey))`` as rows (a, b, c), three before the
    change of hue, three after it, grayscale last; (1, 0, 0) changes nothing."""

    hue: Float32[Tensor, "crops b"]
    """Turn of the hue circle, in turns."""

    solarised: Bool[Tensor, "crops b"]
    """Whether the upper half of the range is inverted."""

    sigma: Float32[Tensor, "crops b"]
    """Standard deviation of the blur, pixels; 0 for none."""

    gain: Float32[Tensor, "crops b bands"] | None
    """Factor per band; None where the config changes no gain and no offset."""

    offset: Float32[Tensor, "crops b bands"] | None
    """Addend per band, in standard deviations."""

    complete: Bool[Tensor, " b"]
    """Whether all pixels of a chip are valid."""

    all_complete: bool
    """The same for the whole batch, known on the host."""

    sizes: CropSizes
    """Sides of the crops."""

    def to(self, device: torch.device | str) -> "ViewPlan":
        """Copy to ``device`` without waiting."""
        tensors: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name in self.__slots__
            if isinstance(value := getattr(self, name), Tensor)
        }
        return replace(self, **tensors)


def draw_views(
    config: ViewsConfig,
    *,
    seed: int,
    first: int,
    valid: NDArray[np.bool_],
    rgb: bool,
    bands: int | None = None,
    dates: int = 1,
    sizes: CropSizes | None = None,
) -> ViewPlan:
    """Draw the crops of ``b`` samples, each from the key ``(seed, "views", first + i)``.

    Boxes follow torchvision's RandomResizedCrop: area uniform, aspect log-uniform, rounded to
    whole pixels, ten tries, then the largest central crop of an allowed aspect.

    Args:
        config: which crops and distortions.
        seed: the run's seed.
        first: global number of the first sample.
        valid: (b, height, width), True where a pixel may be used.
        rgb: whether the bands hold red, green and blue; else colour stays as it is.
        bands: number of bands; needed where the config changes gain or offset.
        dates: how many dates of a chip lie below each other; a crop never crosses from one to
            another (see :mod:`geodino.data.dates`).
        sizes: sides of the crops; None takes the config's. No draw depends on them.

    Raises:
        ValueError: ``bands`` is missing though gain or offset are asked for.
    """
    if config.jitters_bands and bands is None:
        raise ValueError("gain and offset are drawn per band: say how many bands there are")
    jitters = 1 + 2 * bands if config.jitters_bands and bands is not None else 1
    samples, rows, width = valid.shape
    height = rows // dates
    dated = valid.reshape(samples, dates, height, width)
    date = dates_of_crops(seed, first, samples=samples, crops=config.crops, dates=dates)
    whole: NDArray[np.bool_] = np.all(valid.reshape(samples, -1), axis=1)
    u = np.empty((samples, config.crops, _PER_CROP))
    jitter = np.empty((samples, config.crops, jitters))
    spare: dict[int, NDArray[np.float64]] = {}
    for i in range(samples):
        rng = seeds.rng(seed, "views", first + i)
        rng.random(out=u[i])
        if not whole[i] and config.min_valid > 0:
            spare[i] = rng.random((_TRIES, config.crops, _PER_BOX))
        rng.random(out=jitter[i])
    boxes = _boxes(config, u[:, :, :_PER_BOX], height, width)
    for i, more in spare.items():
        _avoid_invalid(config, boxes[i], _boxes(config, more, height, width), dated[i, date[i]])
    boxes[..., 0] += date * height
    rest = u[:, :, _PER_BOX:].swapaxes(0, 1)
    mirrored, transposed = _symmetries(config, rest[..., 0:3])
    mixes, hue = jitter_program(
        *_colour_factors(config, rest[..., 3:8], rgb=rgb),
        order=np.argsort(rest[..., 8:12], axis=-1),
        grey=(rest[..., 12] < config.grayscale_p) & rgb,
    )
    low, high = config.blur_sigma
    blurred = rest[..., 14] < _per_crop(config, BLUR_P[config.blur])
    gain, offset = _band_jitter(config, jitter.swapaxes(0, 1))
    return ViewPlan(
        boxes=torch.from_numpy(np.ascontiguousarray(boxes.swapaxes(0, 1))),
        mirrored=torch.from_numpy(mirrored),
        transposed=torch.from_numpy(transposed),
        mixes=_float(mixes),
        hue=_float(hue),
        solarised=torch.from_numpy(
            (rest[..., 13] < _per_crop(config, (0.0, config.solarise_p, 0.0))) & rgb
        ),
        sigma=_float(blurred * (low + (high - low) * rest[..., 15])),
        gain=gain,
        offset=offset,
        complete=torch.from_numpy(whole),
        all_complete=bool(whole.all()),
        sizes=sizes or config.sizes,
    )


def jitter_program(
    factors: NDArray[np.float64],
    hue: NDArray[np.float64],
    *,
    order: NDArray[np.int64],
    grey: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Write brightness, contrast and saturation in their drawn order as ``mixes`` of a plan.

    With m the mean of grey: brightness f is (f, 0, 0), contrast (f, 0, 1 - f) and saturation
    (f, 1 - f, 0), so one form serves all three and only hue needs a step of its own.

    Args:
        factors: (..., 3) brightness, contrast, saturation; 1 changes nothing.
        hue: (...) turns; 0 changes nothing.
        order: (..., 4) a permutation: which of the four (hue is 3) is done at each position.
        grey: (...) whether the result becomes grey.

    Returns:
        ``mixes`` (..., 7, 3) and ``hue`` unchanged.
    """
    place = np.argsort(order, axis=-1)  # place[..., k]: when change k is done
    slot = place[..., :3] + np.where(place[..., :3] > place[..., 3:], 2, 0)
    mixes = np.zeros((*hue.shape, 7, 3))
    mixes[..., 0] = 1.0
    changes = np.zeros((*hue.shape, 3, 3))
    changes[..., 0] = factors
    changes[..., 1, 2] = 1.0 - factors[..., 1]
    changes[..., 2, 1] = 1.0 - factors[..., 2]
    np.put_along_axis(mixes, slot[..., None], changes, axis=-2)
    mixes[grey, 6] = (0.0, 1.0, 0.0)
    return mixes, hue


def _boxes(
    config: ViewsConfig, u: NDArray[np.float64], height: int, width: int
) -> NDArray[np.int64]:
    """Boxes (n, crops, 4) from uniforms (n, crops, 22): the first try that fits."""
    scales = _per_crop(config, (config.global_scale, config.global_scale, config.local_scale))
    low, high = scales[:, :1], scales[:, 1:]
    area = height * width * (low + (high - low) * u[..., :_TRIES])
    log_low, log_high = np.log(config.aspect)
    aspect = np.exp(log_low + (log_high - log_low) * u[..., _TRIES : 2 * _TRIES])
    h = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    w = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    fits = (h > 0) & (h <= height) & (w > 0) & (w <= width)
    pick = np.argmax(fits, axis=-1)[..., None]
    h, w = (np.take_along_axis(x, pick, axis=-1)[..., 0] for x in (h, w))
    top = (u[..., -2] * (height - h + 1)).astype(np.int64)
    left = (u[..., -1] * (width - w + 1)).astype(np.int64)
    none_fits = ~fits.any(axis=-1)
    boxes = np.stack([top, left, h, w], axis=-1)
    boxes[none_fits] = _central_box(config.aspect, height, width)
    return boxes


def _central_box(aspect: Range, height: int, width: int) -> tuple[int, int, int, int]:
    """The largest central crop of an allowed aspect, where ten tries found none that fits."""
    h, w = height, width
    if width / height < aspect[0]:
        h = round(width / aspect[0])
    elif width / height > aspect[1]:
        w = round(height * aspect[1])
    return (height - h) // 2, (width - w) // 2, h, w


def _avoid_invalid(
    config: ViewsConfig,
    boxes: NDArray[np.int64],
    others: NDArray[np.int64],
    valid: NDArray[np.bool_],
) -> None:
    """Replace, in place, boxes with too few valid pixels by others (tries, crops, 4).

    The first that has enough is taken, else the best; ``valid`` is (crops, height, width).
    Counting inside a few boxes costs less than an integral image of the chip.
    """
    for crop, box in enumerate(boxes):
        best = _valid_share(valid[crop], box)
        for other in others[:, crop]:
            if best >= config.min_valid:
                break
            share = _valid_share(valid[crop], other)
            if share > best:
                best, boxes[crop] = share, other


def _valid_share(valid: NDArray[np.bool_], box: NDArray[np.int64]) -> float:
    top, left, height, width = box.tolist()
    inside = valid[top : top + height, left : left + width]
    return float(np.count_nonzero(inside) / (height * width))


def _symmetries(
    config: ViewsConfig, u: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Flips, then quarter turns counter-clockwise, as mirrored rows and columns + transposition.

    A quarter turn is a left-right mirror and a transposition, three quarters an up-down mirror and
    a transposition, two quarters both mirrors.
    """
    flips = u[..., :2] < (config.flip_vertical, config.flip_horizontal)
    turns = (4 * u[..., 2]).astype(np.int64) * config.turns
    rows, columns = turns >= 2, (turns == 1) | (turns == 2)
    return flips ^ np.stack([rows, columns], axis=-1), turns % 2 == 1


def _colour_factors(
    config: ViewsConfig, u: NDArray[np.float64], *, rgb: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Brightness, contrast, saturation (..., 3) and hue (...) from uniforms (..., 5)."""
    on = (u[..., :1] < config.colour_p) & rgb
    spread = np.array([config.brightness, config.contrast, config.saturation, config.hue])
    drawn = on * spread * (2.0 * u[..., 1:] - 1.0)
    return 1.0 + drawn[..., :3], drawn[..., 3]


def _band_jitter(
    config: ViewsConfig, u: NDArray[np.float64]
) -> tuple[Float32[Tensor, "crops b bands"] | None, Float32[Tensor, "crops b bands"] | None]:
    """Gain and offset per band from uniforms (crops, b, 1 + 2 bands)."""
    if not config.jitters_bands:
        return None, None
    on = u[..., :1] < config.jitter_p
    drawn = on * (2.0 * u[..., 1:] - 1.0)
    bands = drawn.shape[-1] // 2
    return _float(1.0 + config.gain * drawn[..., :bands]), _float(
        config.offset * drawn[..., bands:]
    )


def _per_crop(config: ViewsConfig, values: Sequence[float | Range]) -> NDArray[np.float64]:
    """Spread values for global 1, global 2 and the local crops over (crops, 1) or (crops, 2)."""
    spread = np.array([*values[:2], *[values[2]] * config.local_count])
    return spread.reshape(config.crops, -1)


def _float(values: NDArray[np.float64]) -> Float32[Tensor, "..."]:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
