"""The plan: what a run is, what only shapes its files, and who may write it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import threading
from pathlib import Path

import pytest

from batchcam.errors import BatchcamError, ConfigError, RunError
from batchcam.store import document, landing
from batchcam.store.plan import (
    IDENTITY_FIELDS,
    Plan,
    Shard,
    dataset_fingerprint,
    named_dataset,
    open_plan,
    read_plan,
    require_same,
    write_plan,
)
from tests.helpers.damage import edit_document

CHANGES = {
    "checkpoint_sha256": "e" * 64,
    "dataset_fingerprint": "e" * 64,
    "class_names": ("ant", "bee"),
    "target_layer": "layer3",
    "preprocessing": {"resize": [48, 81]},
    "precision": "bf16",
    "method": "gradcam",
    "control": "head",
    "weights_key": "state_dict_ema",
    "architecture_options": ("transform_input=true",),
    "label_kind": "names",
    "architecture": "resnet50",
    "identity": False,
    "sample_count": 22,
    "sample_id_bytes": 41,
    "batch_size": 5,
    "shard_size": 9,
    "cams": "predicted",
    "maps": "none",
    "channels": 8,
    "grid_size": (3, 6),
    "input_size": (48, 81),
    "schema_version": 1,
    "dataset_code": {"callable": "shelf:Photos"},
    "first_inputs": {"a.png": "00112233aabbccdd"},
    "training_known": True,
    "meta": {"site": 12},
    "problem_type": "multi-label",
    "thresholds": (0.25,) * 5,
    "label_separator": "|",
    "label_columns": {"ant": "Ant"},
    "engine": "openvino",
    "has_offset": True,
    "features": "float16",
}


def test_the_table_of_changes_has_every_field() -> None:
    assert set(CHANGES) == {f.name for f in dataclasses.fields(Plan)}


@pytest.mark.parametrize("field", sorted(CHANGES))
def test_run_id_changes_with_what_a_run_is_and_with_nothing_else(make_plan, field: str) -> None:
    changed = make_plan(**{field: CHANGES[field]})
    assert (changed.run_id != make_plan().run_id) == (field in IDENTITY_FIELDS)


def test_run_id_is_the_digest_of_the_identity_as_json(make_plan) -> None:
    content = make_plan().to_dict()
    fields = (
        "checkpoint_sha256",
        "class_names",
        "control",
        "dataset_fingerprint",
        "method",
        "precision",
        "preprocessing",
    )
    identity = {f: content[f] for f in (*fields, "schema_version", "target_layer")}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert make_plan().run_id == hashlib.sha256(text.encode()).hexdigest()


def test_run_id_depends_on_the_order_of_classes_and_not_on_the_order_of_preprocessing(make_plan) -> None:
    assert make_plan(class_names=("a", "b")).run_id != make_plan(class_names=("b", "a")).run_id
    first, second = {"resize": [1], "mean": [2]}, {"mean": [2], "resize": [1]}
    assert make_plan(preprocessing=first).run_id == make_plan(preprocessing=second).run_id


def test_fingerprint_depends_on_order_ids_labels_and_sizes() -> None:
    ids, labels, sizes = ["a", "b"], [0, 1], [10, 20]
    prints = [
        dataset_fingerprint(ids, labels, sizes),
        dataset_fingerprint(ids[::-1], labels[::-1], sizes[::-1]),
        dataset_fingerprint(["a", "c"], labels, sizes),
        dataset_fingerprint(ids, [0, 2], sizes),
        dataset_fingerprint(ids, [0, -1], sizes),
        dataset_fingerprint(ids, labels, [10, 21]),
        dataset_fingerprint(ids[:1], labels[:1], sizes[:1]),
        dataset_fingerprint([], [], []),
    ]
    assert len(set(prints)) == len(prints)
    assert prints[0] == dataset_fingerprint(iter(ids), iter(labels), iter(sizes))


def test_fingerprint_does_not_confuse_ids_with_numbers() -> None:
    assert dataset_fingerprint(["a\x001"], [2], [3]) != dataset_fingerprint(["a"], [1], [2])


def test_fingerprint_tells_further_columns_from_each_other_and_from_ids() -> None:
    prints = [
        dataset_fingerprint(["a", "b"], [0, 1], [10, 20], meta)
        for meta in ([], [["x", "y"]], [["y", "x"]], [["x", "y"], ["", ""]], [["", ""], ["x", "y"]], [["x\n", "y"]])
    ]
    prints.append(dataset_fingerprint(["a", "\nb"], [0, 1], [10, 20], [["x", "y"]]))
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize(
    "meta",
    [{"b": 1, "a": 1}, {"a/b": 1}, {"": 1}, {".": 1}, {"a": 0}, {"a": 2**17}, {"a": "1"}, {"a\0": 1}],
    ids=["unsorted", "slash", "empty", "dot", "no width", "too wide", "text", "nul"],
)
def test_columns_that_no_file_can_have_are_refused(make_plan, meta: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="meta of the plan"):
        Plan.from_dict({**make_plan().to_dict(), "meta": meta})


def test_a_run_of_schema_1_has_no_further_columns(make_plan) -> None:
    with pytest.raises(ValueError, match="schema 1 has none"):
        Plan.from_dict({**make_plan(schema_version=1).to_dict(), "meta": {"site": 3}})


def test_fingerprint_wants_as_many_labels_as_ids() -> None:
    with pytest.raises(ValueError, match="shorter"):
        dataset_fingerprint(["a", "b"], [0], [1, 2])


@pytest.mark.parametrize(("samples", "size"), [(21, 8), (16, 8), (1, 8), (8, 1), (5, 100)])
def test_shards_hold_every_sample_once_in_order(make_plan, samples: int, size: int) -> None:
    shards = make_plan(sample_count=samples, shard_size=size).shards
    assert [i for s in shards for i in range(s.first, s.first + s.count)] == list(range(samples))
    assert all(s.count <= size for s in shards)
    assert [s.file for s in shards] == [f"shard-{i:05d}.h5" for i in range(len(shards))]


def test_plan_survives_json(make_plan) -> None:
    plan = make_plan()
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@pytest.mark.parametrize("wrong", [None, 0, -1, 1.5, True, "text", [], ["a"], {}, [1, 2], [3, 5, 7], [[]], 2**50])
@pytest.mark.parametrize("field", sorted(CHANGES))
def test_a_field_of_the_wrong_type_or_range_is_refused(make_plan, field: str, wrong: object) -> None:
    accepted = {
        "text": (
            "checkpoint_sha256",
            "dataset_fingerprint",
            "target_layer",
            "architecture",
            "weights_key",
            "label_kind",
        ),
        "True": ("identity", "training_known", "has_offset"),
        "['a']": ("class_names", "architecture_options"),
        "[]": ("architecture_options", "thresholds"),
        "[1, 2]": ("grid_size", "input_size"),
        "{}": ("preprocessing", "dataset_code", "first_inputs", "meta", "label_columns"),
    }
    content = {**make_plan().to_dict(), field: wrong}
    if field in accepted.get(str(wrong), ()):
        Plan.from_dict(content)
        return
    with pytest.raises(ValueError, match=r"plan|schema|cams"):
        Plan.from_dict(content)


@pytest.mark.parametrize("cams", ["topk:0", "topk:6", "topk:", "topk:x", "topk:-1", "some", ""])
def test_a_selection_of_cams_that_is_none_is_refused(make_plan, cams: str) -> None:
    with pytest.raises(ValueError, match="cams"):
        Plan.from_dict({**make_plan().to_dict(), "cams": cams})


@pytest.mark.parametrize("content", [None, [], "plan", 1, {}])
def test_what_is_no_table_of_fields_is_refused(content: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        Plan.from_dict(content)  # type: ignore[arg-type]


def test_plan_of_one_networks_weights_is_written_as_before_there_was_a_choice(make_plan) -> None:
    plan = make_plan()
    assert not {"weights_key", "architecture_options", "label_kind"} & plan.to_dict().keys()
    assert Plan.from_dict(plan.to_dict()) == plan
    chosen = make_plan(weights_key="ema", architecture_options=("transform_input=true",))
    assert Plan.from_dict(chosen.to_dict()) == chosen


def test_missing_and_unknown_fields_are_named(make_plan) -> None:
    content = make_plan().to_dict()
    del content["maps"]
    with pytest.raises(ValueError, match=r"\['colour', 'maps'\]"):
        Plan.from_dict({**content, "colour": "red"})


def test_plan_is_read_as_it_was_written(tmp_path: Path, make_plan) -> None:
    plan = make_plan()
    assert write_plan(tmp_path / "run", plan, {"command": ["batchcam"]}) == plan
    assert read_plan(tmp_path / "run") == plan
    content = json.loads((tmp_path / "run/run.json").read_bytes())
    assert content["run_id"] == plan.run_id
    assert content["origin"] == {"command": ["batchcam"]}
    assert content["shards"] == {"count": 3, "first_file": "shard-00000.h5", "last_file": "shard-00002.h5"}


@pytest.mark.parametrize("field", ["shard_size", "batch_size", "channels"])
def test_a_plan_that_could_not_be_read_is_not_written(tmp_path: Path, make_plan, field: str) -> None:
    with pytest.raises(RunError, match=f"cannot be planned: {field} of the plan"):
        write_plan(tmp_path, make_plan(**{field: 2**40}), {})
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("field", sorted(set(CHANGES) - {"schema_version"}))
def test_another_plan_is_refused_by_the_name_of_the_field(tmp_path: Path, make_plan, field: str) -> None:
    write_plan(tmp_path, make_plan(), {})
    changed = make_plan(**{field: CHANGES[field]})
    advice = "belongs to another run" if field in IDENTITY_FIELDS else "was planned otherwise"
    with pytest.raises(RunError, match=rf"{advice}: {field.replace('_', ' ')} \(.* there, .* here\); ") as raised:
        write_plan(tmp_path, changed, {})
    assert "\n" not in str(raised.value)
    assert read_plan(tmp_path) == make_plan()


def test_the_same_plan_is_accepted_whatever_its_origin(tmp_path: Path, make_plan) -> None:
    write_plan(tmp_path, make_plan(), {"host": "a"})
    before = (tmp_path / "run.json").read_bytes()
    assert write_plan(tmp_path, make_plan(), {"host": "b"}) == make_plan()
    assert (tmp_path / "run.json").read_bytes() == before


def test_tuples_in_the_preprocessing_are_the_same_as_lists(tmp_path: Path, make_plan) -> None:
    plan = make_plan(preprocessing={"resize": (48, 80)})
    write_plan(tmp_path, plan, {})
    write_plan(tmp_path, plan, {})
    require_same(tmp_path, read_plan(tmp_path), plan)


def test_one_of_two_racing_plans_wins_and_the_other_is_refused(tmp_path: Path, make_plan, monkeypatch) -> None:
    plans = [make_plan(target_layer=f"layer{i}") for i in range(4)]
    start, outcomes = threading.Barrier(len(plans)), []
    real = landing.land_first

    def together(path, data):
        start.wait()
        return real(path, data)

    def race(plan: Plan) -> None:
        try:
            outcomes.append(write_plan(tmp_path / "run", plan, {}).target_layer)
        except RunError as error:
            outcomes.append(re.findall(r"layer\d(?= there)", str(error))[0])

    monkeypatch.setattr(landing, "land_first", together)
    threads = [threading.Thread(target=race, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [read_plan(tmp_path / "run").target_layer] * len(plans)


def test_racing_workers_with_the_same_plan_all_go_on(tmp_path: Path, make_plan, monkeypatch) -> None:
    monkeypatch.setattr(landing, "land_first", lambda path, data: bool(landing.land(path, data)))
    assert write_plan(tmp_path / "run", make_plan(), {}) == make_plan()


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": "0" * 64},
        {"shards": []},
        {"shards": None},
        {"shards": [{"file": "../elsewhere.h5", "first": 0, "count": 21}] * 3},
        {"plan": None},
        {"plan": []},
    ],
    ids=str,
)
def test_a_sealed_plan_that_contradicts_itself_is_refused(tmp_path: Path, make_plan, change: dict) -> None:
    write_plan(tmp_path, make_plan(), {})
    edit_document(tmp_path / "run.json", **change)
    with pytest.raises(RunError, match=r"run\.json"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"target_layer": "\udcff"}, {"class_names": ["\ud800", *"bcde"]}, {"preprocessing": {"a": ["\udfff"]}}],
    ids=["target_layer", "class_names", "preprocessing"],
)
def test_half_a_character_which_json_can_spell_is_refused(tmp_path: Path, make_plan, change: dict) -> None:
    write_plan(tmp_path, make_plan(), {})
    edit_document(tmp_path / "run.json", plan={**make_plan().to_dict(), **change})
    with pytest.raises(RunError, match=r"run\.json: a text of the plan is no Unicode text"):
        read_plan(tmp_path)


def test_a_plan_of_very_many_shards_is_refused_before_they_are_listed(tmp_path: Path, make_plan) -> None:
    write_plan(tmp_path, make_plan(), {})
    content = {**make_plan().to_dict(), "sample_count": 2**39, "shard_size": 1}
    edit_document(tmp_path / "run.json", plan=content)
    with pytest.raises(RunError, match="does not follow from the plan"):
        read_plan(tmp_path)


def test_a_plan_of_another_schema_is_refused_by_its_number(tmp_path: Path, make_plan) -> None:
    write_plan(tmp_path, make_plan(), {})
    edit_document(tmp_path / "run.json", plan={**make_plan().to_dict(), "schema_version": 3})
    with pytest.raises(RunError, match="schema 3; this batchcam reads schemas 1 to 2"):
        read_plan(tmp_path)


def test_config_of_a_shard_holds_the_plan_but_for_the_class_names(make_plan) -> None:
    content = json.loads(make_plan().config_text())
    assert content == {k: v for k, v in json.loads(json.dumps(make_plan().to_dict())).items() if k != "class_names"}


def test_other_preprocessing_is_told_by_the_entries_that_differ(tmp_path: Path, make_plan) -> None:
    one = make_plan(preprocessing={"resize": [128], "mean": [0.5] * 3, "std": [0.5] * 3})
    other = make_plan(preprocessing={"std": [0.5] * 3, "mean": [0.5] * 3, "resize": [256]})
    with pytest.raises(RunError, match=r"preprocessing \(resize \[128\] there, \[256\] here\); choose another"):
        require_same(tmp_path, one, other)


def test_a_plan_that_could_not_be_read_again_is_refused_before_it_is_written(tmp_path, make_plan, monkeypatch) -> None:
    monkeypatch.setattr(document, "SIZE_LIMIT", 500)
    with pytest.raises(BatchcamError, match=r"a document of [0-9]+ bytes, where a run's may have 500: not written"):
        write_plan(tmp_path / "run", make_plan(), {})
    with pytest.raises(RunError, match="a sample id of 70000 bytes; at most 65536 can be stored"):
        write_plan(tmp_path / "run", make_plan(sample_id_bytes=70_000), {})
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_million_shards_are_planned_and_read_and_one_more_is_refused(tmp_path: Path, make_plan) -> None:
    plan = make_plan(sample_count=1_999_999, shard_size=2)
    write_plan(tmp_path / "run", plan, {})
    assert (tmp_path / "run/run.json").stat().st_size < 10_000
    shards = read_plan(tmp_path / "run").shards
    assert (len(shards), shards[-1], shards[-1].file) == (10**6, Shard(999_999, 1_999_998, 1), "shard-999999.h5")
    with pytest.raises(ConfigError, match=r"--shard-size 2: makes 1000001 shards, .* at most: say 3 or more"):
        write_plan(tmp_path / "other", make_plan(sample_count=2_000_001, shard_size=2), {})
    assert not (tmp_path / "other/run.json").exists()


def test_shards_of_a_plan_are_a_sequence(make_plan) -> None:
    shards = make_plan(sample_count=21, shard_size=8).shards
    assert list(shards) == [Shard(0, 0, 8), Shard(1, 8, 8), Shard(2, 16, 5)]
    assert shards[1:] == (shards[1], shards[-1])
    assert Shard(2, 16, 5) in shards
    with pytest.raises(IndexError):
        shards[3]


def test_a_table_of_shards_as_earlier_versions_wrote_it_is_read(tmp_path: Path, make_plan) -> None:
    plan = make_plan()
    write_plan(tmp_path, plan, {})
    table = [{"file": s.file, "first": s.first, "count": s.count} for s in plan.shards]
    edit_document(tmp_path / "run.json", shards=table)
    assert read_plan(tmp_path) == plan
    for wrong in (
        table[:2],
        [*table, table[0]],
        [table[0], table[2], table[1]],
        [{**table[0], "count": 9}, *table[1:]],
    ):
        edit_document(tmp_path / "run.json", shards=wrong)
        with pytest.raises(RunError, match="shard table does not follow"):
            read_plan(tmp_path)


def test_a_run_whose_shards_lie_behind_a_link_is_refused(tmp_path, make_plan) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "shards").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="shards: a link; a run holds its files itself"):
        write_plan(tmp_path / "run", make_plan(), {})


def test_the_dataset_is_known_as_it_was_named_where_the_plan_says_so(tmp_path: Path, make_plan) -> None:
    write_plan(tmp_path / "a", make_plan(), {"options": {"data": "photos"}, "folder": "/job"})
    write_plan(tmp_path / "b", make_plan(), {"options": {"data": 3}, "folder": None})
    write_plan(tmp_path / "c", make_plan(), {"options": {}})
    (tmp_path / "a" / "shard-00000.h5").write_bytes(b"")
    named = {name: named_dataset(tmp_path / name) for name in ("a", "b", "c", "a/shard-00000.h5", "gone")}
    assert named == {"a": ("photos", "/job"), **dict.fromkeys(("b", "c", "a/shard-00000.h5", "gone"), (None, ""))}


def test_a_plan_is_opened_or_refused_with_what_is_meant(tmp_path: Path, make_plan) -> None:
    write_plan(tmp_path / "run", make_plan(), {})
    assert open_plan(tmp_path / "run") == make_plan()
    with pytest.raises(RunError, match="a folder of a run: name the folder"):
        open_plan(tmp_path / "run" / "shards")
    with pytest.raises(RunError, match="no such folder"):
        open_plan(tmp_path / "gone")
