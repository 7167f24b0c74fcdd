"""FiftyOne's files say what the run says, and its heatmaps lie where the network looked."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from batchcam.commands.export.config import ExportConfig
from batchcam.commands.export.export import ExportSummary, export
from batchcam.pictures.protocol import score_map
from tests.helpers.export_runs import shard_columns, smooth_image, tree, write_run
from tests.helpers.synthetic import CLASS_NAMES, CONSTANT, UNLABELLED


def to_fiftyone(run: Path, out: Path, **options: Any) -> tuple[ExportSummary, list[dict[str, Any]]]:
    summary = export(ExportConfig(run, "fiftyone", out, quiet=True, **options))
    return summary, json.loads((out / "samples.json").read_bytes())["samples"]


def test_samples_say_what_the_run_says(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    summary, samples = to_fiftyone(run, tmp_path / "out", data=str(data))
    stored = shard_columns(run, "sample_id", "label", "prediction", "confidence", "logits")
    assert (len(samples), summary.skipped, summary.findings) == (19, 2, 0)
    for sample in samples:
        row = sample["sample_index"]
        assert sample["sample_id"].encode() == stored["sample_id"][row]
        assert sample["prediction"]["label"] == CLASS_NAMES[stored["prediction"][row]]
        assert np.float32(sample["prediction"]["confidence"]) == stored["confidence"][row]
        packed = base64.b64decode(sample["prediction"]["logits"]["$binary"]["base64"])
        np.testing.assert_array_equal(np.load(io.BytesIO(zlib.decompress(packed))), stored["logits"][row])
        truth = None if row == UNLABELLED else CLASS_NAMES[stored["label"][row]]
        assert (sample["ground_truth"] or {}).get("label") == truth
        assert ("constant_map" in sample["tags"]) == (row == CONSTANT)


def test_fields_are_described_as_the_samples_have_them(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    _, samples = to_fiftyone(run, tmp_path / "out")
    described = json.loads((tmp_path / "out" / "metadata.json").read_bytes())
    fields = {field["db_field"]: field for field in described["sample_fields"]}
    assert set(samples[0]) - {"_media_type", "_rand"} <= set(fields)
    for name in ("prediction", "cam"):
        assert fields[name]["ftype"] == "fiftyone.core.fields.EmbeddedDocumentField"
        assert fields[name]["embedded_doc_type"].rpartition(".")[2] == samples[0][name]["_cls"]
        assert set(samples[0][name]) - {"_cls"} <= {inner["db_field"] for inner in fields[name]["fields"]}
    assert described["default_classes"] == list(CLASS_NAMES)
    ids = [each["_id"]["$oid"] for sample in samples for each in (sample, sample["prediction"], sample["cam"])]
    assert len(set(ids)) == len(ids)
    assert all(len(bytes.fromhex(each)) == 12 for each in ids)


def test_a_heatmap_lies_where_the_network_looked(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path, box=(25, 0, 75, 60))
    _, samples = to_fiftyone(run, tmp_path / "out", data=str(data))
    stored = shard_columns(run, "cams", "prediction")
    for sample in samples:
        row = sample["sample_index"]
        map_ = cv2.imread(str(tmp_path / "out" / sample["cam"]["map_path"]), cv2.IMREAD_UNCHANGED)
        assert map_.shape == (48, 80)  # the whole image of 60 by 100 pixels, at most as large as the network's input
        assert not map_[:, :20].any()
        assert not map_[:, 60:].any()
        if row != CONSTANT:
            scores = score_map(stored["cams"][row, stored["prediction"][row]], (0.25, 0, 0.75, 1), (48, 80))
            np.testing.assert_array_equal(map_, np.rint(scores * 255))


def test_pictures_are_the_originals_and_grey_until_these_are_found(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    hidden = data.rename(tmp_path / "hidden")
    summary, samples = to_fiftyone(run, tmp_path / "out")
    assert {sample["filepath"].partition("/")[0] for sample in samples} == {"grey"}
    assert any("images not found" in note for note in summary.notes)
    hidden.rename(data)
    _, samples = to_fiftyone(run, tmp_path / "out", data=str(data))
    for sample in samples:
        assert sample["filepath"] == f"data/{sample['sample_id']}.png"
        picture = cv2.imread(str(tmp_path / "out" / sample["filepath"]))[..., ::-1]
        np.testing.assert_array_equal(picture, smooth_image(sample["sample_index"]))


def test_the_same_run_gives_the_same_files(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    to_fiftyone(run, tmp_path / "a")
    to_fiftyone(run, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize("target", ["predicted", "label"])
def test_the_class_explained_is_the_targets(tmp_path: Path, target: str) -> None:
    run, _, _ = write_run(tmp_path)
    summary, samples = to_fiftyone(run, tmp_path / "out", target=target)
    assert summary.samples == len(samples) == (19 if target == "predicted" else 18)
