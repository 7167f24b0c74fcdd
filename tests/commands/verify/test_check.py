"""verify end to end: each damage gives its finding and no other, in the file and the array where it is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from batchcam.commands.merge import merge
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import RunError
from batchcam.store import landing
from batchcam.store.plan import read_plan, write_plan
from batchcam.store.samples import list_image
from tests.helpers import damage
from tests.helpers.synthetic import ORIGIN, Rows, fingerprinted, land_shards, synthetic_plan, synthetic_rows

FIRST, MIDDLE, RUN_H5 = "shards/shard-00000.h5", damage.MIDDLE, "run.h5"

Expected = set[tuple[str, str, "str | None"]]

OTHER_DATASET = ("dataset", "shards", None)


def schema(array: str | None, file: str = MIDDLE) -> Expected:
    return {("schema", file, array)}


DAMAGES: dict[Callable[[Path], None], Expected] = {
    damage.shard_missing: {("file-missing", MIDDLE, None)},
    damage.shard_and_its_digest_missing: {("file-missing", MIDDLE, None)},
    damage.shard_is_a_link: {("file-missing", MIDDLE, None)},
    damage.shard_truncated: {("size-mismatch", MIDDLE, None)},
    damage.shard_empty: {("size-mismatch", MIDDLE, None)},
    damage.shard_byte_flipped: {("digest-mismatch", MIDDLE, None)},
    damage.digest_file_flipped: {("digest-file-damaged", MIDDLE + ".sha256", None)},
    damage.digest_file_missing: {("digest-file-damaged", MIDDLE + ".sha256", None)},
    damage.digest_of_run_h5_missing: {("digest-file-damaged", "run.h5.sha256", None)},
    damage.extra_file: {("unexpected-file", "shards/notes.txt", None)},
    damage.extra_file_at_the_top: {("unexpected-file", "shard-00000.h5", None)},
    damage.leftover_partial: {("leftover-file", "shards/.shard-00001.h5.0123456789abcdef.partial", None)},
    damage.manifest_missing: {("manifest-missing", "manifest.json", None)},
    damage.manifest_edited: {("manifest-damaged", "manifest.json", None)},
    damage.manifest_of_another_run: {("manifest-damaged", "manifest.json", None)},
    damage.manifest_of_other_shards: {("manifest-damaged", "manifest.json", None)},
    damage.totals_edited: {("totals", "manifest.json", None)},
    damage.findings_of_the_manifest_edited: {("totals", "manifest.json", None)},
    damage.plan_edited: {("plan-damaged", "run.json", None)},
    damage.plan_edited_and_sealed: {("plan-damaged", "run.json", None)},
    damage.task_damaged: {("task-damaged", "task", None)},
    damage.run_h5_flipped: {("digest-mismatch", RUN_H5, None)},
    damage.run_h5_missing: {("file-missing", RUN_H5, None)},
    damage.shards_swapped: {("coverage", FIRST, None), ("coverage", MIDDLE, None)},
    # another class's CAM, so another map with another range
    damage.wrong_prediction: {
        ("prediction", MIDDLE, "prediction"),
        ("map-range", MIDDLE, "map_range"),
        ("map", MIDDLE, "maps"),
    },
    damage.wrong_confidence: {("confidence", MIDDLE, "confidence")},
    # beyond the tolerance, and not the residual that is stored
    damage.wrong_cam_value: {("identity", MIDDLE, "identity_residual"), ("identity", MIDDLE, "cams")},
    damage.wrong_cam_of_the_predicted_class: {("map-range", MIDDLE, "map_range"), ("map", MIDDLE, "maps")},
    damage.wrong_map_pixel: {("map", MIDDLE, "maps")},
    damage.wrong_map_range: {("map-range", MIDDLE, "map_range")},
    damage.wrong_residual: {("identity", MIDDLE, "identity_residual")},
    damage.wrong_logit: {
        ("identity", MIDDLE, "identity_residual"),
        ("identity", MIDDLE, "cams"),
        ("confidence", MIDDLE, "confidence"),
    },
    damage.wrong_flag: {("status", MIDDLE, "status")},
    damage.flag_taken_away: {("status", MIDDLE, "status")},
    damage.unknown_flag: {("status", MIDDLE, "status")},
    damage.flags_that_exclude_each_other: {("status", FIRST, "status")},
    damage.numbers_of_an_unreadable_sample: {("status", FIRST, "logits")},
    damage.map_of_an_unreadable_sample: {("map", FIRST, "maps")},
    damage.sample_twice: {("coverage", MIDDLE, "sample_index")},
    damage.sample_id_twice: {("coverage", "shards", "sample_id"), OTHER_DATASET},
    damage.sample_id_not_text: {("text", MIDDLE, "sample_id"), OTHER_DATASET},
    damage.label_out_of_range: {("label", MIDDLE, "label"), OTHER_DATASET},
    damage.label_below_unknown: {("label", MIDDLE, "label"), OTHER_DATASET},
    damage.label_changed: {OTHER_DATASET},
    damage.sample_ids_swapped: {OTHER_DATASET},
    damage.size_of_an_input_changed: {OTHER_DATASET},
    damage.min_reader_changed: schema(None),
    damage.error_of_a_readable_sample: {("status", FIRST, "error")},
    damage.cam_classes_exchanged: {
        ("cam-class", MIDDLE, "cam_class"),
        ("identity", MIDDLE, "identity_residual"),
        ("identity", MIDDLE, "cams"),
    },
    damage.extra_array: schema("notes"),
    damage.extra_array_of_the_classifier: schema("classifier/scale"),
    damage.array_missing: schema("image_size"),
    damage.scale_missing: schema("cam_y"),
    damage.scale_changed: schema("cam_y"),
    damage.external_link: schema("crop_box"),
    damage.soft_link: schema("crop_box"),
    damage.link_to_the_config: schema("config"),
    damage.array_in_another_file: schema("image_size"),
    damage.virtual_array: schema("image_size"),
    damage.foreign_filter: schema("image_size"),
    damage.wrong_type: schema("image_size"),
    damage.wrong_shape: schema("image_size"),
    damage.class_name_changed: schema("class_name"),
    damage.config_changed: schema("config"),
    damage.attribute_changed: schema(None),
    damage.first_sample_changed: {("coverage", MIDDLE, None)},
    damage.bias_changed: {
        ("classifier", MIDDLE, "classifier"),
        ("identity", MIDDLE, "identity_residual"),
        ("identity", MIDDLE, "cams"),
    },
    damage.weight_changed: {("classifier", MIDDLE, "classifier")},
    damage.column_of_run_h5_changed: schema("logits", RUN_H5),
    damage.text_of_run_h5_changed: schema("sample_id", RUN_H5),
    damage.shard_table_of_run_h5_changed: schema("shards/sha256", RUN_H5),
    damage.class_name_of_run_h5_changed: schema("class_name", RUN_H5),
    damage.weight_of_run_h5_changed: {("classifier", RUN_H5, "classifier/weight")},
    damage.reference_of_run_h5_changed: schema("status", RUN_H5),
    damage.cams_of_run_h5_made_up: schema("cams", RUN_H5),
    damage.array_of_run_h5_missing: schema("label", RUN_H5),
    damage.extra_array_in_run_h5: schema("notes", RUN_H5),
}


@pytest.fixture
def run(finished_run: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return finished_run


@pytest.fixture
def tiny_run(make_run) -> Path:
    """One shard of three samples with maps of a few pixels."""
    return make_run(sample_count=3, shard_size=3, grid_size=(2, 3), input_size=(4, 6))


def found(run: Path) -> Expected:
    """What verify reports, checked for repetitions: kind, file, array."""
    findings = verify(VerifyConfig(run, quiet=True), confine=False).found
    listed = [(f.kind.value, "task" if f.file.startswith("task-") else f.file, f.array) for f in findings]
    assert len(listed) == len(set(listed)), findings
    return set(listed)


def snapshot(run: Path) -> dict[str, tuple[int, int, str]]:
    files = (run, *run.rglob("*"))
    return {
        str(p): (
            p.stat().st_mtime_ns,
            p.stat().st_mode,
            hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "",
        )
        for p in files
    }


@pytest.mark.parametrize("maps", ["uint8", "float32", "none"])
@pytest.mark.parametrize("cams", ["all", "predicted", "predicted+label", "topk:2"])
def test_verify_finds_nothing_in_a_sound_run(make_run, cams: str, maps: str) -> None:
    summary = verify(VerifyConfig(make_run(cams=cams, maps=maps), quiet=True), confine=False)
    assert summary.found == []
    assert (summary.samples, summary.shards) == (21, 3)


@pytest.mark.parametrize("seed", range(5))
def test_verify_finds_nothing_whatever_the_numbers(make_run, seed: int) -> None:
    assert found(make_run(seed=seed + 100)) == set()


def test_verify_finds_nothing_where_no_sample_is_special(make_run) -> None:
    assert found(make_run(sample_count=3, shard_size=2)) == set()


@pytest.mark.parametrize("break_it", DAMAGES, ids=lambda function: function.__name__)
def test_verify_names_the_damage_and_nothing_else(run: Path, break_it: Callable[[Path], None]) -> None:
    break_it(run)
    assert found(run) == DAMAGES[break_it]


def test_every_damage_is_tested() -> None:
    functions = {
        value
        for name, value in vars(damage).items()
        if callable(value) and getattr(value, "__module__", "") == damage.__name__ and not name.startswith("_")
    }
    helpers = {damage.flip, damage.write_digest, damage.edit_document, damage.edited, damage.make_digests_right}
    helpers |= {damage.forget_list, damage.shard_sum}
    assert functions - helpers - {damage.shard_of_another_run} == set(DAMAGES)


def test_making_the_digests_right_after_no_change_leaves_a_sound_run(run: Path) -> None:
    with damage.edited(run):
        pass
    assert found(run) == set()


def test_verify_finds_the_shard_of_another_run(run: Path, make_run) -> None:
    damage.shard_of_another_run(run, make_run("other", checkpoint_sha256="e" * 64))
    assert found(run) == {("other-run", MIDDLE, None)}


def test_verify_finds_swapped_shards_by_their_digests(run: Path) -> None:
    for name in ("", ".sha256"):
        (run / (FIRST + name)).rename(run / "other")
        (run / (MIDDLE + name)).rename(run / (FIRST + name))
        (run / "other").rename(run / (MIDDLE + name))
    files = {file.removesuffix(".sha256") for _, file, _ in found(run)}
    assert files == {FIRST, MIDDLE}


def test_verify_reports_all_damages_together(run: Path) -> None:
    damage.leftover_partial(run)
    damage.run_h5_missing(run)
    damage.shard_truncated(run)
    (run / (FIRST + ".sha256")).unlink()
    assert {kind for kind, _, _ in found(run)} == {
        "leftover-file",
        "file-missing",
        "digest-mismatch",  # the size stands in run.h5
        "digest-file-damaged",
    }


def test_verify_still_compares_run_h5_with_the_other_shards_when_one_is_missing(run: Path) -> None:
    damage.column_of_run_h5_changed(run)
    (run / "shards/shard-00002.h5").unlink()
    assert found(run) == {("schema", RUN_H5, "logits"), ("file-missing", "shards/shard-00002.h5", None)}


def test_verify_tells_how_many_rows_are_wrong_and_which_is_the_first(run: Path) -> None:
    with damage.edited(run) as file:
        file["label"][[2, 5, 6]] = 99
    finding, _ = verify(VerifyConfig(run, quiet=True), confine=False).found
    assert (finding.rows, finding.first_sample) == (3, damage.MIDDLE_FIRST + 2)
    assert "3 rows" in finding.message


def test_verify_of_an_unfinished_run_names_what_is_missing(tmp_path: Path, make_plan, make_rows, make_shards) -> None:
    plan = make_plan()
    make_shards(tmp_path / "run", plan, make_rows(plan), skip=(1,))
    assert found(tmp_path / "run") == {("manifest-missing", "manifest.json", None), ("file-missing", MIDDLE, None)}


def test_verify_without_manifest_goes_by_the_digest_beside_the_shard(run: Path) -> None:
    (run / "manifest.json").unlink()
    damage.shard_byte_flipped(run)
    assert found(run) == {("manifest-missing", "manifest.json", None), ("digest-mismatch", MIDDLE, None)}


def test_verify_without_manifest_and_digest_names_the_digest_once(run: Path) -> None:
    (run / "manifest.json").unlink()
    damage.digest_file_missing(run)
    assert found(run) == {
        ("manifest-missing", "manifest.json", None),
        ("digest-file-damaged", MIDDLE + ".sha256", None),
    }


@pytest.mark.parametrize(
    "break_it", [damage.shard_missing, damage.wrong_confidence, damage.plan_edited], ids=lambda f: f.__name__
)
def test_command_ends_with_3_and_lists_the_findings_as_json(run: Path, run_cli, break_it) -> None:
    break_it(run)
    code, stdout, stderr = run_cli("verify", run, "--json", "--quiet")
    summary = json.loads(stdout.splitlines()[-1])
    assert (code, summary["exit_code"], stderr) == (3, 3, "")
    assert {(f["kind"], f["file"], f["array"]) for f in summary["found"]} == DAMAGES[break_it]
    for kind, file, _ in DAMAGES[break_it]:
        assert any(line.startswith(f"{kind}: {file}") for line in stdout.splitlines())


def test_command_ends_with_0_and_no_findings_for_a_sound_run(run: Path, run_cli) -> None:
    code, stdout, _ = run_cli("verify", run, "--json")
    summary = json.loads(stdout.splitlines()[-1])
    assert (code, summary["exit_code"], summary["found"]) == (0, 0, [])
    assert summary["manifest_sha256"] == hashlib.sha256((run / "manifest.json").read_bytes()).hexdigest()
    assert summary["bytes"] == sum(p.stat().st_size for p in run.rglob("*.h5"))


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("x")])
def test_command_ends_with_1_where_there_is_no_run(tmp_path: Path, run_cli, make) -> None:
    make(tmp_path / "run")
    code, stdout, stderr = run_cli("verify", tmp_path / "run")
    assert (code, stdout, len(stderr.splitlines())) == (1, "", 1)
    assert ("not a run directory" if (tmp_path / "run").exists() else "no such folder") in stderr


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ((1, 2), "file-missing: 2 of 3 shards (00001 to 00002): "),
        ((0, 2), "file-missing: 2 of 3 shards (00000, 00002): "),
        ((0, 1, 2), "file-missing: 3 of 3 shards (00000 to 00002): "),
    ],
)
def test_missing_shards_are_told_in_one_line_and_listed_one_by_one(
    tmp_path: Path, make_plan, make_rows, make_shards, run_cli, lost: tuple[int, ...], told: str
) -> None:
    plan = make_plan()
    make_shards(tmp_path / "run", plan, make_rows(plan), skip=lost)
    code, stdout, _ = run_cli("verify", tmp_path / "run", "--json", "--quiet")
    lines = [line for line in stdout.splitlines() if line.startswith("file-missing")]
    assert (code, lines) == (
        3,
        [told + "the run is not finished, or shards were lost; run explain again"],
    )
    listed = [f["file"] for f in json.loads(stdout.splitlines()[-1])["found"] if f["kind"] == "file-missing"]
    assert listed == [f"shards/shard-{index:05d}.h5" for index in lost]


def test_a_run_that_is_whole_may_hold_unreadable_samples_and_says_how_many(
    tmp_path: Path, run: Path, make_plan, make_rows, make_shards, run_cli
) -> None:
    code, stdout, _ = run_cli("verify", run, "--quiet")
    assert (code, "no findings; 21 samples (1 unreadable, as recorded) in 3 shards" in stdout) == (0, True)
    rows = make_rows(make_plan())
    plan = make_plan(sample_count=3)
    readable = Rows(
        *({k: v[:3] for k, v in part.items()} for part in (rows.columns, rows.texts)), rows.weight, rows.bias
    )
    make_shards(tmp_path / "readable", fingerprinted(plan, readable), readable)
    assert "1 finding; 3 samples in 1 shard," in run_cli("verify", tmp_path / "readable", "--quiet")[1]


def test_verify_escapes_names_that_would_forge_lines(run: Path, run_cli) -> None:
    (run / "shards" / "x\nrun: no findings\x1b[2J").write_text("")
    code, stdout, _ = run_cli("verify", run)
    assert code == 3
    assert "\x1b" not in stdout
    assert not any(line.startswith("run: no findings") for line in stdout.splitlines())


@pytest.mark.parametrize("break_it", [None, damage.shard_truncated, damage.wrong_map_pixel, damage.manifest_missing])
def test_verify_changes_nothing(run: Path, break_it) -> None:
    if break_it:
        break_it(run)
    before = snapshot(run)
    verify(VerifyConfig(run, quiet=True), confine=False)
    assert snapshot(run) == before


def test_verify_works_in_a_read_only_directory(run: Path) -> None:
    paths = [run, *run.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert found(run) == set()
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_verify_does_not_wait_for_a_pipe_in_place_of_a_file(run: Path) -> None:
    for name in ("run.h5", MIDDLE, FIRST + ".sha256", "manifest.json"):
        (run / name).unlink()
        os.mkfifo(run / name)
    os.mkfifo(run / "task-00000-pipe.json")
    assert {kind for kind, _, _ in found(run)} == {
        "file-missing",
        "digest-file-damaged",
        "manifest-damaged",
        "task-damaged",
    }


def test_verify_finds_every_flipped_bit_of_a_shard(tiny_run: Path) -> None:
    shard = tiny_run / FIRST
    sound = shard.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.choice(len(sound), 300, replace=False).tolist():
        shard.write_bytes(sound)
        damage.flip(shard, position, int(rng.integers(8)))
        assert found(tiny_run) == {("digest-mismatch", FIRST, None)}, position


def test_verify_finds_every_truncation_of_a_shard(tiny_run: Path) -> None:
    shard = tiny_run / FIRST
    sound = shard.read_bytes()
    for length in np.linspace(0, len(sound) - 1, 100, dtype=int).tolist():
        shard.write_bytes(sound[:length])
        assert found(tiny_run) == {("size-mismatch", FIRST, None)}, length


def test_verify_survives_flipped_bits_behind_a_right_digest(tiny_run: Path) -> None:
    """What a digest does not protect from must end in findings or in nothing, never in an exception."""
    (tiny_run / "manifest.json").unlink()
    shard = tiny_run / FIRST
    sound = shard.read_bytes()
    rng = np.random.default_rng(1)
    unnoticed = 0
    for position in rng.choice(len(sound), 100, replace=False).tolist():
        shard.write_bytes(sound)
        damage.flip(shard, position, int(rng.integers(8)))
        damage.write_digest(shard)
        unnoticed += found(tiny_run) == {("manifest-missing", "manifest.json", None)}
    assert unnoticed < 50


def test_verify_of_a_damaged_plan_does_not_pass_it_by(run: Path) -> None:
    sound = (run / "run.json").read_bytes()
    for position in range(0, len(sound), 37):
        (run / "run.json").write_bytes(sound)
        damage.flip(run / "run.json", position)
        assert found(run) == {("plan-damaged", "run.json", None)}


def test_verify_raises_when_there_is_no_plan(run: Path) -> None:
    (run / "run.json").unlink()
    with pytest.raises(RunError, match=r"not a run directory: no run\.json"):
        verify(VerifyConfig(run, quiet=True), confine=False)


@pytest.fixture(scope="module")
def _listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its samples.h5."""
    run = tmp_path_factory.mktemp("listed") / "run"
    rows = synthetic_rows(synthetic_plan())
    plan = fingerprinted(synthetic_plan(), rows)
    image = list_image(plan, listed_columns(rows))
    write_plan(run, plan, ORIGIN, image)
    landing.take_up(run / "samples.h5", hashlib.sha256(image).hexdigest())
    land_shards(run, plan, rows)
    merge(run)
    return run


