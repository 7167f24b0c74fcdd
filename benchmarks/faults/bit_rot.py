"""Bits that flip in a run at rest, files that end early: verify names the file, and nobody takes the rest for data."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

from batchcam.commands.merge import merge
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import RunError
from tests.commands.verify.test_check import DAMAGES
from tests.helpers import synthetic

from .material import pick
from .registry import Bench, Outcome, fault_class

FINDS = "verify finds it and names that file, no other"
SHARD = "shards/shard-00000.h5"
TINY = {"sample_count": 3, "shard_size": 3, "grid_size": (2, 3), "input_size": (4, 6)}


def _found(run: Path) -> set[str]:
    found = verify(VerifyConfig(run, quiet=True), confine=False).found
    return {each.file.removesuffix(".sha256") for each in found}


def _each(outcome: Outcome, run: Path, name: str, changed: Iterable[tuple[str, bytes]]) -> Outcome:
    """Write each changed content in place of a file, and the sound one again in the end."""
    path = run / name
    sound = path.read_bytes()
    for what, content in changed:
        path.write_bytes(content)
        found = _found(run)
        outcome.case(f"{name}: {what}", [] if found == {name.removesuffix(".sha256")} else [f"found {sorted(found)}"])
    path.write_bytes(sound)
    outcome.case(f"{name} restored", [f"found {sorted(found)}"] if (found := _found(run)) else [])
    return outcome


def _flip(content: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


@fault_class("a bit flipped in each byte of a small shard")
def each_byte(bench: Bench) -> Outcome:
    """Flip one bit of every byte; which one goes round."""
    run = bench.folder / "run"
    synthetic.synthetic_run(run, **TINY)
    sound = (run / SHARD).read_bytes()
    places = pick(range(len(sound)), bench.few(20, len(sound)))
    return _each(Outcome(FINDS), run, SHARD, ((f"byte {p}", _flip(sound, p, p % 8)) for p in places))


@fault_class("a bit flipped in a small shard between landing and merging, its times set back")
def bytes_before_merging(bench: Bench) -> Outcome:
    """Overwrite a shard in place, behind the stamp that its task has left."""
    outcome = Outcome("merge names the shard and leaves no manifest; with its bytes as they were, it merges")
    run = bench.folder / "run"
    synthetic.synthetic_run(run, **TINY)
    sound = (run / SHARD).read_bytes()
    for place in pick(range(len(sound)), bench.few(20, 500)):
        (run / "manifest.json").unlink()
        _overwrite(run / SHARD, _flip(sound, place, place % 8))
        told = _refusal(run)
        wrong = [] if SHARD in told else [f"merge: {told or 'done'}"]
        wrong += ["there is a manifest"] * (run / "manifest.json").exists()
        _overwrite(run / SHARD, sound)
        told = _refusal(run)
        outcome.case(f"byte {place}", wrong + [told] * bool(told))
    return outcome


def _overwrite(path: Path, content: bytes) -> None:
    """Write into a file, of the same size, and set its times back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _refusal(run: Path) -> str:
    try:
        merge(run)
    except RunError as error:
        return str(error)
    return ""


@fault_class("a small shard cut short at each length")
def each_length(bench: Bench) -> Outcome:
    """Keep the first n bytes, for every n."""
    run = bench.folder / "run"
    synthetic.synthetic_run(run, **TINY)
    sound = (run / SHARD).read_bytes()
    lengths = pick(range(len(sound)), bench.few(20, len(sound)))
    return _each(Outcome(FINDS), run, SHARD, ((f"{n} bytes", sound[:n]) for n in lengths))


@fault_class("random flips in all files of a run")
def random_flips(bench: Bench) -> Outcome:
    """Flip one to eight bits somewhere in one file, each file as often as it is large, small ones at least a little."""
    run = bench.folder / "run"
    synthetic.synthetic_run(run, sample_count=42, shard_size=14)
    outcome, rng = Outcome(FINDS), random.Random(0)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    sizes = [max(2000, path.stat().st_size) for path in files]
    for path, times in zip(files, [round(bench.few(60, 10_000) * s / sum(sizes)) for s in sizes], strict=True):
        sound = path.read_bytes()
        changed = []
        for _ in range(times):
            content = sound
            for _ in range(rng.choice([1, 1, 2, 8])):
                content = _flip(content, rng.randrange(len(sound)), rng.randrange(8))
            changed.append(("flips", content))
        _each(outcome, run, path.relative_to(run).as_posix(), [each for each in changed if each[1] != sound])
    return outcome


@fault_class("content edited, all digests made right again")
def edited(bench: Bench) -> Outcome:
    """Break each rule of the schema in turn."""
    outcome = Outcome("verify finds exactly that, and names file and array")
    sound = bench.folder / "sound"
    synthetic.synthetic_run(sound)
    for break_it, expected in pick(list(DAMAGES.items()), bench.few(8, len(DAMAGES))):
        with bench.fresh("run") as run:
            shutil.copytree(sound, run)
            break_it(run)
            found = verify(VerifyConfig(run, quiet=True), confine=False).found
            seen = {(f.kind.value, "task" if f.file.startswith("task-") else f.file, f.array) for f in found}
            outcome.case(break_it.__name__, [] if seen == expected else [f"{seen}, expected {expected}"])
    return outcome


COMMANDS = {
    "info": ["info"],
    "render": ["render", "--top", "3", "-q", "--out", "{out}/p.png"],
    "export": ["export", "--to", "csv", "-q", "--out", "{out}/csv"],
    "compare": ["compare", "{run}", "-q", "--out", "{out}/compared"],
    "report": ["report", "-q", "--out", "{out}/r.html"],
}


@fault_class("readers meet a run with flipped bits")
def readers(bench: Bench) -> Outcome:
    """Run each command that reads a run, with one file damaged."""
    outcome = Outcome("what it prints and writes is what it does for the sound run, or it refuses the file by name")
    run, out = bench.folder / "run", bench.folder / "out"
    synthetic.synthetic_run(run)
    sound = {command: _told(bench, run, out, command) for command in COMMANDS}
    rng = random.Random(1)
    files = [SHARD, "shards/shard-00001.h5", "run.h5", "run.json", "manifest.json"]
    for number in range(bench.few(5, 200)):
        path = run / files[number % len(files)]
        content = path.read_bytes()
        path.write_bytes(_flip(content, rng.randrange(len(content)), rng.randrange(8)))
        for command in COMMANDS:
            code, said, _ = told = _told(bench, run, out, command)
            refused = code == 1 and said.count("\n") == 1 and str(run) in said and "unexpected" not in said
            outcome.case(f"{command}, {path.name}", [] if told == sound[command] or refused else [f"{code}: {said}"])
        path.write_bytes(content)
    return outcome


def _told(bench: Bench, run: Path, out: Path, command: str) -> tuple[int, str, dict[str, str]]:
    """Return exit code, output, and the digests of the files that were written."""
    shutil.rmtree(out, ignore_errors=True)
    name, *words = (word.format(run=run, out=out) for word in COMMANDS[command])
    ended = bench.warm.run([name, run, *words])
    files = sorted(path for path in out.rglob("*") if path.is_file())
    digests = {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return ended.code, ended.output, digests
