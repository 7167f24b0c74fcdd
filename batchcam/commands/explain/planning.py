"""What a run is to be: its plan, from the options, the existing run and defaults; told before anything is written."""

from __future__ import annotations

import collections
import dataclasses
import multiprocessing
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from batchcam.commands.explain.assembly import Assembly
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.inputs import first_inputs
from batchcam.commands.explain.memory import Memory, memory_for
from batchcam.config.options import Part
from batchcam.config.shared import DEFAULT_BATCH_SIZE, Classifier, LabelledConfig, MapDataset
from batchcam.data.findings import LabelReading
from batchcam.data.sources import Source, dataset_folder
from batchcam.errors import ConfigError, RunError, one_line
from batchcam.images.remote import without_secrets
from batchcam.job.console import counted, note, readable_size
from batchcam.job.cpus import loader_processes, warn_of_workers
from batchcam.job.scheduler import Share, utc_now, whereabouts
from batchcam.maps.preparation import ExplainableNetwork
from batchcam.network.device import gpu_count
from batchcam.rules import (
    AUTO,
    CONTROL_WORDS,
    CONTROLS,
    EXACT,
    FEATURE_KINDS,
    MULTI_LABEL,
    SINGLE_LABEL,
    TORCH,
    CamSelection,
    in_memory,
)
from batchcam.store.layout import shard_bytes
from batchcam.store.master import master_bytes
from batchcam.store.plan import (
    LEFT_OUT_KEY,
    MANIFEST_KEY,
    Plan,
    Shard,
    dataset_fingerprint,
    read_plan,
    require_few_shards,
)
from batchcam.store.samples import list_bytes
from batchcam.store.schema import LIST_FILE, MANIFEST_FILE, MASTER_FILE, PLAN_FILE, SCHEMA_VERSION, meta_array

Value = TypeVar("Value")

SHARD_BYTES = 64 * 2**20
ROW_BYTES = 160  # the columns of one number, and texts

SMALL_SHARD = 32
"""Samples of a shard below which making it takes about a millisecond of each."""


def require_outside_dataset(out: Path, data: str | MapDataset) -> None:
    """Refuse a run among the class folders of its own dataset, which would then have another class for ever.

    Raises:
        ConfigError: `out` is the folder of class folders that `data` names, or lies in it.
    """
    folder = dataset_folder(data) if isinstance(data, str) else None
    if folder is not None and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(folder)):
        raise ConfigError(
            f"--out {out}: is, or lies in, the dataset: the run would become one of its classes; choose another --out"
        )


def existing_plan(run: Path) -> Plan | None:
    """Return the plan of the run that is there already, None if there is none.

    Raises:
        ConfigError: `run` is no folder, or a link to none, or no run, but files that a run would replace.
        RunError: its plan is damaged.
    """
    # looked for before the plan, which another worker may write just now and which comes first
    strangers = [name for name in (MANIFEST_FILE, MASTER_FILE, LIST_FILE) if os.path.lexists(run / name)]
    try:
        return read_plan(run)
    except FileNotFoundError as error:
        if run.is_symlink() and not run.exists():
            raise ConfigError(
                f"--out {run}: a link to a folder that is not there: make it, or remove the link"
            ) from error
        if strangers:
            raise ConfigError(
                f"--out {run}: holds {', '.join(strangers)}, and no {PLAN_FILE} of a run; choose another --out"
            ) from error
        return None
    except NotADirectoryError as error:
        raise ConfigError(f"--out {run}: not a folder") from error


def require_same_kind(plan: Plan, classifier: Classifier) -> None:
    """Refuse a file where a run explains a network in memory, and the other way round: their digests never agree.

    Raises:
        RunError: the classifier is of the other kind.
    """
    if plan.is_in_memory == classifier.is_in_memory:
        return
    if plan.is_in_memory:
        raise RunError(
            f"this run explains a network {plan.architecture}, and no file has its digest: only the program that has "
            "the network can go on with it or check it, by batchcam.explain or batchcam.verify"
        )
    raise RunError(f"this run explains a checkpoint, {plan.architecture}: name its file instead of a network in memory")


