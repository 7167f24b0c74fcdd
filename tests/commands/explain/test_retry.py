"""A run of nothing is no run: too many unreadable images stop the work, and what was recorded can be tried again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.shared import Classifier, Compute
from batchcam.data import samples
from batchcam.errors import DatasetError, StoppedEarlyError
from batchcam.network.checkpoint import pack_checkpoint
from batchcam.rules import Status

SAMPLES = 20
SHARD_SIZE = 8
SAID = {
    "resize": [32], "image_size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear",
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None, num_classes=2)
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    path.write_bytes(pack_checkpoint(network.state_dict(), "resnet18", ("ant", "bee"), SAID, {}))
    return path


@pytest.fixture
def manifest(tmp_path) -> Path:
    """A manifest of images in the folder `server`."""
    rng = np.random.default_rng(0)
    (tmp_path / "server").mkdir()
    for number in range(SAMPLES):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / f"server/{number:02d}.png")
    lines = [f"server/{number:02d}.png,{'ant' if number % 2 else 'bee'}" for number in range(SAMPLES)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]))
    return tmp_path / "list.csv"


def config(checkpoint: Path, data: Path, out: Path, **changes) -> ExplainConfig:
    compute = Compute(batch_size=4, workers=0, threads=1, device="cpu")
    return ExplainConfig(Classifier(checkpoint), str(data), out, compute, shard_size=SHARD_SIZE, quiet=True, **changes)


def away(data: Path, numbers: range) -> list[Path]:
    """Take images out of the folder; return where they are."""
    (data.parent / "away").mkdir(exist_ok=True)
    paths = [data.parent / f"server/{number:02d}.png" for number in numbers]
    return [Path(shutil.move(path, data.parent / "away")) for path in paths]


def back(paths: list[Path]) -> None:
    for path in paths:
        shutil.move(path, path.parent.parent / "server")


def unreadable(run: Path) -> list[int]:
    with h5py.File(run / "run.h5") as file:
        return np.flatnonzero(file["status"][...] & Status.UNREADABLE).tolist()


def test_nothing_readable_stops_before_anything_is_written(checkpoint, manifest, tmp_path):
    moved = away(manifest, range(SAMPLES))
    with pytest.raises(StoppedEarlyError, match="none of the first 20 images can be read: No such file"):
        explain(config(checkpoint, manifest, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    back(moved)
    assert explain(config(checkpoint, manifest, tmp_path / "run")).complete


def test_a_shard_of_which_most_is_unreadable_does_not_land_and_the_rerun_gives_the_same_bytes(
    checkpoint, manifest, tmp_path, monkeypatch
):
    whole = explain(config(checkpoint, manifest, tmp_path / "whole"))
    read = samples.read_file

    def lost(path: bytes, most: int) -> bytes:
        if int(Path(path.decode()).stem) >= 11:
            raise OSError(5, "Input/output error")
        return read(path, most)

    monkeypatch.setattr(samples, "read_file", lost)
    with pytest.raises(StoppedEarlyError, match="5 of the last 8 images can't be read: Input/output error"):
        explain(config(checkpoint, manifest, tmp_path / "run"))
    assert sorted(p.name for p in (tmp_path / "run/shards").glob("*.h5")) == ["shard-00000.h5"]
    monkeypatch.undo()
    assert explain(config(checkpoint, manifest, tmp_path / "run")).complete
    for shard in (tmp_path / "whole/shards").iterdir():
        assert (tmp_path / "run/shards" / shard.name).read_bytes() == shard.read_bytes()
    assert whole.unreadable == 0


def test_a_shard_of_which_most_is_of_a_kind_that_is_refused_does_not_land_and_no_rerun_is_advised(
    checkpoint, manifest, tmp_path
):
    for number in range(11, SAMPLES):
        Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(manifest.parent / f"server/{number:02d}.png")
    told = "5 of the last 8 images are refused: 16-bit values of at most 4095: .*--max-unreadable 100"
    with pytest.raises(DatasetError, match=told):
        explain(config(checkpoint, manifest, tmp_path / "run"))
    assert sorted(p.name for p in (tmp_path / "run/shards").glob("*.h5")) == ["shard-00000.h5"]
    (record,) = (tmp_path / "run").glob("task-*.json")
    said = json.loads(record.read_text())
    assert (said["outcome"], "5 of the last 8 images are refused" in said["reason"]) == ("failed", True)
    assert explain(config(checkpoint, manifest, tmp_path / "run", max_unreadable=100)).unreadable == 9


def test_a_share_that_was_allowed_is_recorded(checkpoint, manifest, tmp_path):
    away(manifest, range(11, SAMPLES))
    assert explain(config(checkpoint, manifest, tmp_path / "run", max_unreadable=100)).unreadable == 9
    away(manifest, range(3, 4))
    with pytest.raises(StoppedEarlyError, match="1 of the last 8"):
        explain(config(checkpoint, manifest, tmp_path / "strict", max_unreadable=10))


def test_a_short_last_shard_is_judged_with_the_images_before_it(checkpoint, manifest, tmp_path):
    away(manifest, range(17, SAMPLES))
    assert explain(config(checkpoint, manifest, tmp_path / "run")).unreadable == 3


def test_what_could_not_be_read_is_tried_again_and_the_rest_keeps_its_bytes(checkpoint, manifest, tmp_path):
    run, moved = tmp_path / "run", away(manifest, range(9, 12))
    explain(config(checkpoint, manifest, run))
    assert unreadable(run) == [9, 10, 11]
    before = {path.name: path.read_bytes() for path in (run / "shards").iterdir()}
    manifest_before = (run / "manifest.json").read_bytes()

    assert explain(config(checkpoint, manifest, run, retry_unreadable=True)).samples == 0
    assert (run / "manifest.json").read_bytes() == manifest_before

    back(moved)
    assert explain(config(checkpoint, manifest, run)).samples == 0
    assert explain(config(checkpoint, manifest, run, retry_unreadable=True)).samples == SHARD_SIZE
    assert unreadable(run) == []
    assert not verify(VerifyConfig(run), confine=False).found
    assert json.loads((run / "manifest.json").read_text())["totals"]["status"]["unreadable"] == 0
    others = [name for name in before if not name.startswith("shard-00001")]
    assert all((run / "shards" / name).read_bytes() == before[name] for name in others)
    with h5py.File(run / "shards/shard-00001.h5") as file, h5py.File(run / "run.h5") as master:
        assert (file["sample_index"][...] == range(8, 16)).all()
        assert np.isfinite(master["logits"][...]).all()


def test_trying_again_never_makes_a_readable_image_unreadable(checkpoint, manifest, tmp_path):
    run, moved = tmp_path / "run", away(manifest, range(9, 12))
    explain(config(checkpoint, manifest, run))
    back(moved)
    (manifest.parent / "server/12.png").write_bytes(b"\0" * (manifest.parent / "server/12.png").stat().st_size)
    before = (run / "shards/shard-00001.h5").read_bytes()
    assert explain(config(checkpoint, manifest, run, retry_unreadable=True)).samples == 0
    assert (run / "shards/shard-00001.h5").read_bytes() == before


def test_trying_again_refuses_an_image_that_was_replaced(checkpoint, manifest, tmp_path):
    run, moved = tmp_path / "run", away(manifest, range(9, 12))
    explain(config(checkpoint, manifest, run))
    back(moved)
    changed = bytearray((manifest.parent / "server/12.png").read_bytes())
    changed[-1] ^= 1  # behind the pixels
    (manifest.parent / "server/12.png").write_bytes(changed)
    with pytest.raises(DatasetError, match=r"shard-00001\.h5: sample 12 is another image now"):
        explain(config(checkpoint, manifest, run, retry_unreadable=True))
