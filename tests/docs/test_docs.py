"""README, docs/ and the pages beside README say what the program does; every block of code in them is run."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np
import pytest

from batchcam.cli.commands import COMMANDS, EXIT_CODES, OF_SCRIPTS, cli
from batchcam.cli.options import build
from batchcam.errors import ConfigError
from batchcam.network.checkpoint import pack_checkpoint
from batchcam.store.findings import Kind
from batchcam.store.manifest import read_manifest
from batchcam.store.plan import Plan, read_plan
from batchcam.store.schema import CLASS_NAME, CLASSIFIER_ARRAYS, CONFIG, SAMPLE_ARRAYS
from docs.make import cli as cli_page
from docs.make import data_kinds, folders, refusals
from tests.helpers import ROOT
from tests.helpers.fake_batchcam import JOBS, Fake
from tests.helpers.outputs import exact
from tests.helpers.pages import PAGES, Block, blocks, blocks_of
from tests.helpers.synthetic import run_command

README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORD = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")

ALL_BLOCKS = [block for page in PAGES for block in blocks_of(page)]
READING = "h5dump"
"""The shell's way to read a record, which is told apart from the blocks that call batchcam by this word."""

LANGUAGES = {
    **dict.fromkeys(("python", "console", "sh", "toml"), "run here"),
    "r": "run by tests/store/test_other_readers.py",
    "text": "nothing to run",
}

NOT_RUN = {
    "install": "takes minutes and a package index: .ci/run installs",
    "demo": "takes minutes: `pytest -m slow tests/commands/demo` runs it",
    "tests": ".ci/run runs it, in a fresh clone",
    "checks": ".ci/run runs them",
    "cron": "changes the user's crontab: tests/jobs/test_nightly.py runs it on a cron of its own",
    "Slurm": "needs sbatch: tests/jobs/test_slurm.py runs it",
    "containers": "needs Docker: tests/test_containers.py builds and runs the images without it",
    "engines": "needs the engine: `pytest -m slow tests/jobs/test_engines.py` runs what the page says it does",
    "training": "trains: tests/docs/test_training.py runs it, with -m slow what needs a package",
    "limits": "trains: `python -m docs.make.limits` makes it; tests/docs/test_limits.py parses it",
    "MATLAB": "needs MATLAB",
    "signature": "needs a key: tests/commands/verify/test_signature.py signs and verifies",
    "zarr": "needs a run on S3: tests/commands/export/test_zarr.py reads references, with another place before them",
    "signing": "needs keys, and a package or a server: tests/docs/test_signing.py runs it",
    "lmdb": "lmdb is no dependency of the tests",
    "timm": "needs weights of timm's: tests/commands/explain/test_foreign_checkpoints.py explains such networks",
}
"""Why a block is not run, by the mark in front of it."""


@pytest.mark.parametrize("block", ALL_BLOCKS, ids=str)
def test_a_block_is_run_or_says_why_not(block: Block) -> None:
    assert block.mark in NOT_RUN or (not block.mark and block.language in LANGUAGES)


def test_every_reason_not_to_run_a_block_is_used() -> None:
    assert {block.mark for block in ALL_BLOCKS} - {""} == set(NOT_RUN)