def settle(option: Value | None, existing: Plan | None, name: str, default: Value) -> Value:
    """Return an option, else what the existing run's plan says under `name`, else the default."""
    if option is not None:
        return option
    value: Value = getattr(existing, name) if existing else default
    return value


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to explain, as far as it does not depend on the network or the dataset.

    Attributes:
        engine: one of rules.ENGINES.
        precision, method, control, batch_size, cams, maps, features: see Plan.
        shard_size: None: chosen by the size of a sample.
        schema_version: an existing run's is kept, so that an older one can be finished and repaired.
        meta: which further columns of a manifest are kept; None: all that it has.
    """

    engine: str
    precision: str
    method: str
    control: str
    batch_size: int
    shard_size: int | None
    cams: CamSelection
    maps: str
    features: str
    schema_version: int
    meta: tuple[str, ...] | None

    @classmethod
    def of(cls, config: ExplainConfig, existing: Plan | None) -> Settings:
        """Return what the options say, or else the existing run, or else the defaults."""
        method = settle(config.method, existing, "method", EXACT)
        asked = config.compute.engine
        return cls(
            engine=(existing.engine or TORCH) if existing and asked in (None, AUTO) else asked or AUTO,
            precision=settle(config.compute.precision, existing, "precision", "fp32"),
            method=method,
            control=settle(config.control, existing, "control", CONTROLS[0]),
            batch_size=settle(config.compute.batch_size, existing, "batch_size", DEFAULT_BATCH_SIZE),
            shard_size=settle(config.shard_size, existing, "shard_size", None),
            cams=settle(config.cams, existing, "cams", CamSelection("all" if method == EXACT else "predicted")),
            maps=settle(config.maps, existing, "maps", "uint8"),
            features=settle(config.features, existing, "features", "").replace(FEATURE_KINDS[0], ""),
            schema_version=settle(None, existing, "schema_version", SCHEMA_VERSION),
            meta=tuple(existing.meta) if existing else None,
        )


def make_plan(
    settings: Settings,
    assembly: Assembly,
    explainable: ExplainableNetwork,
    identity: bool,
    listed: Plan | None = None,
    thresholds: tuple[float, ...] = (),
) -> Plan:
    """Return the plan of a run.

    Args:
        assembly: the dataset, and what is known of the network.
        identity: whether the identity is claimed for exact CAMs.
        listed: the plan that the dataset's samples were listed for: what they are need not be found out again.
        thresholds: see Plan.

    Raises:
        ConfigError: --features where no logits follow from them; --cams asks for more classes than there are, or for
            all with gradients.
    """
    if settings.features and not (identity and settings.method == EXACT and settings.schema_version > 1):
        raise ConfigError(
            f"--features {settings.features}: takes --method {EXACT} with its identity, whose classifier is a linear "
            "map of them, and a run of schema 2; leave the option out"
        )
    source = assembly.source
    meta = _meta(settings, source)
    plan = Plan(
        checkpoint_sha256=assembly.checkpoint.sha256,
        dataset_fingerprint=listed.dataset_fingerprint if listed else fingerprint(assembly, meta),
        class_names=assembly.class_names,
        target_layer=explainable.target_layer,
        preprocessing=assembly.planned_preprocessing,
        precision=settings.precision,
        engine=explainable.engine,
        has_offset=explainable.has_offset,
        architecture=assembly.architecture,
        weights_key=assembly.checkpoint.weights_key,
        architecture_options=assembly.architecture_options,
        identity=identity and settings.method == EXACT,
        method=settings.method,
        control=settings.control,
        sample_count=len(source),
        sample_id_bytes=listed.sample_id_bytes if listed else longest(source.sample_ids),
        batch_size=settings.batch_size,
        shard_size=settings.shard_size or 1,
        cams=settings.cams,
        maps=settings.maps,
        features=settings.features,
        channels=explainable.channels,
        grid_size=explainable.grid_size,
        input_size=assembly.input_size,
        schema_version=settings.schema_version,
        dataset_code=source.code if settings.schema_version > 1 else {},
        label_kind=assembly.label_kind or "",
        first_inputs=first_inputs(source) if settings.schema_version > 1 else {},
        training_known=assembly.trained_on is not None and settings.schema_version > 1,
        meta=listed.meta if listed else {name: longest(source.meta[name]) for name in meta},
        **_several_labels(assembly, thresholds),
    )
    if plan.is_multi_label and plan.cams.has_label:
        raise ConfigError(
            f"--cams {plan.cams}: several labels of a sample may be true: choose all, predicted, positive or topk:N"
        )
    if plan.cams.is_positive and not plan.is_multi_label:
        raise ConfigError(
            f"--cams {plan.cams}: classes reach thresholds where several labels of a sample may be true, by "
            "--problem-type multi-label; of one label a sample choose topk:N"
        )
    try:
        plan.cams.count(len(plan.class_names))
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    if (plan.cams.is_all or plan.cams.is_positive) and not plan.exact:
        raise ConfigError(
            f"--cams {plan.cams}: --method {plan.method} takes a backward pass for each class; choose predicted, "
            "predicted+label or topk:N"
        )
    plan = plan if settings.shard_size else dataclasses.replace(plan, shard_size=default_shard_size(plan))
    require_few_shards(plan)
    return plan


def _several_labels(assembly: Assembly, thresholds: tuple[float, ...]) -> dict[str, Any]:
    """Return what the plan of a multi-label run says of its labels."""
    found = assembly.findings
    if found is None:
        return {}
    return {
        "problem_type": MULTI_LABEL,
        "thresholds": thresholds,
        "label_separator": found.separator,
        "label_columns": dict(found.columns),
    }


def label_reading(config: LabelledConfig, existing: Plan | None) -> LabelReading:
    """Return how labels are to be read: as the options say, which must not contradict an existing run.

    Raises:
        RunError: they do.
    """
    asked = LabelReading.of(config.problem_type, config.label_separator, config.findings)
    if existing is None:
        return asked
    planned = LabelReading(existing.problem_type or SINGLE_LABEL, existing.label_separator, existing.label_columns)
    for flag, value, then in (
        ("--problem-type", asked.problem_type, planned.problem_type),
        ("--label-separator", asked.separator, planned.separator),
        ("--findings", asked.columns, planned.columns),
    ):
        if value and value != then:
            raise RunError(f"this run was planned otherwise: {flag}; leave the option out, or choose another --out")
    return planned


def meta_remarks(plan: Plan) -> tuple[str, ...]:
    """Return what to tell of a manifest's further columns."""
    kept = ", ".join(one_line(array.name) for array in map(meta_array, plan.meta))
    return (f"kept of each sample: {kept}",) if kept else ()


