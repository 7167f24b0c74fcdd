"""One contestant in a process of its own: seconds, CPU seconds, energy and memory of its stream, its start-up apart."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import torch

from batchcam.job.cpus import available_cpus

RAPL = Path("/sys/class/powercap")
"""Energy of processors: https://docs.kernel.org/power/powercap/powercap.html"""


class Stream:
    """The part of a contestant's work that grows with the images; use it with `with`, once.

    Attributes:
        spent: seconds, CPU seconds, and joules where they are readable.
        more: other numbers that a contestant wants in its row.
    """

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.more: dict[str, float] = {}

    def _clocks(self) -> dict[str, float]:
        return {"s": time.perf_counter(), "cpu_s": cpu_seconds(), **energy()}

    def __enter__(self) -> Stream:
        self._begun = self._clocks()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        ended = self._clocks()
        self.spent = {name: ended[name] - begun for name, begun in self._begun.items()}
        if self.spent.get("joules", 0) < 0:  # the counter began again
            del self.spent["joules"]


def measure(
    contestant: Callable[..., int | None], job: object, images: int, device: torch.device, tree: Path | None = None
) -> dict[str, float] | None:
    """Return what a contestant costs an image in a forked process, and its start-up; None if it can't run here.

    Args:
        contestant: called with job, folder and `Stream`; returns how many images it took if not all.
        tree: a checkout whose batchcam it imports instead of this one.
    """
    reader, writer = os.pipe()
    if child := os.fork():
        os.close(writer)
        with os.fdopen(reader) as lines:
            lines.readline()  # all set
            with gpu_watch(device) as busy:
                text = lines.readline()
        os.waitpid(child, 0)
        return {**json.loads(text), **busy} if text else None
    with tempfile.TemporaryDirectory() as folder:
        try:
            if tree:
                use_tree(tree)
            torch.set_num_threads(available_cpus())
            torch.ones(1, device=device)
            os.write(writer, b"\n")
            stream, begun = Stream(), time.perf_counter()
            count = contestant(job, Path(folder), stream) or images
            whole = time.perf_counter() - begun
            found = {name: value / count for name, value in stream.spent.items()}
            found["start_s"] = whole - stream.spent["s"]
            found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            if device.type == "cuda":
                found["gpu_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
            os.write(writer, json.dumps({**found, **stream.more}).encode() + b"\n")
        except ImportError:
            if tree:  # asked for by name: silence would be mistaken for an oversight
                traceback.print_exc()
        except Exception:
            traceback.print_exc()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)


def use_tree(tree: Path) -> None:
    """Import batchcam anew, from another checkout."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "batchcam"]:
        del sys.modules[name]
    sys.path.insert(0, str(tree.absolute()))
    import batchcam
    import batchcam.commands.explain.explain  # not in the start-up of one contestant alone

    if not Path(batchcam.__file__).is_relative_to(tree.absolute()):
        raise RuntimeError(f"{tree}: no checkout of batchcam")


@functools.cache
def import_seconds(modules: str, tree: Path | None = None, times: int = 3) -> float | None:
    """Return the seconds that a fresh interpreter takes to import modules ("a, b"); None if one is missing."""
    code = f"import time; begun = time.perf_counter(); import {modules}; print(time.perf_counter() - begun)"
    path = os.pathsep.join(filter(None, [str(tree.absolute()) if tree else "", os.environ.get("PYTHONPATH", "")]))
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
        )
        for _ in range(times)
    ]
    return None if any(run.returncode for run in runs) else statistics.median(float(run.stdout) for run in runs)


@contextlib.contextmanager
def gpu_watch(device: torch.device) -> Iterator[dict[str, float]]:
    """Give a dict that in the end holds the share of the time in which the GPU was busy; without a GPU it stays empty.

    The driver's own count, asked for by another process: this one forks, and must not touch the GPU itself.
    """
    found: dict[str, float] = {}
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        yield found
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpu = visible.split(",")[device.index or 0] if visible else device.index or 0
    words = ["nvidia-smi", f"--id={gpu}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with subprocess.Popen([*words, "--loop-ms=200"], stdout=subprocess.PIPE, text=True) as watch:
        try:
            yield found
        finally:
            watch.terminate()
        shares = [int(line) for line in watch.communicate()[0].split() if line.isdecimal()]
    if shares:
        found["gpu_busy"] = statistics.mean(shares) / 100


def cpu_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def energy(root: Path = RAPL) -> dict[str, float]:
    """Return the joules that all processors of this machine have taken since some time; nothing where unreadable."""
    try:
        packages = [each / "energy_uj" for each in root.glob("intel-rapl:*") if each.name.count(":") == 1]
        return {"joules": sum(int(each.read_text()) for each in packages) / 1e6} if packages else {}
    except (OSError, ValueError):  # since CVE-2020-8694 only root reads it
        return {}
