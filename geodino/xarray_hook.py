"""Register the accessor ``DataArray.geodino``, whichever of the two packages is imported first.

Neither imports the other: xarray takes half a second, which ``geodino --help`` must not pay, and
the accessor's own module is loaded when somebody uses it.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAME = "geodino"


def install() -> None:
    """Register now if xarray is there, else as soon as it is imported; imports nothing."""
    xarray = sys.modules.get("xarray")
    if xarray is not None:
        _register(xarray)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register(xarray: ModuleType) -> None:
    if hasattr(xarray.DataArray, NAME):  # xarray warns when a name is taken a second time
        return
    xarray.register_dataarray_accessor(NAME)(_accessor)


def _accessor(array: Any) -> Any:
    """By name: everything imports this package, so a plain import would tie all floors to `api`."""
    return importlib.import_module("geodino.api.accessor").Accessor(array)


class _Finder(MetaPathFinder):
    """Wraps the loader that the other finders give xarray; stays, since some only ask."""

    _asking = False

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "xarray" or self._asking:
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
    """Runs xarray's own loader, then registers; everything else it is asked goes to that one."""

    def __init__(self, inner: Loader) -> None:
        self.inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.inner.exec_module(module)
        _register(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
