"""The demo: everything it promises, small in the normal suite, whole behind `-m slow`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from batchcam.commands.demo import demo as demo_module
from batchcam.commands.demo import shapes
from batchcam.commands.demo.config import DemoConfig
from batchcam.commands.demo.demo import DemoSummary, demo
from batchcam.errors import BatchcamError, ConfigError


def small_demo(out: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in (("TRAIN_PER_CLASS", 4), ("TEST_PER_CLASS", 5), ("EPOCHS", 1), ("IMAGE_SIZE", 64)):
        monkeypatch.setattr(demo_module, name, value)
    return demo(DemoConfig(out, threads=1, quiet=True))


def digests(out: Path) -> dict[str, str]:
    whole = [*out.glob("run/shards/*"), out / "cam.png", *out.glob("images/**/*.png")]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in whole if p.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, DemoSummary]:
    out = tmp_path_factory.mktemp("finished") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        return out, small_demo(out, patch)


def test_demo_leaves_images_masks_checkpoint_verified_run_and_picture(finished):
    out, summary = finished
    assert summary.findings == 0
    assert (out / "run" / "manifest.json").exists()
    assert len(list(out.glob("masks/test/*/*.png"))) == summary.samples
    picture = cv2.imread(summary.picture)
    assert picture is not None
    assert picture.shape[1] > 3 * picture.shape[0]  # two rows of ten
    assert len(np.unique(picture)) > 50


def test_demo_run_again_goes_on_from_what_is_there(finished, monkeypatch):
    before = digests(finished[0])
    small_demo(finished[0], monkeypatch)
    assert digests(finished[0]) == before


def test_demo_goes_on_where_it_was_stopped_at_its_first_image_to_the_same_bytes(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as stopped:
        stopped.setattr(shapes, "draw", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            small_demo(tmp_path / "demo", stopped)
    small_demo(tmp_path / "demo", monkeypatch)
    assert digests(tmp_path / "demo") == digests(finished[0])


def test_demo_never_mixes_with_other_files(tmp_path):
    (tmp_path / "data" / "images").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="data: holds other files; name a new folder"):
        demo(DemoConfig(tmp_path / "data", quiet=True))
    assert sorted(tmp_path.rglob("*")) == before


def test_demo_that_can_not_write_says_where(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BatchcamError, match=r"file/images/train/.*: cannot write: Not a directory"):
        demo(DemoConfig(tmp_path / "file", quiet=True))


@pytest.mark.slow
def test_whole_demo_learns_the_shapes_and_its_cams_point_at_them(tmp_path):
    command = [sys.executable, "-m", "batchcam", "demo", "--out", str(tmp_path / "demo"), "--json", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["accuracy"] > 0.9
    assert summary["peak_in_object"] > summary["centre_in_object"] + 0.4


@pytest.mark.parametrize("change", [{"seed": -1}, {"threads": 0}])
def test_demo_that_can_not_be_meant_is_refused(change, tmp_path):
    with pytest.raises(ConfigError, match=f"--{next(iter(change))}"):
        DemoConfig(tmp_path, **change)
