"""Files behind a network: how GDAL is told to read them, and what their server says of them.

GDAL reads COGs over HTTP well if it is told to: blocks that lie one after the other in the file
come with one request, connections are kept, HTTP/2 is used where it is offered. Its defaults also
ask for a dozen sidecar files that do not exist, give a file up for the life of the process when
one connection breaks, and wait for ever for a server that hangs.
"""

import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar

import rasterio
from rasterio.env import get_gdal_config
from rasterio.errors import RasterioError

from geodino.errors import SourceError

T = TypeVar("T")

_NETWORK = tuple(
    f"/vsi{name}" for name in ("curl", "s3", "gs", "az", "adls", "oss", "swift", "hdfs", "webhdfs")
)

_OPTIONS: dict[str, str] = {
    # No listing of the folder and no search for .msk, .aux.xml, .ovr, .tfw: each name is a request
    # of its own, and part of them is made while Python's lock is held, so that all threads wait.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # One GET brings the directory of most COGs. HEAD stays: without it GDAL begins to download the
    # whole file and breaks the connection off to learn its size.
    "GDAL_INGESTED_BYTES_AT_OPEN": str(1 << 16),
    # The places of all blocks are read when a file is opened. Read when they are needed, a broken
    # connection makes GDAL take the block for one that was never written: zeros, and no error.
    "GTIFF_USE_DEFER_STRILE_LOADING": "NO",
    # No single read is longer than this cache.
    "CPL_VSIL_CURL_CACHE_SIZE": str(1 << 26),
    # Of 429, 500, 502, 503 and 504, the wait doubled each time.
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_LOW_SPEED_TIME": "15",
    "GDAL_HTTP_TCP_KEEPALIVE": "YES",
}

RUN_BYTES = 1 << 25
"""Longest run of blocks, as stored, that is fetched by one request. GDAL's own limit is 10 MiB."""

RETRY_WAITS_S = (1.0, 4.0)
"""Pauses before a server is asked again that gave no answer, a passing error or a part."""

_ASK_S = 30.0
"""Seconds a server has to say what it knows of a file."""

_CODE = re.compile(r"(?:^|HTTP response code: |HTTP error code : )(\d{3})\b")

_STATUSES = frozenset(HTTPStatus)

_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)

_NOT_US = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.NOT_IMPLEMENTED,
)

_NO_ACCESS = (
    "Give access as GDAL takes it (GDAL_HTTP_HEADERS, AWS_ACCESS_KEY_ID, ...); where the address "
    "is a signed one, sign it anew."
)
_GONE = "It was moved or removed: correct the address, or leave it out."

_CURES: dict[int, str] = {401: _NO_ACCESS, 403: _NO_ACCESS, 404: _GONE, 410: _GONE}
"""What to do, by HTTP status."""


def is_far(path: str) -> bool:
    """Whether reading a path crosses a network."""
    if "/vsi" in path and any(prefix in path for prefix in _NETWORK):
        return True
    return "://" in path and not path.startswith("file://")


def far_options() -> dict[str, str]:
    """Return GDAL's options for opening a far file; what the user has set stays as it is.

    A handle keeps them, so they need not be in force when pixels are read. Credentials
    (``AWS_*``, ``GDAL_HTTP_HEADERS`` and the like) are none of ours and come as GDAL finds them.
    """
    return {key: value for key, value in _OPTIONS.items() if get_gdal_config(key) is None}


@dataclass(frozen=True, slots=True)
class Told:
    """What a server tells of a file without sending it; empty values were not told."""

    size: int = 0
    """Bytes."""

    mtime_ns: int = 0
    """Time of the last change, nanoseconds since 1970."""

    version: str = ""
    """ETag, generation or checksum."""


