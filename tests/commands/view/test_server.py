"""The server against those who should get nothing: no attack is answered, and none ends in an error of the server's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")

from batchcam.commands.view.desk import Desk
from batchcam.commands.view.table import read_table
from batchcam.pictures.originals import open_originals
from batchcam.record.verdicts import read_verdicts
from batchcam.rules import VERDICTS
from batchcam.store.opening import open_run
from tests.commands.view.conftest import IDS
from tests.helpers.outputs import snapshot, strict_json
from tests.helpers.synthetic import ALL_NEGATIVE, CONSTANT, NON_FINITE, UNREADABLE
from tests.helpers.visitors import TOKEN, Answer, Visitor, served, told

Ask = Callable[[Visitor], Answer]
FINE = VERDICTS[0]


@pytest.fixture(scope="module")
def desk(hostile: Path, open_desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    made: Desk = open_desk(hostile, verdicts=tmp_path_factory.mktemp("view") / "verdicts.csv")
    return made


@pytest.fixture(scope="module")
def port(desk: Desk) -> Iterator[int]:
    with served(desk) as port:
        yield port


@pytest.fixture
def stranger(port: int) -> Visitor:
    """Who does not have the token."""
    return Visitor(port)


@pytest.fixture
def known(port: int) -> Visitor:
    """Who opened the page with its token."""
    visitor = Visitor(port)
    assert visitor.enter().status == 200
    return visitor


BY_STRANGERS: dict[str, Ask] = {
    "no token": lambda c: c.ask("/"),
    "wrong token": lambda c: c.ask("/?token=guess"),
    "empty token": lambda c: c.ask("/?token="),
    "token in another script": lambda c: c.ask("/?token=тайна"),
    "token where it does not count": lambda c: c.ask(f"/rows?token={TOKEN}"),
    "token as a header": lambda c: c.ask("/rows", authorization=f"Bearer {TOKEN}"),
    "a cookie of a guessed name": lambda c: c.ask("/rows", cookie=f"batchcam-00000000={TOKEN}"),
    "a picture without a token": lambda c: c.ask("/picture?row=0"),
    "a script without a token": lambda c: c.ask("/view.js"),
    "a verdict without a token": lambda c: c.judge(told(FINE)),
}

BY_OTHER_PAGES: dict[str, Ask] = {
    "another host": lambda c: c.ask("/rows", host="evil.example"),
    "a name that leads here": lambda c: c.ask("/rows", host="127.0.0.1.evil.example"),
    "DNS rebinding with the port": lambda c: c.ask("/rows", host="evil.example:8000"),
    "a host with a user": lambda c: c.ask("/rows", host="127.0.0.1@evil.example"),
    "a host that is no host": lambda c: c.ask("/rows", host="[::1"),
    "an empty host": lambda c: c.ask("/rows", host=""),
    "another origin": lambda c: c.ask("/rows", origin="http://evil.example"),
    "no origin of a sandbox": lambda c: c.ask("/rows", origin="null"),
    "another port's origin": lambda c: c.judge(told(FINE), origin="http://127.0.0.1:9"),
    "a picture on another site": lambda c: c.ask("/picture?row=0", sec_fetch_site="cross-site"),
    "a script on a sibling site": lambda c: c.ask("/view.js", sec_fetch_site="same-site"),
    "a form of another site": lambda c: c.ask("/verdict", "POST", b"row=0", origin="http://evil.example"),
}

MALFORMED: dict[str, Ask] = {
    "path traversal": lambda c: c.ask("/../../etc/passwd"),
    "encoded path traversal": lambda c: c.ask("/%2e%2e/%2e%2e/etc/passwd"),
    "traversal below the page": lambda c: c.ask("/page/..%2f..%2fdesk.py"),
    "an id that is a path": lambda c: c.about("/sample", id="/etc/shadow"),
    "PUT": lambda c: c.ask("/rows", "PUT"),
    "DELETE": lambda c: c.ask("/sample?row=0", "DELETE"),
    "POST to a question": lambda c: c.ask("/rows", "POST", b"x"),
    "an unknown column": lambda c: c.ask("/rows?evil=1"),
    "an attribute as a column": lambda c: c.ask("/rows?__class__=1"),
    "an order by nothing": lambda c: c.ask("/rows?sort=evil"),
    "a row beyond the run": lambda c: c.ask("/sample?row=999"),
    "a negative row": lambda c: c.ask("/picture?row=-1"),
    "a row of many digits": lambda c: c.ask("/picture?row=" + "9" * 5000),
    "a row in other digits": lambda c: c.ask("/picture?row=٣"),
    "no row": lambda c: c.ask("/sample"),
    "too many rows": lambda c: c.ask("/rows?count=100000000"),
    "a first row beyond the run": lambda c: c.ask("/rows?first=1e9"),
    "a range that is none": lambda c: c.ask("/rows?confidence=nan..inf"),
    "a huge query": lambda c: c.ask("/rows?q=" + "a" * 9000),
    "something asked twice": lambda c: c.ask("/rows?q=a&q=b"),
    "bytes that are no text": lambda c: c.ask("/sample?id=%ff%fe%00"),
    "a class that is none": lambda c: c.ask("/picture?row=0&class=evil"),
    "a palette that is none": lambda c: c.ask("/picture?row=0&palette=../jet"),
    "an older run that is none": lambda c: c.ask("/picture?row=0&of=old"),
    "an option that is none": lambda c: c.ask("/picture?row=0&path=/etc/passwd"),
    "a verdict in another form": lambda c: c.ask(
        "/verdict", "POST", b"row=0", content_type="application/x-www-form-urlencoded"
    ),
    "a verdict that is no JSON": lambda c: c.judge(b"{"),
    "a verdict nested a thousandfold": lambda c: c.judge(b"[" * 9000),
    "a verdict that is a list": lambda c: c.judge([1]),
    "a verdict with more in it": lambda c: c.judge({**told(FINE), "path": "/x"}),
    "a verdict in other words": lambda c: c.judge(told("fine")),
    "a verdict that is a list of words": lambda c: c.judge({**told(FINE), "verdict": ["fine"]}),
    "a verdict on no row": lambda c: c.judge(told(FINE, 1.5)),
    "half a character": lambda c: c.judge(told(FINE, "\ud800")),
    "a verdict of a novel": lambda c: c.judge(told(FINE, 0, "x" * 3000)),
    "a verdict longer than a verdict is": lambda c: c.judge(b"x" * 2**16),
}


def require_refused(answer: Answer) -> None:
    assert 400 <= answer.status < 500, answer.text
    assert "root:" not in answer.text
    assert "import" not in answer.text
    assert not set(answer.text) & {"<", "\n"}
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("ask", BY_STRANGERS.values(), ids=BY_STRANGERS)
def test_who_lacks_the_token_gets_nothing(ask: Ask, stranger: Visitor) -> None:
    answer = ask(stranger)
    require_refused(answer)
    assert answer.status == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("ask", BY_OTHER_PAGES.values(), ids=BY_OTHER_PAGES)
def test_other_sites_get_nothing_although_the_browser_has_the_cookie(ask: Ask, known: Visitor) -> None:
    answer = ask(known)
    require_refused(answer)
    assert answer.status in (400, 403)


@pytest.mark.parametrize("ask", MALFORMED.values(), ids=MALFORMED)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    ask: Ask, known: Visitor, desk: Desk, hostile: Path
) -> None:
    before, written = snapshot(hostile), desk.book.written if desk.book else 0
    require_refused(ask(known))
    assert snapshot(hostile) == before
    assert desk.book is not None
    assert desk.book.written == written


def test_every_answer_is_sealed(known: Visitor) -> None:
    for path in ("/", "/view.js", "/view.css", "/about", "/rows", "/sample?row=1", "/picture?row=1", "/favicon.ico"):
        answer = known.ask(path)
        assert answer.status in (200, 204), answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers


def test_the_cookie_is_for_this_page_alone(stranger: Visitor) -> None:
    given = stranger.enter().headers["set-cookie"]
    assert "HttpOnly" in given
    assert "SameSite=Strict" in given
    again = stranger.ask("/")
    assert again.status == 200
    assert "set-cookie" not in again.headers


def test_a_tunnel_may_have_another_port(known: Visitor) -> None:
    assert known.ask("/rows", host="localhost:9999", origin="http://localhost:9999").status == 200


def test_hostile_ids_are_found_by_themselves_and_come_back_as_they_are(known: Visitor) -> None:
    page = strict_json(known.ask("/rows").text)
    assert page["ids"] == list(IDS)
    for row, sample_id in enumerate(IDS):
        answer = known.about("/sample", id=sample_id)
        said = strict_json(answer.text)
        assert (said["row"], said["id"]) == (row, sample_id)
        assert known.ask(f"/picture?row={row}").content[:3] == b"\xff\xd8\xff"
        assert answer.text.isascii()


def test_every_kind_of_picture_of_every_kind_of_sample_is_drawn(known: Visitor) -> None:
    name = '"quoted" onclick="x"'
    kinds = ({"kind": "original"}, {"kind": "signed", "size": "large"}, {"cells": "1", "palette": "jet"})
    for row in map(str, (0, UNREADABLE, NON_FINITE, CONSTANT, ALL_NEGATIVE)):
        for asked in (*kinds, {"minus": name}, {"class": name}):
            assert known.about("/picture", row=row, **asked).status == 200, (row, asked)


def test_a_run_that_is_gone_is_told_and_no_error_of_the_server(hostile: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(hostile, tmp_path / "run"))
    with open_run(run) as opened:
        with Desk(opened, read_table(opened, True), open_originals(opened, None), None, None) as desk:
            desk.measuring.join()
        opened.close()
        for shard in (run / "shards").glob("*.h5"):
            shard.write_bytes(b"")
        with served(desk) as port:
            visitor = Visitor(port)
            visitor.enter()
            answer = visitor.ask("/picture?row=0")
    require_refused(answer)
    assert answer.status == 409


def test_verdicts_are_added_to_the_file_and_the_last_one_counts(hostile: Path, open_desk, tmp_path: Path) -> None:
    said = [(0, VERDICTS[0], "=cmd|' /C calc'!A0"), (1, VERDICTS[1], "line\nbreak\ud800"), (0, VERDICTS[2], "")]
    with served(open_desk(hostile, verdicts=tmp_path / "verdicts.csv")) as port:
        known = Visitor(port)
        known.enter()
        for row, word, comment in said:
            answer = strict_json(known.judge(told(word, row, comment)).text)
            assert (answer["verdict"], answer["comment"], answer["reviewer"]) == (word, comment, "ann")
        assert strict_json(known.about("/rows", verdict=VERDICTS[2]).text)["ids"] == [IDS[0]]
        assert strict_json(known.ask("/sample?row=1").text)["said"]["verdict"] == VERDICTS[1]
    written = list(read_verdicts(tmp_path / "verdicts.csv", VERDICTS))
    assert [(IDS.index(v.sample_id), v.verdict, v.comment) for v in written] == said
