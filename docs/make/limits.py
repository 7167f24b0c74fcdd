"""Which limit a gate should have, as three commands tell it: `python -m docs.make.limits --out shortcut`.

The models are those of `docs.make.shortcut`, and further seeds of OLD's training. Then come nights: OLD explains other
images each night, and NEW takes its place for the last two. Trains on a CPU; run again after an interruption to go on.
Prints the commands with their output, which DIR/limits.txt keeps.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.config.shared import Classifier
from docs.make.shortcut import NEW, OLD, RESEEDED, TEST, Settings, draw_sets, make_model

SEEDS: Final = (2, 3)
NIGHTS: Final = 18
BY_NEW: Final = 2
NIGHT_PER_CLASS: Final = 20

MOVED: Final = "verdict|gate +--(?!min-compared)|accuracy|noise"
OVERALL: Final = "(?!ALARM .*: class )"
"""Which lines of `compare` and of `trend` are shown."""

NOISE: Final = " ".join(f"--noise runs/{model}" for model in (RESEEDED, *(f"seed-{seed}" for seed in SEEDS)))
ASKED: Final = {
    f"compare runs/{OLD} runs/{RESEEDED} --max-accuracy-drop 1": MOVED,
    f"compare runs/{OLD} runs/{NEW} {NOISE} --min-cam-similarity auto": MOVED,
    "trend nights --one-baseline": OVERALL,
}

TRANSCRIPT: Final = "limits.txt"


def build(settings: Settings) -> str:
    """Make the runs; return the commands and what they say."""
    draw_sets(settings)
    for model in (OLD, RESEEDED, NEW):
        make_model(settings, model)
    for seed in SEEDS:
        make_model(dataclasses.replace(settings, seed=settings.seed + seed), f"seed-{seed}")
    for night in range(1, NIGHTS + 1):
        _explain_night(settings, night)
    told = "\n".join(said(settings.out, *each) for each in ASKED.items())
    (settings.out / TRANSCRIPT).write_text(told, encoding="utf-8")
    return told


def _explain_night(settings: Settings, night: int) -> None:
    drawn = Settings(settings.out / "drawn" / f"{night:02}", 0, NIGHT_PER_CLASS, seed=settings.seed + 1000 + night)
    draw_sets(drawn)
    model = NEW if night > NIGHTS - BY_NEW else OLD
    run = settings.out / "nights" / f"{night:02}"
    classifier = Classifier(settings.checkpoint(model))
    explain(ExplainConfig(classifier, str(drawn.images(TEST)), run, settings.compute, quiet=True))


def said(folder: Path, words: str, shown: str) -> str:
    """Return a command, run in a folder, with those lines of what it says that match `shown`, and its exit code."""
    command = [sys.executable, "-m", "batchcam", *words.split(), "--quiet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if re.match(shown, line)]
    return "\n".join([f"$ batchcam {words}  # exit code {done.returncode}", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--threads", type=int, default=2, help="of the network (default: 2)")
    chosen = parser.parse_args()
    print(build(Settings(chosen.out, threads=chosen.threads)), end="")


if __name__ == "__main__":
    main()
