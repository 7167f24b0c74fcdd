"""`python -m benchmarks.faults`: try every fault class and write docs/reliability.md."""

from __future__ import annotations

import argparse
import os
import platform
import queue
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import h5py
import torch

from .classes import CLASSES
from .registry import Outcome, table, tried, updated
from .warm import ROOT, Warm

TABLE = ROOT / "docs" / "reliability.md"
MEMORY = Path("/dev/shm")


def main() -> int:
    """Try what the command line names; return the exit code: 1 when a case did not survive."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases of each class; no table")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="classes whose name contains TEXT: replace their rows"
    )
    parser.add_argument("--folder", type=Path, help="where to work  [default: in memory]")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count(), help="classes at a time  [default: CPUs]")
    asked = parser.parse_args()
    base = asked.folder or (MEMORY if MEMORY.is_dir() else None)
    names = [name for name in CLASSES if asked.only.lower() in name.lower()]
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="batchcam-faults-", dir=base) as folder:
        outcomes = try_all(names, Path(folder), asked.quick, asked.jobs)
    if not asked.quick and not asked.only:
        TABLE.write_text(table(outcomes, machine(), time.monotonic() - start), encoding="utf-8")
    elif not asked.quick and TABLE.exists():
        TABLE.write_text(updated(TABLE.read_text(encoding="utf-8"), outcomes), encoding="utf-8")
    return int(any(outcome.failures for outcome in outcomes.values()))


def try_all(names: Sequence[str], folder: Path, quick: bool, jobs: int) -> dict[str, Outcome]:
    """Try fault classes, `jobs` at a time, and tell how each went."""
    idle: queue.SimpleQueue[Warm] = queue.SimpleQueue()

    def one(name: str) -> Outcome:
        warm, start = idle.get(), time.monotonic()
        try:
            outcome = tried(name, warm.folder, warm, quick)
        finally:
            idle.put(warm)
        tell(name, outcome, time.monotonic() - start)
        return outcome

    with ExitStack() as stack, ThreadPoolExecutor(jobs) as pool:
        for number in range(min(jobs, len(names))):
            place = folder / str(number)
            place.mkdir()
            idle.put(stack.enter_context(Warm(place)))
        return dict(zip(names, pool.map(one, names), strict=True))


def tell(name: str, outcome: Outcome, seconds: float) -> None:
    """Print how a fault class went."""
    counts = outcome.skipped or f"{outcome.survived} of {outcome.cases} survived"
    lines = [f"{name}: {counts}, {seconds:.0f} s. {outcome.note}"]
    lines += [f"  {case}:\n    " + "\n    ".join(wrong) for case, wrong in outcome.failures.items()]
    print("\n".join(lines), flush=True)


def machine() -> str:
    """Return what the table was made on."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, HDF5 {h5py.version.hdf5_version}"
    return f"Linux {platform.release().partition('-')[0]}, {os.cpu_count()} CPUs, {versions}"


if __name__ == "__main__":
    sys.exit(main())
