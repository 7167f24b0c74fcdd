"""Text from data stays text: in terminals, tables, pages, pictures and file names, and comes back as it went in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import batchcam
from batchcam.commands.export.folder import ExportFolder
from batchcam.commands.merge import merge
from batchcam.errors import BatchcamError, RunError, StorageFullError, one_line
from batchcam.record.names import safe_name
from batchcam.store.manifest import task_file, write_task
from batchcam.store.plan import write_plan
from tests.helpers.outputs import READERS, exact, faults_of_files, faults_of_table, read_table, run_json, snapshot
from tests.helpers.synthetic import ORIGIN, UNREADABLE, fingerprinted, land_shards, synthetic_plan, synthetic_rows
from tests.helpers.wellformed import Page

HTML = ("<script>alert(1)</script>", "</td></table><img src=x onerror=alert(1)>", "&lt;b&gt;", "\"'><b>", "<!--", "]]>")
FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1+1", "'=1", '"=1"')
FORMULAS_BETWEEN = ('a;=HYPERLINK("http://x")', 'a; "=1', "a;'@x", "a,=1", "a|=1", "a\t=1")
CONTROLS = ("\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "a\x08\x08b", "\x7f", "\x85", "\ufeffa", "\xad")
LINES = ("a\nbatchcam: no findings", "a\r\nb", "\u2028", "\x0b\x0c", "a\nb", r"a\nb", r"\x1b[31m", "\\\\")
DIRECTIONS = (
    "\u202egnp.exe",
    "\u202a\u202b\u202d\u202e\u202c",
    "\u2066\u2067\u2068\u2069",
    "\u200e\u200f\u061c",
    "שלום",
)
PATHS = (
    *("../../etc/passwd", "/etc/passwd", "..", ".", "a/../../b", "a//b", "a/", "~root", "-rf", "C:\\a", "\\\\host\\a"),
    *(r"\x2e\x2e/\x2e\x2e/etc/passwd", r"\x2fetc\x2fpasswd", r"nul\x00", r"caf\xe9", "con", "aux.png", "a/nul/b.png"),
    *("COM1.tar.gz", "a:b", "a.", "a ", " ", "x" * 300, "蝶" * 150, "CAT.png", "cat.png"),
)
PLAIN = ("cat/001.png", "🦓👩‍🚀.png", "é", "e\u0301", "%s{0}$(id)`id`")
IDS = (*PLAIN, *HTML, *FORMULAS, *FORMULAS_BETWEEN, *CONTROLS, *LINES, *DIRECTIONS, *PATHS)
NAMES = ("<b>bold</b>", "=1+1", "\x1b[31mred\n", "\u202eevil", "caf\\xe9;=1", "🦓")
EVIL = "<script>alert(1)</script>\x1b[31m\n\u202e=cmd"
"""A bit of everything, for fields that hold one text."""


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound run whose every text tries to get out: ids, classes, errors, paths, hosts, names of layers."""
    run = tmp_path_factory.mktemp("hostile") / "run"
    plan = synthetic_plan(
        class_names=NAMES,
        sample_count=len(IDS),
        sample_id_bytes=max(len(each.encode()) for each in IDS),
        architecture=EVIL,
        target_layer=EVIL,
        preprocessing={EVIL: EVIL},
    )
    rows = synthetic_rows(plan)
    rows.texts["sample_id"][:] = IDS
    rows.texts["error"][UNREADABLE] = EVIL
    plan = fingerprinted(plan, rows)
    classifier = {"classifier": {"checkpoint": EVIL}, "data": EVIL}
    write_plan(run, plan, {**ORIGIN, "options": classifier, "command": [EVIL], "user": EVIL, "host": EVIL})
    land_shards(run, plan, rows)
    texts = ("task", "host", "device", "outcome", "note", "job")
    numbers = ("samples", "seconds", "images_per_s", "restarts", "threads")
    told = {**dict.fromkeys(texts, EVIL), **dict.fromkeys(numbers, 0), "versions": {EVIL: EVIL}}
    write_task(run, task_file(0), {"started": "2026-01-02T03:04:05Z", **told})
    write_task(run, task_file(1), {"started": EVIL, **told})
    merge(run)
    return run


