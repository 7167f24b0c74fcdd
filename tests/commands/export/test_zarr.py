"""The references show the arrays of a run, where they lie, as Zarr."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from batchcam.commands.export.config import ExportConfig
from batchcam.commands.export.export import export
from batchcam.errors import ConfigError, RunError
from tests.helpers.damage import edited
from tests.helpers.export_runs import write_run
from tests.helpers.series import whole_and_series


def references(run: Path, out: Path) -> dict[str, Any]:
    export(ExportConfig(run, "zarr", out, quiet=True))
    return json.loads((out / "references.json").read_bytes())


def located(told: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The references with the folder's name before each path, as docs/studies.md says."""
    for place in told["refs"].values():
        if isinstance(place, list):
            place[0] = f"{folder}/{place[0]}"
    return told


def opened(told: dict[str, Any]) -> Any:
    fsspec, zarr = pytest.importorskip("fsspec"), pytest.importorskip("zarr")
    files = fsspec.filesystem("reference", fo=told, asynchronous=True)
    return zarr.open_group(zarr.storage.FsspecStore(files, read_only=True), mode="r")


def require_equal(group: Any, master: Path) -> None:
    with h5py.File(master) as file:
        names = [name for name in file if isinstance(file[name], h5py.Dataset) and name != "config"]
        for name in (*names, "classifier/weight", "classifier/bias"):
            expected, values = file[name][()], group[name][...]
            by_row = values if values.ndim == expected.ndim else values.reshape(-1, *expected.shape[1:])
            assert by_row[: len(expected)].tobytes() == expected.tobytes(), name


@pytest.mark.parametrize(
    ("changes", "by_shard"),
    [
        ({}, ()),
        ({"maps": "float32", "shard_size": 7}, ()),
        ({"cams": "predicted+label", "grid_size": (60, 80), "shard_size": 19}, ("maps",)),
        ({"cams": "all", "grid_size": (60, 80), "maps": "none", "shard_size": 15}, ()),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning:zarr")
def test_every_array_is_that_of_run_h5(
    make_run: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], by_shard: tuple[str, ...]
) -> None:
    run = make_run(sample_count=43, **changes)
    told = references(run, tmp_path / "out")
    stated = (name for name in ("cams", "maps") if f"{name}/.zattrs" in told["refs"])
    dims = {name: json.loads(told["refs"][f"{name}/.zattrs"])["_ARRAY_DIMENSIONS"] for name in stated}
    assert tuple(name for name in dims if dims[name][:2] == ["shard", "row_of_shard"]) == by_shard
    require_equal(opened(located(told, run)), run / "run.h5")


def test_a_run_that_moved_is_found_by_its_new_place(make_run: Callable[..., Path], tmp_path: Path) -> None:
    told = references(make_run(), tmp_path / "out")
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert not [place[0] for place in told["refs"].values() if isinstance(place, list) and "/tmp" in place[0]]
    require_equal(opened(located(told, moved)), moved / "run.h5")


def test_a_shard_is_shown_by_itself(sound_run: Path, tmp_path: Path) -> None:
    shard = sound_run / "shards" / "shard-00001.h5"
    require_equal(opened(located(references(shard, tmp_path / "out"), shard.parent)), shard)


def test_xarray_has_names_of_dimensions_texts_and_numbers_that_are_not_masked(sound_run: Path, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    told = located(references(sound_run, tmp_path / "out"), sound_run)
    with xarray.open_dataset("reference://", engine="zarr", storage_options={"fo": told}) as read:
        assert read.cams.dims == ("sample_index", "map_rank", "cam_y", "cam_x")
        assert read.label.dtype == np.int64  # -1, which is also HDF5's fill value, stays
        assert read.status.attrs["flag_masks"] == [1, 2, 4, 8]
        assert read.sample_id.values[0] == "蝶/фото 00000.png"
        assert read.attrs["sample_count"] == 21


def test_nothing_but_a_chunk_that_ends_before_its_end_is_copied(sound_run: Path, tmp_path: Path) -> None:
    told = references(sound_run, tmp_path / "out")["refs"]
    copied = [key for key, place in told.items() if isinstance(place, str) and place.startswith("base64:")]
    assert copied == ["maps/2.0.0"]  # the last shard has 5 rows, the others' chunks 8
    for key, place in told.items():
        if isinstance(place, list):
            path, offset, size = place
            assert offset + size <= (sound_run / path).stat().st_size, key
    path, offset, size = told["maps/0.0.0"]
    first = (sound_run / path).read_bytes()[offset : offset + size]
    with h5py.File(sound_run / path) as file:
        assert zlib.decompress(first) == file["maps"][()].tobytes()


def test_what_no_references_can_be_made_of_is_refused(tmp_path: Path) -> None:
    _, nights = whole_and_series(tmp_path)
    with pytest.raises(RunError, match="a series of runs: export --to zarr takes one of them"):
        references(nights, tmp_path / "a")
    run, _, _ = write_run(tmp_path, skip=(1,))
    with pytest.raises(RunError, match=r"not complete: references to its run\.h5 can be made when it is"):
        references(run, tmp_path / "b")
    with pytest.raises(ConfigError, match="--predicted: not an option of zarr, only of"):
        ExportConfig(run, "zarr", tmp_path / "c", predicted="ant")


@pytest.mark.parametrize("chunks", [None, (3, 5, 3, 5), (8, 1, 3, 5)], ids=str)
def test_an_array_in_other_chunks_than_batchcams_is_refused(
    finished_run: Path, tmp_path: Path, chunks: tuple[int, ...] | None
) -> None:
    with edited(finished_run) as file:
        values = file["cams"][()]
        del file["cams"]
        file.create_dataset("cams", data=values, chunks=chunks)
    with pytest.raises(RunError, match=r"shard-0000\d\.h5: cams: stored in other chunks than batchcam's"):
        references(finished_run, tmp_path / "out")
    assert not (tmp_path / "out" / "references.json").exists()
