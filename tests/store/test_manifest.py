"""The manifest states what landed, and is refused where it does not belong to the plan."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
import os
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

from batchcam import __version__
from batchcam.commands.merge import merge
from batchcam.errors import RunError
from batchcam.store import landing
from batchcam.store import manifest as manifest_module
from batchcam.store.manifest import ShardSum, read_manifest, read_tasks, task_file, write_manifest, write_task
from batchcam.store.opening import open_run
from batchcam.store.plan import read_plan
from batchcam.store.shard_table import table_beside
from tests.helpers import damage
from tests.helpers.damage import edit_document


def content_of(run: Path) -> dict:
    return json.loads((run / "manifest.json").read_bytes())


def test_manifest_states_bytes_and_digest_of_every_file(sound_run: Path) -> None:
    content = content_of(sound_run)
    master = sound_run / "run.h5"
    digest = hashlib.sha256(master.read_bytes()).hexdigest()
    stated = {"file": "run.h5", "first": 0, "count": 21, "bytes": master.stat().st_size, "sha256": digest}
    assert content["master"] == stated
    # what docs/record.md tells an auditor to type
    words = "printf '%s\\0' *.sha256 | sort -zV | xargs -0 cat | tee lines | sha256sum; sha256sum -c --quiet lines"
    folder = sound_run / "shards"
    typed = subprocess.run(["sh", "-c", words.replace("lines", "../../lines")], cwd=folder, capture_output=True)
    assert (typed.returncode, typed.stdout.split()[0].decode()) == (0, content["shards"]["sha256"])
    sizes = (path.stat().st_size for path in folder.glob("*.h5"))
    assert (content["shards"]["count"], content["shards"]["bytes"]) == (3, sum(sizes))


def test_a_list_of_shards_as_earlier_versions_wrote_it_says_the_same(finished_run: Path, run_cli) -> None:
    plan = read_plan(finished_run)
    manifest = read_manifest(finished_run, plan)
    table = table_beside(finished_run, plan)
    assert table is not None
    edit_document(finished_run / "manifest.json", shards=[vars(table.record(shard)) for shard in plan.shards])
    assert read_manifest(finished_run, plan) == manifest
    assert run_cli("verify", finished_run)[0] == 0
    with open_run(finished_run) as run:
        assert run.cams[:].size


def test_the_manifest_of_many_shards_does_not_list_which_task_made_which(finished_run: Path, monkeypatch) -> None:
    monkeypatch.setattr(manifest_module, "LISTED_TASKS", 2)
    manifest = read_manifest(finished_run, read_plan(finished_run))
    tasks = [{"task": "0/1", "shards": ["shard-00000.h5"]}]
    write_manifest(finished_run, dataclasses.replace(manifest, tasks=tasks))
    assert content_of(finished_run)["tasks"] == [{"task": "0/1"}]


def test_totals_are_those_of_the_rows(sound_run: Path) -> None:
    with h5py.File(sound_run / "run.h5") as file:
        labels, predictions = file["label"][...].tolist(), file["prediction"][...].tolist()
        residuals = file["identity_residual"][...]
    known = [(label, p) for label, p in zip(labels, predictions, strict=True) if label >= 0 and p >= 0]
    correct = sum(label == p for label, p in known)
    totals = content_of(sound_run)["totals"]
    assert totals == {
        "samples": 21,
        "labelled": len(known),
        "correct": correct,
        "accuracy": correct / len(known),
        "status": totals["status"],
        "largest_identity_residual": float(np.nanmax(residuals)),
    }
    assert len(known) == 21 - 3  # an unreadable, a non-finite and an unlabelled sample
    assert totals["status"]["unreadable"] == 1
    assert totals["status"]["non finite"] == 1
    assert totals["status"]["constant map"] == 1
    assert totals["status"]["no positive evidence"] >= 1


def test_findings_are_the_samples_that_need_a_look(sound_run: Path) -> None:
    assert content_of(sound_run)["findings"] == [
        {"kind": "unreadable", "count": 1},
        {"kind": "non finite", "count": 1},
    ]


def test_manifest_tells_versions_tasks_and_who_made_it(sound_run: Path) -> None:
    content = content_of(sound_run)
    assert (content["schema_version"], content["batchcam_version"]) == (2, __version__)
    assert content["run_id"] == read_plan(sound_run).run_id
    assert [t["task"] for t in content["tasks"]] == ["0/1"]
    assert {"when", "host", "user"} <= set(content["made"])


def test_manifest_lands_last(finished_run: Path, monkeypatch) -> None:
    (finished_run / "manifest.json").unlink()
    landed = []
    real = os.replace
    monkeypatch.setattr(landing.os, "replace", lambda source, path: (landed.append(path.name), real(source, path)))
    merge(finished_run)
    assert [*landed[:2], *landed[3:]] == ["run.h5.sha256", "run.h5", "manifest.json"]
    assert fnmatch.fnmatch(landed[2], "task-merge-*.json")  # what it has proven of a copy


def test_manifest_survives_reading(sound_run: Path) -> None:
    manifest = read_manifest(sound_run, read_plan(sound_run))
    assert manifest.shards == ShardSum(**damage.shard_sum(sorted((sound_run / "shards").glob("*.h5"))))
    assert manifest.totals == content_of(sound_run)["totals"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run_id": "0" * 64}, "belongs to run 000000000000"),
        ({"run_id": 7}, "run_id is missing or of the wrong type"),
        ({"run_id": None}, "run_id is missing or of the wrong type"),
        ({"schema_version": 1}, r"schema 1; run\.json says 2"),
        ({"shards": []}, r"not those of run\.json"),
        ({"shards": None}, "not a manifest"),
        ({"shards": [1]}, "not a manifest"),
        ({"shards": [{"file": "x"}]}, "not a manifest"),
        ({"master": None}, "not a manifest"),
        ({"totals": 1}, "not a manifest"),
        ({"tasks": 1}, "not a manifest"),
    ],
    ids=str,
)
def test_a_sealed_manifest_that_is_not_the_plans_is_refused(finished_run: Path, changes: dict, message: str) -> None:
    edit_document(finished_run / "manifest.json", **changes)
    with pytest.raises(RunError, match=rf"manifest\.json: .*{message}"):
        read_manifest(finished_run, read_plan(finished_run))


@pytest.mark.parametrize("field", ["a\nb", "\x1b[31m", "\U000fd953", "\u202e"])
def test_a_record_with_more_fields_is_refused_in_one_printable_line(finished_run: Path, field: str) -> None:
    edit_document(finished_run / "manifest.json", master={**content_of(finished_run)["master"], field: 1})
    with pytest.raises(RunError, match="not a manifest of this version") as raised:
        read_manifest(finished_run, read_plan(finished_run))
    assert str(raised.value).isprintable()


def test_an_absent_manifest_is_told_apart_from_a_damaged_one(finished_run: Path) -> None:
    (finished_run / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError):
        read_manifest(finished_run, read_plan(finished_run))


def test_tasks_are_read_by_their_start_and_each_has_its_own_file(tmp_path: Path) -> None:
    for number, started in ((0, "2026-01-01T02:00:00Z"), (0, "2026-01-01T01:00:00Z"), (1, "2026-01-01T03:00:00Z")):
        write_task(tmp_path, task_file(number), {"task": f"{number}/2", "started": started})
    assert [t["started"][12] for t in read_tasks(tmp_path)] == ["1", "2", "3"]
    assert len(list(tmp_path.glob("task-0000[01]-*.json"))) == 3


def test_damaged_task_records_are_left_out(tmp_path: Path) -> None:
    write_task(tmp_path, task_file(0), {"started": "a"})
    (tmp_path / "task-00001-damaged.json").write_text("{")
    (tmp_path / "task-00002-folder.json").mkdir()
    assert read_tasks(tmp_path) == [{"started": "a"}]