class RemoteError(SourceError):
    """A far file does not come, for the reason that the message tells.

    Args:
        message: one sentence for the user.
        status: HTTP status of the answer; None without one.
        is_final: whether asking again cannot help; None concludes it from the status.
    """

    def __init__(
        self, message: str, *, status: int | None = None, is_final: bool | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        passing = status is None or status >= 500 or status in _PASSING
        self.is_final = not passing if is_final is None else is_final
        self.is_about_us = status in _NOT_US
        """Whether the server refuses the asker or the way of asking, not the file."""


def ask(url: str) -> Told:
    """Ask for size and version of a far file; no byte of it is sent.

    Addresses of object stores need fsspec's package for them (s3fs, gcsfs, adlfs); without it
    nothing is told.

    Raises:
        RemoteError: in one sentence, what the server said, or that it cannot be reached.
    """
    address = _address(url)
    if address.startswith(("http://", "https://")):
        return _told(*_ask_http(url, address))
    try:
        system, name = store_of(address)
        about = system.info(name)
    except store_errors(ImportError, ValueError):
        # No package for this protocol, or no keys where it looks for them: GDAL may still read it.
        return Told()
    except OSError as error:
        is_gone = isinstance(error, FileNotFoundError)
        raise refusal(url, "404" if is_gone else str(error)) from error
    changed = about.get("LastModified") or about.get("mtime") or about.get("last_modified")
    tags = (about.get(key) for key in ("ETag", "etag", "generation", "md5", "content_md5"))
    return Told(
        size=int(about.get("size") or 0),
        mtime_ns=int(changed.timestamp() * 1e9) if hasattr(changed, "timestamp") else 0,
        version=str(next((tag for tag in tags if tag), "")),
    )


def store_of(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and what the file is called there.

    Raises:
        ImportError: its package is not installed; the message names it.
        ValueError: there is none for this protocol.
    """
    import fsspec

    # GDAL's word for a public bucket; s3fs has one of its own.
    unsigned = str(get_gdal_config("AWS_NO_SIGN_REQUEST")).upper() in ("YES", "TRUE", "ON", "1")
    options = {"anon": True} if unsigned and url.startswith("s3://") else {}
    system, name = fsspec.core.url_to_fs(url, **options)
    return system, str(name)


def store_errors(*also: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what packages for object stores raise that is no OSError, such as missing keys.

    For an ``except``, with ``also`` before them.
    """
    roots = (
        ("botocore.exceptions", "BotoCoreError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("azure.core.exceptions", "AzureError"),
    )
    loaded = ((sys.modules.get(module), name) for module, name in roots)
    theirs = (getattr(module, name) for module, name in loaded if module is not None)
    return (*also, *theirs)


def forget(url: str) -> None:
    """Let GDAL forget what it keeps of a far file, above all that it could not be read.

    One broken connection otherwise closes the file to all threads until the process ends.
    """
    # Content that is not cached is dropped when a handle closes, what others cached of it too.
    prefixes = ":".join(f"{prefix}/" for prefix in _NETWORK)
    options = {"CPL_VSIL_CURL_NON_CACHED": prefixes, "GDAL_HTTP_MAX_RETRY": "0"}
    with rasterio.Env(**far_options() | options), suppress(RasterioError):
        rasterio.open(url, sharing=False).close()


def patiently(fn: Callable[[], T], *, before_again: Callable[[], None] = lambda: None) -> T:
    """Return ``fn()``, called again after each of ``RETRY_WAITS_S`` where its error may pass.

    Raises:
        RemoteError: the last one, or the first that cannot pass.
    """
    for wait_s in RETRY_WAITS_S:
        try:
            return fn()
        except RemoteError as error:
            if error.is_final:
                raise
        before_again()
        time.sleep(wait_s)
    return fn()


def told_of(url: str) -> Told:
    """Ask patiently for size and version, and take a refusal of strangers as nothing told.

    Some servers tell nothing to strangers, while GDAL has a cookie or a signature of its own.

    Raises:
        RemoteError: the file is not there, or the server cannot be reached.
    """
    try:
        return patiently(lambda: ask(url))
    except RemoteError as error:
        if error.is_about_us:
            return Told()
        raise


def read_text(url: str) -> str:
    """Fetch a small text document.

    Raises:
        RemoteError: in one sentence, what the server said, or that it cannot be reached.
    """
    import fsspec

    address = _address(url)
    if address.startswith(("http://", "https://")):
        status, _, body = _request(url, address, "GET", {}, whole=True)
        if status >= 400:
            raise refusal(url, str(status))
        return body.decode("utf-8")
    try:
        with fsspec.open(address, "rt", encoding="utf-8") as file:
            return str(file.read())
    except store_errors(ImportError, ValueError, OSError) as error:
        raise refusal(url, str(error)) from error


def first_bytes(url: str, count: int) -> bytes:
    """Return the first bytes of a far file, fetched by GDAL with whatever access it has.

    Raises:
        RasterioError: it cannot be read, or is shorter.
    """
    raw = (
        f'<VRTDataset rasterXSize="{count}" rasterYSize="1">'
        "<GeoTransform>0,1,0,0,0,-1</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f"<SourceFilename>{_escaped(_virtual(url))}</SourceFilename><ImageOffset>0</ImageOffset>"
        f"<PixelOffset>1</PixelOffset><LineOffset>{count}</LineOffset>"
        "</VRTRasterBand></VRTDataset>"
    )
    options = far_options() | {"GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE": "ALL"}
    with rasterio.Env(**options), rasterio.open(raw) as file:
        return bytes(file.read(1).tobytes())


def refusal(url: str, words: str) -> RemoteError:
    """Return the error that says why a far file does not come, and what to do.

    Args:
        url: the file.
        words: what GDAL said, or the HTTP status.
    """
    found = _CODE.search(words)
    if found is None:
        return _without_status(url, words)
    status = int(found[1])
    name = f" ({HTTPStatus(status).phrase})" if status in _STATUSES else ""
    cure = _CURES.get(status, "Try again later, with fewer data.threads if it is overloaded.")
    return RemoteError(
        f"{url} cannot be read: the server answers {status}{name}. {cure}", status=status
    )


def _without_status(url: str, words: str) -> RemoteError:
    if "Range downloading not supported" in words:
        return RemoteError(
            f"{url} cannot be read in parts: its server sends whole files only. Copy the file "
            "here, or put it on a server that knows HTTP ranges, as any object store does.",
            is_final=True,
        )
    if "not recognized as being in a supported file format" in words:
        return RemoteError(
            f"{url} is no raster: the server sends something else (a sign-in page, a folder, a "
            "part of a file). Open the address in a browser to see what."
        )
    return RemoteError(
        f"{url} cannot be reached: {words}. Check the address and the network, then try again."
    )


def _address(url: str) -> str:
    """Return what fsspec calls a file that GDAL may call /vsi...: an https:// or s3:// address."""
    for prefix, scheme in (("curl/", ""), ("s3/", "s3://"), ("gs/", "gs://"), ("az/", "az://")):
        if url.startswith(f"/vsi{prefix}"):
            return scheme + url.removeprefix(f"/vsi{prefix}")
    return url


def _virtual(url: str) -> str:
    """Return what GDAL calls a file behind an address."""
    if url.startswith("/vsi"):
        return url
    scheme, _, rest = url.partition("://")
    return f"/vsicurl/{url}" if scheme in ("http", "https", "ftp") else f"/vsi{scheme}/{rest}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _ask_http(url: str, address: str) -> tuple[Mapping[str, str], int]:
    """Return the headers and the size; signed addresses refuse HEAD, so one byte is asked then."""
    status, headers, _ = _request(url, address, "HEAD", {})
    size = headers.get("Content-Length", "")
    if status >= 400:
        status, headers, _ = _request(url, address, "GET", {"Range": "bytes=0-0"})
        size = headers.get("Content-Range", "").rpartition("/")[2]
    if status >= 400:
        raise refusal(url, str(status))
    return headers, int(size) if size.isdigit() else 0


def _told(headers: Mapping[str, str], size: int) -> Told:
    changed = headers.get("Last-Modified")
    try:
        mtime_ns = int(parsedate_to_datetime(changed).timestamp()) * 10**9 if changed else 0
    except ValueError:
        mtime_ns = 0
    return Told(size, mtime_ns, headers.get("ETag", ""))


def _request(
    url: str, address: str, method: str, headers: Mapping[str, str], *, whole: bool = False
) -> tuple[int, Mapping[str, str], bytes]:
    """Return status, headers and, if ``whole``, the body."""
    import aiohttp
    import fsspec

    # trust_env: proxies and ~/.netrc hold here too. encoded: a signature must arrive as it is.
    system = fsspec.filesystem("http", client_kwargs={"trust_env": True}, encoded=True)
    sent = {"Accept-Encoding": "identity", **_user_headers(), **headers}

    async def talk() -> tuple[int, Mapping[str, str], bytes]:
        session = await system.set_session()
        target = system.encode_url(address)
        async with session.request(method, target, headers=sent, allow_redirects=True) as answer:
            body = await answer.read() if whole else b""
            return answer.status, answer.headers, body

    try:
        found: tuple[int, Mapping[str, str], bytes]
        found = fsspec.asyn.sync(system.loop, talk, timeout=_ASK_S)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        words = str(error) or f"no answer within {_ASK_S:g} s"
        raise refusal(url, words) from error
    return found


def _user_headers() -> dict[str, str]:
    """Return the headers GDAL would send: a token set for it must do here too."""
    text: Any = get_gdal_config("GDAL_HTTP_HEADERS", normalize=False) or ""
    pairs = (item.partition(":") for item in re.split(r"[\r\n,]+", str(text)))
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def sidecars_are_read() -> bool:
    """Whether the user asked GDAL to look for the sidecar files of far rasters after all."""
    return str(get_gdal_config("GDAL_DISABLE_READDIR_ON_OPEN") or "EMPTY_DIR") != "EMPTY_DIR"
