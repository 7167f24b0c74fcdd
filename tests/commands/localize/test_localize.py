"""`localize` on runs whose numbers are known: every score, its denominator, what is left out, and the files."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from batchcam.commands.export.config import ExportConfig
from batchcam.commands.export.export import export
from batchcam.commands.localize.config import LocalizeConfig
from batchcam.commands.localize.files import HEADER
from batchcam.commands.localize.frames import Frame
from batchcam.commands.localize.localize import LocalizeSummary, localize
from batchcam.commands.localize.protocol import ANY, LARGEST, Tally, Truth, evidence, judge
from batchcam.commands.localize.scores import SCORES
from batchcam.commands.localize.text import localize_text
from batchcam.errors import ConfigError, DatasetError, RunError
from batchcam.store.document import read_document
from tests.helpers.export_runs import IMAGE_SIZE, shard_columns, write_run
from tests.helpers.synthetic import ALL_NEGATIVE, CONSTANT, NON_FINITE, UNLABELLED, UNREADABLE, bilinear

INPUT_SIZE = (48, 80)
COUNT = 21
CROPPED = (10.0, 6.0, 90.0, 54.0)
"""A view of 80 x 48 pixels in the middle of the image: each pixel is one of the network's input."""

PADDED = (0.0, -20.0, 100.0, 80.0)
"""A view that reaches beyond the image above and below it."""

WHOLE = (0.0, 0.0, 100.0, 60.0)

SPECIAL = (UNREADABLE, UNLABELLED)


def ids_of(run: Path) -> list[str]:
    return [each.decode() for each in shard_columns(run, "sample_id")["sample_id"]]


def write_boxes(folder: Path, ids: Sequence[str], boxes: Sequence[Sequence[float]]) -> Path:
    lines = (",".join([each, *map(str, box)]) for each, box in zip(ids, boxes, strict=True))
    path = folder / "boxes.csv"
    path.write_text("\n".join(["id,x0,y0,x1,y1", *lines, ""]), encoding="utf-8")
    return path


def random_boxes(count: int, seed: int = 0) -> np.ndarray:
    """Boxes of a quarter to a half of each side."""
    place, extent = np.random.default_rng(seed).random((2, count, 2))
    extent = 0.25 + 0.25 * extent
    start = place * (1 - extent)
    return (np.concatenate([start, start + extent], 1) * np.tile(IMAGE_SIZE[::-1], 2)).round(1)


def write_masks(folder: Path, ids: Sequence[str], seed: int = 0, size: tuple[int, int] = IMAGE_SIZE) -> Path:
    rng = np.random.default_rng(seed)
    for each in ids:
        path = folder / each
        path.parent.mkdir(parents=True, exist_ok=True)
        blob = bilinear(rng.random((1, 4, 4)), size)[0]
        path.write_bytes(bytes(cv2.imencode(".png", (blob > 0.6).astype(np.uint8) * 255)[1]))
    return folder


def of(run: Path, annotations: Path, **options: Any) -> LocalizeSummary:
    return localize(LocalizeConfig(run, annotations, quiet=True, workers=1, **options))


def read_rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / "localize.csv").read_text(encoding="utf-8"))))


@pytest.fixture
def boxed(tmp_path: Path) -> tuple[Path, Path]:
    """A run over whole images, and a box for each sample."""
    run, _, _ = write_run(tmp_path)
    return run, write_boxes(tmp_path, ids_of(run), random_boxes(COUNT).tolist())


