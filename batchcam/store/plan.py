"""run.json: what a run is, decided once, before anything else is written."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np

from batchcam.errors import ConfigError, RunError
from batchcam.rules import (
    CONTROLS,
    EXACT,
    FEATURE_KINDS,
    IDENTITY_TOLERANCE,
    IN_MEMORY,
    MAP_KINDS,
    METHODS,
    MULTI_LABEL,
    OPENVINO,
    TORCH,
    CamSelection,
    threshold_logit,
)
from batchcam.store import landing, schema
from batchcam.store.document import canonical, read_document, seal
from batchcam.version import version

PIXEL_LIMIT = 2**28
"""Largest input of a network; maps are upsampled to it, whether they are stored or not."""

IDENTITY_FIELDS = (
    *("schema_version", "checkpoint_sha256", "dataset_fingerprint", "dataset_code", "first_inputs", "class_names"),
    *("target_layer", "preprocessing", "precision", "method", "control", "weights_key", "architecture_options"),
    *("meta", "problem_type", "thresholds", "engine", "features"),
)
"""What a run is: the run id is the SHA-256 of exactly these. The plan's other fields only shape its files."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "engine": ("", OPENVINO),
    "precision": (*IDENTITY_TOLERANCE,),
    "maps": MAP_KINDS,
    "features": ("", *FEATURE_KINDS[1:]),
    "method": METHODS,
    "control": CONTROLS,
    "problem_type": ("", MULTI_LABEL),
}
"""What a field of a plan may say, where that is one of few words."""

FIRST_INPUTS = 16
"""How many samples' digests belong to a plan."""

INPUT_KEY_BYTES = 8

MOST_TOLD = 8  # entries of a table that differ
LIST_KEY = "samples"
"""Of run.json: what samples.h5 is."""

LIST_BLOCKS_KEY = "sample_blocks"
"""Of run.json: what each part of samples.h5 is, so that one can be proven without the others."""

LIST_BLOCK_BYTES = 2**20

LEFT_OUT_KEY = "left_out"
"""Of run.json's origin: how many samples of the dataset other runs held already."""

