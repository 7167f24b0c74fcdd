"""The command: what it is asked, what it refuses, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from batchcam.commands.view.book import TO_JUDGE, Book
from batchcam.commands.view.config import ViewConfig
from batchcam.commands.view.view import view
from batchcam.errors import BatchcamError, ConfigError, RunError
from batchcam.record.draw import DRAW_FILE, draw
from batchcam.record.review import read_review
from batchcam.record.verdicts import Verdict, append_verdict, sheet_of
from batchcam.rules import VERDICTS
from batchcam.store.document import seal
from batchcam.store.opening import open_run
from tests.helpers import ROOT
from tests.helpers.damage import write_digest
from tests.helpers.synthetic import run_command, synthetic_run


def test_it_ends_well_by_ctrl_c_and_tells_its_address_alone_when_quiet(run: Path) -> None:
    pytest.importorskip("uvicorn")
    command = [sys.executable, "-m", "batchcam", "view", str(run), "--quiet", "--json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=60)
    assert re.search(r"open http://127\.0\.0\.1:\d+/\?token=[\w-]{43}$", told)
    assert (process.returncode, rest) == (0, "")
    assert '"samples": 200' in out


def test_without_the_packages_it_says_what_to_install(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "batchcam.commands.view.server", raising=False)
    with pytest.raises(BatchcamError, match=r"pip install 'batchcam\[view\]'"):
        view(ViewConfig(run, quiet=True))


def test_a_port_that_is_taken_is_told(run: Path) -> None:
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run_command("view", run, "--port", port, "--quiet")
    assert code == 1
    assert f"--port {port}: " in err


def test_verdicts_lie_outside_of_the_runs_in_a_file_of_verdicts(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lies in the run"):
        ViewConfig(run, verdicts=run / "v.csv")
    with pytest.raises(ConfigError, match="lies in the run"):
        ViewConfig(tmp_path, against=run, verdicts=run / "v.csv")
    with open_run(run) as opened, pytest.raises(BatchcamError, match=r"nowhere/v.csv: there is no such folder"):
        Book(tmp_path / "nowhere/v.csv", opened, "ann")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with open_run(run) as opened, pytest.raises(BatchcamError, match="first line has to name"):
        Book(tmp_path / "other.csv", opened, "ann")


def test_a_file_that_verdicts_cannot_be_added_to_is_refused_before_anybody_judges(run: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "excel.csv"
    sheet.write_bytes(sheet_of([Verdict("r", "a.png", "d")]).replace(b",", b";"))
    with open_run(run) as opened, pytest.raises(RunError, match="does not begin as batchcam's verdicts do"):
        Book(sheet, opened, "ann")


@pytest.mark.parametrize("is_filled_in", [False, True])
def test_the_draw_beside_the_file_says_what_can_be_said_and_what_there_is_to_judge(
    run: Path, tmp_path: Path, is_filled_in: bool
) -> None:
    sheet = tmp_path / "ann.csv"
    with open_run(run) as opened:
        drawn, rows = draw(opened, np.arange(200), 3, 0, None, ("ja", "nein"))
        (tmp_path / DRAW_FILE).write_bytes(seal(drawn.content))
        if is_filled_in:
            sheet.write_bytes(sheet_of(drawn.samples))
        book = Book(sheet, opened, "ann")
        assert np.flatnonzero(np.array(book.column.told(range(200))) == TO_JUDGE).tolist() == sorted(rows)
        book.write(opened[int(rows[0])], "nein", "")
        assert Book(sheet, opened, "ann").column.told([rows[0]]) == ["nein"]
        found = read_review([sheet], opened)
    assert [(each.verdict, each.samples) for each in found.shares if each.samples] == [("nein", 1), ("open", 2)]


def test_what_is_no_run_or_no_longer_the_run_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    with pytest.raises(RunError):
        view(ViewConfig(tmp_path, quiet=True))
    synthetic_run(tmp_path / "run")
    (tmp_path / "run/run.h5").write_bytes(b"not what was written")
    with pytest.raises(RunError, match="changed after it was written"):
        view(ViewConfig(tmp_path / "run", quiet=True))
    write_digest(tmp_path / "run/run.h5")
    with pytest.raises(RunError):
        view(ViewConfig(tmp_path / "run", quiet=True))


def test_a_drawn_sheet_is_what_there_is_to_judge_and_keeps_its_weights(run: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    with open_run(run) as opened:
        run_id, samples = opened.plan.run_id, [opened[row] for row in (5, 50, 150)]
        drawn = [Verdict(run_id, s.id, s.input_sha256, reason="class", weight="12.5") for s in samples]
        sheet.write_bytes(sheet_of([*drawn, Verdict("0" * 64, samples[0].id, "f" * 64)]))
        append_verdict(
            sheet, Verdict(run_id, samples[1].id, samples[1].input_sha256, verdict=VERDICTS[1], reviewer="bob")
        )
        book = Book(sheet, opened, "ann")
        assert book.column.told(range(200)).count(TO_JUDGE) == 3  # what bob says sways nobody
        book.write(samples[0], VERDICTS[0], "")
        again = Book(sheet, opened, "ann")
        assert again.column.told([5, 50, 150, 0]) == [VERDICTS[0], TO_JUDGE, TO_JUDGE, None]
        assert again.said(5) == {"reviewer": "ann", "verdict": VERDICTS[0], "comment": "", "reason": "class"}
    assert f"{samples[0].id}" in sheet.read_text("utf-8").splitlines()[-1]
    assert ",12.5," in sheet.read_text("utf-8").splitlines()[-1]
