"""Files and folders behind URLs, by fsspec: whole or ranges of bytes; what may pass is tried again."""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Final, TypeVar
from urllib.parse import quote, unquote

from batchcam.errors import BatchcamError
from batchcam.images.decoding import describe
from batchcam.images.passing_faults import http_status, passing_fault
from batchcam.images.regular_files import TooLargeError, read_regular_file

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_HTTP: Final = re.compile("https?://", re.IGNORECASE)
_FILE: Final = re.compile("file://(?:localhost)?" + ("/" if sys.platform == "win32" else "(?=/)"), re.IGNORECASE)
_PASSWORD: Final = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY: Final = re.compile(r"""(?<![\w.+-])(https?://[^?\s'"]*)\?[^\s'"]*""", re.IGNORECASE)

_WAITS_S: Final = (0.5, 1, 2, 4)
"""Seconds before each further try."""

_VERSIONS: Final = ("ETag", "etag", "Last-Modified", "LastModified", "mtime", "updated", "created")
"""What file systems call what changes with a file's content, the surest first."""

_PIECE_BYTES: Final = 2**23

_NO_RANGES: Final = "its server gives no ranges of bytes: download it first"

T = TypeVar("T")


def is_url(path: str) -> bool:
    """Return whether a path leads through fsspec."""
    return _URL.match(path) is not None


def expanded(path: str) -> str:
    """Return a path as the system has it: without `file://`, and with `~` replaced; another URL as it is."""
    if local := _FILE.match(path):
        return unquote(path[local.end() :])
    try:
        return os.path.expanduser(path)
    except ValueError:  # no user has such a name
        return path


def absolute(path: str) -> str:
    """Return a path, or URL, that leads there from any folder."""
    return path if is_url(path := expanded(path)) else os.path.abspath(path)


def joined(folder: str, path: str) -> str:
    """Return where a path leads from a folder; either may be a URL, and a path below one is written as files are."""
    if is_url(path):
        return expanded(path) if _FILE.match(path) else path
    if not is_url(folder):
        return os.path.join(folder, path)
    return f"{folder.rstrip('/')}/{quote(path) if _HTTP.match(folder) else path}"


def address(path: str) -> str:
    """Return a path, or a URL without what is asked of its server, such as `?signature`."""
    return path.partition("?")[0] if _HTTP.match(path) else path


def without_secrets(text: str) -> str:
    """Return a text whose URLs have no passwords, and nothing that is asked of a web server, such as signatures."""
    return _QUERY.sub(r"\1", _PASSWORD.sub("", text)) if "://" in text else text


def read_file(path: str | bytes, most: int | None = None) -> bytes:
    """Return the content of a file of this machine, or behind a URL.

    Raises:
        NotRegularError, TooLargeError, OSError, MemoryError: as `read_regular_file`.
        PassingFaultError: the network or the server is away.
    """
    if not _URL.match(text := os.fsdecode(path)):
        return read_regular_file(path, most)
    data = read(text)
    if most is not None and len(data) > most:
        raise TooLargeError(f"more than {most} bytes")
    return data


def read(url: str, start: int = 0, end: int | None = None) -> bytes:
    """Return bytes of a file, fewer where it ends; else raise as `read_file`."""
    data: bytes = _tried(url, lambda files, path: files.cat_file(path, start=start, end=end))
    return data


def status(url: str) -> tuple[int, str]:
    """Return the size of a file of which ranges can be read, and what changes with its content.

    Raises:
        PassingFaultError, OSError: as `read_file`; or its server gives no sizes, or no ranges.
    """

    def look(files: Any, path: str) -> tuple[int, str]:
        info = files.info(path)
        if info.get("type") == "directory" or not isinstance(info.get("size"), int):
            raise OSError(errno.EIO, "a folder, or its server does not tell its size")
        if _HTTP.match(url) and info["size"] > 1:
            with files.open(path, block_size=1, cache_type="none", size=info["size"]) as file:
                file.seek(1)
                try:
                    file.read(1)  # refused where ranges are not known, without a look at the rest
                except ValueError as error:
                    raise OSError(errno.EIO, _NO_RANGES) from error
        return info["size"], next((str(info[name]) for name in _VERSIONS if info.get(name)), "")

    return _tried(url, look)


def entries(url: str) -> list[tuple[str, int | None, bool]]:
    """Return what lies in a folder: name, size where it is known, and whether it is a folder."""

    return _tried(url, _entries)


