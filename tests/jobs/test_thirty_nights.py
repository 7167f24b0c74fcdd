"""Thirty real nights in a row, a fault in each third one: `latest` is always a sound run, and the disk is bounded."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from tests.helpers import ROOT
from tests.helpers.fake_batchcam import latest

FIRST = datetime.date(2026, 11, 1)
KEEP = 3
DISK = 24 * 2**20

pytestmark = pytest.mark.slow


def later(count: int) -> str:
    return str(FIRST + datetime.timedelta(count))


class Job:
    """What a crontab starts, with the clock of faketime, on eighteen photos and a small disk for the runs."""

    def __init__(self, place: Path, runs: Path) -> None:
        self.place, self.runs, self.photos = place, runs, place / "photos"
        rng = np.random.default_rng(0)
        for number in range(18):
            folder = self.photos / ("ant", "bee", "cat")[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
        self.train(0)

    def train(self, seed: int) -> None:
        import torch

        from tests.helpers.networks import GapNetwork, seeded

        torch.save(seeded(GapNetwork, seed).state_dict(), self.place / "model.pth")

    def start(self, day: str, **variables: str) -> subprocess.Popen[str]:
        options = {"MODEL": "tests.helpers.networks:GapNetwork", "PREPROCESS": "stl10", "IMAGE_SIZE": "96"}
        options |= {"SHARD_SIZE": "6", "BATCH_SIZE": "6", "DEVICE": "cpu", "THREADS": "1", "WORKERS": "0", **variables}
        faked = {"NO_FAKE_STAT": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "PYTHONPATH": str(ROOT)}
        command = [
            "faketime",
            "-f",
            f"@{day} 02:30:00",
            sys.executable,
            "-m",
            "batchcam",
            "nightly",
            "--keep",
            f"{KEEP}",
        ]
        return subprocess.Popen(
            [*command, self.place / "model.pth", self.photos, self.runs],
            env={**os.environ, **faked, **{f"BATCHCAM_{name}": value for name, value in options.items()}},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def night(self, day: str, **variables: str) -> tuple[int, str]:
        """Return exit code and mail of a night."""
        with self.start(day, **variables) as process:
            _, told = process.communicate(timeout=300)
        return process.returncode, told

    def disturbed(self, day: str, when: Callable[[], object], act: Callable[[int], None]) -> tuple[int, str]:
        """Return the same of one that something happens to, which is told the process group."""
        with self.start(day) as process:
            deadline = time.monotonic() + 120
            while not when() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            act(process.pid)
            _, told = process.communicate(timeout=300)
        return process.returncode, told


def out_of_time(job: Job, day: str) -> None:
    code, told = job.night(day, TIME_LIMIT="0s")
    assert (code, "stopped early at explain" in told) == (75, True)


def killed(job: Job, day: str) -> None:
    job.disturbed(
        day, lambda: list(job.runs.glob(f"{day}/shards/*.h5")), lambda group: os.killpg(group, signal.SIGKILL)
    )


def terminated(job: Job, day: str) -> None:
    job.disturbed(day, (job.runs / day / "run.json").exists, lambda group: os.killpg(group, signal.SIGTERM))


def disk_full(job: Job, day: str) -> None:
    ballast = job.runs / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(job.runs).free - 150_000)))
    assert job.night(day) == (0, "")
    ballast.unlink()


def storage_away(job: Job, day: str) -> None:
    content = {path: path.read_bytes() for path in job.photos.rglob("*.png")}
    for path in content:
        path.write_bytes(b"")
    code, told = job.night(day)
    assert (code, "is the storage there?" in told) == (75, True)
    for path, data in content.items():
        path.write_bytes(data)


def other_kind(job: Job, day: str) -> None:
    content = {path: path.read_bytes() for path in job.photos.rglob("*.png")}
    for path in content:
        cv2.imwrite(str(path), np.full((48, 48), 4095, np.uint16))
    code, told = job.night(day)
    assert (code, "such as --bits 12" in told, "storage" in told) == (1, True, False)
    for path, data in content.items():
        path.write_bytes(data)


def wrong_clock(job: Job, day: str) -> None:
    assert job.night("2031-05-05") == (0, "")
    code, told = job.night(day)
    assert (code, latest(job.runs)) == (0, day)
    assert told.startswith(f"batchcam nightly: {job.runs}/2031-05-05 is dated after today, {day}: ")
    shutil.rmtree(job.runs / "2031-05-05")


def other_model(job: Job, day: str) -> None:
    out_of_time(job, day)
    job.train(7)
    code, told = job.night(str(datetime.date.fromisoformat(day) + datetime.timedelta(1)))
    assert (code, f"{day}: interrupted, and can't be finished now" in told) == (0, True)


def bit_rot(job: Job, day: str) -> None:
    def flip(group: int) -> None:
        shard = min(job.runs.glob(f"{day}/shards/*.h5"))
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)

    code, told = job.disturbed(day, (job.runs / day / "manifest.json").exists, flip)
    assert (code, "verify failed (exit code 3)" in told) == (3, True)


def second_start(job: Job, day: str) -> None:
    def start_again(group: int) -> None:
        code, told = job.night(day)
        assert (code, f" on {os.uname().nodename}, since {day} 02:30:" in told) == (75, True)

    assert job.disturbed(day, (job.runs / day).exists, start_again) == (0, "")


FAULTS = (
    out_of_time, killed, disk_full, storage_away, wrong_clock, other_model, terminated, bit_rot, second_start,
    other_kind,
)  # fmt: skip


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    if not shutil.which("faketime"):
        pytest.skip("faketime is not installed")
    runs = tmp_path / "runs"
    runs.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", runs]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a small disk: root with CAP_SYS_ADMIN can")
    try:
        yield Job(tmp_path, runs)
    finally:
        subprocess.run(["umount", runs], check=True)


def test_latest_is_always_a_sound_run_and_the_disk_is_bounded_over_thirty_nights(job: Job) -> None:
    most, nights = 0, 0
    while nights < 30:
        day = later(nights)
        nights += 1
        fault = FAULTS[nights // 3 - 1] if nights % 3 == 0 else None
        if fault:
            fault(job, day)
            nights += fault is other_model
        else:
            assert job.night(day) == (0, "")
        newest = latest(job.runs)
        assert newest is not None
        assert verify(VerifyConfig(job.runs / newest, quiet=True)).found == []
        if nights == KEEP + 1:
            most = shutil.disk_usage(job.runs).used
        if nights > KEEP + 1:
            assert shutil.disk_usage(job.runs).used < 2 * most
