"""explain: the job. All missing shards of a run, or this worker's share of them, and what others leave."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from batchcam.commands.explain.assembly import Assembly, assemble
from batchcam.commands.explain.claims import LOOK_EVERY_S, LOOK_FIRST_S, Claims, planning
from batchcam.commands.explain.config import EVERYTHING, ExplainConfig, ExplainKeywords
from batchcam.commands.explain.held import Held
from batchcam.commands.explain.inputs import as_planned, leak_remarks, require_same_inputs
from batchcam.commands.explain.listing import planned_image, read_listing, settle_list
from batchcam.commands.explain.memory import Memory
from batchcam.commands.explain.planning import (
    Settings,
    bytes_of,
    existing_plan,
    label_reading,
    make_plan,
    meta_remarks,
    origin,
    preflight,
    require_outside_dataset,
    require_same_kind,
    settle,
)
from batchcam.commands.explain.retry import RecordedShard, read_recorded, with_recorded_sizes
from batchcam.commands.explain.thresholds import thresholds_for
from batchcam.commands.explain.work import Work, task_record
from batchcam.commands.merge import MergeSummary, complete_run, stated_run
from batchcam.config.keywords import keywords
from batchcam.data.planned import Listing
from batchcam.data.staging import staged
from batchcam.errors import BatchcamError, ConfigError, RunError, StoppedEarlyError, one_line
from batchcam.job.console import note
from batchcam.job.leases import Leases
from batchcam.job.processes import this_process
from batchcam.job.scheduler import Share, local_rank, share, utc_now
from batchcam.job.stop import Stop, wait
from batchcam.maps.preparation import ExplainableNetwork, prepare, with_engine
from batchcam.network.device import pick_device
from batchcam.network.precision import set_precision, settings_kept
from batchcam.network.proof import ExactNetwork, require_identity
from batchcam.store import landing, schema
from batchcam.store.manifest import task_file, task_numbers, write_task
from batchcam.store.plan import Plan, Shard, require_same, write_plan
from batchcam.store.shard import ShardNames, landed_shards

TELL_EVERY_S = 10  # a task's record is one more file to sync: not for every small shard


@dataclasses.dataclass(frozen=True)
class ExplainSummary:
    """What one call of explain did.

    Attributes:
        run_id: of the run; "" where --new-since left nothing to make one of.
        samples: explained by this call.
        shards: landed by this call.
        unreadable: of `samples`, those that could not be read.
        trained_on: images that the network was trained on: of the complete run, or of `samples` while others are
            missing; None where the checkpoint does not say.
        seconds: of the loop over batches.
        complete: whether the run is complete now.
        merged: totals and findings of the complete run.
        dry_run: whether this call only told what there is to do.
        to_do_samples: of the shards that were missing, and this worker's, when this call began.
        to_do_shards: that many shards.
        to_do_bytes: at most, on disk.
        run_shards: of the run.
        task: this worker's share, i/n.
        task_from: the option or the variables that gave it, empty where nothing did.
        done_for_others: of `shards`, those of other workers' shares.
        left_to_others: shards of other workers' shares that are missing still.
        left_out: samples of the dataset that other runs hold, of a run that this call planned.
    """

    run: str
    run_id: str = ""
    samples: int = 0
    shards: int = 0
    unreadable: int = 0
    trained_on: int | None = None
    seconds: float = 0.0
    complete: bool = False
    merged: MergeSummary | None = None
    dry_run: bool = False
    to_do_samples: int = 0
    to_do_shards: int = 0
    to_do_bytes: int = 0
    run_shards: int = 0
    task: str = "0/1"
    task_from: str = ""
    done_for_others: int = 0
    left_to_others: int = 0
    left_out: int = 0

    @property
    def findings(self) -> int:
        """Samples that need a look: of the complete run, or of this call while others are missing."""
        return self.merged.findings if self.merged else self.unreadable


def explain(config: ExplainConfig) -> ExplainSummary:
    """Explain the samples of missing shards, this worker's share first, and merge when nothing is missing any more.

    Checkpoint and data may be a `torch.nn.Module` and a map-style dataset in memory. The module stays as it is: a copy
    of it is explained, in evaluation mode; meanwhile its weights take their memory twice.

    Raises:
        StoppedEarlyError: a signal, the time limit or a full disk; the same command goes on.
        BatchcamError: anything else that is wrong, before anything is written where possible.
    """
    config = config.nested()
    with Stop(config.time_limit_s):
        return _explain(config)


by_keywords = keywords(ExplainKeywords, explain)


@dataclasses.dataclass(frozen=True)
class Ready:
    """A worker that has a plan.

    Attributes:
        shards: of this worker's share that are to be made.
        recorded: what those of them say that have landed.
        memory: what images and shards under way may take.
    """

    plan: Plan
    assembly: Assembly
    explainable: ExplainableNetwork
    shards: Sequence[Shard]
    recorded: Mapping[int, RecordedShard]
    memory: Memory


@settings_kept()
def _explain(config: ExplainConfig) -> ExplainSummary:
    require_outside_dataset(config.out, config.data)
    if config.by_digest and not config.new_since:
        raise ConfigError("--by-digest: says how --new-since compares: give it too")
    mine = share(config.task, config.tasks)
    device = pick_device(config.compute.device, local_rank())

    def refused(error: OSError) -> None:
        note(f"{config.out}: no leases: {error.strerror}; workers may do some shards twice", config.quiet)

    # whoever cleans up after a file that has landed removes leases on it too: they are temporary files of it
    leases = Leases({**this_process(), "task": str(mine)}, refused, schema.PARTIAL_SUFFIX)
    with contextlib.ExitStack() as stack:
        if not (existing_plan(config.out) or config.dry_run):
            stack.enter_context(planning(config.out, leases, config.quiet))
        ready = _readied(config, mine, device)
    return ready if isinstance(ready, ExplainSummary) else _worked(config, ready, mine, device, leases)


def _readied(config: ExplainConfig, mine: Share, device: torch.device) -> Ready | ExplainSummary:
    """Prove that checkpoint and dataset are the run's, or plan it; return a summary where that was all."""
    existing = existing_plan(config.out)
    if existing:
        require_same_kind(existing, config.classifier)
        if config.new_since:
            note("--new-since: the run is planned already, its samples stay", config.quiet)
    listing = read_listing(config.out, existing) if existing else None
    settings = Settings.of(config, existing)
    assembly, explainable = _assembled(config, settings, existing, listing, mine, device)
    thresholds, assembly = thresholds_for(config, existing, assembly)
    plan = make_plan(settings, assembly, explainable, config.identity, existing if listing else None, thresholds)
    if config.new_since and not existing:
        others = Held(config.new_since, config.by_digest)
        held = others.samples(plan, assembly)
        if held.all():
            return _nothing_new(config, mine, others, len(held))
        assembly = dataclasses.replace(assembly.without(held), remarks=(*assembly.remarks, *others.remarks))
        plan = make_plan(settings, assembly, explainable, config.identity, thresholds=thresholds)
    assembly = dataclasses.replace(assembly, remarks=(*assembly.remarks, *meta_remarks(existing or plan)))
    landed = landed_shards(config.out, existing or plan, mine.takes)
    recorded = {}
    if existing and config.retry_unreadable:
        recorded = read_recorded(config.out, existing, {index for index in landed if not listing or mine.takes(index)})
    if existing:
        plan = as_planned(plan if listing else with_recorded_sizes(plan, existing, assembly, recorded), existing)
        require_same(config.out, existing, plan)
    recorded = {index: each for index, each in recorded.items() if each.unreadable.any()}
    shards = [s for s in plan.shards if (s.index in recorded or s.index not in landed) and mine.takes(s.index)]
    if existing and (shards or mine.index == 0):
        require_same_inputs(config.out, existing, assembly, landed)
    memory = preflight(config, plan, assembly, mine, shards, device)
    if config.dry_run:
        return _summary(config, plan, mine, shards, assembly.left_out)
    agreed = _agreed(config, plan, assembly, existing, origin(config, plan, assembly, mine, device))
    if agreed is None:
        return _readied(config, mine, device)
    if agreed is not plan:
        shards = _shuffled(shards)
    _clear_stale(config, agreed, mine)
    return Ready(agreed, assembly, explainable, shards, recorded, memory)


