"""Lines of a log: whole, in their order, each with its time or as an object."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest

from batchcam.job.log import LogLines, as_json

BATCHCAM = (sys.executable, "-m", "batchcam")


TIMES = {"BATCHCAM_NO_LOG_TIMES": "0"}


def told(*words: str, **environment: str) -> str:
    environment = os.environ | TIMES | environment
    return subprocess.run([*BATCHCAM, *words], capture_output=True, text=True, env=environment).stderr


def test_parts_of_lines_are_handed_on_when_their_line_ends() -> None:
    stream = io.StringIO()
    lines = LogLines(stream, lambda line: f"<{line}>")
    lines.write("a")
    assert stream.getvalue() == ""
    lines.write("b\n\nc\nd")
    assert stream.getvalue() == "<ab>\n<>\n<c>\n"
    lines.end()
    lines.end()
    assert stream.getvalue() == "<ab>\n<>\n<c>\n<d>\n"


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ("batchcam: error: x: gone", "error", "x: gone"),
        ("batchcam: 3 images", "info", "3 images"),
        ('other: "é"', "info", 'other: "é"'),
    ],
)
def test_an_object_tells_level_and_message(line: str, level: str, message: str) -> None:
    parsed = json.loads(as_json(line))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", parsed.pop("time"))
    assert parsed == {"level": level, "message": message}


def test_an_error_in_a_log_has_its_time() -> None:
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d batchcam: error: /gone: no such folder\n", told("info", "/gone")
    )


@pytest.mark.parametrize(
    ("words", "environment"), [(("--no-log-times",), {}), ((), {"JOURNAL_STREAM": "8:15"})], ids=["asked", "journald"]
)
def test_times_are_left_out_where_they_are_not_wanted(words: tuple[str, ...], environment: dict[str, str]) -> None:
    assert told("info", "/gone", *words, **environment) == "batchcam: error: /gone: no such folder\n"


@pytest.mark.parametrize("environment", [{}, {"BATCHCAM_LOG_JSON": "1"}])
def test_json_is_asked_for_by_option_or_variable(environment: dict[str, str]) -> None:
    words = ["info", "/gone", *([] if environment else ["--log-json"])]
    assert json.loads(told(*words, **environment))["message"] == "/gone: no such folder"


def test_a_traceback_is_an_object_a_line() -> None:
    lines = told("info", "/gone", "--debug", "--log-json").splitlines()
    assert len(lines) > 3
    assert all(json.loads(line)["level"] for line in lines)


def test_a_terminal_gets_plain_lines() -> None:
    master, slave = pty.openpty()
    subprocess.run([*BATCHCAM, "info", "/gone"], stderr=slave, env=os.environ | TIMES)
    os.close(slave)
    assert os.read(master, 1000) == b"batchcam: error: /gone: no such folder\r\n"
    os.close(master)


def test_a_variable_that_says_no_is_no() -> None:
    done = subprocess.run([*BATCHCAM, "info", "/gone"], capture_output=True, env=os.environ | {"BATCHCAM_JSON": "0"})
    assert done.stdout == b""
