"""docs/readers: programs in three languages that check a run and print its rows, without batchcam."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from batchcam.store.opening import open_run
from docs.make import conformance
from docs.make.conformance import SOUND, Sound
from tests.helpers import ROOT, damage

READERS = ROOT / "docs" / "readers"
COMMANDS = {".py": [sys.executable], ".R": ["Rscript"], ".mjs": ["node"]}
"""What runs a reader, by the ending of its name."""

FILES = sorted(path.name for path in READERS.iterdir() if path.is_file())
MADE = {
    "special": SOUND["special-rows"],
    "offset": SOUND["offset"],
    "mistake": Sound("", conformance.BROKEN, after=damage.wrong_cam_value, has_list=False),
    "changed": Sound("", conformance.BROKEN, after=damage.shard_byte_flipped, has_list=False),
    "edited": Sound("", conformance.BROKEN, after=damage.manifest_edited, has_list=False),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, sound in MADE.items():
        conformance.make_run(folder / name, sound)
    return folder


@pytest.fixture(scope="module", params=FILES)
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A reader, in a folder from which node finds the packages that are installed for all."""
    script = Path(shutil.copy(READERS / request.param, tmp_path_factory.mktemp("reader")))
    command = COMMANDS[script.suffix]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    if script.suffix == ".R" and said(["Rscript", "-e", "library(rhdf5); library(digest); library(jsonlite)"])[0]:
        pytest.skip("R has no rhdf5, digest or jsonlite")
    if script.suffix == ".mjs":
        packages = Path(said(["npm", "root", "-g"])[1].strip()) if shutil.which("npm") else Path()
        if not (packages / "h5wasm").is_dir():
            pytest.skip("node has no h5wasm: npm install -g h5wasm")
        script.with_name("node_modules").symlink_to(packages)
    return [*command, str(script)]


def said(command: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def rows_of(path: Path) -> list[list[str]]:
    """What a reader has to print, as batchcam reads it; CAMs of these runs add up wherever they are finite."""
    with open_run(path, prove=False) as run:
        return [
            [
                *(str(s.index), s.id, s.label or "-", s.prediction or "-"),
                f"{s.confidence:.6f}" if s.confidence == s.confidence else "-",
                "-" if s.status & 3 else "holds",
                str(int(s.status)),
            ]
            for s in run
        ]


def test_each_reader_has_at_most_100_lines_and_there_is_one_of_each_language() -> None:
    assert {Path(name).suffix for name in FILES} == set(COMMANDS)
    assert [name for name in FILES if len((READERS / name).read_text(encoding="utf-8").splitlines()) > 100] == []


@pytest.mark.parametrize("name", ["special", "offset"])
def test_a_reader_prints_what_batchcam_reads(runs: Path, reader: list[str], name: str) -> None:
    code, shown, told = said([*reader, str(runs / name)])
    assert (code, told) == (0, "")
    head, *rows = (line.split("\t") for line in shown.splitlines())
    assert head == ["index", "id", "label", "prediction", "confidence", "identity", "status"]
    assert rows == rows_of(runs / name)


def test_a_reader_finds_the_row_whose_map_is_not_the_logit(runs: Path, reader: list[str]) -> None:
    code, shown, _ = said([*reader, str(runs / "mistake")])
    failing = [line.split("\t")[0] for line in shown.splitlines() if "FAILS" in line]
    assert (code, failing) == (1, [str(damage.MIDDLE_FIRST + 2)])


@pytest.mark.parametrize(("name", "told"), [("changed", "not the shards that"), ("edited", "changed after it was")])
def test_a_reader_refuses_what_is_not_what_was_written(runs: Path, reader: list[str], name: str, told: str) -> None:
    code, shown, error = said([*reader, str(runs / name)])
    assert (code, shown) == (1, "")
    assert told in error
