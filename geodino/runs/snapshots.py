"""Snapshots of the probe tiles: their patch tokens at a few steps of a run, for the report.

``RUN/probes/crops.safetensors`` holds the crops once (normalised, 0 where not valid) and where
they are valid, ``RUN/probes/step-XXXXXXXX.safetensors`` their patch tokens at a step as images of
features ``[n d h w]``. All are float16 and whole or absent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from geodino.errors import RunError
from geodino.files import write_with
from geodino.pretrain.health import DenseHealth

MOST_TILES = 8
MOST_STEPS = 8

_CROPS = "crops.safetensors"


@dataclass(frozen=True, slots=True)
class Snapshots:
    """The folder of a run's snapshots."""

    folder: Path

    every: int
    """Steps between two measurements."""

    def save(self, step: int, health: DenseHealth) -> None:
        """Write what ``health`` just measured at ``step``, and drop what is no longer needed.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """
        if health.maps is None:
            raise ValueError("nothing has been measured yet")
        crops = self.folder / _CROPS
        if not crops.exists():
            _write(crops, crops=_half(health.crops), valid=health.valid[:MOST_TILES])
        _write(self._path(step), patches=_half(health.maps))
        steps = self.steps()
        for old in set(steps) - kept(steps, every=self.every):
            self._path(old).unlink()

    def forget_after(self, step: int) -> None:
        """Drop the snapshots of steps that a resumed run does again, and halves of files."""
        for later in self.steps():
            if later > step:
                self._path(later).unlink()
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink()

    def steps(self) -> list[int]:
        """Return the steps there are snapshots of, ascending."""
        return sorted(int(path.stem[5:]) for path in self.folder.glob("step-*.safetensors"))

    def crops(self) -> tuple[Float[Tensor, "n c s s"], Bool[Tensor, "n s s"]]:
        """Read the normalised crops and where they are valid.

        Raises:
            RunError: the file is missing or damaged.
        """
        stored = _read(self.folder / _CROPS)
        return stored["crops"].float(), stored["valid"]

    def patches(self, step: int) -> Float[Tensor, "n d h w"]:
        """Read the patch tokens of a step.

        Raises:
            RunError: the file is missing or damaged.
        """
        return _read(self._path(step))["patches"].float()

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"


def kept(steps: Sequence[int], *, every: int, most: int = MOST_STEPS) -> set[int]:
    """Return which of ``steps`` stay: the first, the last, and between them evenly spaced ones.

    The spacing is ``every`` times the smallest power of two that leaves at most ``most`` of them.
    It only ever doubles, so whatever is needed later is still there, and a run that was killed
    and resumed ends with the snapshots of one that was not.

    Args:
        steps: measured so far; 0 or the first one there is, multiples of ``every``, and perhaps a
            last one that is none.
        every: steps between two measurements.
        most: at least 2.
    """
    if not steps:
        return set()
    last, spacing = max(steps), every
    while -(-last // spacing) + 1 > most:
        spacing *= 2
    return {step for step in steps if step % spacing == 0 or step in (min(steps), last)}


def _half(tokens: Float[Tensor, "n *rest"]) -> Tensor:
    limit = torch.finfo(torch.float16).max
    return tokens[:MOST_TILES].clamp(-limit, limit).half()


def _write(path: Path, **tensors: Tensor) -> None:
    whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_with(path, lambda temporary: save_file(whole, temporary))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{path} cannot be read ({error}). Remove {path.parent} to have the report without "
            "pictures of features."
        ) from error
    return tensors
