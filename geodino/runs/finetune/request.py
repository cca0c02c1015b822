"""What ``geodino finetune`` was asked."""

from dataclasses import dataclass
from pathlib import Path

from geodino.errors import RecipeError


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneJob:
    """What ``geodino finetune`` was asked."""

    task: str
    images: str
    out: Path
    labels: str | None = None
    """None for images that bring their labels with them, or for those of a resumed run."""

    model: str | None = None
    """MODEL; left out, the one that a resumed run began with."""

    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    split: str | None = None
    unfreeze: bool = False
    seed: int | None = None
    device: str = "auto"
    resume: bool = False
    dry_run: bool = False
    quiet: bool = False

    @property
    def needed_labels(self) -> str:
        """Where the labels are, for a task whose images bring none.

        Raises:
            RecipeError: nobody said it.
        """
        if self.labels is None:
            raise RecipeError(
                f"--labels is missing: name the labels that {self.task} is learnt from."
            )
        return self.labels

    @property
    def settings(self) -> tuple[str, ...]:
        """All overrides, those of own options included."""
        seed = () if self.seed is None else (f"train.seed={self.seed}",)
        return (*self.overrides, *(("optim.unfreeze=true",) if self.unfreeze else ()), *seed)
