"""Work on files that nobody vouches for, in a process of its own that may crash, hang or eat memory without harm.

The child reads below one folder (and where Python and the system keep their code) and nowhere else, writes no file and
opens no connection, with limits on memory and computing time, as far as the system can (`confinement`). Everywhere it
loads no HDF5 plugin, and ends with its parent.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from batchcam.errors import CheckerError, OutOfMemoryError, RunError, one_line
from batchcam.job import confinement
from batchcam.job.processes import die_with_parent, ignore_job_signals
from batchcam.job.stop import stop_if_asked

STDERR_LIMIT = 4096

# sys.path as the parent has it: with -m or an empty entry, a file numpy.py in the run would be imported
BOOT = "import sys; sys.path[:] = sys.argv[2:]; from batchcam.job.confined import serve; serve(sys.argv[1])"

READY = b'{"ready": true}\n'
"""The child's first message: whatever ends it from now on may be the work's doing."""

WINDOWS_CRASH = 0xC0000000
"""Exit codes from here on are what Windows ended a process for, such as an access violation."""

Message = dict[str, Any]


class DiedError(Exception):
    """The child did not finish; the message says how it ended."""


class Parent:
    """The child's side of the connection.

    Args:
        stream: where messages go, a line each.
        brings: whether the folder's files have to be asked for by `bring`.

    Attributes:
        unconfined: those of `confinement.LIMITS` that the system can't set.
    """

    def __init__(self, stream: IO[str], brings: bool = False) -> None:
        self._stream, self.brings = stream, brings
        self.unconfined: list[str] = []

    def tell(self, **message: Any) -> None:
        """Send a message."""
        self.alive()
        self._stream.write(json.dumps(message) + "\n")
        self._stream.flush()

    def bring(self, path: Path) -> None:
        """Wait until a file is there that the parent brings from elsewhere; raise OSError if it can't be read there."""
        self.tell(bring=os.fspath(path))
        if reply := json.loads(sys.stdin.readline()):
            raise OSError(*reply)

    def alive(self) -> None:
        """Start the clock of the computing time anew."""
        confinement.limit_time()


def ask(module: str, folder: Path, bring: Callable[[Path], None] | None = None, **request: Any) -> Iterator[Message]:
    """Let `module`.answer(parent, folder, **request) work in a confined process; yield the messages that it tells.

    Args:
        module: dotted name; it is imported before the limits come into force.
        folder: all that the process may read.
        bring: brings a file there that `Parent.bring` asks for, or raises OSError; None: all lie there.
        request: what JSON can hold.

    Raises:
        CheckerError: the process ended before it was ready to read; that says nothing about the folder.
        RunError: the work ended with it.
        StoppedEarlyError: there is a reason to stop, which may have ended the process.
        OutOfMemoryError: the process needs more memory than it may have, or was killed, as the kernel does then.
        DiedError: the process crashed, took too long, or ended with any other exception.
    """
    with tempfile.TemporaryFile() as stderr:
        process = _start(module, stderr)
        with _killed_at_the_end(process) as (stdin, stdout):
            _send(stdin, {"folder": os.fspath(folder), "brings": bring is not None, **request})
            ready = READY in stdout  # what comes before is no message: a module may print while it is imported
            for line in stdout:
                message = _message(line)
                if "error" in message:
                    raise RunError(message["error"])
                if "starved" in message:
                    raise OutOfMemoryError(message["starved"])
                if message.get("end"):
                    return
                if bring and "bring" in message:
                    _send(stdin, _brought(bring, Path(str(message["bring"]))))
                    continue
                yield message
            code = process.wait()
        stop_if_asked()  # a scheduler's signal ends a process that has only just started
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - STDERR_LIMIT))
        cause = _cause(code, stderr.read().decode("utf-8", "replace"), "the HDF5 library" if ready else "its process")
        if not ready:
            raise _cannot_start(module, cause)
        raise OutOfMemoryError(cause) if _signal(code) == "SIGKILL" else DiedError(cause)


def _send(stdin: IO[bytes], words: Any) -> None:
    with contextlib.suppress(OSError):
        stdin.write(json.dumps(words).encode() + b"\n")
        stdin.flush()


def _brought(bring: Callable[[Path], None], path: Path) -> tuple[int | None, str] | None:
    """Bring a file; return what is wrong."""
    try:
        bring(path)
    except OSError as error:
        return error.errno, error.strerror or str(error)
    return None


def serve(module: str) -> None:
    """Answer one request, as the child."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)  # what a library prints is no message
    die_with_parent(os.getppid())  # elsewhere than on Linux it ends with its next message
    ignore_job_signals()  # the parent hears them too
    request = json.loads(sys.stdin.readline())
    parent = Parent(stream, request.pop("brings"))
    work = importlib.import_module(module)
    folder = Path(request.pop("folder"))
    parent.unconfined = confinement.confine(folder)
    parent.tell(ready=True)
    try:
        work.answer(parent, folder, **request)
        parent.tell(end=True)
    except RunError as error:
        parent.tell(error=str(error))
    except BaseException as error:
        if needs_memory(error):
            parent.tell(starved=str(error) or "not enough of it")
        traceback.print_exc()
        stream.flush()
        os._exit(1)  # with HDF5 in an unknown state, its tidying up may crash
    stream.flush()
    os._exit(0)


def needs_memory(error: BaseException) -> bool:
    """Return whether more memory is all that was missing."""
    return isinstance(error, (MemoryError, OutOfMemoryError)) or getattr(error, "errno", None) == errno.ENOMEM


def _start(module: str, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    paths = [path for path in sys.path if path] or [os.getcwd()]
    command = [sys.executable, "-c", BOOT, module, *paths]
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, env=_environment())
    except OSError as error:  # no process or no memory left
        raise _cannot_start(module, error.strerror or str(error)) from error


def _cannot_start(module: str, cause: str) -> CheckerError:
    return CheckerError(
        f"the checker cannot start: {cause}; nothing was checked. Give it more memory, or mend the installation: "
        f"python -c 'import {module}' tries it"
    )


def _environment() -> dict[str, str]:
    """Return our environment without what makes HDF5 load code or look for a file's parts in other folders."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HDF5_") or k == "HDF5_USE_FILE_LOCKING"}
    return {**kept, "HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}


@contextlib.contextmanager
def _killed_at_the_end(process: subprocess.Popen[bytes]) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    assert process.stdin
    assert process.stdout
    try:
        yield process.stdin, process.stdout
    finally:
        process.kill()
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        process.wait()


def _message(line: bytes) -> Message:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise DiedError("its process ended in the middle of a word")
    return message


def _cause(code: int, stderr: str, worker: str) -> str:
    """Return in words how a process ended, in which `worker` was at work."""
    if (name := _signal(code)) == "SIGXCPU":
        return f"took more than {confinement.CPU_SECONDS} s of computing time"
    if name == "SIGKILL":
        return "the process was killed, maybe for want of memory"
    if name or code >= WINDOWS_CRASH:
        return f"{worker} crashed ({name or hex(code)})"
    lines = [line for line in stderr.splitlines() if line.strip()]
    return one_line(lines[-1])[:200] if lines else f"its process ended with code {code}"


def _signal(code: int) -> str:
    """Return the name of the signal that ended a process, "" where none did."""
    return signal.Signals(-code).name if code < 0 else ""
