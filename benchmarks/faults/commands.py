"""The commands that write outside of a run, each as a function of its output folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .material import Job, write_checkpoint, write_images
from .registry import Bench

Command = Callable[[Path], list[object]]


def other_commands(bench: Bench) -> dict[str, Command]:
    """Return commands by name, over two small runs that are made for them."""
    folder = bench.folder
    job = Job.prepare(bench.warm, 12, 4)
    run, newer = job.reference, folder / "newer"
    retrained = Job(write_checkpoint(folder / "newer.pth", seed=1), job.images, newer, 4)
    assert bench.warm.run(retrained.explain(newer)).code == 0
    few = write_images(folder / "few", 6, seed=2)

    def export(kind: str) -> Command:
        return lambda out: ["export", run, "--to", kind, "--out", out / kind, "-q"]

    commands: dict[str, Command] = {
        "train": lambda out: [
            "train", few, "--out", out / "model.pth", "--arch", "shufflenet_v2_x0_5", "--epochs", 2, "-b", 3,
            "--preprocess", "stl10", "--image-size", 32, "--val-fraction", 0.4,
            "-j", 0, "--threads", 1, "--device", "cpu", "-q",
        ],
        "export png": export("png"),
        "export csv": export("csv"),
        "export wsol": export("wsol"),
        "export virelay": export("virelay"),
        "report": lambda out: ["report", run, "--out", out / "report.html", "-q"],
        "render sheet": lambda out: ["render", run, "--out", out / "sheet.png", "-q"],
        "render folder": lambda out: ["render", run, "--out", out / "pictures", "-q"],
        "compare": lambda out: ["compare", run, newer, "--out", out / "compare", "-q"],
    }  # fmt: skip
    return {name: commands[name] for name in ("train", "export virelay", "compare")} if bench.quick else commands
