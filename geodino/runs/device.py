"""Which device a job runs on."""

import torch

from geodino.errors import RunError


def choose_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        RunError: no such device on this machine, or a name that is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise RunError(f"--device {name}: expected auto, cpu, cuda or cuda:N.")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if int(index or 0) >= count:
            raise RunError(
                f"--device {name}: this machine has {count} CUDA device(s) that torch can use. "
                "Use --device cpu, or install a CUDA build of torch."
            )
    return torch.device(name)
