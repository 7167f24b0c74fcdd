"""Feed batchcam with what nobody would write: `python -m benchmarks.fuzz [--minutes 10] [--target NAME]`.

With Atheris (`pip install atheris`, on Linux) coverage of batchcam's own code guides what is fed, each target
in a process of its own; `--examples N` lets Hypothesis draw at random instead, without Atheris. The targets are those
of fuzz_targets.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import os
import pkgutil
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOT_IMPORTED = ("batchcam.__main__",)
REPORTED = 5
"""Inputs shown of each target."""

MEMORY_MB = 4096
CASE_S = 60
SEEDS, SEED_BYTES = 32, 4096


@dataclasses.dataclass
class Result:
    """What a target gave.

    Attributes:
        cases: inputs tried.
        seconds: that took.
        failures: what went wrong, and the input, by where it happened.
        start_mb: resident memory after the first inputs.
        end_mb: after the last.
        corpus: inputs that reached new code.
    """

    cases: int = 0
    seconds: float = 0.0
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    start_mb: float = 0.0
    end_mb: float = 0.0
    corpus: int = 0

    def __str__(self) -> str:
        speed = self.cases / max(self.seconds, 1e-9)
        growth = f"{self.start_mb:.0f} to {self.end_mb:.0f} MB"
        told = f"{self.cases} inputs, {speed:.0f}/s, corpus {self.corpus}, memory {growth}"
        return f"{told}, failures: {len(self.failures)}"


def main() -> int:
    """Try what the command line names; return the exit code: 1 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="all targets together  [default: 10]")
    parser.add_argument("--target", metavar="NAME", help="one of them  [default: all]")
    parser.add_argument("--examples", type=int, help="so many inputs a target, drawn by Hypothesis; no --minutes")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs of --examples  [default: 0]")
    parser.add_argument("--corpus", type=Path, help="folder that keeps inputs from one time to the next")
    parser.add_argument("--json", action="store_true", help="end with a line of JSON")
    parser.add_argument("--child", metavar="FILE", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        return guided(asked.target, Path(asked.child), asked.corpus, asked.minutes * 60)
    names = [asked.target] if asked.target else target_names()
    if asked.examples:
        results = {name: told(name, drawn(name, asked.examples, asked.seed)) for name in names}
    elif importlib.util.find_spec("atheris"):
        results = {name: told(name, in_child(name, asked.corpus, asked.minutes / len(names))) for name in names}
    else:
        parser.error("no module atheris: install it, or say --examples N")
    if asked.json:
        print(json.dumps({name: dataclasses.asdict(result) for name, result in results.items()}))
    return int(any(result.failures for result in results.values()))


def told(name: str, result: Result) -> Result:
    """Print what a target gave, and return it."""
    print(f"{name}: {result}", flush=True)
    for number, (where, what) in enumerate(result.failures.items()):
        print(f"  {where}" + (f"\n    {what}" if number < REPORTED else ""), flush=True)
    return result


def target_names() -> list[str]:
    """Return the targets, in the order in which they are defined."""
    return list(importlib.import_module("benchmarks.fuzz_targets").TARGETS)


def shown(value: Any) -> str:
    """Return the beginning of what `value` looks like in code."""
    try:
        return repr(value)[:1000]
    except ValueError:  # an integer of more digits than Python prints
        return f"a {type(value).__name__} with too many digits to show"


class Counting:
    """Counts inputs and notes how each kind of failure came about; several inputs that fail alike are one failure.

    Args:
        name: of the target.

    Attributes:
        result: so far.
    """

    WARM = 50
    """Inputs after which what is loaded once has been loaded."""

    def __init__(self, name: str) -> None:
        self.name, self.result = name, Result()
        self.targets = importlib.import_module("benchmarks.fuzz_targets")
        self.start = time.monotonic()

    def __call__(self, value: Any) -> bool:
        """Try one input; tell whether it passed."""
        result = self.result
        failure = None
        try:
            self.targets.try_input(self.name, value)
        except Exception as error:
            failure = (place_of(error), f"{type(error).__name__}: {error}"[:1000] + f"\n    from {shown(value)}")
        result.cases += 1
        result.seconds = time.monotonic() - self.start
        result.end_mb = self.targets.resident_bytes() / 1e6
        if result.cases <= self.WARM:
            result.start_mb = result.end_mb
        if failure:
            result.failures.setdefault(*failure)
        return failure is None


def place_of(error: BaseException) -> str:
    """Return an exception's type and the last line of batchcam, or else of a test, that it passed."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(ROOT)]
    own = [f for f in frames if "/tests/" not in f.filename] or frames[-1:]
    named = re.search(r"unexpected (\w+): [^;]*", str(error))  # what a command told in one line
    where = f"{Path(own[-1].filename).relative_to(ROOT)}:{own[-1].lineno}" if own else "?"
    return f"{type(error).__name__} at {where}" + (f" ({named[0][:120]})" if named else "")


def drawn(name: str, examples: int, seed: int) -> Result:
    """Let Hypothesis draw inputs at random."""
    import hypothesis

    count = Counting(name)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(count.targets.TARGETS[name].inputs)
    def feed(value: Any) -> None:
        count(value)

    feed()
    return count.result


def in_child(name: str, corpus: Path | None, minutes: float) -> Result:
    """Fuzz one target in a process of its own, which may crash or be ended by libFuzzer."""
    with tempfile.TemporaryDirectory(prefix="batchcam-fuzz-") as folder:
        kept = (corpus or Path(folder)) / re.sub(r"\W", "-", name)
        kept.mkdir(parents=True, exist_ok=True)
        told, log = Path(folder, "result.json"), Path(folder, "log")
        words = ["--target", name, "--minutes", str(minutes), "--corpus", str(kept), "--child", str(told)]
        with log.open("wb") as stream:
            child = [sys.executable, "-m", "benchmarks.fuzz", *words]
            code = subprocess.run(
                child, stdout=stream, stderr=stream, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}
            ).returncode
        result = Result(**json.loads(told.read_text())) if told.exists() else Result()
        result.corpus = len(list(kept.iterdir()))
        if code:
            lines = log.read_text("utf-8", "replace").splitlines()
            result.failures[f"the process ended with {code}"] = "\n    ".join(lines[-20:])
        return result


def guided(name: str, told: Path, corpus: Path, seconds: float) -> int:
    """Fuzz one target with Atheris, and write the result into the file `told`, now and then."""
    import atheris

    sys.setrecursionlimit(10_000)
    with atheris.instrument_imports(include=["batchcam"]):
        package = importlib.import_module("batchcam")
        for module in pkgutil.walk_packages(package.__path__, "batchcam."):
            if module.name not in NOT_IMPORTED:
                importlib.import_module(module.name)
    count = Counting(name)
    feed = fed_by_bytes(count)
    written = [0.0]

    def one(raw: bytes) -> None:
        feed(raw)
        if time.monotonic() - written[0] > 1:
            written[0] = time.monotonic()
            told.write_text(json.dumps(dataclasses.asdict(count.result)))

    for number in range(SEEDS):  # an input that is too short for its strategy is none
        (corpus / f"seed-{number}").write_bytes(random.Random(number).randbytes(SEED_BYTES))
    limits = [f"-max_total_time={int(seconds)}", f"-rss_limit_mb={MEMORY_MB}", f"-timeout={CASE_S}"]
    atheris.Setup([sys.argv[0], *limits, f"-max_len={2 * SEED_BYTES}", "-len_control=0", str(corpus)], one)
    atheris.Fuzz()
    return 0


def fed_by_bytes(count: Counting) -> Any:
    """Return a function that makes an input of a target out of any bytes and tries it."""
    import hypothesis

    @hypothesis.settings(deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(count.targets.TARGETS[count.name].inputs)
    def feed(value: Any) -> None:
        count(value)

    return feed.hypothesis.fuzz_one_input


if __name__ == "__main__":
    sys.exit(main())
