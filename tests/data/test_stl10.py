"""STL10's binary files read as torchvision reads the original download."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import STL10

from batchcam.data.stl10 import STL10Source, open_stl10
from batchcam.errors import DatasetError
from batchcam.images.decoding import UnreadableImageError

NAMES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
COUNTS = {"train": 4, "test": 3, "unlabeled": 2}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    rng = np.random.default_rng(11)
    for split, count in COUNTS.items():
        (folder / f"{split}_X.bin").write_bytes(rng.integers(0, 256, count * 27648, np.uint8).tobytes())
        if split != "unlabeled":
            (folder / f"{split}_y.bin").write_bytes(rng.integers(1, 11, count, np.uint8).tobytes())
    (folder / "class_names.txt").write_text("\n".join(NAMES) + "\n")
    (folder / "fold_indices.txt").write_text("0 1\n" * 10)
    return tmp_path


def listing(root: Path, split: str = "") -> STL10Source:
    return open_stl10("spec", f"{root}{split}")


@pytest.mark.parametrize("split", list(COUNTS))
def test_images_labels_and_names_are_torchvisions(root: Path, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    reference = STL10(str(root), split=split)
    listed = pickle.loads(pickle.dumps(listing(root, f":{split}")))
    assert listed.labels.tolist() == reference.labels.tolist()
    assert listed.class_names == tuple(reference.classes)
    assert listed.sizes.tolist() == [27648] * COUNTS[split]
    for index in range(len(listed)):
        sample, expected = listed.read(index), np.asarray(reference[index][0])
        np.testing.assert_array_equal(np.asarray(sample.image), expected)
        assert sample.sha256 == hashlib.sha256(expected.tobytes()).digest()


def test_ids_are_split_and_number(root: Path) -> None:
    assert list(listing(root, ":test").sample_ids) == ["test/00000", "test/00001", "test/00002"]
    assert listing(root).sample_ids[3] == "train/00003"


def test_root_may_be_the_binary_folder_and_names_may_be_missing(root: Path) -> None:
    (root / "stl10_binary/class_names.txt").unlink()
    listed = listing(root / "stl10_binary", ":test")
    assert (len(listed), listed.class_names) == (3, None)


def test_a_colon_in_the_folder_is_no_split(root: Path) -> None:
    root.joinpath("stl10_binary").rename(root / "odd:name")
    assert listing(root / "odd:name").sample_ids[0] == "train/00000"
    assert listing(root / "odd:name", ":test").sample_ids[0] == "test/00000"


def test_the_same_image_is_an_rgb_picture(root: Path) -> None:
    image = listing(root).read(0).image
    assert isinstance(image, Image.Image)
    assert (image.mode, image.size) == ("RGB", (96, 96))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train_X.bin", b"x" * 27647, "27647 bytes are not whole images"),
        ("train_X.bin", b"x" * 27648, "4 labels for 1 images"),
        ("train_y.bin", bytes([1, 10, 0, 3]), "label 0 of image 2 is outside 1…10"),
        ("train_y.bin", bytes([1, 11, 1, 3]), "label 11 of image 1"),
        ("class_names.txt", b"cat\ndog\n", "expected 10 different class names"),
        ("class_names.txt", b"\xff", "cannot read the class names"),
    ],
)
def test_files_that_do_not_fit_are_refused(root: Path, file: str, content: bytes, message: str) -> None:
    (root / "stl10_binary" / file).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        listing(root)


@pytest.mark.parametrize("file", ["train_X.bin", "train_y.bin"])
def test_a_missing_file_is_named(root: Path, file: str) -> None:
    (root / "stl10_binary" / file).unlink()
    with pytest.raises(DatasetError, match=f"{file}: No such file or directory"):
        listing(root)


def test_an_empty_split_is_refused(root: Path) -> None:
    (root / "stl10_binary/unlabeled_X.bin").write_bytes(b"")
    with pytest.raises(DatasetError, match="no samples"):
        listing(root, ":unlabeled")


def test_a_file_cut_after_listing_makes_the_sample_unreadable(root: Path) -> None:
    listed = listing(root)
    file = root / "stl10_binary/train_X.bin"
    file.write_bytes(file.read_bytes()[:-1])
    assert listed.read(2).image.size == (96, 96)
    with pytest.raises(UnreadableImageError, match="the file ends before this image does"):
        listed.read(3)
    file.unlink()
    with pytest.raises(UnreadableImageError, match=r"^No such file or directory$"):
        listed.read(0)
