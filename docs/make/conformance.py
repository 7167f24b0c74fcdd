"""docs/conformance: 21 sound and 40 broken runs, and the verdict on each: `python -m docs.make.conformance` makes them.

The runs are those of the tests: numbers of plain NumPy, each broken in one way. The same versions of Python, NumPy and
HDF5 make the same archive.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import lzma
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np

import batchcam.version
from batchcam.commands.merge import merge
from batchcam.store import landing
from batchcam.store.manifest import write_task
from batchcam.store.plan import Plan, dataset_fingerprint, input_key, label_words, read_plan, write_plan
from batchcam.store.samples import list_image
from batchcam.store.schema import LABELS, OFFSET, TRAINED_ON, meta_array
from tests.commands.verify.test_check import DAMAGES, list_flipped, list_gone
from tests.helpers import ROOT, damage
from tests.helpers.synthetic import ORIGIN, Rows, land_shards, synthetic_plan, synthetic_rows

FOLDER: Final = ROOT / "docs" / "conformance"
ARCHIVE: Final = FOLDER / "runs.tar.xz"
VERDICTS: Final = FOLDER / "verdicts.json"
PAGE: Final = ROOT / "docs" / "conformance.md"
MARKED: Final = re.compile(r"(?<=<!-- verdicts -->\n).*?(?=<!-- /verdicts -->)", re.DOTALL)

TINY: Final = {"sample_count": 3, "shard_size": 2, "grid_size": (2, 2), "input_size": (4, 4)}
BROKEN: Final = {"grid_size": (2, 2), "input_size": (16, 16)}
"""Of 21 samples in three shards, since the second is what is broken."""

CHANGED_AT: Final = "2026-01-02T03:04:05Z"

Change = Callable[[Plan, Rows], Plan]


@dataclasses.dataclass(frozen=True)
class Sound:
    """A run that has to pass: what is in it, fields of its plan, how its rows differ, what is done to it afterwards."""

    about: str
    fields: dict[str, Any]
    change: Change | None = None
    after: Callable[[Path], None] | None = None
    has_list: bool = True


def make_run(run: Path, sound: Sound) -> None:
    """Make a finished run."""
    plan = synthetic_plan(**sound.fields)
    rows = synthetic_rows(plan)
    if sound.change:
        plan = sound.change(plan, rows)
    plan = dataclasses.replace(plan, sample_id_bytes=max(len(name.encode()) for name in rows.texts["sample_id"]))
    plan = _fingerprinted(plan, rows)
    if sound.has_list:
        texts = {name: texts for name, texts in rows.texts.items() if name != "error"}
        names = ("label", "input_bytes", *([LABELS] if plan.is_multi_label else []))
        image = list_image(plan, {**texts, **{name: rows.columns[name] for name in names}})
        write_plan(run, plan, ORIGIN, image)
        landing.take_up(run / "samples.h5", hashlib.sha256(image).hexdigest())
    land_shards(run, plan, rows)
    merge(run)
    for record in run.glob("task-*.json"):
        record.unlink()
    task = {"task": "0/1", "started": CHANGED_AT, "outcome": "done", "samples": plan.sample_count}
    write_task(run, "task-00000-00000000.json", task)
    damage.edit_document(run / "manifest.json", made={"created": CHANGED_AT}, tasks=[task])
    if sound.after:
        sound.after(run)


def _fingerprinted(plan: Plan, rows: Rows) -> Plan:
    if plan.schema_version == 1:
        return plan
    labels = label_words(rows.columns[LABELS]) if plan.is_multi_label else rows.columns["label"].tolist()
    meta = [rows.texts[meta_array(name).name] for name in plan.meta]
    sizes = rows.columns["input_bytes"].tolist()
    return dataclasses.replace(
        plan, dataset_fingerprint=dataset_fingerprint(rows.texts["sample_id"], labels, sizes, meta)
    )


def _without_sizes(plan: Plan, rows: Rows) -> Plan:
    del rows.columns["input_bytes"]
    return plan


def _one_cell(plan: Plan, rows: Rows) -> Plan:
    """A map of one cell is constant."""
    columns = rows.columns
    columns["status"][...] = 4 | 8 * (columns["cams"].max(1).ravel() <= 0)
    columns["maps"][...] = 0
    return plan


def _gradients(plan: Plan, rows: Rows) -> Plan:
    for values in (rows.columns["identity_residual"], rows.weight, rows.bias):
        values[...] = np.nan
    return plan


def _rounded(plan: Plan, rows: Rows) -> Plan:
    """As of a forward pass that rounds: the logits are not quite what the maps add up to."""
    rows.columns["logits"] += np.float32(0.01)
    rows.columns["identity_residual"] += np.float32(0.01)
    return plan


def _trained_and_told(plan: Plan, rows: Rows) -> Plan:
    rows.columns[TRAINED_ON] = np.array([1, 0, 0], np.int8)
    rows.texts[meta_array("site").name] = ["Köln", "", "東京"]
    return dataclasses.replace(plan, training_known=True, meta={"site": len("東京".encode())})


def _without_files(plan: Plan, rows: Rows) -> Plan:
    rows.columns["input_bytes"][...] = -1
    digests = [input_key(row.tobytes()) for row in rows.columns["input_sha256"]]
    return dataclasses.replace(plan, first_inputs=dict(zip(rows.texts["sample_id"], digests, strict=True)))


def _several_labels(plan: Plan, rows: Rows) -> Plan:
    """Each class by itself, with the maps of those that count."""
    columns = rows.columns
    logits = columns["logits"]
    columns["label"][...] = -1
    columns[LABELS] = np.array([[1, 0, -1, 0, 1], [0, 0, 0, 0, 0], [-1, 1, 1, 0, 0]], np.int8)
    columns["confidence"] = (1 / (1 + np.exp(-logits.max(1)))).astype(np.float32)
    ranked = np.argsort(-logits, 1, kind="stable")
    stored = (np.take_along_axis(logits, ranked, 1) >= 0) | (np.arange(logits.shape[1]) == 0)
    columns["cam_class"] = np.where(stored, ranked, -1)
    cams = np.take_along_axis(columns["cams"], ranked[:, :, None, None], 1)
    columns["cams"] = np.where(stored[:, :, None, None], cams, np.float32(np.nan))
    return dataclasses.replace(
        plan, problem_type="multi-label", thresholds=(0.5,) * logits.shape[1], cams=type(plan.cams).parse("positive")
    )


def _with_offset(plan: Plan, rows: Rows) -> Plan:
    rows.columns["logits"] += np.float32(0.5)
    rows.columns[OFFSET] = np.full(rows.columns["cam_class"].shape, 0.5, np.float32)
    return dataclasses.replace(plan, has_offset=True)


def _listed_tables(run: Path) -> None:
    """As earlier versions wrote run.json and manifest.json: with a line for each shard."""
    places = [{"file": s.file, "first": s.first, "count": s.count} for s in read_plan(run).shards]
    paths = [run / "shards" / str(place["file"]) for place in places]
    records = [
        {**place, "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for place, path in zip(places, paths, strict=True)
    ]
    damage.edit_document(run / "run.json", shards=places)
    damage.edit_document(run / "manifest.json", shards=records)


def _signed(run: Path) -> None:
    (run / "signatures").mkdir()
    (run / "signatures" / "manifest.json.sig").write_text("whatever vouches for the manifest\n")


SOUND: Final[dict[str, Sound]] = {
    "plain": Sound("all classes' maps, two shards", TINY),
    "one-sample": Sound("one sample, one cell", {**TINY, "sample_count": 1, "grid_size": (1, 1)}, _one_cell),
    "special-rows": Sound(
        "21 samples, of them one unreadable, one not finite, one constant map, one without positive evidence, "
        "one without label", BROKEN,
    ),
    "no-list": Sound("no samples.h5, as of earlier versions", TINY, has_list=False),
    "listed-tables": Sound("a line for each shard in run.json and manifest.json, likewise", TINY, after=_listed_tables),
    "schema-1": Sound("schema 1, without input_bytes", {**TINY, "schema_version": 1}, _without_sizes, has_list=False),
    "signatures": Sound("a file in signatures/", TINY, after=_signed),
    "cams-predicted": Sound("the predicted class's map only", {**TINY, "cams": "predicted"}),
    "cams-label": Sound("the predicted class's and the label's", {**TINY, "cams": "predicted+label"}),
    "cams-topk": Sound("those of the two largest logits", {**TINY, "cams": "topk:2"}),
    "maps-float32": Sound("upsampled maps as raw values", {**TINY, "maps": "float32"}),
    "maps-none": Sound("no upsampled maps", {**TINY, "maps": "none"}),
    "gradient": Sound(
        "Grad-CAM: no identity, no classifier", {**TINY, "method": "gradcam", "identity": False}, _gradients
    ),
    "control": Sound(
        "random weights, another engine, named weights",
        {**TINY, "control": "head", "engine": "openvino", "weights_key": "state_dict_ema"},
    ),
    "waived": Sound("exact maps whose identity was waived, and does not hold", {**TINY, "identity": False}, _rounded),
    "bf16": Sound("a residual of 0.01, which bf16 allows", {**TINY, "precision": "bf16"}, _rounded),
    "meta": Sound("a further column, and what the network was trained on", TINY, _trained_and_told),
    "first-inputs": Sound("a dataset without files", TINY, _without_files),
    "multi-label": Sound("several labels a sample, maps of the classes that count", TINY, _several_labels),
    "features": Sound("what the classifier takes, as float16", {**TINY, "features": "float16"}),
    "offset": Sound("a network of tokens: part of the logit lies in no cell", TINY, _with_offset),
}  # fmt: skip


def _edit_plan(run: Path, **changes: Any) -> None:
    plan = json.loads((run / "run.json").read_bytes())["plan"]
    damage.edit_document(run / "run.json", plan={**plan, **changes})


def newer_schema(run: Path) -> None:
    _edit_plan(run, schema_version=3)


def unknown_field(run: Path) -> None:
    _edit_plan(run, colour="green")


def unknown_method(run: Path) -> None:
    _edit_plan(run, method="saliency")


def shard_of_another_run(run: Path) -> None:
    other = run.with_name("other")
    make_run(other, Sound("", {**BROKEN, "checkpoint_sha256": "e" * 64}, has_list=False))
    damage.shard_of_another_run(run, other)
    shutil.rmtree(other)


ABOUT: Final[dict[Callable[[Path], None], str]] = {
    damage.manifest_missing: "no manifest.json: the run is not complete",
    damage.manifest_edited: "manifest.json was edited, its digest not",
    damage.manifest_of_another_run: "manifest.json has another run id",
    damage.manifest_of_other_shards: "manifest.json counts fewer shards",
    damage.totals_edited: "manifest.json counts a correct prediction too many",
    damage.findings_of_the_manifest_edited: "manifest.json does not tell what needs a look",
    damage.plan_edited: "run.json was edited, its digest not",
    damage.plan_edited_and_sealed: "the run id does not follow from the plan",
    newer_schema: "a schema that no reader knows yet",
    unknown_field: "a field of the plan that no reader knows",
    unknown_method: "a method that no reader knows",
    damage.task_damaged: "a byte of a task's record is another",
    damage.shard_missing: "a shard is gone, its digest file is not",
    damage.shard_truncated: "half of a shard is gone",
    damage.shard_byte_flipped: "a bit of a shard is another",
    damage.digest_file_flipped: "a bit of a shard's digest file is another",
    damage.digest_file_missing: "a shard has no digest file",
    damage.extra_file: "a file that does not belong there",
    damage.leftover_partial: "a file that a worker left behind",
    damage.run_h5_flipped: "a bit of run.h5 is another",
    damage.run_h5_missing: "no run.h5",
    list_flipped: "a bit of samples.h5 is another",
    list_gone: "no samples.h5, of which run.json tells",
    shard_of_another_run: "a shard of another checkpoint's run",
    damage.extra_array: "an array that the schema does not have",
    damage.array_missing: "an array is missing",
    damage.external_link: "an array is a link into another file",
    damage.soft_link: "an array is a soft link",
    damage.foreign_filter: "an array needs a filter that the schema does not have",
    damage.wrong_type: "an array of another type",
    damage.class_name_changed: "a class has another name than in the plan",
    damage.config_changed: "config is not the plan",
    damage.wrong_prediction: "a prediction is not the argmax of the logits",
    damage.wrong_confidence: "a confidence is not the softmax of the logits",
    damage.wrong_cam_value: "the mean of a map and the bias are not the logit",
    damage.wrong_map_pixel: "a pixel of an upsampled map is not what the CAM gives",
    damage.wrong_flag: "a flag says that no cell is above zero, and one is",
    damage.sample_id_twice: "two samples have one id",
    damage.sample_ids_swapped: "two samples' ids have changed places",
    damage.column_of_run_h5_changed: "run.h5 says something else than a shard",
}
"""What breaks a run, in words."""

KINDS: Final = {
    newer_schema: {"plan-damaged"}, unknown_field: {"plan-damaged"}, unknown_method: {"plan-damaged"},
    shard_of_another_run: {"other-run"}, list_flipped: {"digest-mismatch"}, list_gone: {"file-missing"},
}  # fmt: skip
"""What is found where the table of verify's tests does not say."""

