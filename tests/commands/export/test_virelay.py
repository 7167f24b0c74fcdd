"""A ViRelAy project holds the shards' CAMs and the network's views of the images, as ViRelAy's reader reads them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from batchcam.commands.export.config import ExportConfig
from batchcam.commands.export.export import export
from batchcam.commands.export.originals import network_view
from batchcam.record.map_clusters import COMPONENTS, RULE, find_clusters
from tests.helpers.export_runs import png_bytes, shard_columns, smooth_image, tree, write_run
from tests.helpers.small_blocks import small_blocks
from tests.helpers.synthetic import CLASS_NAMES, CONSTANT, NON_FINITE, UNLABELLED, UNREADABLE, bilinear

SHOWN = [i for i in range(21) if i not in (UNREADABLE, NON_FINITE)]


def project_values(out: Path) -> dict[str, str]:
    """The scalars of project.yaml, by the last key on their line; enough for a file of this shape."""
    lines = (out / "project.yaml").read_text(encoding="utf-8").splitlines()
    pairs = [line.strip().split(": ", 1) for line in lines if ": " in line]
    return dict(pairs)


def small_parts(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    small_blocks(monkeypatch, samples * (5 * 3 * 48 * 80 + 1000))


def test_attributions_sum_over_channels_to_the_upsampled_cam_of_the_predicted_class(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    summary = export(ExportConfig(run, "virelay", tmp_path / "out", data=str(data), quiet=True))
    stored = shard_columns(run, "cams", "prediction", "label", "logits")
    with h5py.File(tmp_path / "out" / "cam.attribution.h5") as file:
        attribution, prediction = file["attribution"][...], file["prediction"][...]
        index, label = file["index"][...], file["label"][...]
    assert (attribution.shape, attribution.dtype) == ((19, 3, 48, 80), np.float32)
    cams = stored["cams"][SHOWN, stored["prediction"][SHOWN]].astype(np.float64)
    np.testing.assert_allclose(attribution.sum(1), bilinear(cams, (48, 80)), atol=1e-4)
    np.testing.assert_array_equal(attribution[:, 0], attribution[:, 2])
    np.testing.assert_array_equal(prediction, stored["logits"][SHOWN])
    np.testing.assert_array_equal(label, stored["label"][SHOWN])
    assert label.dtype.kind == "i"
    np.testing.assert_array_equal(index, np.arange(19))
    assert index.dtype == np.uint32
    assert (summary.samples, summary.skipped) == (19, 2)


def test_raw_cells_of_the_labels_class_can_be_had(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    export(ExportConfig(run, "virelay", tmp_path / "out", data=str(data), size="grid", target="label", quiet=True))
    stored = shard_columns(run, "cams", "label")
    shown = [i for i in SHOWN if i != UNLABELLED]
    with h5py.File(tmp_path / "out" / "cam.attribution.h5") as file:
        attribution = file["attribution"][...]
    expected = stored["cams"][shown, stored["label"][shown]]
    assert attribution.shape == (18, 3, 3, 5)
    np.testing.assert_allclose(attribution.sum(1), expected, rtol=1e-6, atol=1e-6)
    assert project_values(tmp_path / "out")["attribution_strategy"] == "true_label"


def test_the_dataset_holds_the_networks_views_as_rgb_bytes_channels_first(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path, box=(20, 12, 60, 36))
    export(ExportConfig(run, "virelay", tmp_path / "out", data=str(data), quiet=True))
    with h5py.File(tmp_path / "out" / "dataset.input.h5") as file:
        pixels, label = file["data"][...], file["label"][...]
    assert (pixels.shape, pixels.dtype) == ((19, 3, 48, 80), np.uint8)
    for at, row in enumerate(SHOWN):
        view = cv2.resize(smooth_image(row)[12:36, 20:60], (80, 48), interpolation=cv2.INTER_LINEAR).astype(int)
        inner = np.abs(pixels[at].transpose(1, 2, 0) - view)[2:-2, 2:-2]  # at its edges the cut-out knows less
        assert inner.max() <= 2
    np.testing.assert_array_equal(label, shard_columns(run, "label")["label"][SHOWN])


def test_a_view_is_placed_as_torchvision_resizes_and_crops() -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.functional")
    image = smooth_image(3, (375, 500))
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    expected = functional.center_crop(functional.resize(pixels, [256], antialias=True), [224, 224]).numpy()
    resized_width = int(256 * 500 / 375)
    left, top = round((resized_width - 224) / 2), round((256 - 224) / 2)
    x, y = 500 / resized_width, 375 / 256
    view = network_view(image, (left * x, top * y, (left + 224) * x, (top + 224) * y), (224, 224))
    assert view is not None
    assert np.abs(view.transpose(2, 0, 1).astype(int) - expected).max() <= 3


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (30, 20), (1, 64), (224, 224)])
def test_a_padded_view_is_placed_as_the_worker_pads(size: tuple[int, int]) -> None:
    pytest.importorskip("torch")
    from batchcam.data.preprocessing import Preprocessing

    image, colour, half = smooth_image(3, size), (9, 99, 199), (0.5, 0.5, 0.5)
    pixels, box = Preprocessing((96, 128), (96, 128), half, half, pad=colour).apply(Image.fromarray(image))
    view = network_view(image, np.float32(box).tolist(), (96, 128), colour)
    assert view is not None
    assert np.abs(view.transpose(2, 0, 1).astype(int) - pixels.numpy()).max() <= 3
    edges = (pixels.numpy().transpose(1, 2, 0) == colour).all(2)
    np.testing.assert_array_equal((view == colour).all(2), edges)


def test_a_box_of_padding_gives_no_view_where_the_image_does_not_lie_in_it() -> None:
    assert network_view(smooth_image(0), (10, -20, 90, 80), (48, 80), (0, 0, 0)) is None


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 0), (np.nan, 0, 1, 1), (0, 0, 1e-6, 1e-6), (50, 0, 150, 60), (-10, 0, 90, 60), (9, 9, 3, 3)]
)
def test_a_box_that_can_be_no_view_gives_none(box: tuple[float, float, float, float]) -> None:
    assert network_view(smooth_image(0), box, (48, 80)) is None


def test_missing_changed_and_undecodable_images_are_grey_and_counted(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    (data / "ant" / "00000.png").unlink()
    (data / "ant" / "00001.png").write_bytes(png_bytes(smooth_image(50)))
    summary = export(ExportConfig(run, "virelay", tmp_path / "out", data=str(data), quiet=True))
    with h5py.File(tmp_path / "out" / "dataset.input.h5") as file:
        pixels = file["data"][:3]
    assert (pixels[:2] == 128).all()
    assert (pixels[2] != 128).any()
    assert summary.findings == 1
    lines = (tmp_path / "out" / "samples.csv").read_text(encoding="utf-8").splitlines()
    assert [line.rpartition(",")[2] for line in lines[1:4]] == ["missing", "changed", "found"]
    assert summary.notes == (
        "1 sample left out: unreadable",
        "1 sample left out: numbers that are not finite",
        f"1 images not found (not in {data}): grey in the viewer",
        "1 images no longer those explained: grey in the viewer",
        "1 CAMs are constant: kept as they are; leave them out of a CoRelAy pipeline",
        '1 samples have no label: shown as class -1, "not known"',
        "clusters of maps are no findings; cam.analysis.h5 says how they were found",
    )


def test_a_run_without_image_files_is_exported_in_grey(sound_run: Path, tmp_path: Path) -> None:
    summary = export(ExportConfig(sound_run, "virelay", tmp_path / "out", quiet=True))
    with h5py.File(tmp_path / "out" / "dataset.input.h5") as file:
        assert (file["data"][...] == 128).all()
    assert "19 images not found (no data known: give --data): grey in the viewer" in summary.notes


def test_parts_hold_the_same_as_one_and_all_paths_are_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, data, _ = write_run(tmp_path)
    one = export(ExportConfig(run, "virelay", tmp_path / "one", data=str(data), quiet=True))
    small_parts(monkeypatch, 3)
    many = export(ExportConfig(run, "virelay", tmp_path / "many", data=str(data), quiet=True))
    assert (one.files, many.files) == (3 * 2 + 6, 8 * 2 + 6)  # shards of 8, 8 and 5 samples, cut every 3
    moved = Path(shutil.move(tmp_path / "many", tmp_path / "moved"))
    for name, arrays in (("cam.attribution.h5", ("attribution", "prediction")), ("dataset.input.h5", ("data",))):
        with h5py.File(tmp_path / "one" / name) as a, h5py.File(moved / name) as b:
            for array in arrays:
                np.testing.assert_array_equal(a[array][...], b[array][...])


def test_an_export_of_a_run_in_progress_grows_with_it_and_keeps_its_parts(tmp_path: Path) -> None:
    (tmp_path / "early").mkdir()
    early, data, _ = write_run(tmp_path / "early", skip=(1,))
    complete, _, _ = write_run(tmp_path)
    out, whole = tmp_path / "out", tmp_path / "whole"
    first = export(ExportConfig(early, "virelay", out, data=str(data), quiet=True))
    assert first.samples == 11
    assert first.notes[-1] == "the run is not complete: 2 of 3 shards, 13 of 21 samples"
    kept = {p: p.stat().st_mtime_ns for p in (out / "parts").iterdir()}
    after = export(ExportConfig(complete, "virelay", out, data=str(data), quiet=True))
    export(ExportConfig(complete, "virelay", whole, data=str(data), quiet=True))
    assert (after.samples, after.kept) == (19, 4 + 1)  # parts of two shards, and project
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert tree(out) == tree(whole)


def test_an_interrupted_export_goes_on_and_project_yaml_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data, _ = write_run(tmp_path)
    config = ExportConfig(run, "virelay", tmp_path / "out", data=str(data), quiet=True)
    export(ExportConfig(run, "virelay", tmp_path / "whole", data=str(data), quiet=True))
    replace, left = os.replace, [5]

    def fail_later(source: Any, target: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_later)
    with pytest.raises(KeyboardInterrupt):
        export(config)
    monkeypatch.undo()
    assert not (tmp_path / "out" / "project.yaml").exists()
    again = export(config)
    assert again.kept == 3
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_rerun_fetches_images_that_are_back(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    content = (data / "ant" / "00000.png").read_bytes()
    (data / "ant" / "00000.png").unlink()
    config = ExportConfig(run, "virelay", tmp_path / "out", data=str(data), quiet=True)
    export(config)
    (data / "ant" / "00000.png").write_bytes(content)
    again = export(config)
    assert again.kept == again.files - 2  # the part with that image, and the table of samples
    with h5py.File(tmp_path / "out" / "dataset.input.h5") as file:
        assert (file["data"][0] != 128).any()


def test_the_label_map_names_every_class_and_the_unknown_one(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    export(ExportConfig(run, "virelay", tmp_path / "out", data=str(data), quiet=True))
    labels = json.loads((tmp_path / "out" / "label-map.json").read_text(encoding="utf-8"))
    assert [(each["index"], each["name"]) for each in labels] == [*enumerate(CLASS_NAMES), (-1, "not known")]
    assert all("word_net_id" in each for each in labels)
    assert labels[3]["word_net_id"] == "00000003"


def test_the_label_map_has_no_unknown_class_where_all_samples_have_labels(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    out = tmp_path / "out"
    export(ExportConfig(run, "virelay", out, data=str(data), target="label", quiet=True))
    labels = json.loads((out / "label-map.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in labels] == list(CLASS_NAMES)


def test_each_explained_class_is_a_category_of_the_analysis_with_equal_names_in_it(tmp_path: Path) -> None:
    run, data, _ = write_run(tmp_path)
    out = tmp_path / "out"
    export(ExportConfig(run, "virelay", out, data=str(data), quiet=True))
    stored = shard_columns(run, "cams", "prediction")
    classes = stored["prediction"][SHOWN]
    maps = stored["cams"][SHOWN, classes]
    known = {each["word_net_id"] for each in json.loads((out / "label-map.json").read_text(encoding="utf-8"))}
    with h5py.File(out / "cam.analysis.h5") as file:
        assert file.attrs["clusters"].decode() == RULE
        assert [int(name) for name in file] == np.unique(classes).tolist()
        assert set(file) <= known
        for name, group in file.items():
            index, embedding = group["index"][...], group["embedding/pca"][...]
            assert index.dtype == np.uint32
            np.testing.assert_array_equal(index, np.flatnonzero(classes == int(name)))
            assert (embedding.shape, embedding.dtype) == ((len(index), COMPONENTS), np.float32)
            found = find_clusters(maps[index])
            points = found.embedded(maps[index])
            np.testing.assert_allclose(embedding[:, : points.shape[1]], points, atol=1e-6)
            np.testing.assert_allclose(group["embedding/pca"].attrs["eigenvalue"][::-1], found.variances, rtol=1e-6)
            assert list(group["embedding"]) == ["pca"]
            assert list(group["cluster"]) == ["kmeans", *(f"kmeans-{k:02d}" for k in range(2, 9))]
            for clustering, clusters in group["cluster"].items():
                count = int(clustering[7:] or found.count)
                assert (clusters.dtype, clusters.attrs["embedding"].decode()) == (np.int32, "pca")
                assert clusters.attrs["k"] == count
                np.testing.assert_array_equal(clusters[...], found.assigned(points, count))


def test_project_yaml_is_yaml_whatever_the_run_is_called(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    run, data, _ = write_run(tmp_path, architecture='re"s\\net: # \x7f\n🦓 &a')
    odd = run.rename(tmp_path / 'é: "x" #🦓\n- y')
    export(ExportConfig(odd, "virelay", tmp_path / "out", data=str(data), quiet=True))
    project = yaml.safe_load((tmp_path / "out" / "project.yaml").read_text(encoding="utf-8"))["project"]
    assert project["model"] == 're"s\\net: # \\x7f 🦓 &a'
    assert project["name"].startswith('é: "x" #🦓 - y (')
    assert project["dataset"] == {
        "name": 'é: "x" #🦓 - y',
        "type": "hdf5",
        "path": "dataset.input.h5",
        "input_width": 80,
        "input_height": 48,
        "up_sampling_method": "none",
        "down_sampling_method": "none",
    }
    assert project["attributions"]["sources"] == ["cam.attribution.h5"]
    assert project["analyses"] == [{"analysis_method": "pca", "sources": ["cam.analysis.h5"]}]


def test_virelays_own_backend_loads_and_renders_every_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = pytest.importorskip("virelay.model")
    small_parts(monkeypatch, 3)
    run, data, _ = write_run(tmp_path)
    export(ExportConfig(run, "virelay", tmp_path / "out", data=str(data), quiet=True))
    stored = shard_columns(run, "cams", "prediction", "label", "logits")
    monkeypatch.chdir("/")
    workspace = model.Workspace()
    workspace.add_project(str(tmp_path / "out" / "project.yaml"))
    (name,) = workspace.get_project_names()
    project = workspace.get_project(name)
    assert len(project.dataset) == 19
    for at, row in enumerate(SHOWN):
        sample, attribution = project.get_sample(at), project.get_attribution(at)
        label = stored["label"][row]
        expected = CLASS_NAMES[label] if label >= 0 else "not known"
        assert [each.name for each in sample.labels] == [each.name for each in attribution.labels] == [expected]
        assert sample.data.shape == (48, 80, 3)
        cam = bilinear(stored["cams"][row : row + 1, stored["prediction"][row]].astype(np.float64), (48, 80))[0]
        np.testing.assert_allclose(attribution.data.sum(2), cam, atol=1e-4)
        np.testing.assert_array_equal(attribution.prediction, stored["logits"][row])
        if row == CONSTANT:
            continue
        for colours in ("black-fire-red", "blue-white-red", "gray-red", "jet"):
            assert attribution.render_heatmap(colours).shape == (48, 80, 3)
    (method,) = project.get_analysis_methods()
    analysed = []
    for category in project.get_analysis_categories(method):
        assert category.human_readable_name == CLASS_NAMES[int(category.name)]
        for clustering in project.get_analysis_clustering_names(method):
            analysis = project.get_analysis(method, category.name, clustering, "pca")
            assert len(analysis.clustering) == len(analysis.embedding) == len(analysis.attribution_indices)
        analysed += analysis.attribution_indices.tolist()
    assert sorted(analysed) == list(range(19))
    workspace.close()
