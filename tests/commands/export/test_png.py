"""Pictures show the stored map over the image that was explained, and no other; nothing leaves the folder."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import cv2
import numpy as np
import pytest

from batchcam.commands.export.config import ExportConfig
from batchcam.commands.export.export import export
from tests.helpers.export_runs import png_bytes, shard_columns, smooth_image, tree, write_run
from tests.helpers.synthetic import CONSTANT, NON_FINITE, UNREADABLE, bilinear

GREY_SIZE = (48, 80)


def picture(path: Path) -> np.ndarray:
    """A PNG as RGB or grey."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return image[..., ::-1] if image.ndim == 3 else image


def index_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / "index.csv").read_text(encoding="utf-8"), newline="")))


def viridis(grey: np.ndarray) -> np.ndarray:
    return cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS)[..., ::-1].astype(np.float64)


def test_each_map_is_the_stored_one_and_each_overlay_is_half_image_half_heatmap(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    summary = export(ExportConfig(run, "png", tmp_path / "out", data=str(data), quiet=True))
    stored = shard_columns(run, "maps", "sample_id")
    lines = index_of(tmp_path / "out")
    drawn = [line for line in lines if line["map"]]
    assert (len(lines), len(drawn), summary.samples, summary.skipped) == (21, 19, 19, 2)
    for line in drawn:
        row = int(line["sample_index"])
        np.testing.assert_array_equal(picture(tmp_path / "out" / line["map"]), stored["maps"][row])
        large = cv2.resize(stored["maps"][row].astype(np.float32), (100, 60), interpolation=cv2.INTER_LINEAR)
        image = smooth_image(row).astype(np.float64)
        # a constant map says nothing about where
        expected = image if row == CONSTANT else (image + viridis(np.rint(large).astype(np.uint8))) / 2
        assert line["image"] == "found"
        overlay = picture(tmp_path / "out" / line["overlay"]).astype(np.float64)
        assert overlay.shape == expected.shape
        assert np.abs(overlay - expected).max() <= 2


def test_samples_without_a_map_are_in_the_index_without_pictures(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    summary = export(ExportConfig(run, "png", tmp_path / "out", data=str(data), quiet=True))
    lines = index_of(tmp_path / "out")
    for row, word in ((UNREADABLE, "unreadable"), (NON_FINITE, "non_finite")):
        line = lines[row]
        assert (line["status_name"], line["overlay"], line["map"], line["explained_class"]) == (word, "", "", "")
    assert not picture(tmp_path / "out" / lines[CONSTANT]["map"]).any()
    assert summary.notes == (
        "1 sample left out: unreadable",
        "1 sample left out: numbers that are not finite",
        "1 maps are zero, and their images shown alone: the CAM is constant",
    )


def test_another_class_than_the_stored_map_is_upsampled_from_its_cam(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    export(ExportConfig(run, "png", tmp_path / "out", data=str(data), target="label", quiet=True))
    stored = shard_columns(run, "cams", "label", "prediction")
    row = int(np.flatnonzero((stored["label"] != stored["prediction"]) & (stored["label"] >= 0))[0])
    raw = bilinear(stored["cams"][row : row + 1, stored["label"][row]].astype(np.float64), GREY_SIZE)[0]
    expected = 255 * (raw - raw.min()) / (raw.max() - raw.min())
    drawn = picture(tmp_path / "out" / "maps" / "ant" / f"{row:05d}.png.png")
    assert np.abs(drawn - expected).max() <= 1


def test_a_changed_image_is_not_drawn_on_and_counts_as_a_finding(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    (data / "ant" / "00004.png").write_bytes(png_bytes(smooth_image(99)))
    (data / "ant" / "00005.png").unlink()
    summary = export(ExportConfig(run, "png", tmp_path / "out", data=str(data), quiet=True))
    lines = index_of(tmp_path / "out")
    assert [lines[i]["image"] for i in (4, 5, 7)] == ["changed", "missing", "found"]
    assert lines[4]["overlay"] == "grey/ant/00004.png.png"
    assert not (tmp_path / "out" / "overlays" / "ant" / "00004.png.png").exists()
    stored = shard_columns(run, "maps")["maps"][4].astype(np.float32)
    large = np.rint(cv2.resize(stored, (100, 60), interpolation=cv2.INTER_LINEAR)).astype(np.uint8)
    grey = picture(tmp_path / "out" / lines[4]["overlay"]).astype(np.float64)
    assert np.abs(grey - (128 + viridis(large)) / 2).max() <= 2
    assert summary.findings == 1
    assert "1 images no longer those explained: heatmap on grey, in grey/" in summary.notes


def test_a_rerun_looks_again_for_missing_images_and_draws_nothing_twice(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    content = (data / "ant" / "00005.png").read_bytes()
    (data / "ant" / "00005.png").unlink()
    config = ExportConfig(run, "png", tmp_path / "out", data=str(data), quiet=True)
    first = export(config)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.png")}
    (data / "ant" / "00005.png").write_bytes(content)
    again = export(config)
    assert (first.files, again.files, again.kept) == (19 * 2 + 1, 19 * 2 + 1, 19 * 2 - 1)
    assert index_of(tmp_path / "out")[5]["overlay"] == "overlays/ant/00005.png.png"
    assert all(p.stat().st_mtime_ns == time for p, time in before.items())


def test_the_runs_own_data_folder_is_searched_when_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data, _ = write_run(tmp_path)  # made from "photos", as synthetic.ORIGIN says
    data.rename(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    assert index_of_export(run, tmp_path / "here") == {"found"}
    monkeypatch.chdir("/")
    assert index_of_export(run, tmp_path / "elsewhere") == {"missing"}


def index_of_export(run: Path, out: Path) -> set[str]:
    export(ExportConfig(run, "png", out, quiet=True))
    return {line["image"] for line in index_of(out) if line["map"]}


def test_a_cropped_view_is_coloured_and_the_rest_is_not(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path, box=(20, 0, 80, 60))
    export(ExportConfig(run, "png", tmp_path / "out", data=str(data), quiet=True))
    overlay = picture(tmp_path / "out" / "overlays" / "ant" / "00000.png.png").astype(int)
    spread = np.ptp(overlay, axis=2)
    assert not spread[:, :20].any()
    assert not spread[:, 80:].any()
    assert (spread[:, 20:80] > 0).mean() > 0.9


def test_a_large_photo_makes_a_picture_of_1024_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.helpers.export_runs.IMAGE_SIZE", (900, 2000))
    monkeypatch.setattr("tests.helpers.export_runs.smooth_image", lambda seed: smooth_image(seed, (900, 2000)))
    run, data, _ = write_run(tmp_path, ids=["a.png"], box=(0, 0, 2000, 900))
    export(ExportConfig(run, "png", tmp_path / "out", data=str(data), quiet=True))
    assert picture(tmp_path / "out" / "overlays" / "a.png.png").shape == (461, 1024, 3)


def test_hostile_ids_read_no_file_outside_the_data_and_write_none_outside_the_folder(tmp_path: Path) -> None:
    ids = ["../secret.png", f"{tmp_path}/secret.png", "x" * 300, "a\nb.png", "a/../../secret.png", "q?.png", "q*.png"]
    run, data, _ = write_run(tmp_path, ids)
    for index in (0, 1, 4):  # the very images that these samples' digests are of
        (tmp_path / "secret.png").write_bytes(png_bytes(smooth_image(index)))
        before = set(tree(tmp_path))
        out = tmp_path / f"out{index}"
        export(ExportConfig(run, "png", out, data=str(data), quiet=True))
        assert index_of(out)[index]["image"] == "missing"
        assert all(path.startswith(out.name) for path in set(tree(tmp_path)) - before)
    assert [index_of(tmp_path / "out0")[i]["image"] for i in (5,)] == ["found"]


def test_a_pipe_in_an_images_place_is_missing_and_not_waited_for(tmp_path: Path) -> None:
    import os

    run, data, _ = write_run(tmp_path)
    (data / "ant" / "00000.png").unlink()
    os.mkfifo(data / "ant" / "00000.png")
    export(ExportConfig(run, "png", tmp_path / "out", data=str(data), quiet=True))
    assert index_of(tmp_path / "out")[0]["image"] == "missing"
