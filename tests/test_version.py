"""The version names the code that runs: a checkout's commit, the build of an installation, never somebody else's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from batchcam import version as module
from batchcam.version import UNKNOWN, version_of
from tests.helpers import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="no git on this machine")

IDENTITY = (
    "-c",
    "user.name=a",
    "-c",
    "user.email=a@example.org",
    "-c",
    "commit.gpgsign=false",
    "-c",
    "tag.gpgsign=false",
)
SETUP = "[metadata]\nname = batchcam\n"
UNKNOWN_CODE = rf"{re.escape(UNKNOWN)}\+unknown\.[0-9a-f]{{12}}"


def git(folder: Path, *words: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        ["git", *IDENTITY, *words], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(folder: Path) -> str:
    """Commit everything; return the commit's short name."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "work")
    return git(folder, "rev-parse", "--short=9", "HEAD")


def make_package(root: Path, setup: str = SETUP) -> Path:
    (root / "batchcam").mkdir(parents=True)
    (root / "batchcam/__init__.py").write_text("")
    (root / "setup.cfg").write_text(setup)
    return root / "batchcam"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package's folder in a checkout of one commit."""
    package = make_package(tmp_path / "checkout")
    git(package.parent, "init", "--quiet")
    commit(package.parent)
    return package


@pytest.fixture
def without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_checkout_names_the_commit_that_runs_and_not_an_older_one(package: Path) -> None:
    before = git(package.parent, "rev-parse", "--short=9", "HEAD")
    assert version_of(package) == f"0.1.dev1+g{before}"
    after = commit(package.parent)
    assert after != before
    assert version_of(package) == f"0.1.dev2+g{after}"


@pytest.mark.parametrize("tags", [(), ("review-7",), ("v0.1.0",), ("v0.2.0rc1",), ("v1.9",)], ids=str)
@pytest.mark.parametrize("commits_since", [0, 3])
def test_a_checkout_says_what_setuptools_scm_says_of_a_build(
    package: Path, tags: tuple[str, ...], commits_since: int
) -> None:
    pytest.importorskip("setuptools_scm")
    shutil.copy(ROOT / "pyproject.toml", package.parent)
    commit(package.parent)
    for tag in tags:
        git(package.parent, "tag", tag)
    for _ in range(commits_since):
        commit(package.parent)
    told = subprocess.run(
        [sys.executable, "-m", "setuptools_scm"], cwd=package.parent, capture_output=True, text=True, check=True
    )
    assert version_of(package) == told.stdout.strip()


@pytest.mark.parametrize("tagged", [False, True])
def test_a_changed_package_shows_and_its_version_follows_the_content(package: Path, tagged: bool) -> None:
    root = package.parent
    if tagged:
        git(root, "tag", "v0.1.0")
    clean, name = version_of(package), git(root, "rev-parse", "--short=9", "HEAD")
    seen = {clean}
    for file, text in (("__init__.py", "one"), ("__init__.py", "two"), ("new.py", "two")):
        (package / file).write_text(text)
        seen.add(version_of(package))
        assert re.search(rf"\+g{name}\.changed\.[0-9a-f]{{12}}$", version_of(package))
    assert len(seen) == 4
    (package / "new.py").unlink()
    git(root, "checkout", "--quiet", ".")
    (root / "README.md").write_text("what the package does not hold does not count")
    assert version_of(package) == clean


def test_a_linked_worktree_names_its_own_commit(package: Path, tmp_path: Path) -> None:
    git(package.parent, "worktree", "add", "--quiet", str(tmp_path / "linked"))
    name = commit(tmp_path / "linked")
    assert version_of(tmp_path / "linked/batchcam") == f"0.1.dev2+g{name}"


def test_a_repository_that_the_environment_names_is_not_asked(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = version_of(package)
    other = make_package(tmp_path / "other").parent
    git(other, "init", "--quiet")
    commit(other)
    git(other, "tag", "v9.9.9")
    monkeypatch.chdir(other)
    assert version_of(package) == expected
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    assert version_of(package) == expected


@pytest.mark.parametrize("place", [".", "vendored", ".venv/lib/python3/site-packages"])
def test_a_copy_inside_another_repository_does_not_take_its_version(tmp_path: Path, place: str) -> None:
    package = make_package(tmp_path / "other" / place, setup="[metadata]\nname = other\n")
    git(tmp_path / "other", "init", "--quiet")
    commit(tmp_path / "other")
    git(tmp_path / "other", "tag", "v9.9.9")
    assert re.fullmatch(UNKNOWN_CODE, version_of(package))


def install(package: Path, version: str) -> None:
    metadata = package.parent / f"batchcam-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: batchcam\nVersion: {version}\n")


