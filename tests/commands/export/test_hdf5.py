"""The file holds what run.h5 shows, in itself, in a form that old and small readers of HDF5 know."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d

import batchcam
from batchcam.commands.export.config import ExportConfig
from batchcam.commands.export.export import export
from tests.helpers.series import land_night, whole_and_series
from tests.helpers.synthetic import synthetic_plan, synthetic_rows

WRITTEN_WITH_REFERENCES = ("DIMENSION_LIST", "REFERENCE_LIST")


def to_h5(run: Path, out: Path, **options: Any) -> Path:
    export(ExportConfig(run, "h5", out, quiet=True, **options))
    return out / "run.h5"


def datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    found: list[tuple[str, h5py.Dataset]] = []
    file.visititems(lambda name, each: found.append((name, each)) if isinstance(each, h5py.Dataset) else None)
    return iter(found)


def words(attributes: h5py.AttributeManager) -> dict[str, Any]:
    return {name: np.asarray(attributes[name]).tolist() for name in attributes if name not in WRITTEN_WITH_REFERENCES}


@pytest.mark.parametrize(
    "changes",
    [{}, {"maps": "float32", "shard_size": 5}, {"cams": "predicted+label", "maps": "none"}, {"shard_size": 21}],
    ids=str,
)
def test_it_holds_every_array_and_attribute_of_run_h5_in_itself(
    make_run: Callable[..., Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    run = make_run(**changes)
    with h5py.File(run / "run.h5") as expected, h5py.File(to_h5(run, tmp_path / "out")) as file:
        assert words(file.attrs) == words(expected.attrs)
        plans = [json.loads(each["config"][()]) for each in (file, expected)]
        assert plans[0] == {**plans[1], "shard_size": 21}
        names = {name for name, _ in datasets(file)}
        assert names == {name for name, _ in datasets(expected) if not name.startswith("shards/")}
        for name in names - {"config"}:
            dataset = file[name]
            made = dataset.id.get_create_plist()
            assert (dataset.dtype, dataset.shape) == (expected[name].dtype, expected[name].shape)
            assert dataset[()].tobytes() == expected[name][()].tobytes()
            assert words(dataset.attrs) == words(expected[name].attrs)
            assert [each.keys() for each in dataset.dims] == [each.keys() for each in expected[name].dims]
            assert made.get_layout() == h5d.CHUNKED
            assert not dataset.is_virtual
            assert not made.get_external_count()


def test_it_is_of_the_oldest_form_and_states_its_digest(sound_run: Path, tmp_path: Path) -> None:
    path = to_h5(sound_run, tmp_path / "out")
    content = path.read_bytes()
    assert (content[:8], content[8]) == (b"\x89HDF\r\n\x1a\n", 0)  # superblock 0, of HDF5 1.0
    assert b"OHDR" not in content  # object headers of version 2, of HDF5 1.8
    stated = (tmp_path / "out" / "run.h5.sha256").read_text()
    assert stated == f"{hashlib.sha256(content).hexdigest()}  run.h5\n"


def test_the_same_run_gives_the_same_bytes(sound_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = to_h5(sound_run, tmp_path / "out").read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert to_h5(sound_run, tmp_path / "again").read_bytes() == first


def test_however_many_shards_a_run_has_the_bytes_are_those_of_its_rows(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    three, one = make_run("three", shard_size=8), make_run("one", shard_size=21)
    assert to_h5(three, tmp_path / "a").read_bytes() == to_h5(one, tmp_path / "b").read_bytes()


def test_open_run_reads_it_as_the_only_shard_of_the_run(sound_run: Path, tmp_path: Path) -> None:
    with batchcam.open_run(sound_run) as run, batchcam.open_run(to_h5(sound_run, tmp_path / "out")) as read:
        assert (read.plan.run_id, len(read), read.shard_counts) == (run.plan.run_id, len(run), (1, 1))
        for array in run.arrays:
            np.testing.assert_array_equal(read[array.name][:], array[:])


def test_some_of_the_samples_are_told_from_all(sound_run: Path, tmp_path: Path) -> None:
    with batchcam.open_run(sound_run) as run:
        wanted = run.class_names[int(run.prediction[0])]
        rows = np.flatnonzero(run.prediction[:] == run.prediction[0])
        summary = export(ExportConfig(sound_run, "h5", tmp_path / "out", predicted=wanted, quiet=True))
        assert summary.notes == (f"{len(rows)} of 21 samples: sample_index says which",)
        with batchcam.open_run(tmp_path / "out" / "run.h5") as some:
            np.testing.assert_array_equal(some.sample_index[:], rows)
            np.testing.assert_array_equal(some.cams[:], run.cams[rows])


def test_a_series_is_one_file_of_all_its_rows(tmp_path: Path) -> None:
    whole, nights = whole_and_series(tmp_path)
    with h5py.File(to_h5(nights, tmp_path / "out")) as file, h5py.File(whole / "run.h5") as expected:
        for name in ("sample_id", "sample_index", "cams", "maps", "logits", "classifier/weight"):
            np.testing.assert_array_equal(file[name][()], expected[name][()])


def test_of_several_networks_no_classifier_is_told(tmp_path: Path) -> None:
    for night, digest in (("1", "a"), ("2", "b")):
        rows = synthetic_rows(synthetic_plan(sample_count=4), int(night))
        land_night(tmp_path / "nights" / night, rows, checkpoint_sha256=digest * 64)
    summary = export(ExportConfig(tmp_path / "nights", "h5", tmp_path / "out", quiet=True))
    assert "the runs have several classifiers: classifier/weight and classifier/bias are NaN" in summary.notes
    with h5py.File(tmp_path / "out" / "run.h5") as file:
        assert np.isnan(file["classifier/weight"][()]).all()


def test_a_reader_that_is_no_hdf5_library_reads_every_array_out_of_memory(sound_run: Path, tmp_path: Path) -> None:
    pyfive = pytest.importorskip("pyfive")
    path = to_h5(sound_run, tmp_path / "out")
    with pyfive.File(io.BytesIO(path.read_bytes())) as read, h5py.File(path) as file:
        for name, dataset in datasets(file):
            assert np.asarray(read[name][()]).tobytes() == np.asarray(dataset[()]).tobytes(), name
