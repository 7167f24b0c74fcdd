"""A folder lists as torchvision's ImageFolder does, and says what it passed over."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from batchcam.data.folder import open_folder
from batchcam.data.samples import FileSource
from batchcam.errors import DatasetError


def image(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (len(name), 0, 0)).save(path, "PNG")


def listing(root: Path) -> FileSource:
    return open_folder(str(root), str(root))


def by_torchvision(root: Path) -> tuple[list[tuple[str, int]], list[str]]:
    reference = ImageFolder(str(root))
    return [(os.path.relpath(path, root), label) for path, label in reference.samples], reference.classes


def test_order_labels_and_classes_are_imagefolders(tmp_path: Path) -> None:
    image(tmp_path, "b/2.png", "b/10.png", "b/1.JPG", "a/z.jpeg", "a/sub/a.png", "a/sub-b/a.png", "a/sub/deep/x.webp")
    image(tmp_path, "a-b/1.bmp", "B/ü.tiff", "B/z.ppm", "B/雪.png", "a b/n.tif", "b/q.pgm")
    listed = listing(tmp_path)
    samples, classes = by_torchvision(tmp_path)
    assert list(zip(listed.sample_ids, listed.labels.tolist(), strict=True)) == samples
    assert listed.class_names == tuple(classes)
    assert listed.notes == ()
    assert listed.labels.dtype == np.int64


def test_sizes_are_the_files_bytes(tmp_path: Path) -> None:
    image(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a/3.png").write_bytes(b"x" * 1234)
    listed = listing(tmp_path)
    assert listed.sizes.tolist() == [(tmp_path / name).stat().st_size for name in ("a/1.png", "a/3.png", "b/2.png")]
    assert listed.sizes.dtype == np.int64


def test_every_file_of_the_listing_is_read(tmp_path: Path) -> None:
    image(tmp_path, "a/1.png", "b/sub/two.png")
    listed = pickle.loads(pickle.dumps(listing(tmp_path)))
    colours = [listed.read(index).image.getpixel((0, 0)) for index in range(len(listed))]
    assert colours == [(len("a/1.png"), 0, 0), (len("b/sub/two.png"), 0, 0)]


def test_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path, *(f"{name}/{number}.png" for name in "abc" for number in range(5)))
    forward = list(listing(tmp_path).sample_ids)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: str) -> None:
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("batchcam.data.folder.os.scandir", Backwards)
    assert list(listing(tmp_path).sample_ids) == forward


def test_other_files_are_counted_and_named(tmp_path: Path) -> None:
    image(tmp_path, "a/1.png")
    for name in ("a/notes.txt", "a/Thumbs.db", "a/README", "a/more.TXT"):
        (tmp_path / name).touch()
    assert listing(tmp_path).notes == ("4 files ignored that are not images: .db, .txt, no extension",)


def test_arrays_are_images_where_there_are_no_others(tmp_path: Path) -> None:
    for name in ("a/1.npy", "b/2.npy"):
        (tmp_path / name).parent.mkdir()
        np.save(tmp_path / name, np.zeros((4, 4), np.uint8))
    listed = listing(tmp_path)
    assert (list(listed.sample_ids), listed.class_names, listed.notes) == (["a/1.npy", "b/2.npy"], ("a", "b"), ())
    assert list(listing(tmp_path / "a").sample_ids) == ["1.npy"]
    image(tmp_path, "a/1.png")
    listed = listing(tmp_path)
    assert list(listed.sample_ids) == ["a/1.png"]
    assert "2 files ignored that are not images: .npy" in listed.notes


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    image(tmp_path, "a/1.png", "a/._1.png", ".ipynb_checkpoints/a.png", "a/.cache/2.png")
    (tmp_path / "a/.DS_Store").touch()
    listed = listing(tmp_path)
    assert list(listed.sample_ids) == ["a/1.png"]
    assert listed.class_names == ("a",)
    assert listed.notes == (
        "2 folders ignored that systems and programs leave: .cache, .ipynb_checkpoints",
        "1 image file ignored whose names start with a dot",
    )


def test_pipes_are_passed_over_without_waiting(tmp_path: Path) -> None:
    image(tmp_path, "a/1.png")
    os.mkfifo(tmp_path / "a/2.png")
    listed = listing(tmp_path)
    assert list(listed.sample_ids) == ["a/1.png"]
    assert listed.notes == ("1 image name ignored of pipes, sockets or devices",)


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    image(tmp_path / "data", "a/1.png", "a/sub/2.png")
    image(tmp_path / "elsewhere", "3.png")
    (tmp_path / "data/a/link.png").symlink_to(tmp_path / "elsewhere/3.png")
    (tmp_path / "data/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/sub/up").symlink_to(tmp_path / "data/a")
    (tmp_path / "data/a/sub/top").symlink_to(tmp_path / "data")
    listed = listing(tmp_path / "data")
    assert list(listed.sample_ids) == ["a/1.png", "a/link.png", "a/sub/2.png", "b/3.png"]
    assert listed.class_names == ("a", "b")
    assert listed.notes == ("2 folder links ignored that lead back into themselves",)


def test_a_link_that_leads_nowhere_stays_a_sample(tmp_path: Path) -> None:
    image(tmp_path, "a/1.png")
    (tmp_path / "a/2.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "a/3.png").symlink_to(tmp_path / "a/3.png")
    listed = listing(tmp_path)
    assert list(listed.sample_ids) == ["a/1.png", "a/2.png", "a/3.png"]
    assert listed.sizes.tolist()[1:] == [-1, -1]


def test_a_folder_without_images_is_no_class_and_is_noted(tmp_path: Path) -> None:
    image(tmp_path, "a/1.png", "c/1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/1.txt").touch()
    listed = listing(tmp_path)
    assert listed.class_names == ("a", "c")
    assert listed.labels.tolist() == [0, 1]
    assert listed.empty_classes == ("b", "labels")
    assert listed.notes == (
        "2 class folders without images, which count as no classes: b, labels",
        "1 file ignored that are not images: .txt",
    )


@pytest.mark.parametrize(
    "left",
    [
        "__MACOSX",
        "@eaDir",
        "lost+found",
        "$RECYCLE.BIN",
        "System Volume Information",
        "#recycle",
        "@__thumb",
        ".Trash-1000",
    ],
)
def test_folders_that_systems_leave_are_no_classes_at_any_depth(tmp_path: Path, left: str) -> None:
    image(tmp_path, "a/1.png", "b/1.png", f"{left}/a/1.png", f"a/{left}/1.png/thumb.jpg", f"b/sub/{left}/2.png")
    listed = listing(tmp_path)
    assert list(listed.sample_ids) == ["a/1.png", "b/1.png"]
    assert (listed.class_names, listed.empty_classes) == (("a", "b"), ())
    assert listed.notes == (f"3 folders ignored that systems and programs leave: {left}",)


@pytest.mark.parametrize(
    ("folders", "meant"),
    [
        (("train/ant", "val/ant"), "val"),
        (("Training/ant", "Validation/ant", "Testing/ant"), "Testing"),
        (("test_set/ant", "training_set/ant"), "test_set"),
        (("fold1/ant", "fold2/ant"), "fold1"),
        (("train/ant", "test/ant", "samples"), "test"),
        (("train/ant",), "train"),
    ],
)
def test_the_folder_above_the_parts_of_a_dataset_is_refused(
    tmp_path: Path, folders: tuple[str, ...], meant: str
) -> None:
    image(tmp_path, *(f"{folder}/1.png" for folder in folders))
    with pytest.raises(DatasetError, match=f"parts of a dataset, not classes: .*; did you mean {tmp_path}/{meant}\\?"):
        listing(tmp_path)


@pytest.mark.parametrize("folders", [("bus", "car", "train"), ("bus", "car", "train/2024"), ("test", "control")])
def test_classes_that_are_called_like_a_part_of_a_dataset_stay_classes(
    tmp_path: Path, folders: tuple[str, ...]
) -> None:
    image(tmp_path, *(f"{folder}/1.png" for folder in folders))
    assert listing(tmp_path).class_names == tuple(sorted(folder.split("/")[0] for folder in folders))


@pytest.mark.parametrize("ending", [".avif", ".gif", ".jfif", ".jp2", ".JPE", ".webp", ".tif", ".apng", ".mpo"])
def test_every_format_that_is_decoded_is_listed(tmp_path: Path, ending: str) -> None:
    image(tmp_path, f"a/1{ending}")
    assert list(listing(tmp_path).sample_ids) == [f"a/1{ending}"]


def test_a_class_folder_whose_storage_is_gone_ends_the_listing(tmp_path: Path) -> None:
    image(tmp_path, "a/1.png")
    (tmp_path / "b").symlink_to(tmp_path / "not mounted")
    with pytest.raises(DatasetError, match="b: a link that leads nowhere: is its storage there"):
        listing(tmp_path)


def test_images_beside_the_class_folders_are_noted(tmp_path: Path) -> None:
    image(tmp_path, "a/1.png", "stray.png")
    assert listing(tmp_path).notes == ("1 image ignored that lie outside the class folders",)


def test_names_that_are_not_utf8_are_escaped_and_still_read(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    os.mkdir(root + b"/cl\xe9")
    image(tmp_path, "ok/1.png")
    os.rename(root + b"/ok/1.png", root + b"/cl\xe9/\xff.png")
    image(tmp_path, "ok/1.png")
    listed = listing(tmp_path)
    assert list(listed.sample_ids) == ["cl\\xe9/\\xff.png", "ok/1.png"]
    assert listed.class_names == ("cl\\xe9", "ok")
    assert listed.read(0).image.size == (4, 4)


def test_an_escape_that_another_file_spells_out_is_refused(tmp_path: Path) -> None:
    image(tmp_path, "a/\\xff.png", "a/2.png")
    os.rename(os.fsencode(tmp_path) + b"/a/2.png", os.fsencode(tmp_path) + b"/a/\xff.png")
    with pytest.raises(DatasetError, match="two files would both be"):
        listing(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no class folders in it, and no images: check the path"),
    ],
)
def test_a_folder_without_class_folders_or_images_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    image(tmp_path, *names)
    with pytest.raises(DatasetError, match=message) as caught:
        listing(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_listed_ends_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path, "a/1.png", "b/1.png")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("batchcam.data.folder.os.scandir", refuse)
    with pytest.raises(DatasetError, match=r"b: cannot list this folder: Permission denied"):
        listing(tmp_path)
