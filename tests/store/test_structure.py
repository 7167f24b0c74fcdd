"""The structure of honest files passes, whatever is in them; test_hostile_runs.py has those that must not."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from batchcam.errors import RunError
from batchcam.store import structure
from batchcam.store.layout import create
from batchcam.store.plan import read_plan
from batchcam.store.schema import sample_arrays


@pytest.mark.parametrize("maps", ["uint8", "float32", "none"])
@pytest.mark.parametrize("cams", ["all", "predicted", "predicted+label", "topk:2"])
def test_every_choice_of_what_is_stored_passes(make_run, cams: str, maps: str) -> None:
    run = make_run(cams=cams, maps=maps)
    plan = read_plan(run)
    for shard in plan.shards:
        with h5py.File(run / "shards" / shard.file) as file:
            structure.require(file, plan, shard, Path("shard"))
    with h5py.File(run / "run.h5") as file:
        structure.require(file, plan, None, Path("run.h5"))


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_count": 1, "shard_size": 1},
        {"sample_count": 3, "shard_size": 1000},
        {"grid_size": (1, 1), "input_size": (1, 1)},
        {"class_names": tuple(f"class {i} " + "x" * 3000 for i in range(300)), "channels": 300, "sample_count": 2},
        {"class_names": ("one", "two"), "sample_id_bytes": 4096},
    ],
    ids=["one-sample", "one-shard", "one-pixel", "many-classes", "long-ids"],
)
def test_extreme_sizes_pass(make_plan, make_rows, make_shards, tmp_path: Path, changes) -> None:
    plan = make_plan(**changes)
    make_shards(tmp_path / "run", plan, make_rows(plan))
    with h5py.File(tmp_path / "run/shards/shard-00000.h5") as file:
        structure.require(file, plan, plan.shards[0], Path("shard"))


def test_content_that_deflates_as_far_as_it_can_passes(make_plan, make_rows, make_image, tmp_path: Path) -> None:
    """Maps of unreadable samples are zeros: a thousandfold smaller, which is all that deflate can do."""
    plan = make_plan(sample_count=40, shard_size=40, input_size=(1024, 1024), cams="predicted")
    rows = make_rows(plan)
    rows.columns["maps"][:] = 0
    path = tmp_path / "shard.h5"
    path.write_bytes(make_image(plan, plan.shards[0], rows))
    assert path.stat().st_size < 40 * 1024 * 1024 / 300
    with h5py.File(path) as file:
        structure.require(file, plan, plan.shards[0], path)


def test_the_file_of_other_samples_is_refused(sound_run: Path) -> None:
    plan = read_plan(sound_run)
    with (
        h5py.File(sound_run / "shards/shard-00000.h5") as file,
        pytest.raises(RunError, match="x: not this run's file of samples 8 to 15; see batchcam verify"),
    ):
        structure.require(file, plan, plan.shards[1], Path("x"))


def test_the_file_of_another_run_is_refused(sound_run: Path, make_run) -> None:
    plan = read_plan(make_run("other", checkpoint_sha256="e" * 64))
    with (
        h5py.File(sound_run / "shards/shard-00000.h5") as file,
        pytest.raises(RunError, match="x: belongs to another run"),
    ):
        structure.require(file, plan, plan.shards[0], Path("x"))


@pytest.mark.parametrize("array", [a.name for a in sample_arrays("uint8")])
def test_each_array_is_missed(finished_run: Path, array: str) -> None:
    plan = read_plan(finished_run)
    with h5py.File(finished_run / "shards/shard-00001.h5", "r+") as file:
        del file[array]
        assert list(structure.problems(file, plan, plan.shards[1])) == [(array, structure.ELSEWHERE)]


def test_arrays_that_were_never_written_are_too_large_for_their_file(finished_run: Path) -> None:
    plan = read_plan(finished_run)
    larger = dataclasses.replace(plan, grid_size=(300, 500))
    (cams,) = [a for a in sample_arrays("uint8") if a.name == "cams"]
    path = finished_run / "shards/shard-00001.h5"
    with h5py.File(path, "r+") as file:
        del file["cams"], file["cam_y"], file["cam_x"]
        for name, length in (("cam_y", 300), ("cam_x", 500)):
            file[name] = np.zeros(length, "f4")
            file[name].make_scale(name)
        create(file, cams, (8, 5, 300, 500))
    with h5py.File(path) as file:
        ((array, problem),) = structure.problems(file, larger, plan.shards[1])
    assert array == "cams"
    assert "of which the file can hold" in problem


def test_a_look_at_the_structure_takes_milliseconds(sound_run: Path) -> None:
    plan = read_plan(sound_run)
    times = []
    for _ in range(20):
        with h5py.File(sound_run / "shards/shard-00000.h5") as file:
            start = time.process_time()
            structure.require(file, plan, plan.shards[0], Path("x"))
            times.append(time.process_time() - start)
    assert min(times) < 0.01
