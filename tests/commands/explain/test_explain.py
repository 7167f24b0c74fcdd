"""explain as a whole: same bytes however it ran, refusals before anything is written, bad samples as rows."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
import torchvision

from batchcam.commands.explain import work
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.explain.planning import bytes_of
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.shared import Classifier, Compute
from batchcam.data import samples
from batchcam.errors import (
    EXIT_STOPPED_EARLY,
    ConfigError,
    DatasetError,
    ModelError,
    RunError,
    StoppedEarlyError,
    StorageFullError,
)
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.planes import Decoding
from batchcam.job.stop import Stop
from batchcam.maps.explainer import Explainer
from batchcam.network.checkpoint import pack_checkpoint
from batchcam.pictures.originals import open_originals
from batchcam.rules import Status
from batchcam.store import master
from batchcam.store.opening import open_run
from tests.helpers import networks
from tests.helpers.networks import seeded

CLASSES = ("ant", "bee", "cat")
PREPROCESSING = {
    "resize": [32],
    "image_size": [32, 32],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bilinear",
}
SAMPLES = 40
SHARD_SIZE = 8


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"maps": "none", "cams": "predicted", "class_names": tuple(f"class {k}" for k in range(300)), "channels": 300},
        {"shard_size": 1, "maps": "none", "cams": "predicted"},
        {"sample_count": 400, "shard_size": 300, "maps": "float32"},
    ],
)
def test_files_are_no_larger_than_was_told_before(make_run, make_plan, changes):
    plan = make_plan(**changes)
    size = sum(p.stat().st_size for p in make_run(**changes).rglob("*.h5"))
    assert size < bytes_of(plan, plan.shards)
    assert bytes_of(plan, []) == 0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "model.pth", seed=0)


def write_checkpoint(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    network = torchvision.models.resnet18(weights=None, num_classes=len(CLASSES))
    path.write_bytes(pack_checkpoint(network.state_dict(), "resnet18", CLASSES, PREPROCESSING, {"epoch": 1}))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder of 40 images of 32 px in three classes, of uneven numbers."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(1)
    for number in range(SAMPLES):
        folder = root / CLASSES[number % 7 % 3]
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{number:03d}.png"), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    return root


def config(checkpoint: Path, data: Path | str, out: Path, **changes) -> ExplainConfig:
    compute = Compute(batch_size=3, workers=changes.pop("workers", 0), threads=1, device="cpu")
    settings = {"compute": compute, "shard_size": SHARD_SIZE, "quiet": True, **changes}
    return ExplainConfig(Classifier(checkpoint), str(data), out, **settings)


def digests(run: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((run / "shards").iterdir())}


@pytest.fixture(scope="module")
def reference(tmp_path_factory, checkpoint, images) -> Path:
    """The run of one uninterrupted worker."""
    run = tmp_path_factory.mktemp("reference") / "run"
    summary = explain(config(checkpoint, images, run))
    assert summary.complete
    assert summary.samples == SAMPLES
    return run


def test_finished_run_has_every_file_of_the_design_and_verifies(reference):
    assert sorted(p.name for p in reference.iterdir() if not p.match("task-*.json")) == [
        "manifest.json", "run.h5", "run.h5.sha256", "run.json", "samples.h5", "shards",
    ]  # fmt: skip
    assert len(list(reference.glob("task-*.json"))) == 1
    assert len(digests(reference)) == 2 * SAMPLES // SHARD_SIZE
    assert verify(VerifyConfig(reference, quiet=True), confine=False).found == []


def test_shards_are_byte_identical_when_explained_twice(reference, checkpoint, images, tmp_path):
    explain(config(checkpoint, images, tmp_path / "run"))
    assert digests(tmp_path / "run") == digests(reference)


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_are_byte_identical_with_loader_processes(reference, checkpoint, images, tmp_path, workers):
    explain(config(checkpoint, images, tmp_path / "run", workers=workers))
    assert digests(tmp_path / "run") == digests(reference)


@pytest.mark.parametrize("tasks", [2, 5])
def test_shards_are_byte_identical_when_tasks_share_the_work_and_the_last_one_merges(
    reference, checkpoint, images, tmp_path, tasks
):
    run = tmp_path / "run"
    summaries = [explain(config(checkpoint, images, run, task=f"{i}/{tasks}")) for i in reversed(range(tasks))]
    assert [s.complete for s in summaries] == [False] * (tasks - 1) + [True]
    assert sum(s.samples for s in summaries) == SAMPLES
    assert digests(run) == digests(reference)
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []


def command(checkpoint: Path, images: Path, run: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "batchcam", "explain", str(checkpoint), str(images), "--out", str(run), "-b", "3",
        "-j", "1", "--threads", "1", "--device", "cpu", "--shard-size", str(SHARD_SIZE), *more,
    ]  # fmt: skip


def test_shards_are_byte_identical_after_sigkill_in_the_middle_and_a_rerun(reference, checkpoint, images, tmp_path):
    run = tmp_path / "run"
    worker = subprocess.Popen(command(checkpoint, images, run), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(run.glob("shards/shard-*.h5")) and time.monotonic() < deadline:
        time.sleep(0.001)
    worker.kill()
    worker.wait()
    assert not (run / "manifest.json").exists()
    assert explain(config(checkpoint, images, run)).complete
    assert digests(run) == digests(reference)
    assert not list(run.rglob(".*.partial"))


def test_a_record_has_the_peak_memory_of_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: {"cuda:1": 7}[str(device)])
    assert work._peak_gpu_memory(torch.device("cuda:1")) == {"peak_memory_gpu_bytes": 7}
    assert work._peak_gpu_memory(torch.device("cpu")) == {}


def test_the_record_of_a_task_says_where_its_time_went(reference):
    (task,) = reference.glob("task-*.json")
    record = json.loads(task.read_text())
    spent = [record[f"seconds_{stage}"] for stage in ("waiting_for_images", "explaining", "storing")]
    assert min(spent) > 0
    assert record["seconds_landing"] > 0
    assert sum(spent) <= record["seconds"]


def test_sigterm_stops_within_a_batch_with_exit_75_and_the_rerun_gives_the_same_bytes(
    reference, checkpoint, images, tmp_path
):
    run = tmp_path / "run"
    worker = subprocess.Popen(command(checkpoint, images, run), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(run.glob("shards/shard-*.h5")) and time.monotonic() < deadline:
        time.sleep(0.001)
    worker.send_signal(signal.SIGTERM)
    _, stderr = worker.communicate(timeout=30)
    if worker.returncode == 0:
        pytest.skip("this machine finished before the signal came")
    assert worker.returncode == EXIT_STOPPED_EARLY
    assert b"stopped by SIGTERM; run the same command again to go on" in stderr
    (task,) = run.glob("task-*.json")
    said = json.loads(task.read_text())
    assert (said["outcome"], said["reason"]) == (
        "stopped early",
        "stopped by SIGTERM; run the same command again to go on",
    )
    assert explain(config(checkpoint, images, run)).complete
    assert digests(run) == digests(reference)


def test_sigterm_while_torch_is_being_imported_ends_with_exit_75(checkpoint, images, tmp_path):
    worker = subprocess.Popen(command(checkpoint, images, tmp_path / "run"), stderr=subprocess.PIPE)
    maps = Path(f"/proc/{worker.pid}/maps")
    deadline = time.monotonic() + 60
    while "libtorch" not in maps.read_text() and time.monotonic() < deadline:
        time.sleep(0.001)
    worker.send_signal(signal.SIGTERM)
    _, stderr = worker.communicate(timeout=60)
    assert worker.returncode == EXIT_STOPPED_EARLY, stderr
    assert not list((tmp_path / "run").glob("shards/*.h5"))


class Countdown(Stop):
    """Gives a reason at the nth batch."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def reason(self) -> str | None:
        self.left -= 1
        return None if self.left >= 0 else "a test"


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_the_next_batches_are_submitted_before_the_last_one_is_waited_for(
    checkpoint, images, reference, tmp_path, monkeypatch, ahead
):
    monkeypatch.setattr(work, "batches_ahead", lambda device: ahead)
    events, numbers = [], itertools.count()
    submit = Explainer.submit

    def logged(explainer, pixels, labels, unreadable):
        number = next(numbers)
        events.append(("submit", number))
        submitted = submit(explainer, pixels, labels, unreadable)
        result = submitted.result
        submitted.result = lambda: events.append(("result", number)) or result()
        return submitted

    monkeypatch.setattr(Explainer, "submit", logged)
    explain(config(checkpoint, images, tmp_path / "run"))
    batches = SAMPLES // SHARD_SIZE * 3
    expected = [("submit", number) for number in range(ahead)]
    for number in range(ahead, batches):
        expected += [("submit", number), ("result", number - ahead)]
    assert events == [*expected, *(("result", number) for number in range(batches - ahead, batches))]
    assert digests(tmp_path / "run") == digests(reference)


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("batches", [0, 1, 3, 4, 6, 14])
def test_a_shard_whose_batches_were_all_begun_lands_before_the_stop(
    checkpoint, images, reference, tmp_path, monkeypatch, batches, ahead
):
    monkeypatch.setattr(work, "batches_ahead", lambda device: ahead)
    with Countdown(batches), pytest.raises(StoppedEarlyError, match="stopped by a test"):
        explain(config(checkpoint, images, tmp_path / "run"))
    landed = digests(tmp_path / "run")
    assert len(landed) == 2 * (batches // 3)  # a digest beside each
    assert landed.items() <= digests(reference).items()


def test_a_job_outlives_the_folder_that_it_was_started_in(checkpoint, images, reference, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert explain(config(checkpoint, images, tmp_path / "run")).complete
    assert digests(tmp_path / "run") == digests(reference)


def test_only_a_gpu_is_given_a_batch_ahead():
    assert [work.batches_ahead(torch.device(name)) for name in ("cpu", "cuda", "cuda:1")] == [0, 1, 1]


def test_time_limit_stops_early_and_leaves_what_landed(checkpoint, images, tmp_path):
    with pytest.raises(StoppedEarlyError, match="time limit"):
        explain(config(checkpoint, images, tmp_path / "run", time_limit_s=0))
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_full_disk_ends_with_exit_75_and_the_rerun_gives_the_same_bytes(
    reference, checkpoint, images, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    real_write, room = os.write, [150_000]

    def write(descriptor, data):
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(StorageFullError, match="No space left on device; make room and run the same command again"):
            explain(config(checkpoint, images, run))
    assert 0 < len(list(run.glob("shards/shard-*.h5"))) < SAMPLES // SHARD_SIZE
    assert explain(config(checkpoint, images, run)).complete
    assert digests(run) == digests(reference)
    assert not list(run.rglob(".*.partial"))


def test_complete_run_is_left_alone_by_a_rerun(reference, checkpoint, images):
    before = {p: p.read_bytes() for p in reference.rglob("*") if p.is_file()}
    summary = explain(config(checkpoint, images, reference))
    assert (summary.samples, summary.complete) == (0, True)
    assert {p: p.read_bytes() for p in reference.rglob("*") if p.is_file()} == before


def test_shard_that_was_removed_for_repair_is_made_again_with_the_same_bytes(
    reference, checkpoint, images, tmp_path, monkeypatch
):
    run, opened, real = tmp_path / "run", [], master.open_checked
    explain(config(checkpoint, images, run))
    for path in (run / "shards").glob("shard-00002*"):
        path.unlink()
    assert [f.kind.value for f in verify(VerifyConfig(run, quiet=True), confine=False).found] == ["file-missing"]
    monkeypatch.setattr(master, "open_checked", lambda *each: opened.append(each[0].name) or real(*each))
    assert explain(config(checkpoint, images, run)).shards == 1
    assert opened == ["shard-00000.h5"]  # for the classifier: with the same bytes, its rows are those of run.h5
    assert digests(run) == digests(reference)
    assert (run / "run.h5").read_bytes() == (reference / "run.h5").read_bytes()
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []


def test_other_checkpoint_is_refused_and_the_run_stays_as_it_was(reference, images, tmp_path):
    other = write_checkpoint(tmp_path / "other.pth", seed=9)
    before = {p: p.read_bytes() for p in reference.rglob("*") if p.is_file()}
    with pytest.raises(RunError, match=r"belongs to another run: checkpoint sha256"):
        explain(config(other, images, reference))
    assert {p: p.read_bytes() for p in reference.rglob("*") if p.is_file()} == before


def test_other_data_is_refused(reference, checkpoint, images, tmp_path):
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "other.png").write_bytes((images / "ant" / "000.png").read_bytes())
    with pytest.raises(DatasetError, match="not the dataset of this run: it has none of its"):
        explain(config(checkpoint, tmp_path, reference))


def test_other_batch_size_is_refused_by_name_and_the_run_gives_it_when_it_is_left_out(reference, checkpoint, images):
    with pytest.raises(RunError, match=r"was planned otherwise: batch size \(3 there, 5 here\)"):
        explain(
            config(checkpoint, images, reference, compute=Compute(batch_size=5, workers=0, threads=1, device="cpu"))
        )
    left_out = config(
        checkpoint, images, reference, compute=Compute(workers=0, threads=1, device="cpu"), shard_size=None
    )
    assert explain(left_out).complete


def test_seeds_layer_is_refused_with_its_residual_before_anything_is_written(checkpoint, images, tmp_path):
    with pytest.raises(
        ModelError, match=r"'layer4.1.bn2' is not what the classifier pools: .* misses the logit by [0-9.]+"
    ):
        explain(config(checkpoint, images, tmp_path / "run", target_layer="layer4.1.bn2"))
    assert not (tmp_path / "run").exists()


def test_seeds_layer_is_explained_when_the_identity_is_waived_and_the_record_says_so(checkpoint, images, tmp_path):
    run = tmp_path / "run"
    explain(config(checkpoint, images, run, target_layer="layer4.1.bn2", identity=False))
    assert json.loads((run / "run.json").read_text())["plan"]["identity"] is False
    with h5py.File(run / "shards" / "shard-00000.h5") as shard:
        assert shard["identity_residual"][...].max() > 0.01
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []


def test_target_layer_that_is_left_out_is_that_of_the_run(checkpoint, images, tmp_path):
    run = tmp_path / "run"
    explain(config(checkpoint, images, run, target_layer="layer4.1.bn2", identity=False))
    assert explain(config(checkpoint, images, run, identity=False)).complete
    with pytest.raises(ModelError, match=r"'layer4.1.bn2' is not what the classifier pools"):
        explain(config(checkpoint, images, run))


def test_a_disk_too_small_for_the_run_is_told_before_it_starts(checkpoint, images, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    explain(config(checkpoint, images, tmp_path / "run", dry_run=True))
    assert "warning: " + str(tmp_path) + " may be too small: 1 kB free for up to" in capsys.readouterr().err


def test_fp16_on_a_cpu_is_warned_of(checkpoint, images, tmp_path, capsys):
    compute = Compute(precision="fp16", device="cpu")
    explain(config(checkpoint, images, tmp_path / "run", dry_run=True, compute=compute))
    assert "warning: fp16 on a CPU is many times slower than fp32" in capsys.readouterr().err


def test_more_loader_processes_than_cpus_are_warned_of(checkpoint, images, tmp_path, capsys):
    for workers, warned in ((1024, True), (1, False)):
        compute = Compute(workers=workers, device="cpu")
        explain(config(checkpoint, images, tmp_path / "run", dry_run=True, compute=compute))
        assert ("warning: --workers 1024: this process may use" in capsys.readouterr().err) is warned


def test_dry_run_writes_nothing(checkpoint, images, tmp_path, capsys):
    summary = explain(config(checkpoint, images, tmp_path / "run", dry_run=True, quiet=False))
    assert not (tmp_path / "run").exists()
    assert summary.samples == 0
    assert f"{SAMPLES} samples in 5 shards of {SHARD_SIZE}, 5 to do" in capsys.readouterr().err


def test_bad_image_is_a_row_with_a_status_and_leaves_the_others_bit_identical(reference, checkpoint, images, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    for path in images.rglob("*.png"):
        (data / path.parent.name).mkdir(parents=True, exist_ok=True)
        (data / path.parent.name / path.name).write_bytes(path.read_bytes())
    victim = sorted(data.glob("ant/*.png"))[4]
    victim.write_bytes(b"not a picture")
    summary = explain(config(checkpoint, data, run))
    assert summary.findings == 1
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []
    with h5py.File(run / "shards/shard-00000.h5") as ours, h5py.File(reference / "shards/shard-00000.h5") as whole:
        assert ours["status"][4] == Status.UNREADABLE
        assert ours["error"][4] != b""
        assert ours["label"][4] == whole["label"][4]
        assert ours["prediction"][4] == -1
        assert np.isnan(ours["cams"][4]).all()
        assert not ours["maps"][4].any()
        assert bytes(ours["input_sha256"][4]) == hashlib.sha256(b"not a picture").digest()
        others = [0, 1, 2, 3, 5, 6, 7]
        for name in ("cams", "logits", "maps", "input_sha256"):
            assert np.array_equal(ours[name][others], whole[name][others])


def test_folder_and_stl10_binary_of_the_same_pixels_give_the_same_cams(checkpoint, tmp_path):
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (6, 96, 96, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        folder = tmp_path / "folder" / CLASSES[number // 2]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.png"), picture[:, :, ::-1])
    binary = tmp_path / "stl10_binary"
    binary.mkdir()
    pixels.transpose(0, 3, 2, 1).tofile(binary / "test_X.bin")
    (np.arange(6, dtype=np.uint8) // 2 + 1).tofile(binary / "test_y.bin")
    explain(config(checkpoint, tmp_path / "folder", tmp_path / "a"))
    explain(config(checkpoint, f"stl10:{tmp_path}:test", tmp_path / "b"))
    with h5py.File(tmp_path / "a/run.h5") as folder_run, h5py.File(tmp_path / "b/run.h5") as stl10_run:
        for name in ("cams", "logits", "maps", "label", "prediction"):
            assert np.array_equal(folder_run[name][...], stl10_run[name][...])


@pytest.mark.parametrize(
    ("cams", "maps", "count"), [("predicted", "uint8", 1), ("predicted+label", "float32", 2), ("topk:2", "none", 2)]
)
def test_smaller_records_verify_and_agree_with_the_full_one(reference, checkpoint, images, tmp_path, cams, maps, count):
    run = tmp_path / "run"
    explain(config(checkpoint, images, run, cams=cams, maps=maps))
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []
    with h5py.File(run / "run.h5") as small, h5py.File(reference / "run.h5") as full:
        assert small["cams"].shape[1] == count
        assert ("maps" in small) == (maps != "none")
        picked = np.take_along_axis(full["cams"][...], small["cam_class"][...][:, :, None, None], 1)
        np.testing.assert_allclose(small["cams"][...], picked, rtol=1e-4, atol=1e-5)


def test_verify_explains_samples_again_and_agrees(reference, checkpoint, images):
    again = VerifyConfig(reference, 11, Classifier(checkpoint), str(images), device="cpu", quiet=True)
    summary = verify(again, confine=False)
    assert summary.recomputed == 11
    assert summary.found == []


def test_verify_finds_an_image_that_was_replaced_by_one_of_the_same_size(checkpoint, tmp_path):
    rng = np.random.default_rng(5)
    data = tmp_path / "data"
    for name in CLASSES:
        (data / name).mkdir(parents=True)
        cv2.imwrite(str(data / name / "0.bmp"), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    explain(config(checkpoint, data, tmp_path / "run"))
    cv2.imwrite(str(data / "bee" / "0.bmp"), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    summary = verify(
        VerifyConfig(tmp_path / "run", 3, Classifier(checkpoint), str(data), device="cpu", quiet=True), confine=False
    )
    assert [(f.kind.value, f.first_sample) for f in summary.found] == [("input-changed", 1)]


@pytest.mark.parametrize(
    "name", ["FunctionalReluNetwork", "TwoLinearNetwork", "NormedNetwork", "ConvolutionalHeadNetwork"]
)
def test_every_kind_of_exact_head_is_explained_rerun_and_verified(name, images, tmp_path):
    checkpoint, run = tmp_path / "m.pth", tmp_path / "run"
    torch.save(seeded(getattr(networks, name)).state_dict(), checkpoint)
    classifier = Classifier(checkpoint, model=f"tests.helpers.networks:{name}", preprocess="stl10", image_size="32")
    explain(dataclasses.replace(config(checkpoint, images, run), classifier=classifier))
    next(run.glob("shards/*.h5")).unlink()
    explain(dataclasses.replace(config(checkpoint, images, run), classifier=classifier))
    summary = verify(VerifyConfig(run, 5, classifier, str(images), device="cpu", quiet=True), confine=False)
    assert (summary.recomputed, summary.found) == (5, [])


def test_how_images_fit_is_told_planned_and_part_of_the_run_id_and_padding_is_verified(tmp_path, capsys):
    rng = np.random.default_rng(2)
    sizes = {"ant/low.png": (24, 48), "bee/tall.png": (60, 20), "cat/square.png": (40, 40)}
    for name, size in sizes.items():
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "images" / name), rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), tmp_path / "model.pth")
    said = {"arch": "resnet18", "preprocess": "stl10", "image_size": "32"}
    runs, told, plans = {}, {}, {}
    for fit in ("crop", "pad", "stretch"):
        runs[fit] = config(tmp_path / "model.pth", tmp_path / "images", tmp_path / fit)
        classifier = Classifier(tmp_path / "model.pth", fit=fit, **said)
        runs[fit] = dataclasses.replace(runs[fit], classifier=classifier, quiet=False)
        explain(runs[fit])
        told[fit] = capsys.readouterr().err
        plans[fit] = json.loads((tmp_path / fit / "run.json").read_text())
    assert len({plan["run_id"] for plan in plans.values()}) == 3
    assert plans["pad"]["plan"]["preprocessing"]["pad"] == [128, 128, 128]
    assert "pad [128, 128, 128]" in told["pad"]
    assert not any("pad" in plans[fit]["plan"]["preprocessing"] for fit in ("crop", "stretch"))
    with h5py.File(tmp_path / "pad" / "run.h5") as file:
        boxes = dict(zip(file["sample_id"].asstr()[:], file["crop_box"][:].tolist(), strict=True))
    # 48 columns in 32; 60 rows in 32, so that 20 columns are 10.67, rounded to 11 of 32; a whole square
    assert boxes["ant/low.png"] == pytest.approx([0, -12, 48, 36])
    assert boxes["bee/tall.png"] == pytest.approx([-10 * 20 / 11, 0, 22 * 20 / 11, 60])
    assert boxes["cat/square.png"] == [0, 0, 40, 40]
    images, classifier = str(tmp_path / "images"), runs["pad"].classifier
    assert (
        verify(VerifyConfig(tmp_path / "pad", 3, classifier, images, device="cpu", quiet=True), confine=False).found
        == []
    )
    with pytest.raises(RunError, match="preprocessing"):
        explain(dataclasses.replace(runs["crop"], out=tmp_path / "pad"))


def test_how_pixels_are_made_is_told_planned_and_part_of_the_run_id_whatever_the_checkpoint_says(
    checkpoint, tmp_path, capsys
):
    rng = np.random.default_rng(4)
    for number, name in enumerate(CLASSES * 2):
        (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / name / f"{number}.jpg"), rng.integers(0, 256, (140, 200, 3), np.uint8))
    images = str(tmp_path / "images")
    plans, columns = {}, {}
    for pixels in (None, "pillow", "tensor", "draft"):
        run = tmp_path / str(pixels)
        asked = config(checkpoint, images, run, quiet=False)
        explain(dataclasses.replace(asked, classifier=Classifier(checkpoint, pixels=pixels)))
        told = capsys.readouterr().err
        plans[pixels] = json.loads((run / "run.json").read_text())
        is_said = pixels in ("tensor", "draft")
        assert (f"pixels {pixels}" in told, "pixels: " in told) == (is_said, is_said)
        assert plans[pixels]["plan"]["preprocessing"].get("pixels") == (pixels if is_said else None)
        with h5py.File(run / "run.h5") as file:
            columns[pixels] = {name: file[name][:] for name in ("crop_box", "image_size", "input_sha256", "logits")}
        check = VerifyConfig(run, 6, Classifier(checkpoint), images, device="cpu", quiet=True)
        assert verify(check, confine=False).found == []
    assert len({plan["run_id"] for plan in plans.values()}) == 3
    assert digests(tmp_path / "None") == digests(tmp_path / "pillow")
    for name in ("crop_box", "image_size", "input_sha256"):
        assert all((each[name] == columns[None][name]).all() for each in columns.values())
    assert len({each["logits"].tobytes() for each in columns.values()}) == 3
    with pytest.raises(ConfigError, match=r"the run's preprocessing is another one: .*'pixels': 'draft'"):
        verify(dataclasses.replace(check, classifier=Classifier(checkpoint, pixels="pillow")), confine=False)
    with pytest.raises(RunError, match="preprocessing"):
        explain(dataclasses.replace(asked, classifier=Classifier(checkpoint, pixels="tensor")))


def test_images_of_12_bits_in_16_are_refused_or_read_as_the_user_says_and_so_are_the_originals(
    checkpoint, tmp_path, capsys
):
    rng = np.random.default_rng(3)
    for number, name in enumerate(CLASSES * 2):
        (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
        values = rng.integers(0, 4096, (32, 32)).astype(np.uint16)
        cv2.imwrite(str(tmp_path / "images" / name / f"{number}.png"), values)
    images = str(tmp_path / "images")
    with pytest.raises(DatasetError, match=r"16-bit values of at most \d+: a dark image, or one of fewer bits"):
        explain(config(checkpoint, images, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    runs = {}
    for bits in (12, 16):
        runs[bits] = tmp_path / str(bits)
        asked = config(checkpoint, images, runs[bits], quiet=False)
        explain(dataclasses.replace(asked, classifier=Classifier(checkpoint, bits=bits)))
        assert f"bits {bits}" in capsys.readouterr().err
        with open_run(runs[bits]) as run:
            assert run.plan.preprocessing["bits"] == bits
            original = open_originals(run, None).read(run.sample(run.sample_id[0]))
            stored = cv2.imread(f"{images}/{run.sample_id[0]}", cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(original.image[..., 0], stored >> (bits - 8))
        check = VerifyConfig(runs[bits], 6, Classifier(checkpoint), images, device="cpu", quiet=True)
        assert verify(check, confine=False).found == []
    assert digests(runs[12]) != digests(runs[16])
    with pytest.raises(ConfigError, match=r"the run's preprocessing is another one: .*'bits': 12"):
        verify(dataclasses.replace(check, run=runs[12], classifier=Classifier(checkpoint, bits=16)), confine=False)
    with pytest.raises(RunError, match="preprocessing"):
        explain(dataclasses.replace(asked, out=runs[12], classifier=Classifier(checkpoint, bits=16)))


def test_recompute_tells_a_sample_that_was_recorded_as_unreadable_and_is_not(checkpoint, images, tmp_path, monkeypatch):
    run, real = tmp_path / "run", samples.decode_image
    hidden = sorted(images.rglob("*.png"))[5].read_bytes()

    def decode_image(data: bytes, decoding: Decoding):
        if data == hidden:
            raise UnreadableImageError("hidden")
        return real(data, decoding)

    with monkeypatch.context() as patch:
        patch.setattr(samples, "decode_image", decode_image)
        explain(config(checkpoint, images, run))
    again = VerifyConfig(run, SAMPLES, Classifier(checkpoint), str(images), device="cpu", quiet=True)
    (found,) = verify(again, confine=False).found
    assert (found.array, found.rows) == ("status", 1)
    assert "the image can be read now, or no longer" in found.message


@pytest.mark.parametrize("content", [b"", b"0" * 64])
def test_a_shard_whose_digest_was_cut_short_is_made_again(checkpoint, images, reference, tmp_path, content):
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    (run / "shards" / "shard-00001.h5.sha256").write_bytes(content)
    explain(config(checkpoint, images, run))
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []
    assert digests(run) == digests(reference)


def test_verify_takes_from_the_run_what_a_bare_state_dict_does_not_say(images, tmp_path):
    checkpoint, run = tmp_path / "bare.pth", tmp_path / "run"
    torch.save(networks.torchvision_network("resnet18", len(CLASSES)).state_dict(), checkpoint)
    said = Classifier(checkpoint, arch="resnet18", image_size="32", mean="0.4", std="0.3")
    explain(dataclasses.replace(config(checkpoint, images, run), classifier=said))
    summary = verify(VerifyConfig(run, 5, Classifier(checkpoint), str(images), device="cpu", quiet=True), confine=False)
    assert (summary.recomputed, summary.found) == (5, [])
