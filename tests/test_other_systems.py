"""An auditor's commands do on Windows and macOS what they do on Linux, as far as Linux can show.

`helpers/other_systems/sitecustomize.py` takes away what these lack, in a command's process and in all that it starts.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.helpers.desk import Desk

NAMES = ("ant", "Käfer", "✓–×")
IDS = tuple(f"{name}/1.png" for name in NAMES)

COMMANDS = {
    "verify": ("verify", "run"),
    "info": ("info", "run"),
    "report": ("report", "run", "--out", "report.html"),
    "report --against": ("report", "run", "--against", "old", "--out", "both.html"),
    "render": ("render", "run", "--out", "sheet.png"),
    "compare": ("compare", "old", "run", "--out", "moved.h5"),
    "localize": ("localize", "run", "--annotations", "boxes.csv", "--out", "scores"),
    "trend": ("trend", "old", "run", "--out", "trends"),
    **{f"export {form}": ("export", "run", "--to", form, "--out", form) for form in ("csv", "png", "virelay", "wsol")},
}

CONFINED = "not confined on this system: files were read without limits on"

ALL = """
import json, sys
from batchcam.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as end:
        print("\\n%", json.dumps([words, end.code]))
"""


def called(folder: Path, system: str, *calls: tuple[str, ...], **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Call commands in a folder, on a console of code page 437."""
    harness = [] if system == "linux" else [str(ROOT / "tests/helpers/other_systems")]
    pretended = {} if system == "linux" else {"PRETENDED_SYSTEM": system}
    environment = {
        **os.environ,
        **pretended,
        **variables,
        "PYTHONPATH": os.pathsep.join([*harness, str(ROOT)]),
        "PYTHONIOENCODING": "cp437",
        "PYTHONWARNDEFAULTENCODING": "1",
    }
    words = [sys.executable, "-c", ALL, json.dumps(calls)]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, timeout=300)


def told(done: subprocess.CompletedProcess[bytes]) -> dict[str, tuple[int, str]]:
    """What each call of `called` ended with, and said."""
    found, said = {}, ""
    for line in done.stdout.decode("cp437").splitlines():
        if line.startswith("% "):
            words, code = json.loads(line[2:])
            found[" ".join(words)] = code, said.strip()
            said = ""
        else:
            said += f"{line}\n"
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs over three images, whose names code page 437 lacks, and boxes."""
    desk = Desk(tmp_path_factory.mktemp("made"))
    desk.class_folders(*NAMES)
    assert desk.explain()[0] == 0
    shutil.copytree(desk.run, desk.folder / "old")
    with (desk.folder / "boxes.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sample_id", "x0", "y0", "x1", "y1"), *((each, 1, 1, 5, 6) for each in IDS)])
    return desk.folder


@pytest.fixture(scope="module")
def linux(runs: Path) -> tuple[Path, dict[str, tuple[int, str]]]:
    return everything(runs, "linux")


def everything(runs: Path, system: str) -> tuple[Path, dict[str, tuple[int, str]]]:
    folder = runs.with_name(system)
    shutil.copytree(runs, folder)
    done = called(folder, system, *COMMANDS.values())
    found = told(done)
    assert len(found) == len(COMMANDS), done.stderr.decode("cp437")
    return folder, found


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("system", "unconfined"),
    [("win32", "files, connections, memory, time"), ("darwin", "files, connections, memory")],
)
def test_an_auditors_commands_write_the_bytes_and_say_the_words_of_linux(
    runs: Path, linux: tuple[Path, dict[str, tuple[int, str]]], system: str, unconfined: str
) -> None:
    folder, found = everything(runs, system)
    expected, said = linux[0], dict(linux[1])
    assert {name for name, (code, _) in found.items() if code} == {
        name for name, (code, _) in said.items() if code == 3
    }
    told_here, told_there = (each.pop("verify run")[1].splitlines() for each in (found, said))
    assert f"{CONFINED} {unconfined}" in told_here
    # an old kernel of Linux can't do all either
    left_here, left_there = ([line for line in each if CONFINED not in line] for each in (told_here, told_there))
    assert left_here == left_there
    assert found == said
    assert files(folder) == files(expected)


def test_windows_refuses_what_makes_runs_in_one_line(runs: Path) -> None:
    makes = [
        ("explain", "network.pth", "images", "--out", "made"),
        ("merge", "run"),
        ("nightly", "network.pth", "images", "nights"),
        ("promote", "network.pth", "images", "models/first"),
        ("verify", "run", "--recompute", "2", "--checkpoint", "network.pth", "--data", "images"),
    ]
    done = called(runs, "win32", *makes)
    assert [code for code, _ in told(done).values()] == [1] * len(makes)
    lines = done.stderr.decode("cp437").splitlines()
    names = [*(words[0] for words in makes[:-1]), "verify --recompute"]
    reason = "needs Linux or macOS; on Windows runs are checked and read, not made"
    assert [line.partition("error: ")[2] for line in lines] == [f"{name}: {reason}" for name in names]


@pytest.mark.slow
def test_macos_explains(runs: Path) -> None:
    words = ("explain", "network.pth", "images", "--model", "tests.helpers.networks:GapNetwork", "--out", "mac")
    view = (
        "--image-size",
        "8",
        "--mean",
        "0.5",
        "--std",
        "0.5",
        "--workers",
        "1",
        "--start-method",
        "spawn",
        "--threads",
        "1",
    )
    done = called(runs, "darwin", (*words, *view), ("verify", "mac"), PRETENDED_TORCH="1")
    assert [code for code, _ in told(done).values()] == [0, 0], done.stderr.decode("cp437")
    made = [(runs / run / "shards/shard-00000.h5").read_bytes() for run in ("run", "mac")]
    assert made[0] == made[1]
