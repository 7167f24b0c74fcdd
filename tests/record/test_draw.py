"""Draws: those of plain loops, whatever the order; and estimates that hold the truth as often as they say."""

from __future__ import annotations

import collections
import hashlib
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm, t
from statsmodels.stats.proportion import proportion_confint

from batchcam.errors import ConfigError, RunError
from batchcam.record.draw import FEWEST, Draw, allocated, draw, read_draw, stratified_share
from batchcam.rules import VERDICTS
from batchcam.store.document import seal
from batchcam.store.opening import open_run
from tests.helpers.synthetic import fingerprinted, land_shards, synthetic_plan, synthetic_rows


def drawn(path: Path, count: int, seed: int = 0, stratify: str | None = None, backwards: bool = False) -> Draw:
    with open_run(path) as run:
        rows = np.arange(len(run))[:: -1 if backwards else 1]
        found, chosen = draw(run, rows, count, seed, stratify, VERDICTS)
        assert run.sample_id[chosen].tolist() == [each.sample_id for each in found.samples]
        return found


def by_digest(ids: list[str], seed: int) -> list[str]:
    return sorted(ids, key=lambda each: hashlib.sha256(f"{seed}:{each}".encode()).hexdigest())


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_draw_is_that_of_plain_loops_whatever_the_order_of_rows(sound_run: Path, seed: int, backwards: bool) -> None:
    with open_run(sound_run) as run:
        ids = run.sample_id[:].tolist()
        digests = dict(zip(ids, (d.tobytes().hex() for d in run.input_sha256[:]), strict=True))
    found = drawn(sound_run, 9, seed, backwards=backwards)
    assert [each.sample_id for each in found.samples] == by_digest(ids, seed)[:9]
    assert all(each.input_sha256 == digests[each.sample_id] for each in found.samples)
    assert {(each.reason, float(each.weight)) for each in found.samples} == {("9 of 21 at random", 2.333333333)}


@pytest.mark.parametrize("stratify", ["class", "prediction", "status"])
def test_strata_are_drawn_each_by_itself_and_weights_add_up_to_the_run(sound_run: Path, stratify: str) -> None:
    with open_run(sound_run) as run:
        label, prediction = run.label[:], run.prediction[:]
        value = {"class": np.where(label < 0, prediction, label), "prediction": prediction, "status": run.status[:]}
        members = collections.defaultdict(list)
        for sample_id, each in zip(run.sample_id[:].tolist(), value[stratify].tolist(), strict=True):
            members[each].append(sample_id)
    found = drawn(sound_run, 12, 3, stratify)
    ids = {each.sample_id for each in found.samples}
    for inside in members.values():
        assert by_digest(inside, 3)[: len(ids & {*inside})] == [each for each in by_digest(inside, 3) if each in ids]
        assert len(ids & {*inside}) >= min(FEWEST, len(inside))
    assert sorted(s.size for s in found.strata) == sorted(map(len, members.values()))
    assert sum(float(each.weight) for each in found.samples) == pytest.approx(21)
    assert len(ids) == 12


def test_a_column_of_the_manifest_makes_strata(tmp_path: Path) -> None:
    path = tmp_path / "run"
    plan = synthetic_plan(meta={"site": 8})
    rows = synthetic_rows(plan)
    rows.texts["meta/site"] = ["north" if i % 3 else "süd" for i in range(21)]
    land_shards(path, fingerprinted(plan, rows), rows)
    found = drawn(path, 6, stratify="site")
    assert [s.reason for s in found.strata] == ["4 of 14 at random, site north", "2 of 7 at random, site süd"]
    with pytest.raises(ConfigError, match="--stratify town: no column 'town'; it has site"):
        drawn(path, 6, stratify="town")


def test_each_sample_is_drawn_as_often_as_others(sound_run: Path) -> None:
    times: collections.Counter[int] = collections.Counter()
    with open_run(sound_run) as run:
        for seed in range(150):
            times.update(draw(run, np.arange(21), 7, seed, None, VERDICTS)[1].tolist())
    statistic = sum((count - 50) ** 2 / 50 for count in times.values()) / (1 - 7 / 21)
    assert len(times) == 21
    assert statistic < 45  # chi-square with 20 degrees of freedom: less than 1 in 700


@pytest.mark.parametrize("sizes", [[100], [60, 30, 10], [1000, 3, 1, 1, 2], [50] * 10, [7, 7, 7]])
@pytest.mark.parametrize("count", [20, 21])
def test_strata_get_samples_by_websters_method_with_a_minimum(sizes: list[int], count: int) -> None:
    expected = [min(FEWEST, size) if len(sizes) > 1 else 0 for size in sizes]
    while sum(expected) < count:
        claims = [Fraction(s, 2 * n + 1) if n < s else Fraction(-1) for s, n in zip(sizes, expected, strict=True)]
        expected[claims.index(max(claims))] += 1
    assert allocated(count, np.array(sizes), "site").tolist() == expected


