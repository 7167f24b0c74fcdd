"""A dataset in FiftyOne's own format: pictures, the heatmaps that lie over them, labels and predictions.

https://docs.voxel51.com/user_guide/import_datasets.html#fiftyonedataset; as of 1.0, from which newer ones migrate it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from batchcam.commands.export.folder import ExportFolder
from batchcam.commands.export.form import Task
from batchcam.commands.export.originals import LARGEST_SIDE, search_notes, write_picture
from batchcam.errors import one_line
from batchcam.pictures import heatmap
from batchcam.pictures.originals import ORIGIN, Originals, State, open_originals
from batchcam.pictures.overlay import View, backdrop
from batchcam.pictures.protocol import relative_boxes, score_map
from batchcam.record.rows import Outcome, cam_blocks, class_names, file_names, status_words
from batchcam.record.similarity import says_nothing
from batchcam.store.layout import header
from batchcam.store.problem import require_traced
from batchcam.store.run import Run
from batchcam.store.schema import LABELS

VERSION: Final = "1.0.0"
SAMPLES_FILE: Final = "samples.json"
METADATA_FILE: Final = "metadata.json"
ENDING: Final = ".png"
HEATMAP: Final = "cam"
MAP_FOLDER: Final = f"fields/{HEATMAP}"
"""By a folder of this name the importer knows that the field has paths."""

OWN_FIELDS: Final = ("label", "prediction", "confidence", "status")
"""Columns that FiftyOne has words of its own for."""

CLASSIFICATION: Final = {"label": "String", "confidence": "Float", "logits": "Vector"}


def write(task: Task) -> Outcome:
    """Write a picture and a heatmap of each sample, and what FiftyOne is to know of them; `metadata.json` last."""
    run, folder, choice = task.run, task.folder, task.choose()
    require_traced("export --to fiftyone", run.path, run.plan)
    originals = open_originals(run, task.data)
    names = file_names(run, choice.rows, ENDING, folder.folds_case)
    states, constant = np.zeros(len(State), np.int64), 0
    labels = (LABELS,) if run.plan.is_multi_label else ()
    columns = {*run.scalar_columns, *OWN_FIELDS, *ORIGIN, *labels, "sample_index", "crop_box", "logits"}
    with folder.stream(SAMPLES_FILE) as samples:
        samples.write(b'{"samples": [')
        for part, cams, block in cam_blocks(run, choice.rows, choice.classes, sorted(columns)):
            constant += int(says_nothing(cams).sum())
            for at, name in enumerate(names[part]):
                row = {key: values[at] for key, values in block.items()}
                view = View(row["image_size"].tolist(), row["crop_box"].tolist(), run.plan.input_size)
                state, *files = _pictures(folder, originals, view, name, cams[at], row)
                states[state] += 1
                sample = _sample(run, row, *files)
                samples.write(b"," * (part.start + at > 0) + b"\n" + json.dumps(sample).encode())
                task.advance(1)
        samples.write(b"\n]}\n")
    folder.write(METADATA_FILE, (json.dumps(_dataset(run), indent=1) + "\n").encode())
    notes = search_notes(originals.where, states, "grey")
    if constant:
        notes.append(f"{constant} heatmaps are zero: the CAM is constant")
    return choice.outcome(*notes, changed=int(states[State.CHANGED]))


def _pictures(
    folder: ExportFolder, originals: Originals, view: View, name: str, cam: np.ndarray, row: Mapping[str, Any]
) -> tuple[State, str, str]:
    """Write what is not there of a row's two pictures; return what became of its image, and where they lie."""
    draw = functools.partial(backdrop, size=view.fitted((LARGEST_SIDE, LARGEST_SIDE)))
    state, picture = write_picture(folder, originals, row, f"data/{name}{ENDING}", draw)
    map_file = f"{MAP_FOLDER}/{name}{ENDING}"
    if not folder.has(map_file):
        folder.write(map_file, heatmap.write_png(_heatmap(cam, row, view)))
    return state, picture, map_file


def _heatmap(cam: np.ndarray, row: Mapping[str, Any], view: View) -> np.ndarray:
    """Return a map in the frame of the whole image, over which FiftyOne stretches it: 0 where the network saw nothing.

    Bicubic, then min-max to 0…255 over what it saw, uint8.
    """
    frame = view.fitted((max(view.input_size),) * 2)
    if says_nothing(cam[None])[0]:
        return np.zeros(frame, np.uint8)
    (box,) = relative_boxes(row["crop_box"][None], row["image_size"][None])
    return np.asarray(np.rint(score_map(cam, box, frame) * 255), np.uint8)


