"""A process of its own for files that nobody vouches for: whatever it does, its parent goes on and says what it was."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from batchcam.errors import CheckerError, OutOfMemoryError, RunError, StoppedEarlyError
from batchcam.job import confinement
from batchcam.job.confined import DiedError, ask
from batchcam.job.stop import Stop
from tests.helpers.misbehaviour import map_a_terabyte


def has_landlock(version: int = 1) -> bool:
    if sys.platform != "linux":
        return False
    number, flag = ctypes.c_long(confinement.LANDLOCK_CREATE_RULESET), ctypes.c_uint32(1)
    return int(ctypes.CDLL(None).syscall(number, None, ctypes.c_size_t(0), flag)) >= version


needs_landlock = pytest.mark.skipif(not has_landlock(), reason="a kernel without Landlock")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/inside").write_text("content")
    (tmp_path / "outside").write_text("secret")
    return tmp_path / "run"


def ask_for(folder: Path, what: str, **more: Any) -> list[dict[str, Any]]:
    return list(ask("tests.helpers.misbehaviour", folder, what=what, **more))


def test_the_child_reads_in_its_folder_and_tells(folder: Path) -> None:
    first, second = ask_for(folder, "work")
    assert first["pid"] != os.getpid()
    assert second["read"] == "content"


def test_an_error_of_ours_comes_back_as_it_was(folder: Path) -> None:
    with pytest.raises(RunError, match=r"^RUN: no run at all$"):
        ask_for(folder, "raise_ours")


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("raise_another", "^of ours$"),
        ("crash", r"the HDF5 library crashed \(SIGSEGV\)"),
        ("abort", r"the HDF5 library crashed \(SIGABRT\)"),
        ("leave_early", "ended with code 0"),
        ("babble", "in the middle of a word"),
        ("never_end", "s of computing time"),
    ],
)
def test_a_child_that_fails_is_told_by_how(folder: Path, what: str, how: str) -> None:
    with pytest.raises(DiedError, match=how):
        ask_for(folder, what)


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("be_killed", "killed, maybe for want of memory"),
        ("take_memory", "Cannot allocate memory"),
        ("have_too_little_memory", "needs more memory than there is"),
    ],
)
def test_a_child_that_lacks_memory_says_nothing_about_the_folder(folder: Path, what: str, how: str) -> None:
    with pytest.raises(OutOfMemoryError, match=how):
        ask_for(folder, what)


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ("raise ImportError('libGL.so.1: no such file')", "ImportError: libGL.so.1: no such file"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os; os._exit(0)", "its process ended with code 0"),
        ("import os; os.abort()", r"its process crashed \(SIGABRT\)"),
        ("import os; os.kill(os.getpid(), 9)", "killed, maybe for want of memory"),
        (
            "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); bytearray(2**31)",
            "MemoryError",
        ),
        ("import sys; sys.__stdout__.write('\\0not JSON\\n'); sys.__stdout__.flush(); raise OSError(1)", "OSError: 1"),
    ],
)
def test_a_child_that_ends_before_it_reads_says_nothing_about_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, how: str
) -> None:
    (folder.parent / "cannot_start.py").write_text(source)
    monkeypatch.syspath_prepend(folder.parent)
    with pytest.raises(CheckerError, match=rf"^the checker cannot start: .*{how}; nothing was checked\."):
        list(ask("cannot_start", folder))


def test_a_child_that_a_schedulers_signal_ends_before_it_reads_stops_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the whole process group gets it
    source = "import os; os.kill(os.getppid(), 15); os.kill(os.getpid(), 9)"
    (folder.parent / "stopped.py").write_text(source)
    monkeypatch.syspath_prepend(folder.parent)
    with Stop(), pytest.raises(StoppedEarlyError, match="SIGTERM"):
        list(ask("stopped", folder))


def test_what_is_printed_before_the_child_is_ready_is_no_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "sitecustomize.py").write_text("print('welcome')")
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    assert ask_for(folder, "work")[1]["read"] == "content"


def test_no_process_left_says_nothing_about_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(folder / "no-python"))
    with pytest.raises(CheckerError, match="No such file or directory; nothing was checked"):
        ask_for(folder, "work")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_memory_is_there_without_the_limit() -> None:
    map_a_terabyte()


def test_messages_before_the_end_arrive(folder: Path) -> None:
    messages = ask("tests.helpers.misbehaviour", folder, what="crash")
    assert "pid" in next(messages)
    with pytest.raises(DiedError):
        next(messages)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_child_whose_answer_nobody_waits_for_is_ended(folder: Path) -> None:
    messages = ask("tests.helpers.misbehaviour", folder, what="sleep")
    pid = next(messages)["pid"]
    assert is_running(pid)
    messages.close()
    assert ended(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends it with its parent")
def test_a_child_ends_with_its_parent(folder: Path) -> None:
    code = "import sys; from pathlib import Path; from batchcam.job.confined import ask\n"
    code += "for message in ask('tests.helpers.misbehaviour', Path(sys.argv[1]), what='sleep'):\n"
    code += "    print(message['pid'], flush=True)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.send_signal(signal.SIGKILL)
    assert ended(pid)


@needs_landlock
@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "/proc/self/environ"])
def test_the_child_can_not_read_outside_of_its_folder(folder: Path, path: str) -> None:
    assert (folder / path).exists()
    with pytest.raises(DiedError, match="Permission denied"):
        ask_for(folder, "read", path=str(folder / path))


@needs_landlock
def test_a_link_does_not_lead_the_child_out(folder: Path) -> None:
    (folder / "link").symlink_to(folder.parent / "outside")
    with pytest.raises(DiedError, match="Permission denied"):
        ask_for(folder, "read", path=str(folder / "link"))


@needs_landlock
def test_the_child_can_not_write(folder: Path) -> None:
    with pytest.raises(DiedError, match="Permission denied"):
        ask_for(folder, "write")
    assert [p.name for p in folder.iterdir()] == ["inside"]


@pytest.mark.skipif(not has_landlock(4), reason="a kernel whose Landlock knows no connections")
def test_the_child_can_not_connect(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(DiedError, match="Permission denied"):
        ask_for(folder, "connect", port=server.getsockname()[1])


def test_the_environment_moves_no_file_of_hdf5(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    redirecting = ("HDF5_PLUGIN_PATH", "HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX", "HDF5_VOL_CONNECTOR", "HDF5_DRIVER")
    for name in (*redirecting, "HDF5_PLUGIN_PRELOAD", "HDF5_USE_FILE_LOCKING"):
        monkeypatch.setenv(name, "ours")
    environment = ask_for(folder, "work")[1]["environment"]
    seen = {name: value for name, value in environment.items() if name.startswith("HDF5_")}
    assert seen == {"HDF5_PLUGIN_PRELOAD": "::", "HDF5_USE_FILE_LOCKING": "ours"}


def test_modules_in_the_working_directory_are_not_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "numpy", "ctypes", "batchcam", "tests"):
        (folder / f"{name}.py").write_text("import os; os._exit(99)")
    monkeypatch.chdir(folder)
    path = ask_for(folder, "path")[1]["path"]
    assert "" not in path
    assert str(folder) not in path


def test_the_working_directory_would_be_imported_by_a_plain_child(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "json.py").write_text("import os; os._exit(99)")
    monkeypatch.chdir(folder)
    assert subprocess.run([sys.executable, "-c", "import json"], check=False).returncode == 99
