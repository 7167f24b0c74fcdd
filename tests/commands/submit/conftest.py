"""What tests of jobs share: programs of Slurm's that are pretended, and answer at once."""

from __future__ import annotations

import pytest

from batchcam.commands.submit import slurm
from tests.helpers.pretended import Pretended


@pytest.fixture
def pretended(tmp_path, monkeypatch) -> Pretended:
    """The working directory has nothing but what is pretended."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(slurm, "PAUSE_S", 0.01)
    monkeypatch.setattr(slurm, "PATIENCE_S", 0.5)
    return Pretended(tmp_path / "programs", monkeypatch)