MANIFEST_KEY = "manifest_sha256"
"""Of run.json's origin: digest of the manifest that listed the dataset."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """Samples [first, first + count) of the dataset and the file that holds them."""

    index: int
    first: int
    count: int

    @property
    def file(self) -> str:
        """Name inside the shard folder."""
        return schema.shard_file(self.index)


class Shards(Sequence[Shard]):
    """All shards of a run in order, which together hold every sample once; none is made before it is asked for.

    Args:
        sample_count: of the run.
        shard_size: samples of each but the last, which may hold fewer.
    """

    def __init__(self, sample_count: int, shard_size: int) -> None:
        self._samples, self._size = sample_count, shard_size
        self._indices = range(-(-sample_count // shard_size))

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Shard: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Shard, ...]: ...
    def __getitem__(self, index: int | slice) -> Shard | tuple[Shard, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in self._indices[index])
        number = self._indices[index]
        first = number * self._size
        return Shard(number, first, min(self._size, self._samples - first))


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that decides the bytes of a run's shards.

    Attributes:
        checkpoint_sha256: digest of the checkpoint file, hex; of a network in memory that of its state dict.
        dataset_fingerprint: SHA-256 over ids, labels and sizes, hex, see the function of this name.
        class_names: K names, by class index.
        target_layer: name of the module whose output is explained.
        preprocessing: how an image becomes the network's input.
        precision: fp32, tf32, bf16 or fp16.
        architecture: name of the network.
        identity: whether the maps are said to add up to the logits; False for gradient methods, or where it was waived.
        sample_count: samples of the whole dataset.
        sample_id_bytes: UTF-8 length of the longest sample id.
        batch_size: samples of one forward pass.
        shard_size: samples of one shard; the last one may hold fewer.
        cams: which classes' CAMs are stored.
        maps: kind of upsampled map, one of rules.MAP_KINDS.
        channels: C, features that the classifier takes.
        grid_size: (h, w) of the target layer's output.
        input_size: (H, W) of the network's input.
        method: how maps are made, one of rules.METHODS.
        control: which weights were replaced by random ones first, one of rules.CONTROLS.
        schema_version: what its files are written as.
        dataset_code: callable and digest of its module where a dataset is the user's code, else nothing.
        weights_key: which of several weights of the checkpoint; "" where it holds one network's.
        architecture_options: what torchvision's function was told, NAME=VALUE, where the checkpoint does not decide it.
        label_kind: what labels that are whole numbers were read as, names or indices; "" where they are none.
        first_inputs: digests of the first samples by id, as `input_key` cuts them, where these are no files, whose
            sizes would tell a dataset from others.
        training_known: whether the checkpoint says which images it was trained on, and so the rows.
        meta: the further columns of a manifest, by the names of their arrays below schema.META, sorted; of each the
            bytes of its longest text.
        problem_type: multi-label, or "" for single-label.
        thresholds: of a multi-label run: of each class the probability from which it counts, as float32 has it.
        label_separator: what stands between the classes of a label, where labels of a multi-label run are lists.
        label_columns: by class, the manifest's column that says whether it is true, where labels are columns, or the
            label that does, where these are lists of which only some count.
        engine: what computed the network: openvino, or "" for torch.
        has_offset: whether some of the logits, besides their bias, lies in no cell, as of networks of tokens.
        features: type of the array of features; "" where the run has none.
    """

    checkpoint_sha256: str
    dataset_fingerprint: str
    class_names: tuple[str, ...]
    target_layer: str
    preprocessing: Mapping[str, Any]
    precision: str
    architecture: str
    identity: bool
    sample_count: int
    sample_id_bytes: int
    batch_size: int
    shard_size: int
    cams: CamSelection
    maps: str
    channels: int
    grid_size: tuple[int, int]
    input_size: tuple[int, int]
    method: str = EXACT
    control: str = CONTROLS[0]
    schema_version: int = schema.SCHEMA_VERSION
    # NEWER_FIELDS
    dataset_code: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weights_key: str = ""
    architecture_options: tuple[str, ...] = ()
    label_kind: str = ""
    first_inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    training_known: bool = False
    meta: Mapping[str, int] = dataclasses.field(default_factory=dict)
    problem_type: str = ""
    thresholds: tuple[float, ...] = ()
    label_separator: str = ""
    label_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    engine: str = ""
    has_offset: bool = False
    features: str = ""

    @functools.cached_property
    def run_id(self) -> str:
        """SHA-256, hex, of what the run is (IDENTITY_FIELDS)."""
        content = self.to_dict()
        return hashlib.sha256(canonical({f: content[f] for f in IDENTITY_FIELDS if f in content}).encode()).hexdigest()

    @property
    def exact(self) -> bool:
        """Whether the maps are exact CAMs; no identity covers those of gradient methods."""
        return self.method == EXACT

    @property
    def waived(self) -> bool:
        """Whether the proof that exact CAMs add up to the logits was waived."""
        return self.exact and not self.identity

    @property
    def is_control(self) -> bool:
        """Whether weights were replaced by random ones."""
        return self.control != CONTROLS[0]

    @property
    def padding(self) -> tuple[int, int, int] | None:
        """RGB around images that lie whole in the network's input; None: they are cropped, or nothing is said.

        Of other channels than three, what pictures show of them.
        """
        colour = self.preprocessing.get("pad")
        if not isinstance(colour, list) or not colour or not all(type(v) is int and 0 <= v <= 255 for v in colour):
            return None
        red, green, blue = colour[:3] if len(colour) >= 3 else colour[:1] * 3
        return (red, green, blue)

    @property
    def is_traced(self) -> bool:
        """Whether it is known which part of an image its maps cover, so that these can be laid over it."""
        return self.preprocessing.get("traced") is not False

    @property
    def image_channels(self) -> int:
        """Channels of the network's input; 3 where nothing is said."""
        mean = self.preprocessing.get("mean")
        return len(mean) if isinstance(mean, list) and mean else 3

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Which stored values are black and white, as the user said; None: nothing was said."""
        limits = self.preprocessing.get("range")
        if not isinstance(limits, list) or [type(v) for v in limits] != [float, float] or not limits[0] < limits[1]:
            return None
        return (limits[0], limits[1])

    @property
    def bits(self) -> int | None:
        """How many are used of 16-bit values, as the user said; None: nothing was said."""
        bits = self.preprocessing.get("bits")
        return bits if type(bits) is int and 8 <= bits <= 16 else None

    @property
    def is_in_memory(self) -> bool:
        """Whether the network was given as an object: `checkpoint_sha256` is then its state dict's digest."""
        return self.architecture.startswith(IN_MEMORY)

    @property
    def maps_per_sample(self) -> int:
        """M: how many classes' CAMs each sample has."""
        return self.cams.count(len(self.class_names))

    @property
    def schema_min_reader(self) -> int | None:
        """The oldest schema that a reader of its files has to know; None where they don't say."""
        return 2 if self.is_multi_label or self.has_offset else schema.OLDEST_READER[self.schema_version]

    @property
    def is_multi_label(self) -> bool:
        """Whether each class of a sample is true or not by itself."""
        return self.problem_type == MULTI_LABEL

    @property
    def threshold_logits(self) -> np.ndarray | None:
        """From which logit each class counts, float32 (K,); None in a single-label run."""
        return np.array([*map(threshold_logit, self.thresholds)], np.float32) if self.is_multi_label else None

    @property
    def arrays(self) -> tuple[schema.Array, ...]:
        """The arrays with a row per sample, in the order in which they are created."""
        known, problem = self.training_known, self.problem_type
        arrays = schema.sample_arrays(
            self.maps, self.exact, self.schema_version, known, self.meta, problem, self.has_offset, self.features
        )
        if not self.cams.is_positive:
            return arrays
        return tuple(dataclasses.replace(a, storage="sparse") if a.name in ("cams", "cam_class") else a for a in arrays)

    @property
    def class_arrays(self) -> tuple[schema.Array, ...]:
        """The arrays about classes that each file but samples.h5 has."""
        return (*schema.CLASSIFIER_ARRAYS, schema.CLASS_NAME, *([schema.THRESHOLD] if self.is_multi_label else []))

    @property
    def text_bytes(self) -> dict[str, int]:
        """Width of the arrays of texts that have the same one in all files of the run."""
        return {
            "sample_id": self.sample_id_bytes,
            **{schema.meta_array(name).name: width for name, width in self.meta.items()},
        }

    @property
    def shards(self) -> Shards:
        """All shards of the run, in order."""
        return Shards(self.sample_count, self.shard_size)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        content = {**dataclasses.asdict(self), "cams": str(self.cams)}
        for name in ("class_names", "grid_size", "input_size", "architecture_options", "thresholds"):
            content[name] = list(content[name])
        return {name: value for name, value in content.items() if value or name not in NEWER_FIELDS}

    def config_text(self) -> str:
        """Return the plan as the JSON text that goes into every shard (class names are an array of their own)."""
        content = self.to_dict()
        del content["class_names"]
        return canonical(content)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Plan:
        """Return the plan that `to_dict` gave.

        Raises:
            ValueError: a field is missing, unknown or of the wrong type or range.
        """
        named = set(content) if isinstance(content, Mapping) else set()
        if odd := (named ^ {*_FIELDS}) - (NEWER_FIELDS - named):
            raise ValueError(f"fields of the plan differ: {sorted(map(str, odd))}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        try:
            values["cams"] = CamSelection.parse(str(values["cams"]))
        except ValueError as error:
            raise ValueError(f"cams of the plan {error}") from error
        plan = cls(**values)
        plan._check()
        return plan

    def _check(self) -> None:
        if type(self.schema_version) is not int or self.schema_version not in schema.OLDEST_READER:
            raise ValueError(
                f"schema {self.schema_version!r}; this batchcam reads schemas 1 to {schema.SCHEMA_VERSION}"
            )
        for field in dataclasses.fields(self):
            if field.name in CHOICES:  # below, whatever their type
                continue
            fits, told = _FORMS.get(str(field.type), (None, ""))
            if fits and not fits(getattr(self, field.name)):
                raise ValueError(f"{field.name} of the plan {told}")
        if not self.class_names:
            raise ValueError("class_names of the plan are not texts")
        if self.sample_id_bytes > schema.MOST_TEXT_BYTES:
            raise ValueError(
                f"a sample id of {self.sample_id_bytes} bytes; at most {schema.MOST_TEXT_BYTES} can be stored"
            )
        self._check_meta()
        self._check_problem()
        if math.prod(self.input_size) > PIXEL_LIMIT:
            raise ValueError(f"input_size of the plan has more than {PIXEL_LIMIT} pixels")
        for name, values in CHOICES.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} of the plan is not one that this batchcam knows")
        if self.identity is True and not self.exact:
            raise ValueError("the plan claims an identity for maps that have none")
        if type(self.has_offset) is not bool or (self.has_offset and (not self.exact or self.schema_version < 2)):
            raise ValueError("has_offset of the plan is not true or false, or true of maps without an identity")
        if not type(self.identity) is type(self.training_known) is bool or not isinstance(self.preprocessing, dict):
            raise ValueError("identity or training_known of the plan is not true or false, or preprocessing no table")
        if self.features and (not self.identity or self.schema_version < 2):
            raise ValueError("features of the plan, where no linear map from them to the logits is claimed")
        self.cams.count(len(self.class_names))
        try:
            canonical(self.to_dict()).encode()
        except UnicodeEncodeError as error:  # JSON can spell half a character
            raise ValueError("a text of the plan is no Unicode text") from error

    def _check_problem(self) -> None:
        if self.is_multi_label and self.schema_version < 2:
            raise ValueError("problem_type of the plan is none that its schema knows")
        count = len(self.class_names) if self.is_multi_label else 0
        if not _is_tuple(self.thresholds, float) or len(self.thresholds) != count:
            raise ValueError("thresholds of the plan are not one number for each class of a multi-label run")
        if not all(0 < value < 1 and float(np.float32(value)) == value for value in self.thresholds):
            raise ValueError("a threshold of the plan is no float32 between 0 and 1")
        if not self.is_multi_label and (self.label_separator or self.label_columns):
            raise ValueError("the plan of a single-label run says how several labels were read")
        if self.cams.has_label if self.is_multi_label else self.cams.is_positive:
            raise ValueError(f"cams of the plan: {self.cams}, which is not for its problem_type")

    def _check_meta(self) -> None:
        if not isinstance(self.meta, dict) or not _is_texts((*self.meta,)) or list(self.meta) != sorted(self.meta):
            raise ValueError("meta of the plan is no table by sorted names")
        if self.meta and self.schema_version < 2:
            raise ValueError("meta of the plan: schema 1 has none")
        for name, width in self.meta.items():
            if (
                not name
                or "/" in name
                or "\0" in name
                or name == "."
                or not _is_size(width)
                or width > schema.MOST_TEXT_BYTES
            ):
                raise ValueError(f"meta of the plan: {name!r} is no name of an array, or too wide")


