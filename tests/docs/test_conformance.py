"""docs/format and docs/conformance: JSON Schemas, and runs on which batchcam and a verifier of other code agree."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.store.document import DIGEST_KEY
from batchcam.store.plan import Plan
from docs.make import conformance, format
from tests.helpers import unpack
from tests.helpers.damage import edit_document
from tests.helpers.synthetic import synthetic_plan
from tests.store.test_plan import CHANGES

VERDICTS = json.loads(conformance.VERDICTS.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conformance")
    unpack(conformance.ARCHIVE, folder)
    return folder


@pytest.fixture(scope="module")
def second_opinion() -> ModuleType:
    """docs/conformance/validate.py, which is no part of a package."""
    pytest.importorskip("jsonschema")
    spec = importlib.util.spec_from_file_location("validate", conformance.FOLDER / "validate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_21_sound_and_40_broken_runs(runs: Path) -> None:
    assert [each["valid"] for each in VERDICTS] == [True] * 21 + [False] * 40
    assert {each["run"] for each in VERDICTS} == {path.name for path in runs.iterdir()}


def test_the_verdicts_and_their_page_are_those_of_the_maker() -> None:
    told = "run `python -m docs.make.conformance`"
    assert conformance.verdicts() == VERDICTS, told
    (shown,) = conformance.MARKED.findall(conformance.PAGE.read_text(encoding="utf-8"))
    assert shown == conformance.table(), told


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: verdict["run"])
def test_verify_and_the_second_opinion_agree_with_the_verdict(
    runs: Path, second_opinion: ModuleType, verdict: dict[str, Any]
) -> None:
    run = runs / verdict["run"]
    found = verify(VerifyConfig(run, quiet=True), confine=False).found
    assert sorted({finding.kind.value for finding in found}) == verdict["kinds"]
    assert (second_opinion.problem(run) == "") == verdict["valid"]


def test_the_maker_gives_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        conformance.make_run(tmp_path / name / "run", conformance.SOUND["meta"])
    assert conformance.pack(tmp_path / "one") == conformance.pack(tmp_path / "two")


# --- docs/format


@pytest.mark.parametrize("name", format.files())
def test_a_file_of_the_format_is_what_the_code_says(name: str) -> None:
    assert (format.FOLDER / name).read_text(encoding="utf-8") == format.files()[name], (
        "run `python -m docs.make.format`"
    )


def validator(name: str) -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((format.FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


WRONG = [None, 0, -1, 1.5, True, "text", [], ["a"], {}, [1, 2], [3, 5, 7], [[]], 2**50, {"a": 1}, [0.5, 2.0]]
TOGETHER = {("label_separator", "text")}
"""What the schema lets pass, since it depends on another field."""


@pytest.mark.parametrize("field", sorted(CHANGES))
def test_the_schema_of_a_plan_refuses_what_a_reader_refuses(field: str) -> None:
    of_plan = validator("run").evolve(schema=validator("run").schema["properties"]["plan"])
    sound = json.loads(json.dumps(synthetic_plan().to_dict()))
    assert of_plan.is_valid(sound)
    for value in WRONG:
        if (field, str(value)) not in TOGETHER:
            content = {**sound, field: value}
            assert of_plan.is_valid(content) == is_read(content), value


def is_read(content: dict[str, Any]) -> bool:
    try:
        Plan.from_dict(content)
    except (ValueError, TypeError):
        return False
    return True


@pytest.mark.parametrize(
    ("document", "changes"),
    [
        ("manifest", {"totals": {"samples": "many"}}),
        ("manifest", {"master": {"file": "run.h5"}}),
        ("manifest", {"shards": {"count": 3, "bytes": -1, "sha256": ""}}),
        ("manifest", {"findings": None}),
        ("run", {"run_id": "x"}),
        ("run", {"origin": None}),
        ("run", {"samples": {"file": "/etc/passwd", "first": 0, "count": 1, "bytes": 1, "sha256": "0" * 64}}),
        ("task", {"samples": "all"}),
    ],
)
def test_a_schema_refuses_a_document_of_another_form(
    finished_run: Path, document: str, changes: dict[str, Any]
) -> None:
    (path,) = finished_run.glob("task-*.json" if document == "task" else f"{document}.json")
    assert validator(document).is_valid(json.loads(path.read_bytes()))
    edit_document(path, **changes)
    assert not validator(document).is_valid(json.loads(path.read_bytes()))


@pytest.mark.parametrize("document", ["run", "manifest"])
def test_a_schema_wants_what_readers_want(sound_run: Path, document: str) -> None:
    content = json.loads((sound_run / f"{document}.json").read_bytes())
    wanted = {"run": {"plan", "run_id", "shards", "origin"}, "manifest": set(content) - {"batchcam_version"}}[document]
    for key in content:
        lacking = {name: value for name, value in content.items() if name != key}
        assert validator(document).is_valid(lacking) == (key not in wanted | {DIGEST_KEY}), key
