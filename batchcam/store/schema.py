"""Names, types and meanings of everything in a run directory: every schema that was ever written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import numpy as np

from batchcam.rules import MULTI_LABEL, STATUS_MISSING

SCHEMA_VERSION: Final = 2
"""What a new run is written as."""

OLDEST_READER: Final[Mapping[int, int | None]] = {1: None, 2: 1}
"""By schema that is read here, the oldest one that a reader has to know to read its files right, as they state it."""

PLAN_FILE: Final = "run.json"
LIST_FILE: Final = "samples.h5"
MANIFEST_FILE: Final = "manifest.json"
MASTER_FILE: Final = "run.h5"
SHARD_FOLDER: Final = "shards"
DIGEST_SUFFIX: Final = ".sha256"
SIGNATURE_FOLDER: Final = "signatures"
TASK_PATTERN: Final = "task-*.json"
WORKER_PATTERN: Final = "task-[0-9]*.json"
"""Names of tasks' records: all, and those of tasks that explain; others are of processes that merge."""
PARTIAL_SUFFIX: Final = ".partial"


def shard_file(index: int) -> str:
    """Return the name of shard `index`, relative to the shard folder."""
    return f"shard-{index:05d}.h5"


MOST_SHARDS: Final = 1_000_000
"""Of one run; folders hold twice as many files."""

REFERRED_SHARDS: Final = 10_000
"""Most shards that run.h5 refers to: HDF5 takes 15 kB of memory for each, and opens them all at once."""

Storage = Literal["checked", "text", "deflate", "sparse"]
"""checked: fletcher32 over plain chunks · text: fixed-length UTF-8, gzip · deflate: gzip, compressed outside HDF5 ·
sparse: mostly the fill value, gzip and fletcher32."""


@dataclasses.dataclass(frozen=True)
class Array:
    """One HDF5 dataset of the schema.

    Attributes:
        name: path inside the file.
        dims: names of its dimension scales, outermost first.
        dtype: numpy type name, or `text`.
        storage: how its chunks are kept.
        fill: value of a row that is not there.
        meaning: `long_name` in the file.
        units: `units` in the file, None where a number has none.
        since: first schema that has it.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    storage: Storage
    fill: float | int | bytes
    meaning: str
    units: str | None = None
    since: int = 1


NAN: Final = float("nan")
LOGIT_PER_CELL: Final = "logit per cell"

TRAINED_ON: Final = "trained_on"
LABELS: Final = "labels"
OFFSET: Final = "offset"
FEATURES: Final = "features"
PROBLEM_TYPE: Final = "problem_type"


def _numbers(name: str, dtype: str, fill: float, meaning: str, *dims: str, **more: Any) -> Array:
    """Return an array of a number, or of several along `dims`, for each sample."""
    return Array(name, ("sample_index", *dims), dtype, "checked", fill, meaning, **more)


def _text(name: str, meaning: str, of: str = "sample_index", since: int = 1) -> Array:
    """Return an array of a text for each sample, or whatever else it is `of`."""
    return Array(name, (of,), "text", "text", b"", meaning, since=since)


SAMPLE_ARRAYS: Final = (
    _numbers("sample_index", "int64", -1, "position in the dataset"),
    _text("sample_id", "stable name of the sample"),
    _numbers(
        "input_sha256", "uint8", 0,
        "SHA-256 of the stored image bytes, or of the decoded array where a dataset has no file; 0 when unreadable",
        "sha256_byte",
    ),
    _numbers(
        "input_bytes", "int64", -1, "size of the stored file when the dataset was listed; -1 where there is none",
        units="byte", since=2,
    ),
    _numbers(
        TRAINED_ON, "int8", -1,
        "1: the network was trained on this image; 0: not; -1: not known, since it can't be read", since=2,
    ),
    _numbers("label", "int64", -1, "class from the dataset; -1: not known"),
    _numbers(
        LABELS, "int8", -1, "each class by itself, from the dataset; 1: yes; 0: no; -1: not known", "class_name",
        since=2,
    ),
    _numbers("prediction", "int64", -1, "predicted class: argmax of the logits"),
    _numbers("confidence", "float32", NAN, "softmax of the logits at the predicted class", units="1"),
    _numbers("logits", "float32", NAN, "network output before softmax", "class_name"),
    _numbers("cam_class", "int64", -1, "class that each map of cams explains", "map_rank"),
    _numbers(
        "cams", "float32", NAN,
        "raw class activation maps, signed, unscaled, without bias; mean over cells + bias = logit",
        "map_rank", "cam_y", "cam_x", units=LOGIT_PER_CELL,
    ),
    _numbers(
        OFFSET, "float32", NAN, "what of the logit of each map's class lies in no cell, besides the bias", "map_rank",
        units="logit", since=2,
    ),
    _numbers(
        FEATURES, "float32", NAN,
        "what the classifier takes: the pooled target layer, behind a layer norm over its deviation; W f + b = logits",
        "channel", since=2,
    ),
    Array(
        "maps", ("sample_index", "y", "x"), "uint8", "deflate", 0,
        "predicted class's CAM, bilinear to the input size, then min-max over the image to 0..255, rounded",
    ),
    _numbers(
        "map_range", "float32", NAN,
        "smallest and largest value of the upsampled map: what 0 and 255 of maps stand for",
        "range_end", units=LOGIT_PER_CELL,
    ),
    _numbers(
        "crop_box", "float32", NAN, "the network's view in the upright original image", "box_edge", units="pixel"
    ),
    _numbers("image_size", "int32", -1, "size of the upright original image", "size_axis", units="pixel"),
    _numbers(
        "identity_residual", "float32", NAN, "largest abs(mean of CAM + bias - logit) over the stored classes",
        units="logit",
    ),
    _numbers("status", "uint8", STATUS_MISSING, "flags: what is to be known about this row"),
    _text("error", "why the sample is unreadable, in one line"),
)  # fmt: skip
"""Arrays with a row per sample, in the order in which they are created."""

LISTED: Final = ("sample_index", "sample_id", "input_bytes", "label", LABELS)
"""Those that samples.h5 has of every sample that was planned, `labels` in a multi-label run only."""

LIST_PATH: Final = _text(
    "path", "where the file lies below the dataset's folder; backslash: \\\\, a byte that is no UTF-8: \\xNN"
)
"""In samples.h5 only, and only where it is not the sample's id."""

