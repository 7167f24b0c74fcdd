"""info tells what a run is, finished or in progress."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from batchcam.commands.info.info import info
from batchcam.commands.info.watch import Watcher
from batchcam.errors import RunError
from batchcam.store.manifest import task_file, write_task
from tests.helpers import damage
from tests.helpers.outputs import run_json


def test_info_of_a_finished_run_is_what_the_manifest_says(sound_run: Path) -> None:
    about = info(sound_run)
    manifest = json.loads((sound_run / "manifest.json").read_bytes())
    assert about.complete
    assert (about.shards_landed, about.shards, about.run_id) == (3, 3, manifest["run_id"])
    assert about.totals == manifest["totals"]
    assert sum(score.correct for score in about.classes) == manifest["totals"]["correct"]
    assert sum(score.labelled for score in about.classes) == manifest["totals"]["labelled"]
    assert [t["outcome"] for t in about.tasks] == ["done"]
    assert about.notes == []


@pytest.mark.parametrize(
    ("break_it", "lost"),
    [
        (damage.shard_missing, 1), (damage.shard_and_its_digest_missing, 1), (damage.digest_file_missing, 1),
        (damage.shard_truncated, 1), (damage.shard_empty, 1),
    ],
)  # fmt: skip
def test_a_run_that_lost_a_shard_is_not_complete(finished_run: Path, run_cli, break_it, lost: int) -> None:
    break_it(finished_run)
    about = info(finished_run)
    assert (about.complete, about.lost_shards, about.totals["samples"]) == (False, lost, 21)
    stdout = run_cli("info", finished_run)[1]
    assert "(NOT complete any more: 1 of 3 shards are gone or cut short)" in stdout
    assert "numbers are of all 21 samples, as run.h5 has them; see batchcam verify" in stdout
    assert not Watcher(finished_run).look().complete or break_it in (
        damage.shard_truncated, damage.shard_empty,
    )  # fmt: skip


def test_labelled_samples_without_a_prediction_are_counted_by_class(sound_run: Path, run_cli) -> None:
    label, prediction = (np.concatenate(list(column)) for column in zip(*_labels(sound_run), strict=True))
    left_out = [int(((label == k) & (prediction < 0)).sum()) for k in range(5)]
    assert [score.left_out for score in info(sound_run).classes] == left_out
    assert sum(left_out) == 2
    stdout = run_cli("info", sound_run)[1]
    assert "labelled  predicted  left out" in stdout
    assert re.search(r"n 18; ± 0.01 needs n \d+\), 3 of 21 samples without label or prediction", stdout)


def _labels(run: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    pairs = []
    for path in sorted((run / "shards").glob("*.h5")):
        with h5py.File(path) as file:
            pairs.append((file["label"][...], file["prediction"][...]))
    return pairs


def test_info_of_a_run_in_progress_counts_what_has_landed(tmp_path: Path, make_plan, make_rows, make_shards) -> None:
    plan = make_plan()
    rows = make_rows(plan)
    make_shards(tmp_path, plan, rows, skip=(0,))
    about = info(tmp_path)
    assert not about.complete
    assert (about.shards_landed, about.shards, about.totals["samples"]) == (2, 3, 13)
    label, prediction = rows.columns["label"][8:], rows.columns["prediction"][8:]
    assert about.totals["correct"] == int(((label == prediction) & (label >= 0)).sum())


def test_info_of_a_run_that_has_only_its_plan_shows_zero_samples(
    tmp_path: Path, make_plan, make_rows, make_shards, run_cli
) -> None:
    plan = make_plan()
    make_shards(tmp_path, plan, make_rows(plan), skip=(0, 1, 2))
    about = info(tmp_path)
    assert (about.shards_landed, about.totals["samples"], about.totals["accuracy"]) == (0, 0, None)
    code, stdout, stderr = run_cli("info", tmp_path)
    assert (code, stderr) == (0, "")
    assert "0 of 3 shards so far" in stdout


def test_command_tells_checkpoint_dataset_network_and_classes(sound_run: Path, run_cli) -> None:
    code, stdout, stderr = run_cli("info", sound_run, "--json")
    assert (code, stderr) == (0, "")
    for text in ("(complete)", "weights/modèle.pth", "c" * 64, "photos", "resnet18, layer4", "Käfer", "1 unreadable"):
        assert text in stdout
    assert json.loads(stdout.splitlines()[-1])["exit_code"] == 0


def test_without_labels_predictions_are_counted_and_the_most_frequent_class_comes_first(
    tmp_path: Path, make_plan, make_rows, make_shards, run_cli
) -> None:
    plan = make_plan()
    rows = make_rows(plan)
    rows.columns["label"][:] = -1
    make_shards(tmp_path, plan, rows)
    predictions = rows.columns["prediction"].tolist()
    for _ in ("in progress", "complete"):
        code, stdout, _ = run_cli("info", tmp_path, "--json")
        assert code == 0
        assert {c["name"]: c["predicted"] for c in json.loads(stdout.splitlines()[-1])["classes"]} == {
            name: predictions.count(index) for index, name in enumerate(plan.class_names)
        }
        table = stdout.partition("predicted\n")[2].splitlines()[: len(plan.class_names)]
        counts = [int(line.split()[-1]) for line in table]
        assert counts == sorted(counts, reverse=True)
        assert sum(counts) == sum(p >= 0 for p in predictions) > 0
        assert "samples     21; no labels; " in stdout
        merged = run_cli("merge", tmp_path)[1]
    assert "bytes each; no labels; " in merged


def test_tasks_on_different_machines_are_a_note(finished_run: Path) -> None:
    write_task(finished_run, task_file(1), {"task": "1/2", "started": "b", "outcome": "done", "device": "cuda H100"})
    (finished_run / "manifest.json").unlink()
    assert any("device" in note for note in info(finished_run).notes)


def test_tasks_that_stopped_early_are_a_note(finished_run: Path) -> None:
    write_task(finished_run, task_file(1), {"task": "1/2", "started": "b", "outcome": "stopped early"})
    (finished_run / "manifest.json").unlink()
    assert any("stopped early" in note for note in info(finished_run).notes)


@pytest.mark.parametrize("break_it", [damage.manifest_edited, damage.plan_edited], ids=lambda f: f.__name__)
def test_info_refuses_a_damaged_document(finished_run: Path, break_it, run_cli) -> None:
    break_it(finished_run)
    with pytest.raises(RunError, match="changed after it was written"):
        info(finished_run)
    assert run_cli("info", finished_run)[0] == 1


def test_info_of_a_folder_without_a_plan_says_so(tmp_path: Path, run_cli) -> None:
    code, stdout, stderr = run_cli("info", tmp_path)
    assert (code, stdout) == (1, "")
    assert "not a run directory" in stderr


def test_info_tells_where_a_tasks_time_went(finished_run: Path) -> None:
    (finished_run / "manifest.json").unlink()  # a run in progress: its tasks' records are read
    spent = {"seconds_explaining": 8.0, "seconds_waiting_for_images": 1.5, "seconds_storing": 0.25}
    write_task(finished_run, task_file(0), {"task": "0/1", "started": "a", "seconds": 10.0, "samples": 21, **spent})
    said = run_json("info", finished_run).out
    assert "21 samples in 10.0 s (80% explaining, 15% waiting for images, 2% storing)" in said


def test_info_does_not_open_what_a_link_in_place_of_run_h5_leads_to(finished_run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.h5"
    (finished_run / "run.h5").rename(elsewhere)
    (finished_run / "run.h5").symlink_to(elsewhere)
    with pytest.raises(RunError, match=r"run\.h5: gone, or a link"):
        info(finished_run)
