"""The parts of maps and tables: what is there already, and making what is left."""

import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from geodino.errors import RunError, SourceError
from geodino.runs.mapping.job import MapJob
from geodino.runs.mapping.maps import P, share
from geodino.runs.mapping.memory import columns_for, default_limit, used_memory
from geodino.runs.mapping.planned import Begun, Planned
from geodino.runs.progress import JobProgress


def is_done(one: Planned, job: MapJob) -> bool:
    """Whether a job that goes on finds its output whole, with all that lies beside it.

    Raises:
        RunError: a file is there that may not be replaced.
    """
    _refuse_inputs([one])
    there = [path for path in one.written if path.exists()]
    if job.overwrite or not there:
        return False
    if job.goes_on:
        if one.path not in there and one.parts.exists():
            return False  # interrupted while it was joined
        if one.made_by() == one.identity:
            return not one.parts.exists()
    raise RunError(
        f"{there[0]} exists: nothing was changed. Choose another --out, or add --overwrite."
    )


def check_parts(planned: Sequence[Planned], job: MapJob) -> None:
    """Refuse to mix what an earlier job left with this one unasked.

    Raises:
        RunError: there are parts, or a raster would be replaced by what is made of it.
    """
    _refuse_inputs(planned)
    for one in planned:
        if job.overwrite:
            shutil.rmtree(one.parts, ignore_errors=True)
        elif one.parts.exists() and not job.goes_on:
            raise RunError(
                f"{one.parts} holds parts of this job from before: nothing was changed. Go on with "
                "--resume, or start again with --overwrite."
            )


def _refuse_inputs(planned: Sequence[Planned]) -> None:
    """Refuse to write over what is read, whatever was asked.

    Raises:
        RunError: naming the file.
    """
    read = {Path(path).resolve() for one in planned for path in one.source.files}
    for one in planned:
        for path in one.written:
            if path.resolve() in read:
                raise RunError(
                    f"{path} is read by this job, and would be replaced by what is made of it: "
                    "nothing was changed. Choose another --out."
                )


class Room:
    """Keeps as many parts side by side in memory as fit."""

    def __init__(self, job: MapJob) -> None:
        self._limit = default_limit() if job.max_memory is None else job.max_memory
        self._before = 0

    def warm_up(self, planned: Sequence[Planned]) -> None:
        """Compute a batch, and note what the process has held by then.

        What is fitted before the maps may need more for a moment, and gives it back.
        """
        for one in planned:
            if one.numbers and not self._before:
                one.warm_up()
                self._before = used_memory()

    def fitted(self, one: Planned) -> Planned:
        """Return what is to be made, as wide as memory allows.

        Raises:
            RunError: not even one part fits.
        """
        self.warm_up([one])
        return one.narrowed(columns_for(self._limit, one.need(), before=self._before))


def render(planned: Sequence[P], job: MapJob, threads: Executor, *, room: Room) -> int:
    """Make what is not committed yet; return how many pixels of the rasters that was.

    Args:
        planned: what is not whole.
        job: what was asked.
        threads: that read.
        room: what memory allows.

    Raises:
        SourceError: a block cannot be read; what was committed stays.
        RunError: the disk is full, memory does not suffice, a value is not finite, or a raster
            changed since the parts were begun.
    """
    shares = share(planned, job.shard or (1, 1))
    total = sum(one.pixels(numbers) for one, numbers in shares)
    with JobProgress("Mpx", total, quiet=job.quiet, unit=10**6) as progress:
        for one, numbers in shares:
            if not numbers:
                continue
            with room.fitted(one).begun(job.shard or (1, 1)) as begun:
                _refuse_changed(one, begun, threads)
                left = [n for n in numbers if n not in begun.committed]
                progress.skip(one.pixels(numbers) - one.pixels(left))
                try:
                    begun.run(left, threads=threads, advance=progress.advance)
                except (KeyboardInterrupt, SourceError):
                    _say_stopped(one, job)
                    raise
    return total


def _say_stopped(one: Planned, job: MapJob) -> None:
    if not job.quiet:
        again = (
            "The same command goes on" if job.shard else "The same command with --resume goes on"
        )
        sys.stderr.write(f"Stopped. Finished parts stay in {one.parts}. {again}.\n")


def _refuse_changed(one: Planned, begun: Begun, threads: Executor) -> None:
    """Look again at pixels of parts that were made from files written anew since.

    Raises:
        RunError: a pixel differs.
    """
    for number, committed in sorted(begun.committed.items()):
        if committed.facts["source"] == one.content:
            continue
        if one.digest(number, threads=threads) != committed.digest:
            window = one.window(number)
            raise RunError(
                f"{one.source.path} has changed since {one.parts} was begun: pixels in rows "
                f"{window.top} to {window.bottom - 1}, columns {window.left} to "
                f"{window.right - 1} differ. Restore the raster, or start again with --overwrite."
            )
