"""A web server far away: files by range, with latency, a bandwidth, faults, and a log of requests.

It speaks HTTP/1.1 as object stores do (keep-alive, HEAD, one or several ranges, ETag), listens on
this machine only, and charges its latency once for every request and once for every connection,
as a network with that round-trip time would. It is a process of its own: GDAL holds Python's lock
during some of its requests, so that a server in the same process could never answer them.
"""

import json
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_PIECE = 1 << 16
_FINISH_S = 3.0
"""How long a log waits for requests in flight; those that hang on purpose take longer."""

_BOUNDARY = "between-two-ranges"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it was answered."""

    method: str
    path: str
    """As in the URL, decoded, without the leading slash."""
    ranges: tuple[tuple[int, int], ...]
    """(first byte, byte after the last); empty where the whole file was asked for."""
    status: int
    sent: int
    """Bytes of the body."""
    headers: dict[str, str]
    """What the client said."""


@dataclass(frozen=True, slots=True)
class Log:
    """What a server answered since it began, or since it last forgot."""

    requests: tuple[Request, ...]
    connections: int
    most_in_flight: int

    @property
    def sent(self) -> int:
        """Bytes of all bodies."""
        return sum(r.sent for r in self.requests)

    def count(self, method: str = "GET", path: str | None = None) -> int:
        """How many requests of a method came, for one path or all."""
        return sum(r.method == method and (path is None or r.path == path) for r in self.requests)


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """What a server does wrong, by path."""

    status: dict[str, int] = field(default_factory=dict)
    """Status that every request gets."""
    fail_first: dict[str, int] = field(default_factory=dict)
    """How many requests get a 503 before the file is served."""
    drop_first: dict[str, int] = field(default_factory=dict)
    """How many answers are cut after ``drop_after`` bytes of their body."""
    drop_after: int = 1000
    """See ``drop_first``."""
    after: dict[str, int] = field(default_factory=dict)
    """How many requests are still answered well before ``status``, ``fail_first`` and
    ``drop_first`` begin."""
    hang_s: dict[str, float] = field(default_factory=dict)
    """Seconds before it is answered."""
    no_head: bool = False
    """Whether HEAD is refused, as signed URLs do."""
    no_range: bool = False
    """Whether ranges are ignored: the whole file is sent."""
    versionless: bool = False
    """Whether neither ETag nor Last-Modified is told."""


class FarServer(AbstractContextManager["FarServer"]):
    """Serves the files below a folder, from a process of its own.

    ``/~ANYTHING/NAME`` is the file ``NAME`` too, at an address that no cache has seen.

    Args:
        root: the folder.
        latency_s: seconds before the first byte of every answer, and for every new connection.
        bytes_per_s: of all connections together; 0 for what the machine can do.
    """

    def __init__(self, root: Path, *, latency_s: float = 0.0, bytes_per_s: float = 0.0) -> None:
        self._arguments = [str(root), str(latency_s), str(bytes_per_s)]

    def __enter__(self) -> "FarServer":
        self._process = subprocess.Popen(
            [sys.executable, __file__, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def url(self, name: str) -> str:
        """The URL of a file below the folder."""
        return f"{self.address}/{name}"

    def log(self) -> Log:
        """Return what was answered so far."""
        found = self._ask("log")
        requests = (
            Request(**{**r, "ranges": tuple(map(tuple, r["ranges"]))}) for r in found["requests"]
        )
        return Log(tuple(requests), found["connections"], found["most_in_flight"])

    def forget(self) -> None:
        """Begin the log anew."""
        self._ask("forget")

    def misbehave(self, **faults: Any) -> None:
        """Do wrong from now on, in the ways of :class:`Faults` that are named and in no other."""
        self._ask("misbehave", asdict(Faults(**faults)))

    def _ask(self, what: str, value: Any = None) -> Any:
        self._process.stdin.write(json.dumps([what, value]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class _Far:
    """What the threads of the server process share."""

    def __init__(self, root: Path, latency_s: float, bytes_per_s: float) -> None:
        self.root, self.latency_s = root, latency_s
        self.faults = Faults()
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0
        self._in_flight = 0
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        self._finish()
        with self._lock:
            self._requests: list[Request] = []
            self._connections = self._most_in_flight = 0

    def _finish(self) -> None:
        """Wait for requests in flight: a client has its answer before the request is noted."""
        until = time.monotonic() + _FINISH_S
        while self._in_flight and time.monotonic() < until:
            time.sleep(0.005)

    def log(self) -> dict[str, Any]:
        self._finish()
        with self._lock:
            return {
                "requests": [asdict(r) for r in self._requests],
                "connections": self._connections,
                "most_in_flight": self._most_in_flight,
            }

    def connected(self) -> None:
        with self._lock:
            self._connections += 1
        time.sleep(self.latency_s)

    def note(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    def begin(self) -> None:
        with self._lock:
            self._in_flight += 1
            self._most_in_flight = max(self._most_in_flight, self._in_flight)

    def end(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def wait_for_link(self, size: int) -> None:
        """Sleep until the link, shared by all connections, has carried ``size`` more bytes."""
        if not self._bytes_per_s:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + size / self._bytes_per_s
            wait = self._free_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)

    def is_among_first(self, counts: dict[str, int], path: str) -> bool:
        """Whether one of the first few that fail is due; it is then used up."""
        with self._lock:
            left = counts.get(path, 0)
            counts[path] = max(left - 1, 0)
        return left > 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    far: _Far

    def handle_error(self, *_: object) -> None:
        """A client that went away is none of our errors."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.far.connected()

    def log_message(self, *_: object) -> None:
        """The log is for the test to read."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.far.begin()
        try:
            name = unquote(urlsplit(self.path).path).lstrip("/")
            self._serve(name.partition("/")[2] if name.startswith("~") else name)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.server.far.end()

    def _serve(self, name: str) -> None:
        far, faults = self.server.far, self.server.far.faults
        time.sleep(far.latency_s + faults.hang_s.get(name, 0.0))
        if far.is_among_first(faults.after, name):
            faults = Faults()
        status = faults.status.get(name)
        if status is None and far.is_among_first(faults.fail_first, name):
            status = HTTPStatus.SERVICE_UNAVAILABLE
        if status is None and self.command == "HEAD" and faults.no_head:
            status = HTTPStatus.FORBIDDEN
        file = far.root / name
        if status is None and not file.is_file():
            status = HTTPStatus.NOT_FOUND
        if status is not None:
            self._refuse(name, int(status))
            return
        size = file.stat().st_size
        ranges = () if faults.no_range else _ranges(self.headers.get("Range"), size)
        if ranges and any(start >= size for start, _ in ranges):
            self._refuse(name, int(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE))
            return
        self._send(name, file, ranges, faults)

    def _refuse(self, name: str, status: int) -> None:
        body = f"{status} {HTTPStatus(status).phrase}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        sent = 0 if self.command == "HEAD" else len(body)
        self._note(name, (), status, sent)

    def _note(self, name: str, ranges: tuple[tuple[int, int], ...], status: int, sent: int) -> None:
        said = {key.lower(): value for key, value in self.headers.items()}
        self.server.far.note(Request(self.command, name, ranges, status, sent, said))

    def _send(
        self, name: str, file: Path, ranges: tuple[tuple[int, int], ...], faults: Faults
    ) -> None:
        size = file.stat().st_size
        heads = [b""] * len(ranges)
        tail = b""
        if len(ranges) > 1:
            heads = [
                (
                    f"\r\n--{_BOUNDARY}\r\nContent-Type: application/octet-stream\r\n"
                    f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n\r\n"
                ).encode()
                for start, stop in ranges
            ]
            tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
        parts = ranges or ((0, size),)
        length = sum(stop - start for start, stop in parts) + sum(map(len, heads)) + len(tail)
        status = HTTPStatus.PARTIAL_CONTENT if ranges else HTTPStatus.OK
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(length))
        if len(ranges) > 1:
            self.send_header("Content-Type", f"multipart/byteranges; boundary={_BOUNDARY}")
        else:
            self.send_header("Content-Type", "application/octet-stream")
        if len(ranges) == 1:
            self.send_header("Content-Range", f"bytes {ranges[0][0]}-{ranges[0][1] - 1}/{size}")
        if not faults.versionless:
            stat = file.stat()
            self.send_header("ETag", f'"{stat.st_mtime_ns:x}-{size:x}"')
            self.send_header("Last-Modified", formatdate(stat.st_mtime, usegmt=True))
        self.end_headers()
        if self.command == "HEAD":
            self._note(name, ranges, int(status), 0)
            return
        is_cut = self.server.far.is_among_first(faults.drop_first, name)
        left = faults.drop_after if is_cut else length
        sent = 0
        try:
            with file.open("rb") as source:
                for head, (start, stop) in zip(heads or [b""], parts, strict=True):
                    self.wfile.write(head)
                    source.seek(start)
                    end = sent + min(stop - start, left - sent)
                    while sent < end:
                        piece = source.read(min(_PIECE, end - sent))
                        self.server.far.wait_for_link(len(piece))
                        self.wfile.write(piece)
                        sent += len(piece)
                if not is_cut:
                    self.wfile.write(tail)
        finally:  # also where the client hangs up
            self._note(name, ranges, int(status), sent)
        if is_cut:
            self.close_connection = True


def _ranges(header: str | None, size: int) -> tuple[tuple[int, int], ...]:
    if not header or not header.startswith("bytes="):
        return ()
    found = []
    for text in header.removeprefix("bytes=").split(","):
        first, last = text.strip().split("-")
        if first:
            found.append((int(first), min(int(last) + 1 if last else size, size)))
        else:
            found.append((max(0, size - int(last)), size))
    return tuple(found)


def _main(root: str, latency_s: str, bytes_per_s: str) -> None:
    """Serve until the input ends, and answer its questions, one JSON value a line."""
    far = _Far(Path(root), float(latency_s), float(bytes_per_s))
    server = _Server(("127.0.0.1", 0), _Handler)
    server.far = far
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        what, value = json.loads(line)
        answer = far.log() if what == "log" else None
        if what == "forget":
            far.forget()
        elif what == "misbehave":
            far.faults = Faults(**value)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main(*sys.argv[1:])
