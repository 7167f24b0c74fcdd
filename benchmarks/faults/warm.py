"""A process that has imported everything and forks a command whenever it is asked: a case costs no start-up."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import inject

ROOT = Path(__file__).resolve().parents[2]
PLAIN_LINES = {"BATCHCAM_NO_LOG_TIMES": "1"}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
HUNG_S = 60.0


@dataclass
class Running:
    """A command under way.

    Attributes:
        pid: of its process.
        listener: answers for its system calls, None when it was not to be watched.
        output: file that its stdout and stderr go to.
    """

    pid: int
    listener: int | None
    output: Path


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, or minus the signal; and what it printed."""

    code: int
    output: str


class Warm:
    """Starts commands of batchcam out of a process that is warm; use it with `with`.

    Args:
        folder: for the commands' output, and for what several fault classes work on.

    Attributes:
        can_watch: whether system calls can be stopped on this machine.
    """

    can_watch: bool

    def __init__(self, folder: Path) -> None:
        self.folder, self._number = folder, 0

    def __enter__(self) -> Warm:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(HUNG_S)
        command = [sys.executable, "-m", "benchmarks.faults.warm", str(theirs.fileno())]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("BATCHCAM_", "SLURM_", "RANK"))}
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, **PLAIN_LINES, **ONE_THREAD},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._socket = ours
        self.can_watch = json.loads(ours.recv(1000))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.wait()

    def start(self, arguments: Sequence[object], watched: bool = False, through_exit: bool = False) -> Running:
        """Start `batchcam ARGUMENTS`.

        Args:
            arguments: of the command.
            watched: its system calls wait until `inject.serve` answers.
            through_exit: end as Python does, with every library's own clean-up, which takes longer than most commands.
        """
        self._number += 1
        output = self.folder / f"output-{self._number}.txt"
        self._socket.send(json.dumps([[str(a) for a in arguments], watched, through_exit, str(output)]).encode())
        message, descriptors, _, _ = socket.recv_fds(self._socket, 1000, 1)
        return Running(json.loads(message), descriptors[0] if descriptors else None, output)

    def wait(self, running: Running) -> Ended:
        """Wait for a command's end."""
        self._socket.send(json.dumps(running.pid).encode())
        try:
            status = json.loads(self._socket.recv(1000))
        except TimeoutError:
            os.kill(running.pid, signal.SIGKILL)
            raise
        if running.listener is not None:
            os.close(running.listener)
        output = running.output.read_text(errors="replace")
        running.output.unlink()
        return Ended(os.waitstatus_to_exitcode(status), output)

    def run(self, arguments: Sequence[object], through_exit: bool = False) -> Ended:
        """Run `batchcam ARGUMENTS` to its end."""
        return self.wait(self.start(arguments, through_exit=through_exit))


def _serve(channel: socket.socket) -> tuple[list[str], bool] | None:
    """Fork a command for each request; return what to run in the child, None in the parent when all is done."""
    while message := channel.recv(1_000_000):
        request = json.loads(message)
        if isinstance(request, int):
            channel.send(json.dumps(os.waitpid(request, 0)[1]).encode())
            continue
        arguments, watched, through_exit, output = request
        if os.fork() == 0:
            _redirect(output)
            listener = [inject.install_filter()] if watched else []
            socket.send_fds(channel, [json.dumps(os.getpid()).encode()], listener)
            for descriptor in (*listener, channel.detach()):
                os.close(descriptor)
            return arguments, through_exit
    return None


def _redirect(output: str) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _import_everything() -> None:
    import torch

    torch.set_num_threads(1)
    from PIL import Image

    Image.init()
    import batchcam.commands.compare.compare
    import batchcam.commands.export.export
    import batchcam.commands.merge
    import batchcam.commands.render.render
    import batchcam.commands.report.report
    import batchcam.commands.train.train
    import batchcam.commands.verify.verify  # noqa: F401


def main() -> None:
    """Serve until the other end of the channel is closed; in a child, be the command."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    _import_everything()
    gc.freeze()  # a collection would copy every page that the processes share
    channel.send(json.dumps(inject.available()).encode())
    request = _serve(channel)
    if request is None:
        return
    from batchcam.cli import main as batchcam

    arguments, through_exit = request
    sys.argv = ["batchcam", *arguments]
    try:
        batchcam()
    except SystemExit as end:
        if not through_exit:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        raise


if __name__ == "__main__":
    main()