@pytest.fixture
def listed(_listed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_listed, tmp_path / "run"))


def listed_columns(rows: Rows) -> dict[str, Any]:
    return {"sample_id": rows.texts["sample_id"], **{name: rows.columns[name] for name in ("label", "input_bytes")}}


def relist(run: Path, image: bytes) -> None:
    """Make samples.h5 anew, with digests that are right."""
    (run / "samples.h5").write_bytes(image)
    for document in ("run.json", "manifest.json"):
        record = json.loads((run / document).read_bytes())["samples"]
        record.update(bytes=len(image), sha256=hashlib.sha256(image).hexdigest())
        damage.edit_document(run / document, samples=record)
    damage.edit_document(run / "run.json", sample_blocks={"bytes": len(image), "sha256": [record["sha256"]]})


def list_gone(run: Path) -> None:
    (run / "samples.h5").unlink()


def list_is_a_link(run: Path) -> None:
    (run / "samples.h5").rename(run.with_name("elsewhere.h5"))
    (run / "samples.h5").symlink_to(run.with_name("elsewhere.h5"))


def list_flipped(run: Path) -> None:
    damage.flip(run / "samples.h5", 3000)


def list_cut(run: Path) -> None:
    (run / "samples.h5").write_bytes((run / "samples.h5").read_bytes()[:-1])