# what commands print and write


@pytest.mark.parametrize("command", READERS)
def test_nothing_hostile_gets_out_of_any_command(hostile_run: Path, tmp_path: Path, command: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    before = snapshot(hostile_run)
    ended = run_json(*READERS[command](hostile_run, out))
    assert (ended.code, ended.faults) == (3 if command == "report" else 0, [])
    assert faults_of_files(out) == []
    assert list(tmp_path.iterdir()) == [out]
    assert snapshot(hostile_run) == before


def test_info_shows_hostile_text_as_escapes_on_its_line(hostile_run: Path) -> None:
    lines = run_json("info", hostile_run).out.splitlines()
    shown = r"<script>alert(1)</script>\x1b[31m \u202e=cmd"
    assert f"network     {shown}, {shown}, grid 3x5, fp32 by torch" in lines
    assert f"unreadable  {one_line(IDS[UNREADABLE])}: {shown}" in lines
    assert any(line.startswith(r"\x1b[31mred ") for line in lines)
    assert any(line.startswith(r"\u202eevil ") for line in lines)


def test_json_gives_hostile_text_exactly(hostile_run: Path) -> None:
    said = run_json("info", hostile_run).said
    assert said["plan"]["class_names"] == list(NAMES)
    assert said["origin"]["host"] == said["tasks"][0]["host"] == EVIL
    movers = run_json("compare", hostile_run, hostile_run, "--top", 100).said["movers"]
    assert {mover["sample_id"] for mover in movers} <= set(IDS)


def test_a_log_of_a_run_in_progress_is_one_line(hostile_run: Path) -> None:
    ended = run_json("info", hostile_run, "--watch")
    assert (ended.code, ended.faults, ended.out.count("\n")) == (0, [], 1)


def test_a_page_holds_every_kind_of_hostile_text_as_text(hostile_run: Path, tmp_path: Path) -> None:
    run_json("report", hostile_run, "--out", tmp_path / "a.html", "--top", 100)
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert page.elements["script"] == page.elements["b"] == 0
    for text in (HTML[0], HTML[1], HTML[3], r"\u001b[2J\u001b[31mred", r"\u202egnp.exe", "<b>bold</b>", FORMULAS[0]):
        assert text in page.text


@pytest.mark.parametrize(
    ("form", "file", "column"),
    [
        ("csv", "samples.csv", "sample_id"),
        ("png", "index.csv", "sample_id"),
        ("wsol", "names.csv", "sample_id"),
        ("virelay", "samples.csv", "sample_id"),
        ("csv", "samples.csv", "label_name"),
        ("csv", "samples.csv", "error"),
    ],
)
def test_a_table_gives_texts_back_exactly(hostile_run: Path, tmp_path: Path, form: str, file: str, column: str) -> None:
    assert run_json("export", hostile_run, "--to", form, "--out", tmp_path).code == 0
    lines = read_table(tmp_path / file)
    with batchcam.open_run(hostile_run) as run:
        samples = [run[int(line["sample_index"])] for line in lines]
    wanted = {"sample_id": "id", "label_name": "label", "error": "error"}[column]
    assert [exact(line[column]) for line in lines] == [getattr(sample, wanted) or "" for sample in samples]
    assert len(lines) >= len(IDS) - 3


def test_ids_go_through_a_run_exactly(hostile_run: Path) -> None:
    with batchcam.open_run(hostile_run) as run:
        assert tuple(run.sample_id[:]) == IDS
        assert [run.sample(each).index for each in IDS] == list(range(len(IDS)))
        assert run[UNREADABLE].error == EVIL


# the rules themselves, for any text

ANY_TEXT = st.text(st.characters(exclude_categories=[]))  # lone surrogates too


@given(ANY_TEXT)
@example("\ud800")
@example("a;\t=1")
@example("'a;=1")
@settings(max_examples=200, deadline=None)
def test_a_cell_is_harmless_and_gives_any_text_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "tables"
    ExportFolder(folder, {}).write_table("a.csv", ("index", "text"), [(0, text)])
    assert faults_of_table(folder / "a.csv") == []
    assert exact(read_table(folder / "a.csv")[0]["text"]) == text


@pytest.mark.parametrize(
    "text", ["cat/001.png", "C:\\images\\n.png", r"caf\xe9", "two words", "🦓", "a=b", "a;b", "1-2"]
)
def test_a_text_that_no_spreadsheet_runs_stays_as_it_is(tmp_path: Path, text: str) -> None:
    ExportFolder(tmp_path, {}).write_table("a.csv", ("index", "text"), [(0, text)])
    assert read_table(tmp_path / "a.csv")[0]["text"] == text


@given(ANY_TEXT)
@example("aux.tar.gz")
@example("a/CON /b")
@example("lpt¹")
@settings(max_examples=200, deadline=None)
def test_any_text_has_a_file_name_that_every_system_takes(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("names")
    path = folder / f"{safe_name(text, '.txt')}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a")
    assert faults_of_files(folder) == []


@given(ANY_TEXT)
@settings(max_examples=200, deadline=None)
def test_a_line_shows_every_character_that_is_no_space(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert line == one_line(line)
    unescaped = line.encode("latin-1", "backslashreplace").decode("unicode_escape") if "\\" not in text else line
    assert "\\" in text or unescaped == " ".join(text.split())


@given(ANY_TEXT)
@settings(max_examples=50, deadline=None)
def test_an_error_of_ours_is_one_line_whatever_it_quotes(text: str) -> None:
    for kind in (BatchcamError, RunError, StorageFullError):
        assert str(kind(f"{text}: what is wrong")) == one_line(f"{text}: what is wrong")


# names of files and folders


@pytest.fixture(scope="module")
def bytes_named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders in which files, and a class, have names that are no UTF-8, or steer terminals."""
    root = tmp_path_factory.mktemp("bytes") / "data"
    rng = np.random.default_rng(0)
    names = (
        b"ant/\xff\xfe.png",
        b"ant/caf\xe9\x1b[31m.png",
        b"b\xe9e/\xf0\x9f\xa6\x93\n.png",
        b"cat/<b>=1.png",
        b"cat/ .png",
    )
    for name in names:
        path = os.fsencode(root) + b"/" + name
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(cv2.imencode(".png", rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))[1].tobytes())
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
    return root


BYTES_IDS = ["ant/caf\\xe9\x1b[31m.png", "ant/\\xff\\xfe.png", "b\\xe9e/🦓\n.png", "cat/ .png", "cat/<b>=1.png"]
MODEL = ("--model", "tests.helpers.networks:GapNetwork", "--image-size", 24, "--mean", 0.5, "--std", 0.5)
COMPUTE = ("-j", 0, "--threads", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def bytes_run(bytes_named: Path) -> Path:
    """A run over these files, at a path of the same kind."""
    torch = pytest.importorskip("torch")
    from tests.helpers.networks import GapNetwork, seeded

    folder = bytes_named.parent
    weights, run = folder / os.fsdecode(b"model\xff.pth"), folder / os.fsdecode(b"run\xff\x1b[2J")
    torch.save(seeded(GapNetwork).state_dict(), folder / "model.pth")
    (folder / "model.pth").rename(weights)
    ended = run_json("explain", weights, bytes_named, "--out", run, *MODEL, *COMPUTE)
    assert (ended.code, ended.faults, ended.said["samples"], ended.said["unreadable"]) == (0, [], 5, 0)
    return run


def test_a_file_whose_name_is_no_utf8_has_an_id_that_is(bytes_run: Path) -> None:
    with batchcam.open_run(bytes_run) as run:
        assert sorted(run.sample_id[:]) == sorted(BYTES_IDS)
        assert run.class_names == ("ant", "b\\xe9e", "cat")
        assert [run.sample(each).id for each in BYTES_IDS] == BYTES_IDS
        assert all(each.encode() for each in run.sample_id[:])


@pytest.mark.parametrize("command", [*READERS, "verify --recompute", "render --sample"])
def test_every_command_finds_files_whose_names_are_no_utf8(bytes_run: Path, tmp_path: Path, command: str) -> None:
    out = tmp_path / os.fsdecode(b"out\xff\x1b[2J")
    out.mkdir()
    weights = bytes_run.parent / os.fsdecode(b"model\xff.pth")
    more: dict[str, list[object]] = {
        "verify --recompute": ["verify", bytes_run, "--recompute", 5, "--checkpoint", weights,
                               "--data", bytes_run.parent / "data", "--device", "cpu", *MODEL],
        "render --sample": ["render", bytes_run, *(f"--sample={each}" for each in BYTES_IDS), "--out", out / "a.png"],
    }  # fmt: skip
    ended = run_json(*(more[command] if command in more else READERS[command](bytes_run, out)))
    assert (ended.code, ended.faults) == (0, [])
    assert faults_of_files(out) == []
    not_found = ("missing_originals", "changed_originals", "unread_originals", "without_image", "changed")
    assert {name: ended.said[name] for name in not_found if ended.said.get(name)} == {}
    if command in ("export png", "export virelay"):
        table = next(iter(out.rglob("*.csv")))
        assert {line["image"] for line in read_table(table)} == {"found"}


@pytest.mark.parametrize("sample_id", [r"\x2e\x2e/secret.png", r"a/\x2e./\x2e./secret.png", r"{outside}", r"a\x00.png"])
def test_an_id_that_spells_a_path_in_escapes_does_not_lead_out_of_the_data(
    tmp_path: Path, make_run: Callable[..., Path], sample_id: str
) -> None:
    from batchcam.pictures.originals import State, open_originals

    content = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    (tmp_path / "secret.png").write_bytes(content)
    (tmp_path / "data" / "a").mkdir(parents=True)
    outside = str(tmp_path / "secret.png").replace("/", r"\x2f")
    with batchcam.open_run(make_run()) as run:
        found = open_originals(run, str(tmp_path / "data")).find(sample_id.format(outside=outside), "", (4, 4))
    assert found.state is State.MISSING


class HostileDataset:
    """Items of which one fails with words of the attacker."""

    targets = (0, 1, 2)
    sample_ids = (EVIL, "a", "b")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import torch

        if index == 1:
            raise ValueError(EVIL)
        return torch.full((3, 24, 24), float(index)), index


def test_the_words_of_a_dataset_that_fails_are_one_line_of_its_row(bytes_run: Path, tmp_path: Path) -> None:
    weights, run = bytes_run.parent / os.fsdecode(b"model\xff.pth"), tmp_path / "run"
    data = f"python:{__name__}:HostileDataset"
    ended = run_json("explain", weights, data, "--model", MODEL[1], "--out", run, *COMPUTE)
    assert (ended.code, ended.faults, ended.said["unreadable"]) == (3, [], 1)
    with batchcam.open_run(run) as opened:
        assert opened.sample_id[:].tolist() == [EVIL, "a", "b"]
        assert opened[1].error == r"ValueError: <script>alert(1)</script>\x1b[31m \u202e=cmd"


# terminals of other encodings


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize(
    "words", [["info"], ["render", "--sample=🦓 none", "--out", "a.png"]], ids=lambda words: words[0]
)
def test_a_terminal_that_lacks_characters_shows_escapes(hostile_run: Path, encoding: str, words: list[str]) -> None:
    command = [sys.executable, "-m", "batchcam", words[0], str(hostile_run), *words[1:], "--json"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    ended = subprocess.run(command, capture_output=True, env=environment, timeout=60)
    shown = ended.stdout + ended.stderr
    assert ended.returncode == (0 if words[0] == "info" else 2), shown
    assert b"Encode" not in shown
    assert ("🦓".encode() in shown) or (rb"\U0001f993" in shown)
    said = json.loads(ended.stdout.splitlines()[-1])
    assert said["exit_code"] == ended.returncode
    if words[0] == "info":
        assert said["plan"]["class_names"] == list(NAMES)
