"""When dense features were healthiest, and when their health has turned down."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Figure = Literal["cls_patch_cosine", "patch_patch_cosine", "patch_rank"]
"""What health is judged by: cosines rise towards 1 while locality is lost, the rank falls."""

_HIGHER_IS_BETTER: Final = frozenset({"patch_rank"})


@dataclass(kw_only=True, slots=True)
class Watch:
    """Follows one figure of dense-feature health over a run."""

    figure: Figure
    tolerance: float
    """Worse means worse than the best by this share: of the best rank, or of the best cosine's
    distance to 1."""
    patience: int
    """Measurements in a row that must be worse."""
    after: int
    """Steps before which nothing is judged: random weights have features of some health too."""
    best: float | None = None
    best_step: int = 0
    worse: int = 0
    """Measurements in a row that were worse by now."""

    def update(self, step: int, figures: Mapping[str, float]) -> bool:
        """Take a measurement; return whether it is the best so far."""
        if step < self.after:
            return False
        value = figures[self.figure]
        sign = 1.0 if self.figure in _HIGHER_IS_BETTER else -1.0
        if self.best is None or sign * (value - self.best) > 0:
            self.best, self.best_step, self.worse = value, step, 0
            return True
        room = self.best if sign > 0 else 1.0 - self.best
        self.worse = self.worse + 1 if sign * (self.best - value) > self.tolerance * room else 0
        return False

    @property
    def turned(self) -> bool:
        """Whether health has turned down."""
        return self.worse >= self.patience

    def reason(self, value: float) -> str:
        """Say why a phase ended because of ``value``."""
        return (
            f"{self.figure} was {self.best:.3f} at step {self.best_step} and is {value:.3f} now, worse "
            f"by more than {100 * self.tolerance:.0f} % in {self.worse} measurements in a row"
        )

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"best": self.best, "best_step": self.best_step, "worse": self.worse}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what a checkpoint kept."""
        self.best, self.best_step, self.worse = state["best"], state["best_step"], state["worse"]
