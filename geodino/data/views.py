"""From chips to crops, on the device, in the batch: resize, turn, recolour, blur, normalise.

The order is the paper's: crop and resize, flips and turns, colour changes, grayscale, blur,
solarisation, normalisation. Everything random comes in a :class:`ViewPlan`; everything weighs by
validity, so no value under an invalid pixel changes a bit of any crop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from geodino.data import photometric
from geodino.data.photometric import Colours, Rows, Switch, switch
from geodino.data.resample import keep, resized_crops
from geodino.data.view_plan import ViewPlan, draw_views
from geodino.data.views_config import GLOBALS, ViewsConfig
from geodino.errors import ContractError
from geodino.geo.bands import rgb_indices
from geodino.geo.contract import InputContract

__all__ = ["MultiCrop", "ViewPlan", "Views", "ViewsConfig", "draw_views"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """The crops of a batch, normalised; invalid pixels are 0.

    Crop-major: all first crops, then all second ones.
    """

    globals: Float[Tensor, "b2 c g g"]
    """Two global crops of every sample."""

    locals: Float[Tensor, "bn c l l"]
    """The local crops of every sample."""

    gram: Float[Tensor, "b2 c m m"] | None = None
    """What the Gram teacher sees: the global crops at a size of their own, without distortion."""

    @property
    def sets(self) -> list[Tensor]:
        """The sets of crops a student sees, each of one size; without locals only the globals."""
        return [self.globals, self.locals] if len(self.locals) else [self.globals]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """The draws of some crops, one row each; None for what the config leaves out."""

    complete: Bool[Tensor, " n"]
    transposed: Bool[Tensor, " n"] | None
    colours: Colours | None = None
    solarised: Switch | None = None
    blurred: Switch | None = None
    kernels: Float[Tensor, "n kernel"] | None = None
    gain: Float[Tensor, "n bands"] | None = None
    offset: Float[Tensor, "n bands"] | None = None

    def __getitem__(self, rows: slice) -> "_Rows":
        picked: dict[str, Any] = {
            name: None if (value := getattr(self, name)) is None else value[rows]
            for name in self.__slots__
        }
        return _Rows(**picked)


class MultiCrop(nn.Module):
    """Makes the global and local crops of a batch of chips."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    _floor: Tensor
    _scale: Tensor
    _to_std: Tensor
    _to_mean: Tensor
    _jittered: Tensor

    def __init__(self, config: ViewsConfig, contract: InputContract) -> None:
        super().__init__()
        self.config = config
        rgb = rgb_indices(contract.bands)
        self.has_rgb = rgb is not None
        self.rgb = rgb or (0, 0, 0)
        """Positions of red, green and blue; without meaning where ``has_rgb`` is False."""
        self.colours = config.changes_colour and self.has_rgb
        """Whether red, green and blue are brought to 0..1 for changes of colour."""
        for name in ("mean", "std", "low", "high"):
            values = torch.tensor(getattr(contract, name), dtype=torch.float32)
            self.register_buffer(name, values, persistent=False)
        floor, span = torch.zeros_like(self.mean), torch.ones_like(self.mean)
        jittered = torch.ones_like(self.mean, dtype=torch.bool)
        if self.has_rgb:
            colour = list(self.rgb)
            jittered[colour] = config.jitter_bands == "all"
            if self.colours:
                floor[colour] = self.low[colour]
                span[colour] = (self.high - self.low)[colour].clamp_min(1e-6)
        self._has_floor = bool(floor.any())
        derived = {
            "_floor": floor,
            "_scale": 1.0 / span,
            "_to_std": span / self.std,
            "_to_mean": (floor - self.mean) / self.std,
            "_jittered": jittered,
        }
        for name, values in derived.items():
            self.register_buffer(name, values, persistent=False)

    def describe(self) -> str:
        """Say in a sentence or two what happens to a crop, and what is asked but cannot be."""
        config = self.config
        sizes = (
            f"2 crops of {config.global_size} px and {config.local_count} of {config.local_size} px"
        )
        names = {
            "flips": config.flip_horizontal > 0 or config.flip_vertical > 0,
            "quarter turns": config.turns,
            "colour changes": self.colours,
            f"blur ({config.blur})": config.blur != "none",
            "gain and offset jitter": config.jitters_bands and bool(self._jittered.any()),
        }
        on = [name for name, used in names.items() if used]
        text = f"{sizes}; {', '.join(on) if on else 'no distortions'}."
        if config.changes_colour and not self.has_rgb:
            text += (
                " Colour changes, grayscale and solarisation are inactive: the bands do not "
                "include red, green and blue."
            )
        return text

    def forward(
        self,
        pixels: Shaped[Tensor, "b c h w"],
        valid: Bool[Tensor, "b h w"],
        plan: ViewPlan,
        *,
        with_locals: bool = True,
    ) -> Views:
        """Make the crops that ``plan`` asks for, float32, normalised, 0 where invalid.

        Args:
            pixels: chips in their stored type; nothing under an invalid pixel is looked at.
            valid: where pixels may be used.
            plan: the draws, on the device of ``pixels``.
            with_locals: make the local crops too; a teacher looks at none.

        Raises:
            ContractError: the chips do not have the contract's bands.
        """
        if pixels.shape[1] != len(self.mean):
            raise ContractError(
                f"The chips have {pixels.shape[1]} band(s), the input contract {len(self.mean)}. "
                "Read the bands the contract names."
            )
        sizes = plan.sizes
        # Lower precision belongs to the network: here it would shift values by up to 1 in 256.
        device, (b, bands) = pixels.device, pixels.shape[:2]
        both, others = slice(0, GLOBALS), slice(GLOBALS, None)
        kinds = [(both, GLOBALS, sizes.globals, False)]
        kinds += [(others, self.config.local_count * with_locals, sizes.locals, False)]
        kinds += [] if sizes.gram is None else [(both, GLOBALS, sizes.gram, True)]
        # Made outside inference mode, so that the network may learn from them.
        crops = [
            torch.empty(count * b, bands, size, size, device=device) for _, count, size, _ in kinds
        ]
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            for (some, count, _, plain), out in zip(kinds, crops, strict=True):
                if count:
                    self._make(pixels, valid, plan, some, out, plain=plain)
        return Views(globals=crops[0], locals=crops[1], gram=crops[2] if len(crops) > 2 else None)

    def _make(
        self,
        pixels: Shaped[Tensor, "b c h w"],
        valid: Bool[Tensor, "b h w"],
        plan: ViewPlan,
        crops: slice,
        out: Float[Tensor, "m c size size"],
        *,
        plain: bool,
    ) -> None:
        """Make some crops of every sample, all of one size, into ``out``; ``plain``: undistorted."""
        draws = self._rows(plan, crops, plain=plain)
        for rows, resized in resized_crops(
            pixels,
            None if plan.all_complete else valid,
            plan.boxes[crops],
            plan.mirrored[crops],
            complete=plan.complete,
            size=out.shape[-1],
            interpolation=self.config.interpolation,
        ):
            self._finish(resized, draws[rows], out[rows])

    def _rows(self, plan: ViewPlan, crops: slice, *, plain: bool) -> _Rows:
        """Lay out the draws of some crops of a plan, crop-major; ``plain``: of their place alone."""
        config = self.config

        def flat(values: Tensor) -> Tensor:
            return values[crops].flatten(0, 1)

        complete = plan.complete.repeat(plan.boxes[crops].shape[0])
        transposed = flat(plan.transposed) if config.turns else None
        if plain:
            return _Rows(complete=complete, transposed=transposed)
        sigma = flat(plan.sigma) * plan.sizes.blur
        kernel = 2 * round(config.blur_kernel // 2 * plan.sizes.blur) + 1
        blurs, solarises = config.blur != "none", self.colours and config.solarise_p > 0
        return _Rows(
            complete=complete,
            transposed=transposed,
            colours=Colours.of(flat(plan.mixes), flat(plan.hue)) if self.colours else None,
            solarised=switch(flat(plan.solarised)) if solarises else None,
            blurred=switch(sigma > 0) if blurs else None,
            kernels=photometric.gaussian(sigma, kernel) if blurs else None,
            gain=None if plan.gain is None else flat(plan.gain),
            offset=None if plan.offset is None else flat(plan.offset),
        )

    def _finish(
        self, resized: Float[Tensor, "n c1 h w"], draws: _Rows, out: Float[Tensor, "n c h w"]
    ) -> None:
        """Distort and normalise resized crops, into ``out``.

        With one channel more than ``out``, ``resized`` holds ``pixels * valid`` and ``valid``.
        """
        if draws.transposed is not None:
            resized = _transpose(resized, draws.transposed)
        x, valid, counts = resized, None, None
        if resized.shape[1] > out.shape[1]:
            x = resized[:, :-1]
            valid = _weigh(x, resized[:, -1:], draws.complete)
            counts = valid.to(x.dtype)
        if self.colours:
            self._to_display(x)
        if draws.colours is not None:
            colours = draws.colours
            self._on_rgb(
                x,
                colours.touched,
                lambda rgb, rows: photometric.change_colour(
                    rgb, colours[rows], None if counts is None else counts[rows]
                ),
            )
        if draws.blurred is not None and draws.kernels is not None:
            photometric.blur(x, draws.blurred, draws.kernels, counts)
        if draws.solarised is not None:
            self._on_rgb(x, draws.solarised, lambda rgb, _: photometric.solarise(rgb))
        self._normalise(x, draws, out)
        if valid is not None:
            keep(out, valid)

    def _to_display(self, x: Float[Tensor, "n c h w"]) -> None:
        """Bring red, green and blue to 0..1 between the contract's low and high, in place."""
        if self._has_floor:
            x.sub_(self._floor[:, None, None])
        x.mul_(self._scale[:, None, None])

    def _on_rgb(
        self,
        x: Float[Tensor, "n c h w"],
        on: Switch,
        operation: Callable[[Tensor, Rows], None],
    ) -> None:
        """Run an operation on red, green and blue of the crops where ``on``."""
        r, g, b = self.rgb
        if (g, b) == (r + 1, r + 2):
            photometric.on_rows(x[:, r : r + 3], on, operation)
            return
        rgb = torch.stack([x[:, r], x[:, g], x[:, b]], dim=1)
        photometric.on_rows(rgb, on, operation)
        for channel, band in enumerate(self.rgb):
            x[:, band] = rgb[:, channel]

    def _normalise(
        self, x: Float[Tensor, "n c h w"], draws: _Rows, out: Float[Tensor, "n c h w"]
    ) -> None:
        scale, shift = self._to_std, self._to_mean
        if draws.gain is not None and draws.offset is not None:
            gain = torch.where(self._jittered, draws.gain, 1.0)
            scale, shift = scale * gain, shift * gain + draws.offset * self._jittered
        torch.mul(x, scale[..., None, None], out=out).add_(shift[..., None, None])


def _transpose(x: Float[Tensor, "n c h h"], on: Bool[Tensor, " n"]) -> Float[Tensor, "n c h h"]:
    """Exchange rows and columns of the crops where ``on``."""
    if x.device.type == "cpu" and len(x) == 1:
        return x.transpose(2, 3).contiguous() if bool(on) else x
    return torch.where(on[:, None, None, None], x.transpose(2, 3), x)


def _weigh(
    x: Float[Tensor, "n c h w"], share: Float[Tensor, "n 1 h w"], complete: Bool[Tensor, " n"]
) -> Bool[Tensor, "n 1 h w"]:
    """Divide ``x`` = resized ``pixels * valid`` by the resized ``valid``, in place.

    A pixel is valid where more than half of its weight is, and 0 elsewhere. Crops of ``complete``
    chips stay exactly as they are.

    Returns:
        Where pixels are valid.
    """
    share = share.masked_fill(complete[:, None, None, None], 1.0)
    valid = share > 0.5
    keep(x.mul_(share.clamp_min_(0.5).reciprocal_()), valid)
    return valid
