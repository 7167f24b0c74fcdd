"""Checkpoint, network and dataset put together: who says what, who wins, and what has to be said."""

from __future__ import annotations

import dataclasses
import sys
import unicodedata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from PIL import Image
from torch import nn

from batchcam.commands.explain import assembly as assembly_module
from batchcam.commands.explain.assembly import assemble
from batchcam.commands.explain.probing import PROBE_ATTEMPTS
from batchcam.config.shared import Classifier
from batchcam.data.preprocessing import PRESETS, Preprocessing, chosen_preprocessing
from batchcam.errors import CheckpointError, ConfigError, DatasetError, ModelError, StoppedEarlyError
from batchcam.network.checkpoint import pack_checkpoint
from tests.helpers.networks import CLASSES, GapNetwork, seeded

NAMES = ("ant", "bee", "cat")
SAID = {
    "resize": [40], "image_size": [32, 32], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6],
    "interpolation": "bilinear",
}  # fmt: skip


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None, num_classes=3)


@pytest.fixture
def own(tmp_path, network) -> Path:
    """A checkpoint that says everything."""
    path = tmp_path / "own.pth"
    path.write_bytes(pack_checkpoint(network.state_dict(), "resnet18", NAMES, SAID, {}))
    return path


@pytest.fixture
def foreign(tmp_path, network) -> Path:
    """A checkpoint that says nothing."""
    torch.save(network.state_dict(), tmp_path / "foreign.pth")
    return tmp_path / "foreign.pth"


def folder(root: Path, names=NAMES, count: int = 2) -> str:
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(root / name / f"{number}.png"), rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    return str(root)


@pytest.fixture
def images(tmp_path) -> str:
    return folder(tmp_path / "images")


def test_checkpoint_that_says_everything_needs_no_option(own, images, network):
    found = assemble(Classifier(own), images)
    assert (found.architecture, found.class_names) == ("resnet18", NAMES)
    assert found.preprocessing == Preprocessing.from_dict(SAID)
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (found.input_size, found.probe.shape, found.probe.dtype) == ((32, 32), (4, 3, 32, 32), torch.uint8)
    assert not found.network.training
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in found.network.state_dict().items())


def test_probe_is_the_first_samples_as_the_loader_gives_them(own, images):
    found = assemble(Classifier(own), images)
    for index in range(4):
        assert torch.equal(found.probe[index], found.dataset[index].pixels)
    normalised = (found.probe / 255 - torch.tensor(SAID["mean"]).view(1, 3, 1, 1)) / torch.tensor(SAID["std"]).view(
        1, 3, 1, 1
    )
    torch.testing.assert_close(found.normalised_probe(torch.device("cpu")), normalised)


def test_checkpoint_that_says_nothing_takes_the_datasets_class_names(foreign, images):
    found = assemble(Classifier(foreign, arch="resnet18", preprocess="stl10", image_size="32"), images)
    assert found.class_names == NAMES
    assert found.preprocessing.image_size == (32, 32)


