"""A long haul: 20,000 images through hundreds of shards, undisturbed and with a fault every second or so."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from batchcam.errors import EXIT_DONE, EXIT_STOPPED_EARLY
from batchcam.store.opening import open_run

from .inject import PROCEED, Call, Verdict
from .material import Job, Watcher, told_interrupted, whole, write_checkpoint, write_images
from .registry import Bench, Outcome, fault_class
from .supervision import watched
from .warm import ONE_THREAD, ROOT, Ended, Running

SHARD_SIZE = 100
DIFFERENT = 100  # images; the others are hard links to them
SAMPLE_S = 0.1
SLACK = 8 * 2**20  # bytes: what an allocator may do
KINDS = ("kill", "kill loader", "disk full")


@dataclass
class Usage:
    """Memory and descriptors of a process, taken now and then until the block ends."""

    pid: int
    resident: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def __enter__(self) -> Usage:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def take(self) -> None:
        """Take one measurement."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            descriptors = len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            return
        if pages:  # else it has ended
            self.resident.append(pages * os.sysconf("SC_PAGE_SIZE"))
            self.descriptors.append(descriptors)

    def _loop(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.take()

    def growth(self) -> list[str]:
        """Return what grew between the second and the last quarter of the time."""
        wrong = []
        memory, descriptors = _quarters(self.resident), _quarters(self.descriptors)
        if memory[1] - memory[0] > SLACK:
            wrong.append(f"resident memory grew from {memory[0]:.0f} to {memory[1]:.0f} bytes")
        if descriptors[1] > descriptors[0]:
            wrong.append(f"descriptors grew from {descriptors[0]:.0f} to {descriptors[1]:.0f}")
        return wrong

    def __str__(self) -> str:
        megabytes = [value / 2**20 for value in _quarters(self.resident)]
        return f"{megabytes[0]:.0f} MiB, then {megabytes[1]:.0f} MiB; {max(self.descriptors)} descriptors at most"


def _quarters(values: list[int]) -> tuple[float, float]:
    quarter = max(1, len(values) // 4)
    return statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])


def _long_job(bench: Bench) -> Job:
    """Return a job over many images, which nothing has explained yet."""
    images = write_images(bench.folder / "images", DIFFERENT)
    originals = sorted(images.rglob("*.png"))
    for number in range(DIFFERENT, bench.few(3_000, 20_000)):
        original = originals[number % DIFFERENT]
        os.link(original, original.with_name(f"{number:05d}.png"))
    checkpoint = write_checkpoint(bench.folder / "model.pth")
    return Job(checkpoint, images, bench.folder / "reference", SHARD_SIZE)


def _command(job: Job, run: Path) -> list[object]:
    return job.explain(run, "-b", 50, "-j", 1)


def _undisturbed(bench: Bench, job: Job) -> Usage:
    """Make the reference run; return what it used."""
    running = bench.warm.start(_command(job, job.reference))
    with Usage(running.pid) as usage:
        ended = bench.warm.wait(running)
    assert ended.code == EXIT_DONE, ended
    return usage


def read_all(run: str) -> None:
    """Read rows of every shard again and again; print as JSON what grew in this process, and what it used."""
    own = Usage(os.getpid())
    with open_run(run) as opened:
        for times in range(4):
            for row in range(0, len(opened), 8):
                assert opened[row].row == row
                if times and row % 200 == 0:  # the first time fills caches
                    own.take()
    print(json.dumps([own.growth(), str(own)]))


@fault_class("20,000 images, 200 shards: memory and descriptors of one worker, and of a reader of it all")
def flat(bench: Bench) -> Outcome:
    """Explain many images without a fault, then read rows of every shard again and again."""
    outcome = Outcome(
        "no growth of more than 8 MiB, and of no descriptor, from the second to the last quarter of the time"
    )
    job = _long_job(bench)
    worker = _undisturbed(bench, job)
    outcome.case("worker", worker.growth())
    program = "import sys; from benchmarks.faults.soak import read_all; read_all(sys.argv[1])"
    command = [sys.executable, "-c", program, str(job.reference)]
    ended = subprocess.run(command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, check=True, stdout=subprocess.PIPE)
    growth, reader = json.loads(ended.stdout)
    outcome.case("reader", growth)
    outcome.note = f"worker {worker}; reader {reader}"
    return outcome


@fault_class(
    "20,000 images, 200 shards, with a fault every second: SIGKILL, SIGKILL of the loader process, a full disk"
)
def faults_all_the_time(bench: Bench) -> Outcome:
    """Repeat the same command until the run is complete, and runs until there were enough faults."""
    outcome = Outcome(
        "after each fault a file under its final name has the undisturbed run's bytes, and verify tells the truth; in "
        "the end the same bytes, no file left over, verify finds nothing"
    )
    job, rng, runs = _long_job(bench), random.Random(5), 0
    _undisturbed(bench, job)
    files = job.files
    while outcome.cases < bench.few(4, 40):
        with bench.fresh("run") as run:
            wrong: list[str] = []
            done = False
            while not done and not wrong:
                kind = rng.choice(KINDS if bench.warm.can_watch else KINDS[:2])
                ended, happened = _disturbed(bench, job, run, kind, rng.uniform(0.2, 2.0))
                done = ended.code == EXIT_DONE
                if happened or not done:
                    wrong = Watcher(run, files).look() + told_interrupted(run) + _expected(kind, ended)
                    outcome.case(kind, wrong)
            runs += 1
            outcome.case("the completed run", wrong or whole(run, files))
    outcome.note = f"{runs} runs of {bench.few(3_000, 20_000)} images"
    return outcome


def _disturbed(bench: Bench, job: Job, run: Path, kind: str, after_s: float) -> tuple[Ended, bool]:
    """Run explain until a fault ends it, or it is done; return whether the fault happened in time."""
    due, happened = time.monotonic() + after_s, []

    def no_room(_: int, call: Call) -> Verdict:
        if call.name != "write" or time.monotonic() < due:
            return PROCEED
        happened.append(call)
        return Verdict(error=errno.ENOSPC)

    if kind == "disk full":
        _, (ended,), _ = watched(bench.warm, [_command(job, run)], run, no_room)
        return ended, bool(happened)
    running = bench.warm.start(_command(job, run))
    timer = threading.Timer(after_s, lambda: happened.extend(_killed(running, kind)))
    timer.start()
    ended = bench.warm.wait(running)
    timer.cancel()
    timer.join()
    return ended, bool(happened)


def _killed(running: Running, kind: str) -> list[int]:
    """Kill the process, or its loader process; return which were there to be killed."""
    victims = [running.pid]
    if kind == "kill loader":
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        victims = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    killed = []
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):  # it is done
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
    return killed


def _expected(kind: str, ended: Ended) -> list[str]:
    # explain starts new loader processes by itself
    codes = {"kill": -signal.SIGKILL, "kill loader": EXIT_DONE, "disk full": EXIT_STOPPED_EARLY}
    told = kind != "disk full" or (ended.output.count("\n") == 1 and ended.output.startswith("batchcam: error: "))
    return [] if ended.code == codes[kind] and told else [f"{kind}: {ended}"]
