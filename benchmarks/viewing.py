"""Benchmark of the page: `python -m benchmarks.viewing FOLDER` prints what a run of a million samples costs to look at.

FOLDER takes 300 MB. Times are of whole answers over HTTP, the median of five; memory is the server's peak.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from benchmarks.big_runs import sound_run

SAMPLES = 1_000_000
NEW = "rows?count=100&identity_residual=..{n}"
"""All samples, by a filter that nobody has asked for."""

QUESTIONS = {
    "a page of all": NEW,
    "one class": NEW + "&prediction=for",
    "a range of evidence": NEW + "&margin=0.{n}..",
    "search by id": NEW + "&q=00{n}",
    "search that all ids fit": NEW + "&q=image",
    "mistakes, ordered by a column for the first time": NEW + "&outcome=wrong&sort={column}",
    "mistakes, in an order that was asked for before": NEW + "&outcome=wrong&sort=-confidence",
    "one sample": "sample?row={n}",
    "one picture": "picture?row={n}&size=large",
}
COLUMNS = ("entropy", "margin", "loss", "-margin", "-loss")


def served(run: Path, *options: str) -> tuple[subprocess.Popen[str], str, str]:
    """Start the page of a run; return its process, its address and its cookie."""
    words = [sys.executable, "-m", "batchcam", "view", str(run), "--quiet", *options]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"open (http://[^/]+/)(\S+)", line):
            with urllib.request.urlopen(found[1] + found[2].partition("#")[0]) as page:
                return process, found[1], page.headers["set-cookie"].partition(";")[0]
    raise RuntimeError(f"view ended with {process.wait()}")


def ask(base: str, cookie: str, question: str) -> bytes:
    """Return what the server answers."""
    request = urllib.request.Request(base + question, headers={"cookie": cookie})
    with urllib.request.urlopen(request) as answer:
        return bytes(answer.read())


def peak_mb(process: subprocess.Popen[str]) -> float:
    """Return the most memory that a process has held, as Linux tells it."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    run = parser.parse_args().folder / "million"
    if not run.exists():
        sound_run(run, SAMPLES, 50_000)
    start = time.monotonic()
    process, base, cookie = served(run)
    print(f"| what | ms |\n|---|---|\n| start | {1000 * (time.monotonic() - start):,.0f} |")
    start = time.monotonic()
    ask(base, cookie, "about")
    ask(base, cookie, "rows?count=100")
    print(f"| first page, evidence still being read | {1000 * (time.monotonic() - start):,.0f} |")
    while json.loads(ask(base, cookie, "about"))["measured"] < 1:
        time.sleep(0.2)
    print(f"| until all evidence is read | {1000 * (time.monotonic() - start):,.0f} |")
    for name, question in QUESTIONS.items():
        took = []
        for n, column in enumerate(COLUMNS, 11):
            start = time.monotonic()
            ask(base, cookie, question.format(n=n, column=column))
            took.append(time.monotonic() - start)
        print(f"| {name} | {1000 * statistics.median(took):,.0f} |")
    print(f"\npeak {peak_mb(process):,.0f} MB")
    process.send_signal(signal.SIGINT)
    process.wait()


if __name__ == "__main__":
    main()
