"""What a container or a job may have less than the machine, however deep the limit lies and whoever states it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchcam.job.control_groups import available_memory

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def groups(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    original = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path: text if str(path) == "/proc/self/cgroup" else original(path))


def limit(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize(("text", "memory"), [("1000000\n", 1_000_000), ("max\n", MACHINE), ("nonsense", MACHINE)])
def test_a_containers_limit_counts_where_there_is_one(tmp_path: Path, text: str, memory: int) -> None:
    limit(tmp_path, "memory.max", text)
    assert available_memory(tmp_path) == memory


@pytest.mark.parametrize(("outer", "inner"), [("2000000", "max"), ("2000000", "3000000"), ("max", "2000000")])
def test_the_tightest_of_nested_groups_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outer: str, inner: str
) -> None:
    groups(monkeypatch, "0::/slurm/job_7/step_0\n")
    limit(tmp_path / "slurm/job_7", "memory.max", outer)
    limit(tmp_path / "slurm/job_7/step_0", "memory.max", inner)
    assert available_memory(tmp_path) == 2_000_000


def test_a_limit_of_version_1_counts_and_its_huge_number_for_none_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups(monkeypatch, "5:cpu:/elsewhere\n4:memory:/slurm/job_7\n")
    limit(tmp_path / "memory", "memory.limit_in_bytes", "9223372036854771712")
    assert available_memory(tmp_path) == MACHINE
    limit(tmp_path / "memory/slurm/job_7", "memory.limit_in_bytes", "4000000")
    limit(tmp_path / "memory/elsewhere", "memory.limit_in_bytes", "1")
    assert available_memory(tmp_path) == 4_000_000
