"""Faults of storage, network and forks are told from those of a sample, whatever package raises them."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import ssl
import urllib.error
from email.message import Message

import pytest

from batchcam.images.passing_faults import passing_fault


class ReadTimeoutError(Exception):
    """As urllib3 names it."""


class EndpointConnectionError(Exception):
    """As botocore names it."""


class ServerDisconnectedError(Exception):
    """As aiohttp names it."""


class AnswerError(Exception):
    """An answer of a server, as one of several packages tells of it."""

    def __init__(self, **attributes: object) -> None:
        super().__init__("answer")
        self.__dict__.update(attributes)


class Response:
    """As requests and httpx keep one."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


def answers(code: int) -> list[Exception]:
    return [
        urllib.error.HTTPError("http://server/a.png", code, "answer", Message(), None),
        AnswerError(response=Response(code)),
        AnswerError(status=code),
        AnswerError(code=code),
        AnswerError(response={"ResponseMetadata": {"HTTPStatusCode": code}}),
    ]


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(n, os.strerror(n)) for n in (errno.ESTALE, errno.ENOTCONN, errno.ECONNRESET, errno.ENETUNREACH)),
        *(ConnectionRefusedError(), BrokenPipeError(), TimeoutError("timed out")),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        urllib.error.URLError("no route"),
        *(http.client.IncompleteRead(b""), http.client.RemoteDisconnected(), ssl.SSLError(1, "bad record mac")),
        *(ReadTimeoutError("read"), EndpointConnectionError("s3"), ServerDisconnectedError()),
        *(error for code in (408, 429, 500, 503) for error in answers(code)),
        caused(ValueError("can't fetch"), ConnectionResetError()),
    ],
    ids=repr,
)
def test_faults_of_storage_and_network_pass(error: Exception) -> None:
    fault = passing_fault(error)
    assert fault is not None
    assert fault.exit_code == 75
    assert "run the same command again" in str(fault)


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(n, os.strerror(n)) for n in (errno.ENOENT, errno.EACCES, errno.EIO, errno.EISDIR)),
        *(ValueError("bad pixel"), KeyError("a"), OSError("cannot identify image file")),
        *(FileNotFoundError(2, "gone", "forklift before forks.jpg"), RuntimeError("fork.jpg is torn")),
        *(error for code in (400, 403, 404, 410) for error in answers(code)),
    ],
    ids=repr,
)
def test_what_may_be_the_samples_fault_does_not(error: Exception) -> None:
    assert passing_fault(error) is None


@pytest.mark.parametrize(
    "words",
    [
        "This class is not fork-safe",
        "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, use the 'spawn' method",
        "client opened before fork",
        "can't be used after os.fork",
    ],
)
def test_a_dataset_that_was_opened_before_the_fork_is_told_what_to_do(words: str) -> None:
    assert "open files and connections when the first item is asked for" in str(passing_fault(RuntimeError(words)))
