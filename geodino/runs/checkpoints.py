"""Resumable states on disk: one file, or a folder that many processes write and read together.

``step-XXXXXXXX.ckpt`` is a file (one process, or DDP: every process holds everything) or a folder
(FSDP: every process writes its part, torch's distributed checkpoint). Either is whole or absent:
it is written under a temporary name and renamed. ``last.ckpt`` is the newest: a hard link to the
file, a symbolic link to the folder. A state saved by any number of processes is read by any other.

In a folder, tensors have flat names: ``model/NAME`` and ``optimizer/NAME/exp_avg`` and so on, where
NAME is the parameter's; ``rest.pt`` holds everything that is no tensor of these.
"""

import io
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from geodino.errors import CheckpointError, RunError

MODEL, OPTIMIZER = "model/", "optimizer/"
REST = "rest.pt"
_METADATA = ".metadata"
_DAMAGES = (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError)


def read_checkpoint(path: Path, *, only: str = "") -> dict[str, Any]:
    """Read a resumable state, whole; nothing but tensors and plain values is ever unpickled.

    Args:
        path: a file or a folder.
        only: of a folder, read the tensors of the model whose names begin so, and no moments.

    Returns:
        What Lightning restores a run from: ``state_dict``, ``optimizer_states`` (left out with
        ``only``), ``global_step`` and the rest.

    Raises:
        CheckpointError: it is damaged or is no checkpoint of a run.
    """
    if path.is_dir():
        return _read_folder(path, only)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist.") from None
    except _DAMAGES as error:
        raise _damaged(path, _words(error)) from error
    if not isinstance(state, dict) or "geodino" not in state:
        raise CheckpointError(f"{path} is not a checkpoint of a geodino run.")
    return state


def read_rest(path: Path) -> dict[str, Any]:
    """Read what a state holds beside the tensors of a folder; a file is read as a whole.

    Raises:
        CheckpointError: it is damaged or is no checkpoint of a run.
    """
    if not path.is_dir():
        return read_checkpoint(path)
    Reader(path).check()
    try:
        rest = torch.load(path / REST, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise _damaged(path, f"{REST} is missing") from None
    except _DAMAGES as error:
        raise _damaged(path, f"{REST}: {_words(error)}") from error
    if not isinstance(rest, dict) or "geodino" not in rest:
        raise CheckpointError(f"{path} is not a checkpoint of a geodino run.")
    return rest


def _read_folder(path: Path, only: str) -> dict[str, Any]:
    rest = read_rest(path)
    stored = Reader(path).tensors()
    wanted = (MODEL + only,) if only else (MODEL, OPTIMIZER)
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in stored.items()
        if name.startswith(wanted)
    }
    load_tensors(path, tensors, together=False)
    state = {**rest, "state_dict": _under(tensors, MODEL)}
    layout = state.pop("optimizer_layout")
    if not only:
        state["optimizer_states"] = [numbered_state(_under(tensors, OPTIMIZER), layout)]
    return state


def numbered_state(
    tensors: Mapping[str, Tensor], layout: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the state of an optimiser as torch numbers it, from tensors by parameter name.

    Args:
        tensors: by ``NAME/exp_avg`` and so on.
        layout: the parameter groups, with names for ``params``.
    """
    numbers: dict[str, int] = {}
    groups = []
    for group in layout:
        for name in group["params"]:
            numbers[name] = len(numbers)
        groups.append({**group, "params": [numbers[name] for name in group["params"]]})
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, what = key.rpartition("/")
        state.setdefault(numbers[name], {})[what] = tensor
    return {"state": state, "param_groups": groups}


def load_tensors(path: Path, tensors: dict[str, Any], *, together: bool, group: Any = None) -> None:
    """Fill ``tensors`` in place from a folder; parts of them where they are spread.

    Args:
        path: the folder.
        tensors: by their names there.
        together: all processes of ``group`` call this at once and share what they find.
        group: of processes.

    Raises:
        CheckpointError: a part is missing or damaged.
    """
    try:
        with warnings.catch_warnings():
            if not together:  # one process reads what many wrote, which torch wonders about
                warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(tensors, storage_reader=Reader(path), no_dist=not together, process_group=group)
    except CheckpointException as error:
        first = next(iter(error.failures.values()))
        raise _damaged(path, _words(first[0])) from error
    except _DAMAGES as error:
        raise _damaged(path, _words(error)) from error


class Reader(FileSystemReader):
    """Reads a folder; its table of contents may name nothing but what such a table is made of."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._folder = path

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the table of contents.

        Raises:
            CheckpointError: it is missing, damaged, or something else than a table.
        """
        path = self._folder / _METADATA
        try:
            metadata = _Contents(io.BytesIO(path.read_bytes())).load()
        except FileNotFoundError:
            raise _damaged(self._folder, f"{_METADATA} is missing") from None
        except (*_DAMAGES, AttributeError, ImportError, IndexError, TypeError) as error:
            raise _damaged(self._folder, f"{_METADATA}: {_words(error)}") from error
        if not isinstance(metadata, Metadata) or not isinstance(metadata.storage_data, dict):
            raise _damaged(self._folder, f"{_METADATA} is no table of contents")
        metadata.storage_meta = None
        return metadata

    def tensors(self) -> dict[str, TensorStorageMetadata]:
        """Return what is stored: tensors only.

        Raises:
            CheckpointError: something else is stored too.
        """
        entries = self.read_metadata().state_dict_metadata
        found = {k: v for k, v in entries.items() if isinstance(v, TensorStorageMetadata)}
        if len(found) != len(entries):
            raise CheckpointError(f"{self._folder} is not a checkpoint of a geodino run.")
        return found

    def check(self) -> None:
        """Look whether every part is there, and long enough.

        Raises:
            CheckpointError: one is not.
        """
        self.tensors()
        ends: dict[str, int] = {}
        for stored in self.read_metadata().storage_data.values():
            end = stored.offset + stored.length
            ends[stored.relative_path] = max(ends.get(stored.relative_path, 0), end)
        for name, end in ends.items():
            path = self._folder / name
            if not path.is_file():
                raise _damaged(self._folder, f"its part {name} is missing")
            if (size := path.stat().st_size) < end:
                raise _damaged(self._folder, f"its part {name} has {size} bytes of {end}")


class _Contents(pickle.Unpickler):
    """Unpickles a table of contents; refuses every class that has no place in one."""

    _ALLOWED: ClassVar = {
        "torch": {"Size"},
        "torch.serialization": {"_get_layout"},
        "torch.distributed.checkpoint.metadata": {
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        },
        "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
        "pathlib": {"PosixPath", "Path"},
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of a table of contents.

        Raises:
            UnpicklingError: it is none.
        """
        if name in self._ALLOWED.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a table of contents")


class FileOrFolder(TorchCheckpointIO):
    """Lets a strategy that holds everything in every process resume from either kind."""

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a state onto the CPU; Lightning copies its tensors to where they belong."""
        return read_checkpoint(Path(path))


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _damaged(path: Path, why: str) -> CheckpointError:
    if path.is_dir():
        cure = f"ln -sfn step-XXXXXXXX.ckpt {path.parent / 'last.ckpt'}"
        return CheckpointError(
            f"{path} is damaged ({why}). Use an older step-*.ckpt beside it: `{cure}`."
        )
    return CheckpointError(
        f"{path} is damaged ({why}). Use an older step-*.ckpt beside it: copy it over last.ckpt."
    )


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