def _sample(run: Run, row: Mapping[str, Any], picture: str, map_file: str) -> dict[str, Any]:
    """Return what FiftyOne is told of a row."""
    own = _digest(run, row, "")
    label, prediction = class_names(run, np.array([row["label"], row["prediction"]]))
    truth: Any = _label(run, row, "Classification", label=label) if label is not None else None
    if run.plan.is_multi_label and (row[LABELS] >= 0).any():
        true = [run.class_names[k] for k in np.flatnonzero(row[LABELS] == 1).tolist()]
        each = [_label(run, row, "Classification", label=name) for name in true]
        truth = {"_cls": "Classifications", "classifications": each}
    logits = io.BytesIO()
    np.save(logits, row["logits"], allow_pickle=False)
    packed = base64.b64encode(zlib.compress(logits.getvalue())).decode()
    vector = {"$binary": {"base64": packed, "subType": "00"}}
    return {
        "_id": {"$oid": own[:24]},
        "_media_type": "image",
        "_rand": int(own[:12], 16) / 16**12,
        "filepath": picture,
        "tags": status_words(int(row["status"])).split(),
        "input_sha256": row["input_sha256"].tobytes().hex(),
        **{field: _plain(row[name]) for field, name in _columns(run).items()},
        "ground_truth": truth,
        "prediction": _label(
            run, row, "Classification", label=prediction, confidence=_plain(row["confidence"]), logits=vector
        ),
        HEATMAP: _label(run, row, "Heatmap", map_path=map_file, range=[0, 255]),
    }


def _label(run: Run, row: Mapping[str, Any], kind: str, **content: Any) -> dict[str, Any]:
    """Return a label of a sample; its id follows from what it is, so that the same run is exported the same."""
    name = f"{kind} {content.get('label')} {'logits' in content}"
    return {"_id": {"$oid": _digest(run, row, name)[:24]}, "_cls": kind, "tags": [], **content}


def _digest(run: Run, row: Mapping[str, Any], name: str) -> str:
    return hashlib.sha256(f"{run.plan.run_id} {row['sample_index']} {name}".encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return a value of a column as JSON has it, which has no NaN."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if plain != plain else plain


def _columns(run: Run) -> dict[str, str]:
    """Return the columns that become fields, by the field's name."""
    return {name.replace("/", "_"): name for name in run.scalar_columns if name not in OWN_FIELDS}


def _dataset(run: Run) -> dict[str, Any]:
    """Return what FiftyOne is told of all samples: the fields that they have, and what the run is."""
    kinds = {"O": "String", "i": "Int", "u": "Int", "f": "Float"}
    truth = _label_field("ground_truth", "Classification", **CLASSIFICATION)
    if run.plan.is_multi_label:
        each = _field("classifications", "List", "labels.Classification", "EmbeddedDocument")
        truth = {**_field("ground_truth", "EmbeddedDocument", "labels.Classifications"), "fields": [each]}
    return {
        "name": one_line(run.path.resolve().name) or "run",
        "version": VERSION,
        "media_type": "image",
        "default_classes": list(run.class_names),
        "info": {name: text for name, text in header(run.plan, 0, len(run)).items() if isinstance(text, str)},
        "sample_fields": [
            *STANDARD,
            _field("metadata", "EmbeddedDocument", "metadata.ImageMetadata"),
            *(_field(name, "String") for name in ("filepath", "input_sha256")),
            *(_field(name, "DateTime") for name in ("created_at", "last_modified_at")),
            *(_field(field, kinds[run[name].dtype.kind]) for field, name in _columns(run).items()),
            truth,
            _label_field("prediction", "Classification", **CLASSIFICATION),
            _label_field(HEATMAP, "Heatmap", map="Array", map_path="String", range="HeatmapRange"),
        ],
    }


def _label_field(name: str, kind: str, **content: str) -> dict[str, Any]:
    """Return the description of a field of labels, each with its kind of content by name."""
    inner = [*STANDARD, *(_field(each, of) for each, of in content.items())]
    return {**_field(name, "EmbeddedDocument", f"labels.{kind}"), "fields": inner}


def _field(name: str, kind: str, document: str | None = None, of: str | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "db_field": "_id" if name == "id" else name,
        "ftype": f"fiftyone.core.fields.{kind}Field",
        "embedded_doc_type": f"fiftyone.core.{document}" if document else None,
        "subfield": f"fiftyone.core.fields.{of}Field" if of else None,
        "fields": [],
    }


STANDARD: Final = (_field("id", "ObjectId"), _field("tags", "List", of="String"))
"""Fields of samples and labels alike."""