def test_who_names_the_classes_is_known_and_told(own, foreign, images, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    options = {"arch": "resnet18", "preprocess": "stl10", "image_size": "32"}
    found = assemble(Classifier(foreign, **options), images)
    assert found.names_from == "the dataset"
    assert found.remarks == ("class names: from the dataset, in its order, 0 ant … 2 cat; the checkpoint has none",)
    assert assemble(Classifier(foreign, class_names=tmp_path / "names.txt", **options), images).remarks == ()
    assert assemble(Classifier(own), images).names_from == "the checkpoint"


def carrying(path: Path, network: nn.Module, **beside: Any) -> Classifier:
    """Save weights with what another program writes beside them."""
    torch.save({"state_dict": network.state_dict(), **beside}, path)
    return Classifier(path, arch="resnet18", preprocess="stl10", image_size="32")


def test_class_names_that_another_program_wrote_beside_the_weights_are_the_checkpoints(tmp_path, network, images):
    table = {"cat": 0, "ant": 1, "bee": 2}
    found = assemble(carrying(tmp_path / "model.pth", network, class_to_idx=table), images)
    assert found.class_names == ("cat", "ant", "bee")
    assert found.names_from == "the checkpoint's class_to_idx"
    assert found.remarks == ("class names: the checkpoint's class_to_idx, 0 cat … 2 bee",)
    ids = found.source.sample_ids
    assert {i.split("/")[0]: int(k) for i, k in zip(ids, found.labels, strict=True)} == table


@pytest.mark.parametrize(
    "beside",
    [{"classes": list(NAMES)}, {"config": {"id2label": dict(enumerate(NAMES))}}, {"meta": {"CLASSES": NAMES}}],
    ids=str,
)
def test_renamed_folder_that_would_shift_the_order_is_refused(tmp_path, network, beside):
    """In the dataset's own order zebu would come last, and bee and cat before it."""
    shifted = folder(tmp_path / "data", ("zebu", "bee", "cat"))
    with pytest.raises(DatasetError, match="zebu"):
        assemble(carrying(tmp_path / "model.pth", network, **beside), shifted)


def test_names_of_other_classes_than_the_networks_are_passed_over_and_told(tmp_path, network, images):
    found = assemble(carrying(tmp_path / "model.pth", network, classes=["ant", "bee"]), images)
    assert (found.class_names, found.names_from) == (NAMES, "the dataset")
    assert "class names: the checkpoint's classes names 2, not 3: passed over" in found.remarks


def test_a_checkpoint_that_names_its_classes_twice_otherwise_is_asked_about(tmp_path, network, images):
    classifier = carrying(
        tmp_path / "model.pth", network, classes=list(NAMES), class_to_idx={"cat": 0, "ant": 1, "bee": 2}
    )
    with pytest.raises(CheckpointError, match="its classes and class_to_idx name other classes, or in another order"):
        assemble(classifier, images)
    meant = dataclasses.replace(classifier, class_names=NAMES)
    assert assemble(meant, images).class_names == NAMES
    with pytest.raises(ConfigError, match="not the class names that the checkpoint says"):
        assemble(
            dataclasses.replace(
                carrying(tmp_path / "model.pth", network, classes=list(NAMES)), class_names=NAMES[::-1]
            ),
            images,
        )


def test_class_names_in_another_unicode_form_than_the_checkpoints_are_its_own(tmp_path, network):
    nfc, nfd = (tuple(unicodedata.normalize(form, n) for n in ("Äpfel", "Bäume", "Café")) for form in ("NFC", "NFD"))
    (tmp_path / "own.pth").write_bytes(pack_checkpoint(network.state_dict(), "resnet18", nfd, SAID, {}))
    (tmp_path / "names.txt").write_text("\n".join(nfc))
    found = assemble(
        Classifier(tmp_path / "own.pth", class_names=tmp_path / "names.txt"), folder(tmp_path / "data", nfc)
    )
    assert found.class_names == nfd
    ids = list(found.source.sample_ids)
    assert {i.split("/")[0]: nfc[k] for i, k in zip(ids, found.labels, strict=True)} == {name: name for name in nfc}


def test_labels_that_are_names_of_the_checkpoint_win_over_indices_unless_said_otherwise(tmp_path, network, images):
    names = ("2", "0", "1")
    (tmp_path / "own.pth").write_bytes(pack_checkpoint(network.state_dict(), "resnet18", names, SAID, {}))
    (tmp_path / "list.csv").write_text("path,label\nimages/ant/0.png,0.0\nimages/ant/1.png,2.0\nimages/bee/0.png,\n")
    found = assemble(Classifier(tmp_path / "own.pth"), str(tmp_path / "list.csv"))
    assert found.labels.tolist() == [1, 0, -1]
    told = assemble(Classifier(tmp_path / "own.pth", label_kind="indices"), str(tmp_path / "list.csv"))
    assert told.labels.tolist() == [0, 2, -1]


def test_classes_without_any_names_are_numbers(foreign, images, tmp_path):
    (tmp_path / "list.csv").write_text("path\nimages/ant/0.png\n")
    classifier = Classifier(foreign, arch="resnet18", preprocess="stl10", image_size="32")
    found = assemble(classifier, str(tmp_path / "list.csv"))
    assert (found.class_names, found.labels.tolist()) == (("0", "1", "2"), [-1])


def test_the_architecture_that_the_checkpoint_says_may_be_repeated(own, images):
    assert assemble(Classifier(own, arch="resnet18"), images).architecture == "resnet18"


def test_preprocessing_that_the_checkpoint_says_may_be_repeated(own, images):
    classifier = Classifier(own, image_size="32", resize="40", mean="0.1,0.2,0.3", std="0.4,0.5,0.6")
    assert assemble(classifier, images).preprocessing == Preprocessing.from_dict(SAID)


def test_one_option_beside_the_preprocessing_that_the_checkpoint_says_is_refused_with_it(own, images):
    with pytest.raises(ConfigError, match=r"the checkpoint says its preprocessing: \{.*\}; leave the options out"):
        assemble(Classifier(own, image_size=(8, 8)), images)


def test_labels_are_matched_by_name_when_the_dataset_has_fewer_classes(own, tmp_path):
    found = assemble(Classifier(own), folder(tmp_path / "fewer", ("bee", "cat"), count=1))
    assert found.labels.tolist() == [1, 2]


def test_class_names_come_from_a_file(foreign, tmp_path):
    (tmp_path / "names.txt").write_bytes("\ufeffant\r\nzèbre\n\n cat \n".encode())
    classifier = Classifier(
        foreign, arch="resnet18", preprocess="stl10", image_size="32", class_names=tmp_path / "names.txt"
    )
    found = assemble(classifier, folder(tmp_path / "one", ("cat",)))
    assert (found.class_names, found.labels.tolist()) == (("ant", "zèbre", "cat"), [2, 2])


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [(b"\n", ConfigError, "one name a line"), (b"\xff\n", ConfigError, "cannot read"),
     (None, ConfigError, "cannot read")],
)  # fmt: skip
def test_file_of_class_names_that_can_not_be_meant_is_refused(foreign, images, tmp_path, content, kind, message):
    if content is not None:
        (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(kind, match=message):
        assemble(Classifier(foreign, arch="resnet18", preprocess="stl10", class_names=tmp_path / "names.txt"), images)


def test_preprocessing_of_a_checkpoint_that_can_not_be_meant_is_refused(images, tmp_path, network):
    path = tmp_path / "a.pth"
    path.write_bytes(pack_checkpoint(network.state_dict(), "resnet18", NAMES, {"image_size": [32, 32]}, {}))
    with pytest.raises(ConfigError, match="preprocessing: missing key"):
        assemble(Classifier(path), images)


def chosen(*options: Any) -> Preprocessing | None:
    """What --preprocess, --image-size, --resize, --mean and --std, as written, choose."""
    names = ("preprocess", "image_size", "resize", "mean", "std")
    asked = Classifier(Path("a.pth"), **dict(zip(names, options, strict=True)))
    return chosen_preprocessing(asked)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((None, None, None, None, None), None),
        (("imagenet", None, None, None, None), PRESETS["imagenet"]),
        (("stl10", "64", None, None, None), Preprocessing((64,), (64, 64), (0.5,) * 3, (0.5,) * 3)),
        (("stl10", "64x96", None, None, None), Preprocessing((64, 96), (64, 96), (0.5,) * 3, (0.5,) * 3)),
        (("stl10", "64", "72", "0", "1"), Preprocessing((72,), (64, 64), (0,), (1,))),
        ((None, "64", None, "0.1,0.2,0.3", "1"), Preprocessing((64,), (64, 64), (0.1, 0.2, 0.3), (1,) * 3)),
        (("imagenet", None, "300", None, None),
         Preprocessing((300,), (224, 224), PRESETS["imagenet"].mean, PRESETS["imagenet"].std)),
    ],
)  # fmt: skip
def test_preprocessing_is_the_preset_with_what_other_options_change(options, expected):
    assert chosen(*options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("coco", None, None, None, None),
            "--preprocess coco: choose one of imagenet, stl10, or",
        ),
        (
            (None, "64", None, None, None),
            r"say --preprocess imagenet, .* or all of --image-size, --mean and --std",
        ),
        ((None, None, None, "0", "1"), "say --preprocess"),
        (("stl10", "0", None, None, None), "--image-size"),
        (("stl10", None, "4x", None, None), "--resize"),
        (("stl10", None, None, "a", None), "--mean"),
        (("stl10", None, None, None, "1,2"), r"std: .*: expected 3 numbers, as mean"),
        (("stl10", None, None, None, "0"), "std"),
        (("imagenet", None, "200", None, None), "larger than"),
    ],
)
def test_preprocessing_that_can_not_be_meant_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        chosen(*options)