def _assembled(
    config: ExplainConfig,
    settings: Settings,
    existing: Plan | None,
    listing: Listing | None,
    mine: Share,
    device: torch.device,
) -> tuple[Assembly, ExplainableNetwork]:
    """Return checkpoint and dataset, and the network proven and ready to be explained."""
    classifier = config.classifier
    if existing:
        label_kind = classifier.label_kind or existing.label_kind or None
        classifier = dataclasses.replace(classifier, label_kind=label_kind)
    set_precision(settings.precision, device, config.compute.threads)
    assembly = assemble(
        classifier,
        config.data,
        sample_timeout=config.compute.sample_timeout,
        may_be_unreadable=config.max_unreadable == EVERYTHING,
        listing=listing,
        look=mine.index == 0,
        reading=label_reading(config, existing),
    )
    same_weights = existing if existing and existing.checkpoint_sha256 == assembly.checkpoint.sha256 else None
    layer = settle(config.target_layer, same_weights, "target_layer", None)
    images = assembly.normalised_probe(device)
    told: list[str] = []
    explainable = prepare(
        assembly.network, images, settings.method, settings.control, layer, told.append, config.tokens
    )
    if config.identity and isinstance(explainable, ExactNetwork):
        require_identity(explainable, "fp32")
    source = assembly.library_source
    source = source and (*source, settings.control)
    explainable = with_engine(explainable, settings.engine, images, settings.precision, source)
    told += filter(None, [explainable.engine_choice])
    remarks = (*assembly.remarks, *told, *leak_remarks(assembly))
    return dataclasses.replace(assembly, remarks=remarks), explainable


