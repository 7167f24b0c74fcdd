"""docs/format: a record's documents as JSON Schemas, and what else a reader needs to know as a table for programs.

`python -m docs.make.format` writes them, from what readers of batchcam hold a run to.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from batchcam.rules import FEATURE_TOLERANCE, IDENTITY_TOLERANCE
from batchcam.store import manifest, schema
from batchcam.store.document import DIGEST_KEY, SIZE_LIMIT
from batchcam.store.form import COUNT_LIMIT, TEXT_LIMIT, Form
from batchcam.store.plan import CHOICES, IDENTITY_FIELDS, NEWER_FIELDS, Plan
from batchcam.store.structure import FILTERS
from tests.helpers import ROOT

FOLDER = ROOT / "docs" / "format"

Schema = dict[str, Any]

DIGEST: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
TEXT: Final[Schema] = {"type": "string"}
SIZE: Final[Schema] = {"type": "integer", "minimum": 1, "exclusiveMaximum": 2**40}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0, "exclusiveMaximum": COUNT_LIMIT}

BY_TYPE: Final[Mapping[str, Schema]] = {
    "str": TEXT,
    "tuple[str, ...]": {"type": "array", "items": TEXT},
    "int": SIZE,
    "tuple[int, int]": {"type": "array", "items": SIZE, "minItems": 2, "maxItems": 2},
    "Mapping[str, str]": {"type": "object", "additionalProperties": TEXT},
    "bool": {"type": "boolean"},
    "Mapping[str, Any]": {"type": "object"},
    "Mapping[str, int]": {
        "type": "object",
        "propertyNames": {"pattern": r"^(?!\.$)[^/\u0000]+$"},
        "additionalProperties": {**SIZE, "maximum": schema.MOST_TEXT_BYTES},
    },
    "tuple[float, ...]": {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}},
    "CamSelection": {"pattern": "^(all|predicted|predicted\\+label|positive|topk:0*[1-9][0-9]*)$", **TEXT},
}
"""By the type of a field of the plan."""

BY_NAME: Final[Mapping[str, Schema]] = {
    "schema_version": {"enum": sorted(schema.OLDEST_READER)},
    "class_names": {"minItems": 1},
    "sample_id_bytes": {"maximum": schema.MOST_TEXT_BYTES},
    **{name: {"enum": list(choices)} for name, choices in CHOICES.items()},
}
"""What the type does not say."""

CLOSED = (manifest.RECORD_FORM, manifest.SHARDS_FORM)
"""Forms that become dataclasses, which take no further key."""


def schema_of(form: Form) -> Schema:
    """Return a form of `batchcam.store.form` as JSON Schema."""
    if isinstance(form, tuple):
        return {"anyOf": [schema_of(each) for each in form]}
    if isinstance(form, list):
        return {"type": "array", "items": schema_of(form[0])}
    if isinstance(form, Mapping):
        named = {key.removesuffix("?"): schema_of(each) for key, each in form.items() if key != "*"}
        required = sorted(key for key in form if key != "*" and not key.endswith("?"))
        other = schema_of(form["*"]) if "*" in form else form not in CLOSED
        return _object(named, required) | ({} if other is True else {"additionalProperties": other})
    plain = {str: {**TEXT, "maxLength": TEXT_LIMIT}, int: COUNT, float: {"type": "number"}, None: {"type": "null"}}
    return dict(plain[form])


def _object(properties: Mapping[str, Schema], required: list[str]) -> Schema:
    return {"type": "object", "properties": dict(properties), **({"required": required} if required else {})}


def plan_schema() -> Schema:
    """Return what a plan may be, field by field; what fields say together stands in docs/record.md."""
    told = dict(re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", Plan.__doc__ or "", re.MULTILINE))
    fields = {}
    for field in dataclasses.fields(Plan):
        words = " ".join(told[field.name].split())
        part_of_id = " Part of the run id." if field.name in IDENTITY_FIELDS else ""
        fields[field.name] = {
            "description": words + part_of_id, **BY_TYPE[str(field.type)], **BY_NAME.get(field.name, {})
        }  # fmt: skip
    return _object(fields, sorted(fields.keys() - NEWER_FIELDS)) | {"additionalProperties": False}


def run_schema() -> Schema:
    """Return what run.json may be."""
    summed = _closed({"count": COUNT, "first_file": TEXT, "last_file": TEXT})
    listed = {"type": "array", "items": _closed({"file": TEXT, "first": COUNT, "count": COUNT})}
    blocks = _closed({"bytes": {**SIZE, "maximum": 2**26}, "sha256": {"type": "array", "items": DIGEST}})
    listed_file = schema_of(manifest.RECORD_FORM)
    listed_file["properties"] |= {"file": {"const": schema.LIST_FILE}, "sha256": DIGEST}
    properties = {
        "plan": plan_schema(),
        "run_id": DIGEST,
        "shards": {"anyOf": [summed, listed]},
        "samples": {"anyOf": [listed_file, {"type": "null"}]},
        "sample_blocks": {"anyOf": [blocks, {"type": "null"}]},
        "origin": {"type": "object"},
    }
    return _object(properties, ["origin", "plan", "run_id", "shards"])


def _closed(properties: Mapping[str, Schema]) -> Schema:
    return _object(properties, sorted(properties)) | {"additionalProperties": False}


def _document(title: str, content: Schema) -> Schema:
    """Return the schema of a document, which carries its digest."""
    content["properties"] |= {"batchcam_version": TEXT, DIGEST_KEY: DIGEST}
    content["required"] = sorted([*content.get("required", []), DIGEST_KEY])
    about = (
        f"A document of batchcam's record, of at most {SIZE_LIMIT} bytes; docs/record.md says what goes beyond JSON."
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, "description": about, **content
    }  # fmt: skip


def record() -> dict[str, Any]:
    """Return what is no document: the run id's fields, and what the HDF5 files hold, given what the plan says."""
    lengths = {
        "class_name": "class_names", "channel": "channels", "map_rank": "cams", "sha256_byte": 32,
        "cam_y": "grid_size[0]", "cam_x": "grid_size[1]", "y": "input_size[0]", "x": "input_size[1]",
        **schema.LABELLED_DIMS,
    }  # fmt: skip
    every = (*schema.SAMPLE_ARRAYS, *schema.CLASSIFIER_ARRAYS, schema.CLASS_NAME, schema.THRESHOLD)
    return {
        "schema_version": schema.SCHEMA_VERSION,
        "dimensions": {"sample_index": "samples of the file", **lengths},
        "filters": {name: sorted(ids) for name, ids in FILTERS.items()},
        "run_id_fields": list(IDENTITY_FIELDS),
        "identity_tolerance": dict(IDENTITY_TOLERANCE),
        "feature_tolerance": dict(FEATURE_TOLERANCE),
        "arrays": [_array(array) for array in every],
    }


def _array(array: schema.Array) -> dict[str, Any]:
    given = {
        schema.TRAINED_ON: "training_known", schema.OFFSET: "has_offset", schema.LABELS: "problem_type",
        schema.FEATURES: "features", schema.THRESHOLD.name: "problem_type", "maps": "maps", "map_range": "maps",
    }  # fmt: skip
    fill = array.fill.decode() if isinstance(array.fill, bytes) else array.fill
    content = {name: getattr(array, name) for name in ("name", "dims", "dtype", "storage", "since")}
    more = {"fill": "NaN" if fill != fill else fill, "units": array.units, "meaning": array.meaning}
    return {**content, **more, **({"only_with": given[array.name]} if array.name in given else {})}


def files() -> dict[str, str]:
    """Return the text of each file."""
    task = schema_of(manifest.TASK_FORM)
    content = {
        "run.schema.json": _document(schema.PLAN_FILE, run_schema()),
        "manifest.schema.json": _document(schema.MANIFEST_FILE, schema_of(manifest.MANIFEST_FORM)),
        "task.schema.json": _document(schema.TASK_PATTERN, task),
        "record.json": record(),
    }
    return {name: json.dumps(each, indent=1, ensure_ascii=False) + "\n" for name, each in content.items()}


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
