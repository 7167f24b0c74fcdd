"""A folder in an archive is listed by the rules of folders, and what happens to the archive is no image's fault."""

from __future__ import annotations

import tarfile
import zipfile

import numpy as np
import pytest

from batchcam.data.folder import open_folder
from batchcam.data.sources import open_source
from batchcam.errors import DatasetError
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.passing_faults import PassingFaultError
from tests.helpers import places
from tests.helpers.places import IMAGES, image_bytes, write_tar

TREE = [
    *("ant/b.png", "ant/a.PNG", "ant/deep/er/z.jpg", "ant-2/x.png", "ant/.hidden.png", "ant/@eaDir/t.jpg"),
    *("bee/notes.txt", "cat/1.jpg", "cat/Thumbs.db", "__MACOSX/ant/._b.png", ".git/x.png", "top.png", "empty/x.txt"),
]


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("below", ["", "photos/"])
def test_an_archive_lists_what_its_folder_lists(tmp_path, kind, below):
    root = tmp_path / "files"
    for name in TREE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    archive = f"{tmp_path}/x.{kind}"
    names = [f"{below}{name}" for name in reversed(TREE)]
    if kind == "tar":
        write_tar(archive, [(name, name.removeprefix(below).encode()) for name in names])
    else:
        with zipfile.ZipFile(archive, "w") as file:
            for name in names:
                file.writestr(name, name.removeprefix(below))
    packed = open_source(f"{archive}/{below}".rstrip("/"))
    unpacked = open_folder("", str(root))
    assert list(packed.sample_ids) == list(unpacked.sample_ids)
    assert packed.class_names == unpacked.class_names == ("ant", "ant-2", "cat")
    assert packed.empty_classes == unpacked.empty_classes
    for name in ("labels", "sizes"):
        np.testing.assert_array_equal(getattr(packed, name), getattr(unpacked, name))
    assert sorted(packed.notes) == sorted(unpacked.notes)


def test_an_archive_of_images_alone_has_no_labels(tmp_path):
    write_tar(tmp_path / "x.tar", [("scans/b.png", image_bytes(0)), ("scans/a.png", image_bytes(1))])
    source = open_source(f"{tmp_path}/x.tar")
    assert (list(source.sample_ids), source.class_names, source.labels.tolist()) == (["a.png", "b.png"], None, [-1, -1])
    assert "a flat folder of 2 images: no class folders, so no labels" in source.notes
    assert source.notes[-1] == "read from its folder scans/"


def test_the_parts_of_a_dataset_are_refused_with_the_words_that_name_one(tmp_path):
    write_tar(tmp_path / "x.tar", [(f"{split}/cat/1.png", image_bytes(0)) for split in ("train", "test")])
    with pytest.raises(DatasetError, match=r"did you mean .*/x\.tar/test\?"):
        open_source(f"{tmp_path}/x.tar")
    assert open_source(f"{tmp_path}/x.tar/test").class_names == ("cat",)


def test_a_member_that_is_no_image_is_its_own_trouble(tmp_path):
    members = [("cat/1.png", image_bytes(0)), ("cat/2.png", b"no image"), ("dog/3.png", image_bytes(1))]
    write_tar(tmp_path / "x.tar", members)
    source = open_source(f"{tmp_path}/x.tar")
    source.read(0), source.read(2)
    with pytest.raises(UnreadableImageError) as raised:
        source.read(1)
    assert len(raised.value.sha256) == 32


def test_a_hard_link_stays_a_row(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        info = tarfile.TarInfo("cat/1.png")
        info.type, info.linkname = tarfile.LNKTYPE, "cat/0.png"
        file.addfile(info)
    source = open_source(f"{tmp_path}/x.tar/cat")
    with pytest.raises(UnreadableImageError, match="a link in the tar, which is not followed"):
        source.read(0)


def test_an_archive_that_goes_or_changes_under_a_run_ends_it_for_now(tmp_path):
    source = open_source(places.tar(tmp_path))
    assert len(source) == len(IMAGES)
    write_tar(tmp_path / "photos.tar", [("cat/1.png", b"")])
    with pytest.raises(PassingFaultError, match=r"photos\.tar: was changed since it was listed: run the same command"):
        source.read(0)


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
def test_an_archive_that_cannot_be_read_by_place_is_refused_on_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x1f\x8b\n\x00")
    with pytest.raises(DatasetError, match=name) as raised:
        open_source(str(tmp_path / name))
    assert str(raised.value).isprintable()
