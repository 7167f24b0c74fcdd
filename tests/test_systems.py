"""How paths are taken on Windows, where more leads away than a slash does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from batchcam import systems


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")


@pytest.mark.parametrize(
    "path", [r"..\secret", r"C:\secret", "C:secret", r"\\server\share", r"a\..\..\b", "a.png:stream"]
)
def test_on_windows_a_path_with_a_drive_or_a_backslash_is_not_below(path: str, windows: None) -> None:
    assert not systems.is_below(path.encode())


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "a/../../b", "//server/share"])
def test_no_system_takes_a_path_that_leads_up_or_to_the_root(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for system in ("linux", "darwin", "win32"):
        monkeypatch.setattr(sys, "platform", system)
        assert not systems.is_below(path.encode())
        assert systems.is_below(b"ant/1.png")


def test_a_colon_and_a_backslash_are_letters_of_a_name_on_linux() -> None:
    assert systems.is_below(rb"12:30\1.png")


def test_on_windows_alone_a_path_may_lead_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not systems.is_share("//server/share")
    monkeypatch.setattr(sys, "platform", "win32")
    for share in ("//server/share", r"\\server\share", r"\/server/share"):
        assert systems.is_share(share)
    assert not systems.is_share(r"C:\images")


def test_reading_at_an_offset_is_the_same_without_pread(tmp_path: Path, windows: None) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb", buffering=0) as file:
        assert systems.read_at(file.fileno(), 3, 5) == b"567"
        assert systems.read_at(file.fileno(), 3, 0) == b"012"
