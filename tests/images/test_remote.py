"""What lies behind URLs is read as files are: in ranges, once more after what passes, never twice what does not."""

from __future__ import annotations

import errno
import random
import sys
import zipfile

import pytest

from batchcam.data.sources import open_source
from batchcam.errors import BatchcamError, DatasetError
from batchcam.images import remote
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.members import LOOK_EVERY_S, Holder, _looked
from batchcam.images.passing_faults import PassingFaultError
from batchcam.images.remote import expanded, joined, read_file, without_secrets
from tests.helpers.places import IMAGES, image_bytes, zip_of
from tests.helpers.servers import DROPPED, web_server


@pytest.fixture
def web(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_WAITS_S", (0,) * 3)
    (tmp_path / "a b.png").write_bytes(image_bytes(0))
    with web_server(tmp_path) as server:
        yield server


@pytest.mark.parametrize("fault", [500, 503, 429, 408, DROPPED])
def test_what_passes_is_tried_again_and_then_ends_the_work_for_now(web, fault):
    web.faults = [fault] * 3
    assert read_file(f"{web.url}/a%20b.png") == image_bytes(0)
    web.faults, web.asked = [fault] * 20, []
    with pytest.raises(PassingFaultError, match="run the same command again") as raised:
        read_file(f"{web.url}/a%20b.png")
    assert raised.value.exit_code == 75
    assert len(web.asked) == 4 or fault == DROPPED  # which aiohttp itself tries twice


@pytest.mark.parametrize(("answer", "number"), [(404, errno.ENOENT), (403, errno.EACCES), (410, errno.ENOENT)])
def test_what_lasts_is_asked_for_once_and_is_a_bad_row(web, tmp_path, answer, number):
    web.faults = [answer]
    with pytest.raises(OSError, match=r"Errno") as raised:
        read_file(f"{web.url}/a%20b.png")
    assert (raised.value.errno, len(web.asked)) == (number, 1)
    (tmp_path / "list.csv").write_text(f"path\n{web.url}/a%20b.png\n{web.url}/none.png\n")
    source = open_source(str(tmp_path / "list.csv"))
    assert source.read(0).image.size == (16, 16)
    with pytest.raises(UnreadableImageError, match=r"^No such file or directory$"):
        source.read(1)


def test_of_a_zip_only_its_directory_and_the_image_are_read(web, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("cat/1.png", image_bytes(1))
        file.writestr("cat/2.png", random.Random(0).randbytes(2**20))
        file.writestr("dog/3.png", image_bytes(3))
    source = open_source(f"{web.url}/x.zip")
    assert (list(source.sample_ids), source.labels.tolist()) == (["cat/1.png", "cat/2.png", "dog/3.png"], [0, 0, 1])
    source.read(0), source.read(2)
    ranges = [range(*map(int, asked.removeprefix("bytes=").split("-"))) for _, asked in web.asked if asked]
    assert sum(map(len, ranges)) < 2**19


def test_a_server_that_gives_no_ranges_is_refused_before_all_is_read(web, tmp_path):
    zip_of(tmp_path)
    web.knows_ranges = False
    with pytest.raises(
        DatasetError, match=r"photos\.zip: cannot read: its server gives no ranges of bytes: download it first"
    ):
        open_source(f"{web.url}/photos.zip")


def test_an_archive_that_is_replaced_ends_the_work_for_now(web, tmp_path, monkeypatch):
    zip_of(tmp_path)
    source = open_source(f"{web.url}/photos.zip")
    source.read(0)
    (tmp_path / "photos.zip").write_bytes(b"another")
    for key in _looked:
        monkeypatch.setitem(_looked, key, _looked[key] - LOOK_EVERY_S)
    with pytest.raises(PassingFaultError, match="was changed since it was listed"):
        source.read(0)


def test_a_folder_of_the_web_is_listed_as_its_page_tells(web, tmp_path):
    for name in IMAGES:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(IMAGES[name])
    (tmp_path / "photos" / "ant" / "ü ?%41.png").write_bytes(image_bytes(9))
    near, far = open_source(str(tmp_path / "photos")), open_source(f"{web.url}/photos/")
    assert (list(far.sample_ids), far.labels.tolist()) == (list(near.sample_ids), near.labels.tolist())
    assert [far.read(i).sha256 for i in range(len(far))] == [near.read(i).sha256 for i in range(len(near))]


def test_a_package_that_is_not_there_is_named(monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(BatchcamError, match=r"^gs:// needs a package that is not installed: .*gcsfs"):
        read_file("gs://bucket/a.png")
    with pytest.raises(BatchcamError, match=r"foo://x/a\.png: Protocol not known: foo"):
        read_file("foo://x/a.png")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(BatchcamError, match=r"pip install 'batchcam\[remote\]'"):
        read_file("s3://bucket/a.png")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://me:pw@host/a.zip?sig=x", "https://host/a.zip"),
        ("wds:https://me@host/a-{0..9}.tar", "wds:https://host/a-{0..9}.tar"),
        ("error at url='http://h/a?X-Amz-Signature=x': 400", "error at url='http://h/a': 400"),
        ("s3://bucket/is it?.png", "s3://bucket/is it?.png"),
        ("sftp://me:pw@host/a@b.png", "sftp://host/a@b.png"),
        ("/data/a?b.png", "/data/a?b.png"),
    ],
)
def test_of_a_url_only_the_address_is_kept(text, left):
    assert without_secrets(text) == left


@pytest.mark.parametrize(
    ("folder", "path", "whole"),
    [
        ("/data", "a b.png", "/data/a b.png"),
        ("/data", "s3://b/a b.png", "s3://b/a b.png"),
        ("/data", "file:///x/a%20b.png", "/x/a b.png"),
        ("s3://b/", "a b.png", "s3://b/a b.png"),
        ("https://h/x", "a b%.png", "https://h/x/a%20b%25.png"),
        ("https://h/x", "http://i/a%20b.png", "http://i/a%20b.png"),
    ],
)
def test_a_path_leads_from_its_folder(folder, path, whole):
    assert joined(folder, path) == whole


def test_file_urls_are_paths_of_this_machine(tmp_path):
    (tmp_path / "a b.png").write_bytes(b"x")
    assert expanded(f"file://{tmp_path}/a%20b.png") == str(tmp_path / "a b.png")
    assert Holder.at(expanded((tmp_path / "a b.png").as_uri())).size == 1
