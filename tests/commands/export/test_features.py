"""A run with features is handed over with them, with each sample's nearest one, and with labels in doubt."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from batchcam.commands.export.config import ExportConfig
from batchcam.commands.export.export import export
from batchcam.errors import ConfigError, RunError
from batchcam.record import neighbours
from batchcam.record.neighbours import nearest
from tests.helpers.export_runs import shard_columns, write_run
from tests.helpers.synthetic import CLASS_NAMES, NON_FINITE, UNLABELLED, UNREADABLE

NEW = ("label_suspicion", "suspected_class", "neighbour", "neighbour_label", "neighbour_similarity")


def lines_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "samples.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "one", features="float16")[0]


def test_tables_name_the_nearest_sample_and_labels_in_doubt(run, tmp_path):
    export(ExportConfig(run, "csv", tmp_path / "out", quiet=True))
    lines = lines_of(tmp_path / "out")
    stored = shard_columns(run, "features", "label", "sample_id")
    rows, similarity = nearest(stored["features"])
    names = [*CLASS_NAMES, ""]
    for line, row, alike in zip(lines, rows.tolist(), similarity, strict=True):
        if row < 0:
            assert not any(line[name] for name in NEW[2:])
            continue
        assert line["neighbour"] == stored["sample_id"][row].decode()
        assert line["neighbour_label"] == names[stored["label"][row]]
        assert float(line["neighbour_similarity"]) == pytest.approx(float(alike))
    assert {row for row, line in enumerate(lines) if not line["neighbour"]} == {UNREADABLE, NON_FINITE}
    assert {row for row, line in enumerate(lines) if not line["label_suspicion"]} == {
        *(UNREADABLE, NON_FINITE, UNLABELLED)
    }
    assert all(line["suspected_class"] in names for line in lines)


def test_tables_of_a_run_without_features_are_as_they_were(tmp_path):
    run = write_run(tmp_path / "one")[0]
    export(ExportConfig(run, "csv", tmp_path / "out", quiet=True))
    assert not set(NEW) & set(lines_of(tmp_path / "out")[0])
    with pytest.raises(RunError, match="has no features"):
        export(ExportConfig(run, "csv", tmp_path / "more", train_run=run, quiet=True))


def test_parquet_has_the_columns_of_csv(run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for kind in ("csv", "parquet"):
        export(ExportConfig(run, kind, tmp_path / kind, quiet=True))
    table = parquet.read_table(tmp_path / "parquet" / "samples.parquet").to_pydict()
    lines = lines_of(tmp_path / "csv")
    for name in NEW:
        if name.endswith(("suspicion", "similarity")):
            np.testing.assert_allclose(table[name], [float(line[name] or "nan") for line in lines], rtol=1e-6)
        else:
            assert [value or "" for value in table[name]] == [line[name] for line in lines]


def test_the_nearest_sample_of_the_training_images_run_is_told(run, tmp_path):
    ids = [f"train/{i}.png" for i in range(21)]
    train, _, _ = write_run(tmp_path / "train", ids=ids, features="float32", dataset_fingerprint="e" * 64)
    export(ExportConfig(run, "csv", tmp_path / "out", train_run=train, quiet=True))
    lines = lines_of(tmp_path / "out")
    # the same images
    assert [line["train_neighbour"] for line in lines] == [
        "" if i in (UNREADABLE, NON_FINITE) else ids[i] for i in range(21)
    ]
    other, _, _ = write_run(tmp_path / "other", features="float16", checkpoint_sha256="e" * 64)
    with pytest.raises(RunError, match="of another network"):
        export(ExportConfig(run, "csv", tmp_path / "no", train_run=other, quiet=True))
    with pytest.raises(ConfigError, match="--train-run: not an option of npz"):
        ExportConfig(run, "npz", tmp_path / "no", train_run=other)


def test_a_run_that_is_too_large_for_neighbours_says_so(run, tmp_path, monkeypatch):
    for module in ("batchcam.commands.export.alike", neighbours.__name__):
        monkeypatch.setattr(f"{module}.MOST_COMPARED", 20)
    summary = export(ExportConfig(run, "csv", tmp_path / "out", quiet=True))
    assert any("no neighbours" in note for note in summary.notes)
    assert set(NEW) & set(lines_of(tmp_path / "out")[0]) == {"label_suspicion", "suspected_class"}


def test_npz_holds_what_the_shards_hold_and_is_the_same_bytes_twice(run, tmp_path):
    for name in ("one", "two"):
        export(ExportConfig(run, "npz", tmp_path / f"npz-{name}", quiet=True))
    one, two = ((tmp_path / f"npz-{name}" / "samples.npz").read_bytes() for name in ("one", "two"))
    assert one == two
    stored = shard_columns(run, "features", "label", "prediction", "confidence", "logits", "sample_id")
    with np.load(tmp_path / "npz-one" / "samples.npz", allow_pickle=False) as arrays:
        assert arrays["class_names"].tolist() == [*CLASS_NAMES]
        assert arrays["sample_id"].tolist() == [text.decode() for text in stored.pop("sample_id")]
        for name, values in stored.items():
            assert arrays[name].dtype == values.dtype
            np.testing.assert_array_equal(arrays[name], values)


def test_npz_of_a_run_without_features_says_so(tmp_path):
    run = write_run(tmp_path / "one")[0]
    summary = export(ExportConfig(run, "npz", tmp_path / "out", quiet=True))
    assert summary.notes == ("no features: explain with --features float16",)
    with np.load(tmp_path / "out" / "samples.npz") as arrays:
        assert "features" not in arrays
