"""Let torchvision import beside a CPU-only torch, where its compiled operators cannot load.

The wheel of torchvision on the package index is built for CUDA. Beside a CPU build of torch its
extension does not load, and the import fails because the operator ``torchvision::nms`` was never
declared; timm, lightning and torchmetrics all import torchvision. Declaring the two operators it
asks for is enough for all of torchvision that is written in Python; the compiled operators
themselves stay unavailable and say so when called. Where torchvision is whole, nothing happens.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_SCHEMAS = ("nms", "qnms")
_MISSING = "operator torchvision::nms does not exist"
_library: list[Any] = []  # keeps the declared schemas alive: they vanish with their owner


def install() -> None:
    """Put the hook before the normal finders, once; imports nothing."""
    if "torchvision" not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Wraps the loader that the other finders give torchvision; stays, since some only ask."""

    _asking = False

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchvision" or self._asking:
            return None
        self._asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Runs torchvision's own loader; declares the operators and runs it again if they lack."""

    def __init__(self, inner: Loader) -> None:
        self.inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self.inner.exec_module(module)
        except RuntimeError as error:
            if _MISSING not in str(error):
                raise
            for name in [n for n in sys.modules if n.startswith("torchvision.")]:
                del sys.modules[name]
            _declare()
            self.inner.exec_module(module)


def _declare() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in _SCHEMAS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _library.append(library)