def test_too_many_strata_are_refused_with_how_many_samples_they_want() -> None:
    with pytest.raises(ConfigError, match="--n 5: 3 values of --stratify site want 2 each: ask for 6 or more"):
        allocated(5, np.array([9, 9, 9]), "site")


def test_more_samples_than_there_are_are_refused(sound_run: Path) -> None:
    with pytest.raises(ConfigError, match="--n 22: more than the 21 samples of the run: ask for at most 21"):
        drawn(sound_run, 22)
    assert len(drawn(sound_run, 21).samples) == 21
    with open_run(sound_run) as run, pytest.raises(ConfigError, match="than the 0 samples of --wrong: choose others"):
        draw(run, np.arange(0), 1, 0, None, VERDICTS, "--wrong")


def test_a_document_gives_the_draw_again(sound_run: Path, tmp_path: Path) -> None:
    found = drawn(sound_run, 12, 3, "class")
    (tmp_path / "draw.json").write_bytes(seal(found.content))
    assert read_draw(tmp_path / "draw.json") == found


def test_what_is_no_draw_is_refused(sound_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "draw.json"
    with pytest.raises(RunError, match="cannot read: No such file"):
        read_draw(path)
    content = drawn(sound_run, 3).content
    path.write_bytes(seal(content).replace(b'"seed": 0', b'"seed": 1'))
    with pytest.raises(RunError, match="changed after it was written"):
        read_draw(path)
    for other in (
        {"a": 1},
        content | {"stratum": [0, 0, 9]},
        content | {"stratum": [0, -1, 0]},
        content | {"stratum": [0, 0]},
        content | {"samples": [[1]] * 3},
        {"strata": 3},
    ):
        path.write_bytes(seal(json.loads(json.dumps(other))))
        with pytest.raises(RunError, match="not a draw of batchcam sample"):
            read_draw(path)


@pytest.mark.parametrize("hits", [0, 3, 50, 100])
def test_a_plain_draw_from_very_many_has_wilsons_interval(hits: int) -> None:
    share, interval = stratified_share([hits], [100], [10**9])
    assert share == hits / 100
    expected = proportion_confint(hits, 100, method="wilson")
    np.testing.assert_allclose(interval, expected, atol=0.002)


@pytest.mark.parametrize("hits", [[3, 10, 2], [20, 1, 0], [8, 6, 2]])  # the second: strata that tell much
def test_an_estimate_by_strata_is_that_of_plain_loops(hits: list[int]) -> None:
    drawn_, sizes = [20, 15, 5], [1000, 300, 12]
    total, share, variance, alike = sum(sizes), 0.0, 0.0, 0.0
    for y, n, size in zip(hits, drawn_, sizes, strict=True):
        rate = y / n
        share += size / total * rate
        variance += (size / total) ** 2 * (1 - n / size) * rate * (1 - rate) / (n - 1)  # Cochran 1977, 5.24
        alike += (size / total) ** 2 * (1 - n / size) / n
    found, (low, high) = stratified_share(hits, drawn_, sizes)
    assert found == pytest.approx(share)
    effective = min(1 / alike, share * (1 - share) / variance) * (t.ppf(0.975, 39) / t.ppf(0.975, 37)) ** 2
    z = norm.ppf(0.975)
    for end in (low, high):  # of Wilson's interval: the rates that are z standard errors from the one found
        assert abs(share - end) == pytest.approx(z * math.sqrt(end * (1 - end) / effective))


def test_of_all_samples_a_share_is_certain() -> None:
    assert stratified_share([2, 0], [4, 4], [4, 4]) == (0.25, (0.25, 0.25))


COVERED = {
    "plain": ([0.3], [1000], 100),
    "nearly none": ([0.02], [1000], 100),
    "most of all": ([0.5], [150], 100),
    "one stratum has all": ([0, 0, 0.4], [600, 300, 100], 60),
    "strata tell much": ([0.1, 0.9], [500, 500], 60),
    "two of each": ([0.3] * 20, [100] * 20, 40),
    "small strata": ([0.02, 0.3, 0.3], [5000, 40, 10], 50),
}


@pytest.mark.parametrize("case", COVERED)
def test_intervals_hold_the_share_of_the_run_as_often_as_they_say(case: str) -> None:
    rates, sizes, count = COVERED[case]
    yes = np.round(np.array(rates) * sizes).astype(int)
    each, rng, held = allocated(count, np.array(sizes), "x"), np.random.default_rng(0), 0
    for hits in rng.hypergeometric(yes, np.array(sizes) - yes, each, (1000, len(sizes))):
        low, high = stratified_share(hits, each.tolist(), sizes)[1]
        held += low <= yes.sum() / sum(sizes) <= high
    assert held >= 920
