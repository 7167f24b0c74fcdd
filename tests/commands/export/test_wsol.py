"""Score maps hold to the localisation protocol: OpenCV's bicubic, min-max, float64 in [0, 1], one for each id."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from batchcam.commands.export.config import ExportConfig
from batchcam.commands.export.export import export
from batchcam.errors import RunError
from batchcam.pictures.protocol import score_map
from tests.helpers.export_runs import shard_columns, tree, write_run
from tests.helpers.synthetic import CONSTANT, NON_FINITE, UNLABELLED, UNREADABLE

WHOLE = (0.0, 0.0, 1.0, 1.0)


def min_max(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


def protocol_files(out: Path) -> dict[str, list[list[str]]]:
    """The metadata as the protocol's code parses it: lines without their newline, split at commas."""
    names = ("image_ids", "class_labels", "image_sizes")
    texts = {name: (out / "metadata" / f"{name}.txt").read_text(encoding="utf-8") for name in names}
    return {name: [line.split(",") for line in text.split("\n")[:-1]] for name, text in texts.items()}


@pytest.mark.parametrize("size", [(224, 224), (48, 80), (5, 3), (1, 7)])
def test_a_score_map_is_opencvs_bicubic_interpolation_scaled_to_0_and_1(size: tuple[int, int]) -> None:
    cam = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    expected = min_max(cv2.resize(cam.astype(np.float64), size[::-1], interpolation=cv2.INTER_CUBIC))
    scores = score_map(cam, WHOLE, size)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert (scores.min(), scores.max()) == (0, 1)


def test_what_the_network_did_not_see_scores_0_and_the_rest_lies_where_it_saw_it() -> None:
    cam = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    scores = score_map(cam, (0.25, 0, 0.75, 1), (224, 224))
    view = min_max(cv2.resize(cam.astype(np.float64), (112, 224), interpolation=cv2.INTER_CUBIC))
    np.testing.assert_allclose(scores[:, 56:168], view, atol=1e-5)
    assert not scores[:, :56].any()
    assert not scores[:, 168:].any()


