"""Files that are whole or absent: temporary name, flush, rename; digests; JSON lines."""

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from geodino.errors import RunError

Path_ = str | os.PathLike[str]


def neighbour(missing: Path_) -> str:
    """Return `` Did you mean 'x'?`` for what lies where ``missing`` does not, or an empty string."""
    path = Path(missing)
    there = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    nearest = get_close_matches(path.name, there, n=1)
    return f" Did you mean {str(path.with_name(nearest[0]))!r}?" if nearest else ""


@contextmanager
def replacing(path: Path_) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it there.

    On any exception the temporary file is removed and ``path`` is untouched.

    Raises:
        RunError: the disk is full, or the folder cannot be made or written.
    """
    target = Path(path)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with writing(target):
            yield temporary
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path_) -> Iterator[None]:
    """Turn the operating system's refusal to write ``path`` into one clear sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"{path} could not be written: the disk is full. What was saved before is intact; "
                "free some space and repeat the command (a run goes on with --resume)."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RunError(
                f"{path} could not be written: no permission ({error.strerror}). "
                "Choose another --out, or change the folder's permissions."
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
            raise RunError(
                f"{path} could not be written: {str(error.strerror).lower()} ({error.filename}). Choose "
                "another --out."
            ) from error
        raise


def write_text(path: Path_, text: str) -> None:
    """Write ``text`` (UTF-8) so that ``path`` holds either the old or the new content, whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path_, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all; NaN and infinity are errors."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, default=str) + "\n")


def write_with(path: Path_, writer: Callable[[Path], None]) -> None:
    """Let ``writer`` fill a temporary file, then rename it to ``path``."""
    with replacing(path) as temporary:
        writer(temporary)


def sha256(path: Path_, *, block: int = 1 << 20) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as handle:
        while chunk := handle.read(block):
            digest.update(chunk)
    return digest.hexdigest()


def append_lines(path: Path_, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows to a JSON-lines file and flush them to disk; non-finite floats become null."""
    text = "".join(json.dumps(finite(row), default=str) + "\n" for row in rows)
    if not text:
        return
    with writing(path), Path(path).open("a", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def read_lines(path: Path_) -> list[dict[str, Any]]:
    """Read a JSON-lines file; a last line cut off by a crash is left out."""
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def finite(value: Any) -> Any:
    """Return a value as JSON wants it: None for every number that is not finite, lists for tuples.

    Args:
        value: of mappings, lists, tuples, and numbers of Python or numpy.
    """
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, Real) and not isinstance(value, Integral):
        return float(value) if math.isfinite(value) else None
    return value
