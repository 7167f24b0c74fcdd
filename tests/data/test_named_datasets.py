"""Datasets of torchvision and of the user open by name, and nothing is downloaded."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from batchcam.data.map_source import MapSource
from batchcam.data.named_datasets import open_python, open_torchvision
from batchcam.errors import DatasetError


@pytest.fixture
def mnist(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """MNIST's four files in their own format, written by hand."""
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(2)
    images, labels = rng.integers(0, 256, (3, 28, 28), np.uint8), np.array([4, 0, 9], np.uint8)
    for split, count in (("train", 3), ("t10k", 2)):
        header = struct.pack(">IIII", 2051, count, 28, 28)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + images[:count].tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels[:count].tobytes())
    return tmp_path, images, labels


@pytest.fixture
def textures(tmp_path: Path) -> Path:
    """The Describable Textures Dataset's layout with one image a split."""
    for folder in ("labels", "images/banded", "images/dotted"):
        (tmp_path / "dtd/dtd" / folder).mkdir(parents=True)
    for split, name in (("train", "banded/1.jpg"), ("val", "dotted/2.jpg"), ("test", "dotted/3.jpg")):
        (tmp_path / f"dtd/dtd/labels/{split}1.txt").write_text(name + "\n")
        Image.new("RGB", (5, 4)).save(tmp_path / "dtd/dtd/images" / name)
    return tmp_path


def torchvision_source(rest: str) -> MapSource:
    return open_torchvision(f"torchvision:{rest}", rest)


def test_a_dataset_with_train_and_test_opens_by_either(mnist: tuple[Path, np.ndarray, np.ndarray]) -> None:
    root, images, labels = mnist
    train, test = torchvision_source(f"MNIST:{root}"), torchvision_source(f"MNIST:{root}:test")
    assert list(train.sample_ids) == ["train/00000", "train/00001", "train/00002"]
    assert list(test.sample_ids) == ["test/00000", "test/00001"]
    assert train.labels.tolist() == labels.tolist()
    assert train.class_names is not None
    assert train.class_names[4] == "4 - four"
    assert train.sizes.tolist() == [784] * 3
    np.testing.assert_array_equal(np.asarray(train.read(2).image), np.stack([images[2]] * 3, axis=2))


def test_a_dataset_with_named_splits_opens_by_name(textures: Path) -> None:
    listed = torchvision_source(f"DTD:{textures}:test")
    assert list(listed.sample_ids) == ["test/00000"]
    assert listed.labels.dtype == np.int64
    reference = torchvision.datasets.DTD(str(textures), split="test")
    assert listed.labels.tolist() == [reference[0][1]]
    assert listed.class_names == tuple(reference.classes)
    assert listed.sizes.tolist() == [(textures / "dtd/dtd/images/dotted/3.jpg").stat().st_size]
    assert torchvision_source(f"DTD:{textures}").sample_ids[0] == "train/00000"


def test_a_dataset_without_splits_numbers_its_samples(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    listed = torchvision_source(f"ImageFolder:{tmp_path}")
    assert list(listed.sample_ids) == ["00000", "00001"]
    assert listed.class_names == ("a", "b")
    with pytest.raises(DatasetError, match="has no splits: remove :test"):
        torchvision_source(f"ImageFolder:{tmp_path}:test")


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("CIFAR1O:ROOT", "did you mean CIFAR10"),
        ("mnist:ROOT", "did you mean MNIST"),
        ("os:ROOT", "no dataset 'os'"),
        ("FakeData:ROOT", "no dataset 'FakeData' under a folder"),
        ("MNIST", "no folder: write torchvision:MNIST:ROOT"),
        ("MNIST:/no/such/folder:test", "^/no/such/folder: no such folder"),
        ("CIFAR10:ROOT", "can't open it: .*not found.*never downloads"),
        ("DTD:ROOT:validation", "can't open it: Unknown value 'validation'"),
        ("MNIST:ROOT:val", "no split 'val': this dataset has train and test"),
        ("EMNIST:ROOT", "this dataset needs a split"),
    ],
)
def test_what_cannot_be_opened_is_refused_on_one_line(tmp_path: Path, rest: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        torchvision_source(rest.replace("ROOT", str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_torchvision_is_never_asked_to_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.mnist.MNIST.download", lambda self: pytest.fail("downloads"))
    with pytest.raises(DatasetError, match="not found"):
        torchvision_source(f"MNIST:{tmp_path}")


USERS_MODULE = """
from PIL import Image
import torch

class Pictures:
    sample_ids = ["one", "two"]
    targets = [1, 0]
    classes = ["cat", "dog"]
    def __len__(self): return 2
    def __getitem__(self, index): return Image.new("RGB", (4 + index, 4)), self.targets[index]

class Registry:
    pictures = Pictures

def floats(): return [(torch.full((3, 4, 4), 0.5), 0), (torch.zeros(3, 4, 4), 1)]
def nothing(): return None
def fails(): raise KeyError("no disk")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"users_module_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(USERS_MODULE)
    (tmp_path / f"{name}_broken.py").write_text("import no_such_thing\n")
    monkeypatch.chdir(tmp_path)
    return name


def python_source(rest: str) -> MapSource:
    return open_python(f"python:{rest}", rest)


@pytest.mark.parametrize("factory", ["Pictures", "Registry.pictures"])
def test_a_users_dataset_opens_from_the_current_folder(module: str, factory: str) -> None:
    listed = python_source(f"{module}:{factory}")
    assert list(listed.sample_ids) == ["one", "two"]
    assert (listed.labels.tolist(), listed.class_names) == ([1, 0], ("cat", "dog"))
    assert listed.read(1).image.size == (5, 4)


def test_a_users_list_of_items_is_a_dataset(module: str) -> None:
    listed = python_source(f"{module}:floats")
    assert list(listed.sample_ids) == ["00000", "00001"]
    assert float(listed.read(0).image.mean()) == 0.5


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("MODULE", "write python:module:callable"),
        ("MODULE_broken:f", "can't import .*: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("MODULE:picture", "has no picture: did you mean Pictures"),
        ("MODULE:fails", r"fails\(\) failed: KeyError: 'no disk'"),
        ("MODULE:nothing", "NoneType has no length: return a map-style dataset"),
    ],
)
def test_a_users_mistake_is_told_on_one_line(module: str, rest: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        python_source(rest.replace("MODULE", module))
    assert "\n" not in str(caught.value)
