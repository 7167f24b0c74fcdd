"""Reports as their readers have them: written, taken apart into tables and pictures, and opened in a browser."""

from __future__ import annotations

import binascii
import html
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from batchcam.commands.report.config import ReportConfig
from batchcam.commands.report.report import ReportSummary, report
from tests.helpers.wellformed import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

HOSTILE_IDS = [
    "<script>document.title='owned'</script>.png",
    '"><img src=x onerror=alert(1)>.png',
    "../../../etc/passwd",
    "/etc/passwd",
    "a\u202egnp.exe",
    "line\nbreak\x1b[2Jand\x07bell.png",
    "x" * 900 + ".png",
    "שלום/תמונה.png",
]


PROBE = """<script>
addEventListener("load", () => {
  const images = [...document.images];
  const found = {
    images: images.length,
    broken: images.filter(i => !(i.complete && i.naturalWidth > 0)).length,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    background: getComputedStyle(document.body).backgroundColor,
    reachable: document.querySelectorAll("a[href], summary, [tabindex='0']").length,
    first: document.querySelector("a[href]").textContent,
    first_picture_ends: images.length ? images[0].getBoundingClientRect().bottom : null,
  };
  document.body.textContent = "probe:" + JSON.stringify(found) + ":probe";
});
</script>"""
"""What the page can't say of itself, since it runs no script; stands in a copy for the test, without the policy."""


def write(run: Path, out: Path, **options: Any) -> tuple[ReportSummary, str]:
    """Write a report; return its summary and its text."""
    summary = report(ReportConfig(run, out, quiet=True, **options))
    assert isinstance(summary, ReportSummary)
    return summary, out.read_text(encoding="utf-8")


def table_of(source: str, caption: str) -> list[list[str]]:
    """The cells of the table with a caption that starts like this, as text."""
    (table,) = (t for t in re.findall(r"<table.*?</table>", source, re.S) if f"<caption>{caption}" in t)
    rows = re.findall(r"<tr>.*?</tr>", table, re.S)
    return [[Page(c).text for c in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)] for row in rows]


def decoded(base64: str) -> np.ndarray:
    """The pixels of a picture, RGB."""
    return cv2.imdecode(np.frombuffer(binascii.a2b_base64(base64), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def browse(page: Path, *options: str, height: int = 1200, width: int = 1280) -> subprocess.CompletedProcess[str]:
    profile = page.parent / f"profile-{time.monotonic_ns()}"
    return subprocess.run(
        [
            str(CHROMIUM),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
            *("--disable-dev-shm-usage", f"--user-data-dir={profile}", f"--window-size={width},{height}", *options),
            page.absolute().as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the browser had to say about a page."""
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def probe(source: str, folder: Path, *options: str, width: int = 1280) -> dict[str, Any]:
    """What a browser finds in a page, by PROBE."""
    copy = folder / "probe.html"
    unlocked = re.sub(r"<meta http-equiv[^>]*>", "", source).replace("</body>", PROBE + "</body>")
    copy.write_text(unlocked, encoding="utf-8")
    done = browse(copy, "--dump-dom", *options, width=width)
    (found,) = re.findall(r"probe:(\{.*?\}):probe", html.unescape(done.stdout))
    return dict(json.loads(found))
