"""Let torchvision import beside a CPU-only torch, where its compiled operators cannot load.

The wheel of torchvision on the package index is built for CUDA. Beside a CPU build of torch its
extension does not load, and the import fails because the operator ``torchvision::nms`` was never
declared; timm, lightning and torchmetrics all import torchvision. Declaring the two operators it
asks for is enough for all of torchvision that is written in Python; the compiled operators
themselves stay unavailable and say so when called. Where torchvision is whole, nothing happens.
"""

import sys
from importlib.abc import Loader
from types import ModuleType
from typing import Any

from geodino import import_hook

_SCHEMAS = ("nms", "qnms")
_MISSING = "operator torchvision::nms does not exist"
_library: list[Any] = []  # keeps the declared schemas alive: they vanish with their owner


def install() -> None:
    """Put the hook before the normal finders, once; imports nothing."""
    import_hook.install("torchvision", _load)


def _load(loader: Loader, module: ModuleType) -> None:
    """Run torchvision's own loader; declare the operators and run it again if they lack."""
    try:
        loader.exec_module(module)
    except RuntimeError as error:
        if _MISSING not in str(error):
            raise
        for name in [n for n in sys.modules if n.startswith("torchvision.")]:
            del sys.modules[name]
        _declare()
        loader.exec_module(module)


def _declare() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in _SCHEMAS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _library.append(library)
