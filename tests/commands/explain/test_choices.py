"""Nothing is chosen in silence: what explain decides for the user is told before it starts, and stands in run.json."""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from batchcam.commands.explain.config import ExplainConfig
from batchcam.config.options import members
from batchcam.config.shared import Classifier, Compute
from batchcam.network.checkpoint import pack_checkpoint
from tests.helpers.desk import NAMES, SAID, SMALL, Desk, pixels, state
from tests.helpers.networks import CHANNELS, GapNetwork, seeded, torchvision_network
from tests.helpers.synthetic import run_command

HERE = __name__
NFC, NFD = (unicodedata.normalize(form, "Bär") for form in ("NFC", "NFD"))

Said = tuple[str, dict[str, Any]]
"""The preflight text and run.json."""


class SoftmaxNetwork(GapNetwork):
    """A network that returns probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.end = nn.Softmax(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.end(super().forward(images))


def ten_classes() -> nn.Module:
    network = GapNetwork()
    network.head = nn.Linear(CHANNELS, 10)
    return network


class Items:
    """A dataset of the user's own whose labels only its items tell."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index == 2:
            raise ValueError("torn")
        return pixels(index), index


def nothing(desk: Desk) -> None:
    """Leave the desk as it is."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """Something that explain decides where the user says nothing.

    Attributes:
        told: how the preflight text tells it, a pattern; its group is what run.json says.
        recorded: where run.json says it.
        cause: what has to be so that it is decided.
    """

    told: str
    recorded: tuple[str, ...] = ("origin", "remarks")
    cause: Callable[[Desk], None] = nothing


def plan(*names: str) -> tuple[str, ...]:
    return ("plan", *names)


def view(name: str) -> tuple[str, ...]:
    return ("plan", "preprocessing", name)


def resource(name: str) -> tuple[str, ...]:
    return ("origin", "resources", name)


def inception(desk: Desk) -> None:
    desk.model = ""
    desk.save(state(torchvision_network("googlenet", 3)))
    desk.words = ("--arch", "googlenet", "--image-size", 32)


def averaged(desk: Desk) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in state().items()}
    desk.save({"model": wrapped, "model_ema": state(seeded(GapNetwork, 1))})


def trained(desk: Desk) -> None:
    inner = {f"net.{name}": tensor for name, tensor in state().items()}
    desk.save({"state_dict": {**inner, "criterion.weight": torch.ones(3)}, "classes": NAMES[:2]})


def moved_head(desk: Desk) -> None:
    network = torchvision_network(SMALL, 3)
    network.fc = nn.Sequential(nn.Dropout(), network.fc)
    desk.model = ""
    desk.save(state(network))
    desk.words = ("--arch", SMALL, "--image-size", 32)


def probabilities(desk: Desk) -> None:
    desk.model = f"{HERE}:SoftmaxNetwork"


def renamed(desk: Desk) -> None:
    """Let the checkpoint say names in another Unicode form than dataset and options."""
    desk.save({"state_dict": state(), "classes": [NFC, "bee", "cat"]})
    desk.class_folders(NFD, "bee", "cat")
    desk.class_names(NFD, "bee", "cat")


def full_folders(desk: Desk) -> None:
    root = desk.class_folders(*NAMES)
    for path in ("dog/a.txt", "ant/notes.txt", "ant/.2.png", "2.png", "@eaDir/1.png"):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).touch()
    (root / "ant/again").symlink_to(root / "ant")
    (root / "ant/gone").symlink_to(root / "nowhere")
    os.mkfifo(root / "ant/3.png")


def numbered_folders(desk: Desk) -> None:
    desk.class_folders("1", "10", "2")


def umlauts(desk: Desk) -> None:
    desk.class_folders(NFC, "Äpfel", "cat")


def whole_numbers(desk: Desk) -> None:
    desk.manifest(("path", "label"), ("1.png", "0"), ("2.png", "2"), names=NAMES)


def several_labels(desk: Desk) -> None:
    desk.manifest(("path", "label"), ("1.png", "ant|cat"), ("2.png", "bee"), names=NAMES)


def columns_of_labels(desk: Desk) -> None:
    desk.manifest(("path", *NAMES), ("1.png", "1", "1", "0"), ("2.png", "0", "", "0"), names=NAMES)


def numbers_as_names(desk: Desk) -> None:
    rows = (("1.png", "2", "north"), ("2.png", "NULL", "south"))
    desk.manifest(("path", "diagnosis", "site"), *rows, names=("02", "01", "00"))


def found_otherwise(desk: Desk) -> None:
    (desk.folder / NFC).mkdir()
    pixels(2).save(desk.folder / NFC / "3.png")
    rows = ((f"{NFD}/3.png", "north"), (".\\1.png", "south"), (".\\4.png", "east"))
    desk.manifest(("path", "site"), *rows)


def stl10(desk: Desk) -> None:
    desk.model = f"{HERE}:ten_classes"
    desk.save(state(seeded(ten_classes)))
    folder = desk.folder / "stl10_binary"
    folder.mkdir()
    (folder / "train_X.bin").write_bytes(np.random.default_rng(0).integers(0, 256, 2 * 27648, np.uint8).tobytes())
    (folder / "train_y.bin").write_bytes(bytes([1, 10]))
    desk.data = f"stl10:{desk.folder}"


def textures(desk: Desk) -> None:
    root = desk.folder / "dtd/dtd"
    (root / "labels").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        (root / "images" / name).mkdir(parents=True)
        pixels(seed).save(root / "images" / name / "1.png")
    (root / "labels/train1.txt").write_text("".join(f"{name}/1.png\n" for name in NAMES))
    desk.data = f"torchvision:DTD:{desk.folder}"


def own_items(desk: Desk) -> None:
    desk.data = f"python:{HERE}:Items"


def started_by_torchrun(desk: Desk) -> None:
    desk.variables = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}


def in_a_batch_script(desk: Desk) -> None:
    desk.variables = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}


OPTIONS = {
    "arch": Choice(rf"({SMALL}) conv5", plan("architecture")),
    "arch_option": Choice(r"(transform_input=true)", plan("architecture_options"), inception),
    "weights_key": Choice(r"weights: (model); the checkpoint holds others", plan("weights_key"), averaged),
    "class_names": Choice(r"3 classes named by (the checkpoint)", ("origin", "class_names_from")),
    "label_kind": Choice(r"labels are class (indices)", plan("label_kind"), whole_numbers),
    "problem_type": Choice("problem type: multi-label, as the labels say", cause=several_labels),
    "label_separator": Choice(r"separated by '(\|)'", plan("label_separator"), several_labels),
    "findings": Choice("labels are the manifest's columns ant, bee, cat", cause=columns_of_labels),
    "threshold": Choice("thresholds: 0.5", cause=several_labels),
    "image_size": Choice(r"image_size (\[8, 8\])", view("image_size")),
    "resize": Choice(r"resize (\[10\])", view("resize")),
    "crop_pct": Choice(r"resize (\[10\])", view("resize")),
    "fit": Choice(r"resize (\[10\])", view("resize")),
    "mean": Choice(r"mean (\[.*?\])", view("mean")),
    "std": Choice(r"std (\[.*?\])", view("std")),
    "interpolation": Choice(r"interpolation (\w+)", view("interpolation")),
    "batch_size": Choice(r"batch (64)", plan("batch_size")),
    "workers": Choice(r"(\d+) loader process", resource("workers")),
    "start_method": Choice(r"loader process(?:es)? by (\w+)", resource("start_method")),
    "threads": Choice(r"(\d+) thread", resource("threads")),
    "device": Choice(r"(cpu|cuda)\S* torch fp32", resource("device")),
    "engine": Choice(r"(torch) fp32", resource("engine")),
    "precision": Choice(r"(fp32), batch", plan("precision")),
    "task": Choice(r"share (0/2) from RANK/WORLD_SIZE", resource("task"), started_by_torchrun),
    "shard_size": Choice(r"in 1 shard of (\d+)", plan("shard_size")),
    "target_layer": Choice(rf"{SMALL} (conv5)", plan("target_layer")),
    "method": Choice(r"grid 1x1, (cam)", plan("method")),
    "cams": Choice(r"cams (all)", plan("cams")),
    "maps": Choice(r"maps (uint8)", plan("maps")),
}
"""By name of the option that decides otherwise."""

NOTHING_CHOSEN = {
    "model": "builds the network that --arch would",
    "preprocess": "stands for the options of the view",
    "control": "without it no weights become random",
    "columns": "the header's own names count; others that are taken for them are told, see REMARKS",
    "root": "paths start from the manifest's folder",
    "suffix": "paths are as they are written",
    "bits": "without it an image in doubt is unreadable, and its row says so",
    "range": "without it bytes are what they are, and a DICOM file's first window is told, see test_channels",
    "pixels": "without it Pillow resizes, as interpolation above says; the checkpoint may say otherwise",
    "transform": "stands for the options of the view",
    "features": "without it none are stored",
    "tokens": "the target layer, told above, says the grid that is found",
    "thresholds_from": "stands for --threshold",
    "tasks": "without it the share comes from 'task', whose entry above tells it",
    "stage_to": "without it images are read where they are",
    "time_limit_s": "without it there is none",
    "new_since": "without it nothing is left out",
    "memory": "changes nothing but how fast a worker is",
}
"""Options that leave nothing to decide where they are not given, and why."""

NOBODY = Choice(r"named by (nobody)", ("origin", "class_names_from"), found_otherwise)

REMARKS: dict[Callable[[Desk], None], tuple[str, ...]] = {
    averaged: ("weights: those under 'module.'",),
    trained: (
        "weights: those under 'net.'",
        "left out, as parts of the training: criterion.weight",
        "the checkpoint's classes names 2, not 3: passed over",
    ),
    moved_head: ("head: 'fc.1' is taken for the linear layer 'fc'",),
    probabilities: ("the network ends in a softmax: the logits are what enters it",),
    renamed: (
        "class names: the checkpoint's classes, 0 B",
        "class names: 1 of --class-names are the checkpoint's in another Unicode form",
        "1 class names of the dataset are not the model's letter by letter: they differ in Unicode form",
    ),
    full_folders: (
        "class names: from the dataset, in its order, 0 ant … 2 cat",
        "1 folder ignored that systems and programs leave: @eaDir",
        "2 files ignored that are not images: .txt",
        "1 image file ignored whose names start with a dot",
        "1 image ignored that lie outside the class folders",
        "1 class folder without images, which count as no classes: dog",
        "1 folder link ignored that lead back into themselves",
        "1 link ignored that lead nowhere",
        "1 image name ignored of pipes, sockets or devices",
    ),
    numbered_folders: ("class names are numbers in the order of text, 1, 10, 2",),
    umlauts: ("class names sort differently in Unicode forms",),
    numbers_as_names: (
        "labels are numbers that the model knows as class names",
        "they differ in how a number is written",
        "1 of 2 samples have no label",
        "column diagnosis is taken for label",
        "kept of each sample: meta/site",
    ),
    found_otherwise: (
        "no column is named label, so that no sample has one: site",
        "kept of each sample: meta/site",
        "1 of 3 paths are written with backslashes, as on Windows, and found with slashes",
        "1 of 3 paths are written with backslashes, as on Windows, and found neither",
        "1 of 3 paths are found in another Unicode form",
    ),
    stl10: ("split: train, as the dataset's name says none",),
    textures: ("split: train, as the dataset's name says none",),
    own_items: ("labels or ids read from the items", "1 items can't be read: only an attribute targets"),
    in_a_batch_script: ("SLURM_PROCID/SLURM_NTASKS are 0/4, but neither torchrun nor srun started this process",),
}
"""What is told and recorded in words, by what causes it."""


def explained(desk: Desk) -> Said:
    code, _, stderr = desk.explain()
    assert code in (0, 3), stderr
    return stderr, json.loads((desk.run / "run.json").read_text())


def check(choice: Choice, said: Said) -> None:
    """Compare what was told with what was recorded."""
    text, document = said
    found = re.search(choice.told, text)
    assert found, text
    recorded = functools.reduce(operator.getitem, choice.recorded, document)
    if choice.recorded == ("origin", "remarks"):
        assert any(found[0] in remark for remark in recorded)
    elif isinstance(recorded, list) and isinstance(recorded[0], str):
        assert found[1] in recorded
    else:
        # a device's name follows its kind
        assert f"{recorded} ".startswith(f"{found[1]} ")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Said:
    """What a first run with no options says, its checkpoint being one of ours."""
    desk = Desk(tmp_path_factory.mktemp("plain"))
    content = pack_checkpoint(
        torchvision_network("shufflenet_v2_x0_5", 3).state_dict(), "shufflenet_v2_x0_5", NAMES, SAID, {}
    )
    desk.checkpoint.write_bytes(content)
    code, _, stderr = run_command("explain", desk.checkpoint, desk.class_folders(*NAMES), "--out", desk.folder / "run")
    assert code == 0, stderr
    return stderr, json.loads((desk.folder / "run/run.json").read_text())


def test_every_option_that_may_be_left_out_says_what_is_chosen_then() -> None:
    fields = [field for kind in (ExplainConfig, Classifier, Compute) for field, _ in members(kind)]
    open_ones = {field.name for field in fields if field.default in (None, (), "auto")}
    assert open_ones == OPTIONS.keys() | NOTHING_CHOSEN.keys()
    assert not OPTIONS.keys() & NOTHING_CHOSEN.keys()


@pytest.mark.parametrize("option", [name for name, choice in OPTIONS.items() if choice.cause is nothing])
def test_what_is_chosen_where_no_option_is_given_is_told_and_recorded(option: str, plain: Said) -> None:
    check(OPTIONS[option], plain)


CHOICES = [*OPTIONS.values(), NOBODY]
CAUSES = [*REMARKS, *dict.fromkeys(choice.cause for choice in CHOICES if choice.cause not in {nothing, *REMARKS})]


@pytest.mark.parametrize(
    "cause",
    [pytest.param(cause, marks=pytest.mark.slow if cause is inception else (), id=cause.__name__) for cause in CAUSES],
)
def test_what_is_chosen_because_of_the_files_or_the_environment_is_told_and_recorded(
    cause: Callable[[Desk], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    cause(desk)
    for variable, value in desk.variables.items():
        monkeypatch.setenv(variable, value)
    said = explained(desk)
    for choice in (*(c for c in CHOICES if c.cause is cause), *map(Choice, map(re.escape, REMARKS.get(cause, ())))):
        check(choice, said)


def test_what_a_run_has_chosen_is_told_again_when_it_is_gone_on_with(tmp_path: Path) -> None:
    desk = Desk(tmp_path, words=("--batch-size", 3, "--cams", "topk:2", "--shard-size", 2, "--maps", "none"))
    explained(desk)
    text, _ = explained(dataclasses.replace(desk, data=str(tmp_path / "images"), words=()))
    for told in ("batch 3;", "cams topk:2, maps none;", "in 2 shards of 2, 0 to do"):
        assert told in text


def test_a_choice_that_is_told_and_not_recorded_is_noticed(plain: Said) -> None:
    text, document = plain
    document = {**document, "plan": {**document["plan"], "batch_size": 32}}
    with pytest.raises(AssertionError):
        check(OPTIONS["batch_size"], (text, document))
    with pytest.raises(AssertionError):
        check(Choice("batch 64"), (text, document))
