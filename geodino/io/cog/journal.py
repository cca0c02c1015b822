"""Journals of a parts folder: what the job is, and one line for each finished supertile."""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geodino import files
from geodino.errors import RunError
from geodino.metrics.moments import Moments

JOURNAL, SPOOL = ".jsonl", ".tiles"
FRAME = 8
"""Bytes around a tile: its size before it, its last four bytes again after it."""

_SHOWN, _NAMED = 3, 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Tiles that lie one behind another in a spool: of one row of blocks of one supertile."""

    level: int
    row: int
    """Row of blocks within the supertile."""

    start: int
    """First byte."""

    sizes: tuple[int, ...]
    """Compressed bytes of each tile, plane by plane and then by columns; 0: not stored."""

    @property
    def end(self) -> int:
        """First byte behind the last tile."""
        return self.start + sum(size + FRAME for size in self.sizes if size)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerPart:
    """What a supertile adds to a layer."""

    runs: tuple[Run, ...]
    moments: Moments | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """A finished supertile, as the journal tells."""

    number: int
    digest: str
    facts: Mapping[str, Any]
    """What the caller wanted to remember: JSON."""

    spool: Path
    """Where its tiles are."""


def read_parts(
    folder: Path, head: Mapping[str, Any] | None = None
) -> Iterator[tuple[Committed, Mapping[str, LayerPart]]]:
    """Yield every finished supertile once, whichever shard it is of.

    A line cut off by a crash is of a supertile that was not finished.

    Args:
        folder: the parts.
        head: what the job must be, as far as it tells; the shards must agree in any case.

    Raises:
        RunError: a journal is of another job, two disagree, or a spool is too short.
    """
    digests: dict[int, tuple[str, str]] = {}
    agreed: Mapping[str, Any] | None = None
    for path in sorted(folder.glob(f"*{JOURNAL}")):
        spool = path.with_suffix(SPOOL)
        stored = spool.stat().st_size if spool.exists() else 0
        for line in _lines(path):
            if "job" in line:
                refuse_other(folder, line["job"], line["job"] if head is None else head)
                refuse_other(folder, line["job"], agreed or line["job"])
                agreed = line["job"]
                continue
            one = Committed(
                number=line["supertile"], digest=line["digest"], facts=line["facts"], spool=spool
            )
            if one.number in digests:
                _refuse_contradiction(folder, one, *digests[one.number])
                continue
            digests[one.number] = one.digest, spool.name
            layers = {name: _part(told) for name, told in line["layers"].items()}
            end = max((run.end for part in layers.values() for run in part.runs), default=0)
            if end > stored:
                raise RunError(
                    f"{spool} is cut off: supertile {one.number} ends at byte {end:,}, the file "
                    f"has {stored:,}. Copy it again whole, or remove {folder} and repeat the job."
                )
            yield one, layers


def _refuse_contradiction(folder: Path, one: Committed, digest: str, spool: str) -> None:
    if one.digest != digest:
        raise RunError(
            f"{folder} holds supertile {one.number} twice, and they differ: {digest} in {spool}, "
            f"{one.digest} in {one.spool.name}. Remove the folder and repeat the job with one "
            "version of its inputs."
        )


def start_journal(path: Path, head: Mapping[str, Any]) -> None:
    """Note what the job is, unless the journal says so already.

    A line that a crash cut off is closed first, so that the next one is whole.
    """
    if path.exists():
        with path.open("rb") as handle:
            content = handle.read()
        if content and not content.endswith(b"\n"):
            append(path, b"\n")
        if any("job" in line for line in _lines(path)):
            return
    append(path, encoded({"job": head}))


class JournalWriter:
    """The journal of a shard in a parts folder; what all shards finished is known when it opens.

    Args:
        folder: made where it is missing.
        head: what the parts depend on, as JSON.
        shard: number from 1, and how many there are.

    Attributes:
        committed: finished parts by number: those of all shards, and this one's since.

    Raises:
        RunError: the folder holds parts of another job, or cannot be written.
    """

    def __init__(self, folder: Path, *, head: Mapping[str, Any], shard: tuple[int, int]) -> None:
        self._path = folder / f"{shard[0]}-of-{shard[1]}{JOURNAL}"
        self.spool = self._path.with_suffix(SPOOL)
        with files.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.committed = {one.number: one for one, _ in read_parts(folder, head)}
            start_journal(self._path, head)

    def note(
        self,
        number: int,
        digest: str,
        facts: Mapping[str, Any],
        layers: Mapping[str, LayerPart] | None = None,
    ) -> None:
        """Note a part as finished, and wait until the disk has it.

        Args:
            number: of the part.
            digest: of what it was made from; one that is noted twice must have the same.
            facts: to be remembered with it; JSON.
            layers: what it added to the spool.
        """
        append(self._path, commit_line(number, digest, facts, layers or {}))
        self.committed[number] = Committed(
            number=number, digest=digest, facts=facts, spool=self.spool
        )


def encoded(line: Mapping[str, Any]) -> bytes:
    """Return a line of a journal."""
    return (json.dumps(line, separators=(",", ":")) + "\n").encode()


def append(path: Path, data: bytes) -> None:
    """Add to a file and wait until the disk has it."""
    with files.writing(path), path.open("ab") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def commit_line(
    number: int, digest: str, facts: Mapping[str, Any], layers: Mapping[str, LayerPart]
) -> bytes:
    """Return the line of a finished supertile."""
    return encoded(
        {
            "supertile": number,
            "digest": digest,
            "facts": facts,
            "layers": {
                name: {
                    "runs": [[r.level, r.row, r.start, *r.sizes] for r in part.runs],
                    "moments": _moments_out(part.moments),
                }
                for name, part in layers.items()
            },
        }
    )


def refuse_other(folder: Path, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse parts of another job, naming what differs; what ``asked`` leaves out is not compared.

    Raises:
        RunError: they differ.
    """
    had, want = dict(_flat(_common(found, asked))), dict(_flat(asked))
    differ = [name for name in {**had, **want} if had.get(name) != want.get(name)]
    if differ:
        said = "; ".join(
            f"{name} was {had.get(name, 'absent')}, now {want.get(name, 'absent')}"
            for name in differ[:_SHOWN]
        )
        more = f"; and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
        raise RunError(
            f"{folder} holds parts of another job: {said}{more}. Repeat that job as it was, "
            "remove the folder, or choose another --out."
        )


