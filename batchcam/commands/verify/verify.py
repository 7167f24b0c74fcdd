"""verify: is the run whole, and is what it says true? Read-only."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.signature import SignatureError, signer
from batchcam.config.keywords import keywords
from batchcam.errors import ConfigError, OutOfMemoryError, RunError
from batchcam.job.confined import DiedError, ask
from batchcam.job.confinement import LIMITS
from batchcam.job.console import Progress, note
from batchcam.job.cpus import available_cpus
from batchcam.store.bringing import elsewhere, shown
from batchcam.store.findings import Finding, Inspection, Kind
from batchcam.store.opening import open_run
from batchcam.store.plan import Plan, Shard, open_plan
from batchcam.store.schema import MANIFEST_FILE, PLAN_FILE, SHARD_FOLDER
from batchcam.store.series import find_runs, is_series, require_one_kind, require_run, runs_of_series

INSPECTION = "batchcam.commands.verify.inspection"
RANGES_SHOWN = 8
DEATHS = 10
"""So many files may end the process that reads them, then verify gives up."""


@dataclasses.dataclass(frozen=True)
class VerifySummary:
    """What verify saw.

    Attributes:
        run_id: of the plan, None when it can't be read.
        shards: checked.
        samples: rows checked.
        unreadable: of them, how many say that their image could not be read.
        bytes: of the files whose digest was computed.
        recomputed: samples explained again.
        manifest_sha256: digest of manifest.json, to be compared with one noted down when the run was made.
        signed_by: whose signature of manifest.json was found true; None: none was asked for, or it was not.
        unchecked: what could not be checked, and why, a line each.
        unconfined: on what the process that read the files had no limits here: files, connections, memory, time.
        found: all findings; of a series, in files relative to its folder.
        notes: what was left out of a series, and in what its runs differ, a line each.
        runs: what was seen of each run of a series.
    """

    run: str
    run_id: str | None = None
    shards: int = 0
    samples: int = 0
    unreadable: int = 0
    bytes: int = 0
    recomputed: int = 0
    manifest_sha256: str | None = None
    signed_by: str | None = None
    unchecked: list[str] = dataclasses.field(default_factory=list)
    unconfined: list[str] = dataclasses.field(default_factory=list)
    found: list[Finding] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    runs: list[VerifySummary] = dataclasses.field(default_factory=list)

    @property
    def findings(self) -> int:
        """How many findings there are."""
        return len(self.found)

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.found

    @property
    def told(self) -> list[str]:
        """The findings, a line each; those of several missing shards are one line, where the first of them stood."""
        if self.runs:
            return [f"{Path(run.run).name}: {line}" for run in self.runs for line in run.told]
        missing = [f for f in self.found if f.kind is Kind.FILE_MISSING and f.file.startswith(f"{SHARD_FOLDER}/")]
        if len(missing) < 2:
            return list(map(str, self.found))
        numbers = [int(f.file.removesuffix(".h5").rpartition("-")[2]) for f in missing]
        line = (
            f"{Kind.FILE_MISSING.value}: {len(missing)} of {self.shards} shards ({_ranges(numbers)}): "
            "the run is not finished, or shards were lost; run explain again"
        )
        others = set(map(id, missing[1:]))
        return [line if f is missing[0] else str(f) for f in self.found if id(f) not in others]


def verify(config: VerifyConfig, *, confine: bool = True) -> VerifySummary:
    """Check every file and every row of a run, or of the runs of a series; report everything that is wrong.

    Args:
        confine: parse the files in other processes, with limits; one that crashes or hangs is a finding. Without, that
            happens to this process.

    Raises:
        ConfigError: --signature without --allowed-signers, or the other way round.
        RunError: the directory holds no run at all, or runs that are no series; or what is asked is about one run.
        OutOfMemoryError: there is too little memory to read a file.
        BatchcamError: a signature is to be checked, and there is no ssh-keygen.
    """
    if bool(config.signature) != bool(config.allowed_signers):
        raise ConfigError("--signature and --allowed-signers need each other")
    if is_series(config.run):
        return _verify_series(config, confine)
    with _Bar(config.quiet) as bar:
        processes = available_cpus() if config.workers is None else max(1, config.workers)
        processes = 1 if elsewhere(config.run) else processes  # one connection brings its files
        seen = _survive(config.run, bar, processes) if confine else _inspect_here(config.run, bar)
    found, recomputed = list(seen.found), 0
    if config.recompute and seen.run_id:
        recomputed, more = _recompute(config, set(seen.sound))
        found += more
    manifest = _read_manifest(config.run) if seen.run_id else None
    digest = hashlib.sha256(manifest).hexdigest() if manifest else None
    if config.manifest_sha256 and digest != config.manifest_sha256:
        message = f"SHA-256 is {digest or 'not known'}, not the {config.manifest_sha256} that was noted down"
        found.append(Finding(Kind.OTHER_MANIFEST, MANIFEST_FILE, message))
    signed_by = None
    if config.signature and config.allowed_signers:
        try:
            signed_by = signer(manifest or b"", config.signature, config.allowed_signers)
        except SignatureError as error:
            found.append(Finding(Kind.SIGNATURE, MANIFEST_FILE, str(error)))
    return VerifySummary(
        run=shown(config.run),
        run_id=seen.run_id,
        shards=seen.shards,
        samples=seen.samples,
        unreadable=seen.unreadable,
        bytes=seen.bytes,
        recomputed=recomputed,
        manifest_sha256=digest,
        signed_by=signed_by,
        unchecked=[*seen.unchecked, *_unlisted(config.run)],
        unconfined=seen.unconfined,
        found=found,
    )


by_keywords = keywords(VerifyConfig, verify)


def _verify_series(config: VerifyConfig, confine: bool) -> VerifySummary:
    for option in ("recompute", "manifest_sha256", "signature"):
        if getattr(config, option):
            require_run(config.run, f"--{option.replace('_', '-')}")
    found = runs_of_series(config.run, unverified=True)
    require_one_kind(_plans(found.complete))
    seen = [_verify_run_of_series(dataclasses.replace(config, run=run), confine) for run in found.complete]
    named = [(Path(each.run).name, each) for each in seen]
    run_id, notes = None, [found.told] if found.told else []
    if not any(each.found for each in seen) and find_runs(config.run).complete:
        with open_run(config.run, prove=False) as series:
            run_id, notes = series.plan.run_id, list(series.remarks)
    return VerifySummary(
        run=shown(config.run),
        run_id=run_id,
        shards=sum(each.shards for each in seen),
        samples=sum(each.samples for each in seen),
        unreadable=sum(each.unreadable for each in seen),
        bytes=sum(each.bytes for each in seen),
        unchecked=[f"{name}: {line}" for name, each in named for line in each.unchecked],
        unconfined=max((each.unconfined for each in seen), key=len, default=[]),
        found=[dataclasses.replace(f, file=f"{name}/{f.file}") for name, each in named for f in each.found],
        notes=notes,
        runs=seen,
    )


def _verify_run_of_series(config: VerifyConfig, confine: bool) -> VerifySummary:
    if (config.run / PLAN_FILE).exists():
        return verify(config, confine=confine)
    gone = Finding(Kind.PLAN_DAMAGED, PLAN_FILE, "gone from a complete run")
    return VerifySummary(str(config.run), found=[gone])


def _plans(runs: Iterable[Path]) -> dict[Path, Plan]:
    """Return the plan of each run that has a sound one; of others there will be a finding."""
    plans = {}
    for run in runs:
        with contextlib.suppress(RunError):
            plans[run] = open_plan(run)
    return plans


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers of shards as text, such as "00001 to 00003, 00007"."""
    edges = [i for i, n in enumerate(numbers) if i == 0 or n != numbers[i - 1] + 1]
    parts = [(numbers[a], numbers[b - 1]) for a, b in zip(edges, [*edges[1:], len(numbers)], strict=True)]
    told = [f"{a:05d}" if a == b else f"{a:05d} to {b:05d}" for a, b in parts[:RANGES_SHOWN]]
    return ", ".join([*told, *(["…"] if len(parts) > RANGES_SHOWN else [])])


