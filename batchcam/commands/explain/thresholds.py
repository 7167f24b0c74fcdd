"""From which probability each class of a multi-label run counts, as options say it."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from batchcam.commands.explain.assembly import Assembly
from batchcam.config.shared import LabelledConfig
from batchcam.config.texts import read_option_file
from batchcam.data.labels import KnownClasses
from batchcam.data.samples import UNKNOWN_SIZE
from batchcam.data.sources import Source
from batchcam.errors import ConfigError, one_line
from batchcam.record.thresholds import RULE, learned_thresholds
from batchcam.rules import DEFAULT_THRESHOLD
from batchcam.store.opening import open_run
from batchcam.store.plan import Plan

NAMED = 5


def thresholds_for(
    config: LabelledConfig, existing: Plan | None, assembly: Assembly
) -> tuple[tuple[float, ...], Assembly]:
    """Return the threshold of each class, none in a single-label run, and the assembly with what to tell of them.

    Raises:
        ConfigError: an option names no threshold, or goes with several labels a sample.
        RunError: --thresholds-from can't be read.
    """
    asked = config.threshold or config.thresholds_from
    if assembly.findings is None:
        if asked:
            raise ConfigError("--threshold and --thresholds-from: go with --problem-type multi-label")
        return (), assembly
    if existing and not asked:
        return existing.thresholds, assembly
    names = assembly.class_names
    told = f"thresholds: {config.threshold or DEFAULT_THRESHOLD}"
    if config.thresholds_from:
        network = (assembly.checkpoint.sha256, assembly.checkpoint.weights_key)
        values, unlearned = learned_thresholds(config.thresholds_from, names, network, assembly.planned_preprocessing)
        same = _in_both(config.thresholds_from, assembly.source)
        told = f"thresholds: of each class {RULE}, on {config.thresholds_from}"
        if same:
            told += f"; {same} of {len(assembly.source)} samples are in that run too, and look better than others will"
        if unlearned:
            told += f"; {DEFAULT_THRESHOLD} of {', '.join(unlearned[:NAMED])}, without a yes there"
    else:
        values = _parsed(config.threshold or str(DEFAULT_THRESHOLD), names)
        if len({*values}) > 1:
            told += f"; {values.count(DEFAULT_THRESHOLD)} of {len(values)} classes have {DEFAULT_THRESHOLD}"
    stored = tuple(float(np.float32(value)) for value in values)
    return stored, dataclasses.replace(assembly, remarks=(*assembly.remarks, told))


def _in_both(path: Path, source: Source) -> int:
    """Return how many samples of a dataset a run holds: of the same id, and of the same size where both know it."""
    sizes: dict[str, int] = {}
    with open_run(path) as run:
        for _, block in run.blocks(("sample_id", "input_bytes")):
            sizes.update(zip(block["sample_id"].tolist(), block["input_bytes"].tolist(), strict=True))
    own = zip(source.sample_ids, np.asarray(source.sizes).tolist(), strict=True)
    return sum(name in sizes and (UNKNOWN_SIZE in (size, sizes[name]) or size == sizes[name]) for name, size in own)


def _parsed(text: str, names: Sequence[str]) -> tuple[float, ...]:
    if Path(text).suffix.lower() in (".json", ".csv"):
        pairs = list(_of_file(Path(text)))
    elif "=" in text:
        pairs = [("", name.strip(), value) for name, _, value in (each.rpartition("=") for each in text.split(","))]
    else:
        return (_probability(text, "--threshold"),) * len(names)
    known = KnownClasses(names, loosely=True)
    values = [DEFAULT_THRESHOLD] * len(names)
    seen: set[int] = set()
    for place, name, value in pairs:
        index = known.find(name)
        where = f"--threshold {place}{one_line(name)[:40]}"
        if index is None or index < 0:
            raise ConfigError(f"{where}: no class of the model: {one_line(', '.join(names[:NAMED]))}, …")
        if index in seen:
            raise ConfigError(f"{where}: named twice")
        seen.add(index)
        values[index] = _probability(value, where)
    return tuple(values)


def _of_file(path: Path) -> Iterator[tuple[str, str, object]]:
    """Yield where it stands, class and probability of each."""
    text, line = read_option_file(path, "--threshold"), 0
    try:
        if path.suffix.lower() == ".json":
            pairs = json.loads(text, object_pairs_hook=tuple)  # a dict would keep the last of two of a name
            if not isinstance(pairs, tuple):
                raise ValueError("no object")
            yield from ((f"{path}: ", name, value) for name, value in pairs)
            return
        for line, (name, value) in enumerate(csv.reader(text.splitlines()), start=1):
            if line > 1 or value.strip().lower() not in ("threshold", "probability", "p"):  # a header
                yield f"{path}: line {line}: ", name.strip(), value
    except (AttributeError, ValueError, RecursionError, csv.Error) as error:
        place = f"{path}: line {line}" if line else path
        raise ConfigError(
            f"--threshold {place}: want a class and a probability in each line, or a JSON object"
        ) from error


def _probability(value: object, where: str) -> float:
    try:
        number = float(value) if isinstance(value, (str, int, float)) else 0.0
    except ValueError:
        number = 0.0
    if not 0 < np.float32(number) < 1:
        raise ConfigError(f"{where}: {one_line(value)[:40]}: want a probability between 0 and 1")
    return number
