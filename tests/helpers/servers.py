"""Servers of files for tests: one of the web that knows ranges and fails when told to, and where URLs lead to."""

from __future__ import annotations

import contextlib
import functools
import http.server
import itertools
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DROPPED = 0
"""Stands for an answer that never comes: the connection is closed."""


_numbers = itertools.count()
"""Of buckets: all servers of a process hold the same."""


class WebServer(http.server.ThreadingHTTPServer):
    """Files of a folder.

    Attributes:
        faults: what the next requests of files are answered, a status or DROPPED, first to last.
        asked: path and range of each request so far.
        knows_ranges: whether it gives parts of a file.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        self.faults: list[int] = []
        self.asked: list[tuple[str, str | None]] = []
        self.knows_ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: WebServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append((self.path, wanted))
        file = Path(self.translate_path(self.path))
        if self.server.faults:
            if (status := self.server.faults.pop(0)) == DROPPED:
                self.close_connection = True
            else:
                self.send_error(status)
        elif wanted and self.server.knows_ranges and file.is_file():
            content = file.read_bytes()
            first, last = re.fullmatch("bytes=([0-9]+)-([0-9]*)", wanted).groups()
            part = content[int(first) : int(last) + 1 if last else None]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)
        else:
            super().do_GET()

    def log_message(self, *words: object) -> None:
        pass


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[WebServer]:
    """Serve a folder; skip the test where fsspec can't ask for its files."""
    pytest.importorskip("aiohttp")
    with WebServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def in_memory(folder: Path) -> Iterator[Callable[[], str]]:
    files = pytest.importorskip("fsspec").filesystem("memory")

    def put() -> str:
        files.put(f"{folder}/", "memory://shelf/", recursive=True)
        return "memory://shelf"

    yield put
    files.rm("/", recursive=True)


@contextlib.contextmanager
def on_the_web(folder: Path) -> Iterator[Callable[[], str]]:
    with web_server(folder) as server:
        yield lambda: server.url


@contextlib.contextmanager
def in_a_bucket(folder: Path) -> Iterator[Callable[[], str]]:
    s3fs = pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    files = pytest.importorskip("fsspec").filesystem
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "x")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))

        def put() -> str:
            store = files("s3")
            store.mkdir(name := f"bucket-{next(_numbers)}")
            store.put(f"{folder}/", f"s3://{name}/shelf/", recursive=True)
            return f"s3://{name}/shelf"

        yield put
    s3fs.S3FileSystem.clear_instance_cache()  # they know this server only
    server.stop()


SHELVES = (in_memory, on_the_web, in_a_bucket)
"""Each puts the files of a folder where URLs lead to, when it is told to; the call returns the folder's URL."""