def list_of_another_dataset(run: Path) -> None:
    rows = synthetic_rows(synthetic_plan(), seed=1)
    relist(run, list_image(read_plan(run), listed_columns(rows)))


def list_that_keeps_its_labels_elsewhere(run: Path) -> None:
    with h5py.File(run / "samples.h5", "r+") as file:
        del file["label"]
        file["label"] = h5py.ExternalLink("run.h5", "/label")
    relist(run, (run / "samples.h5").read_bytes())


def list_with_more(run: Path) -> None:
    with h5py.File(run / "samples.h5", "r+") as file:
        file["notes"] = [1, 2]
    relist(run, (run / "samples.h5").read_bytes())


def plan_that_does_not_tell_of_it(run: Path) -> None:
    damage.edit_document(run / "run.json", samples=None)


def plan_that_tells_a_path(run: Path) -> None:
    record = json.loads((run / "run.json").read_bytes())["samples"]
    damage.edit_document(run / "run.json", samples={**record, "sha256": "/" * 64})


def plan_that_tells_of_another_part(run: Path) -> None:
    damage.edit_document(run / "run.json", sample_blocks={"bytes": 2**20, "sha256": ["0" * 64]})


def manifest_that_tells_of_another(run: Path) -> None:
    record = json.loads((run / "manifest.json").read_bytes())["samples"]
    damage.edit_document(run / "manifest.json", samples={**record, "sha256": "0" * 64})


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (list_gone, {("file-missing", "samples.h5", None)}),
        (list_is_a_link, {("file-missing", "samples.h5", None)}),
        (list_flipped, {("digest-mismatch", "samples.h5", None)}),
        (list_cut, {("size-mismatch", "samples.h5", None)}),
        (list_of_another_dataset, {("dataset", "samples.h5", None)}),
        (list_that_keeps_its_labels_elsewhere, {("schema", "samples.h5", "label")}),
        (list_with_more, {("schema", "samples.h5", "notes")}),
        (
            plan_that_does_not_tell_of_it,
            {("unexpected-file", "samples.h5", None), ("manifest-damaged", "manifest.json", None)},
        ),
        (plan_that_tells_a_path, {("plan-damaged", "run.json", None)}),
        (plan_that_tells_of_another_part, {("plan-damaged", "run.json", None)}),
        (manifest_that_tells_of_another, {("manifest-damaged", "manifest.json", None)}),
    ],
)
def test_verify_names_the_damage_of_the_list(
    listed: Path, break_it: Callable[[Path], None], expected: Expected
) -> None:
    assert found(listed) == set()
    break_it(listed)
    assert found(listed) == expected


def test_rows_that_are_not_those_of_the_list_are_told_by_array(listed: Path) -> None:
    with damage.edited(listed) as file:
        file["label"][2] = 0 if file["label"][2] else 1
    assert found(listed) == {OTHER_DATASET, ("dataset", "samples.h5", "label")}
