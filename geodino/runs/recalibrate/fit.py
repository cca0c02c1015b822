"""The curve of a run: heights predicted on training ground, held against its labels."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from pydantic import ValidationError
from torch import Tensor

from geodino.config import Config
from geodino.errors import RunError
from geodino.files import write_json
from geodino.infer.engine import Predictor
from geodino.infer.heights import HeightPredictor
from geodino.metrics.conformal import HeightSite
from geodino.metrics.recalibration import (
    IDENTITY,
    HeightBins,
    HeightCurve,
    choose_curve,
    height_bins,
)
from geodino.models.height_curve import CurveModule
from geodino.runs.finetune.canopy.judge import Subject, thinned
from geodino.runs.predict.heights import HeightTask
from geodino.runs.recalibrate.config import RecalibrateConfig
from geodino.tasks.canopy.areas import Area
from geodino.tasks.canopy.evaluate import by_site, judged
from geodino.tasks.drawn import drawn

CURVE = "curve.json"
"""Its file in the run folder: a run that was killed after it need not fit it again."""

_FLAT = 0.25
"""A curve that rises by less of its length than this leaves little of what the model said."""


class _Stored(Config):
    """What lies in the file."""

    curve: HeightCurve
    """What the run found."""

    prior_sites: float | None
    """What the model's own heights were worth."""

    errors_m: dict[str, float]
    """Errors on the validation ground by candidate."""

    bins: dict[str, tuple[float, ...]]
    """What the curve was fitted to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Learnt:
    """The curve, and where it comes from."""

    curve: HeightCurve
    """From what MODEL gives to what it should."""

    prior_sites: float | None
    """What the model's own heights were worth, in sites; None where they stay as they are."""

    errors_m: Mapping[str, float]
    """Error on the validation ground by ``prior_sites``, and ``as it is``."""

    bins: HeightBins

    def save(self, root: Path) -> None:
        """Write it into the run folder, whole or not at all."""
        bins = {name: values.tolist() for name, values in asdict(self.bins).items()}
        write_json(
            root / CURVE,
            {
                "curve": self.curve.model_dump(mode="json"),
                "prior_sites": self.prior_sites,
                "errors_m": dict(self.errors_m),
                "bins": bins,
            },
        )

    @classmethod
    def load(cls, root: Path) -> "Learnt | None":
        """Read it from a run folder; None where there is none.

        Raises:
            RunError: the file is damaged.
        """
        path = root / CURVE
        if not path.is_file():
            return None
        try:
            stored = _Stored.model_validate_json(path.read_text(encoding="utf-8"))
            columns = {name: np.array(values) for name, values in stored.bins.items()}
            bins = HeightBins(**{**columns, "pixels": columns["pixels"].astype(np.int64)})
        except (ValidationError, KeyError, TypeError) as error:
            raise RunError(
                f"{path} is damaged ({error}): remove it, and --resume fits the curve again."
            ) from error
        return cls(
            curve=stored.curve,
            prior_sites=stored.prior_sites,
            errors_m=stored.errors_m,
            bins=bins,
        )

    def words(self, centre: str) -> str:
        """Return how the curve was chosen, as a sentence."""
        kind = "mean absolute error" if centre == "median" else "root mean square error"
        own = self.errors_m["as it is"]
        if self.prior_sites is None:
            best = min(v for k, v in self.errors_m.items() if k != "as it is")
            return (
                "The heights stay as they are: on the validation ground no curve is better "
                f"({kind} {own:.2f} m, at best {best:.2f} m with one)."
            )
        now, knots = self.errors_m[f"{self.prior_sites:g}"], self.curve
        said = (
            f"On the validation ground the {kind} is {now:.2f} m instead of {own:.2f} m; the "
            f"model's own heights count as {self.prior_sites:g} sites."
        )
        if knots.height_m[-1] - knots.height_m[0] < _FLAT * knots.predicted_m[-1]:
            said += (
                f" Heights of 0 to {knots.predicted_m[-1]:.1f} m become {knots.height_m[0]:.1f} to "
                f"{knots.height_m[-1]:.1f} m: the model tells little of this ground, and a head that "
                "is trained on it may do better (--recipe canopy)."
            )
        return said


def learn(
    subject: Subject,
    config: RecalibrateConfig,
    train: tuple[Area, ...],
    predictor: Predictor,
    threads: Executor,
) -> Learnt:
    """Predict training and validation ground, fit curves to the one, choose by the other.

    Args:
        subject: images, labels, chips.
        config: the recipe.
        train: areas of the training ground.
        predictor: the model as it is.
        threads: that read.

    Raises:
        RunError: no pixel of one of them has both a label and a valid image.
    """
    wanted = config.recalibrate

    def heights(areas: tuple[Area, ...], *, held_out: bool) -> list[HeightSite]:
        parts = [
            thinned(one, wanted.pixels_per_area, subject.seed)
            for one in judged(
                subject.source,
                drawn(areas, wanted.areas, seed=subject.seed),
                "val" if held_out else "train",
                predictor,
                subject.chips,
                threads=threads,
            )
        ]
        return [
            HeightSite(name=s.name, predicted_m=s.values[0], true_m=s.true_m, valid=s.valid)
            for s in by_site(parts)
        ]

    bins = height_bins(heights(train, held_out=False), wanted)
    chosen = choose_curve(bins, heights(subject.val, held_out=True), wanted)
    return Learnt(
        curve=chosen.curve, prior_sites=chosen.prior_sites, errors_m=chosen.errors_m, bins=bins
    )


def composed(learnt: HeightCurve, task: HeightTask) -> HeightCurve:
    """Return the curve from the head's own heights: MODEL may have been set right before."""
    return learnt if task.curve is None else learnt.after(task.curve)


class BeforeAndAfter:
    """A model whose heights go through a curve; its last channel are heights as they were.

    Args:
        task: the model, with what became of its heights before.
        curve: from the head's own heights to the new ones.
        device: where it computes.
    """

    stride = 1

    def __init__(self, task: HeightTask, curve: HeightCurve, *, device: torch.device) -> None:
        self._predictor = HeightPredictor(task.canopy.model, device=device)
        self._before = CurveModule(task.curve or IDENTITY).to(device)
        self._after = CurveModule(curve).to(device)
        self.device = device
        self.align = self._predictor.align
        self.channels = self._predictor.channels + 1

    @torch.inference_mode()
    def __call__(
        self, pixels: Shaped[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
    ) -> Float[Tensor, "b k h w"]:
        """Return heights and quantiles after the curve, and the height before."""
        maps = self._predictor(pixels, valid)
        return torch.cat([self._after(maps), self._before(maps[:, :1])], dim=1)
