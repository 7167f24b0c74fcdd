"""CSV and Parquet say of each sample what the shards say, in words that no spreadsheet runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchcam.commands.export.config import ExportConfig
from batchcam.commands.export.export import export
from batchcam.errors import BatchcamError
from batchcam.record.measures import certainty_measures, evidence_measures, in_image
from tests.helpers.export_runs import shard_columns, write_run
from tests.helpers.synthetic import CLASS_NAMES, UNLABELLED, UNREADABLE


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8"), newline="")))


def test_csv_holds_the_shards_columns_row_by_row(sound_run: Path, tmp_path: Path) -> None:
    summary = export(ExportConfig(sound_run, "csv", tmp_path, quiet=True))
    lines = read_csv(tmp_path / "samples.csv")
    names = ("sample_index", "sample_id", "label", "prediction", "confidence", "status", "input_sha256")
    stored = shard_columns(sound_run, *names)
    assert (summary.samples, summary.skipped, summary.files, len(lines)) == (21, 0, 1, 21)
    for name in ("sample_index", "label", "prediction", "status"):
        np.testing.assert_array_equal([int(line[name]) for line in lines], stored[name])
    assert [line["sample_id"].encode() for line in lines] == stored["sample_id"].tolist()
    assert [line["input_sha256"] for line in lines] == [d.tobytes().hex() for d in stored["input_sha256"]]
    written = np.array([line["confidence"] or "nan" for line in lines], np.float32)
    np.testing.assert_array_equal(written, stored["confidence"])  # bit for bit
    assert [line["label_name"] for line in lines] == [(*CLASS_NAMES, "")[i] for i in stored["label"]]
    assert [line["prediction_name"] for line in lines] == [(*CLASS_NAMES, "")[i] for i in stored["prediction"]]


def test_evidence_and_certainty_are_columns_and_a_predicted_class_picks_rows(sound_run: Path, tmp_path: Path) -> None:
    export(ExportConfig(sound_run, "csv", tmp_path / "all", quiet=True))
    lines = read_csv(tmp_path / "all" / "samples.csv")
    stored = shard_columns(sound_run, "cams", "prediction", "label", "logits", "crop_box")
    expected = evidence_measures(stored) | certainty_measures(stored["logits"], stored["label"])
    expected |= in_image(expected, stored["crop_box"])
    for name, values in expected.items():
        np.testing.assert_allclose([float(line[name] or "nan") for line in lines], values, err_msg=name)
    assert {lines[UNREADABLE][name] for name in expected} == {""}
    name = lines[0]["prediction_name"]
    some = export(ExportConfig(sound_run, "csv", tmp_path / "some", predicted=name, quiet=True))
    picked = [line for line in lines if line["prediction_name"] == name]
    assert read_csv(tmp_path / "some" / "samples.csv") == picked
    assert (some.samples, some.skipped) == (len(picked), 21 - len(picked))
    with pytest.raises(BatchcamError, match="holds another export"):
        export(ExportConfig(sound_run, "csv", tmp_path / "some", quiet=True))


def test_a_predicted_class_picks_the_pictures_too(sound_run: Path, tmp_path: Path) -> None:
    prediction = shard_columns(sound_run, "prediction")["prediction"]
    summary = export(ExportConfig(sound_run, "png", tmp_path / "some", predicted=str(prediction[0]), quiet=True))
    assert summary.samples == int((prediction == prediction[0]).sum())
    with pytest.raises(BatchcamError, match="--predicted cow: no such class"):
        export(ExportConfig(sound_run, "png", tmp_path / "cow", predicted="cow", quiet=True))
    assert not (tmp_path / "cow").exists()


def test_csv_tells_unreadable_and_unlabelled_samples_from_others(sound_run: Path, tmp_path: Path) -> None:
    export(ExportConfig(sound_run, "csv", tmp_path, quiet=True))
    lines = read_csv(tmp_path / "samples.csv")
    unreadable = lines[UNREADABLE]
    assert (unreadable["status_name"], unreadable["prediction_name"], unreadable["confidence"]) == (
        "unreadable",
        "",
        "",
    )
    assert unreadable["error"] == "not an image: усечённый файл"
    assert (lines[UNLABELLED]["label"], lines[UNLABELLED]["label_name"]) == ("-1", "")


def test_texts_that_are_formulas_or_hold_newlines_stay_texts_on_one_line(tmp_path: Path) -> None:
    ids = ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "a\nb", "c\rd", 'e",f', "\t=1", "normal"]
    names = ("=1", "-b", "c\nd", "e", "f")
    run, _, _ = write_run(tmp_path, ids, class_names=names)
    export(ExportConfig(run, "csv", tmp_path / "out", quiet=True))
    text = (tmp_path / "out" / "samples.csv").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 1 + len(ids)
    lines = read_csv(tmp_path / "out" / "samples.csv")
    cells = [line[name] for line in lines for name in ("sample_id", "label_name", "prediction_name", "error")]
    assert not any(each.startswith(("=", "+", "-", "@", "\t", "\r")) for each in cells)
    assert [line["sample_id"] for line in lines][:2] == ["'=cmd|' /C calc'!A0", "'+1"]
    assert lines[4]["sample_id"] == "'a\\nb"
    assert lines[8]["sample_id"] == "normal"


def test_a_rerun_keeps_the_file_and_one_over_more_shards_replaces_it(tmp_path: Path, make_shards: Any) -> None:
    run, _, _ = write_run(tmp_path, skip=(1,))
    config = ExportConfig(run, "csv", tmp_path / "out", quiet=True)
    first, again = export(config), export(config)
    assert (first.samples, first.kept, again.kept) == (13, 0, 1)
    assert first.notes == ("the run is not complete: 2 of 3 shards, 13 of 21 samples",)
    (tmp_path / "run").rename(tmp_path / "part")
    complete, _, _ = write_run(tmp_path)
    after = export(ExportConfig(complete, "csv", tmp_path / "out", quiet=True))
    assert (after.samples, after.kept, after.notes) == (21, 0, ())
    assert len(read_csv(tmp_path / "out" / "samples.csv")) == 21


def test_parquet_says_what_to_install(sound_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(BatchcamError, match=r"pyarrow: pip install 'batchcam\[arrow\]'$") as raised:
        export(ExportConfig(sound_run, "parquet", tmp_path / "out", quiet=True))
    assert not (tmp_path / "out").exists()
    assert raised.value.exit_code == 1
    # and leaves nothing that stands in another format's way
    export(ExportConfig(sound_run, "csv", tmp_path / "out", quiet=True))


def test_parquet_holds_the_shards_columns(sound_run: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    export(ExportConfig(sound_run, "parquet", tmp_path, quiet=True))
    table = parquet.read_table(tmp_path / "samples.parquet").to_pydict()
    stored = shard_columns(sound_run, "sample_id", "label", "prediction", "confidence")
    assert [text.encode() for text in table["sample_id"]] == stored["sample_id"].tolist()
    np.testing.assert_array_equal(table["label"], stored["label"])
    np.testing.assert_array_equal(np.array(table["confidence"], np.float32), stored["confidence"])
    assert table["label_name"][UNLABELLED] is None


def test_progress_reaches_the_number_of_samples(
    sound_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    advance: Callable[[Any, int], None] = lambda _, count: counts.append(count)  # noqa: E731
    monkeypatch.setattr("batchcam.job.console.Progress.advance", advance)
    for to in ("csv", "png", "wsol", "virelay", "h5", "zarr", "fiftyone"):
        counts.clear()
        export(ExportConfig(sound_run, to, tmp_path / to, quiet=True))
        assert sum(counts) == 21
