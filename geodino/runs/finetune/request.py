"""What ``geodino finetune`` was asked."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneJob:
    """What ``geodino finetune`` was asked."""

    task: str
    images: str
    labels: str
    out: Path
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
    def settings(self) -> tuple[str, ...]:
        """All overrides, those of own options included."""
        seed = () if self.seed is None else (f"train.seed={self.seed}",)
        return (*self.overrides, *(("optim.unfreeze=true",) if self.unfreeze else ()), *seed)
