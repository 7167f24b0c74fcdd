"""The page in a browser: by keyboard alone, by links, with hostile ids, beside an older run; and what axe says."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from batchcam.commands.merge import merge
from batchcam.commands.view.desk import Desk
from batchcam.record.verdicts import read_verdicts
from batchcam.rules import VERDICTS
from batchcam.store.opening import open_run
from tests.commands.view.conftest import IDS
from tests.helpers.browser import Browser, browser
from tests.helpers.report_pages import needs_chromium
from tests.helpers.synthetic import land_shards, synthetic_plan, synthetic_rows
from tests.helpers.visitors import TOKEN, served

pytestmark = needs_chromium

OpenDesk = Callable[..., Desk]

AXE = importlib.util.find_spec("axe_core_python")
LIST = "!document.getElementById('list').hidden && document.querySelector('.open')"
LARGE = "!document.getElementById('sample').hidden"
TITLE = "document.getElementById('sample-id').textContent"
TOTAL = "document.getElementById('total').textContent"
PICTURES = "[...document.querySelectorAll('.figures img')].every(each => each.complete && each.naturalWidth)"


@contextlib.contextmanager
def opened_by(desk: Desk) -> Iterator[str]:
    """Yield the address of the page over a desk, with its token."""
    with served(desk) as port:
        yield f"http://127.0.0.1:{port}/?token={TOKEN}"


@pytest.fixture(scope="module")
def address(run: Path, open_desk: OpenDesk) -> Iterator[str]:
    """Of the page over the run of 200 samples."""
    with opened_by(open_desk(run)) as address:
        yield address


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(chromium: Browser) -> Iterator[Browser]:
    """A browser that has nothing to complain of when the test is over, and has asked nobody else."""
    chromium.look(1280, 900)
    chromium.console.clear()
    chromium.asked.clear()
    yield chromium
    chromium.open("about:blank")  # before its server ends
    # lazy pictures may still be asked for when a test's own server has ended
    assert [line for line in chromium.console if "ERR_CONNECTION_REFUSED" not in line] == []
    assert {re.sub(r":\d+/.*", "", asked) for asked in chromium.asked if asked != "about:blank"} == {"http://127.0.0.1"}


def opened(page: Browser, address: str) -> None:
    page.open(address)
    page.wait("document.body.dataset.measured === '1' && page.query !== null")


def lead_to(page: Browser, **asked: str) -> None:
    page.value(f"location.hash = new URLSearchParams({json.dumps(asked)})")


def faults(page: Browser) -> list[Any]:
    """What axe finds that is serious or moderate."""
    assert AXE is not None
    assert AXE.origin is not None
    page.call("Runtime.evaluate", expression=(Path(AXE.origin).parent / "axe.min.js").read_text("utf-8"))
    told = page.value("axe.run(document).then(r => r.violations.map(v => [v.impact, v.id, v.nodes[0].html]))")
    return [fault for fault in told if fault[0] != "minor"]


def test_a_run_is_gone_through_by_keyboard_alone(run: Path, page: Browser, tmp_path: Path, open_desk: OpenDesk) -> None:
    with opened_by(open_desk(run, verdicts=tmp_path / "verdicts.csv")) as address:
        opened(page, address)
        assert page.value("location.search") == ""
        assert page.value(TOTAL) == "200 samples"
        page.press("/", *"0012")
        page.wait(f"{TOTAL} === '11 of 200 samples'")
        page.press("Enter")
        page.wait("document.activeElement.dataset.id")
        page.press("j", "j", "k", "Enter")
        page.wait(f"{LARGE} && {TITLE}.includes('00120')")
        page.wait(PICTURES)
        page.press("s")
        page.wait("location.hash.includes('kind=signed')")
        page.press("c")
        page.wait(f"location.hash.includes('cells=1') && {PICTURES}")
        page.press("e", *"why")
        page.press("Escape", "2")
        page.wait(f"{TITLE}.includes('00121')")
        page.press("j")
        page.wait(f"{TITLE}.includes('00122')")
        page.press("ArrowUp")
        page.wait(f"{TITLE}.includes('00121')")
        page.press("Escape")
        page.wait(f"{LIST} && document.activeElement.dataset.id?.includes('00121')")
        page.press("?")
        page.wait("document.getElementById('help').open")
        page.press("Escape")
        page.wait("!document.getElementById('help').open")
        page.press("x")
        page.wait(f"{TOTAL} === '200 samples'")
        page.press("n")
        page.wait("document.querySelector('#pages span').textContent.startsWith('101')")
        page.press("g")
        page.wait("document.querySelectorAll('.grid .open').length === 100")
    (said,) = read_verdicts(tmp_path / "verdicts.csv", VERDICTS)
    assert (said.sample_id, said.verdict, said.comment, said.reviewer) == (
        "蝶/фото 00120.png",
        VERDICTS[1],
        "why",
        "ann",
    )


def test_after_the_verdict_on_the_last_sample_comes_the_list(
    run: Path, page: Browser, tmp_path: Path, open_desk: OpenDesk
) -> None:
    with opened_by(open_desk(run, verdicts=tmp_path / "verdicts.csv")) as address:
        opened(page, f"{address}#q=0012")
        page.press("k", "Enter")
        page.wait(f"{LARGE} && {TITLE}.includes('00129')")
        page.press("1")
        page.wait(f"{LIST} && {TOTAL} === '11 of 200 samples'")


def test_a_link_leads_to_a_filter_in_its_order_and_to_a_sample(run: Path, page: Browser, address: str) -> None:
    with open_run(run) as samples:
        wrong = [s for s in samples if None not in (s.label, s.prediction) and s.label != s.prediction]
    called = max({s.prediction for s in wrong}, key=str)
    expected = sorted((s for s in wrong if s.prediction == called), key=lambda s: -s.confidence)
    opened(page, f"{address}#outcome=wrong&prediction={called}&sort=-confidence")
    page.wait(f"{TOTAL} === '{len(expected)} of 200 samples'")
    assert page.value("page.ids") == [s.id for s in expected][:100]
    lead_to(page, sample=expected[0].id)
    page.wait(f"{LARGE} && {TITLE} === {expected[0].id!r}")
    lead_to(page, confidence="0.5..0.9")
    page.wait(f"{LIST} && page.query.includes('confidence')")
    shown = page.value("page.columns.confidence")
    assert shown
    assert all(0.5 <= value <= 0.9 for value in shown)


def test_pictures_are_drawn_when_they_are_seen(page: Browser, address: str) -> None:
    opened(page, f"{address}#look=grid")
    page.wait("document.querySelector('.grid img').complete")
    page.value("new Promise(done => setTimeout(done, 500))")
    drawn = {asked for asked in page.asked if "picture" in asked}
    assert 0 < len(drawn) < 100


def test_hostile_ids_stay_text_in_the_list_and_large(hostile: Path, page: Browser, open_desk: OpenDesk) -> None:
    elements = "[document.scripts.length, document.querySelectorAll('bdi *, svg, iframe, object').length]"
    with opened_by(open_desk(hostile)) as address:
        opened(page, address)
        page.wait(LIST)
        assert page.value("[...document.querySelectorAll('.open')].map(each => each.dataset.id)") == list(IDS)
        assert page.value(elements) == [1, 0]
        for row, sample_id in enumerate(IDS):
            lead_to(page, sample=sample_id)
            page.wait(f"{LARGE} && sample.row === {row}")
            assert page.value(elements) == [1, 0]
            text = page.value(TITLE)
            assert text.isprintable()
            assert len(text) < 200
        assert "owned" not in page.value("document.title").split()


def test_an_older_run_is_seen_beside_the_newer_one(
    run: Path, page: Browser, tmp_path: Path, open_desk: OpenDesk
) -> None:
    plan = synthetic_plan(sample_count=200, shard_size=64, checkpoint_sha256="e" * 64)
    rows, inputs = synthetic_rows(plan, 1), synthetic_rows(plan, 0).columns
    rows.columns.update({name: inputs[name] for name in ("label", "input_sha256")})
    land_shards(tmp_path / "old", plan, rows)
    merge(tmp_path / "old")
    with open_run(run) as new, open_run(tmp_path / "old") as old:
        both = [(n, o) for n, o in zip(new, old, strict=True) if None not in (n.prediction, o.prediction)]
    fixed = [n.id for n, o in both if n.label is not None and n.prediction == n.label == o.label != o.prediction]
    with opened_by(open_desk(run, against=tmp_path / "old")) as address:
        opened(page, address + "#flip=fixed&sort=spearman")
        page.wait("page.columns.flip")
        assert sorted(page.value("page.ids")) == sorted(fixed)
        similar = page.value("page.columns.spearman")
        assert similar == sorted(similar)
        page.press("j", "Enter")
        page.wait(f"{LARGE} && document.querySelectorAll('.figures img').length === 3 && {PICTURES}")


@pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed")
@pytest.mark.parametrize(
    ("width", "scheme"),
    [(1280, "light"), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((1280, "dark"), (390, "light")))],
)
def test_axe_finds_nothing_serious_or_moderate(width: int, scheme: str, page: Browser, address: str) -> None:
    page.look(width, 900, scheme)
    opened(page, address)
    places = (
        ({}, LIST),
        ({"look": "grid"}, "document.querySelector('.grid')"),
        ({"sample": "蝶/фото 00001.png"}, LARGE),
    )
    for asked, shown in places:
        lead_to(page, **asked)
        page.wait(f"{shown} && ![...document.images].some(each => each.loading !== 'lazy' && !each.complete)")
        assert faults(page) == []
        assert page.value("document.documentElement.scrollWidth") <= width
    page.press("?")
    assert faults(page) == []


def test_the_page_prints_without_its_buttons(page: Browser, address: str) -> None:
    opened(page, address)
    lead_to(page, sample="蝶/фото 00001.png")
    page.wait(f"{LARGE} && {PICTURES}")
    page.look(800, 1000, media="print")
    hidden = "['filters', 'back'].every(id => !document.getElementById(id).checkVisibility())"
    assert page.value(f"{hidden} && document.querySelector('.figures img').checkVisibility()")


def test_a_browser_without_the_token_is_told_what_to_open(page: Browser, address: str) -> None:
    page.call("Network.clearBrowserCookies")
    page.open(address.partition("?")[0])
    page.wait("document.body.textContent.includes('open the whole address')")
    page.console.clear()  # it tells of the 403
