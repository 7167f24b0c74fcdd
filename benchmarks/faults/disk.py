"""No room, no quota, a device that fails: at every system call that could tell, and on a file system that is full."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchcam.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED_EARLY

from .commands import other_commands
from .inject import PROCEED, Call, Verdict
from .material import LEASE, Job, Watcher, differing, outputs, pick, told_interrupted, whole
from .registry import Bench, Outcome, fault_class
from .supervision import NEEDS_SECCOMP, Decide, proceed, watched
from .warm import HUNG_S, ROOT, Ended

EXIT_OF = {
    errno.ENOSPC: EXIT_STOPPED_EARLY,
    errno.EDQUOT: EXIT_STOPPED_EARLY,
    errno.EIO: EXIT_FAILED,  # a device that fails is no reason to try again and again
}
ONCE = (
    "one line on stderr and exit code 75 for no room or no quota, 1 for an I/O error, also through the interpreter's "
    "own end; at every stop a file under its final name has the undisturbed run's bytes; the same command again "
    "completes the run: same bytes, no file left over, verify finds nothing"
)
PAGE = 4096
NEEDS_ROOT = "mounting a file system takes root"


def fail_at(number: int, error: int) -> Decide:
    """Return a decision that lets one call fail."""
    return lambda index, call: Verdict(error=error) if index == number else PROCEED


def full_from(number: int) -> Decide:
    """Return a decision as a disk makes it that fills up: half of one write, then nothing that needs room."""

    def decide(index: int, call: Call) -> Verdict:
        if index == number and call.size > 1:
            return Verdict(short=call.size // 2)
        needs_room = call.name in ("write", "open", "mkdir", "link", "fallocate", "ftruncate")
        return Verdict(error=errno.ENOSPC) if index >= number and needs_room else PROCEED

    return decide


def told(ended: Ended, code: int) -> list[str]:
    """Return what is wrong with how a command ended that could not write."""
    lines = ended.output.splitlines()
    wrong = [] if ended.code == code else [f"exit code {ended.code}, expected {code}"]
    errors = [line for line in lines if not line.startswith("batchcam: warning: ")]
    if len(errors) != 1 or not errors[0].startswith("batchcam: error: ") or "unexpected" in errors[0]:
        wrong.append(f"told: {ended.output!r}")
    return wrong


@fault_class("ENOSPC, EDQUOT and EIO from each system call of explain, once; a short count from each write")
def once_at_each_call(bench: Bench) -> Outcome:
    """Let one call fail, or write half of what it should."""
    outcome = Outcome(ONCE + "; a short count changes nothing")
    if not bench.warm.can_watch:
        outcome.skipped = NEEDS_SECCOMP
        return outcome
    job = Job.prepare(bench.warm, 12, 4)
    with bench.fresh("run") as run:
        calls, _, _ = watched(bench.warm, [job.explain(run)], run, proceed)
    for error in EXIT_OF:
        for number in pick(range(len(calls)), bench.few(1, 10_000)):
            # without hard links run.json is renamed instead; without leases the work goes on
            harmless = calls[number].name == "link" or LEASE in calls[number].path
            code = EXIT_DONE if harmless else EXIT_OF[error]
            through_exit = error == errno.ENOSPC
            wrong = _failed_and_again(bench, job, fail_at(number, error), code, through_exit)
            outcome.case(f"{errno.errorcode[error]} from {calls[number]}", wrong)
    writes = [i for i, call in enumerate(calls) if call.size > 1]
    for number in pick(writes, bench.few(1, 10_000)):
        decide: Decide = lambda i, call, n=number: Verdict(short=call.size // 2) if i == n else PROCEED  # noqa: E731
        outcome.case(f"half of {calls[number]}", _failed_and_again(bench, job, decide, EXIT_DONE, False))
    return outcome


def _failed_and_again(bench: Bench, job: Job, decide: Decide, code: int, through_exit: bool) -> list[str]:
    with bench.fresh("run") as run:
        watcher = Watcher(run, job.files)
        _, (ended,), wrong = watched(bench.warm, [job.explain(run)], run, decide, watcher.look, through_exit)
        wrong += told(ended, code) if code else []
        if ended.code == EXIT_DONE:
            return wrong + whole(run, job.files) + ([] if code == EXIT_DONE else ["done in spite of it"])
        wrong += watcher.look() + told_interrupted(run)
        again = bench.warm.run(job.explain(run))
        return wrong + (whole(run, job.files) if again.code == EXIT_DONE else [f"rerun: {again}"])


@fault_class("a disk that is full from one system call of explain on, with half a write before")
def full_from_each_call(bench: Bench) -> Outcome:
    """Let everything that needs room fail from one call on; the rerun has room again."""
    outcome = Outcome(ONCE)
    if not bench.warm.can_watch:
        outcome.skipped = NEEDS_SECCOMP
        return outcome
    job = Job.prepare(bench.warm, 12, 4)
    with bench.fresh("run") as run:
        calls, _, _ = watched(bench.warm, [job.explain(run)], run, proceed)
    numbers = [i for i, call in enumerate(calls) if call.name in ("open", "write", "mkdir")]
    for number in pick(numbers, bench.few(2, 10_000)):
        wrong = _failed_and_again(bench, job, full_from(number), EXIT_STOPPED_EARLY, True)
        outcome.case(f"full from {calls[number]}", wrong)
    return outcome


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[bool]:
    """Mount a file system in memory; give whether this process may."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        allowed = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    try:
        yield allowed
    finally:
        if allowed:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def enlarge(folder: Path) -> None:
    """Make room on what `mounted` gave."""
    subprocess.run(["mount", "-o", "remount,size=16m,nr_inodes=1000", str(folder)], check=True)


