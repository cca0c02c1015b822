"""Commands in processes of their own, forked from one that has imported everything already.

Importing torch, timm and lightning takes a process several seconds; a fork of a process that did so
starts at once. What is forked is otherwise a new process: its own arguments, folder, environment,
streams, signals and exit code. The server has imported, and nothing more: it has a single thread.
"""

import os
import runpy
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORTED = ["geodino.api", "geodino.cli.main", "geodino.runs.demo", "geodino.runs.export",
            "geodino.runs.inspect.job", "geodino.runs.report"]  # fmt: skip
_FORKS = get_context("forkserver")


@dataclass(frozen=True)
class Strike:
    """A signal that a process gets at a moment of its work: however busy the machine, the same one.

    Watching it from outside and then sending the signal leaves it time to end before.
    """

    signal: signal.Signals
    name: str
    """Of the file: when it is opened for writing, or another is given this name."""

    time: int = 1
    """The first, second ... time."""

    def await_it(self) -> None:
        """Let this process strike itself; called once it has nothing else to do but its work."""
        seen = 0

        def hook(event: str, arguments: tuple) -> None:
            nonlocal seen
            match event, arguments:
                case "open", (str() | os.PathLike() as path, _, int(flags)):
                    meant = bool(flags & (os.O_WRONLY | os.O_RDWR))
                case "os.rename", (_, str() | os.PathLike() as path, *_):
                    meant = True
                case _:
                    return
            if meant and Path(path).name == self.name:
                seen += 1
                if seen == self.time:
                    os.kill(os.getpid(), self.signal)

        sys.addaudithook(hook)


class Started:
    """A process that runs; the part of ``subprocess.Popen`` that the tests use."""

    def __init__(self, target, work, *, cwd, env, strike) -> None:
        self._streams = tempfile.TemporaryDirectory()
        folder = Path(self._streams.name)
        self._paths = (folder / "stdout", folder / "stderr")
        serve()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **env}
        place = (str(cwd or Path.cwd()), environment, *map(str, self._paths))
        self._process = _FORKS.Process(target=_inside, args=(place, target, work, strike))
        self._process.start()

    def wait(self, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """What it wrote and how it ended; killed, with an error, after ``timeout_s``."""
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        out, err = (path.read_text() for path in self._paths)
        self._streams.cleanup()
        return subprocess.CompletedProcess(self._process.name, self._process.exitcode, out, err)


def start_geodino(*arguments: object, cwd=None, env=(), strike=None) -> Started:
    """``geodino ARGUMENTS...``"""
    work = tuple(map(str, arguments))
    return Started(_run_geodino, work, cwd=cwd, env=dict(env), strike=strike)


def run_geodino(*arguments: object, **how) -> subprocess.CompletedProcess[str]:
    return start_geodino(*arguments, **how).wait()


def start_python(code: str, *arguments: object, cwd=None, env=(), strike=None) -> Started:
    """``python -W ignore -c CODE ARGUMENTS...``"""
    work = (code, *map(str, arguments))
    return Started(_run_code, work, cwd=cwd, env=dict(env), strike=strike)


def run_python(code: str, *arguments: object, **how) -> subprocess.CompletedProcess[str]:
    return start_python(code, *arguments, **how).wait()


def serve() -> None:
    """Start the server unless it runs, with this checkout and one thread of everything."""
    from multiprocessing.forkserver import ensure_running

    asked = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in asked}
    os.environ.update(asked)
    try:
        _FORKS.set_forkserver_preload(IMPORTED)
        ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _inside(place, target, work, strike) -> None:
    cwd, environment, stdout, stderr = place
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if strike is not None:
        strike.await_it()
    target(*work)


def _run_geodino(*arguments: str) -> None:
    _only_imported()
    sys.argv = ["geodino", *arguments]
    # As the module named so: what starts more processes asks how this one was started.
    runpy.run_module("geodino", run_name="__main__", alter_sys=True)


def _run_code(code: str, *arguments: str) -> None:
    import warnings

    _only_imported()
    sys.argv = ["-c", *arguments]
    warnings.simplefilter("ignore")
    exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})  # noqa: S102  (of the tests themselves)


def _only_imported() -> None:
    """Hold what this file promises: everything is imported, of this checkout, and no thread."""
    import threading

    missing = [name for name in IMPORTED if name not in sys.modules]
    assert not missing, f"the server could not import {missing}"
    assert Path(sys.modules["geodino"].__file__).is_relative_to(ROOT)
    assert threading.active_count() == 1
