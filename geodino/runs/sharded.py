"""Lightning's strategy for networks that processes share (FSDP2), with states saved on the side."""

import errno
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.optim import Optimizer

from geodino.errors import CheckpointError
from geodino.models.shards import fill
from geodino.runs.checkpoints import MODEL, OPTIMIZER, REST, Reader, load_tensors, read_rest


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes. Saving copies each process's part and writes it in a thread.

    Args:
        processes: how many share the networks.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1)
        self._saving: Future[Any] | None = None
        self._published: Future[None] | None = None
        self._saver_group: Any = None

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return weights and buffers as they are spread: nothing is gathered."""
        return dict(self._module().state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the moments by parameter name, and the groups with names for parameters."""
        inner = _inner(optimizer)
        names = {id(p): name for name, p in self._module().named_parameters()}
        tensors = {
            f"{names[id(parameter)]}/{what}": value
            for parameter, state in inner.state.items()
            for what, value in state.items()
        }
        layout = [
            {**group, "params": [names[id(p)] for p in group["params"]]}
            for group in inner.param_groups
        ]
        return {"tensors": tensors, "layout": layout}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Begin to write a folder; :meth:`publish` and :meth:`finish_saving` end it.

        Training may go on when this returns: what is written is a copy.
        """
        self.finish_saving()
        path = Path(filepath)
        rest = dict(checkpoint)
        (optimizer,) = rest.pop("optimizer_states")
        tensors = _named(rest.pop("state_dict"), MODEL) | _named(optimizer["tensors"], OPTIMIZER)
        if self.is_global_zero:
            path.mkdir()
            torch.save({**rest, "optimizer_layout": optimizer["layout"]}, path / REST)
        self.barrier()
        self._saving = async_save(tensors, checkpoint_id=path, process_group=self._for_saving())  # type: ignore[assignment]

    def publish(self, when_written: Callable[[], None]) -> None:
        """Call ``when_written`` in the background once all processes have written their parts."""
        if self._saving is None:
            raise RuntimeError("nothing is being saved")
        published: Future[None] = Future()

        def then(written: Future[Any]) -> None:
            # Whatever happened is told to the training thread, which waits for it sooner or later.
            try:
                written.result()
                when_written()
            except BaseException as error:  # noqa: BLE001
                published.set_exception(error)
            else:
                published.set_result(None)

        self._published = published
        self._saving.add_done_callback(then)

    def finish_saving(self) -> None:
        """Wait until what is being saved is on disk.

        Raises:
            OSError: it could not be written.
        """
        waiting = self._published or self._saving
        self._saving = self._published = None
        if waiting is None:
            return
        try:
            waiting.result()
        except CheckpointException as error:
            first = next(iter(error.failures.values()))[0]
            text = str(first)
            if isinstance(first, OSError):
                raise first from error
            if "No space left" in text or "file write failed" in text:
                raise OSError(errno.ENOSPC, text) from error
            raise OSError(errno.EIO, f"the state could not be written: {text}") from error

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Fill networks and optimiser from a folder or a file; each process takes its part.

        Raises:
            CheckpointError: it is damaged, or holds other tensors than this run.
        """
        path = Path(checkpoint_path)
        state = read_rest(path)
        (optimizer,) = (_inner(optimizer) for optimizer in self.optimizers)
        if path.is_dir():
            self._load_folder(path, optimizer)
        else:
            self._load_file(path, state, optimizer)
        return {**state, "state_dict": {}}

    def _load_folder(self, path: Path, optimizer: Optimizer) -> None:
        module = self._module()
        stored = Reader(path).tensors()
        tensors: dict[str, Any] = _named(module.state_dict(), MODEL)
        _require_same(path, set(tensors), {name for name in stored if name.startswith(MODEL)})
        parameters = dict(module.named_parameters())
        for key, entry in stored.items():
            if key.startswith(OPTIMIZER):
                parameter = parameters[key.removeprefix(OPTIMIZER).rpartition("/")[0]]
                tensors[key] = _room(parameter, entry.size)
        load_tensors(path, tensors, together=True, group=self._for_saving())
        for key, value in tensors.items():
            if key.startswith(OPTIMIZER):
                name, _, what = key.removeprefix(OPTIMIZER).rpartition("/")
                optimizer.state[parameters[name]][what] = value

    def _load_file(self, path: Path, state: Mapping[str, Any], optimizer: Optimizer) -> None:
        module = self._module()
        mine = module.state_dict()
        _require_same(path, set(mine), set(state["state_dict"]))
        for name, tensor in mine.items():
            fill(tensor, state["state_dict"][name])
        ordered = [p for group in optimizer.param_groups for p in group["params"]]
        for number, moments in state["optimizer_states"][0]["state"].items():
            parameter = ordered[int(number)]
            for what, value in moments.items():
                room = _room(parameter, value.shape)
                fill(room, value)
                optimizer.state[parameter][what] = room

    def _for_saving(self) -> Any:
        """Processes talk about states in a group of their own, on the CPU, while training goes on."""
        if self._saver_group is None:
            self._saver_group = dist.new_group(backend="gloo")
        return self._saver_group

    def _module(self) -> Any:
        if self.lightning_module is None:
            raise RuntimeError("the strategy has no module yet")
        return self.lightning_module


def _inner(optimizer: Any) -> Optimizer:
    inner: Optimizer = (
        optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
    )
    return inner


def _named(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _room(parameter: Tensor, size: Any) -> Tensor:
    """Room for a moment of ``parameter``, spread as it is; or for its step counter, a scalar."""
    if tuple(size) == tuple(parameter.shape):
        return torch.zeros_like(parameter, requires_grad=False)
    return torch.zeros(tuple(size), dtype=torch.float32, device=parameter.device)


def _require_same(path: Path, mine: set[str], stored: set[str]) -> None:
    if mine != stored:
        first = sorted(mine ^ stored)[:3]
        raise CheckpointError(
            f"{path} holds other tensors than this run, e.g. {', '.join(first)}. Put the run's own "
            "checkpoint back, or start a new run."
        )
