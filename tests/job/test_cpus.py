from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchcam.job.cpus import available_cpus, loader_processes


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))


def quota(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(text)


def old_quota(folder: Path, quota: str, period: str) -> None:
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu.cfs_period_us").write_text(period)


def test_at_least_one_cpu_is_available():
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


def test_affinity_counts_where_there_is_no_quota(many: None, tmp_path: Path):
    assert available_cpus(tmp_path) == 64


@pytest.mark.parametrize(("text", "cpus"), [("max 100000\n", 64), ("250000 100000\n", 3), ("10000 100000\n", 1)])
def test_a_containers_quota_counts(many: None, tmp_path: Path, text: str, cpus: int):
    quota(tmp_path, text)
    assert available_cpus(tmp_path) == cpus


def test_the_tightest_quota_above_the_process_counts(
    many: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", _with_groups("0::/slice/job\n"))
    quota(tmp_path / "slice", "200000 100000")
    quota(tmp_path / "slice" / "job", "400000 100000")
    assert available_cpus(tmp_path) == 2


@pytest.mark.parametrize(("quota", "cpus"), [("-1", 64), ("150000", 2)])
def test_a_quota_of_version_1_counts(
    many: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cpus: int
) -> None:
    monkeypatch.setattr(Path, "read_text", _with_groups("4:memory:/elsewhere\n3:cpu,cpuacct:/docker/abc\n"))
    old_quota(tmp_path / "cpu" / "docker" / "abc", quota, "100000")
    assert available_cpus(tmp_path) == cpus


@pytest.mark.parametrize(
    ("cpus", "beside_a_network", "for_one_gpu", "for_one_of_two", "for_one_of_eight"),
    [(1, 1, 1, 1, 1), (2, 1, 2, 1, 1), (4, 2, 4, 2, 1), (8, 4, 8, 4, 2), (16, 8, 16, 8, 4), (64, 32, 64, 32, 16)],
)
def test_loader_processes_leave_cpus_to_a_network_and_to_other_gpus(
    monkeypatch: pytest.MonkeyPatch,
    cpus: int,
    beside_a_network: int,
    for_one_gpu: int,
    for_one_of_two: int,
    for_one_of_eight: int,
) -> None:
    monkeypatch.setattr("batchcam.job.cpus.available_cpus", lambda: cpus)
    expected = [beside_a_network, for_one_gpu, for_one_of_two, for_one_of_eight]
    assert [loader_processes(None, gpus) for gpus in (0, 1, 2, 8)] == expected


@pytest.mark.parametrize("asked", [0, 1, 5, 100])
@pytest.mark.parametrize("gpus", [0, 1, 8])
def test_loader_processes_are_as_many_as_asked_for(many: None, asked: int, gpus: int):
    assert loader_processes(asked, gpus) == asked


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3", "a b"])
def test_a_quota_that_nobody_understands_is_none(many: None, tmp_path: Path, text: str):
    quota(tmp_path, text)
    assert available_cpus(tmp_path) == 64


def _with_groups(groups: str):
    original = Path.read_text
    return lambda path: groups if str(path) == "/proc/self/cgroup" else original(path)