def _worked(config: ExplainConfig, ready: Ready, mine: Share, device: torch.device, leases: Leases) -> ExplainSummary:
    """Make shards, this worker's own and then what others leave, and merge when nothing is missing any more."""
    plan, assembly, shards, recorded = ready.plan, ready.assembly, ready.shards, ready.recorded
    with Claims(
        config.out, shards, recorded, lambda: _left_by_others(config, plan, mine), leases, config.quiet
    ) as claims:
        work = Work(config, plan, assembly, ready.explainable, claims, recorded, device, ready.memory)
        with _staged(config, assembly, shards):
            seconds = _recorded(config, plan, mine, device, work) if claims.wait() else 0.0
    return _summary(config, plan, mine, shards, assembly.left_out, work, seconds, leases)


def _left_by_others(config: ExplainConfig, plan: Plan, mine: Share) -> list[Shard]:
    """Return the missing shards of other workers' shares, of those that have begun.

    Who has not may work into another --out, of which the shards are put together later.
    """
    if config.share_only or mine.count == 1:
        return []
    begun, there = task_numbers(config.out), ShardNames(config.out)
    missing = (s for s in plan.shards if not there.has(s) and not mine.takes(s.index))
    return _shuffled([s for s in missing if mine.owner(s.index) in begun])


def _merged(config: ExplainConfig, mine: Share, leases: Leases, made: bool) -> MergeSummary:
    """Return what the complete run says: merge it, or wait for another worker that does.

    Of a run that was merged, a worker that has not `made` any shard looks at its own only, as the others do.
    """
    manifest, pause = config.out / schema.MANIFEST_FILE, LOOK_FIRST_S
    while not (manifest.exists() or leases.claim(manifest)):
        wait(pause)
        pause = min(2 * pause, LOOK_EVERY_S)
        if manifest.exists():
            return stated_run(config.out)
    try:
        with leases.beating():
            own = mine.takes if mine.count > 1 and not made else None
            return complete_run(config.out, own)
    finally:
        leases.release_all()


def _nothing_new(config: ExplainConfig, mine: Share, others: Held, count: int) -> ExplainSummary:
    """Tell that other runs hold all samples; return what a call did that had nothing to do."""
    for remark in others.remarks:
        note(remark, config.quiet)
    return ExplainSummary(
        str(config.out), dry_run=config.dry_run, task=str(mine), task_from=mine.source, left_out=count
    )


def _agreed(
    config: ExplainConfig, plan: Plan, assembly: Assembly, existing: Plan | None, origin: Mapping[str, Any]
) -> Plan | None:
    """Write the plan and the list of samples where there are none; return the plan that holds.

    None: another worker has meanwhile planned otherwise, such as over a file that came.
    """
    listed = None if existing else planned_image(plan, assembly)
    try:
        agreed = write_plan(config.out, plan, origin, listed)
    except RunError:
        if existing is None and existing_plan(config.out):
            return None
        raise
    settle_list(config.out, agreed, assembly)
    return agreed