def test_a_fence_that_is_no_block_is_noticed() -> None:
    for page in PAGES:
        fences = re.findall(r"^\s*```", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(list(blocks_of(page))), page


# --- python


@pytest.fixture(scope="module", params=[{}, {"method": "gradcam", "cams": "topk:3"}], ids=["cam", "gradcam"])
def desk_with_run(tmp_path_factory, request) -> Path:
    """A folder with the run of a network, named RUN."""
    from batchcam.commands.explain.explain import explain
    from tests.commands.explain.test_explain import config, write_checkpoint

    desk = tmp_path_factory.mktemp("desk")
    draw(desk / "data", ("ant", "bee", "cat"), 4, 32)
    explain(config(write_checkpoint(desk / "m.pth", 0), desk / "data", desk / "RUN", **request.param))
    return desk


def draw(root: Path, classes: tuple[str, ...], each: int, side: int) -> None:
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(each):
            cv2.imwrite(str(root / name / f"{number}.png"), rng.integers(0, 255, (side, side, 3), np.uint8))


@pytest.mark.parametrize("block", blocks("python", "RUN"), ids=str)
def test_python_that_reads_a_run_reads_it(block, desk_with_run, monkeypatch, capsys):
    if "xarray" in block.text:
        pytest.importorskip("h5netcdf")
    monkeypatch.chdir(desk_with_run)
    exec(compile(block.text, str(block), "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("cell", ["cat", "'=1+1", "'\\x1b[2J", "'Käfer\\n蝶", "'\\u8776\\\\"])
def test_the_line_that_reads_a_cell_gives_the_exact_text(cell):
    (block,) = blocks("python", "exact = cell")
    names = {"cell": cell}
    exec(block.text, names)
    assert names["exact"] == exact(cell)
    assert ("'" in cell) == (names["exact"] != cell)


def test_no_other_python_is_left_out():
    ran = {*map(str, blocks("python", "RUN")), *map(str, blocks("python", "exact = cell"))}
    elsewhere = "docs/library.md"  # tests/docs/test_library.py
    assert {str(block) for block in blocks("python") if block.page != elsewhere} == ran


@pytest.mark.parametrize("block", [b for b in ALL_BLOCKS if b.language == "python" and b.mark], ids=str)
def test_python_that_is_not_run_compiles_and_imports_what_batchcam_has(block):
    compile(block.text, str(block), "exec")
    for module, name in re.findall(r"^from (batchcam\S*) import (\w+)", block.text, re.MULTILINE):
        assert hasattr(importlib.import_module(module), name)


# --- shell


@pytest.fixture
def desk(tmp_path) -> Path:
    """A folder with what the pages name: jobs, a checkpoint, and a shard that is to be removed."""
    (tmp_path / "jobs").symlink_to(JOBS)
    (tmp_path / "model.pth").touch()
    (tmp_path / "runs" / "monday" / "shards").mkdir(parents=True)
    (tmp_path / "runs" / "monday" / "shards" / "shard-00007.h5").touch()
    return tmp_path


@pytest.mark.parametrize("block", [b for b in blocks("sh") if READING not in b.text], ids=str)
def test_shell_lines_run_and_call_batchcam_with_words_that_it_takes(block, desk):
    fake = Fake(desk / "bin")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=desk, env=fake.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calls = fake.calls()
    assert calls
    for words in calls:
        parsed(words)


def parsed(words: list[str]) -> None:
    """Make the config that the words of a call ask for."""
    (kind,) = [command.config for command in (*COMMANDS, *OF_SCRIPTS) if command.name == words[0]]
    with (
        cli.make_context("batchcam", list(words)) as group,
        cli.commands[words[0]].make_context(words[0], words[1:], parent=group) as context,
    ):
        build(kind, context.params)


@pytest.mark.parametrize("words", ["compare a b --max-flip 2", "compare a b --target none", "explain a b"])
def test_the_shell_test_can_fail(words):
    with pytest.raises((click.ClickException, ConfigError)):
        parsed(words.split())


@pytest.mark.parametrize("block", blocks("console"), ids=str)
def test_a_session_says_what_the_page_shows(block, tmp_path, monkeypatch):
    demo = tmp_path / "batchcam-demo"
    classes = ("cross", "disc", "square", "star", "triangle")
    draw(demo / "images" / "test", classes, 14, 64)  # more than one shard
    _checkpoint(demo / "model.pth", classes)
    monkeypatch.chdir(tmp_path)
    for name, value in (("WORKERS", "1"), ("THREADS", "2"), ("START_METHOD", "fork"), ("DEVICE", "cpu")):
        monkeypatch.setenv(f"BATCHCAM_{name}", value)
    for line, shown in _commands_of(block.text):
        said = _said(line)
        assert [w for w in map(_masked, shown) if w not in map(_masked, said)] == [], said


def _checkpoint(path: Path, classes: tuple[str, ...]) -> None:
    import torch
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None, num_classes=len(classes))
    preprocessing = {
        "resize": [64], "image_size": [64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear",
    }  # fmt: skip
    path.write_bytes(pack_checkpoint(network.state_dict(), "resnet18", classes, preprocessing, {}))


def _commands_of(session: str) -> Iterator[tuple[str, list[str]]]:
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        line, *shown = part.splitlines()
        yield line, shown


def _said(line: str) -> list[str]:
    if not line.startswith("batchcam "):
        return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout.splitlines()
    code, stdout, stderr = run_command(*shlex.split(line)[1:])
    assert code == 0, stderr
    return [*stdout.splitlines(), *stderr.splitlines()]


def _masked(line: str) -> str:
    """Return a line without its numbers, sizes and digests."""
    return re.sub(r"[0-9a-f]{64}|\d[\d.,]*( [kMGT]?B\b)?", "#", line)


# --- other languages


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_an_options_file_names_options_that_there_are(block, tmp_path):
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    (tmp_path / "options.toml").write_text(block.text)
    (command,) = [name for name, value in tomllib.loads(block.text).items() if isinstance(value, dict)]
    required = [p.opts[0] for p in cli.commands[command].params if p.required and p.opts[0].startswith("--")]
    arguments = [p.name for p in cli.commands[command].params if p.param_type_name == "argument"]
    words = [word for option in required for word in (option, "x")]
    parsed([command, *arguments, *words, "--config", str(tmp_path / "options.toml")])


# --- words between the blocks


def spans() -> Iterator[tuple[str, str]]:
    """Yield (page, text) of everything that is written as code within a line."""
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for span in re.findall(r"`([^`\n]+)`", prose):
            yield page.name, span


def _options_of(name: str) -> set[str]:
    return {o for p in cli.commands[name].params for o in (*p.opts, *p.secondary_opts)} | {"-h", "--help"}


def test_options_within_lines_exist():
    scripts = "".join(p.read_text() for p in JOBS.glob("*.sh"))
    anywhere = {o for name in cli.commands for o in _options_of(name)} | set(re.findall(r"--[a-z][a-z-]+", scripts))
    for page, span in spans():
        words = span.split()
        if words[0] == "batchcam" and len(words) > 1 and words[1] in cli.commands:
            assert {w for w in words if re.match("--?[a-z]", w)} <= _options_of(words[1]), (page, span)
        elif words[0].startswith("--"):
            assert words[0] in anywhere or page in OWN_OPTIONS.get(words[0], ()), (page, span)


OWN_OPTIONS = {
    "--shm-size": ("operations.md",),  # docker's, as --gpus, --network, --target
    "--device": ("speed.md",),
    "--class-indices": ("studies.md",),
}
"""Options within lines that are another program's, and the pages that name them."""


def test_a_line_that_names_a_command_names_one_that_exists():
    for page, span in spans():
        if name := re.match(r"batchcam ([a-z]+)", span):
            assert name[1] in cli.commands, (page, span)


def test_links_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?:", target):
                continue
            path, _, anchor = target.partition("#")
            there = (page.parent / path) if path else page
            assert there.exists(), (page.name, target)
            if anchor:
                assert anchor in map(_anchor, re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)), (
                    page.name,
                    target,
                )


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


# --- what has to be on a page


def test_the_readme_has_at_most_160_lines():
    assert len(README.splitlines()) <= 160


@pytest.mark.parametrize("name", sorted(name for name, command in cli.commands.items() if not command.hidden))
def test_every_command_is_in_the_readme(name):
    assert f"`batchcam {name}" in README


def test_every_exit_code_is_in_the_readme():
    for code in EXIT_CODES:
        assert re.search(rf"^\| {code} \|", README, re.MULTILINE)


def test_the_page_of_the_command_line_is_what_the_program_says():
    told = "run `python -m docs.make.cli`"
    assert cli_page.PAGE.read_text(encoding="utf-8") == cli_page.page(), told


@pytest.mark.parametrize("array", [*SAMPLE_ARRAYS, *CLASSIFIER_ARRAYS, CLASS_NAME], ids=lambda a: a.name)
def test_every_array_of_the_schema_is_specified(array):
    assert f"`{array.name}`" in RECORD or f"`/{array.name.partition('/')[2]}`" in RECORD
    assert f"`{CONFIG}`" in RECORD


@pytest.mark.parametrize("kind", [kind.value for kind in Kind])
def test_every_kind_of_finding_is_specified(kind):
    assert f"`{kind}`" in RECORD


def test_every_field_of_the_documents_is_specified(sound_run):
    plan = read_plan(sound_run)
    documents = [json.loads((sound_run / name).read_text()) for name in ("run.json", "manifest.json")]
    names = {f.name for f in dataclasses.fields(Plan)} | {key for document in documents for key in document}
    names |= set(read_manifest(sound_run, plan).totals)
    assert [name for name in sorted(names) if f"`{name}`" not in RECORD] == []


def test_every_attribute_of_a_file_is_specified(sound_run):
    import h5py

    with h5py.File(sound_run / "run.h5") as file:
        assert [name for name in file.attrs if f"`{name}`" not in RECORD] == []
        scales = [name for name in file if name not in {a.name for a in SAMPLE_ARRAYS}]
        assert [name for name in scales if f"`{name}" not in RECORD] == []


# --- ARCHITECTURE.md


def test_the_table_of_kinds_of_data_is_the_one_that_tests_try():
    (shown,) = data_kinds.MARKED.findall(data_kinds.PAGE.read_text(encoding="utf-8"))
    assert shown == data_kinds.table(), "run `python -m docs.make.data_kinds`"


def test_the_table_of_refusals_is_the_one_that_tests_try():
    (shown,) = refusals.MARKED.findall(refusals.PAGE.read_text(encoding="utf-8"))
    assert shown == refusals.table(), "run `python -m docs.make.refusals`"


def test_the_table_of_folders_is_the_one_that_the_imports_are_held_to():
    told = "run `python -m docs.make.folders`"
    (shown,) = folders.MARKED.findall(folders.PAGE.read_text(encoding="utf-8"))
    assert shown == folders.table(), told


def named_code() -> list[tuple[str, str]]:
    """Return every (file, name) that ARCHITECTURE.md walks through."""
    return re.findall(r"`([\w/]+\.py): ([\w.]+)`", folders.PAGE.read_text(encoding="utf-8"))


def test_the_walks_name_code_that_there_is():
    assert len(named_code()) > 30
    for file, name in named_code():
        thing = importlib.import_module(f"batchcam.{file.removesuffix('.py').replace('/', '.')}")
        for part in name.split("."):
            thing = getattr(thing, part, None)
        assert thing is not None, (file, name)


def test_files_that_the_pages_name_are_there():
    whole = r"((?:batchcam|tests|docs|jobs|benchmarks)/[\w./-]+\.(?:py|md|sh|sbatch|cron|service|timer))"
    for page, span in spans():
        for path in re.findall(whole, span):
            assert "NAME" in path or (ROOT / path).exists(), (page, span)