def refuse_missing(folder: Path, found: Collection[int], wanted: Collection[int]) -> None:
    """Refuse to join parts with holes.

    Args:
        folder: the parts.
        found: numbers of those that are finished.
        wanted: numbers of all there must be.

    Raises:
        RunError: some are missing.
    """
    lack = sorted(set(wanted) - set(found))
    if lack:
        named = ", ".join(map(str, lack[:_NAMED])) + (", ..." if len(lack) > _NAMED else "")
        raise RunError(
            f"{folder} is not complete: {len(lack):,} of {len(wanted):,} parts are missing "
            f"({named}). Run the shards that lack, or repeat the command with --resume."
        )


def _common(found: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of what was found the parts, and of those the layers, that are not asked about."""
    kept = {name: value for name, value in found.items() if name in asked}
    if "layers" in kept:
        kept["layers"] = {
            name: value for name, value in kept["layers"].items() if name in asked["layers"]
        }
    return kept


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        # As text: NaN is then equal to itself, and a tuple to the list it is read as.
        yield name, json.dumps(value)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as handle:
        for line in handle:
            try:
                found = json.loads(line)
            except ValueError:
                continue  # cut off by a crash: what it told of was not finished
            if isinstance(found, dict):
                yield found


def _part(told: Mapping[str, Any]) -> LayerPart:
    return LayerPart(
        runs=tuple(
            Run(level=level, row=row, start=start, sizes=tuple(sizes))
            for level, row, start, *sizes in told["runs"]
        ),
        moments=_moments_in(told["moments"]),
    )


def frame(data: bytes) -> bytes:
    """Return a tile as it lies in spool and file: GDAL's leader and trailer around it."""
    return len(data).to_bytes(4, "little") + data + data[-4:] if data else b""


def _moments_out(moments: Moments | None) -> dict[str, list[Any]] | None:
    if moments is None:
        return None
    some = moments.count > 0
    return {
        "count": moments.count.tolist(),
        "mean": moments.mean.tolist(),
        "m2": moments.m2.tolist(),
        # JSON knows no infinity: bands without a value have no extremes.
        "low": np.where(some, moments.low, 0.0).tolist(),
        "high": np.where(some, moments.high, 0.0).tolist(),
    }


def _moments_in(told: Mapping[str, list[Any]] | None) -> Moments | None:
    if told is None:
        return None
    count = np.array(told["count"], dtype=np.int64)
    mean, m2, low, high = (
        np.array(told[name], dtype=np.float64) for name in ("mean", "m2", "low", "high")
    )
    return Moments(
        count, mean, m2, np.where(count > 0, low, np.inf), np.where(count > 0, high, -np.inf)
    )
