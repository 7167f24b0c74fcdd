"""Copies near the worker change nothing but where bytes come from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from batchcam.data import staging
from batchcam.data.samples import Source
from batchcam.data.staging import staged
from batchcam.data.timed_source import timed
from batchcam.errors import ConfigError, StoppedEarlyError
from batchcam.images.decoding import UnreadableImageError
from batchcam.job.stop import Stop
from tests.data.test_samples import png, source
from tests.helpers.memory_source import MemorySource

NAMES = ("a.png", "b.png", "c.png", "d.png")


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        png(folder / name, (number, 0, 0))
    return folder


@pytest.mark.parametrize("seconds", [0, 60])
def test_only_the_samples_asked_for_are_copied_and_read_there_and_the_copies_go(images, tmp_path, seconds):
    samples: Source = timed(source(images, *NAMES), seconds)
    with staged(samples, [1, 3], tmp_path, quiet=True):
        (place,) = tmp_path.glob("batchcam.*")
        assert sorted(os.listdir(place)) == ["1", "3"]
        for name in ("b.png", "d.png"):
            (images / name).unlink()
        assert [samples.read(index).image.getpixel((0, 0))[0] for index in range(4)] == [0, 1, 2, 3]
    assert not place.exists()
    with pytest.raises(UnreadableImageError):
        samples.read(1)


def test_what_can_not_be_copied_is_unreadable_in_the_words_of_a_read(images, tmp_path):
    (images / "a.png").unlink()
    (images / "b.png").unlink()
    os.mkfifo(images / "b.png")
    samples = source(images, *NAMES)

    def reasons() -> list[str]:
        found = []
        for index in range(2):
            with pytest.raises(UnreadableImageError) as caught:
                samples.read(index)
            found.append(str(caught.value))
        return found

    before = reasons()
    with staged(samples, range(4), tmp_path, quiet=True):
        assert reasons() == before
        assert samples.read(2).sha256 == hashlib.sha256((images / "c.png").read_bytes()).digest()


def test_a_full_disk_is_told_and_the_rest_is_read_where_it_is(images, tmp_path, monkeypatch, capsys):
    real = Path.write_bytes

    def write(path: Path, content: bytes) -> int:
        if path.name == "1":
            real(path, content[:5])
            raise OSError(28, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(staging.Path, "write_bytes", write)
    samples = source(images, *NAMES)
    with staged(samples, range(4), tmp_path, quiet=True):
        assert [samples.read(index).image.getpixel((0, 0))[0] for index in range(4)] == [0, 1, 2, 3]
    assert "No space left on device: the rest is read where it is" in capsys.readouterr().err


def test_a_stop_while_copying_ends_the_work_and_leaves_no_copies(images, tmp_path):
    with Stop(0), pytest.raises(StoppedEarlyError), staged(source(images, *NAMES), range(4), tmp_path, quiet=True):
        pytest.fail("was not stopped")
    assert not list(tmp_path.glob("batchcam.*"))


def test_what_has_no_files_and_a_folder_that_is_not_there_are_refused(images, tmp_path):
    with pytest.raises(ConfigError, match=r"--stage-to: .* is no dataset of image files"):
        staged(MemorySource([(4, 4)]), [], tmp_path, quiet=True).__enter__()
    with pytest.raises(ConfigError, match=r"--stage-to .*none: cannot write there: No such file"):
        staged(source(images, *NAMES), [0], tmp_path / "none", quiet=True).__enter__()
