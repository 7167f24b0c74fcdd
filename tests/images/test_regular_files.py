"""A file is read whole, or refused before anything of it is read."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from batchcam.images.regular_files import NotRegularError, TooLargeError, read_regular_file


def test_a_file_is_read_whole_by_any_kind_of_path_and_through_links(tmp_path: Path) -> None:
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_bytes(b"abc")
    link.symlink_to(path)
    assert [read_regular_file(p) for p in (path, str(path), os.fsencode(path), link)] == [b"abc"] * 4


def test_a_file_of_the_most_bytes_is_read_and_one_more_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert read_regular_file(path, 3) == b"abc"
    with pytest.raises(TooLargeError, match="more than 2 bytes"):
        read_regular_file(path, 2)


def test_a_pipe_is_refused_at_once_and_a_folder_by_the_system(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotRegularError, match="not a regular file"):
        read_regular_file(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        read_regular_file(tmp_path)


def test_reading_waits_for_a_slow_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(os, "set_blocking", lambda descriptor, wait: asked.append(wait))
    (tmp_path / "a").write_bytes(b"abc")
    read_regular_file(tmp_path / "a")
    assert asked == [True]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a", "pipe"):
        with contextlib.suppress(NotRegularError, TooLargeError):
            read_regular_file(tmp_path / name, 2)
    assert len(os.listdir("/proc/self/fd")) == before
