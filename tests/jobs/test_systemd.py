"""batchcam-nightly.service and .timer: systemd takes them as they are installed, and the service starts a night."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.fake_batchcam import JOBS, Fake, latest

NIGHT = "2026-11-24"
SERVICE, TIMER = JOBS / "batchcam-nightly.service", JOBS / "batchcam-nightly.timer"

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


def commands() -> list[str]:
    """The commands in the timer's header that install both."""
    return re.findall(r"^#   (.*)$", TIMER.read_text(), re.M)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The folder of a user's units, into which the header's commands have put both."""
    writing = [line for line in commands() if "systemctl" not in line and "loginctl" not in line]
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run(["bash", "-ec", "\n".join(writing)], cwd=JOBS.parent, env=home, check=True)
    return tmp_path / ".config/systemd/user"


def found(units: Path, name: str) -> list[str]:
    """What systemd says of our units, of all that it looks at."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(units)}
    words = ["systemd-analyze", "verify", "--user", "--man=no", units / name]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if "batchcam" in line]


@needs_systemd
@pytest.mark.parametrize("unit", [SERVICE, TIMER], ids=lambda unit: unit.name)
def test_systemd_finds_nothing_in_a_unit(units: Path, unit: Path) -> None:
    assert found(units, unit.name) == []


@needs_systemd
def test_systemd_would_find_a_key_that_it_does_not_know(units: Path) -> None:
    with (units / SERVICE.name).open("a") as file:
        file.write("SuccesExitStatus=75\n")
    (line,) = found(units, SERVICE.name)
    assert "SuccesExitStatus" in line


def test_the_units_are_installed_with_this_folder_in_them(units: Path) -> None:
    assert sorted(path.name for path in units.iterdir()) == [SERVICE.name, TIMER.name]
    text = (units / SERVICE.name).read_text()
    assert f"ExecStart={JOBS}/nightly.sh" in text
    assert f"Environment=PATH={JOBS.parent}/.venv/bin:" in text


def test_the_service_starts_a_night(tmp_path: Path) -> None:
    fake, runs = Fake(tmp_path / "bin"), tmp_path / "all my runs"
    fake.set_date(NIGHT)
    text = SERVICE.read_text()
    variables = dict(re.findall(r"^Environment=([A-Z]+)=(.*)$", text, re.M))
    variables |= {
        "PATH": f"{fake.folder}:/usr/bin:/bin",
        "DATA": "/my photos",
        "RUNS": str(runs),
        "HOME": str(tmp_path),
    }
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.M)
    # a variable that is a word is one word, whatever it holds: systemd.service(5), "Command lines"
    words = [re.sub(r"^\$\{(\w+)\}$", lambda name: variables[name[1]], word) for word in shlex.split(line)]
    words[0] = words[0].replace("/home/you/batchcam/jobs", str(JOBS))
    done = subprocess.run(words, env=variables, cwd="/", capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    explained = ["explain", variables["MODEL"], "/my photos", "--out", f"{runs}/{NIGHT}", "--time-limit", "5h"]
    assert fake.calls()[0] == explained
    assert latest(runs) == NIGHT


def test_a_missed_night_is_made_up_for_and_one_that_stopped_early_is_no_failure() -> None:
    assert "\nPersistent=true\n" in TIMER.read_text()
    assert "\nSuccessExitStatus=75\n" in SERVICE.read_text()
    assert SERVICE.stem == TIMER.stem  # which is how the timer finds it
