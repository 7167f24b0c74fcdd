"""A disk that fails or fills while run.h5 is written: one line, the right exit code, no crash, nothing half done."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchcam.errors import EXIT_FAILED, EXIT_FINDINGS, EXIT_STOPPED_EARLY
from batchcam.store import landing

EXIT_OF = {errno.ENOSPC: EXIT_STOPPED_EARLY, errno.EDQUOT: EXIT_STOPPED_EARLY, errno.EIO: EXIT_FAILED}

MERGE = """
import os, sys
from batchcam.cli import main
from batchcam.store import sink

run, call, number, code, lasting = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "on"
sink.BLOCK_BYTES, sink.BLOCKS = 4096, 2  # so that run.h5 of a small run is written in many pieces
real, count = getattr(os, call), 0

def counted(*arguments):
    global count
    count += 1
    if count == number or (lasting and 0 < number < count):
        raise OSError(code, os.strerror(code))
    return real(*arguments)

setattr(os, call, counted)
try:
    main(["merge", run])
finally:
    print(count)
"""


def merged(run: Path, call: str, number: int = 0, code: int = 0, lasting: str = "once") -> tuple[int, int, str]:
    """Merge in a process of its own, to its very end; return exit code, calls and what it told."""
    command = [sys.executable, "-c", MERGE, run, call, str(number), str(code), lasting]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode >= 0, f"{call} {number}: killed by signal {-ended.returncode}"
    return ended.returncode, int(ended.stdout.split()[-1]), ended.stderr


@pytest.fixture(scope="module")
def unmerged(tmp_path_factory, sound_run: Path) -> Path:
    """The finished run without what merging makes."""
    run = Path(shutil.copytree(sound_run, tmp_path_factory.mktemp("unmerged") / "run"))
    for name in ("run.h5", "run.h5.sha256", "manifest.json"):
        (run / name).unlink()
    return run


def failing_leaves_nothing(unmerged: Path, sound_run: Path, run: Path, call: str, number: int, code: int, lasting: str):
    """Merge while a call fails; then again on a sound disk."""
    shutil.copytree(unmerged, run)
    ended, _, told = merged(run, call, number, code, lasting)
    case = f"{errno.errorcode[code]} from {call} {number}: {told!r}"
    assert ended == EXIT_OF[code], case
    assert (told.count("\n"), told.startswith("batchcam: error: "), os.strerror(code) in told) == (1, True, True), case
    if (run / "run.h5").exists():  # the manifest could not be written, or its name not be synced
        assert landing.read_digest(run / "run.h5") == landing.file_digest(run / "run.h5"), case
    assert (run / "run.h5").exists() or not (run / "manifest.json").exists(), case
    assert not list(run.glob(".*")), case
    assert merged(run, call)[0] == EXIT_FINDINGS  # of the samples, as in the undisturbed run
    assert (run / "run.h5").read_bytes() == (sound_run / "run.h5").read_bytes()
    shutil.rmtree(run)


@pytest.mark.parametrize(("number", "code"), [(1, errno.ENOSPC), (9, errno.ENOSPC), (5, errno.EIO)])
def test_merge_ends_well_when_a_write_fails(unmerged, sound_run, tmp_path, number: int, code: int) -> None:
    failing_leaves_nothing(unmerged, sound_run, tmp_path / "run", "write", number, code, "on")


@pytest.mark.slow
@pytest.mark.parametrize("lasting", ["once", "on"])
@pytest.mark.parametrize("call", ["write", "fsync", "pread", "ftruncate"])
def test_merge_ends_well_whichever_call_fails(unmerged, sound_run, tmp_path, call: str, lasting: str) -> None:
    shutil.copytree(unmerged, tmp_path / "undisturbed")
    _, calls, _ = merged(tmp_path / "undisturbed", call)
    assert calls > 10 or call in ("fsync", "ftruncate")
    for number in range(1, calls + 1):
        code = list(EXIT_OF)[number % len(EXIT_OF)]
        failing_leaves_nothing(unmerged, sound_run, tmp_path / "run", call, number, code, lasting)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory; its size is set by mounting it again."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_merge_ends_well_on_a_disk_that_is_full(unmerged: Path, sound_run: Path, small_disk: Path) -> None:
    run = Path(shutil.copytree(unmerged, small_disk / "run"))
    used = shutil.disk_usage(small_disk).used
    for free in range(0, (sound_run / "run.h5").stat().st_size, 8192):
        subprocess.run(["mount", "-o", f"remount,size={used + free}", str(small_disk)], check=True)
        ended, _, told = merged(run, "write")
        assert ended == EXIT_STOPPED_EARLY, f"{free} bytes free: {told}"
        assert (told.count("\n"), "No space left on device" in told) == (1, True)
        assert [p.name for p in run.glob("*run.h5*")] == []
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert merged(run, "write")[0] == EXIT_FINDINGS
    assert (run / "run.h5").read_bytes() == (sound_run / "run.h5").read_bytes()