# what `python:` datasets and `--model` callables are made of


class Items:
    """A map-style dataset of given items."""

    def __init__(self, items: list[object]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[object, int]:
        return self.items[index], index % CLASSES


@pytest.fixture
def module(monkeypatch):
    """A module whose `items` and `build` a test fills."""
    fake = type(sys)("module_of_the_user")
    monkeypatch.setitem(sys.modules, "module_of_the_user", fake)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return fake


USERS = "python:module_of_the_user:items"


def tensors(count: int, *shape: int) -> list[object]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def test_float_tensors_count_as_preprocessed_whatever_the_checkpoint_says(own, module):
    module.items = lambda: Items(tensors(5, 3, 32, 40))
    found = assemble(Classifier(own), USERS)
    assert (found.preprocessing, found.input_size, found.probe.dtype) == (None, (32, 40), torch.float32)
    assert torch.equal(found.normalised_probe(torch.device("cpu")), found.probe)


def test_float_tensors_need_no_preprocessing_to_be_said(foreign, module):
    module.items = lambda: Items(tensors(5, 3, 32, 32))
    assert assemble(Classifier(foreign, arch="resnet18"), USERS).preprocessing is None


def test_probe_takes_no_tensors_of_other_shapes_kinds_or_of_nan(own, module):
    first, second = tensors(2, 3, 32, 32)
    nan, other = torch.full((3, 32, 32), torch.nan), torch.zeros(3, 32, 31)
    module.items = lambda: Items([nan, first, other, Image.new("RGB", (64, 64)), second])
    found = assemble(Classifier(own), USERS)
    assert torch.equal(found.probe, torch.stack([first, second]))
    assert [bool(found.dataset[i].error) for i in range(5)] == [False, False, True, True, False]


def test_image_before_tensors_makes_the_tensors_unreadable_and_not_the_images_floats(own, module):
    module.items = lambda: Items([Image.new("RGB", (64, 64), "red"), *tensors(2, 3, 32, 32)])
    found = assemble(Classifier(own), USERS)
    assert (found.probe.dtype, len(found.probe)) == (torch.uint8, 1)
    assert [bool(found.dataset[i].error) for i in range(3)] == [False, True, True]


def test_unreadable_first_samples_are_passed_over_by_the_probe(own, images):
    for name in ("0.png", "1.png"):
        (Path(images) / "ant" / name).write_bytes(b"torn")
    found = assemble(Classifier(own), images)
    assert torch.equal(found.probe[0], found.dataset[2].pixels)


@pytest.mark.parametrize("content", [b"torn", b"", b"version https://git-lfs.github.com/spec/v1\n", None])
def test_a_dataset_without_a_readable_image_is_a_passing_fault(own, images, tmp_path, content):
    (tmp_path / "list.csv").write_text("path\nimages/ant/0.png\nimages/bee/0.png\n")
    for path in Path(images).rglob("*.png"):
        path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(StoppedEarlyError, match=r"none of the first 2 images can be read: .*is the storage there"):
        assemble(Classifier(own), str(tmp_path / "list.csv"))


class Deep:
    """A dataset in memory whose images are all of 12 bits."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(np.full((8, 8), 4095, np.uint16)), index % 3


def test_a_dataset_whose_images_are_all_of_a_kind_that_is_refused_is_no_passing_fault(own, images):
    told = "none of the first 4 images can be read: 16-bit values of at most 4095: .* such as --bits 12(?!.*storage)"
    with pytest.raises(DatasetError, match=told):
        assemble(Classifier(own), Deep())
    assert assemble(Classifier(own, bits=12), Deep()).probe.max() == 255
    files = sorted(Path(images).rglob("*.png"))
    for path in files:
        cv2.imwrite(str(path), np.full((8, 8), 4095, np.uint16))
    with pytest.raises(DatasetError, match=told.replace("4", str(len(files)), 1)):
        assemble(Classifier(own), images)
    files[0].write_bytes(b"torn")  # which may be whole the next time
    with pytest.raises(StoppedEarlyError, match="is the storage there"):
        assemble(Classifier(own), images)


def test_probe_of_a_dataset_without_a_readable_image_is_always_the_same_noise(own, images):
    for path in Path(images).rglob("*.png"):
        path.write_bytes(b"torn")
    one, other = (assemble(Classifier(own), images, may_be_unreadable=True).probe for _ in range(2))
    assert torch.equal(one, other)
    assert (one.shape, one.float().std() > 50) == ((4, 3, 32, 32), True)


def test_dataset_without_a_readable_tensor_is_refused(foreign, module):
    module.items = lambda: Items(["a word", "another"])
    with pytest.raises(DatasetError):
        assemble(Classifier(foreign, arch="resnet18"), USERS)


def test_users_own_network_is_loaded_strictly(tmp_path, module, images):
    module.build = GapNetwork
    torch.save(seeded(GapNetwork).state_dict(), tmp_path / "a.pth")
    found = assemble(Classifier(tmp_path / "a.pth", model="module_of_the_user:build", preprocess="stl10"), images)
    assert (found.architecture, found.class_names) == ("module_of_the_user:build", NAMES)
    assert torch.equal(found.network.head.weight, seeded(GapNetwork).head.weight)
    torch.save({"head.weight": torch.zeros(3, 4)}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="missing"):
        assemble(Classifier(tmp_path / "b.pth", model="module_of_the_user:build", preprocess="stl10"), images)


class WideNetwork(GapNetwork):
    """Has a matrix whose name sorts after the classifier's."""

    def __init__(self) -> None:
        super().__init__()
        self.zoom = nn.Linear(2, 11)
        self.head = self._modules.pop("head")


def test_class_count_is_the_networks_in_whatever_order_the_file_keeps_its_keys(tmp_path, module, images):
    module.build = WideNetwork
    safetensors.torch.save_file(WideNetwork().state_dict(), tmp_path / "a.safetensors")
    classifier = Classifier(tmp_path / "a.safetensors", model="module_of_the_user:build", preprocess="stl10")
    assert assemble(classifier, images).class_names == NAMES


@pytest.mark.parametrize(
    ("build", "message"),
    [(lambda: "no network", "returned str, not a torch.nn.Module"), (lambda: 1 / 0, "raised ZeroDivisionError"),
     (lambda needed: None, "raised TypeError")],
)  # fmt: skip
def test_callable_that_gives_no_network_is_refused(tmp_path, module, images, build, message):
    module.build = build
    torch.save(seeded(GapNetwork).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ModelError, match=message):
        assemble(Classifier(tmp_path / "a.pth", model="module_of_the_user:build", preprocess="stl10"), images)


def test_few_samples_are_read_before_the_job_starts(own, module, monkeypatch):
    read: list[int] = []
    items = Items(["no image"] * 1000)
    module.items = lambda: items
    original = assembly_module.open_source

    def counting(spec: str, **more: object):
        source = original(spec, **more)
        reader = source.read
        source.read = lambda index: (read.append(index), reader(index))[1]
        return source

    monkeypatch.setattr(assembly_module, "open_source", counting)
    items.items[0] = Image.new("RGB", (40, 40))
    assemble(Classifier(own), USERS)
    assert len(read) <= PROBE_ATTEMPTS
