"""SIGTERM at any moment of any command."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from batchcam.errors import EXIT_DONE, EXIT_FINDINGS, EXIT_STOPPED_EARLY

from .commands import Command, other_commands
from .material import Job, differing, outputs
from .registry import Bench, Outcome, fault_class
from .warm import Ended, Warm

MOMENTS = 20
STATE_THE_TIME = ("run.json", "manifest.json")
STOPPED = "batchcam: error: stopped by SIGTERM; run the same command again to go on"


@fault_class("SIGTERM at 20 moments of every command")
def at_moments(bench: Bench) -> Outcome:
    """Stop each command at moments from its first to its last."""
    outcome = Outcome(
        "exit 75 with one line, or the usual end; the same command again gives the undisturbed command's files, byte "
        "for byte, and leaves no other"
    )
    stopped = 0
    for name, (begin, command) in _commands(bench).items():
        with bench.fresh("out") as out:
            begin(out)
            began = time.monotonic()
            usual = bench.warm.run(command(out))
            usual_s = time.monotonic() - began
            assert usual.code in (EXIT_DONE, EXIT_FINDINGS), usual
            expected = _files(out)
        for moment in range(bench.few(2, MOMENTS)):
            with bench.fresh("out") as out:
                begin(out)
                ended = _terminated(bench.warm, command(out), usual_s * moment / bench.few(2, MOMENTS))
                wrong = _ended_badly(ended, usual)
                stopped += ended.code == EXIT_STOPPED_EARLY
                again = bench.warm.run(command(out))
                if again.code != usual.code:
                    wrong.append(f"again: {again}")
                wrong += differing(_files(out), expected)
            outcome.case(f"{name}, moment {moment}", wrong)
    outcome.note = f"{stopped} stopped"
    return outcome


def _commands(bench: Bench) -> dict[str, tuple[Callable[[Path], None], Command]]:
    """Return every command but demo, whose parts these are: what to lay out for it, and its words."""
    job = Job.prepare(bench.warm, 12, 4)
    run, model = job.reference, ["--model", "benchmarks.faults.material:network"]
    where = ["--device", "cpu", "-q"]
    masks = _masks(bench.folder / "annotations.csv", run)

    def nothing(out: Path) -> None:
        out.mkdir()

    def unmerged(out: Path) -> None:
        shutil.copytree(run, out / "run")
        for path in (*(out / "run").glob("run.h5*"), out / "run" / "manifest.json"):
            path.unlink()

    again = ["--checkpoint", job.checkpoint, "--data", job.images, *model, *where]
    commands: dict[str, tuple[Callable[[Path], None], Command]] = {
        "explain": (nothing, lambda out: job.explain(out / "run")),
        "merge": (unmerged, lambda out: ["merge", out / "run", "-q"]),
        "verify": (nothing, lambda out: ["verify", run, "-q"]),
        "verify --recompute": (nothing, lambda out: ["verify", run, "--recompute", 12, *again]),
        "info": (nothing, lambda out: ["info", run, "-q"]),
        "evaluate": (nothing, lambda out: ["evaluate", job.checkpoint, job.images, *model, "-j", 0, *where]),
        "localize": (
            nothing,
            lambda out: ["localize", run, "--annotations", masks, "--out", out / "scores", "-j", 1, "-q"],
        ),
        "faithfulness": (
            nothing,
            lambda out: ["faithfulness", run, *again, "--steps", 4, "--out", out / "curves"],
        ),
        "discover": (nothing, lambda out: ["discover", run, *again, "--out", out / "shortcuts"]),
    }
    others = {name: (nothing, command) for name, command in other_commands(bench).items()}
    return {name: commands[name] for name in ("merge", "verify")} if bench.quick else {**commands, **others}


def _masks(path: Path, run: Path) -> Path:
    """Write a box for each sample of a run."""
    import batchcam

    with batchcam.open_run(run) as opened:
        lines = [f"{sample_id},4,4,20,24\n" for sample_id in opened.sample_id[:]]
    path.write_text("sample_id,x0,y0,x1,y1\n" + "".join(lines))
    return path


def _terminated(warm: Warm, words: Sequence[object], after_s: float) -> Ended:
    """Run a command, and send SIGTERM `after_s` seconds after it began to listen."""
    running = warm.start(words)
    while not _listens(running.pid):
        time.sleep(0.0005)
    time.sleep(after_s)
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    return warm.wait(running)


def _listens(pid: int) -> bool:
    """Return whether a process handles SIGTERM, or has ended."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:
        return True
    handled = int(status["SigCgt"], 16) | int(status["SigIgn"], 16)
    return status["State"].strip().startswith("Z") or bool(handled >> (signal.SIGTERM - 1) & 1)


def _ended_badly(ended: Ended, usual: Ended) -> list[str]:
    if ended.code == EXIT_STOPPED_EARLY:
        return [] if ended.output.strip() == STOPPED else [f"told: {ended.output!r}"]
    return [] if ended.code == usual.code else [f"ended: {ended}"]


def _files(out: Path) -> dict[str, bytes]:
    """Return every file under `out` with its bytes: not of those that state the time, nor what each task did."""
    files = {name: content for name, content in outputs(out).items() if not Path(name).match("task-*.json")}
    return {name: b"" if Path(name).name in STATE_THE_TIME else content for name, content in files.items()}