def _is_tuple(value: object, kind: type) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, kind) for each in value)


def _is_texts(value: object) -> bool:
    return _is_tuple(value, str)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value < 2**40


def _is_two_sizes(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_size, value))


def _is_texts_by_name(value: object) -> bool:
    return isinstance(value, dict) and _is_texts((*value, *value.values()))


_FORMS: dict[str, tuple[Callable[[object], bool], str]] = {
    "str": (lambda value: isinstance(value, str), "is not text"),
    "tuple[str, ...]": (_is_texts, "are not texts"),
    "int": (_is_size, "is not a positive integer"),
    "tuple[int, int]": (_is_two_sizes, "is not a height and a width"),
    "Mapping[str, str]": (_is_texts_by_name, "is not texts by name"),
}
"""By the type of a field of a plan what its value has to be, and what to tell of another one."""

_FIELDS = [field.name for field in dataclasses.fields(Plan)]

NEWER_FIELDS = frozenset(_FIELDS[_FIELDS.index("schema_version") + 1 :])
"""Fields that a plan has only where they say something: plans and run ids of before stay as they are."""


def input_key(sha256: bytes) -> str:
    """Return the digest of a sample as `Plan.first_inputs` has it."""
    return sha256[:INPUT_KEY_BYTES].hex()


def fingerprint_text(rows: Mapping[str, np.ndarray], meta: Iterable[str] = ()) -> bytes:
    """Return what the dataset's fingerprint is the SHA-256 of, of samples in their order.

    For each its id, what a manifest says besides, its label and its size in bytes. It is quick for a million files;
    their content is covered by `input_sha256` in the shards.

    Args:
        rows: arrays of the schema by name; labels are -1 where not known, sizes where there is none.
        meta: names of the further columns, as `Plan.meta` has them.
    """
    texts = (rows[name].tolist() for name in ("sample_id", *(schema.meta_array(name).name for name in meta)))
    labels = label_words(rows[schema.LABELS]) if schema.LABELS in rows else rows["label"].tolist()
    each = zip(zip(*texts, strict=True), labels, rows["input_bytes"].tolist(), strict=True)
    return b"".join([_line(texts_of, label, size) for texts_of, label, size in each])


