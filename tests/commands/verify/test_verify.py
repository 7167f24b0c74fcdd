"""verify where it cannot start, and where it can: what keeps the checker from working is never a finding."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from batchcam.commands.verify import verify as verify_module
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.inspection import inspect
from batchcam.commands.verify.shards import Seen, ShardReader
from batchcam.commands.verify.verify import verify
from batchcam.errors import OutOfMemoryError
from batchcam.job.crew import EndedError
from batchcam.store.plan import Shard
from tests.helpers import ROOT, damage

VERIFY = (sys.executable, "-m", "batchcam", "verify")


def environment(*first: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*first, ROOT)))}


def libraries(name: str) -> list[str]:
    """Return where the dynamic linker finds a library."""
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    return re.findall(rf"^\s*{re.escape(name)} .* => (.*)$", known, re.MULTILINE)


@pytest.mark.parametrize(
    ("cv2", "cause"),
    [
        ("raise ImportError('libGL.so.1: cannot open shared object file')", "ImportError: libGL.so.1: cannot open"),
        ("import os; os.kill(os.getpid(), 9)", "killed, maybe for want of memory"),
        ("import os; os.abort()", "its process crashed (SIGABRT)"),
    ],
)
def test_a_checker_that_cannot_start_is_a_failure_and_no_finding(
    sound_run: Path, tmp_path: Path, cv2: str, cause: str
) -> None:
    (tmp_path / "cv2.py").write_text(cv2)
    done = subprocess.run([*VERIFY, sound_run, "--json"], env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("batchcam: error: the checker cannot start: ")
    assert cause in line
    error = line.removeprefix("batchcam: error: ")
    assert json.loads(done.stdout) == {"error": error, "error_kind": None, "exit_code": 1}


def test_verify_needs_no_library_of_a_display(sound_run: Path) -> None:
    if not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("may not unshare the mount namespace: root with CAP_SYS_ADMIN can")
    hidden = libraries("libGL.so.1") + libraries("libgthread-2.0.so.0")
    script = 'while [ "$1" != -- ]; do mount --bind /dev/null "$1"; shift; done; shift; exec "$@"'
    hiding = ["unshare", "--mount", "bash", "-ec", script, "bash", *hidden, "--"]
    for library in hidden:
        assert subprocess.run([*hiding, "test", "-s", library]).returncode == 1
    done = subprocess.run([*hiding, *VERIFY, sound_run], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("damaged", [None, damage.wrong_logit, damage.bias_changed, damage.run_h5_flipped])
def test_several_processes_find_what_one_finds(finished_run: Path, damaged) -> None:
    if damaged:
        damaged(finished_run)
    by_one, by_two, by_many = (verify(VerifyConfig(finished_run, workers=n, quiet=True)) for n in (0, 2, 16))
    assert by_one == by_two == by_many
    assert by_one.samples == 21


def test_the_file_is_told_that_ends_one_of_several_processes(finished_run: Path, monkeypatch) -> None:
    read = ShardReader.read

    def dying(reader: ShardReader, shard: Shard) -> Iterator[Seen]:
        yield from read(reader, shard)
        if shard.index == 0:  # the next one of this process is the third
            yield "shards/shard-00002.h5"
            os.kill(os.getpid(), signal.SIGSEGV)

    monkeypatch.setattr(ShardReader, "read", dying)
    told: list[str] = []
    witness = SimpleNamespace(tell=lambda **told_: told.append(told_.get("reading", "")), alive=lambda: None)
    with pytest.raises(EndedError) as caught:
        inspect(finished_run, witness, {}, processes=2)
    assert (caught.value.code, told[-1]) == (-signal.SIGSEGV, "shards/shard-00002.h5")


IN_LITTLE_MEMORY = """
import os, resource, sys
from pathlib import Path
from types import SimpleNamespace
from batchcam.commands.verify.inspection import inspect
from batchcam.errors import OutOfMemoryError
from batchcam.job.crew import crew

run, more = Path(sys.argv[1]), int(sys.argv[2])
witness = SimpleNamespace(tell=lambda **told: None, alive=lambda: None)

def inspected(number):
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + more, resource.RLIM_INFINITY))
    yield inspect(run, witness, {})

with crew(1, inspected) as (member,):
    try:
        print(next(member).found)
    except OutOfMemoryError as error:
        print(error)
"""
"""In a process of its own: what earlier tests leave behind, and is freed meanwhile, would be enough."""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        pytest.param(2**34, r"\[\]", id="enough"),
        pytest.param(2**26, r".*shard-00000\.h5: needs more memory than there is", id="none for the stored map"),
        pytest.param(2**28, r".*shard-00000\.h5: needs more memory than there is", id="none for the upsampled one"),
    ],
)
def test_want_of_memory_is_a_failure_and_no_finding(make_run, more: int, said: str) -> None:
    run = make_run(sample_count=1, shard_size=1, input_size=(8192, 8192))
    words = (sys.executable, "-c", IN_LITTLE_MEMORY, str(run), str(more))
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert re.fullmatch(said, done.stdout.strip()), done.stdout + done.stderr


def test_the_command_ends_with_1_where_the_checker_lacks_memory(sound_run: Path, monkeypatch, run_cli) -> None:
    def starving(*request: object, **more: object) -> Iterator[dict[str, str]]:
        yield {"reading": "shards/shard-00001.h5"}
        raise OutOfMemoryError("the process was killed, maybe for want of memory")

    monkeypatch.setattr(verify_module, "ask", starving)
    code, out, err = run_cli("verify", sound_run)
    assert (code, out) == (1, "")
    assert "too little memory to check shards/shard-00001.h5, which says nothing about it" in err
