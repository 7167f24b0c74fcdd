"""Images that stand in a run twice, or in its training data too: against plain sets of digests."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from batchcam.record.overlap import LISTED, Overlap, find_overlap
from batchcam.store.opening import open_run
from tests.helpers.memory_run import DigestsOnly
from tests.helpers.synthetic import land_shards, synthetic_plan, synthetic_rows


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[[str, np.ndarray], Path]:
    """A function that makes a run of these digests, uint8 (n, 32)."""

    def make(name: str, digests: np.ndarray) -> Path:
        plan = synthetic_plan(sample_count=len(digests))
        rows = synthetic_rows(plan)
        rows.columns["input_sha256"] = digests
        land_shards(tmp_path / name, plan, rows)
        return tmp_path / name

    return make


def few(seed: int, count: int, kinds: int) -> np.ndarray:
    """Digests of a few images, many of them with zeros at an end, one of them unknown."""
    rng = np.random.default_rng(seed)
    digests = np.zeros((kinds, 32), np.uint8)
    digests[np.arange(1, kinds), rng.integers(0, 32, kinds - 1)] = rng.integers(1, 3, kinds - 1)
    return digests[np.append(rng.integers(0, kinds, count - 1), 0)]


def overlap(run: Path, training: Path | None) -> Overlap:
    with open_run(run) as opened:
        if training is None:
            return find_overlap(opened, None)
        with open_run(training) as other:
            return find_overlap(opened, other)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_shared_is_what_sets_share_also_where_digests_have_zeros(seed: int, run_of) -> None:
    tested, trained = few(seed, 60, 50), few(seed + 100, 40, 30)
    found = overlap(run_of("test", tested), run_of("train", trained))
    ours, theirs = ([d.tobytes() for d in digests] for digests in (tested, trained))
    known, counts = [d for d in ours if any(d)], Counter(ours)
    ids = [f"蝶/фото {i:05d}.png" for i in range(len(ours))]
    assert found.compared == len(known) < len(ours)
    twice = [i for i, d in zip(ids, ours, strict=True) if any(d) and counts[d] > 1]
    assert (found.twice.count, list(found.twice.ids)) == (len(twice), twice[:LISTED])
    also = [i for i, d in zip(ids, ours, strict=True) if any(d) and d in set(theirs)]
    assert found.training is not None
    assert (found.training.shared.count, list(found.training.shared.ids)) == (len(also), also[:LISTED])
    assert also
    assert (found.training.samples, found.training.compared) == (40, sum(map(any, theirs)))


def test_a_run_without_any_digest_shares_nothing(run_of) -> None:
    none = np.zeros((5, 32), np.uint8)
    found = overlap(run_of("test", none), run_of("train", few(0, 20, 9)))
    assert (found.compared, found.twice.count) == (0, 0)
    assert found.training is not None
    assert found.training.shared.count == 0


def test_without_training_data_nothing_is_said_of_it(run_of) -> None:
    assert overlap(run_of("test", few(0, 20, 9)), None).training is None


@pytest.mark.slow
def test_a_million_samples_take_a_hundred_megabytes() -> None:
    run, training = DigestsOnly(1_000_000, 0), DigestsOnly(1_000_000, 0, first=900_000)
    tracemalloc.start()
    found = find_overlap(run, training)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.training is not None
    assert found.training.shared.count == 100_000
    assert found.training.shared.ids[0] == "900000.png"
    assert peak < 110e6