OF_LIST: Final = (list_flipped, list_gone)
"""The others break a run without samples.h5."""


@contextlib.contextmanager
def _of_no_version() -> Iterator[None]:
    """Write files of a fixed version, so that they stay the same."""
    batchcam.version.version.cache_clear()
    with mock.patch("batchcam.version.version_of", return_value="0.1"):
        yield
    batchcam.version.version.cache_clear()


def verdicts() -> list[dict[str, Any]]:
    """Return what is to be said of each run."""
    sound = [{"run": name, "about": each.about, "valid": True, "kinds": []} for name, each in SOUND.items()]
    broken = [
        {"run": _name(break_it), "about": about, "valid": False, "kinds": sorted(_kinds(break_it))}
        for break_it, about in ABOUT.items()
    ]
    return sound + broken


def _name(break_it: Callable[[Path], None]) -> str:
    return break_it.__name__.replace("_", "-")


def _kinds(break_it: Callable[[Path], None]) -> set[str]:
    return KINDS[break_it] if break_it in KINDS else {kind for kind, _, _ in DAMAGES[break_it]}


def make_runs(folder: Path) -> None:
    """Make every run in a folder of its name."""
    with _of_no_version():
        for name, sound in SOUND.items():
            make_run(folder / name, sound)
        bases = {has_list: folder / f"base-{has_list}" for has_list in (True, False)}
        for has_list, base in bases.items():
            make_run(base, Sound("", BROKEN, has_list=has_list))
        for break_it in ABOUT:
            break_it(Path(shutil.copytree(bases[break_it in OF_LIST], folder / _name(break_it))))
    for base in bases.values():
        shutil.rmtree(base)


def pack(folder: Path) -> bytes:
    """Return the folders as a tar.xz that depends on nothing but their files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size = path.stat().st_size
            tar.addfile(entry, io.BytesIO(path.read_bytes()))
    return lzma.compress(packed.getvalue(), filters=[{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 2**26}])


def table() -> str:
    """Return the rows of docs/conformance.md."""
    lines = ["| run | what is in it, or wrong with it | verdict |", "|---|---|---|"]
    for each in verdicts():
        verdict = "valid" if each["valid"] else "invalid: " + ", ".join(f"`{kind}`" for kind in each["kinds"])
        lines.append(f"| {each['run']} | {each['about']} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_runs(Path(folder))
        ARCHIVE.write_bytes(pack(Path(folder)))
    VERDICTS.write_text(json.dumps(verdicts(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(MARKED.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
