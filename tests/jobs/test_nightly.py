"""The job of every night: order, exit codes, interrupted runs, old runs, and cron itself."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers import ROOT
from tests.helpers.fake_batchcam import JOBS, Fake, write_totals

CRONTAB = JOBS / "nightly.cron"
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
    return fake.run("nightly.sh", *options, "my model.pth", "my photos", runs, "--shard-size", "9")


def latest(runs: Path, link: str = "latest") -> str | None:
    return os.readlink(runs / link) if (runs / link).is_symlink() else None


def make_runs(runs: Path, *names: str, complete: bool = True) -> None:
    for name in names:
        (runs / name / "shards").mkdir(parents=True)
        (runs / name / "run.json").touch()
        if complete:
            (runs / name / "manifest.json").touch()
        for suffix in (".html", ".log"):
            (runs / f"{name}{suffix}").touch()


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and time of every file but the lock."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}


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


@pytest.mark.parametrize("day", ["", "Tue Nov 24", "2026-11-24 02:30", "Welcome\n2026-11-24"])
def test_a_date_that_is_none_starts_no_night(fake, runs, day):
    fake.set_date(day)
    code, _, told = night(fake, runs)
    assert (code, fake.calls()) == (1, [])
    assert "`date +%F` says" in told


@pytest.mark.parametrize("said", ["", "echo cannot; exit 1", "echo ready"])
def test_a_digest_that_is_none_finishes_no_night(fake, runs, tmp_path, said):
    weights = tmp_path / "my model.pth"
    weights.write_bytes(b"monday")
    words = ["nightly.sh", weights, "my photos", runs]
    assert fake.run(*words)[0] == 0
    (fake.folder / "sha256sum").write_text(f"#!/bin/sh\n{said}\n")
    (fake.folder / "sha256sum").chmod(0o755)
    code, _, told = fake.run(*words)
    assert (code, f"cannot read {weights}" in told) == (1, True)


def test_a_second_start_with_another_checkpoint_says_that_the_day_is_taken(fake, runs, tmp_path):
    weights = tmp_path / "my model.pth"
    weights.write_bytes(b"monday")
    words = ["nightly.sh", weights, "my photos", runs]
    assert fake.run(*words) == (0, "", "")
    assert fake.run(*words) == (0, "", "")
    before = contents(runs)
    fake.calls()
    weights.write_bytes(b"tuesday")
    told = f"nightly.sh: {runs}/{NIGHT} is finished, but explains another checkpoint: move it away to explain today's\n"
    assert fake.run(*words) == (1, "", told)
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


def test_latest_is_kept_although_others_are_newer_by_name(fake, runs):
    make_runs(runs, "2031-01-01", "2031-01-02")
    assert night(fake, runs, "--keep", "1") == (0, "", "")
    assert latest(runs) == NIGHT
    assert (runs / NIGHT / "manifest.json").exists()
    assert (runs / "2031-01-02").exists()
    assert not (runs / "2031-01-01").exists()


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


def wait_until(true, timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_second_start_ends_at_once_while_the_first_hangs(fake, runs):
    fake.hang("explain")
    first = fake.start("nightly.sh", "my model.pth", "my photos", runs)
    wait_until((runs / NIGHT / "run.json").exists)
    began = time.monotonic()
    code, stdout, stderr = night(fake, runs)
    assert time.monotonic() - began < 5
    assert (code, stdout) == (75, "")
    assert "not started" in stderr
    assert f"process {first.pid} on " in stderr
    assert str(runs) in stderr
    assert len(fake.calls()) == 1
    first.send_signal(signal.SIGTERM)
    _, told = first.communicate(timeout=20)
    assert first.returncode == 75
    assert "stopped early at explain" in told
    fake.hang("explain", on=False)
    assert night(fake, runs) == (0, "", "")


def test_a_batchcam_that_outlives_its_script_keeps_others_out(fake, runs):
    fake.hang("explain")
    first = fake.start("nightly.sh", "my model.pth", "my photos", runs)
    wait_until((runs / NIGHT / "run.json").exists)
    orphans = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    first.kill()
    try:
        assert night(fake, runs)[0] == 75
    finally:
        for orphan in orphans:
            os.kill(int(orphan), signal.SIGKILL)
        first.communicate()
    fake.hang("explain", on=False)
    wait_until(lambda: night(fake, runs)[0] == 0)


@pytest.mark.parametrize(
    "words", [[], ["model.pth", "photos"], ["--keep", "0", "m", "d", "r"], ["--keep"], ["--kep", "3", "m", "d", "r"]]
)
def test_usage_is_told(fake, words):
    code, _, stderr = fake.run("nightly.sh", *words)
    assert code == 2
    assert "usage: nightly.sh" in stderr
    assert fake.calls() == []


def test_what_is_no_link_is_not_replaced(fake, runs):
    (runs / "latest" / "by hand").mkdir(parents=True)
    assert night(fake, runs)[0] == 2
    assert (runs / "latest" / "by hand").exists()
    assert fake.calls() == []


def test_a_missing_batchcam_is_told_with_what_to_do(fake, runs):
    (fake.folder / "batchcam").unlink()
    code, _, stderr = night(fake, runs)
    assert code == 1
    assert "no batchcam in" in stderr
    assert "PATH=" in stderr
    assert not runs.exists()


def crontab(**values: str | Path) -> tuple[dict[str, str], str]:
    """Return variables and command of the crontab, adapted as its header says: by its variables alone."""
    text = CRONTAB.read_text()
    variables = dict(re.findall(r"^([A-Z]+)=(.*)$", text, re.M))
    assert set(values) <= set(variables)
    (line,) = re.findall(r"^30 2 \* \* \* (.*)$", text, re.M)
    return {**variables, **{k: str(v) for k, v in values.items()}}, line


def test_crontab_is_one_that_cron_takes():
    text = CRONTAB.read_text()
    assert text.endswith("\n")
    variables, line = crontab()
    assert "%" not in line  # which would end the command
    assert not any("$" in value for value in variables.values())
    assert variables["PATH"].split(":") == ["/home/you/batchcam/.venv/bin", "/usr/bin", "/bin"]


def run_as_cron(variables: dict[str, str], line: str, home: Path) -> tuple[int, str, str]:
    assigned = [f"{k}={v}" for k, v in {"HOME": home, "LOGNAME": "you", "SHELL": "/bin/sh", **variables}.items()]
    ran = subprocess.run(["env", "-i", *assigned, "sh", "-c", line], cwd=home, capture_output=True, text=True)
    return ran.returncode, ran.stdout, ran.stderr


def test_crontab_line_works_in_crons_environment(fake, runs, tmp_path):
    variables, line = crontab(
        PATH=f"{fake.folder}:/usr/bin:/bin", JOBS=JOBS, MODEL="/a b/model.pth", DATA="/c d", RUNS=runs
    )
    assert run_as_cron(variables, line, tmp_path) == (0, "", "")
    assert fake.calls()[0] == ["explain", "/a b/model.pth", "/c d", "--out", f"{runs}/{NIGHT}"]
    assert latest(runs) == NIGHT


def test_crontab_is_installed_beside_others_by_the_command_in_it(fake, tmp_path):
    (fake.folder / "crontab").write_text('#!/bin/sh\ncd "$(dirname "$0")"\n[ "$1" = -l ] && cat tab || cat >new\n')
    (fake.folder / "crontab").chmod(0o755)
    (fake.folder / "tab").write_text("0 1 * * * something else\n")
    (command,) = re.findall(r"^#   (\(crontab .*)$", CRONTAB.read_text(), re.M)
    subprocess.run(["bash", "-c", command], cwd=JOBS.parent, env=fake.environment, check=True)
    lines = (fake.folder / "new").read_text().splitlines()
    assert lines[0] == "0 1 * * * something else"
    assert f"JOBS={JOBS}" in lines
    assert f"PATH={JOBS.parent}/.venv/bin:/usr/bin:/bin" in lines


def test_crontab_line_for_retraining_names_a_version_by_its_day(fake, tmp_path):
    variables, _ = crontab(PATH=f"{fake.folder}:/usr/bin:/bin", JOBS=JOBS, DATA="/c d")
    (line,) = re.findall(r"^# 0 20 \* \* 6 (.*)$", CRONTAB.read_text(), re.M)
    assert not re.search(r"(?<!\\)%", line)
    line = line.replace(r"\%", "%").replace("/home/you", str(tmp_path))  # as cron does; as its reader does
    assert run_as_cron(variables, line, tmp_path) == (0, "", "")
    assert latest(tmp_path / "models", "promoted") == NIGHT


def test_a_night_that_is_too_short_stops_early_and_says_so(fake, runs, tmp_path):
    variables, line = crontab(PATH=f"{fake.folder}:/usr/bin:/bin", JOBS=JOBS, RUNS=runs)
    fake.hang("explain")
    code, stdout, stderr = run_as_cron(variables, line.replace("timeout 5h", "timeout 1"), tmp_path)
    assert (code, stdout) == (124, "")  # timeout's own
    assert "stopped early at explain (exit code 75)" in stderr


@pytest.fixture
def real(tmp_path) -> dict[str, str]:
    """Variables of a crontab for the real batchcam, on nine images."""
    import torch

    from tests.helpers.networks import GapNetwork, seeded

    batchcam = Path(sys.executable).with_name("batchcam")
    if not batchcam.exists():
        pytest.skip("batchcam is not installed beside this Python")
    rng = np.random.default_rng(0)
    photos = tmp_path / "my photos"
    for name in ("ant", "bee", "cat"):
        (photos / name).mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(str(photos / name / f"{number}.png"), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    torch.save(seeded(GapNetwork).state_dict(), tmp_path / "my model.pth")
    variables, _ = crontab(
        PATH=f"{batchcam.parent}:/usr/bin:/bin", JOBS=JOBS,
        MODEL=tmp_path / "my model.pth", DATA=photos, RUNS=tmp_path / "my runs",
    )  # fmt: skip
    options = {
        "MODEL": "tests.helpers.networks:GapNetwork",
        "PREPROCESS": "stl10",
        "IMAGE_SIZE": "32",
        "SHARD_SIZE": "4",
    }
    options |= {"DEVICE": "cpu", "THREADS": "1", "WORKERS": "0", "BATCH_SIZE": "4"}
    return {**variables, **{f"BATCHCAM_{k}": v for k, v in options.items()}, "PYTHONPATH": str(ROOT)}


def test_the_real_job_finds_its_finished_run_and_changes_nothing(real, tmp_path):
    _, line = crontab()
    assert run_as_cron(real, line, tmp_path) == (0, "", "")
    runs = Path(real["RUNS"])
    run = runs / str(latest(runs))
    assert len(list(run.glob("shards/*.h5"))) == 3
    assert (runs / f"{run.name}.html").stat().st_size > 1000
    before = contents(runs)
    assert run_as_cron(real, line, tmp_path) == (0, "", "")
    assert contents(runs) == before


@pytest.mark.slow
def test_the_real_job_finishes_an_interrupted_run_while_the_data_are_the_same(real, fake, tmp_path):
    (fake.folder / "batchcam").unlink()  # only the date is not real
    _, line = crontab()
    variables = {**real, "PATH": f"{fake.folder}:{real['PATH']}"}
    interrupted = {**variables, "BATCHCAM_TIME_LIMIT": "0s"}
    runs = Path(real["RUNS"])

    assert run_as_cron(interrupted, line, tmp_path)[0] == 75
    assert (runs / NIGHT / "run.json").exists()
    assert latest(runs) is None
    fake.set_date("2026-11-25")
    assert run_as_cron(variables, line, tmp_path) == (0, "", "")
    assert latest(runs) == "2026-11-25"
    shards = [[p.read_bytes() for p in sorted(runs.glob(f"{day}/shards/*.h5"))] for day in (NIGHT, "2026-11-25")]
    assert shards[0] == shards[1]
    assert len(shards[0]) == 3

    fake.set_date("2026-11-26")
    assert run_as_cron(interrupted, line, tmp_path)[0] == 75
    shutil.copy(Path(real["DATA"]) / "ant" / "0.png", Path(real["DATA"]) / "ant" / "new.png")
    fake.set_date("2026-11-27")
    code, _, stderr = run_as_cron(variables, line, tmp_path)
    assert code == 0
    assert "2026-11-26: interrupted, and can't be finished now" in stderr
    assert not (runs / "2026-11-26" / "manifest.json").exists()
    assert latest(runs) == "2026-11-27"


# cron in the foreground, with its own crontabs, lock and mail: nothing of the machine's is read, run or written
REAL_CRON = """
set -eu
here=$1
mount -t tmpfs none /etc/cron.d
mount -t tmpfs none /run
mount -t tmpfs -o mode=1730,gid="$(stat -c %g /var/spool/cron/crontabs)" none /var/spool/cron/crontabs
mount --bind /dev/null /etc/crontab
mkdir "$here/sbin"
cp "$(command -v cron)" "$here/sbin"
printf '#!/bin/sh\\ncat >"%s/mail.$$"\\n' "$here" >"$here/sbin/sendmail"
chmod +x "$here/sbin/sendmail"
mount --bind "$here/sbin" /usr/sbin
crontab "$here/crontab"
exec /usr/sbin/cron -f
"""


# up to a minute: cron looks at its crontabs when one begins
def test_real_cron_starts_the_line_and_mails_a_second_start(real, tmp_path):
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    namespace = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    for tool in ("cron", "crontab", "unshare"):
        if not shutil.which(tool, path=path):
            pytest.skip(f"{tool} is not installed")
    if os.geteuid() != 0 or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("may not unshare namespaces: root with CAP_SYS_ADMIN can")
    _, line = crontab()
    lines = [*(f"{k}={v}" for k, v in real.items()), f"* * * * * {line}", f"* * * * * {line}"]
    (tmp_path / "crontab").write_text("\n".join(lines) + "\n")
    runs = Path(real["RUNS"])
    cron = subprocess.Popen([*namespace, "sh", "-c", REAL_CRON, "sh", tmp_path], env={**os.environ, "PATH": path})
    try:
        wait_until(lambda: list(tmp_path.glob("mail.*")) and list(runs.glob("*.html")), timeout_s=120)
    finally:
        cron.kill()
        cron.wait()
    (mail,) = tmp_path.glob("mail.*")
    assert re.search(r"not started: process \d+ on .* is at work in ", mail.read_text())
    assert (runs / "latest" / "manifest.json").exists()
    assert (runs / f"{latest(runs)}.log").read_text().count(" batchcam explain ") == 1


def test_a_run_of_nothing_moves_no_link_and_pushes_no_run_out(fake, runs):
    make_runs(runs, "2026-11-20", "2026-11-21")
    write_totals(runs / "2026-11-20", samples=30, unreadable=2)
    make_runs(runs, "2026-11-22", "2026-11-23")
    for name in ("2026-11-22", "2026-11-23", NIGHT):
        write_totals(runs / name, samples=30, unreadable=16)
    os.symlink("2026-11-21", runs / "latest")
    fake.answer(explain=3)
    code, _, told = night(fake, runs, "--keep", "2")
    assert (code, latest(runs)) == (3, "2026-11-21")
    assert "most images could not be read" in told
    assert {p.name for p in runs.iterdir() if p.is_dir()} >= {"2026-11-20", "2026-11-21"}
    assert not (runs / f"{NIGHT}.html").exists()


def test_the_next_start_tries_a_run_of_nothing_again(fake, runs):
    write_totals(runs / NIGHT, samples=30, unreadable=30)
    fake.answer(explain=3)
    night(fake, runs)
    assert fake.calls()[0][-1] == "--retry-unreadable"
    write_totals(runs / NIGHT, samples=30, unreadable=3)
    night(fake, runs)
    assert "--retry-unreadable" not in fake.calls()[0]
    assert latest(runs) == NIGHT
