"""Commands on finished runs take no more memory for more samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.big_runs import cost, sound_run

SHARD = 20_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, Path]]:
    """Two runs each of few and of many samples, in the same order; one error of the many is long."""
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for samples in (5 * SHARD, 20 * SHARD):
        made[samples] = folder / f"{samples}-old", folder / f"{samples}-new"
        for seed, run in enumerate(made[samples]):
            sound_run(run, samples, SHARD, seed, long_errors=True)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("command", ["info", "verify", "report", "compare", "against", "csv"])
def test_memory_does_not_grow_with_the_run(runs: dict[int, tuple[Path, Path]], tmp_path: Path, command: str) -> None:
    peaks = []
    for old, new in runs.values():
        words: dict[str, tuple[object, ...]] = {
            "info": ("info", new),
            "verify": ("verify", new, "-j", 1),
            "report": ("report", new, "--out", tmp_path / "r.html", "--overwrite"),
            "compare": ("compare", old, new),
            "against": ("report", new, "--against", old, "--out", tmp_path / "r.html", "--overwrite"),
            "csv": ("export", new, "--to", "csv", "--out", tmp_path / f"csv of {new.name}"),
        }
        measured = cost(*words[command], "--quiet")
        assert measured["code"] in (0, 3)
        peaks.append(measured["peak_mb"])
    assert peaks[1] < 1.2 * peaks[0]  # allocators differ from run to run; 100 bytes a sample would be 1.3 and more
