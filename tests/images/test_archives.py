"""Archives are read by place, as the standard library reads them; what is hostile in them stays data."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from batchcam.images.archives import ArchiveError, open_archive, root_in, split_archive
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.members import HolderError
from tests.helpers.places import write_tar

LONG = "photos/" + "n" * 120 + "/ü" + "m" * 150 + ".jpg"
MEMBERS = [("photos/a.jpg", b"first"), (LONG, b"x" * 5000), ("photos/empty.jpg", b""), ("photos/b.txt", b"y" * 512)]


def contents(path: Path) -> dict[str, bytes]:
    archive = open_archive(str(path))
    return {name: archive.stored.read(row) for row, name in enumerate(archive.names)}


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_a_tar_holds_what_it_was_made_of(tmp_path, format_):
    with tarfile.open(tmp_path / "x.tar", "w", format=format_) as file:
        for number, (name, content) in enumerate(MEMBERS):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), number + 0.5  # of which pax has a record each
            file.addfile(info, io.BytesIO(content))
        folder = tarfile.TarInfo("photos/folder")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
    assert contents(tmp_path / "x.tar") == dict(MEMBERS)


@pytest.mark.parametrize("size", [10, 40_000, 300_000])
def test_members_of_any_size_are_found_one_after_the_other(tmp_path, size):
    members = [(f"{number:03d}.jpg", os.urandom(size + number)) for number in range(20)]
    write_tar(tmp_path / "x.tar", members)
    assert contents(tmp_path / "x.tar") == dict(members)


def test_a_name_of_two_fields_and_a_name_that_is_no_utf8_are_whole(tmp_path):
    names = ["d" * 120 + "/" + "f" * 90, os.fsdecode(b"caf\xe9.jpg")]
    write_tar(tmp_path / "x.tar", [(name, b"1") for name in names])
    assert list(contents(tmp_path / "x.tar")) == names


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_holds_what_it_was_made_of(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as file:
        file.mkdir("photos/folder")
        for name, content in MEMBERS:
            file.writestr(name, content)
    assert contents(tmp_path / "x.zip") == dict(MEMBERS)


@pytest.mark.parametrize("name", ["/etc/passwd.jpg", "../a.jpg", "photos/../../a.jpg", "./../a.jpg"])
def test_a_name_that_leads_out_of_the_archive_is_refused(tmp_path, name):
    write_tar(tmp_path / "x.tar", [(name, b"1")])
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr(name, b"1")
    for archive in ("x.tar", "x.zip"):
        with pytest.raises(ArchiveError, match="a name that leads out of it"):
            open_archive(str(tmp_path / archive))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(tmp_path):
    write_tar(tmp_path / "x.tar", [("a.jpg", b"1"), ("./a.jpg", b"2")])
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("a.jpg", b"1")
        file.writestr("a.jpg", b"2")
    for archive in ("x.tar", "x.zip"):
        with pytest.raises(ArchiveError, match=r"holds 'a\.jpg' twice"):
            open_archive(str(tmp_path / archive))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_what_is_no_regular_file_in_a_tar_is_an_image_that_cannot_be_read(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        info = tarfile.TarInfo("a.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        file.addfile(info)
    archive = open_archive(str(tmp_path / "x.tar"))
    assert archive.stored.sizes.tolist() == [-1]
    with pytest.raises(UnreadableImageError, match="in the tar"):
        archive.stored.read(0)


def test_a_link_in_a_zip_is_not_followed(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        info = zipfile.ZipInfo("a.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(UnreadableImageError, match="a link in the zip"):
        open_archive(str(tmp_path / "x.zip")).stored.read(0)


def test_a_bomb_in_a_zip_unpacks_no_more_than_the_size_that_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.jpg", bytes(10**6))
    content = (tmp_path / "x.zip").read_bytes()
    size = (10**6).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(content.replace(size, (100).to_bytes(4, "little")))
    with pytest.raises(UnreadableImageError, match="its size or CRC is another"):
        open_archive(str(tmp_path / "x.zip")).stored.read(0)
    (tmp_path / "x.zip").write_bytes(content.replace(size, (2**31).to_bytes(4, "little")))
    with pytest.raises(UnreadableImageError, match="more than 1073741824 bytes"):
        open_archive(str(tmp_path / "x.zip")).stored.read(0)


@pytest.mark.parametrize(("at", "reason"), [(4, None), (40, "its size or CRC"), (0, "its directory leads to no entry")])
def test_a_byte_that_is_flipped_in_a_zip_is_that_images_trouble(tmp_path, at, reason):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_STORED) as file:
        file.writestr("a.jpg", bytes(50))
        file.writestr("b.jpg", b"whole")
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[at] ^= 255
    (tmp_path / "x.zip").write_bytes(content)
    stored = open_archive(str(tmp_path / "x.zip")).stored
    assert stored.read(1) == b"whole"
    if reason is None:  # the version of a program that is needed to unpack
        assert stored.read(0) == bytes(50)
    else:
        with pytest.raises(UnreadableImageError, match=reason):
            stored.read(0)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (slice(0, 512 + 100), "ends inside of its member 'a.jpg': it was cut off"),
        (slice(0, 1024), "has no end: it was cut off"),
        (slice(0, 1024 + 200), "no tar, or damaged, at byte 1024"),
        (slice(100, None), "no tar, or damaged, at byte 0"),
    ],
)
def test_a_tar_that_is_not_whole_is_refused(tmp_path, kept, message):
    write_tar(tmp_path / "whole.tar", [("a.jpg", b"x" * 500), ("b.jpg", b"y" * 500)])
    (tmp_path / "x.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[kept])
    with pytest.raises(ArchiveError, match=message):
        open_archive(str(tmp_path / "x.tar"))


def test_tars_that_cat_put_together_are_refused(tmp_path):
    write_tar(tmp_path / "whole.tar", [("a.jpg", b"x")])
    (tmp_path / "x.tar").write_bytes(2 * (tmp_path / "whole.tar").read_bytes())
    with pytest.raises(ArchiveError, match="goes on after its end"):
        open_archive(str(tmp_path / "x.tar"))


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar.zst"])
def test_a_tar_that_is_compressed_as_a_whole_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    with pytest.raises(ArchiveError, match=r"compressed as a whole, .*: unpack it to a \.tar"):
        open_archive(str(tmp_path / name))


def test_a_compressed_or_arbitrary_file_that_is_called_an_archive_is_refused(tmp_path):
    for name in ("x.tar", "x.zip"):
        (tmp_path / name).write_bytes(b"\x1f\x8b" + os.urandom(2000))
        with pytest.raises(ArchiveError, match="damaged"):
            open_archive(str(tmp_path / name))


def test_an_archive_that_is_replaced_or_goes_is_no_images_trouble(tmp_path):
    write_tar(tmp_path / "x.tar", [("a.jpg", b"x")])
    stored = open_archive(str(tmp_path / "x.tar")).stored
    write_tar(tmp_path / "x.tar", [("b.jpg", b"yy"), ("a.jpg", b"x")])
    with pytest.raises(HolderError, match=r"x\.tar: was changed since it was listed"):
        stored.read(0)
    (tmp_path / "x.tar").unlink()
    with pytest.raises(HolderError, match=r"x\.tar: No such file"):
        stored.read(0)


@pytest.mark.parametrize(
    ("names", "root"),
    [
        (["photos/cat/1.jpg", "photos/dog/2.jpg", "README.md"], "photos/"),
        (["cat/1.jpg", "dog/2.jpg"], ""),
        (["./cat/1.jpg", "./dog/2.jpg"], ""),
        (["data/photos/cat/1.jpg", "data/photos/dog/2.jpg", "__MACOSX/data/._1.jpg"], "data/photos/"),
        (["1.jpg", "2.jpg"], ""),
        (["photos/1.jpg", "photos/2.jpg"], "photos/"),
        (["1.jpg", "cat/2.jpg"], ""),
    ],
)
def test_the_dataset_of_an_archive_is_the_folder_that_holds_its_images(tmp_path, names, root):
    write_tar(tmp_path / "x.tar", [(name, b"1") for name in names])
    assert root_in(open_archive(str(tmp_path / "x.tar"))) == root


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["photos/cat/1.jpg"], "lie in photos/cat alone, which may be a class, .* such as …/photos"),
        (["photos/1.jpg", "photos/cat/2.jpg"], "lie in photos and in folders below it"),
        (["a.txt", ".1.jpg", "__MACOSX/2.jpg"], "no images in it"),
    ],
)
def test_a_folder_that_may_be_meant_otherwise_is_refused(tmp_path, names, message):
    write_tar(tmp_path / "x.tar", [(name, b"1") for name in names])
    with pytest.raises(ArchiveError, match=message):
        root_in(open_archive(str(tmp_path / "x.tar")))


def test_a_path_leads_into_an_archive(tmp_path):
    write_tar(tmp_path / "x.tar", [("photos/a.jpg", b"1")])
    assert split_archive(f"{tmp_path}/x.tar") == (f"{tmp_path}/x.tar", "")
    assert split_archive(f"{tmp_path}/x.tar/photos/cat/") == (f"{tmp_path}/x.tar", "photos/cat")
    assert root_in(open_archive(f"{tmp_path}/x.tar"), "photos") == "photos/"
    for other in ("", "/", "//", "nothing", f"{tmp_path}/y.tar", str(tmp_path)):
        assert split_archive(other) is None
    with pytest.raises(ArchiveError, match="it has no folder cat"):
        root_in(open_archive(f"{tmp_path}/x.tar"), "cat")