def test_an_installation_says_what_it_was_built_as_and_needs_no_git(tmp_path: Path, without_git: None) -> None:
    package = make_package(tmp_path / "site-packages")
    install(package, "0.3.0")
    assert version_of(package) == "0.3.0"


def test_a_build_without_a_version_is_told_by_its_content(tmp_path: Path, without_git: None) -> None:
    package = make_package(tmp_path / "site-packages")
    install(package, UNKNOWN)
    before = version_of(package)
    assert re.fullmatch(UNKNOWN_CODE, before)
    (package / "__init__.py").write_text("another")
    assert re.fullmatch(UNKNOWN_CODE, version_of(package))
    assert version_of(package) != before


def test_the_metadata_of_another_copy_on_the_path_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_package(tmp_path / "other")
    install(other, "9.9.9")
    monkeypatch.syspath_prepend(other.parent)
    assert re.fullmatch(UNKNOWN_CODE, version_of(make_package(tmp_path / "copy")))


def test_a_checkout_without_git_does_not_say_what_was_there_when_it_was_installed(
    package: Path, without_git: None
) -> None:
    (package.parent / "batchcam.egg-info").mkdir()
    (package.parent / "batchcam.egg-info/PKG-INFO").write_text(
        "Metadata-Version: 2.1\nName: batchcam\nVersion: 0.3.0\n"
    )
    assert re.fullmatch(UNKNOWN_CODE, version_of(package))


@pytest.mark.parametrize("fails", ["exit 128", "exec sleep 60"])
def test_a_git_that_refuses_or_hangs_leaves_the_content(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    (tmp_path / "git").write_text(f"#!/bin/sh\n{fails}\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(module, "GIT_TIMEOUT_S", 0.2)
    assert re.fullmatch(UNKNOWN_CODE, version_of(package))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_checkout_of_another_user_still_names_its_commit(package: Path) -> None:
    expected = version_of(package)
    for path in (package.parent, *package.parent.rglob("*")):
        os.chown(path, 12345, 12345)
    with pytest.raises(subprocess.CalledProcessError):
        git(package.parent, "status")
    assert version_of(package) == expected


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Put a git on PATH that says another commit at every call; return how often it was called."""
    (tmp_path / "git").write_text(
        f"""#!/bin/sh
echo >>{tmp_path}/calls
case "$*" in *describe*) echo v0.1.0-1-g$(wc -l <{tmp_path}/calls) ;; esac
"""
    )
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    calls = tmp_path / "calls"
    return lambda: len(calls.read_text()) if calls.exists() else 0


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like a checkout of all of batchcam."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "batchcam", root / "batchcam", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "setup.cfg").write_text(SETUP)
    (root / ".git").mkdir()
    return root


def run_batchcam(root: Path, *words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "batchcam", *words],
        cwd=root.parent,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_asks_no_git_and_the_version_does(noted: Callable[[], int], checkout: Path, sound_run: Path) -> None:
    for words in (["--help"], ["explain", "-h"], ["verify", sound_run], ["info", sound_run]):
        run_batchcam(checkout, *words)
    assert noted() == 0
    assert run_batchcam(checkout, "--version") == "batchcam, version 0.1.1.dev1+g1\n"
    assert noted() == 2


def version_in(file: Path) -> str:
    with h5py.File(file) as opened:
        return opened.attrs["batchcam_version"].decode()


def test_a_command_records_one_version_and_another_may_go_on(
    noted: Callable[[], int], checkout: Path, tmp_path: Path
) -> None:
    from tests.commands.explain.test_explain import CLASSES, write_checkpoint

    for number in range(6):
        folder = tmp_path / "data" / CLASSES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    run, checkpoint = tmp_path / "run", write_checkpoint(tmp_path / "model.pth", 0)
    explain = ("explain", checkpoint, tmp_path / "data", "--out", run, "-j", 2, "--shard-size", 3, "--device", "cpu")
    run_batchcam(checkout, *map(str, explain))
    first, second = sorted(run.glob("shards/*.h5"))
    (task,) = run.glob("task-*.json")
    plan, manifest, record = (json.loads((run / n).read_text()) for n in ("run.json", "manifest.json", task.name))
    told = [plan["batchcam_version"], manifest["batchcam_version"], record["versions"]["batchcam"]]
    assert [*told, *map(version_in, (first, second, run / "run.h5"))] == ["0.1.1.dev1+g1"] * 6

    before = second.read_bytes()
    first.unlink()
    run_batchcam(checkout, *map(str, explain))
    assert [version_in(first), version_in(second)] == ["0.1.1.dev1+g3", "0.1.1.dev1+g1"]
    assert second.read_bytes() == before
    assert "no findings; 6 samples in 2 shards" in run_batchcam(checkout, "verify", run)
