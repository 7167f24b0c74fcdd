"""SIGKILL anywhere: before each system call that changes a file, half way through each write, at any time."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from .commands import other_commands
from .inject import KILL, PROCEED, Call, Verdict
from .material import Job, Watcher, differing, outputs, pick, told_interrupted, whole
from .registry import Bench, Outcome, fault_class
from .supervision import NEEDS_SECCOMP, Decide, proceed, watched
from .warm import ROOT, Warm

RERUN = (
    "verify tells the truth about what is left; the same command again completes the run: same bytes, no file left "
    "over, verify finds nothing"
)
AT_STOPS = "at every stop of the process a file under its final name has the undisturbed run's bytes; " + RERUN
AT_LOOKS = AT_STOPS.replace("stop of the process", "look of a reader that never pauses")
WORKERS = 3


def kill_at(number: int, torn: bool = False) -> Decide:
    """Return a decision that kills at call `number`; `torn`: after half of what it writes."""

    def decide(index: int, call: Call) -> Verdict:
        if index != number:
            return PROCEED
        return Verdict(kill=True, short=call.size // 2) if torn else KILL

    return decide


def _at_each_call(bench: Bench, most: int, missing: Sequence[str] = (), merge: bool = False) -> Outcome:
    """Kill one worker, or who merges, at each call; begin with nothing, or with a run that lacks files."""
    outcome = Outcome(AT_STOPS)
    if not bench.warm.can_watch:
        outcome.skipped = NEEDS_SECCOMP
        return outcome
    job = Job.prepare(bench.warm, 12, 4)

    def command(run: Path) -> Sequence[object]:
        return ["merge", run, "-q"] if merge else job.explain(run)

    with bench.fresh("run") as run:
        _begin(job, run, missing)
        calls, _, _ = watched(bench.warm, [command(run)], run, proceed)
    for torn in (False, True):
        numbers = [i for i, call in enumerate(calls) if not torn or call.name == "write"]
        for number in pick(numbers, most):
            with bench.fresh("run") as run:
                _begin(job, run, missing)
                watcher = Watcher(run, job.files, trust_manifest=not missing)
                _, (ended,), wrong = watched(bench.warm, [command(run)], run, kill_at(number, torn), watcher.look)
                wrong += watcher.look()
                if ended.code != -signal.SIGKILL:
                    wrong.append(f"was not killed: {ended}")
                wrong += told_interrupted(run) + _completed(bench.warm, job, run, command(run))
            outcome.case(f"{'half of ' if torn else ''}{calls[number]}", wrong)
    return outcome


def _begin(job: Job, run: Path, missing: Sequence[str]) -> None:
    if missing:
        shutil.copytree(job.reference, run)
    for pattern in missing:
        for path in run.glob(pattern):
            path.unlink()


def _completed(warm: Warm, job: Job, run: Path, command: Sequence[object]) -> list[str]:
    ended = warm.run(command)
    return whole(run, job.files) if ended.code == 0 else [f"rerun: {ended}"]


@fault_class("SIGKILL of one worker at each system call of explain, and half way through each write")
def at_each_call(bench: Bench) -> Outcome:
    """Kill a fresh run."""
    return _at_each_call(bench, bench.few(2, 10_000))


@fault_class("SIGKILL at each system call of a repair: a complete run that lost a shard")
def at_each_call_of_a_repair(bench: Bench) -> Outcome:
    """Kill explain while it makes a missing shard again and merges."""
    return _at_each_call(bench, bench.few(1, 10_000), missing=["shards/shard-00001*"])


@fault_class("SIGKILL at each system call of merge, and half way through each write")
def at_each_call_of_a_merge(bench: Bench) -> Outcome:
    """Kill merge while it proves the shards of a copy, notes what it has proven, and writes."""
    return _at_each_call(bench, bench.few(1, 10_000), missing=["run.h5*", "manifest.json"], merge=True)


@fault_class(f"SIGKILL of one of {WORKERS} workers at each system call of all, the others go on")
def at_each_call_of_three(bench: Bench) -> Outcome:
    """Kill whichever worker makes the n-th call of all; its own command again completes the run."""
    outcome = Outcome(AT_STOPS)
    if not bench.warm.can_watch:
        outcome.skipped = NEEDS_SECCOMP
        return outcome
    job = Job.prepare(bench.warm, 12, 4)
    with bench.fresh("run") as run:
        commands = [job.explain(run, "--task", f"{i}/{WORKERS}") for i in range(WORKERS)]
        calls, _, _ = watched(bench.warm, commands, run, proceed)
    for number in pick(range(len(calls)), bench.few(1, 10_000)):
        with bench.fresh("run") as run:
            watcher = Watcher(run, job.files)
            _, ended, wrong = watched(bench.warm, commands, run, kill_at(number), watcher.look)
            if not any(e.code for e in ended):
                continue  # how many of them merge, and so how many calls there are, varies
            wrong += watcher.look()
            if sorted(e.code for e in ended) != [-signal.SIGKILL, 0, 0]:
                wrong.append(f"one killed, the others done: {ended}")
            dead = next(i for i, e in enumerate(ended) if e.code)
            wrong += told_interrupted(run) + _completed(bench.warm, job, run, commands[dead])
        outcome.case(f"call {number}", wrong)
    return outcome


class Polling:
    """A reader that looks at a run again and again until the block ends."""

    def __init__(self, watcher: Watcher) -> None:
        self.wrong: list[str] = []
        self._watcher, self._stop = watcher, threading.Event()
        self._thread = threading.Thread(target=self._loop)

    def __enter__(self) -> Polling:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stop.wait(0.001):
            self.wrong += self._watcher.look()


def _at_random_times(bench: Bench, workers: int, count: int, seed: int) -> Outcome:
    outcome, rng, looks = Outcome(AT_LOOKS), random.Random(seed), 0
    job = Job.prepare(bench.warm, 24, 3)
    tasks = [[]] if workers == 1 else [["--task", f"{i}/{workers}"] for i in range(workers)]
    with bench.fresh("run") as run:
        began = time.monotonic()
        for one in [bench.warm.start(job.explain(run, *task)) for task in tasks]:
            bench.warm.wait(one)
        usual_s = time.monotonic() - began
    for number in range(count):
        with bench.fresh("run") as run:
            watcher = Watcher(run, job.files)
            more = ["-j", 1] if number % 4 == 0 else []  # a loader process as well
            with Polling(watcher) as reader:
                running = [bench.warm.start(job.explain(run, *task, *more)) for task in tasks]
                for victim in rng.sample(running, rng.randint(1, len(running))):
                    time.sleep(rng.uniform(0, 1.1 * usual_s / len(running)))
                    os.kill(victim.pid, signal.SIGKILL)
                ended = [bench.warm.wait(one) for one in running]
                wrong = [f"{e}" for e in ended if e.code not in (0, -signal.SIGKILL)]
                wrong += told_interrupted(run) + _completed(bench.warm, job, run, job.explain(run))
            outcome.case(f"seed {seed}, kill {number}", reader.wrong + wrong)
            looks += watcher.looks
    outcome.note = f"{looks} looks"
    return outcome


@fault_class("SIGKILL of one worker at a random time")
def at_random_times(bench: Bench) -> Outcome:
    """Kill a run at a time between its first and its last moment."""
    return _at_random_times(bench, 1, bench.few(2, 120), seed=1)


@fault_class(f"SIGKILL of one, two or all of {WORKERS} workers at random times")
def at_random_times_of_three(bench: Bench) -> Outcome:
    """Kill some of the workers of a run; one worker without --task completes it."""
    return _at_random_times(bench, WORKERS, bench.few(1, 80), seed=2)


@fault_class("SIGKILL of `python -m batchcam explain`, started cold, at a random time")
def at_random_times_cold(bench: Bench) -> Outcome:
    """The same without a warm process, so that start-up is hit too."""
    outcome, rng = Outcome("the same command again completes the run, as above"), random.Random(3)
    job = Job.prepare(bench.warm, 24, 3)
    with bench.fresh("run") as run:
        command = [sys.executable, "-m", "batchcam", *map(str, job.explain(run))]
        began = time.monotonic()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        usual_s = time.monotonic() - began
    for number in range(bench.few(1, 12)):
        with bench.fresh("run") as run:
            worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
            time.sleep(rng.uniform(0, usual_s))
            worker.kill()
            worker.wait()
            again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            wrong = whole(run, job.files) if again.returncode == 0 else [again.stderr]
        outcome.case(f"kill {number}", wrong)
    return outcome


@fault_class("SIGKILL at each system call of train, export, report, render and compare")
def at_each_call_of_other_commands(bench: Bench) -> Outcome:
    """Kill the commands that write outside of a run."""
    outcome = Outcome(
        "the same command again gives the undisturbed command's files, byte for byte, and leaves no other"
    )
    if not bench.warm.can_watch:
        outcome.skipped = NEEDS_SECCOMP
        return outcome
    for name, command in other_commands(bench).items():
        with bench.fresh("out") as out:
            calls, (ended,), _ = watched(bench.warm, [command(out)], out, proceed)
            assert ended.code in (0, 3), ended
            expected = outputs(out)
        for number in pick(range(len(calls)), bench.few(1, 12)):
            with bench.fresh("out") as out:
                _, (killed,), wrong = watched(bench.warm, [command(out)], out, kill_at(number))
                again = bench.warm.run(command(out))
                if (killed.code, again.code) != (-signal.SIGKILL, ended.code):
                    wrong.append(f"{killed}, then {again}")
                wrong += differing(outputs(out), expected)
            outcome.case(f"{name}: {calls[number]}", wrong)
    return outcome
