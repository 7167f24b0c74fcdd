"""jobs/nightly.sh starts `batchcam nightly`; the crontab starts jobs/nightly.sh; cron itself does."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import batchcam
from tests.helpers import ROOT
from tests.helpers.fake_batchcam import JOBS, Fake, contents, latest, wait_until

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


def night(fake: Fake, runs: Path) -> tuple[int, str, str]:
    return fake.script("nightly.sh", "my model.pth", "my photos", runs)


@pytest.mark.parametrize("code", [0, 3, 75, 1])
def test_the_script_passes_words_and_exit_code_on(tmp_path, code):
    program = tmp_path / "batchcam"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@"\nexit {code}\n')
    program.chmod(0o755)
    for script, command in (("nightly.sh", "nightly"), ("retrain.sh", "retrain")):
        words = [JOBS / script, "--keep", "3", "a b.pth", "c", "d", "--device", "cpu"]
        done = subprocess.run(words, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True)
        assert (done.returncode, done.stdout.splitlines()) == (code, [command, *words[1:]])


def test_a_second_start_ends_at_once_while_the_first_hangs(fake, runs):
    fake.hang("explain")
    first = fake.start("nightly.sh", "my model.pth", "my photos", runs)
    wait_until((runs / NIGHT / "run.json").exists)
    code, stdout, stderr = night(fake, runs)
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
    assert latest(tmp_path / "models", "promoted") == datetime.date.today().isoformat()


# as timeout(1) does once the time is over: to the process, then to its group, of which that is one
TIMEOUT = """#!/bin/sh
shift
"$@" &
until [ -n "$(find "$RUNS" -name run.json)" ]; do sleep 0.05; done
kill $! && kill $!
wait $!
exit 124
"""


def test_a_night_that_is_too_short_stops_early_and_says_so(fake, runs, tmp_path):
    variables, line = crontab(PATH=f"{fake.folder}:/usr/bin:/bin", JOBS=JOBS, RUNS=runs)
    fake.hang("explain")
    runs.mkdir()
    (fake.folder / "timeout").write_text(TIMEOUT)
    (fake.folder / "timeout").chmod(0o755)
    code, stdout, stderr = run_as_cron(variables, line, tmp_path)
    assert (code, stdout) == (124, "")
    assert "stopped early at explain (exit code 75)" in stderr


def test_a_mail_is_a_letter_and_no_log(runs, tmp_path):
    words = [sys.executable, "-m", "batchcam", "nightly", tmp_path / "none.pth", tmp_path / "photos", runs]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    head, _, to_do = done.stderr.splitlines()[:3]
    assert done.returncode == 1
    assert head.startswith(f"batchcam nightly: {runs}/")
    assert to_do.startswith("What to do: ")


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
def test_the_real_job_finishes_an_interrupted_run_while_the_model_is_the_same(real, fake, tmp_path):
    torch = pytest.importorskip("torch")
    fake.do_real_steps()
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
    weights = torch.load(real["MODEL"])
    torch.save({name: 2 * value for name, value in weights.items()}, real["MODEL"])
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


def test_real_cron_starts_the_line_and_mails_a_second_start(real, tmp_path):
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    namespace = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    for tool in ("cron", "crontab", "unshare"):
        if not shutil.which(tool, path=path):
            pytest.skip(f"{tool} is not installed")
    if os.geteuid() != 0 or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("may not unshare namespaces: root with CAP_SYS_ADMIN can")
    _, line = crontab()
    # cron starts these with itself, and all others when the next minute begins
    lines = [*(f"{k}={v}" for k, v in real.items()), *[f"@reboot {line}"] * 2]
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


@pytest.mark.slow
def test_a_growing_folder_is_explained_once_a_photo_however_short_the_nights(real, fake, tmp_path):
    fake.do_real_steps()
    variables = {**real, "PATH": f"{fake.folder}:{real['PATH']}"}
    runs, photos = Path(real["RUNS"]), Path(real["DATA"])
    nightly = '"$JOBS/nightly.sh" --incremental "$MODEL" "$DATA" "$RUNS"'

    def night(day: str, **more: str) -> tuple[int, str, str]:
        fake.set_date(day)
        return run_as_cron({**variables, **more}, nightly, tmp_path)

    def came(name: str) -> None:
        shutil.copy(photos / "ant" / "0.png", photos / "bee" / name)

    assert night("2026-11-24", BATCHCAM_TIME_LIMIT="0s")[0] == 75
    came("second.png")
    third = [*("--task", "0/3", "--share-only"), *("--out", str(runs / NIGHT))]  # what a night had time for
    explain = [sys.executable, "-m", "batchcam", "explain", real["MODEL"], real["DATA"], *third]
    assert subprocess.run(explain, env={**os.environ, **real}).returncode == 0
    assert night("2026-11-25", BATCHCAM_TIME_LIMIT="0s")[0] == 75
    came("third.png")
    assert night("2026-11-26") == (0, "", "")
    assert night("2026-11-27") == (0, "", "")

    made = {run.name: run for run in runs.iterdir() if run.is_dir() and not run.is_symlink()}
    assert set(made) == {"2026-11-24", "2026-11-26"}
    ids = []
    for run in made.values():
        with batchcam.open_run(run) as opened:
            assert opened.complete
            ids += opened.sample_id[:].tolist()
    assert sorted(ids) == sorted(str(p.relative_to(photos)) for p in photos.rglob("*.png"))
    assert latest(runs) == "2026-11-26"
