"""Runs made to harm who opens them: every digest is right, the content is not (see tests/helpers/hostile_runs.py)."""

from __future__ import annotations

import itertools
import json
import random
import resource
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import h5py

from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import RunError
from batchcam.store.plan import read_plan
from batchcam.store.reader import open_checked
from tests.helpers import hostile_runs, synthetic
from tests.helpers.hostile_runs import ATTACKS, HARMLESS, MIDDLE, Watch, make_outside, reseal

from .material import pick
from .registry import Bench, Outcome, fault_class

COMMANDS = (
    ["info"],
    ["report", "-q", "--out", "{out}/r.html"],
    ["render", "-q", "--out", "{out}/p.png"],
    ["export", "--to", "csv", "-q", "--out", "{out}/csv"],
    ["export", "--to", "png", "-q", "--out", "{out}/png"],
    ["compare", "{run}", "-q"],
    ["merge"],
)


@fault_class("a run made to harm its reader, digests right")
def attacks(bench: Bench) -> Outcome:
    """Give each attack to verify and to every command that reads a run."""
    outcome = Outcome(
        "verify finds it; the others refuse it in one line by name or read what is sound; "
        "no file outside of the run is opened (inotify)"
    )
    sound = bench.folder / "sound"
    synthetic.synthetic_run(sound)
    for name in pick(list(ATTACKS), bench.few(10, len(ATTACKS))):
        with bench.fresh("case") as case:
            case.mkdir()
            run = Path(shutil.copytree(sound, case / "run"))
            outside = make_outside(case / "outside")
            ATTACKS[name](run, outside)
            watch = Watch(outside)
            outcome.case(f"{name}: verify", [*_verified(bench, run, name), *_opened(watch)])
            for words in COMMANDS:
                outcome.case(f"{name}: {words[0]}", [*_commanded(bench, run, words), *_opened(watch)])
            watch.close()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    outcome.note = f"most memory of a process: {peak:.1f} GiB"
    return outcome


def _verified(bench: Bench, run: Path, name: str) -> Iterator[str]:
    ended = bench.warm.run(["verify", run, "-q", "--json"])
    found = json.loads(ended.output.splitlines()[-1]).get("found", [])
    if ended.code != (0 if name in HARMLESS else 3) or bool(found) == (name in HARMLESS):
        yield f"exit code {ended.code}: {ended.output[-500:]}"


def _commanded(bench: Bench, run: Path, words: list[str]) -> Iterator[str]:
    out = run.parent / "out"
    name, *rest = (word.format(run=run, out=out) for word in words)
    ended = bench.warm.run([name, run, *rest])
    refused = ended.code in (1, 2) and ended.output.splitlines()[-1].startswith("batchcam: error: ")
    if not (refused or ended.code in (0, 3)) or "unexpected" in ended.output or "Traceback" in ended.output:
        yield f"exit code {ended.code}: {ended.output[-500:]}"


def _opened(watch: Watch) -> list[str]:
    touched = watch.touched()
    return [f"opened outside of the run: {sorted(touched)}"] if touched else []


@fault_class("each array of a shard in each type that HDF5 has")
def types(bench: Bench) -> Outcome:
    """Replace one array after the other, its shape as it was."""
    outcome = Outcome("a reader refuses the shard by the array's name; verify finds it")
    run = bench.folder / "run"
    synthetic.synthetic_run(run)
    sound, plan = (run / MIDDLE).read_bytes(), read_plan(run)
    pairs = [(array, kind) for array in hostile_runs.ARRAYS for kind in hostile_runs.TYPES]
    for array, kind in pick(pairs, bench.few(10, len(pairs))):
        (run / MIDDLE).write_bytes(sound)
        hostile_runs.typed(array, kind)(run, bench.folder)
        wrong = []
        found = {f.array for f in verify(VerifyConfig(run, quiet=True), confine=False).found}
        if array not in found:
            wrong.append(f"verify found {found}")
        try:
            with open_checked(run / MIDDLE, plan, plan.shards[1]):
                if array not in ("cam_y", "channel", "box_edge"):  # verify alone reads those
                    wrong.append("a reader took it")
        except RunError as error:
            if array not in str(error):
                wrong.append(f"a reader said {error}")
        outcome.case(f"{array} as {kind}", wrong)
    return outcome


@fault_class("random damage behind right digests and right HDF5 checksums")
def crafted(bench: Bench) -> Outcome:
    """Change bytes inside one checksummed block of a shard's metadata, and its checksum with them."""
    outcome = Outcome("verify ends with findings or without, by itself; what crashes the HDF5 library is a finding")
    run = bench.folder / "run"
    synthetic.synthetic_run(run, sample_count=3, shard_size=3, grid_size=(2, 3), input_size=(4, 6))
    name = "shards/shard-00000.h5"
    sound = (run / name).read_bytes()
    blocks, rng = _checksummed(sound), random.Random(2)
    crashed = 0
    for number in range(bench.few(20, 2000)):
        start, end = rng.choice(blocks)
        content = bytearray(sound)
        for _ in range(rng.choice([1, 1, 2, 3])):
            position = rng.randrange(start + 4, end)
            content[position] = rng.choice([content[position] ^ 1 << rng.randrange(8), 0, 0xFF, rng.randrange(256)])
        content[end : end + 4] = struct.pack("<I", lookup3(content[start:end]))
        (run / name).write_bytes(content)
        reseal(run)
        ended = bench.warm.run(["verify", run, "-q"])
        crashed += "crashed" in ended.output
        whole = ended.code in (0, 3) and "unexpected" not in ended.output
        named = "crashed" not in ended.output or f"file-unreadable: {name}" in ended.output
        outcome.case(f"case {number}", [] if whole and named else [f"exit code {ended.code}: {ended.output[-500:]}"])
    outcome.note = f"the HDF5 library ({h5py.version.hdf5_version}) crashed on {crashed} of them"
    return outcome


def _checksummed(content: bytes) -> list[tuple[int, int]]:
    """Return start and checksum position of HDF5's metadata blocks: object headers, continuations, indices, heaps."""
    found = [(0, 44)]
    for signature in (b"OHDR", b"OCHK", b"FADB", b"FAHD", b"BTHD", b"BTLF", b"FRHP", b"FHDB", b"SMTB"):
        start = content.find(signature)
        while start >= 0:
            ends = range(start + 8, min(len(content) - 4, start + 3000))
            matching = (e for e in ends if content[e : e + 4] == struct.pack("<I", lookup3(content[start:e])))
            found += [(start, end) for end in itertools.islice(matching, 1)]
            start = content.find(signature, start + 1)
    return found


def lookup3(data: bytes | bytearray) -> int:
    """Return Bob Jenkins's lookup3 hash, little-endian: HDF5's checksum over metadata."""
    mask = 0xFFFFFFFF

    def turned(x: int, bits: int) -> int:
        return (x << bits | x >> (32 - bits)) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    padded = bytes(data) + b"\0" * (-len(data) % 12)
    words = struct.unpack(f"<{len(padded) // 4}I", padded)
    for place in range(0, len(words), 3):
        a, b, c = ((x + y) & mask for x, y in zip((a, b, c), words[place : place + 3], strict=True))
        if place + 3 < len(words):
            for bits in (4, 6, 8, 16, 19, 4):
                a = ((a - c) & mask) ^ turned(c, bits)
                c = (c + b) & mask
                a, b, c = b, c, a
    if not words:
        return c
    for bits in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - turned(b, bits)) & mask
        a, b, c = b, c, a
    return b if len(words) else c
