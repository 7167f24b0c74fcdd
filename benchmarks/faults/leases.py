"""Workers without a share: a slow one, dead ones, and a file system that refuses leases."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from batchcam.commands.explain.probing import PROBE_SAMPLES
from batchcam.errors import EXIT_DONE

from .inject import PROCEED, Call, Verdict
from .kill import WORKERS, kill_at
from .material import CLASSES, LEASE, SIDE, Job, Watcher, pick, whole, write_checkpoint
from .registry import Bench, Outcome, fault_class
from .supervision import NEEDS_SECCOMP, proceed, watched
from .warm import ONE_THREAD, ROOT

TEAM, TIMES_SLOWER = 6, 10
SHARDS, SHARD_SIZE = 120, 8
SAMPLE_S = 0.3
MOST_TWICE, MOST_LATE = 0.05, 0.15


class SlowImages:
    """A map-style dataset whose images take SAMPLE_S to load, or what the environment says, once all workers work."""

    classes = CLASSES
    targets = tuple(number % len(CLASSES) for number in range(SHARDS * SHARD_SIZE))
    sample_ids = tuple(f"{number:05d}" for number in range(SHARDS * SHARD_SIZE))

    def __init__(self) -> None:
        self._works = False

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if not self._works and index >= PROBE_SAMPLES:
            self._works = True
            _begin_together(Path(os.environ["BARRIER"]))
        if self._works:
            time.sleep(float(os.environ["SAMPLE_S"]))
        pixels = np.random.default_rng(index).integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)
        return torch.from_numpy(pixels), self.targets[index]


def _begin_together(barrier: Path) -> None:
    (barrier / str(os.getpid())).touch()
    while len(os.listdir(barrier)) < TEAM:
        time.sleep(0.01)


@fault_class(f"{TEAM} workers without shares, one of them {TIMES_SLOWER} times slower")
def one_is_slow(bench: Bench) -> Outcome:
    """Let a team explain a dataset that takes its time, so that it does not matter how many CPUs there are."""
    outcome = Outcome(
        f"at most {MOST_TWICE:.0%} of the shards made twice, complete in at most {1 + MOST_LATE:.0%} of the time that "
        "workers of these speeds need; all end well, verify finds nothing"
    )
    checkpoint = write_checkpoint(bench.folder / "model.pth")
    notes = []
    for processes in (0, 1)[: bench.few(1, 2)]:
        with bench.fresh("run") as run, bench.fresh("barrier") as barrier:
            barrier.mkdir()
            team = [_start(run, checkpoint, barrier, processes, slow=not number) for number in range(TEAM)]
            ended = [worker.wait() for worker in team]
            wrong = [f"ended with {ended}"] * any(ended) + whole(run, {})
            # loader processes that start later touch it too
            began = sorted(path.stat().st_mtime for path in barrier.iterdir())[TEAM - 1]
            took_s = (run / "manifest.json").stat().st_mtime - began
            made = [shard for path in run.glob("task-[0-9]*.json") for shard in json.loads(path.read_text())["shards"]]
        ideal_s = SHARDS * SHARD_SIZE * SAMPLE_S / (TEAM - 1 + 1 / TIMES_SLOWER)
        wrong += [f"{len(made) - SHARDS} made twice"] * (len(made) > (1 + MOST_TWICE) * SHARDS)
        wrong += [f"{took_s:.1f} s, ideal {ideal_s:.1f} s"] * (took_s > (1 + MOST_LATE) * ideal_s)
        notes.append(f"-j {processes}: {len(made)} made for {SHARDS}, {took_s / ideal_s:.0%} of the ideal time")
        outcome.case(f"-j {processes}", wrong)
    outcome.note = "; ".join(notes)
    return outcome


def _start(run: Path, checkpoint: Path, barrier: Path, processes: int, slow: bool) -> subprocess.Popen[bytes]:
    seconds = SAMPLE_S * (TIMES_SLOWER if slow else 1)
    command = [
        sys.executable, "-m", "batchcam", "explain", checkpoint, f"python:{__name__}:SlowImages", "--out", run,
        "--model", "benchmarks.faults.material:network", "--shard-size", SHARD_SIZE, "-b", 2, "-j", processes,
        "--threads", 1, "--device", "cpu", "-q",
    ]  # fmt: skip
    environment = {**os.environ, **ONE_THREAD, "BARRIER": str(barrier), "SAMPLE_S": str(seconds)}
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


@fault_class(f"SIGKILL of one of {WORKERS} workers without shares at each system call of all, the others go on")
def at_each_call_of_three_without_shares(bench: Bench) -> Outcome:
    """Kill whichever worker makes the n-th call of all."""
    outcome = Outcome(
        "the others complete the run: same bytes, no file left over but of who was killed after that, verify finds "
        "nothing else; the same command again removes it"
    )
    if not bench.warm.can_watch:
        outcome.skipped = NEEDS_SECCOMP
        return outcome
    job = Job.prepare(bench.warm, 12, 4)
    with bench.fresh("run") as run:
        commands = [job.explain(run)] * WORKERS
        calls, _, _ = watched(bench.warm, commands, run, proceed)
    for number in pick(range(len(calls)), bench.few(1, 150)):
        with bench.fresh("run") as run:
            watcher = Watcher(run, job.files)
            _, ended, wrong = watched(bench.warm, commands, run, kill_at(number), watcher.look)
            codes = sorted(each.code for each in ended)
            if codes == [EXIT_DONE] * WORKERS:
                continue  # how many calls there are varies
            if codes != [-signal.SIGKILL, *[EXIT_DONE] * (WORKERS - 1)]:
                wrong.append(f"one killed, the others done: {ended}")
            wrong += [each for each in whole(run, job.files) if "left" not in each]
            again = bench.warm.run(job.explain(run))
            wrong += whole(run, job.files) if again.code == EXIT_DONE else [f"rerun: {again}"]
        outcome.case(f"call {number}", wrong)
    return outcome


@fault_class("leases that the file system refuses, or can't write or remove")
def refused(bench: Bench) -> Outcome:
    """Let the calls on leases fail, the first or each of a kind, with two workers at work."""
    outcome = Outcome("both workers end well; same bytes, no file left over, verify finds nothing")
    if not bench.warm.can_watch:
        outcome.skipped = NEEDS_SECCOMP
        return outcome
    job = Job.prepare(bench.warm, 12, 4)
    errors = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOSYS)
    for error in errors[: bench.few(1, len(errors))]:
        for name in ("open", "write", "close", "unlink"):
            for every in (False,) if name == "unlink" else (True, False):
                with bench.fresh("run") as run:
                    seen: list[Call] = []

                    def decide(index: int, call: Call) -> Verdict:
                        if LEASE not in call.path or call.name != name or (seen and not every):  # noqa: B023
                            return PROCEED
                        seen.append(call)  # noqa: B023
                        return Verdict(error=error)  # noqa: B023

                    _, ended, wrong = watched(bench.warm, [job.explain(run)] * 2, run, decide)
                    wrong += [f"{each}" for each in ended if each.code != EXIT_DONE]
                    wrong += whole(run, job.files)
                outcome.case(f"{errno.errorcode[error]} from {'each' if every else 'one'} {name}", wrong)
    return outcome
