"""Set-up that tests share."""

import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout, from which other processes of a test import this package too."""


def unpack(path: Path, folder: Path) -> None:
    """Unpack a tar file of our own; Python 3.11.3 and older know no filters."""
    safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(path) as archive:
        archive.extractall(folder, **safely)


def mostly_slow(rows: Iterable[Any], *kept: Any) -> list[Any]:
    """Return parameters for a test, of which the normal suite tries `kept` alone."""
    rows = list(rows)
    assert all(row in rows for row in kept)
    return [
        row if row in kept else pytest.param(*(row if isinstance(row, tuple) else [row]), marks=pytest.mark.slow)
        for row in rows
    ]