META: Final = "meta"
"""The group of what a manifest says besides."""

CLASSIFIER_ARRAYS: Final = (
    Array(
        "classifier/weight", ("class_name", "channel"), "float32", "checked", NAN,
        "W of the linear map from the pooled target layer to the logits",
    ),
    Array("classifier/bias", ("class_name",), "float32", "checked", NAN, "b of that map", "logit"),
)  # fmt: skip

THRESHOLD: Final = Array(
    "threshold", ("class_name",), "float32", "checked", NAN, "probability from which a class counts", "1", since=2
)
"""In a multi-label run only."""

CLASS_NAME: Final = _text("class_name", "names of the classes, by index", of="class_name")
CONFIG: Final = "config"
SHARD_TABLE: Final = "shards"

MULTI_LABEL_MEANINGS: Final[Mapping[str, str]] = {
    "label": "-1: several classes of a sample may be true, see labels",
    "prediction": "class whose logit is highest above that of its threshold; where all are below, the least so",
    "confidence": "sigmoid of the logit of the prediction",
    "logits": "network output before sigmoid",
}
"""What these arrays of a multi-label run are instead."""

OFFSET_MEANINGS: Final[Mapping[str, str]] = {
    "cams": "raw class activation maps, signed, unscaled; mean over cells + bias + offset = logit",
    "identity_residual": "largest abs(mean of CAM + bias + offset - logit) over the stored classes",
}
"""What these arrays of a run with `offset` are instead."""

FLOAT_MAPS_MEANING: Final = "predicted class's CAM, bilinear to the input size, raw values"

VIRTUAL_IN_MASTER: Final = ("cams", FEATURES, "maps", "status")
"""Arrays of run.h5 that stay in the shards, whatever their size; see `stays_in_shards`."""

MOST_TEXT_BYTES: Final = 2**16
"""Bytes of one text; the longest that a run holds is a sample id, and paths end at 4096."""

MASTER_COPY_LIMIT: Final = 256 * 2**20
"""Bytes above which run.h5 refers to an array in the shards instead of copying it (logits of many classes);
a number or a text per sample is always copied."""

LABELLED_DIMS: Final[Mapping[str, tuple[str, ...]]] = {
    "box_edge": ("x0", "y0", "x1", "y1"),
    "range_end": ("min", "max"),
    "size_axis": ("height", "width"),
}
"""Short dimensions whose positions have names of their own."""

ROOT_WORDS: Final[Mapping[str, str]] = {
    "title": "Class activation maps of every sample of a dataset, with the predictions that they explain",
    "units": "cams: logit per cell; mean over a map's cells + classifier/bias = logits, for each class",
    "sign": "positive: evidence for the class; negative: evidence against it",
    "references": "Zhou et al. 2016, https://arxiv.org/abs/1512.04150",
}

OFFSET_WORDS: Final[Mapping[str, str]] = {
    **ROOT_WORDS,
    "units": "cams: logit per cell; mean over a map's cells + classifier/bias + offset = logits, for each class",
    "references": f"{ROOT_WORDS['references']}; Gandelsman et al. 2024, https://arxiv.org/abs/2310.05916",
}
"""ROOT_WORDS of a run with `offset`."""

GRADIENT_WORDS: Final[Mapping[str, str]] = {
    "title": "Maps of every sample of a dataset by a gradient method, with the predictions that they are about",
    "units": "cams: units of the method; no identity connects them with the logits, and classifier is NaN",
    "sign": "positive: for the class, by the method's rule; negative: against it",
    "references": "see batchcam's README, Methods",
}
"""ROOT_WORDS of a run whose maps do not add up to the logits."""

