"""Faults that say nothing about a sample: of the storage, the network or this process. A rerun may read it."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from typing import Any, Final

from batchcam.errors import StoppedEarlyError
from batchcam.images.decoding import describe

_OUT_OF_RESOURCES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_SERVER_GONE: Final = {errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH}
_NETWORK_GONE: Final = {
    *(errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ESHUTDOWN),
    *(errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH),
}
_SYSTEM: Final = frozenset(_OUT_OF_RESOURCES | _SERVER_GONE | _NETWORK_GONE)
"""System errors that are not a file's: no memory or descriptor left, the file server or network does not answer."""

_PASSING_STATUS: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Answers of HTTP that another try may change; others, such as 404, are about what was asked for."""

_NAMES: Final = re.compile(
    "ClientPayload|Connect(ion|or|Error|Timeout)|Timeout|TimedOut|Network|Unreachable|Unavailable|Disconnect|Throttl|TooManyRequests|"
    "SlowDown|SSLError|MaxRetry|Chunked|IncompleteRead|ProtocolError|NameResolution|URLError|OperationalError|BadRslot|ReadersFull"
)
"""In names of error classes of the packages that fetch images: requests, urllib3, aiohttp, httpx, botocore, lmdb, …"""

_FORK: Final = re.compile(r"fork[- ]?safe|forked (sub)?process|\b(after|before|since) (a |the )?(os\.)?fork\b", re.I)

_DEEPEST: Final = 8


class PassingFaultError(StoppedEarlyError):
    """A fault that says nothing about the sample that was to be read."""


def passing_fault(error: BaseException) -> PassingFaultError | None:
    """Return what to raise because of a fault that is not the sample's; None: it may be the sample's."""
    for each in _chain(error):
        told = f"{type(each).__name__}: {describe(each)}"
        if _FORK.search(str(each)):
            return PassingFaultError(
                f"{told}: the dataset was opened before its loader processes were forked: open files and connections "
                "when the first item is asked for, or say --start-method spawn, or --workers 0"
            )
        if _is_passing(each):
            return PassingFaultError(f"{told}: not the image's fault; run the same command again")
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from: packages wrap one in another."""
    current: BaseException | None = error
    for _ in range(_DEEPEST):
        if current is None:
            return
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _is_passing(error: BaseException) -> bool:
    if (status := http_status(error)) is not None:
        return status in _PASSING_STATUS
    if isinstance(error, (ConnectionError, TimeoutError, HTTPException, socket.gaierror, ssl.SSLError)):
        return True
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        return True
    return any(_NAMES.search(kind.__name__) for kind in type(error).__mro__)


def http_status(error: BaseException) -> int | None:
    """Return the status of an answer that an error of any package tells of, None where it tells of none."""
    values: Iterable[Any]
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        response = response.get("ResponseMetadata", {})
        values = [response.get("HTTPStatusCode")] if isinstance(response, dict) else []
    else:
        names = ("status", "status_code", "code")  # aiohttp warns of whoever looks at its second name
        values = (getattr(of, name, None) for of in (error, response) for name in names)
    return next((value for value in values if isinstance(value, int) and 400 <= value < 600), None)
