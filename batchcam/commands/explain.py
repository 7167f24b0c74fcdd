"""explain: the job. All missing shards of a run, or this worker's share of them."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torchvision

from batchcam import __version__
from batchcam.commands.merge import MergeSummary, merge
from batchcam.config import ExplainConfig
from batchcam.console import Progress, note
from batchcam.engine.assembly import Assembly, assemble
from batchcam.engine.explainer import Explainer, Request, pick_device, set_precision
from batchcam.engine.loader import BatchStream, LoadedBatch, RangeBatches
from batchcam.engine.model import ExplainableNetwork, prove, require_identity
from batchcam.errors import ConfigError, StoppedEarlyError
from batchcam.scheduler import Share, Stop, available_cpus, share, utc_now, whereabouts
from batchcam.store import landing
from batchcam.store.compression import COMPRESSOR
from batchcam.store.manifest import write_task
from batchcam.store.plan import Plan, Shard, dataset_fingerprint, read_plan, require_same, write_plan
from batchcam.store.schema import DIGEST_SUFFIX, MANIFEST_FILE, MASTER_FILE, SHARD_FOLDER, cams_per_sample
from batchcam.store.shard import ShardWriter, landed_shards

DEFAULT_BATCH_SIZE = 64
SHARD_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class ExplainSummary:
    """What one call of explain did.

    Attributes:
        run: the run directory.
        run_id: of the run.
        samples: explained by this call.
        shards: landed by this call.
        unreadable: of `samples`, those that could not be read.
        seconds: of the loop over batches.
        complete: whether the run is complete now.
        merged: totals and findings of the complete run.
    """

    run: str
    run_id: str
    samples: int
    shards: int
    unreadable: int
    seconds: float
    complete: bool
    merged: MergeSummary | None

    @property
    def findings(self) -> int:
        """Samples that need a look: of the complete run, or of this call while others are missing."""
        return self.merged.findings if self.merged else self.unreadable


def explain(config: ExplainConfig) -> ExplainSummary:
    """Explain all samples of the missing shards that are this worker's, and merge when nothing is missing any more.

    Raises:
        StoppedEarlyError: a signal, the time limit or a full disk; the same command goes on.
        BatchcamError: anything else that is wrong, before anything is written where possible.
    """
    mine = share(config.task)
    device = pick_device(config.compute.device)
    existing = _existing_plan(config.out)
    precision = config.compute.precision or (existing.precision if existing else "fp32")
    set_precision(precision, device, config.compute.threads or available_cpus())
    assembly = assemble(config.classifier, config.data)
    network = assembly.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    proved = prove(network, assembly.normalised_probe(device), config.target_layer)
    if config.identity:
        require_identity(proved, "fp32")
    plan = _plan(config, existing, assembly, proved, precision)
    if existing:
        require_same(config.out, existing, plan)
    landed = landed_shards(config.out, plan)
    shards = [s for s in plan.shards if s.index not in landed and mine.takes(s.index)]
    _preflight(config, plan, assembly, mine, shards, device)
    if config.dry_run:
        return _summary(config, plan, [], 0, 0.0, None)
    plan = write_plan(config.out, plan, _origin(config))
    _clear_stale(config, plan, landed)
    return _work(config, plan, assembly, proved, mine, shards, device)


def _work(
    config: ExplainConfig,
    plan: Plan,
    assembly: Assembly,
    proved: ExplainableNetwork,
    mine: Share,
    shards: list[Shard],
    device: torch.device,
) -> ExplainSummary:
    job = _Job(config, plan, assembly, proved, shards, device)
    record = _task_record(config, mine, device)
    outcome = "failed"
    try:
        job.run()
        outcome = "done"
    except StoppedEarlyError:
        outcome = "stopped early"
        raise
    finally:
        if shards:
            _record_task(config.out, mine, {**record, **job.record(), "outcome": outcome, "ended": utc_now()})
    complete = len(landed_shards(config.out, plan)) == len(plan.shards)
    merged = merge(config.out) if complete else None
    return _summary(config, plan, job.done, job.unreadable, job.seconds, merged)


def _record_task(run: Path, mine: Share, record: dict[str, Any]) -> None:
    try:
        write_task(run, mine.index, record)
    except Exception as error:  # the record of a failing job must not hide why it failed
        if sys.exc_info()[1] is error and record["outcome"] == "done":
            raise


class _Job:
    """The loop over the batches of one worker's shards, and what it counts."""

    def __init__(
        self,
        config: ExplainConfig,
        plan: Plan,
        assembly: Assembly,
        proved: ExplainableNetwork,
        shards: list[Shard],
        device: torch.device,
    ) -> None:
        self.done: list[Shard] = []
        self.unreadable = 0
        self.seconds = 0.0
        self._landing_s = self._waiting_s = 0.0
        self._samples = 0
        self._config, self._plan, self._assembly, self._proved = config, plan, assembly, proved
        self._shards, self._device = shards, device

    def run(self) -> None:
        """Explain and land every shard of this worker.

        Raises:
            StoppedEarlyError: a signal came, or the time limit; the shard under way is given up.
        """
        if not self._shards:
            return
        plan, assembly, proved = self._plan, self._assembly, self._proved
        request = Request(plan.cams, plan.maps, plan.input_size, plan.precision, plan.identity)
        weight, bias = proved.weight.cpu().numpy(), proved.bias.cpu().numpy()
        ranges = RangeBatches([(s.first, s.count) for s in self._shards], plan.batch_size)
        processes = loader_processes(self._config.compute.workers)
        total = sum(s.count for s in self._shards)
        start = time.perf_counter()
        with (
            Stop(self._config.time_limit_s) as stop,
            # forks the loader processes, before any thread of the writer starts
            BatchStream(assembly.dataset, ranges, processes, pin=self._device.type == "cuda") as batches,
            Explainer(proved, assembly.preprocessing, request, self._device) as explainer,
            Progress("explain", total, "images", self._config.quiet) as progress,
            ShardWriter(self._config.out, plan, weight, bias) as writer,
        ):
            try:
                for shard in self._shards:
                    self._fill(shard, batches, explainer, writer, stop, progress)
                writer.wait()
            finally:
                self.seconds = time.perf_counter() - start
        self._landing_s = writer.busy_s
        self.done = [landed.shard for landed in writer.landed]

    def _fill(
        self,
        shard: Shard,
        batches: BatchStream,
        explainer: Explainer,
        writer: ShardWriter,
        stop: Stop,
        progress: Progress,
    ) -> None:
        builder = writer.builder(shard)
        while builder.rows < shard.count:
            if reason := stop.reason():
                raise StoppedEarlyError(f"stopped by {reason}; run the same command again to go on")
            asked = time.perf_counter()
            batch = next(batches)
            self._waiting_s += time.perf_counter() - asked
            labels = self._assembly.labels[batch.indices.numpy()]
            explained = explainer(batch.pixels, labels, batch.unreadable)
            builder.append(*self._rows(batch, labels, explained.columns()))
            self._samples += len(labels)
            self.unreadable += int(batch.unreadable.sum())
            progress.advance(len(labels))
        writer.submit(builder)
        self.done = [landed.shard for landed in writer.landed]

    def _rows(
        self, batch: LoadedBatch, labels: np.ndarray, explained: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
        """Return a batch's rows as the schema names them: arrays, and texts."""
        columns = {
            "sample_index": batch.indices.numpy(),
            "input_sha256": batch.sha256.numpy(),
            "label": labels,
            "crop_box": batch.crop_box.numpy(),
            "image_size": batch.image_size.numpy(),
            **explained,
        }
        ids = [self._assembly.source.sample_ids[i] for i in batch.indices.tolist()]
        return columns, {"sample_id": ids, "error": batch.errors}

    def record(self) -> dict[str, Any]:
        """Return what the loop counted, for the task's record."""
        return {
            "shards": [s.file for s in self.done],
            "samples": self._samples,
            "unreadable": self.unreadable,
            "seconds": round(self.seconds, 3),
            "images_per_s": round(self._samples / self.seconds, 2) if self.seconds else None,
            "seconds_waiting_for_images": round(self._waiting_s, 3),
            "seconds_landing": round(self._landing_s, 3),
        }


def loader_processes(asked: int | None) -> int:
    """Return how many processes decode images: as asked, or one for each four CPUs, at least one."""
    return max(1, available_cpus() // 4) if asked is None else asked


def _existing_plan(run: Path) -> Plan | None:
    try:
        return read_plan(run)
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise ConfigError(f"--out {run}: not a folder") from error


def _plan(
    config: ExplainConfig, existing: Plan | None, assembly: Assembly, proved: ExplainableNetwork, precision: str
) -> Plan:
    """Return what this call asks for; what it leaves open is the existing run's, or a default."""
    cams = config.cams or (existing.cams if existing else "all")
    maps = config.maps or (existing.maps if existing else "uint8")
    batch_size = config.compute.batch_size or (existing.batch_size if existing else DEFAULT_BATCH_SIZE)
    try:
        map_count = cams_per_sample(cams, len(assembly.class_names))
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    source = assembly.source
    preprocessing = assembly.preprocessing.to_dict() if assembly.preprocessing else {"preprocessed": "by the dataset"}
    plan = Plan(
        checkpoint_sha256=assembly.checkpoint.sha256,
        dataset_fingerprint=dataset_fingerprint(source.sample_ids, assembly.labels.tolist(), source.sizes.tolist()),
        class_names=assembly.class_names,
        target_layer=proved.target_layer,
        preprocessing=preprocessing,
        precision=precision,
        architecture=assembly.architecture,
        identity=config.identity,
        sample_count=len(source),
        sample_id_bytes=max(1, *(len(i.encode()) for i in source.sample_ids)),
        batch_size=batch_size,
        shard_size=1,
        cams=cams,
        maps=maps,
        channels=proved.weight.shape[1],
        grid_size=proved.grid_size,
        input_size=assembly.input_size,
    )
    shard_size = config.shard_size or (existing.shard_size if existing else None)
    return dataclasses.replace(plan, shard_size=shard_size or _default_shard_size(plan, map_count))


def sample_bytes(plan: Plan) -> int:
    """Return about how many bytes one sample takes, before compression."""
    height, width = plan.input_size
    pixel_bytes = {"uint8": 1, "float32": 4, "none": 0}[plan.maps]
    cell_count = plan.grid_size[0] * plan.grid_size[1]
    return height * width * pixel_bytes + plan.maps_per_sample * (cell_count * 4 + 8) + len(plan.class_names) * 4 + 160


def _default_shard_size(plan: Plan, map_count: int) -> int:
    """Return how many samples make about SHARD_BYTES: whole batches, at least one."""
    return max(1, SHARD_BYTES // sample_bytes(plan) // plan.batch_size) * plan.batch_size


def _preflight(
    config: ExplainConfig, plan: Plan, assembly: Assembly, mine: Share, shards: list[Shard], device: torch.device
) -> None:
    """Tell what is going to happen, before it does."""
    size = sample_bytes(plan) * sum(s.count for s in shards)
    folder = next(p for p in (config.out.absolute(), *config.out.absolute().parents) if p.exists())
    free = shutil.disk_usage(folder).free
    parts = [
        f"{plan.sample_count} samples in {len(plan.shards)} shards, {len(shards)} to do"
        + (f" by task {mine}" if mine.count > 1 else ""),
        f"at most {_gigabytes(size)}, {_gigabytes(free)} free",
        f"{plan.architecture} {plan.target_layer}, grid {plan.grid_size[0]}x{plan.grid_size[1]}",
        f"{len(plan.class_names)} classes",
        f"{device} {plan.precision}, batch {plan.batch_size}",
        f"preprocessing {assembly.preprocessing}" if assembly.preprocessing else "preprocessed by the dataset",
    ]
    note("; ".join(parts), config.quiet)
    for remark in assembly.source.notes:
        note(remark, config.quiet)
    if size > free:
        note(f"warning: {folder} may be too small: {_gigabytes(free)} free for up to {_gigabytes(size)}", False)
    if mine.count > len(plan.shards):
        note(
            f"{mine.count} tasks for {len(plan.shards)} shards: some have nothing to do; lower --shard-size",
            config.quiet,
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def _origin(config: ExplainConfig) -> dict[str, Any]:
    """Return where the run comes from, for run.json: recorded once, no part of any shard."""
    options = dataclasses.asdict(config)
    return {"options": _plain(options), "command": sys.argv, "created": utc_now(), **whereabouts()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value


def _task_record(config: ExplainConfig, mine: Share, device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "task": str(mine),
        "started": utc_now(),
        **whereabouts(),
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
        "workers": loader_processes(config.compute.workers),
        "versions": {
            "batchcam": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
            "h5py": h5py.__version__,
            "hdf5": h5py.version.hdf5_version,
            "compressor": COMPRESSOR,
        },
    }


def _clear_stale(config: ExplainConfig, plan: Plan, landed: set[int]) -> None:
    """Remove what no longer holds: temporary files of dead workers, and the manifest of a run that has gaps again."""
    landing.remove_stale_partials(config.out / SHARD_FOLDER, (s.file for s in plan.shards if s.index in landed))
    landing.remove_stale_partials(config.out, ["run.json"])
    if len(landed) < len(plan.shards) and (config.out / MANIFEST_FILE).exists():
        note("shards are missing from a complete run: making them again", config.quiet)
        for name in (MANIFEST_FILE, MASTER_FILE, MASTER_FILE + DIGEST_SUFFIX):
            (config.out / name).unlink(missing_ok=True)


def _summary(
    config: ExplainConfig, plan: Plan, done: list[Shard], unreadable: int, seconds: float, merged: MergeSummary | None
) -> ExplainSummary:
    return ExplainSummary(
        run=str(config.out),
        run_id=plan.run_id,
        samples=sum(s.count for s in done),
        shards=len(done),
        unreadable=unreadable,
        seconds=round(seconds, 3),
        complete=merged is not None,
        merged=merged,
    )