def longest(texts: Iterable[str]) -> int:
    """Return the bytes of the longest text; at least 1, which arrays of texts take."""
    return max(1, max(len(text.encode()) for text in texts))


def _meta(settings: Settings, source: Source) -> tuple[str, ...]:
    """Return which further columns of a manifest a run has; none that an existing run was planned without."""
    if settings.schema_version == 1:
        return ()
    return tuple(name for name in source.meta if settings.meta is None or name in settings.meta)


def fingerprint(assembly: Assembly, meta: Iterable[str]) -> str:
    """Return the dataset's fingerprint, with labels as the checkpoint's classes, and with these further columns."""
    source = assembly.source
    columns = [source.meta[name] for name in meta if name in source.meta]
    sizes = np.asarray(source.sizes).tolist()
    return dataset_fingerprint(source.sample_ids, assembly.fingerprinted_labels, sizes, columns)


def sample_bytes(plan: Plan) -> int:
    """Return about how many bytes one sample takes, before compression."""
    height, width = plan.input_size
    pixel_bytes = {"uint8": 1, "float32": 4, "none": 0}[plan.maps]
    cell_count = plan.grid_size[0] * plan.grid_size[1]
    cam_bytes = plan.maps_per_sample * (cell_count * 4 + 8)
    cam_bytes += np.dtype(plan.features).itemsize * plan.channels if plan.features else 0
    text_bytes = sum(plan.text_bytes.values())
    return height * width * pixel_bytes + cam_bytes + len(plan.class_names) * 4 + text_bytes + ROW_BYTES