def _entries(files: Any, path: str) -> list[tuple[str, int | None, bool]]:
    found, below, is_web = [], f"{path.rstrip('/')}/", _HTTP.match(path)
    for entry in files.ls(path, detail=True):
        name = entry["name"].removeprefix(below).rstrip("/")
        if name and "/" not in name and not (is_web and "?" in name):  # such as links that sort a page
            found.append((unquote(name) if is_web else name, entry.get("size"), entry.get("type") == "directory"))
    return found


def matching(pattern: str) -> list[str]:
    """Return the URLs that a pattern with wildcards names, sorted; else raise as `read_file`."""
    return _tried(pattern, lambda files, path: sorted(map(files.unstrip_protocol, files.glob(path))))


class RemoteFolder:
    """The files below a URL, whose file system stays open: the directory of a zip file is read once.

    Args:
        url: of a folder; with `::`, of one inside of another file, as fsspec chains them.
    """

    def __init__(self, url: str) -> None:
        self._url, self.is_web = url, _HTTP.match(url) is not None
        self._opened: dict[int, tuple[Any, str]] = {}

    def entries(self, name: str) -> list[tuple[str, int | None, bool]]:
        """Return what lies in a folder below this one, as the function of this name does."""
        return self._tried(name, _entries)

    def size(self, name: str) -> int:
        """Return the size of a file; else raise as `read_file`."""
        size = self._tried(name, lambda files, path: files.info(path).get("size"))
        if not isinstance(size, int):
            raise OSError(errno.EIO, "its server does not tell its size")
        return size

    def copy(self, name: str, size: int, target: BinaryIO) -> str:
        """Write a file of a known size into an empty one, and return its SHA-256; else raise as `read_file`.

        Raises:
            OSError: also where it has more bytes, or fewer.
        """

        def look(files: Any, path: str) -> str:
            target.seek(0)
            target.truncate()
            digest, left = hashlib.sha256(), size
            with files.open(path, "rb", **({"block_size": 0, "size": 1} if self.is_web else {})) as source:
                while block := source.read(min(_PIECE_BYTES, left + 1)):
                    if (left := left - len(block)) < 0:
                        raise OSError(errno.EIO, f"has more than the {size} bytes that were told")
                    digest.update(block)
                    target.write(block)
            if left:
                raise OSError(errno.EIO, f"has {size - left} bytes, told were {size}")
            return digest.hexdigest()

        return self._tried(name, look)

    def _tried(self, name: str, call: Callable[[Any, str], T]) -> T:
        return _tried(self._url, lambda files, path: call(files, self._at(path, name)), self._open)

    def _open(self, url: str) -> tuple[Any, str]:
        if (process := os.getpid()) not in self._opened:
            self._opened[process] = _file_system(url)
        return self._opened[process]

    def _at(self, path: str, name: str) -> str:
        head, mark, query = path.partition("?") if self.is_web else (path, "", "")
        parts = (head.rstrip("/"), quote(name) if self.is_web else name)
        return "/".join(filter(None, parts)) + mark + query


def _tried(url: str, call: Callable[[Any, str], T], connect: Callable[[str], tuple[Any, str]] | None = None) -> T:
    waits = iter(_WAITS_S)
    while True:
        try:
            # each process and thread has file systems of its own, which fsspec sees to
            return call(*(connect or _file_system)(url))
        except (BatchcamError, MemoryError):
            raise
        except Exception as error:  # fsspec's packages raise their own
            if fault := passing_fault(error):
                if (wait := next(waits, None)) is None:
                    raise fault from error
            else:
                raise _lasting(error) from error
        time.sleep(wait)


def _file_system(url: str) -> tuple[Any, str]:
    scheme = url.partition(":")[0]
    try:
        fsspec = importlib.import_module("fsspec")
        files, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        told = "pip install 'batchcam[remote]'" if error.name == "fsspec" else describe(error)
        raise BatchcamError(f"{scheme}:// needs a package that is not installed: {told}") from error
    except ValueError as error:
        told = _NO_RANGES if "range requests" in str(error) else describe(error)
        raise BatchcamError(f"{without_secrets(url.removeprefix('zip://::'))}: {told}") from error
    return files, path


def _lasting(error: Exception) -> OSError:
    """Return an error that another try does not change as one of the system's."""
    answer = http_status(error)
    if isinstance(error, FileNotFoundError) or answer in (404, 410):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if isinstance(error, PermissionError) or answer in (401, 403):
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    told = error.strerror if isinstance(error, OSError) else None
    return OSError(errno.EIO, without_secrets(told or describe(error)))
