"""Slurm, asked by its own commands; patiently, as its controller may be busy, or restarting."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Final

from batchcam.errors import EXIT_FAILED, BatchcamError

PATIENCE_S: Final = 60.0
"""How long a question is asked again; a job has as long after the signal that its time is over."""

ANSWER_S: Final = 30.0
PAUSE_S: Final = 5.0

LIVING: Final = (
    *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"),
    *("REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
)
"""States of jobs that have not ended; every other one is an end, also one that a later Slurm invents."""


def ask(*words: str, patience: int = 1, sleep: Callable[[float], None] = time.sleep) -> str | None:
    """Return what a command of Slurm's prints, of several tries in `patience` times a minute; None where all fail."""
    deadline = time.monotonic() + patience * PATIENCE_S
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            try:
                answer = subprocess.run(
                    words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=ANSWER_S
                )
            except OSError:  # not installed here
                return None
            if answer.returncode == 0:
                return answer.stdout
            if "Invalid job id" in answer.stderr:
                return None
        if time.monotonic() + PAUSE_S > deadline:
            return None
        sleep(PAUSE_S)


def most_tasks() -> int | None:
    """Return how many tasks an array may have; None where Slurm does not say."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)\s*$", ask("scontrol", "show", "config", patience=0) or "", re.M)
    return int(found[1]) if found else None


def submit(name: str, command: Sequence[str]) -> str:
    """Submit a job and return its id: the last line of sbatch that is one, as sites let it say more.

    Raises:
        BatchcamError: it was not submitted, or sbatch says no id.
    """
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")
    except OSError as error:
        raise BatchcamError(f"{command[0]}: cannot start: {error.strerror}; is this a machine of Slurm's?") from error
    # the cluster's name may follow the id
    ids = re.findall(r"^(?:Submitted batch job )?([0-9]+)(?:;.*)?\s*$", done.stdout, re.M)
    if done.returncode or not ids:
        raise BatchcamError(
            f"no job id for {name}: sbatch ended with exit code {done.returncode} and printed {done.stdout.strip()!r}; "
            "squeue --me shows what is there"
        )
    return str(ids[-1])


def state_of(job: str) -> str:
    """Return the state of a job of one's own, empty where Slurm does not say."""
    lines = (ask("squeue", "--noheader", "--job", job, "--format", "%T") or "").splitlines()
    return next((line for line in reversed(lines) if re.fullmatch("[A-Z_]+", line)), "")


def outcome(job: str, sleep: Callable[[float], None]) -> tuple[str, int]:
    """Wait until a job has ended; return its state and exit code: "" and 1 where Slurm does not know it any more.

    Not by `sbatch --wait`: it calls a job that never started a success.
    """
    while answer := ask("scontrol", "show", "job", "--oneliner", job, patience=10, sleep=sleep):
        found = re.search(r"\bJobState=(\w+)\b.*\bExitCode=(\d+)", answer)
        if found and found[1] not in LIVING:
            code = int(found[2])
            return found[1], code if code or found[1] == "COMPLETED" else EXIT_FAILED
        sleep(PAUSE_S)
    return "", EXIT_FAILED