@fault_class("a small file system that explain fills for real, by bytes and by inodes")
def small_file_system(bench: Bench) -> Outcome:
    """Give a run a file system of every size that is too small for it, then a larger one."""
    outcome = Outcome(ONCE.replace("at every stop a file", "then a file"))
    job = Job.prepare(bench.warm, 12, 4)
    pages = sum(-(-p.stat().st_size // PAGE) for p in job.reference.rglob("*") if p.is_file())
    inodes = sum(1 for _ in job.reference.rglob("*"))
    sizes = [f"size={n * PAGE},nr_inodes=1000" for n in pick(range(1, pages), bench.few(2, 10_000))]
    sizes += [f"size=16m,nr_inodes={n}" for n in pick(range(2, inodes), bench.few(1, 10_000))]
    for options in sizes:
        with mounted(bench.folder / "small", options) as allowed:
            if not allowed:
                outcome.skipped = NEEDS_ROOT
                return outcome
            run = bench.folder / "small" / "run"
            ended = bench.warm.run(job.explain(run), through_exit=True)
            wrong = told(ended, EXIT_STOPPED_EARLY)
            if run.exists():
                wrong += Watcher(run, job.files).look() + told_interrupted(run)
            enlarge(bench.folder / "small")
            again = bench.warm.run(job.explain(run))
            wrong += whole(run, job.files) if again.code == EXIT_DONE else [f"rerun: {again}"]
        outcome.case(options, wrong)
    return outcome


@fault_class("no shared memory for the batches of a loader process")
def no_shared_memory(bench: Bench) -> Outcome:
    """Give explain a /dev/shm that holds no batch, as a container may, then a larger one."""
    outcome = Outcome("exit code 1, one line that says what to do, no hang; the same command again completes the run")
    if not shutil.which("unshare"):
        outcome.skipped = "there is no `unshare` here"
        return outcome
    job = Job.prepare(bench.warm, 12, 4)
    for size in pick(range(4, 29, 8), bench.few(1, 4)):
        # not where other cases are, which the small file system hides
        with tempfile.TemporaryDirectory(prefix="batchcam-faults-") as folder:
            place = Path(folder)
            elsewhere = job.copied(place / "job")
            command = [sys.executable, "-m", "batchcam", *map(str, elsewhere.explain(place / "run", "-j", 1))]
            small = f'mount -t tmpfs -o size={size * PAGE} tmpfs /dev/shm || exit 99; exec "$@"'
            ended = subprocess.run(
                ["unshare", "-m", "sh", "-c", small, "sh", *command],
                cwd=ROOT, capture_output=True, text=True, check=False, timeout=10 * HUNG_S,
            )  # fmt: skip
            if ended.returncode == 99:
                outcome.skipped = NEEDS_ROOT
                return outcome
            if ended.returncode == EXIT_DONE:
                continue  # room enough
            told = ended.stderr.count("batchcam: error: ") == 1 and "--workers" in ended.stderr.splitlines()[-1]
            wrong = [] if ended.returncode == EXIT_FAILED and told else [f"{ended.returncode}: {ended.stderr}"]
            again = bench.warm.run(elsewhere.explain(place / "run", "-j", 1))
            wrong += whole(place / "run", job.files) if again.code == EXIT_DONE else [f"rerun: {again}"]
        outcome.case(f"{size * PAGE} bytes", wrong)
    return outcome


@fault_class("ENOSPC and EIO from each system call of train, export, report, render and compare")
def at_each_call_of_other_commands(bench: Bench) -> Outcome:
    """Let one call fail of the commands that write outside of a run."""
    outcome = Outcome(
        "one line on stderr, exit code 75 or 1; the same command again gives the undisturbed command's files, byte for "
        "byte, and leaves no other"
    )
    if not bench.warm.can_watch:
        outcome.skipped = NEEDS_SECCOMP
        return outcome
    for name, command in other_commands(bench).items():
        with bench.fresh("out") as out:
            calls, (undisturbed,), _ = watched(bench.warm, [command(out)], out, proceed)
            assert undisturbed.code in (0, 3), undisturbed
            expected = outputs(out)
        for error in (errno.ENOSPC, errno.EIO)[: bench.few(1, 2)]:
            for number in pick(range(len(calls)), bench.few(1, 8)):
                with bench.fresh("out") as out:
                    decide = fail_at(number, error)
                    _, (ended,), wrong = watched(bench.warm, [command(out)], out, decide, None, error == errno.ENOSPC)
                    wrong += told(ended, EXIT_OF[error])
                    again = bench.warm.run(command(out))
                    if again.code != undisturbed.code:
                        wrong.append(f"rerun: {again}")
                    wrong += differing(outputs(out), expected)
                outcome.case(f"{name}: {errno.errorcode[error]} from {calls[number]}", wrong)
    return outcome
