"""Saving the resumable state of a run under its step and as the last one, whole or not at all."""

import os
import shutil
from pathlib import Path

import lightning as L

from geodino.files import writing
from geodino.runs.sharded import ShardedStrategy


class Saver:
    """Writes ``step-XXXXXXXX.ckpt`` and ``last.ckpt``, and drops old ones.

    Args:
        folder: where they lie.
        keep: how many numbered ones stay.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._saved: int | None = None

    def save(self, trainer: L.Trainer) -> None:
        """Save the state; networks that processes share are written while training goes on.

        Raises:
            RunError: the disk is full, or the folder cannot be written; of a state that is written
                in the background, when the next one is saved or at the end.
        """
        if trainer.global_step == self._saved:
            return
        self._saved = trainer.global_step
        path = self._folder / f"step-{trainer.global_step:08d}.ckpt"
        if isinstance(trainer.strategy, ShardedStrategy):
            self._save_folder(trainer, trainer.strategy, path)
        else:
            self._save_file(trainer, path)

    def wait(self, trainer: L.Trainer) -> None:
        """Wait until everything is on disk."""
        if isinstance(trainer.strategy, ShardedStrategy):
            with writing(self._folder):
                trainer.strategy.finish_saving()
            trainer.strategy.barrier()

    def _save_file(self, trainer: L.Trainer, path: Path) -> None:
        temporary = path.with_suffix(".tmp")
        try:
            with writing(path):
                trainer.save_checkpoint(temporary, weights_only=False)
                if not trainer.is_global_zero:
                    return
                with temporary.open("rb") as handle:
                    os.fsync(handle.fileno())
                if path.is_dir():  # of the same step, saved before by processes that shared it
                    shutil.rmtree(path)
                temporary.replace(path)
                link = self._folder / "last.link"
                link.unlink(missing_ok=True)
                os.link(path, link)
                link.replace(self._folder / "last.ckpt")
        finally:
            if trainer.is_global_zero:
                temporary.unlink(missing_ok=True)
        self._drop_old()

    def _save_folder(self, trainer: L.Trainer, strategy: ShardedStrategy, path: Path) -> None:
        temporary = path.with_suffix(".tmp")
        with writing(path):
            strategy.finish_saving()
            if trainer.is_global_zero:
                remove(temporary)
            trainer.save_checkpoint(temporary, weights_only=False)
        if trainer.is_global_zero:
            strategy.publish(lambda: self._publish(temporary, path))

    def _publish(self, temporary: Path, path: Path) -> None:
        """Give a folder that is written its name, and let ``last.ckpt`` point to it."""
        remove(path)
        temporary.replace(path)
        link = self._folder / "last.link"
        link.unlink(missing_ok=True)
        link.symlink_to(path.name, target_is_directory=True)
        link.replace(self._folder / "last.ckpt")
        self._drop_old()

    def _drop_old(self) -> None:
        for old in sorted(self._folder.glob("step-*.ckpt"))[: -self._keep]:
            remove(old)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
