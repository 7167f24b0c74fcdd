"""Networks of other channels than three, deep images and DICOM, through every command, against torch and numpy."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from batchcam.pictures.originals import open_originals
from batchcam.store.opening import open_run
from tests.helpers import networks
from tests.helpers.networks import five_channels, grey_findings
from tests.helpers.synthetic import run_command

COMPUTE = ("-j", 0, "--threads", 1, "--device", "cpu")
SIDE = 24
VIEW = ("--image-size", SIDE)
XRAYS = ("--mean", 0.5, "--std", 1 / 2048)
"""torchxrayvision's values, from -1024 to 1024."""

FINDINGS = [f"Finding {number}" for number in range(18)]
CLASSES = ("ant", "bee", "cat")


def chexpert(folder: Path, count: int, findings: Sequence[str]) -> Path:
    """Write grey images and a table as CheXpert's; return the table."""
    random = np.random.default_rng(0)
    with (folder / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Path", "Sex", *findings])
        for number in range(count):
            blocks = random.integers(0, 256, (SIDE // 4, SIDE // 4)).astype(np.uint8)
            Image.fromarray(np.kron(blocks, np.ones((4, 4), np.uint8))).save(folder / f"{number}.png")
            answers = random.choice(["1.0", "0.0", "-1.0", ""], len(findings))
            table.writerow([f"{number}.png", "Female" if number % 2 else "Male", *answers])
    return folder / "train.csv"


def class_folders(folder: Path, arrays: Sequence[np.ndarray]) -> Path:
    """Save arrays as .npy files in two folders; return the folder above."""
    for number, array in enumerate(arrays):
        (folder / CLASSES[number % 3]).mkdir(parents=True, exist_ok=True)
        np.save(folder / CLASSES[number % 3] / f"{number}.npy", array)
    return folder


def succeed(*words: object) -> str:
    code, out, err = run_command(*words)
    assert code == 0, err
    return out + err


def saved(network: nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


def column(run: Path, name: str) -> np.ndarray:
    with h5py.File(run / "run.h5") as file:
        return file[name][...]


def every_command_ends_well(
    run: Path, table: Path, network: Sequence[object], out: Path, view: Sequence[object] = (*VIEW, *XRAYS)
) -> None:
    data = ("--columns", "path=Path")
    again = ("--checkpoint", *network, "--data", table, *data, "--recompute", 3, "--device", "cpu")
    succeed("info", run)
    succeed("verify", run)
    succeed("verify", run, *again)
    succeed("report", run, "--out", out / "report.html")
    succeed("render", run, "--out", out / "pictures")
    for kind in ("csv", "png"):
        succeed("export", run, "--to", kind, "--out", out / kind)
    assert "AUROC" in succeed("evaluate", network[0], table, *network[1:], *data, *view, *COMPUTE)
    assert len(list((out / "pictures").glob("*.png"))) > 0


def test_a_grey_network_of_many_findings_explains_grey_files_in_every_command(tmp_path: Path) -> None:
    table, names = chexpert(tmp_path, 6, FINDINGS), tmp_path / "names.txt"
    names.write_text("\n".join(FINDINGS))
    network = grey_findings()
    given = (saved(network, tmp_path / "grey.pth"), "--model", "tests.helpers.networks:grey_findings")
    given += ("--class-names", names)
    run, view = tmp_path / "run", ("--columns", "path=Path", *VIEW, *XRAYS)
    told = succeed("explain", given[0], table, *given[1:], *view, *COMPUTE, "--out", run)
    assert "channels: the network takes 1: images in grey" in told
    assert column(run, "identity_residual").max() < 1e-4
    images = np.stack([np.asarray(Image.open(tmp_path / f"{number}.png")) for number in range(6)])[:, None]
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy((images / 255 * 2 - 1).astype(np.float32) * 1024))
    np.testing.assert_allclose(column(run, "logits"), logits, rtol=1e-4, atol=1e-3)
    every_command_ends_well(run, table, given, tmp_path / "out")
    with open_run(run) as opened:
        shown = open_originals(opened, None).read(opened.sample(opened.sample_id[2])).image
    np.testing.assert_array_equal(shown, np.repeat(images[2, 0][..., None], 3, 2))


def test_a_colour_file_is_grey_for_a_grey_network_and_so_are_its_pictures(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    (tmp_path / "data").mkdir()
    Image.fromarray(colours).save(tmp_path / "data" / "0.png")
    weights = saved(grey_findings(), tmp_path / "grey.pth")
    model = ("--model", "tests.helpers.networks:grey_findings", "--mean", 0, "--std", 1)
    succeed("explain", weights, tmp_path / "data", *model, *VIEW, *COMPUTE, "--out", tmp_path / "run")
    grey = colours @ [0.299, 0.587, 0.114]
    with torch.no_grad():
        logits = grey_findings().eval()(torch.from_numpy((grey / 255).astype(np.float32))[None, None])
    np.testing.assert_allclose(column(tmp_path / "run", "logits"), logits, atol=1e-3)
    with open_run(tmp_path / "run") as run:
        shown = open_originals(run, None).read(run.sample("0.png")).image
    assert np.abs(shown - grey[..., None]).max() <= 1


def test_a_network_of_five_channels_explains_arrays_and_shows_the_first_three(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).normal(100, 50, (6, 5, SIDE, SIDE)).astype(np.float32)
    data = class_folders(tmp_path / "data", arrays)
    network = five_channels()
    weights = saved(network, tmp_path / "five.pth")
    mean, std = np.arange(1, 6) / 10, np.arange(1, 6) / 5
    view = (*VIEW, "--mean", ",".join(map(str, mean)), "--std", ",".join(map(str, std)), "--range", "0,200")
    words = (weights, data, "--model", "tests.helpers.networks:five_channels", *view, *COMPUTE)
    told = succeed("explain", *words, "--out", tmp_path / "run")
    assert "channels: the network takes 5, as stored; pictures show the first three" in told
    assert "range: stored values from 0 to 200 become 0 to 1" in told
    values = (arrays / 200).clip(0, 1)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy((values - mean[:, None, None]) / std[:, None, None]).float())
    order = [0, 3, 1, 4, 2, 5]  # by class
    np.testing.assert_allclose(column(tmp_path / "run", "logits"), expected[order], atol=1e-5)
    with open_run(tmp_path / "run") as run:
        sample = run.sample(run.sample_id[0])
        shown = open_originals(run, None).read(sample).image
        assert run.plan.preprocessing["range"] == [0.0, 200.0]
    number = int(Path(sample.id).stem)
    np.testing.assert_array_equal(shown, np.rint(255 * values[number, :3]).transpose(1, 2, 0))
    again = ("--checkpoint", weights, "--model", words[3], "--data", data, "--recompute", 6, "--device", "cpu")
    succeed("verify", tmp_path / "run", *again)
    succeed("faithfulness", tmp_path / "run", *again[:6], "--steps", 4, "--device", "cpu")
    code, _, err = run_command("verify", tmp_path / "run", *again, "--range", "0,100")
    assert (code, "the run's preprocessing is another one" in err) == (2, True)
    code, _, err = run_command("explain", *words, "--range", "0,100", "--out", tmp_path / "run")
    assert (code, "preprocessing" in err) == (1, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mean", "0.1,0.2,0.3", "--std", 1), "--mean and --std are of 3 channels, the network takes 1"),
        (("--preprocess", "imagenet"), "--mean and --std are of 3 channels, the network takes 1"),
        (("--mean", "0.1,0.2", "--std", "1,1,1"), "std: .*: expected 2 numbers"),
        (("--mean", 0, "--std", 1, "--bits", 12, "--range", "0,1"), "--bits and --range exclude each other"),
        (("--mean", 0, "--std", 1, "--range", "1,1"), "expected LOW,HIGH, such as 0,4095"),
    ],
)
def test_what_contradicts_the_network_or_itself_is_refused(options: Any, message: str, tmp_path: Path) -> None:
    table = chexpert(tmp_path, 1, FINDINGS)
    words = (saved(grey_findings(), tmp_path / "grey.pth"), table, "--model", "tests.helpers.networks:grey_findings")
    words += ("--columns", "path=Path")
    code, _, err = run_command("explain", *words, *VIEW, *options, *COMPUTE, "--out", tmp_path / "run")
    assert code == 2
    assert re.search(message, err)


def test_one_number_goes_for_every_channel_of_any_count(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 5)).astype(np.uint8)
    words = (saved(five_channels(), tmp_path / "five.pth"), class_folders(tmp_path / "data", arrays))
    words += ("--model", "tests.helpers.networks:five_channels", "--preprocess", "stl10", *VIEW, *COMPUTE)
    succeed("explain", *words, "--fit", "pad", "--out", tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        said = run.plan.preprocessing
    assert (said["mean"], said["std"], said["pad"]) == ([0.5] * 5, [0.5] * 5, [128] * 5)


def test_a_range_of_eight_bits_gives_the_record_of_bytes(tmp_path: Path) -> None:
    """Nearly so: bytes are rounded once more where they are resized."""
    table = chexpert(tmp_path, 3, FINDINGS)
    words = (saved(grey_findings(), tmp_path / "grey.pth"), table, "--model", "tests.helpers.networks:grey_findings")
    words += ("--columns", "path=Path", *VIEW, "--mean", 0.5, "--std", 0.5, *COMPUTE)
    succeed("explain", *words, "--out", tmp_path / "bytes")
    succeed("explain", *words, "--range", "0,255", "--out", tmp_path / "floats")
    logits = [column(tmp_path / run, "logits") for run in ("bytes", "floats")]
    np.testing.assert_allclose(*logits, atol=1e-5)
    ids = []
    for name in ("bytes", "floats"):
        with open_run(tmp_path / name) as run:
            ids.append(run.plan.run_id)
    assert ids[0] != ids[1]


def test_deep_images_keep_all_bits_and_are_the_same_whoever_decodes_them(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (4, SIDE, SIDE)).astype(np.uint16)
    (tmp_path / "data").mkdir()
    for number, array in enumerate(deep):
        cv2.imwrite(str(tmp_path / "data" / f"{number}.png"), array)
    words = (saved(grey_findings(), tmp_path / "grey.pth"), tmp_path / "data", *VIEW, "--mean", 0.5, "--std", 0.5)
    words += ("--model", "tests.helpers.networks:grey_findings", "--range", "0,4095", "--device", "cpu", "--threads", 1)
    for processes in (0, 2):
        succeed("explain", *words, "-j", processes, "-b", 2, "--out", tmp_path / f"run{processes}")
    with torch.no_grad():
        values = torch.from_numpy((deep / 4095).astype(np.float32))[:, None]
        logits = grey_findings().eval()((values - 0.5) / 0.5)
    np.testing.assert_allclose(column(tmp_path / "run0", "logits"), logits, atol=1e-5)
    shards = [next((tmp_path / f"run{n}" / "shards").glob("*.h5")).read_bytes() for n in (0, 2)]
    assert shards[0] == shards[1]


def test_dicom_files_are_explained_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from tests.images.test_dicom import WINDOW, dicom, windowed

    (tmp_path / "data").mkdir()
    deep = np.random.default_rng(0).integers(0, 4096, (4, SIDE, SIDE)).astype(np.uint16)
    for number, array in enumerate(deep):
        (tmp_path / "data" / f"{number}{'.dcm' if number else '.png'}").write_bytes(dicom(array, **WINDOW))
    weights, data = saved(grey_findings(), tmp_path / "grey.pth"), tmp_path / "data"
    model = ("--model", "tests.helpers.networks:grey_findings", "--device", "cpu")
    told = succeed("explain", weights, data, *model, *VIEW, *XRAYS, "-j", 2, "--out", tmp_path / "run")
    assert "DICOM: grey values by the first window of each file" in told
    with open_run(tmp_path / "run") as run:
        originals = open_originals(run, None)
        for number, array in enumerate(deep):
            shown = originals.read(run.sample(run.sample_id[number])).image
            assert np.abs(shown[..., 0].astype(int) - windowed(array)).max() <= 1
    succeed("report", tmp_path / "run", "--out", tmp_path / "report.html")
    succeed("verify", tmp_path / "run", "--checkpoint", weights, "--data", data, *model, "--recompute", 2)


def _chexnet() -> nn.Module:
    return pytest.importorskip("torchxrayvision").models.DenseNet(num_classes=18, in_channels=1)


def _monai() -> nn.Module:
    nets = pytest.importorskip("monai.networks.nets")
    return nets.DenseNet121(spatial_dims=2, in_channels=1, out_channels=18)


@pytest.mark.slow
@pytest.mark.parametrize("build", [_chexnet, _monai], ids=["torchxrayvision", "monai"])
def test_networks_for_chest_x_rays_are_explained_in_every_command(build, tmp_path, monkeypatch) -> None:
    table, names = chexpert(tmp_path, 6, FINDINGS), tmp_path / "names.txt"
    names.write_text("\n".join(FINDINGS))
    torch.manual_seed(0)
    network = build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():  # statistics of these values, as training would leave them
        network.train()(torch.rand(8, 1, 224, 224) * 2048 - 1024)
    weights = saved(network, tmp_path / "net.pth")
    monkeypatch.setattr(networks, "built_elsewhere", build, raising=False)
    given = (weights, "--model", "tests.helpers.networks:built_elsewhere", "--class-names", names)
    view = ("--image-size", 224, *XRAYS)
    run = tmp_path / "run"
    succeed("explain", *given[:1], table, *given[1:], "--columns", "path=Path", *view, *COMPUTE, "--out", run)
    assert column(run, "identity_residual").max() < 1e-4
    assert np.ptp(column(run, "logits")) > 0.01
    every_command_ends_well(run, table, given, tmp_path / "out", view)
