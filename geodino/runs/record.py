"""The run folder: what is written before, during and after, and how a run is found again."""

import json
import logging
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geodino import __version__
from geodino.errors import CheckpointError, RunError
from geodino.files import append_lines, neighbour, read_lines, write_json, write_text

REPLACED = "is replaced by others:"
"""What the log says of a tile that could not be read while training."""

_LIBRARIES = ("torch", "timm", "lightning", "numpy", "rasterio")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where everything of one run lies."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The complete configuration."""
        return self.root / "recipe.yaml"

    @property
    def facts(self) -> Path:
        """Versions, machine, data fingerprint, derived values, results."""
        return self.root / "run.json"

    @property
    def tiles(self) -> Path:
        """The rows of the tile index that were used."""
        return self.root / "tiles.parquet"

    @property
    def split(self) -> Path:
        """Which ground a fine-tuned model was trained, judged and calibrated on."""
        return self.root / "split.parquet"

    @property
    def contract(self) -> Path:
        """The input contract measured on the tiles."""
        return self.root / "contract.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.root / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """What was said on the terminal."""
        return self.root / "log.txt"

    @property
    def checkpoints(self) -> Path:
        """Resumable state."""
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        """The exported model."""
        return self.root / "model"

    @property
    def init(self) -> Path:
        """The weights the run began with, if not random ones."""
        return self.root / "init"

    @property
    def students(self) -> Path:
        """The exported students of a distillation, a model folder each."""
        return self.root / "students"

    @property
    def probes(self) -> Path:
        """Patch tokens of the probe tiles at some steps."""
        return self.root / "probes"

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.root / "report.html"

    def is_used(self) -> bool:
        """Whether anything lies there already."""
        return self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir()))

    def claim(self) -> None:
        """Create the folder for a new run.

        Raises:
            RunError: something lies there already, or the place cannot be written.
        """
        if self.is_used():
            what = "holds a run" if self.recipe.exists() else "is not empty"
            raise RunError(
                f"{self.root} {what}: nothing was changed. Choose another --out, or add --resume "
                "to go on with the run that lies there."
            )
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{self.root} cannot be created ({error.strerror}). Choose another --out."
            ) from error

    def require(self) -> None:
        """Check that a run lies there.

        Raises:
            RunError: there is nothing to resume.
        """
        missing = [p.name for p in (self.recipe, self.contract, self.facts) if not p.is_file()]
        if missing:
            raise RunError(
                f"{self.root} holds no run to resume ({', '.join(missing)} missing). "
                "Start it without --resume."
            )

    def keep_metrics_before(self, step: int) -> None:
        """Forget rows of steps that the resumed run does again."""
        if self.metrics.exists():
            rows = [row for row in read_lines(self.metrics) if row["step"] < step]
            write_text(self.metrics, "")
            append_lines(self.metrics, rows)

    def last_checkpoint(self) -> Path | None:
        """Return the newest resumable state; None where the run stopped before its first one."""
        path = self.checkpoints / "last.ckpt"
        return path if path.exists() else None

    def forget_leftovers(self) -> None:
        """Remove what is left of a checkpoint that was being written when the run died."""
        for leftover in (*self.checkpoints.glob("*.tmp"), *self.checkpoints.glob("*.link")):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()

    def write_recipe(self, text: str) -> None:
        """Record the complete configuration."""
        write_text(self.recipe, text)

    def read_facts(self) -> dict[str, Any]:
        """Return run.json.

        Raises:
            RunError: it is missing or damaged.
        """
        try:
            facts: dict[str, Any] = json.loads(self.facts.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise RunError(
                f"{self.facts} cannot be read ({error}); without it the run cannot be resumed."
            ) from error
        return facts

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Record run.json."""
        write_json(self.facts, dict(facts))


def model_folder(model: str | Path) -> Path:
    """Return the model folder of a run folder, or the model folder itself.

    Raises:
        CheckpointError: there is no model there.
    """
    folder = Path(model)
    if (folder / "recipe.yaml").is_file():
        if not (folder / "model").is_dir():
            raise CheckpointError(
                f"{folder} is a run without an exported model: it has not finished. "
                f"`geodino export {folder}` exports its newest checkpoint."
            )
        folder = folder / "model"
    if not folder.is_dir():
        raise CheckpointError(
            f"{model} is neither a run folder nor a model folder: it does not exist."
            f"{neighbour(folder)}"
        )
    return folder


def environment() -> dict[str, Any]:
    """Return versions, commit, command and machine: what a paper needs to repeat the run."""
    import torch

    return {
        "geodino": __version__,
        "versions": {name: version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
        "commit": _commit(),
        "command": shlex.join(["geodino", *sys.argv[1:]]),
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
    }


def _commit() -> str | None:
    """The commit of the checkout geodino runs from; None for an installed package."""
    here = Path(__file__).resolve().parent
    done = subprocess.run(  # noqa: S603
        ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


class RunLog:
    """Lines for people: to the terminal as they come, and to log.txt with their time."""

    def __init__(self, path: Path | None, *, quiet: bool = False) -> None:
        self._file = logging.getLogger(f"geodino.run.{path}")
        self._file.setLevel(logging.INFO)
        self._file.propagate = False
        self._quiet = quiet
        if path is not None:
            handler = logging.FileHandler(path, encoding="utf-8")
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            self._file.addHandler(handler)

    def say(self, text: str) -> None:
        """Write a line to the terminal's error stream and to the log."""
        if not self._quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        self._file.info(text)

    def close(self) -> None:
        """Close the log file."""
        for handler in list(self._file.handlers):
            handler.close()
            self._file.removeHandler(handler)
