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
        unit: how many are counted as one of ``what``.
    """

    def __init__(self, what: str, total: int, *, quiet: bool, unit: int = 1) -> None:
        self._what = what
        self._unit = unit
        self._total = total / unit
        self._done = self._skipped = 0.0
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
        self._done += count / self._unit
        now = time.monotonic()
        rate = (self._done - self._skipped) / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(
                self._task, advance=count / self._unit, rate=f"{_short(rate)} {self._what}/s"
            )
        elif not self._quiet and rate and now - self._said > _LINE_EVERY_S:
            self._said = now
            left = (self._total - self._done) / rate
            sys.stderr.write(
                f"{_short(self._done)} of {_short(self._total)} {self._what}, {_short(rate)} a second, "
                f"about {left:.0f} s left\n"
            )

    def skip(self, count: int) -> None:
        """Count ``count`` as done before: they say nothing of the rate."""
        self._skipped += count / self._unit
        self.advance(count)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


class StagedProgress:
    """One ``JobProgress`` after the other: of files, then of windows, and so on.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: JobProgress | None = None
        self._what = ""
        self._done = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show ``done`` of ``total`` things; another thing, or a count from anew, is a new stage."""
        if self._bar is None or what != self._what or done <= self._done:
            self.close()
            self._bar = JobProgress(what, total, quiet=self._quiet).__enter__()
            self._what, self._done = what, 0
        self._bar.advance(done - self._done)
        self._done = done

    def close(self) -> None:
        """End the stage that is shown."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None

    def __enter__(self) -> "StagedProgress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.3g}"