def label_words(labels: np.ndarray) -> list[bytes]:
    """Return what the fingerprint takes of several labels a sample, int8 (n, K): of each 1, 0, or - where not known."""
    words = np.frombuffer(b"-01?", np.uint8)[np.clip(labels, -1, 2).astype(np.int64) + 1]
    return [row.tobytes() for row in words]


def fingerprint_covers(meta: Iterable[str]) -> str:
    """Return what the fingerprint is about, in words."""
    return f"sample ids, {'meta columns, ' if [*meta] else ''}labels, sizes"


def dataset_fingerprint(
    sample_ids: Iterable[str], labels: Iterable[int | bytes], sizes: Iterable[int], meta: Iterable[Iterable[str]] = ()
) -> str:
    """Return the fingerprint of a whole dataset, hex.

    Args:
        sample_ids, sizes: of each sample.
        labels: of each sample a number, or in a multi-label run what `label_words` gives.
        meta: its further columns in the order of their names.
    """
    digest = hashlib.sha256()
    for texts, label, size in zip(zip(sample_ids, *meta, strict=True), labels, sizes, strict=True):
        digest.update(_line((text.encode() for text in texts), label, size))
    return digest.hexdigest()


def _line(texts: Iterable[bytes], label: int | bytes, size: int) -> bytes:
    return b"%b\0%b\0%d\n" % (b"\0".join(texts), label if isinstance(label, bytes) else b"%d" % label, size)


