"""The in-toto statement names each file of a run with its digest, and says how they were made, as its rules want it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from batchcam.commands.export.config import ExportConfig
from batchcam.commands.export.export import export
from batchcam.errors import ConfigError, RunError
from tests.helpers.damage import edit_document
from tests.helpers.series import whole_and_series
from tests.helpers.synthetic import land_shards, synthetic_plan, synthetic_rows

TASKS = [
    {"task": "0/1", "user": "eve", "host": "node7", "versions": {"batchcam": "1.2.dev3+g0123abc", "engine": None}},
]


def statement(run: Path, out: Path) -> dict[str, Any]:
    export(ExportConfig(run, "intoto", out, quiet=True))
    return dict(json.loads((out / "statement.json").read_bytes()))


def test_its_subjects_are_the_files_that_sha256sum_would_list(sound_run: Path, tmp_path: Path) -> None:
    found = {each["name"]: each["digest"] for each in statement(sound_run, tmp_path / "out")["subject"]}
    names = ["manifest.json", "run.h5", *(f"shards/{path.name}" for path in sound_run.glob("shards/*.h5"))]
    assert found == {name: {"sha256": hashlib.sha256((sound_run / name).read_bytes()).hexdigest()} for name in names}


def test_it_says_from_what_how_by_whom_and_when(finished_run: Path, tmp_path: Path) -> None:
    made = json.loads((finished_run / "manifest.json").read_bytes())["made"]
    edit_document(finished_run / "manifest.json", tasks=TASKS)
    predicate = statement(finished_run, tmp_path / "out")["predicate"]
    plan = json.loads((finished_run / "run.json").read_bytes())
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    assert definition["internalParameters"]["plan"] == plan["plan"]
    assert definition["internalParameters"]["tasks"] == TASKS
    assert definition["externalParameters"] == {name: plan["origin"][name] for name in ("command", "options")}
    checkpoint, dataset = definition["resolvedDependencies"]
    assert checkpoint == {"name": "checkpoint", "digest": {"sha256": "c" * 64}}
    assert dataset["digest"] == {"batchcamDatasetFingerprint": plan["plan"]["dataset_fingerprint"]}
    times = {"startedOn": plan["origin"]["created"], "finishedOn": made["when"]}
    assert details["metadata"] == {"invocationId": plan["run_id"], **times}
    assert details["builder"]["version"] == {"batchcam": "1.2.dev3+g0123abc"}
    assert (
        details["byproducts"][0]["digest"]["sha256"]
        == hashlib.sha256((finished_run / "run.json").read_bytes()).hexdigest()
    )


def test_it_keeps_the_rules_of_statement_and_provenance(finished_run: Path, tmp_path: Path) -> None:
    """MUST of spec/v1/statement.md, resource_descriptor.md, digest_set.md, and of SLSA's provenance, by hand."""
    edit_document(finished_run / "manifest.json", tasks=TASKS)
    content = statement(finished_run, tmp_path / "out")
    assert content.keys() == {"_type", "subject", "predicateType", "predicate"}
    assert content["_type"] == "https://in-toto.io/Statement/v1"
    assert content["predicateType"] == "https://slsa.dev/provenance/v1"
    definition, details = content["predicate"]["buildDefinition"], content["predicate"]["runDetails"]
    for uri in (definition["buildType"], details["builder"]["id"]):
        assert re.fullmatch(r"https://\S+", uri)
    assert isinstance(definition["externalParameters"], dict)
    for resource in (*content["subject"], *definition["resolvedDependencies"], *details["byproducts"]):
        assert resource.keys() <= {"name", "uri", "digest", "content", "downloadLocation", "mediaType", "annotations"}
        assert resource["digest"]
        assert all(re.fullmatch("[0-9a-f]{64}", value) for value in resource["digest"].values())
    names = [subject["name"] for subject in content["subject"]]
    assert len(set(names)) == len(names)
    for time in (details["metadata"]["startedOn"], details["metadata"]["finishedOn"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time)
    assert all(isinstance(text, str) for text in details["builder"]["version"].values())


def test_in_totos_own_code_takes_it_field_by_field(finished_run: Path, tmp_path: Path) -> None:
    statements = pytest.importorskip("in_toto_attestation.v1.statement")
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2

    edit_document(finished_run / "manifest.json", tasks=TASKS)
    content = statement(finished_run, tmp_path / "out")
    parsed = json_format.ParseDict(content, statement_pb2.Statement())  # refuses a field that it does not know
    statements.Statement.copy_from_pb(parsed).validate()
    json_format.ParseDict(content["predicate"], provenance_pb2.Provenance())
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict({**content["predicate"], "more": 1}, provenance_pb2.Provenance())


def test_times_that_are_none_are_left_out(finished_run: Path, tmp_path: Path) -> None:
    edit_document(finished_run / "manifest.json", made={"when": "<yesterday>"})
    metadata = statement(finished_run, tmp_path / "out")["predicate"]["runDetails"]["metadata"]
    assert metadata.keys() == {"invocationId", "startedOn"}


def test_a_network_in_memory_has_no_file_to_be_digested(make_run: Any, tmp_path: Path) -> None:
    run = make_run(architecture="in memory: tests.Network")
    checkpoint, _ = statement(run, tmp_path / "out")["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert checkpoint["digest"].keys() == {"batchcamStateDict"}


def test_what_is_not_one_complete_run_is_refused(sound_run: Path, finished_run: Path, tmp_path: Path) -> None:
    plan = synthetic_plan()
    land_shards(tmp_path / "unfinished", plan, synthetic_rows(plan), skip=(1,))
    (finished_run / "shards/shard-00001.h5").unlink()
    (tmp_path / "nights").mkdir()
    series = whole_and_series(tmp_path / "nights")[1]
    runs = tmp_path / "unfinished", sound_run / "shards/shard-00001.h5", finished_run, series
    for number, run in enumerate(runs):
        with pytest.raises(RunError, match="--to intoto states a complete run"):
            export(ExportConfig(run, "intoto", tmp_path / f"out{number}", partial=True, quiet=True))


def test_shards_that_are_not_the_manifests_are_refused(finished_run: Path, tmp_path: Path) -> None:
    edit_document(finished_run / "manifest.json", shards={"count": 3, "bytes": 1, "sha256": "0" * 64})
    with pytest.raises(RunError, match="its table of shards is not the manifest's; see batchcam verify"):
        export(ExportConfig(finished_run, "intoto", tmp_path / "out", quiet=True))


def test_a_statement_is_of_all_samples(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--predicted: not an option of intoto"):
        ExportConfig(tmp_path / "run", "intoto", tmp_path / "out", predicted="ant")
