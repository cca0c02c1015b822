"""Have a say in how a package is loaded, whenever somebody imports it; nothing is imported before."""

import importlib.util
import sys
from collections.abc import Callable, Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Load = Callable[[Loader, ModuleType], None]
"""Runs a package, given its own loader and the empty module."""


def install(package: str, load: Load) -> None:
    """Put a hook before the normal finders, once; a package that is there already is left alone.

    Args:
        package: its name.
        load: what loads it.
    """
    known = any(isinstance(f, _Finder) and f.package == package for f in sys.meta_path)
    if package not in sys.modules and not known:
        sys.meta_path.insert(0, _Finder(package, load))


class _Finder(MetaPathFinder):
    """Wraps the loader that the other finders give the package; stays, since some only ask."""

    def __init__(self, package: str, load: Load) -> None:
        self.package = package
        self._load = load
        self._asking = False

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.package or self._asking:
            return None
        self._asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._load)
        return spec


class _Loader(Loader):
    """Has the package loaded; everything else it is asked goes to the package's own loader."""

    def __init__(self, inner: Loader, load: Load) -> None:
        self.inner = inner
        self._load = load

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._load(self.inner, module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
