"""Input that nobody would write: Hypothesis draws thousands of files, options and values for `fuzz_targets`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from .registry import Bench, Outcome, fault_class
from .warm import ONE_THREAD, ROOT

EXAMPLES = {
    "document": 5000,
    "document bytes": 5000,
    "plan": 3000,
    "manifest": 2000,
    "task": 1000,
    "csv manifest": 3000,
    "annotations": 1000,
    "configuration": 1500,
    "command line": 1000,
    "hdf5": 1000,
}
"""How many inputs of each target; those of HDF5 and of the command line take longest."""

QUICK = {"document bytes": 20}

GROWTH_MB = 300  # torchvision takes half of it when it is loaded late; inputs are small

CHECKED = (
    "only errors of ours, in one line, by the file's name; exit code 0, 1, 2, 3 or 75; what is accepted comes back as "
    "it went in; where verify finds nothing every reader succeeds; none takes a minute; "
    f"memory grows by less than {GROWTH_MB} MB"
)


@fault_class("fuzzed plans, manifests, CSV, annotations, options, TOML, and HDF5 with its digests made right")
def fuzzed(bench: Bench) -> Outcome:
    """Feed every target."""
    outcome = Outcome(CHECKED)
    growth = 0.0
    for name, examples in QUICK.items() if bench.quick else EXAMPLES.items():
        words = [sys.executable, "-m", "benchmarks.fuzz", "--target", name, "--json", "--examples"]
        ended = subprocess.run(
            [*words, str(examples)], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **ONE_THREAD}
        )
        try:
            result = json.loads(ended.stdout.splitlines()[-1])[name]
        except (IndexError, ValueError):  # the process crashed
            outcome.case(name, [f"ended with {ended.returncode}: {ended.stderr[-500:]}"])
            continue
        kept = result["end_mb"] - result["start_mb"]
        growth = max(growth, kept)
        for where, what in result["failures"].items():
            outcome.case(f"{name}: {where}", [what])
        if kept >= GROWTH_MB:
            outcome.case(name, [f"memory grew by {kept:.0f} MB"])
        outcome.cases += result["cases"] - len(result["failures"])
    outcome.note = f"memory grew by at most {growth:.0f} MB"
    return outcome
