"""How far a long job is: a bar on a terminal, a line now and then without one."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

_LINE_EVERY_S = 30.0


class JobProgress:
    """Shows how much of a job is done, its rate and the time left, on the error stream.

    Args:
        what: what is counted, in the plural.
        total: how many there are.
        quiet: show nothing.
    """

    def __init__(self, what: str, total: int, *, quiet: bool) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._start = self._said = time.monotonic()
        self._quiet = quiet
        self._bar: Progress | None = None

    def __enter__(self) -> "JobProgress":
        if not self._quiet and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total, rate="")
        return self

    def advance(self, count: int = 1) -> None:
        """Count ``count`` more as done."""
        self._done += count
        now = time.monotonic()
        rate = self._done / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, advance=count, rate=f"{rate:.0f} {self._what}/s")
        elif not self._quiet and now - self._said > _LINE_EVERY_S:
            self._said = now
            left = (self._total - self._done) / rate
            sys.stderr.write(
                f"{self._done:,} of {self._total:,} {self._what}, {rate:.0f} a second, "
                f"about {left:.0f} s left\n"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