def label_maps(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rows with a label and an image, and their label's CAM upsampled to the network's input, from the shards alone."""
    columns = shard_columns(run, "label", "cams", "status")
    rows = np.flatnonzero((columns["label"] >= 0) & (columns["status"] & 1 == 0))
    cams = columns["cams"][rows, columns["label"][rows]].astype(float)
    return rows, bilinear(cams, INPUT_SIZE)


def box_pixels(box: Sequence[float], view: Sequence[float]) -> np.ndarray:
    """Pixels of the input whose centres lie in a box of the image, one by one."""
    pixels = np.zeros(INPUT_SIZE, bool)
    for y in range(INPUT_SIZE[0]):
        for x in range(INPUT_SIZE[1]):
            across = view[0] + (x + 0.5) * (view[2] - view[0]) / INPUT_SIZE[1]
            down = view[1] + (y + 0.5) * (view[3] - view[1]) / INPUT_SIZE[0]
            pixels[y, x] = box[0] <= across < box[2] and box[1] <= down < box[3]
    return pixels


@pytest.mark.parametrize("view", [WHOLE, CROPPED, PADDED, (-20.0, -4.0, 110.0, 66.0)])
def test_peaks_energies_and_the_centre_are_those_of_plain_loops(tmp_path: Path, view: tuple[float, ...]) -> None:
    run, _, _ = write_run(tmp_path, box=view)
    boxes = random_boxes(COUNT)
    summary = of(run, write_boxes(tmp_path, ids_of(run), boxes.tolist()))
    rows, maps = label_maps(run)
    on_image = box_pixels(WHOLE, view)
    maps = np.where(on_image | ~np.isfinite(maps), maps, -np.inf)
    labels = shard_columns(run, "label")["label"]
    peaks, centres, energies, shares, points = [], [], [], [], {}
    for row, values in zip(rows, maps, strict=True):
        pixels = box_pixels(boxes[row], view)
        if not pixels.any():
            continue
        says = not np.isnan(values).any() and row != CONSTANT
        y, x = divmod(int(np.nan_to_num(values).argmax()), INPUT_SIZE[1])
        peaks.append(says and pixels[y, x])
        centres.append(pixels[24, 40])
        shares.append(pixels[on_image].mean())
        near = min((y - b) ** 2 + (x - a) ** 2 for b, a in zip(*np.nonzero(pixels), strict=True))
        points.setdefault(int(labels[row]), []).append(says and near < (15 / 224 * 48) ** 2)
        positive = np.maximum(values, 0)
        if positive.sum() > 0:
            energies.append(positive[pixels].sum() / positive.sum())
    assert 0 < np.mean(peaks) < 1
    scores = summary.scores
    assert scores["peak_inside"].percent == pytest.approx(100 * np.mean(peaks), abs=1e-9)
    assert scores["peak_inside"].centre_percent == pytest.approx(100 * np.mean(centres), abs=1e-9)
    assert scores["energy_inside"].percent == pytest.approx(100 * np.mean(energies), abs=1e-4)
    assert scores["object_share"].percent == pytest.approx(100 * np.mean(shares), abs=1e-9)
    by_class = [np.mean(each) for each in points.values()]
    assert scores["pointing_game"].percent == pytest.approx(100 * np.mean(by_class), abs=1e-9)
    assert scores["peak_inside"].samples == scores["pointing_game"].samples == len(peaks)
    assert scores["energy_inside"].samples == len(energies)


def test_pixels_and_boxes_of_a_padded_map_are_judged_as_if_the_padding_were_cut_off(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path, box=PADDED)
    summary = of(run, write_masks(tmp_path / "masks", ids_of(run)))
    rows, maps = label_maps(run)
    seen = np.flatnonzero(box_pixels(WHOLE, PADDED).any(1))
    places = np.floor((seen + 0.5) * 100 / 48 - 20).astype(int), np.floor((np.arange(80) + 0.5) * 100 / 80).astype(int)
    expected, padding = Tally(), []
    for row, values in zip(rows, maps, strict=True):
        cut = values[seen]
        scores = np.zeros(cut.shape)
        if np.isfinite(cut).all() and row != CONSTANT:
            scores = (cut - cut.min()) / (cut.max() - cut.min())
        mask = cv2.imread(str(tmp_path / "masks" / ids_of(run)[row]), cv2.IMREAD_GRAYSCALE)[np.ix_(*places)] > 0
        expected.add(judge(evidence(cut, scores), Truth(np.zeros((0, 4), int), mask, True), 0), True)
        if np.isfinite(values).all() and (values > 0).any():
            padding.append(1 - np.maximum(cut, 0).sum() / np.maximum(values, 0).sum())
    assert summary.scores["pxap"].percent == pytest.approx(expected.pixel_precision(), abs=1e-9)
    assert summary.cropped == 0
    share = f"{100 * np.mean(padding):.1f} % of the positive evidence of {len(padding)} maps lies there"
    assert [note for note in summary.notes if "padding" in note] == [f"padding: {share}, on average, and is left out"]
    assert not any("padding" in note for note in of(run, tmp_path / "masks", frame="image").notes)


def test_scores_of_the_whole_image_are_those_of_the_exported_score_maps(tmp_path: Path) -> None:
    """What `export --to wsol` writes, judged map by map, as the protocol's evaluator does."""
    run, _, _ = write_run(tmp_path, box=CROPPED)
    masks, boxes = write_masks(tmp_path / "masks", ids_of(run)), random_boxes(COUNT)
    export(ExportConfig(run, "wsol", tmp_path / "wsol", quiet=True))
    by_box, by_mask = Tally(), Tally()
    names = (tmp_path / "wsol/metadata/image_ids.txt").read_text(encoding="utf-8").split()
    frame = Frame((224, 224), IMAGE_SIZE)
    for name in names:
        scores = np.load(tmp_path / "wsol/scoremaps" / f"{name}.npy")
        box = frame.boxes(boxes[[ids_of(run).index(name)]])
        by_box.add(judge(evidence(scores, scores), Truth(box, np.zeros((224, 224), bool), False), 0), True)
        mask = cv2.resize(cv2.imread(str(masks / name), cv2.IMREAD_GRAYSCALE), (224, 224), interpolation=0) > 0.5
        by_mask.add(judge(evidence(scores, scores), Truth(box[:0], mask, True), 0), True)
    found = of(run, write_boxes(tmp_path, ids_of(run), boxes.tolist()), frame="image")
    assert (found.size, found.judged, found.tolerance) == ((224, 224), len(names), 15)
    assert found.scores["max_box_acc_v2"].percent == pytest.approx(by_box.found(ANY, by_box.best(ANY)).mean(), abs=1e-9)
    largest = by_box.found(LARGEST, by_box.best(LARGEST))[1]
    assert found.scores["max_box_acc"].percent == pytest.approx(largest, abs=1e-9)
    found = of(run, masks, frame="image")
    assert found.scores["pxap"].percent == pytest.approx(by_mask.pixel_precision(), abs=1e-9)
    assert found.scores["pxap"].samples == len(names)


def test_what_the_view_does_not_show_is_told_and_an_object_outside_of_it_is_left_out(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path, box=CROPPED)
    ids = ids_of(run)
    boxes = [[0, 0, 9, 60], [0, 6, 20, 54], [20, 20, 30, 30]]
    summary = of(run, write_boxes(tmp_path, ids[:3], boxes))
    assert summary.left_out == {"not annotated": 17, "object outside of the network's view": 1, "unreadable images": 1}
    assert (summary.judged, summary.cropped) == (2, 1)
    assert summary.cropped_percent == pytest.approx(25)
    whole = of(run, write_boxes(tmp_path, ids[:3], boxes), frame="image")
    assert (whole.judged, whole.cropped) == (3, 2)
    assert whole.cropped_percent == pytest.approx(50)


def test_every_sample_stands_in_the_table_and_what_is_left_out_with_its_reason(
    boxed: tuple[Path, Path], tmp_path: Path
) -> None:
    summary = of(*boxed, out=tmp_path / "out")
    rows = read_rows(tmp_path / "out")
    assert [row["sample_id"] for row in rows] == ids_of(boxed[0])
    assert tuple(rows[0]) == HEADER
    reasons = {i: row["left_out"] for i, row in enumerate(rows) if row["left_out"]}
    assert reasons == {UNREADABLE: "unreadable images", UNLABELLED: "no class to explain"}
    assert summary.left_out == {"unreadable images": 1, "no class to explain": 1}
    assert (summary.samples, summary.judged, summary.findings) == (COUNT, COUNT - 2, 0)
    listed = read_document(tmp_path / "out" / "localize.json")["left_out_listed"]
    assert listed == {
        "unreadable images": [rows[UNREADABLE]["sample_id"]],
        "no class to explain": [rows[UNLABELLED]["sample_id"]],
    }


def test_maps_that_say_nothing_find_nothing_and_are_counted(boxed: tuple[Path, Path], tmp_path: Path) -> None:
    summary = of(*boxed, out=tmp_path / "out")
    rows = read_rows(tmp_path / "out")
    assert summary.without_map == 2
    for row in (CONSTANT, NON_FINITE):
        assert (rows[row]["without_map"], rows[row]["peak_inside"], rows[row]["points"]) == ("1", "0", "0")
    assert rows[NON_FINITE]["energy"] == ""
    assert rows[ALL_NEGATIVE]["without_map"] == "0"


@pytest.mark.parametrize("frame", ["view", "image"])
def test_the_overlaps_in_the_table_give_the_score_at_the_threshold(
    boxed: tuple[Path, Path], tmp_path: Path, frame: str
) -> None:
    summary = of(*boxed, out=tmp_path / "out", frame=frame)
    ious = [float(row["iou"]) for row in read_rows(tmp_path / "out") if row["iou"]]
    score = summary.scores["max_box_acc_v2_iou_0.5"]
    assert len(ious) == score.samples == COUNT - 2
    assert 100 * np.mean([iou >= 0.5 for iou in ious]) == pytest.approx(score.percent, abs=1e-9)


def test_counts_of_single_shards_add_up_to_those_of_the_run(boxed: tuple[Path, Path], tmp_path: Path) -> None:
    run, annotations = boxed

    def counts(name: str) -> np.ndarray:
        lines = (tmp_path / name / "curves.csv").read_text(encoding="utf-8").split("\n")[1:-1]
        return np.array([[int(v or 0) for v in line.split(",")[1:]] for line in lines])

    of(run, annotations, out=tmp_path / "whole")
    parts = []
    for path in sorted((run / "shards").glob("*.h5")):
        of(path, annotations, out=tmp_path / path.stem)
        parts.append(counts(path.stem))
    assert len(parts) == 3
    np.testing.assert_array_equal(sum(parts), counts("whole"))
    assert counts("whole").shape == (1001, 14)


def test_threads_change_nothing(boxed: tuple[Path, Path], tmp_path: Path) -> None:
    for workers in (1, 3):
        config = LocalizeConfig(*boxed, out=tmp_path / str(workers), quiet=True, workers=workers)
        localize(config)
    for name in ("localize.json", "localize.csv", "curves.csv"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_the_document_names_the_other_files_by_their_digests(boxed: tuple[Path, Path], tmp_path: Path) -> None:
    summary = of(*boxed, out=tmp_path / "out")
    content = read_document(tmp_path / "out" / "localize.json")
    assert sorted(content["files"]) == ["curves.csv", "localize.csv"]
    for name, digest in content["files"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
    assert content["scores"] == json.loads(
        json.dumps({name: dataclasses.asdict(score) for name, score in summary.scores.items()})
    )
    assert set(content["scores"]) == set(SCORES)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["curves.csv", "localize.csv", "localize.json"]


def test_the_classes_scores_are_those_of_their_samples(boxed: tuple[Path, Path], tmp_path: Path) -> None:
    summary = of(*boxed, out=tmp_path / "out")
    rows = [row for row in read_rows(tmp_path / "out") if not row["left_out"]]
    assert sum(c.samples for c in summary.classes) == summary.judged
    for each in summary.classes:
        members = [row for row in rows if row["explained"] == each.name]
        assert len(members) == each.samples
        for name, column in (("peak_inside", "peak_inside"), ("energy_inside", "energy")):
            values = [float(row[column]) for row in members if row[column]]
            assert each.scores[name].percent == pytest.approx(100 * np.mean(values), abs=1e-3)
        found = np.mean([float(row["iou"]) >= 0.5 for row in members])
        assert each.scores["max_box_acc_v2_iou_0.5"].percent == pytest.approx(100 * found, abs=1e-9)


def test_masks_give_boxes_too_and_one_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    ids = ids_of(run)
    masks = write_masks(tmp_path / "masks", ids)
    (masks / ids[4]).write_bytes(b"no image")
    summary = of(run, masks, out=tmp_path / "out")
    assert (summary.findings, summary.left_out["mask cannot be read"]) == (1, 1)
    assert any(f"{ids[4]}: cannot read this mask: not an image" in note for note in summary.notes)
    row = read_rows(tmp_path / "out")[4]
    assert row["left_out"] == "mask cannot be read"
    assert "not an image" in row["error"]
    assert summary.scores["pxap"].samples == summary.scores["max_box_acc"].samples == COUNT - 3


@pytest.mark.parametrize("scale", [1, 2, 0.5])
def test_a_mask_of_the_image_before_its_exif_turn_is_a_finding_and_not_stretched(tmp_path: Path, scale: float) -> None:
    run, _, _ = write_run(tmp_path)
    ids = ids_of(run)
    masks = write_masks(tmp_path / "masks", ids)
    turned = cv2.imread(str(masks / ids[4]), cv2.IMREAD_GRAYSCALE).T
    turned = cv2.resize(turned, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    (masks / ids[4]).write_bytes(bytes(cv2.imencode(".png", turned)[1]))
    summary = of(run, masks)
    assert (summary.findings, summary.left_out["mask drawn on the image before its EXIF turn"]) == (1, 1)
    assert not any("stretched" in note for note in summary.notes)


def test_masks_of_another_shape_than_their_images_are_noted(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    masks = write_masks(tmp_path / "masks", ids_of(run), size=(32, 32))
    summary = of(run, masks)
    assert (
        f"masks of {summary.judged} samples have another shape than their images: they are stretched" in summary.notes
    )
    half = write_masks(tmp_path / "half", ids_of(run), size=(IMAGE_SIZE[0] // 2, IMAGE_SIZE[1] // 2))
    assert not any("stretched" in note for note in of(run, half).notes)


def test_a_mask_and_the_box_around_it_give_the_same_box_scores(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    ids = ids_of(run)
    masks, boxes = write_masks(tmp_path / "masks", ids), []
    for each in ids:
        ys, xs = np.nonzero(cv2.imread(str(masks / each), cv2.IMREAD_GRAYSCALE))
        boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    by_mask, by_box = of(run, masks).scores, of(run, write_boxes(tmp_path, ids, boxes)).scores
    for name in ("max_box_acc_v2", "max_box_acc", "top_1_loc"):
        assert by_mask[name] == by_box[name]
    assert (by_box["pxap"].samples, by_box["pxap"].percent) == (0, None)


def test_ignored_pixels_change_the_pixel_precision_and_nothing_else(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    ids = ids_of(run)
    write_masks(tmp_path / "masks", ids)
    write_masks(tmp_path / "ignored", ids, seed=1)
    plain, ignoring = (
        of(run, tmp_path / name)
        for name, text in (
            ("plain.csv", "id,mask\n" + "".join(f"{i},masks/{i}\n" for i in ids)),
            ("ignoring.csv", "id,mask,ignore\n" + "".join(f"{i},masks/{i},ignored/{i}\n" for i in ids)),
        )
        if (tmp_path / name).write_text(text, encoding="utf-8")
    )
    assert plain.scores["pxap"].percent < ignoring.scores["pxap"].percent  # fewer pixels of the background
    assert {n: s for n, s in plain.scores.items() if n != "pxap"} == {
        n: s for n, s in ignoring.scores.items() if n != "pxap"
    }


def test_the_predicted_classs_map_is_judged_where_asked_for_also_without_a_label(boxed: tuple[Path, Path]) -> None:
    summary = of(*boxed, target="predicted")
    assert summary.left_out == {"unreadable images": 1, "no class to explain": 1}  # one has no finite logits
    assert "top_1_loc" not in summary.scores
    assert summary.scores["peak_inside"] != of(*boxed).scores["peak_inside"]


def test_a_class_whose_map_the_run_does_not_store_is_left_out(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path, cams="predicted")
    annotations = write_boxes(tmp_path, ids_of(run), random_boxes(COUNT).tolist())
    columns = shard_columns(run, "label", "prediction", "status")
    stored = (columns["label"] == columns["prediction"]) & (columns["label"] >= 0)
    summary = of(run, annotations)
    assert summary.judged == stored.sum()
    assert summary.left_out["no CAM of the class in the run"] == COUNT - 2 - stored.sum()
    helps = "; explain with --cams predicted+label, or use --target predicted"
    judged = next(line for line in localize_text(summary).splitlines() if line.startswith("judged"))
    assert judged.endswith(f"{COUNT - 2 - stored.sum()} no CAM of the class in the run{helps}")
    other = of(run, annotations, target="predicted")
    assert other.judged == COUNT - 2
    assert helps not in localize_text(other)


def test_a_run_without_a_sample_to_judge_is_refused_with_the_reasons(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    annotations = write_boxes(tmp_path, [ids_of(run)[UNREADABLE]], [[1, 2, 3, 4]])
    with pytest.raises(RunError, match="no sample of 21 can be judged: 1 unreadable images; 20 not annotated"):
        of(run, annotations)


def test_annotations_of_another_dataset_are_refused(boxed: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="annotates no sample of the run"):
        of(boxed[0], write_boxes(tmp_path, ["x.png"], [[1, 2, 3, 4]]))


def test_what_does_not_fit_the_run_is_noted(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    ids, labels = ids_of(run), shard_columns(run, "label")["label"]
    folder = tmp_path / "wsol"
    folder.mkdir()
    (folder / "localization.txt").write_text("".join(f"{i},1,2,300,40\n" for i in [*ids[:9], "stranger.png"]))
    with (folder / "localization.txt").open("a") as listing:
        listing.writelines(f"{i},1,2,3,4\n" for i in ids[9:])
    (folder / "image_sizes.txt").write_text(f"{ids[0]},200,120\n")
    (folder / "class_labels.txt").write_text(f"{ids[0]},{labels[0]}\n{ids[1]},{(labels[1] + 1) % 5}\n")
    summary = of(run, folder)
    assert summary.strangers == 1
    assert summary.notes == (
        "1 samples have another image size in the annotations: their boxes are scaled",
        "8 boxes reach beyond their images: do the annotations belong to them?",
        "1 samples have another class index in the annotations than in the run",
    )


def test_names_in_another_unicode_form_than_the_ids_are_counted(tmp_path: Path) -> None:
    ids = [f"Bär/{number}.png" for number in range(COUNT)]
    run, _, _ = write_run(tmp_path, ids)
    written = [*(unicodedata.normalize("NFD", each) for each in ids[:5]), *ids[5:]]
    told = "5 samples are annotated under names in another Unicode form than their ids"
    assert told in of(run, write_boxes(tmp_path, written, random_boxes(COUNT))).notes
    assert of(run, write_boxes(tmp_path, ids, random_boxes(COUNT))).notes == ()


@pytest.mark.parametrize("factor", [10, 1000])
def test_boxes_of_which_most_reach_beyond_their_images_are_refused(tmp_path: Path, factor: int) -> None:
    run, _, _ = write_run(tmp_path)
    boxes = (random_boxes(len(ids_of(run))) * factor).tolist()
    with pytest.raises(DatasetError, match="boxes reach beyond their images: they are no corners"):
        of(run, write_boxes(tmp_path, ids_of(run), boxes))


def test_a_run_in_progress_is_judged_as_far_as_it_is(tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path, skip=(1,))
    summary = of(run, write_boxes(tmp_path, ids_of(run), random_boxes(13).tolist()))
    assert (summary.samples, summary.notes) == (13, ("the run is not complete: 2 of 3 shards",))


def test_samples_that_are_right_for_something_beside_the_object_are_counted(
    boxed: tuple[Path, Path], tmp_path: Path
) -> None:
    summary = of(*boxed, out=tmp_path / "out")
    rows = read_rows(tmp_path / "out")
    expected = [r for r in rows if r["label"] and r["label"] == r["prediction"] and r["peak_inside"] == "0"]
    assert summary.right_elsewhere == len(expected)


def test_the_text_shows_each_score_beside_the_centres_with_its_samples(boxed: tuple[Path, Path]) -> None:
    summary = of(*boxed)
    lines = localize_text(summary).split("\n")
    (line,) = [each for each in lines if each.startswith("peak inside")]
    score = summary.scores["peak_inside"]
    interval = "{:.1f}–{:.1f}".format(*score.interval)
    assert line.split()[2:] == [f"{score.percent:.1f}", interval, f"{score.centre_percent:.1f}", "19"]
    assert not [each for each in lines if each.startswith("PxAP")]
    assert any(each.startswith("judged") and "1 unreadable images" in each for each in lines)


def test_the_text_stays_on_its_lines_whatever_names_say(boxed: tuple[Path, Path]) -> None:
    summary = of(*boxed)
    hostile = [dataclasses.replace(c, name="a\n\x1b[31mb") for c in summary.classes]
    text = localize_text(dataclasses.replace(summary, classes=hostile, annotations="x\ny"))
    assert "\x1b" not in text
    assert len(text.split("\n")) == len(localize_text(summary).split("\n"))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"target": "truth"}, "--target truth: choose one of label, predicted"),
        ({"frame": "crop"}, "--frame crop: choose one of view, image"),
        ({"tolerance": -1.0}, "--tolerance -1.0: must be at least 0"),
        ({"tolerance": float("nan")}, "--tolerance nan"),
        ({"workers": -1}, "--workers -1: must be at least 0"),
        ({"out": Path("run/out")}, "--out run/out: lies in the run"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        LocalizeConfig(Path("run"), Path("boxes.csv"), **options)


def test_the_tolerance_is_that_of_the_pointing_game(boxed: tuple[Path, Path]) -> None:
    strict, loose = of(*boxed, tolerance=0.0), of(*boxed, tolerance=1000.0)
    micro = [np.average([c.scores["pointing_game"].percent for c in s.classes]) for s in (strict, loose)]
    assert strict.scores["pointing_game"].percent == pytest.approx(micro[0])
    assert loose.scores["pointing_game"].percent == pytest.approx(micro[1])
    assert [c.scores["pointing_game"].percent for c in strict.classes] == [
        c.scores["peak_inside"].percent for c in strict.classes
    ]
    without = loose.without_map / loose.judged
    hits = sum(c.samples * (c.scores["pointing_game"].percent or 0) for c in loose.classes) / loose.judged
    assert hits == pytest.approx(100 * (1 - without))
