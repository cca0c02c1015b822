"""Which device a job runs on, and how this process treats memory there."""

import ctypes
import platform
import resource
import sys
from typing import Literal

import torch

from geodino.errors import RunError

Precision = Literal["auto", "float32", "bfloat16"]
"""What matrices are multiplied in; auto is bfloat16 on CUDA and float32 elsewhere."""


def compute_type(precision: Precision, device: torch.device) -> torch.dtype:
    """Return what matrices are multiplied in on ``device``."""
    is_low = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if is_low else torch.float32


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


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # mallopt(3)


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory used so far, GiB: by tensors on a GPU, by the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20  # bytes there, KiB elsewhere


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees, where the C library is glibc; False elsewhere.

    A training step on a CPU allocates and frees the same large tensors again and again. By default
    glibc hands each back to the kernel, which clears its pages anew for the next step: 9 to 14 %
    of a step's CPU time. The process then holds its peak, and the holes between tensors, until it ends.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