def test_every_listed_id_has_a_map_of_the_protocols_type_range_and_frame(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    out = tmp_path / "out"
    summary = export(ExportConfig(run, "wsol", out, quiet=True))
    files = protocol_files(out)
    ids = [line[0] for line in files["image_ids"]]
    maps = {p.relative_to(out / "scoremaps").as_posix() for p in (out / "scoremaps").rglob("*.npy")}
    assert maps == {f"{each}.npy" for each in ids}
    for each in ids:
        scores = np.load(out / "scoremaps" / f"{each}.npy", allow_pickle=False)
        assert (scores.shape, scores.dtype) == ((224, 224), np.float64)
        assert np.isfinite(scores).all()
        assert scores.min() == 0
        assert scores.max() in (0, 1)
    assert [line[0] for line in files["class_labels"]] == [line[0] for line in files["image_sizes"]] == ids
    assert all(line[1:] == ["100", "60"] for line in files["image_sizes"])  # width, height
    assert (summary.samples, summary.skipped) == (len(ids), 21 - len(ids))


def test_a_map_is_that_of_the_labels_class_computed_from_the_shards(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    out = tmp_path / "out"
    export(ExportConfig(run, "wsol", out, size="48x80", quiet=True))
    stored = shard_columns(run, "cams", "label", "sample_id", "prediction", "status")
    told = {line[0]: int(line[1]) for line in protocol_files(out)["class_labels"]}
    differ = 0
    for row, sample_id in enumerate(stored["sample_id"].tolist()):
        if stored["status"][row] & 0b111 or stored["label"][row] < 0:
            continue
        label = stored["label"][row]
        cam = stored["cams"][row, label].astype(np.float64)
        expected = min_max(cv2.resize(cam, (80, 48), interpolation=cv2.INTER_CUBIC))
        np.testing.assert_allclose(np.load(out / "scoremaps" / f"{sample_id.decode()}.npy"), expected, atol=1e-5)
        assert told[sample_id.decode()] == label
        differ += label != stored["prediction"][row]
    assert differ  # else the label's map could not be told from the predicted class's


def test_the_predicted_class_can_be_shown_instead_of_the_label(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    export(ExportConfig(run, "wsol", tmp_path / "out", target="predicted", size="input", quiet=True))
    stored = shard_columns(run, "cams", "label", "sample_id", "prediction")
    row = int(np.flatnonzero((stored["label"] != stored["prediction"]) & (stored["label"] >= 0))[0])
    cam = stored["cams"][row, stored["prediction"][row]].astype(np.float64)
    expected = min_max(cv2.resize(cam, (80, 48), interpolation=cv2.INTER_CUBIC))
    scores = np.load(tmp_path / "out" / "scoremaps" / f"{stored['sample_id'][row].decode()}.npy")
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_constant_and_nan_maps_are_zero_and_counted_and_unusable_samples_left_out(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    summary = export(ExportConfig(run, "wsol", tmp_path / "out", quiet=True))
    for row in (CONSTANT, NON_FINITE):
        assert not np.load(tmp_path / "out" / "scoremaps" / "ant" / f"{row:05d}.png.npy").any()
    for row in (UNREADABLE, UNLABELLED):
        assert not (tmp_path / "out" / "scoremaps" / "ant" / f"{row:05d}.png.npy").exists()
    assert summary.notes == (
        "1 sample left out: unreadable",
        "1 sample left out: no label",
        "2 score maps are zero: CAM constant or not finite",
    )


def test_images_that_were_cropped_are_counted_and_score_0_outside(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path, box=(20, 0, 80, 60))
    summary = export(ExportConfig(run, "wsol", tmp_path / "out", quiet=True))
    scores = np.load(tmp_path / "out" / "scoremaps" / "ant" / "00000.png.npy")
    columns = np.flatnonzero(scores.any(0))
    assert (columns[0], columns[-1]) == (45, 178)  # pixels whose centres lie between 0.2 and 0.8 of 224
    assert f"{summary.samples} images lie partly outside the network's view: they score 0 there" in summary.notes


def test_samples_whose_labels_map_the_run_does_not_store_are_left_out_and_counted(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path, cams="predicted")
    stored = shard_columns(run, "label", "prediction")
    summary = export(ExportConfig(run, "wsol", tmp_path / "out", quiet=True))
    right = int(((stored["label"] == stored["prediction"]) & (stored["label"] >= 0)).sum())
    assert 0 < summary.samples == right
    assert any("no CAM of this class in a run with --cams predicted" in note for note in summary.notes)


def test_a_run_without_one_usable_sample_is_refused_with_the_reasons(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path, cams="predicted", ids=[f"{i}.png" for i in range(1)], seed=1)
    stored = shard_columns(run, "label", "prediction")
    assert stored["label"][0] != stored["prediction"][0]
    with pytest.raises(RunError, match="no sample of 1 can be exported: 1 no CAM of this class"):
        export(ExportConfig(run, "wsol", tmp_path / "out", quiet=True))


def test_hostile_ids_become_names_that_are_recorded_and_stay_in_the_folder(tmp_path: Path) -> None:
    ids = ["../../etc/passwd", "/abs", "a\nb", "a,b", "x" * 300, "q?1", "q*1", "q/1", "=1"]
    run, _, _ = write_run(tmp_path, ids, grid_size=(2, 2))
    before = set(tree(tmp_path))
    summary = export(ExportConfig(run, "wsol", tmp_path / "out", target="predicted", size="8x8", quiet=True))
    names = [line[0] for line in protocol_files(tmp_path / "out")["image_ids"]]
    assert summary.samples == len(names) == len(set(names)) == 8  # of 9; one is unreadable
    added = set(tree(tmp_path)) - before
    assert all(path.startswith("out/") for path in added)
    assert len(added) == 8 + 5
    recorded = (tmp_path / "out" / "names.csv").read_text(encoding="utf-8").splitlines()
    assert recorded[0] == "sample_index,sample_id,image_id"
    assert recorded[1] == f"0,../../etc/passwd,{names[0]}"


def test_a_rerun_writes_only_the_maps_that_are_missing(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    config = ExportConfig(run, "wsol", tmp_path / "out", quiet=True)
    first = export(config)
    whole = tree(tmp_path / "out")
    missing = tmp_path / "out" / "scoremaps" / "ant" / "00007.png.npy"
    missing.unlink()
    kept = tmp_path / "out" / "scoremaps" / "ant" / "00008.png.npy"
    before = kept.stat().st_mtime_ns
    again = export(config)
    assert (first.kept, again.kept, again.files) == (0, first.files - 1, first.files)
    assert again.notes == first.notes
    assert kept.stat().st_mtime_ns == before
    assert tree(tmp_path / "out") == whole
