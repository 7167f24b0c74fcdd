"""Who visits the page of `batchcam view`: its server in a thread, and clients that may be no browsers."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from batchcam.commands.view.desk import Desk

TOKEN = "t0ken-" * 5


@contextlib.contextmanager
def served(desk: Desk) -> Iterator[int]:
    """Answer for a desk in a thread, and yield the port."""
    import uvicorn

    from batchcam.commands.view.server import application

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(
            uvicorn.Config(application(desk, TOKEN), http="h11", lifespan="off", ws="none", log_level="critical")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


class Answer:
    """What came back."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.content = response.status, response.headers, response.read()

    @property
    def text(self) -> str:
        return self.content.decode("utf-8")


class Visitor:
    """Keeps the cookie that it is given, as a browser does, and says whatever it wants."""

    def __init__(self, port: int) -> None:
        self._port, self._cookie = port, ""

    def enter(self) -> Answer:
        """Open the page with its token."""
        answer = self.ask(f"/?token={TOKEN}")
        self._cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """Send a request; `sec_fetch_site` is a header's name, others stand as they are."""
        said = {"host": f"127.0.0.1:{self._port}", "cookie": self._cookie}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(method, quote(path, safe="/?&=%+"), skip_host=True)
            for name, value in (*said.items(), *([("content-length", str(len(body)))] if body is not None else [])):
                connection.putheader(name, value)
            connection.endheaders(body)
            return Answer(connection.getresponse())

    def about(self, path: str, **asked: str) -> Answer:
        """Ask a question."""
        return self.ask(f"{path}?{urlencode(asked)}")

    def judge(self, said: Any, **headers: str) -> Answer:
        """Tell a verdict."""
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        return self.ask("/verdict", "POST", body, **{"content_type": "application/json", **headers})


def told(verdict: str, row: Any = 0, comment: str = "") -> Mapping[str, Any]:
    """Return a verdict as the page tells it."""
    return {"row": row, "verdict": verdict, "comment": comment}