def _inspect_here(run: Path, bar: _Bar) -> Inspection:
    from batchcam.commands.verify.inspection import inspect

    return dataclasses.replace(inspect(run, bar, {}), unconfined=[*LIMITS])


def _survive(run: Path, bar: _Bar, processes: int) -> Inspection:
    """Return what a confined process sees; whenever one ends before its time, another leaves out the file at fault."""
    deadly: dict[str, str] = {}
    bring = place.bring if (place := elsewhere(run)) else None
    for _ in range(DEATHS):
        try:
            for message in ask(INSPECTION, run, bring, deadly=deadly, processes=processes):
                if "seen" in message:
                    return Inspection.from_dict(message["seen"])
                bar.tell(**message)
            raise DiedError("its process said nothing at all")
        except DiedError as error:
            deadly[bar.reading] = str(error)
        except OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"{run}: too little memory to check {bar.reading}, which says nothing about it: {error}; give the "
                "checker more memory, or fewer --workers"
            ) from error
    found = [Finding(Kind.FILE_UNREADABLE, file, message) for file, message in deadly.items()]
    rest = Finding(Kind.FILE_UNREADABLE, SHARD_FOLDER, "the rest of the run is not checked: too many such files")
    return Inspection(found=[*found, rest])


class _Bar:
    """The witness that shows a person how far the inspection is, and knows which file is being read."""

    def __init__(self, quiet: bool) -> None:
        self.reading = PLAN_FILE
        self._quiet = quiet
        self._progress: Progress | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.__exit__(None, None, None)

    def tell(self, *, reading: str = "", total: int = 0, advance: int = 0) -> None:
        self.reading = reading or self.reading
        if total and not self._progress:
            self._progress = Progress("verify", total, "samples", self._quiet)
        if advance and self._progress:
            self._progress.advance(advance)

    def alive(self) -> None:
        pass