def default_shard_size(plan: Plan) -> int:
    """Return how many samples make about SHARD_BYTES: whole batches, at least one."""
    return max(1, SHARD_BYTES // sample_bytes(plan) // plan.batch_size) * plan.batch_size


def bytes_of(plan: Plan, shards: Sequence[Shard]) -> int:
    """Return at most how many bytes `shards`, run.h5 and samples.h5 take, for which nothing counts as compressed."""
    if not shards:
        return 0
    counts = collections.Counter(s.count for s in shards)
    return (
        sum(shard_bytes(plan, count) * many for count, many in counts.items()) + master_bytes(plan) + list_bytes(plan)
    )


def resources(config: ExplainConfig, plan: Plan, mine: Share, device: torch.device) -> dict[str, Any]:
    """Return what a worker computes with, for run.json and its own record: the plan says what of it shapes bytes."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    workers = loader_processes(config.compute.workers, gpu_count(device))
    context = multiprocessing.get_context(config.compute.start_method) if workers else None
    return {
        "task": str(mine),
        "task_from": mine.source,
        "device": f"{device.type} {name}",
        "engine": plan.engine or TORCH,
        "threads": torch.get_num_threads(),
        "workers": workers,
        "start_method": context.get_start_method() if context else "",
    }


def preflight(
    config: ExplainConfig, plan: Plan, assembly: Assembly, mine: Share, shards: Sequence[Shard], device: torch.device
) -> Memory:
    """Tell on stderr what is going to happen: samples, shards, bytes, free disk, memory, and all that was chosen.

    Returns:
        What memory goes to whom.
    """
    processes = loader_processes(config.compute.workers, gpu_count(device))
    memory = memory_for(config.memory, plan, assembly, shards, processes)
    size = bytes_of(plan, shards)
    folder = next(p for p in (config.out.absolute(), *config.out.absolute().parents) if p.exists())
    free = shutil.disk_usage(folder).free
    used = resources(config, plan, mine, device)
    parts = [
        f"{counted(plan.sample_count, 'sample')} in {counted(len(plan.shards), 'shard')} of {plan.shard_size}, "
        f"{len(shards)} to do",
        f"at most {readable_size(size)}, {readable_size(free)} free",
        str(memory),
        f"{plan.architecture} {plan.target_layer}, grid {plan.grid_size[0]}x{plan.grid_size[1]}, {plan.method}",
        f"{counted(len(plan.class_names), 'class')} named by {assembly.names_from}",
        f"cams {plan.cams}, maps {plan.maps}" + (f", features {plan.features}" if plan.features else ""),
        f"{device} {used['engine']} {plan.precision}, batch {plan.batch_size}",
        _processes(used),
        "input " + ", ".join(f"{k} {v}" for k, v in plan.preprocessing.items()),
    ]
    note("; ".join(parts), config.quiet)
    if mine.count > 1:
        whose = f"share {mine} from {mine.source}: {len(shards)} of {counted(len(plan.shards), 'shard')} to do here"
        if not config.share_only:
            whose += ", then what other workers that have begun leave"
        note(whose, config.quiet and mine.is_asked_for)
    if mine.remark:
        note(mine.remark, config.quiet)
    if plan.is_control:
        note(f"control: the weights of {CONTROL_WORDS[plan.control]} are random", quiet=False)
    if plan.precision == "fp16" and device.type == "cpu":
        note("warning: fp16 on a CPU is many times slower than fp32; bf16 is made for it", quiet=False)
    warn_of_workers(config.compute.workers)
    if memory.processes < processes:
        fewer = f"there is memory for {counted(memory.processes, 'loader process')} instead of {processes}"
        note(f"warning: {fewer}: images are large for --memory, or for what the machine or job has", quiet=False)
    for remark in assembly.remarks:
        note(remark, config.quiet)
    if len(plan.shards) > 1 and plan.shard_size < max(SMALL_SHARD, plan.batch_size):
        small = f"warning: shards of {plan.shard_size}: each costs about 28 ms of CPU and 25 kB"
        if plan.shard_size < plan.batch_size:
            small += f", and the network takes no more than a shard at once, instead of {plan.batch_size}"
        note(f"{small}; --shard-size {max(SMALL_SHARD, plan.batch_size)} or more, or none, is faster", config.quiet)
    if size > free:
        warning = f"{folder} may be too small: {readable_size(free)} free for up to {readable_size(size)}"
        note(f"warning: {warning}", quiet=False)
    if mine.count > len(plan.shards):
        shard_count = counted(len(plan.shards), "shard")
        note(f"{mine.count} tasks, {shard_count}: some have nothing to do; see --shard-size", config.quiet)
    return memory


def _processes(used: Mapping[str, Any]) -> str:
    by = f" by {used['start_method']}" if used["workers"] else ""
    return f"{counted(used['threads'], 'thread')}, {counted(used['workers'], 'loader process')}{by}"


def origin(config: ExplainConfig, plan: Plan, assembly: Assembly, mine: Share, device: torch.device) -> dict[str, Any]:
    """Return where the run comes from, for run.json: recorded once, and no part of any shard."""
    return {
        "options": _without_secrets(_plain(config)),
        "class_names_from": assembly.names_from,
        "resources": resources(config, plan, mine, device),
        "remarks": [*assembly.remarks, *filter(None, [mine.remark])],
        **({LEFT_OUT_KEY: assembly.left_out} if assembly.left_out else {}),
        **({MANIFEST_KEY: sha256} if (sha256 := assembly.source.manifest_sha256) else {}),
        "command": _without_secrets(sys.argv),
        "folder": _folder(),  # which relative paths in the options start from
        "created": utc_now(),
        **whereabouts(),
    }


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # a job may outlive the folder that it was started in
        return ""


def _without_secrets(value: Any) -> Any:
    """Return JSON types without the passwords and signatures of URLs in their texts."""
    if isinstance(value, dict):
        return {name: _without_secrets(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [*map(_without_secrets, value)]
    return without_secrets(value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """Return a config as JSON types, and of what is in memory its class."""
    if isinstance(value, Part):
        return {name: _plain(each) for name, each in vars(value).items()}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (Path, CamSelection)):
        return str(value)
    return value if value is None or isinstance(value, (str, int, float, list, tuple)) else in_memory(value)
