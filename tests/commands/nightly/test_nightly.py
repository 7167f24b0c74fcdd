"""The job of every night: order, exit codes, mails, interrupted runs, signatures."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.fake_batchcam import Fake, contents, latest, write_documents

NIGHT = "2026-11-24"


@pytest.fixture
def fake(tmp_path) -> Fake:
    fake = Fake(tmp_path / "fake bin")
    fake.set_date(NIGHT)
    return fake


@pytest.fixture
def runs(tmp_path) -> Path:
    return tmp_path / "all my runs"


def night(fake: Fake, runs: Path, *options: str) -> tuple[int, str, str]:
    return fake.run("nightly", *options, "my model.pth", "my photos", runs, "--shard-size", "9")


def make_runs(runs: Path, *names: str, complete: bool = True) -> None:
    for name in names:
        (runs / name / "shards").mkdir(parents=True)
        write_documents(runs / name)
        if not complete:
            (runs / name / "manifest.json").unlink()
        for suffix in (".html", ".log"):
            (runs / f"{name}{suffix}").touch()


def test_a_good_night_explains_verifies_points_reports_and_says_nothing(fake, runs):
    assert night(fake, runs) == (0, "", "")
    run = f"{runs}/{NIGHT}"
    assert fake.calls() == [
        ["explain", "my model.pth", "my photos", "--out", run, "--shard-size", "9"],
        ["verify", run],
        ["report", run, "--out", f"{run}.html"],
    ]
    assert latest(runs) == NIGHT
    assert "fake verify says this" in Path(f"{run}.log").read_text()


@pytest.mark.parametrize(
    ("step", "code", "ended", "last_step", "moves"),
    [
        ("explain", 1, 1, "explain", False),
        ("explain", 2, 2, "explain", False),
        ("explain", 75, 75, "explain", False),
        ("explain", 137, 137, "explain", False),
        ("explain", 3, 3, "report", True),
        ("verify", 1, 1, "verify", False),
        ("verify", 3, 3, "verify", False),
        ("report", 1, 1, "report", True),
        ("report", 3, 0, "report", True),
    ],
)
def test_exit_codes_are_kept_and_latest_moves_to_verified_runs_only(fake, runs, step, code, ended, last_step, moves):
    make_runs(runs, "2026-11-23")
    (runs / "latest").symlink_to("2026-11-23")
    fake.answer(**{step: code})
    returned, stdout, stderr = night(fake, runs)
    assert (returned, stdout) == (ended, "")
    assert fake.calls()[-1][0] == last_step
    assert latest(runs) == (NIGHT if moves else "2026-11-23")
    if ended == 0:
        assert stderr == ""
        return
    head = stderr.splitlines()[0]
    assert f"{runs}/{NIGHT}" in head
    assert f"exit code {code}" in head
    assert "What to do: " in stderr
    assert f"fake {last_step} says this" in stderr
    assert f"Latest verified run: {latest(runs)}" in stderr


def test_a_second_start_on_the_same_day_does_nothing(fake, runs):
    night(fake, runs)
    before = contents(runs)
    fake.calls()
    assert night(fake, runs, "--keep", "1") == (0, "", "")
    assert fake.calls() == []
    assert contents(runs) == before


def test_a_second_start_of_a_directory_lets_explain_say_whether_it_is_another_checkpoint(fake, runs, tmp_path):
    (tmp_path / "net").mkdir()
    words = ["nightly", tmp_path / "net", "my photos", runs]
    assert fake.run(*words) == (0, "", "")
    assert fake.run(*words) == (0, "", "")
    assert [call[0] for call in fake.calls()].count("explain") == 2


def test_a_second_start_with_another_checkpoint_says_that_the_day_is_taken(fake, runs, tmp_path):
    weights = tmp_path / "my model.pth"
    weights.write_bytes(b"monday")
    fake.explains(weights)
    words = ["nightly", weights, "my photos", runs]
    assert fake.run(*words) == (0, "", "")
    assert fake.run(*words) == (0, "", "")
    before = contents(runs)
    fake.calls()
    weights.write_bytes(b"tuesday")
    told = f"{runs}/{NIGHT} is finished, but explains another checkpoint: move it away to explain today's"
    assert fake.run(*words) == (1, "", f"batchcam nightly: {told}\n")
    assert (fake.calls(), contents(runs)) == ([], before)


@pytest.fixture
def key(tmp_path) -> Path:
    path = tmp_path / "my key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "night", "-f", path], check=True)
    return path


def test_a_night_that_signs_leaves_a_signature_of_the_manifest_that_openssh_accepts(fake, runs, key):
    assert night(fake, runs, "--sign", str(key)) == (0, "", "")
    folder = runs / NIGHT / "signatures"
    assert os.listdir(folder) == ["manifest.json.sig"]
    signers = key.with_name("signers")
    signers.write_text(f"night {key.with_suffix('.pub').read_text()}")
    check = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", "night", "-n", "batchcam"]
    manifest = (runs / NIGHT / "manifest.json").read_bytes()
    checked = subprocess.run([*check, "-s", folder / "manifest.json.sig"], input=manifest, capture_output=True)
    assert checked.returncode == 0, checked.stderr


def test_a_night_that_cannot_sign_does_not_move_latest_and_the_next_start_signs(fake, runs, key):
    private = key.read_bytes()
    key.write_text("no key")
    code, _, stderr = night(fake, runs, "--sign", str(key))
    assert (code, latest(runs)) == (1, None)
    assert "sign failed" in stderr
    key.write_bytes(private)
    assert night(fake, runs, "--sign", str(key)) == (0, "", "")
    assert latest(runs) == NIGHT
    assert (runs / NIGHT / "signatures/manifest.json.sig").exists()


def test_a_finished_night_is_signed_when_that_is_asked_for_later(fake, runs, key):
    night(fake, runs)
    assert not (runs / NIGHT / "signatures").exists()
    assert night(fake, runs, "--sign", str(key)) == (0, "", "")
    assert (runs / NIGHT / "signatures/manifest.json.sig").exists()


def test_a_key_that_is_not_there_is_told_before_anything_is_done(fake, runs):
    code, _, stderr = night(fake, runs, "--sign", "no such key")
    assert (code, "--sign no such key: not a key's file" in stderr, fake.calls()) == (2, True, [])


def test_each_night_has_its_own_run(fake, runs):
    night(fake, runs)
    first = contents(runs / NIGHT)
    fake.set_date("2026-11-25")
    assert night(fake, runs) == (0, "", "")
    assert latest(runs) == "2026-11-25"
    assert contents(runs / NIGHT) == first


@pytest.mark.parametrize("step", ["explain", "verify", "report"])
def test_a_start_on_the_same_day_goes_on_with_what_failed(fake, runs, step):
    fake.answer(**{step: 1})
    night(fake, runs)
    fake.answer(**{step: 0})
    fake.calls()
    assert night(fake, runs) == (0, "", "")
    assert [words[0] for words in fake.calls()] == ["explain", "verify", "report"]
    assert latest(runs) == NIGHT


def test_the_next_night_finishes_an_interrupted_run_before_its_own(fake, runs):
    fake.answer(explain=75)
    assert night(fake, runs)[0] == 75
    fake.answer(explain=0)
    fake.set_date("2026-11-25")
    fake.calls()
    assert night(fake, runs) == (0, "", "")
    calls = fake.calls()
    assert calls[0][-1] == "--dry-run"
    into = [words[words.index("--out") + 1] for words in calls[1:] if words[0] == "explain"]
    assert into == [f"{runs}/{NIGHT}", f"{runs}/2026-11-25"]
    assert (runs / NIGHT / "manifest.json").exists()
    assert latest(runs) == "2026-11-25"


def test_an_interrupted_run_of_another_model_stays_and_is_told_once(fake, runs):
    fake.answer(explain=75)
    night(fake, runs)
    before = contents(runs / NIGHT)
    fake.answer(explain=0, dry_run=1)
    fake.set_date("2026-11-25")
    code, _, stderr = night(fake, runs)
    assert code == 0
    assert f"{runs}/{NIGHT}: interrupted" in stderr
    assert contents(runs / NIGHT) == before
    assert latest(runs) == "2026-11-25"
    fake.set_date("2026-11-26")
    assert night(fake, runs) == (0, "", "")


@pytest.mark.parametrize(
    ("keep", "gone"),
    [
        (1, {"2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23"}),
        (2, {"2026-11-20", "2026-11-21", "2026-11-22"}),
        (3, {"2026-11-20"}),  # 2026-11-22 is not complete, and does not count
        (4, set()),
    ],
)
def test_all_but_the_newest_complete_runs_go_with_their_report_and_log(fake, runs, keep, gone):
    make_runs(runs, "2026-11-20", "2026-11-21", "2026-11-23")
    make_runs(runs, "2026-11-22", complete=False)
    before = set(os.listdir(runs))
    assert night(fake, runs, "--keep", str(keep)) == (0, "", "")
    removed = before - set(os.listdir(runs))
    assert removed == {name + suffix for name in gone for suffix in ("", ".html", ".log")}


def test_what_is_no_dated_run_is_never_removed(fake, runs, tmp_path):
    make_runs(tmp_path / "elsewhere", "2026-11-01")
    make_runs(runs, "2026-11-02", "notes and runs", "2026-11-03 copy", "x2026-11-03", "2026-11-031")
    (runs / "2026-11-04").mkdir()
    (runs / "2026-11-04" / "thesis.txt").touch()
    (runs / "2026-11-05").write_text("a file")
    (runs / "2026-11-01").symlink_to(tmp_path / "elsewhere" / "2026-11-01")
    (runs / "2026-11-06.log").touch()
    before = contents(runs) | contents(tmp_path / "elsewhere")
    assert night(fake, runs, "--keep", "1") == (0, "", "")
    after = contents(runs) | contents(tmp_path / "elsewhere")
    assert {name for name in before if name not in after} == {
        str(runs / f"2026-11-02{end}") for end in ("/run.json", "/manifest.json", ".html", ".log")
    }
    assert (runs / "2026-11-01").is_symlink()


def test_runs_of_days_to_come_neither_count_nor_go_and_are_told_with_what_to_do(fake, runs):
    make_runs(runs, "2026-11-22", "2026-11-23", "2031-01-01")
    make_runs(runs, "2031-01-02", complete=False)
    code, _, told = night(fake, runs, "--keep", "2")
    assert (code, latest(runs)) == (0, NIGHT)
    assert told.startswith(
        f"batchcam nightly: 2 runs, {runs}/2031-01-01 to 2031-01-02, are dated after today, {NIGHT}: "
    )
    assert "move what is dated wrong away: it neither counts for --keep nor is ever removed.\n" in told
    assert {p.name for p in runs.glob("2*") if p.is_dir()} == {"2026-11-23", NIGHT, "2031-01-01", "2031-01-02"}
    for name in ("2031-01-01", "2031-01-02"):
        (runs / name).rename(runs / f"wrong-{name}")
    assert night(fake, runs, "--keep", "2") == (0, "", "")


@pytest.mark.parametrize("answers", [{"explain": 1}, {"verify": 3}, {"report": 1}])
def test_nothing_is_removed_after_a_bad_night(fake, runs, answers):
    make_runs(runs, "2026-11-22", "2026-11-23")
    before = set(contents(runs))
    fake.answer(**answers)
    night(fake, runs, "--keep", "1")
    assert before <= set(contents(runs))


def test_a_removal_that_was_interrupted_is_finished(fake, runs):
    make_runs(runs, ".removed-2026-11-01")
    night(fake, runs, "--keep", "5")
    assert not (runs / ".removed-2026-11-01").exists()


@pytest.mark.parametrize(
    "words", [[], ["model.pth", "photos"], ["--keep", "0", "m", "d", "r"], ["--keep"], ["--kep", "3", "m", "d", "r"]]
)
def test_usage_is_told(fake, words):
    code, _, stderr = fake.run("nightly", *words)
    assert code == 2
    assert stderr.startswith("batchcam: error: ")
    assert fake.calls() == []


def test_what_is_no_link_is_not_replaced(fake, runs):
    (runs / "latest" / "by hand").mkdir(parents=True)
    assert night(fake, runs)[0] == 2
    assert (runs / "latest" / "by hand").exists()
    assert fake.calls() == []


def test_a_run_of_nothing_moves_no_link_and_pushes_no_run_out(fake, runs):
    make_runs(runs, "2026-11-20", "2026-11-21")
    write_documents(runs / "2026-11-20", samples=30, unreadable=2)
    make_runs(runs, "2026-11-22", "2026-11-23")
    for name in ("2026-11-22", "2026-11-23", NIGHT):
        write_documents(runs / name, samples=30, unreadable=16)
    os.symlink("2026-11-21", runs / "latest")
    fake.answer(explain=3)
    code, _, told = night(fake, runs, "--keep", "2")
    assert (code, latest(runs)) == (3, "2026-11-21")
    assert "most images could not be read" in told
    assert {p.name for p in runs.iterdir() if p.is_dir()} >= {"2026-11-20", "2026-11-21"}
    assert not (runs / f"{NIGHT}.html").exists()


def test_the_next_start_tries_a_run_of_nothing_again(fake, runs):
    write_documents(runs / NIGHT, samples=30, unreadable=30)
    fake.answer(explain=3)
    night(fake, runs)
    assert fake.calls()[0][-1] == "--retry-unreadable"
    write_documents(runs / NIGHT, samples=30, unreadable=3)
    night(fake, runs)
    assert "--retry-unreadable" not in fake.calls()[0]
    assert latest(runs) == NIGHT


ASK = 'echo "$NIGHT_OUTCOME $NIGHT_EXIT_CODE $NIGHT_RUN" >>'


@pytest.mark.parametrize(
    ("answers", "told"),
    [({}, "done 0"), ({"explain": 3}, "findings 3"), ({"explain": 75}, "stopped 75"), ({"verify": 1}, "failed 1")],
)
def test_who_wants_to_know_is_told_how_the_night_ended(fake, runs, tmp_path, answers, told):
    fake.answer(**answers)
    code, stdout, _ = night(fake, runs, "--on-end", f"{ASK} {tmp_path}/ends; echo OK")
    assert (str(code), stdout) == (told.split()[1], "")
    assert (tmp_path / "ends").read_text() == f"{told} {runs}/{NIGHT}\n"


def test_a_message_of_the_end_that_fails_is_told_and_changes_no_exit_code(fake, runs):
    code, _, stderr = night(fake, runs, "--on-end", "echo no route; exit 7")
    assert (code, stderr) == (0, "batchcam nightly: --on-end ended with exit code 7: no route\n")


def test_an_interrupted_run_of_another_user_is_left_to_them(fake, runs, monkeypatch):
    fake.answer(explain=75)
    night(fake, runs)
    fake.answer(explain=0)
    fake.set_date("2026-11-25")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != NIGHT and access(path, mode))
    code, _, stderr = night(fake, runs)
    assert (code, latest(runs)) == (0, "2026-11-25")
    assert "who can finish it" in stderr
    assert not (runs / NIGHT / "manifest.json").exists()


def test_a_step_that_sends_control_characters_into_a_mail_cannot_steer_a_terminal(fake, runs):
    (runs).mkdir()
    (runs / f"{NIGHT}.log").write_text("before \x1b[2J after\n")
    fake.answer(explain=1)
    assert "before \\x1b[2J after" in night(fake, runs)[2]


def test_an_incremental_night_leaves_out_what_the_runs_hold_but_goes_on_with_a_run_as_it_was_planned(fake, runs):
    make_runs(runs, "2026-11-23", complete=False)
    assert night(fake, runs, "--incremental") == (0, "", "")
    explained = [words for words in fake.calls() if words[0] == "explain" and "--dry-run" not in words]
    words = ["explain", "my model.pth", "my photos", "--out"]
    assert explained == [
        [*words, f"{runs}/2026-11-23", "--shard-size", "9"],
        [*words, f"{runs}/{NIGHT}", "--new-since", str(runs), "--shard-size", "9"],
    ]


def test_a_night_without_anything_new_makes_no_run_and_says_nothing(fake, runs):
    make_runs(runs, "2026-11-23")
    (runs / "latest").symlink_to("2026-11-23")
    (fake.folder / "nothing-new").touch()
    assert night(fake, runs, "--incremental") == (0, "", "")
    assert [words[0] for words in fake.calls()] == ["explain"]
    assert latest(runs) == "2026-11-23"


def test_runs_that_alone_hold_photos_are_never_removed(fake, runs):
    code, _, stderr = night(fake, runs, "--incremental", "--keep", "3")
    assert code == 2
    assert "--incremental and --keep exclude each other" in stderr


def test_a_night_is_held_against_those_before_it_when_asked_and_silent_when_well(fake, runs):
    assert night(fake, runs, "--trend") == (0, "", "")
    calls = fake.calls()
    assert [call[0] for call in calls] == ["explain", "verify", "trend", "report"]
    assert calls[2] == ["trend", str(runs), "--alarm", "--out", f"{runs}/trend"]


@pytest.mark.parametrize(("code", "ended", "last_step"), [(3, 3, "report"), (1, 1, "trend")])
def test_an_alarm_is_a_finding_of_the_night_and_a_failed_trend_a_failure(fake, runs, code, ended, last_step):
    fake.answer(trend=code)
    returned, stdout, stderr = night(fake, runs, "--trend")
    assert (returned, stdout) == (ended, "")
    assert fake.calls()[-1][0] == last_step
    assert f"exit code {code}" in stderr.splitlines()[0]
    assert "fake trend says this" in stderr
    assert latest(runs) == NIGHT