def _recompute(config: VerifyConfig, sound: set[int]) -> tuple[int, list[Finding]]:
    from batchcam.commands.explain.recompute import recompute  # needs torch

    plan = open_plan(config.run)
    shards = [s for s in plan.shards if s.index in sound]
    drawn = _draw(config, plan, shards)
    note(f"explaining {sum(len(indices) for _, indices in drawn)} samples again", config.quiet)
    assert config.classifier is not None  # as the config refuses --recompute without these two
    assert config.data is not None
    return recompute(config.run, plan, shards, drawn, config.classifier, config.data, config.device)


def _draw(config: VerifyConfig, plan: Plan, sound: Sequence[Shard]) -> list[tuple[Shard, list[int]]]:
    """Return dataset positions drawn without repetition, in batches of one shard each."""
    total = sum(s.count for s in sound)
    chosen = np.random.default_rng(config.seed).choice(total, min(config.recompute, total), replace=False)
    # `chosen` counts sound samples only
    starts = itertools.accumulate((s.count for s in sound), initial=0)
    drawn = []
    for shard, start in zip(sound, starts, strict=False):
        own = np.sort(chosen[(chosen >= start) & (chosen < start + shard.count)]) - start + shard.first
        drawn += [(shard, own[i : i + plan.batch_size].tolist()) for i in range(0, len(own), plan.batch_size)]
    return drawn


def _unlisted(run: Path) -> list[str]:
    place = elsewhere(run)
    return [] if place is None or place.is_listed else ["whether files lie there that are none of the run's"]


def _read_manifest(run: Path) -> bytes | None:
    from batchcam.store import landing
    from batchcam.store.document import SIZE_LIMIT

    path = run / MANIFEST_FILE
    if not landing.is_own_file(run, MANIFEST_FILE) or path.stat().st_size > SIZE_LIMIT:
        return None
    with landing.brought(path) as content:
        return content.read()