GRADIENT_CAMS_MEANING: Final = "raw maps of a gradient method, signed, unscaled; no identity connects them with logits"

IMAGE_ATTRIBUTES: Final[Mapping[str, str]] = {
    "CLASS": "IMAGE",
    "IMAGE_VERSION": "1.2",
    "IMAGE_SUBCLASS": "IMAGE_GRAYSCALE",
    "DISPLAY_ORIGIN": "UL",
}
"""HDF5 image specification 1.2, so that HDFView shows `maps` as pictures."""

TEXT_CHUNK_ROWS: Final = 4096
"""Rows of a text column, or of the table of shards, that share one chunk; fewer of texts above 256 bytes."""


def map_chunk_rows(rows: int, height: int, width: int) -> int:
    """Return how many of `rows` maps of `height` x `width` share one chunk: 64 KiB of uint8, at least one map."""
    return min(rows, max(1, 65536 // (height * width)))


def stays_in_shards(name: str, shard_count: int) -> bool:
    """Return whether run.h5 leaves this array to the shards whatever its size; never status without references."""
    return name in VIRTUAL_IN_MASTER and (name != "status" or has_references(shard_count))


def has_references(shard_count: int) -> bool:
    """Return whether run.h5 refers to so many shards."""
    return shard_count <= REFERRED_SHARDS


def column_chunk_rows(rows: int, row_bytes: int) -> int:
    """Return how many rows of an uncompressed array share one chunk: about 256 KiB, at least one, at most `rows`."""
    return max(1, min(rows, 262144 // max(1, row_bytes)))


def text_chunk_rows(rows: int, width: int) -> int:
    """Return how many of `rows` texts of `width` bytes share one chunk: a power of two, 1 MiB and one text at most."""
    return min(rows, TEXT_CHUNK_ROWS, 1 << max(1, 2**20 // width).bit_length() - 1)


def meta_array(column: str) -> Array:
    """Return the array of a manifest's further column, by its name below META."""
    return _text(f"{META}/{column}", f"column {column} of the manifest, as written there", since=2)


def sample_arrays(
    maps: str,
    exact: bool = True,
    schema: int = SCHEMA_VERSION,
    training_known: bool = False,
    meta: Iterable[str] = (),
    problem_type: str = "",
    has_offset: bool = False,
    features: str = "",
) -> tuple[Array, ...]:
    """Return the arrays with a row per sample for a plan's choice of `maps` (see rules.MAP_KINDS).

    Maps that are no exact CAMs have the same arrays, in other words and units.
    """
    if not exact:
        with_identity = sample_arrays(maps, True, schema, training_known, meta, problem_type)
        return tuple(map(_without_identity, with_identity))
    is_multi_label = problem_type == MULTI_LABEL
    left_out = {
        TRAINED_ON: not training_known,
        LABELS: not is_multi_label,
        OFFSET: not has_offset,
        FEATURES: not features,
    }
    arrays = tuple(a for a in SAMPLE_ARRAYS if a.since <= schema and not left_out.get(a.name))
    meanings = {**(MULTI_LABEL_MEANINGS if is_multi_label else {}), **(OFFSET_MEANINGS if has_offset else {})}
    arrays = tuple(dataclasses.replace(a, meaning=meanings.get(a.name, a.meaning)) for a in arrays)
    arrays = tuple(dataclasses.replace(a, dtype=features) if a.name == FEATURES else a for a in arrays)
    arrays += tuple(map(meta_array, meta))
    if maps == "uint8":
        return arrays
    if maps == "float32":
        raw = {"dtype": "float32", "fill": NAN, "meaning": FLOAT_MAPS_MEANING, "units": LOGIT_PER_CELL}
        return tuple(dataclasses.replace(a, **raw) if a.name == "maps" else a for a in arrays)  # type: ignore[arg-type]
    return tuple(a for a in arrays if a.name not in ("maps", "map_range"))


def _without_identity(array: Array) -> Array:
    meaning = {"cams": GRADIENT_CAMS_MEANING, "identity_residual": "NaN: no identity"}.get(array.name, array.meaning)
    return dataclasses.replace(array, meaning=meaning, units="1" if array.units == LOGIT_PER_CELL else array.units)


def encode_text(texts: list[str], width: int | None = None) -> np.ndarray:
    """Return `texts` as fixed-length UTF-8, type S(width), width in bytes (default: the longest); nothing is cut.

    Raises:
        ValueError: a text is longer than `width` or holds a NUL, which HDF5's fixed-length text can't.
    """
    encoded = [t.encode("utf-8") for t in texts]
    longest = max((len(e) for e in encoded), default=0)
    if width is not None and longest > width:
        raise ValueError(f"text of {longest} bytes does not fit into {width}")
    if any(b"\0" in e for e in encoded):
        raise ValueError("text holds a NUL character")
    return np.array(encoded, dtype=f"S{width or max(1, longest)}")