def _staged(
    config: ExplainConfig, assembly: Assembly, shards: Sequence[Shard]
) -> contextlib.AbstractContextManager[None]:
    """Copy the images of `shards` where --stage-to says, and read them there."""
    if config.stage_to is None:
        return contextlib.nullcontext()
    indices = (index for shard in shards for index in range(shard.first, shard.first + shard.count))
    return staged(assembly.source, indices, config.stage_to, config.quiet)


def _recorded(config: ExplainConfig, plan: Plan, mine: Share, device: torch.device, work: Work) -> float:
    """Do the work; record how far it is now and then, and how it ends; return the seconds that it took."""
    record, name = task_record(config, plan, mine, device), task_file(mine.index)
    told = time.monotonic()

    def write(outcome: str, **more: str) -> None:
        write_task(config.out, name, {**record, **work.record(), "outcome": outcome, **more, "written": utc_now()})

    def tell() -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_EVERY_S:
            told = time.monotonic()
            write("running")

    write("running")
    try:
        work.run(tell)
    except BaseException as error:
        outcome = "stopped early" if isinstance(error, StoppedEarlyError) else "failed"
        with contextlib.suppress(BatchcamError):  # why the work failed is what matters
            write(outcome, reason=one_line(error) or type(error).__name__)
        raise
    write("done")
    return work.seconds


def _shuffled(shards: Sequence[Shard]) -> list[Shard]:
    """Return the shards in a random order: in one order, workers without shares would all make the same shard next."""
    return random.Random().sample(shards, len(shards))  # not the shared generator, which the network may have seeded


def _clear_stale(config: ExplainConfig, plan: Plan, mine: Share) -> None:
    """Remove what no longer holds: temporary files of dead workers, and the manifest of a run that has gaps again."""
    # in this order: another worker may land the last shard and merge just now
    complete = (config.out / schema.MANIFEST_FILE).exists()
    landed = landed_shards(config.out, plan, mine.takes)
    landing.remove_stale_partials(config.out / schema.SHARD_FOLDER, (s.file for s in plan.shards if s.index in landed))
    landing.remove_stale_partials(config.out, [schema.PLAN_FILE, schema.LIST_FILE])
    if complete and len(landed) < len(plan.shards):
        note("shards are missing from a complete run: making them again", config.quiet)
        for name in (schema.MANIFEST_FILE, schema.MASTER_FILE):  # merging takes rows from there
            landing.set_aside(config.out / name)
        (config.out / (schema.MASTER_FILE + schema.DIGEST_SUFFIX)).unlink(missing_ok=True)


def _summary(
    config: ExplainConfig,
    plan: Plan,
    mine: Share,
    to_do: Sequence[Shard],
    left_out: int,
    work: Work | None = None,
    seconds: float = 0.0,
    leases: Leases | None = None,
) -> ExplainSummary:
    """Return what a call did, or what it would do where there is no `work`; merge where nothing is missing."""
    landed = work.landed if work else []
    there = landed_shards(config.out, plan, mine.takes)
    merged = _merged(config, mine, leases, bool(landed)) if leases and len(there) == len(plan.shards) else None
    return ExplainSummary(
        run=str(config.out),
        run_id=plan.run_id,
        samples=sum(each.shard.count for each in landed),
        shards=len(landed),
        unreadable=work.counts["unreadable"] if work else 0,
        trained_on=merged.totals.get(schema.TRAINED_ON) if merged else (work.trained_on if work else None),
        seconds=round(seconds, 3),
        complete=merged is not None,
        merged=merged,
        dry_run=config.dry_run,
        to_do_samples=sum(s.count for s in to_do),
        to_do_shards=len(to_do),
        to_do_bytes=bytes_of(plan, to_do),
        run_shards=len(plan.shards),
        task=str(mine),
        task_from=mine.source,
        done_for_others=sum(not mine.takes(each.shard.index) for each in landed),
        left_to_others=sum(s.index not in there and not mine.takes(s.index) for s in plan.shards),
        left_out=left_out,
    )