def read_plan(run: Path) -> Plan:
    """Return the plan of the run directory `run`.

    Raises:
        FileNotFoundError: it has none.
        RunError: it was changed, is damaged, or of a schema that this version does not read.
    """
    content = read_document(run / schema.PLAN_FILE)
    try:
        plan = Plan.from_dict(content["plan"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run / schema.PLAN_FILE}: {error}") from error
    if not _is_table_of(plan, content.get("shards")) or content.get("run_id") != plan.run_id:
        raise RunError(f"{run / schema.PLAN_FILE}: run id or shard table does not follow from the plan")
    if not isinstance(content.get("origin"), dict):
        raise RunError(f"{run / schema.PLAN_FILE}: does not tell where the run comes from")
    return plan


def open_plan(run: Path) -> Plan:
    """Return the plan of the run directory `run`.

    Raises:
        RunError: it is no run directory, or its plan is damaged.
    """
    try:
        return read_plan(run)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise not_a_run(run) from error


def named_dataset(run: Path) -> tuple[str | None, str]:
    """Return the dataset as it was named when the run was planned, None where that is not known; and in which folder.

    Args:
        run: a run directory, or one of its shards, which does not say.
    """
    options, folder = _said(run)
    data = options.get("data")
    return data if isinstance(data, str) else None, folder


def named_reading(run: Path) -> tuple[dict[str, str], str, str]:
    """Return what was said of how the run's manifest is meant: `Reading.columns`, `root` and `suffix`.

    Args:
        run: as for `named_dataset`.
    """
    options, folder = _said(run)
    said = options.get("classifier")
    said = said if isinstance(said, dict) else {}
    columns = said.get("columns")
    root, suffix = (text if isinstance(text := said.get(name), str) else "" for name in ("root", "suffix"))
    known = columns if isinstance(columns, dict) and _is_texts_by_name(columns) else {}
    return known, os.path.normpath(os.path.join(folder, os.path.expanduser(root))) if root else "", suffix


def _said(run: Path) -> tuple[Mapping[str, Any], str]:
    """Return the options that a run was planned with, and in which folder; nothing where its run.json does not say."""
    try:
        origin = read_document(run / schema.PLAN_FILE)["origin"]
        options, folder = origin["options"], origin.get("folder")
    except (OSError, AttributeError, KeyError, TypeError, RunError):
        return {}, ""
    return options if isinstance(options, dict) else {}, folder if isinstance(folder, str) else ""


def not_a_run(path: Path) -> RunError:
    """Return the error that says why there is no plan in `path`, and which folder is meant if it is part of a run."""
    if not path.exists():
        return RunError(f"{path}: no such folder")
    for folder in (path.parent, path.parent.parent):
        if (folder / schema.PLAN_FILE).is_file():
            return RunError(f"{path}: a {'folder' if path.is_dir() else 'file'} of a run: name the folder {folder}")
    return RunError(f"{path}: not a run directory: no {schema.PLAN_FILE} in it, nor in a folder of it")


def shard_table(plan: Plan) -> dict[str, Any]:
    """Return what run.json says of the shards."""
    return {"count": len(plan.shards), "first_file": plan.shards[0].file, "last_file": plan.shards[-1].file}


def _is_table_of(plan: Plan, table: object) -> bool:
    """Return whether a run.json says this of the plan's shards; those of earlier versions listed them."""
    if not isinstance(table, list):
        return table == shard_table(plan)
    # lengths first: a plan of 2**40 shards that lists none must not fill the memory
    return len(table) == len(plan.shards) and all(
        each == {"file": s.file, "first": s.first, "count": s.count} for each, s in zip(table, plan.shards, strict=True)
    )


def require_few_shards(plan: Plan) -> None:
    """Raise ConfigError for more shards than a run may have."""
    if len(plan.shards) > schema.MOST_SHARDS:
        fewest = -(-plan.sample_count // schema.MOST_SHARDS)
        raise ConfigError(
            f"--shard-size {plan.shard_size}: makes {len(plan.shards)} shards, and a run holds {schema.MOST_SHARDS} at "
            f"most: say {fewest} or more"
        )


def write_plan(run: Path, plan: Plan, origin: Mapping[str, Any], listed: bytes | None = None) -> Plan:
    """Write run.json unless it is there, and return the plan that holds: ours, or an equal one of another worker.

    Args:
        run: the run directory; created if it is not there.
        plan: what the run is to be.
        origin: where it comes from (paths, command line, time); recorded, and no part of the run's identity.
        listed: what samples.h5 is to be, which `landing.take_up` then gives its name; None: the run has none.

    Raises:
        RunError: the directory belongs to another run; the message names the fields that differ. Or `plan` is one that
            `read_plan` refuses.
    """
    if not (run / schema.PLAN_FILE).exists():
        require_few_shards(plan)
        try:
            plan._check()
        except ValueError as error:
            raise RunError(f"{run}: cannot be planned: {error}") from error
    if (run / schema.SHARD_FOLDER).is_symlink():
        raise RunError(f"{run / schema.SHARD_FOLDER}: a link; a run holds its files itself: link the whole run instead")
    landing.make_folder(run / schema.SHARD_FOLDER)
    content: dict[str, Any] = {
        "batchcam_version": version(),
        "run_id": plan.run_id,
        "plan": plan.to_dict(),
        "origin": dict(origin),
        "shards": shard_table(plan),
    }
    if listed is not None:
        samples = {"bytes": len(listed), "sha256": hashlib.sha256(listed).hexdigest()}
        content[LIST_KEY] = {"file": schema.LIST_FILE, "first": 0, "count": plan.sample_count, **samples}
        content[LIST_BLOCKS_KEY] = {
            "bytes": LIST_BLOCK_BYTES,
            "sha256": block_digests(io.BytesIO(listed), LIST_BLOCK_BYTES),
        }
    document = seal(content)
    if not (run / schema.PLAN_FILE).exists():
        if listed is not None:  # first: a run that has a plan can be finished
            landing.lay_ready(run / schema.LIST_FILE, listed, content[LIST_KEY]["sha256"])
        if landing.land_first(run / schema.PLAN_FILE, document):
            return plan
    existing = read_plan(run)
    require_same(run, existing, plan)
    return existing


def block_digests(content: BinaryIO, block_bytes: int) -> list[str]:
    """Return the SHA-256 of each block of so many bytes, hex."""
    return [hashlib.sha256(block).hexdigest() for block in iter(lambda: content.read(block_bytes), b"")]


def require_same(run: Path, existing: Plan, ours: Plan) -> None:
    """Raise RunError, naming the fields that differ, unless `ours` is the plan that `run` was made with."""
    differing = differences(existing.to_dict(), ours.to_dict())
    if not differing:
        return
    told = ", ".join(differing.values())
    if set(differing) & set(IDENTITY_FIELDS):
        raise RunError(f"{run}: belongs to another run: {told}; choose another --out")
    raise RunError(f"{run}: was planned otherwise: {told}; leave the option out, or choose another --out")


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, str]:
    """Return where fields of two plans differ, by field: its name and both values, as people read them."""
    there, here = ({"engine": TORCH, **content} for content in (there, here))
    # as text: JSON has no tuples, which the preprocessing may hold
    differing = [f for f in {**there, **here} if canonical(there.get(f)) != canonical(here.get(f))]
    return {f: f"{f.replace('_', ' ')} ({_difference(there.get(f), here.get(f))})" for f in differing}


def _difference(there: object, here: object) -> str:
    """Return two values as people read them; of two tables, or lists of texts, the entries that differ."""
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        there, here = _entries(there), _entries(here)
    if there is None and isinstance(here, Mapping):
        there = {}
    if here is None and isinstance(there, Mapping):
        here = {}
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        names = [n for n in {**there, **here} if canonical(there.get(n)) != canonical(here.get(n))]
        told = ", ".join(f"{n} {_short(there.get(n))} there, {_short(here.get(n))} here" for n in names[:MOST_TOLD])
        return told + (f", and {len(names) - MOST_TOLD} more" if len(names) > MOST_TOLD else "")
    return f"{_short(there)} there, {_short(here)} here"


def _entries(value: object) -> object:
    """Return a list of texts as a table of these by number, and anything else as it is."""
    return dict(enumerate(value)) if isinstance(value, list) and _is_texts(tuple(value)) else value


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"
