"""What batchcam did not make is replaced by no --out of any command, unless --overwrite says so; what it made is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from batchcam.store import landing
from batchcam.store.ours import claim
from tests.helpers.outputs import Words, run_json

FILES: dict[str, tuple[Words, str]] = {
    "report": (lambda run, out: ["report", run, "--out", out / "page.html"], "page.html"),
    "report .HTM": (lambda run, out: ["report", run, "--out", out / "PAGE.HTM"], "PAGE.HTM"),
    "report of no folder": (lambda run, out: ["report", run, "--out", out / "new" / "page.html"], "new/page.html"),
    "render sheet": (lambda run, out: ["render", run, "--out", out / "sheet.png"], "sheet.png"),
    "render folder": (lambda run, out: ["render", run, "--top", 2, "--out", out / "all"], "all/*.png"),
    "compare table": (lambda run, out: ["compare", run, run, "--out", out / "moved"], "moved/compare.h5"),
    "compare movers": (lambda run, out: ["compare", run, run, "--out", out / "moved"], "moved/movers.csv"),
    "compare document": (lambda run, out: ["compare", run, run, "--out", out / "moved"], "moved/compare.json"),
}
"""A command, and a file of what it writes."""

STUDIES: dict[str, tuple[str, ...]] = {
    "localize": ("localize.json", "localize.csv", "curves.csv"),
    "faithfulness": ("faithfulness.json", "faithfulness.csv", "curves.csv"),
    "discover": ("discover.json", "discover.h5", "discover.html"),
}


def written(words: list[object], code: int = 0) -> None:
    ended = run_json(*words)
    assert ended.code == code, ended


def theirs(path: Path) -> bytes:
    """Put a file of somebody else's at `path`, with nothing of ours beside it."""
    if path.parent.is_dir() and path.parent.name in ("moved", "all", "new"):
        shutil.rmtree(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.new("RGB", (8, 8)).save(path)
    else:
        path.write_bytes(b"<title>my report of batchcam</title> batchcam_versions")
    return path.read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_file_of_somebody_else_is_refused_by_name_and_stays(sound_run, tmp_path, name):
    make, pattern = FILES[name]
    words = make(sound_run, tmp_path)
    written(words, 3 if "report" in name else 0)
    (path, *_) = sorted(tmp_path.glob(pattern))
    content = theirs(path)
    ended = run_json(*words)
    assert (ended.code, ended.faults) == (2, [])
    assert ended.said["error"].startswith("--out ")
    assert path.name in ended.said["error"]
    assert ended.said["error"].endswith("; choose another --out, or say --overwrite")
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    written([*words, "--overwrite"], 3 if "report" in name else 0)
    assert path.read_bytes() != content


@pytest.mark.parametrize("name", FILES)
def test_file_of_ours_and_an_empty_one_are_replaced(sound_run, tmp_path, name):
    make, pattern = FILES[name]
    words, code = make(sound_run, tmp_path), 3 if "report" in name else 0
    written(words, code)
    (path, *_) = sorted(tmp_path.glob(pattern))
    content = path.read_bytes()
    written(words, code)
    assert path.read_bytes() == content
    theirs(path)
    path.write_bytes(b"")
    written(words, code)
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["link to a file", "link to nothing", "folder"])
def test_what_is_no_file_is_not_replaced_by_one(sound_run, tmp_path, kind):
    out, other = tmp_path / "page.html", tmp_path / "other.html"
    if kind == "folder":
        out.mkdir()
    else:
        out.symlink_to(other)
    if kind == "link to a file":
        other.write_text("a page")
    assert run_json("report", sound_run, "--out", out).code == 2
    assert out.is_symlink() == (kind != "folder")


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("inside", [False, True])
def test_study_is_refused_before_it_begins_where_a_file_is_no_folder(sound_run, tmp_path, study, inside):
    (file := tmp_path / "out").write_text("mine")
    network = ["--checkpoint", "model.pth", "--data", "photos"]
    extra = ["--annotations", "boxes.csv"] if study == "localize" else network
    ended = run_json(study, sound_run, *extra, "--out", file / "deeper" if inside else file)
    assert (ended.code, "not a folder, or lies in none" in ended.said["error"]) == (2, True)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("study", STUDIES)
def test_study_is_refused_before_it_begins_where_files_files_of_others_lie(sound_run, tmp_path, study):
    network = ["--checkpoint", "model.pth", "--data", "photos"]
    extra = ["--annotations", "boxes.csv"] if study == "localize" else network
    words = [study, sound_run, *extra, "--out", tmp_path]
    for name in STUDIES[study]:
        (tmp_path / name).write_text("mine")
        ended = run_json(*words)
        assert (ended.code, f"holds {name} of something else than {study}.json" in ended.said["error"]) == (2, True)
        (tmp_path / name).unlink()
    # the other study's curves have the same name
    (tmp_path / "localize.json").write_text('{"batchcam_version": "1"}')
    (tmp_path / "curves.csv").write_text("threshold")
    assert ("of something else" in run_json(*words).said["error"]) == (study == "faithfulness")


def test_study_that_was_killed_before_its_document_goes_on(sound_run, tmp_path, monkeypatch):
    out, real = tmp_path / "moved", landing.land
    words = ["compare", sound_run, sound_run, "--out", out]

    def killed(path: Path, data: landing.Buffer) -> None:
        if path.name == "movers.csv":
            raise KeyboardInterrupt
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(landing, "land", killed)
        run_json(*words)
    assert (out / "compare.h5").exists()
    assert not (out / "compare.json").exists()
    written(words)
    assert sorted(p.name for p in out.iterdir()) == ["compare.h5", "compare.json", "movers.csv"]


def test_claim_is_left_once(tmp_path):
    for _ in range(2):
        claim(tmp_path / "compare.json")
    (claimed,) = tmp_path.iterdir()
    assert claimed.stat().st_size == 0


@pytest.mark.parametrize("name", ["manifest.json", "run.h5"])
def test_folder_of_somebody_else_is_no_place_for_a_run(tmp_path, name):
    """A web page's manifest, for one; a run's second worker finds the first one's plan."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / name).write_text("{}")
    ended = run_json("explain", "model.pth", "photos", "--out", tmp_path / "site", "--device", "cpu")
    assert (ended.code, f"holds {name}, and no run.json" in ended.said["error"]) == (2, True)
    assert (tmp_path / "site" / name).read_text() == "{}"
