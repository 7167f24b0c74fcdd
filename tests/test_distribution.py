"""What is built: a wheel and an sdist that hold everything, name their commit, and read well on PyPI."""

from __future__ import annotations

import email
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from batchcam.version import UNKNOWN
from tests.helpers import ROOT, unpack

NEEDED = ("build", "setuptools_scm", "twine")

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, NEEDED)), reason=f"{', '.join(NEEDED)} are not all installed"
)


def sources() -> list[str]:
    """Return the files of the checkout that git knows; of an unpacked sdist all but what building and tests left."""
    left = {"__pycache__", "PKG-INFO", "batchcam.egg-info", "build", "dist"}
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        return sorted(name for name in listed.stdout.split("\0") if name and (ROOT / name).exists())
    files = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return sorted(str(f) for f in files if not left & set(f.parts) and not f.match("*_cache/*"))


def run(*words: str | Path, cwd: Path, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "SETUPTOOLS_SCM_", "PYTHONPATH"))}
    done = subprocess.run(words, cwd=cwd, env=clean | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def git(folder: Path, *words: str) -> str:
    return run("git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words, cwd=folder).strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of one commit: everything that is in ours."""
    root = tmp_path_factory.mktemp("distribution") / "checkout"
    for name in sources():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    git(root, "init", "--quiet")
    git(root, "add", "--all", "--force")
    git(root, "commit", "--quiet", "--message", "all", "--no-gpg-sign")
    return root


def build(root: Path, *words: str, **environment: str) -> Path:
    """Return the folder of what was built in `root`."""
    out = root.parent / "dist"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, *words, cwd=root, **environment)
    return out


@pytest.fixture(scope="module")
def built(checkout: Path) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    return build(checkout)


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def unpacked(built: Path) -> Path:
    """The sdist, unpacked."""
    (path,) = built.glob("*.tar.gz")
    unpack(path, built / "unpacked")
    (folder,) = (built / "unpacked").iterdir()
    return folder


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def test_the_wheel_and_the_sdist_name_the_commit(checkout: Path, wheel: zipfile.ZipFile, unpacked: Path) -> None:
    expected = f"0.1.dev1+g{git(checkout, 'rev-parse', '--short=9', 'HEAD')}"
    assert metadata(wheel)["Version"] == expected
    assert unpacked.name == f"batchcam-{expected}"
    command = (sys.executable, "-m", "batchcam", "--version")
    assert run(*command, cwd=unpacked) == f"batchcam, version {expected}\n"


def test_a_wheel_says_its_version_wherever_it_lies(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    site = tmp_path / "project/.venv/site-packages"
    wheel.extractall(site)
    git(tmp_path / "project", "init", "--quiet")
    git(tmp_path / "project", "commit", "--quiet", "--allow-empty", "--message", "x", "--no-gpg-sign")
    command = (sys.executable, "-m", "batchcam", "--version")
    told = run(*command, cwd=tmp_path / "project", PYTHONPATH=str(site))
    assert told == f"batchcam, version {metadata(wheel)['Version']}\n"


def test_twine_finds_nothing(built: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *(p for p in built.iterdir() if p.is_file()), cwd=built)


def test_the_sdist_holds_what_the_checkout_holds(unpacked: Path) -> None:
    missing = {name for name in sources() if not (unpacked / name).is_file()}
    assert missing == set()
    assert (unpacked / "jobs/nightly.sh").stat().st_mode & stat.S_IXUSR


def test_an_unpacked_sdist_runs_its_tests(unpacked: Path) -> None:
    told = run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/job/test_scheduler.py", cwd=unpacked
    )
    assert " passed" in told


def test_an_archive_without_git_is_built_as_unknown_or_as_it_is_told(checkout: Path, tmp_path: Path) -> None:
    left_out = shutil.ignore_patterns(".git", "*.egg-info")
    archive = Path(shutil.copytree(checkout, tmp_path / "archive", ignore=left_out))
    tell_version = (sys.executable, "-m", "setuptools_scm")
    assert run(*tell_version, cwd=archive).strip() == UNKNOWN
    (wheel,) = build(archive, "--wheel", SETUPTOOLS_SCM_PRETEND_VERSION="1.2.3").iterdir()
    assert wheel.name == "batchcam-1.2.3-py3-none-any.whl"


def test_the_wheel_holds_the_package_and_the_jobs_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {re.sub(r"^batchcam-[^/]*\.data/data/share/batchcam/", "", n) for n in wheel.namelist()}
    ours = {n for n in sources() if n.startswith(("batchcam/", "jobs/"))}
    assert {n for n in names if ".dist-info/" not in n} == ours
    modes = {Path(i.filename).name: i.external_attr >> 16 for i in wheel.infolist() if "/jobs/" in i.filename}
    kept = {name for name, mode in modes.items() if mode & stat.S_IXUSR}
    assert kept == {path.name for path in (ROOT / "jobs").iterdir() if path.stat().st_mode & stat.S_IXUSR}


def test_the_constraints_pin_what_the_package_and_its_workers_need(wheel: zipfile.ZipFile) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    needed = [Requirement(text) for text in metadata(wheel).get_all("Requires-Dist", [])]
    for need in (n for n in needed if "worker" in str(n.marker) or "extra" not in str(n.marker)):
        found = [str(pin.specifier) for pin in pins if pin.name == need.name]
        assert found, need
        assert all(need.specifier.contains(version.removeprefix("==")) for version in found)


def test_every_link_of_the_description_leads_to_a_file_of_the_repository(wheel: zipfile.ZipFile) -> None:
    description = metadata(wheel).get_payload()
    assert isinstance(description, str)
    without_code = re.sub(r"```.*?```|`[^`\n]*`", "", description, flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)", without_code)
    relative = [link for link in links if not re.match(r"[a-z]+:|#", link)]
    assert relative == []
    url = metadata(wheel)["Home-page"]
    ours = [match[1] for link in links if (match := re.match(rf"{re.escape(url)}/(?:blob|raw)/HEAD/([^#]+)", link))]
    assert len(ours) > 3
    assert [name for name in ours if not (ROOT / name).exists()] == []


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("batchcam_setup", ROOT / "setup.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](docs/a.md)", "[a](URL/blob/HEAD/docs/a.md)"),
        ("[a](docs/a.md#part)", "[a](URL/blob/HEAD/docs/a.md#part)"),
        ("[`a`](./jobs)", "[`a`](URL/blob/HEAD/jobs)"),
        ("![a](docs/a.jpg)", "![a](URL/raw/HEAD/docs/a.jpg)"),
        ("[![a](docs/a.svg)](docs/a.md)", "[![a](URL/raw/HEAD/docs/a.svg)](URL/blob/HEAD/docs/a.md)"),
        ('<img src="docs/a.png">', '<img src="URL/raw/HEAD/docs/a.png">'),
        ("[a]: docs/a.md", "[a]: URL/blob/HEAD/docs/a.md"),
        ("[a](https://b.org/c.md) [d](#e) [f](mailto:g@h.org)", None),
        ("`x[0](y)` and\n```python\nx[0](y)\n[a]: b\n```\n", None),
    ],
)
def test_relative_links_become_absolute_and_nothing_else(setup: ModuleType, text: str, expected: str | None) -> None:
    assert setup.with_absolute_links(text, "URL") == (expected or text)
