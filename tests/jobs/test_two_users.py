"""Whole nights of two members of a group, one after the other, in a folder that they share or do not: real users."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pytest

from tests.helpers import ROOT
from tests.helpers.fake_batchcam import Fake, latest

GROUP, FIRST, SECOND = 4700, 4711, 4712
DAYS = ("2026-11-24", "2026-11-25", "2026-11-26")

# this Python may lie where only root gets; the steps of a night start it again
AS_USER = """
set -eu
mount --bind "$1" "$2"
umask "$4"
shift 4
exec setpriv --reuid "$USER_ID" --regid "$GROUP_ID" --clear-groups "$@"
"""

pytestmark = pytest.mark.slow


class Desk:
    """A place that everyone may enter, with photos and a network that everyone may read."""

    def __init__(self, place: Path) -> None:
        import torch

        from tests.helpers.networks import GapNetwork, seeded

        self.runs, self.fake, self.python = place / "runs", Fake(place / "bin"), place / "python"
        self.python.mkdir()
        self.executable = self.python / Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve())
        (self.fake.folder / "batchcam").write_text(f'#!/bin/sh\nexec "{self.executable}" -m batchcam "$@"\n')
        rng = np.random.default_rng(0)
        for number in range(6):
            folder = place / "photos" / ("ant", "bee", "cat")[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        torch.save(seeded(GapNetwork).state_dict(), place / "model.pth")
        subprocess.run(["chmod", "-R", "a+rX", place], check=True)

    def share(self) -> None:
        """Make the folder of runs, of the first user and with rights for the group."""
        self.runs.mkdir()
        os.chown(self.runs, FIRST, GROUP)
        self.runs.chmod(0o2770)

    def night(self, user: int, umask: str, day: str, *options: str, **variables: str) -> tuple[int, str]:
        """Return exit code and stderr of a night of a user."""
        self.fake.set_date(day)
        (self.fake.folder / "date-is").chmod(0o644)
        place = self.runs.parent
        words = [self.executable, "-m", "tests.helpers.fake_batchcam", self.fake.folder, "nightly", *options]
        words += [place / "model.pth", place / "photos", self.runs, "--model", "tests.helpers.networks:GapNetwork"]
        words += ["--preprocess", "stl10", "--image-size", "16", "--device", "cpu", "--threads", "1", "--workers", "0"]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("-packages"))]),
            "LD_LIBRARY_PATH": str(self.python / "lib"),
            "USER_ID": str(user),
            "GROUP_ID": str(GROUP),
            **variables,
        }
        command = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            AS_USER,
            "sh",
            sys.base_prefix,
            self.python,
            "umask",
            umask,
            *words,
        ]
        done = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, timeout=120)
        assert done.stdout == ""
        return done.returncode, done.stderr


@pytest.fixture
def desk() -> Iterator[Desk]:
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("only root can be two users, and only with CAP_SYS_ADMIN let them start this Python")
    with TemporaryDirectory(dir="/tmp") as place:  # others may enter it, unlike pytest's own
        Path(place).chmod(0o777)
        yield Desk(Path(place))


@pytest.mark.parametrize("umask", ["022", "027", "077"])
def test_two_users_of_a_shared_folder_finish_and_remove_each_others_runs(desk: Desk, umask: str) -> None:
    desk.share()
    code, told = desk.night(FIRST, umask, DAYS[0], BATCHCAM_TIME_LIMIT="0s")
    assert code == 75, told
    for user, day in ((SECOND, DAYS[1]), (FIRST, DAYS[2])):
        assert desk.night(user, umask, day, "--keep", "1") == (0, "")
        assert latest(desk.runs) == day
        assert [run.name for run in desk.runs.glob("2*") if run.is_dir()] == [day]


@pytest.mark.parametrize("umask", ["022", "027", "077"])
def test_the_second_user_of_a_folder_that_is_not_shared_is_told_in_one_line_how_to_share_it(
    desk: Desk, umask: str
) -> None:
    assert desk.night(FIRST, umask, DAYS[0]) == (0, "")
    code, told = desk.night(SECOND, umask, DAYS[1])
    assert (code, told.count("\n")) == (1, 1), told
    assert f"may not write there; to share it with a group, user {FIRST} runs: chmod g+rwxs {desk.runs}" in told
    assert latest(desk.runs) == DAYS[0]
