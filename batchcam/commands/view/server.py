"""The page and its answers over HTTP, on this machine alone, to those who know the token."""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import secrets
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchcam.commands.view.columns import QueryError
from batchcam.commands.view.desk import Desk
from batchcam.errors import BatchcamError
from batchcam.job.stop import reason_to_stop
from batchcam.pictures.stylesheet import STYLE

HOSTS: Final = ("127.0.0.1", "localhost")
"""Names by which a browser may call this machine; a tunnel may have another port."""

HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}

MOST_BODY_BYTES: Final = 2**14
LONGEST_QUERY: Final = 2**13
MOST_AT_ONCE: Final = 100


def application(desk: Desk, token: str) -> ASGIApp:
    """Return the page and its answers for who knows the token."""
    assets = importlib.resources.files(__package__) / "page"
    page, script, style = ((assets / name).read_text("utf-8") for name in ("view.html", "view.js", "view.css"))

    def fixed(text: str, media_type: str) -> Callable[[Request], Response]:
        return lambda request: Response(text, media_type=media_type)

    def answer(asked: Callable[[dict[str, str]], Any]) -> Callable[[Request], Response]:
        return lambda request: _json(asked(_query(request)))

    def picture(request: Request) -> Response:
        return Response(desk.picture(_query(request)), media_type="image/jpeg")

    async def judge(request: Request) -> Response:
        if request.headers.get("content-type") != "application/json":
            raise HTTPException(415, "a verdict comes as application/json")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MOST_BODY_BYTES:
                raise HTTPException(413, "too long for a verdict")
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            raise QueryError("a verdict comes as JSON") from None
        return _json(desk.judge(told))

    routes = [
        Route("/", fixed(page, "text/html")),
        Route("/view.js", fixed(script, "text/javascript")),
        Route("/view.css", fixed(STYLE + style, "text/css")),
        Route("/favicon.ico", lambda request: Response(status_code=204)),
        Route("/about", answer(desk.about)),
        Route("/rows", answer(desk.rows)),
        Route("/sample", answer(desk.sample)),
        Route("/picture", picture),
        Route("/verdict", judge, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {QueryError: _refused(400), BatchcamError: _refused(409), HTTPException: _failed}
    return _Guard(Starlette(routes=routes, exception_handlers=handlers), token)


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Answer on a socket until the process is asked to stop."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_level="critical",
        proxy_headers=False,  # whoever asks can write them
        server_header=False,
        limit_concurrency=MOST_AT_ONCE,
        timeout_graceful_shutdown=1,
    )
    _Server(config).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Stops when the process is to stop, whose signals `Stop` hears."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or reason_to_stop() is not None


class _Guard:
    """Lets in who calls this machine by its name, from its own page, with the token, or the cookie that it gave.

    A token in the address is answered with a cookie; the page then takes the token out of its address.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token
        self._cookie = f"batchcam-{secrets.token_hex(4)}"  # cookies know no ports: each server has its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
                if gives_cookie:
                    cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
                    MutableHeaders(scope=message).append("set-cookie", cookie)
            await send(message)

        gives_cookie = False
        if scope["type"] != "http":
            return
        request = Request(scope)
        if refusal := self._refusal(request):
            await _text(refusal, 403)(scope, receive, sealed)
            return
        gives_cookie = request.url.path == "/" and "token" in request.query_params
        await self._app(scope, receive, sealed)

    def _refusal(self, request: Request) -> str:
        hosts, origin = request.headers.getlist("host"), request.headers.get("origin")
        if len(hosts) != 1 or not _is_here(hosts[0]):
            return "this page is for the browsers of this machine: call it 127.0.0.1"
        if origin is not None and origin != f"http://{hosts[0]}":
            return "another site's page asks"
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and request.url.path != "/":
            return "another site's page asks"
        told = [request.cookies.get(self._cookie, "")]
        told += request.query_params.getlist("token") if request.url.path == "/" else []
        known = [secrets.compare_digest(each.encode("utf-8", "replace"), self._token.encode()) for each in told]
        return "" if any(known) else "open the whole address that batchcam view printed, its token included"


def _is_here(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in HOSTS and "@" not in host
    except ValueError:
        return False


def _query(request: Request) -> dict[str, str]:
    if len(request.url.query) > LONGEST_QUERY:
        raise HTTPException(414, "too much is asked at once")
    pairs = request.query_params.multi_items()
    if len({name for name, _ in pairs}) < len(pairs):
        raise QueryError("something is asked twice")
    return dict(pairs)


def _json(content: Any) -> Response:
    # ASCII: a text may hold half of a character
    return Response(json.dumps(content, allow_nan=False), media_type="application/json")


def _text(text: str, status: int) -> Response:
    return Response(text.encode("utf-8", "backslashreplace"), status, media_type="text/plain")


def _refused(status: int) -> Callable[[Request, Exception], Response]:
    return lambda request, error: _text(str(error), status)


def _failed(request: Request, error: HTTPException) -> Response:
    return _text(error.detail, error.status_code)
