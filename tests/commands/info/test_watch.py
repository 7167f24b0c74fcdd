"""info --watch: what a person sees of a run in progress."""

from __future__ import annotations

import os

import pytest

from batchcam.commands.info.watch import watch
from batchcam.store.manifest import task_file, write_task
from batchcam.store.plan import read_plan


@pytest.fixture
def half_run(finished_run):
    """A run of which the last shard is missing, whose others landed ten seconds apart."""
    (finished_run / "manifest.json").unlink()
    shards = read_plan(finished_run).shards
    for path in finished_run.glob(f"shards/{shards[-1].file}*"):
        path.rename(finished_run / path.name)
    for number, shard in enumerate(shards[:-1]):
        os.utime(finished_run / "shards" / shard.file, (1000 + 10 * number, 1000 + 10 * number))
    return finished_run


def test_watch_tells_shards_rate_and_time_left(half_run):
    plan = read_plan(half_run)
    seen = next(watch(half_run))
    assert (seen.shards_landed, seen.shards, seen.complete) == (2, 3, False)
    assert seen.samples_landed == sum(s.count for s in plan.shards[:-1])
    assert seen.samples_per_s == pytest.approx(plan.shards[1].count / 10)
    assert seen.seconds_left == pytest.approx(plan.shards[2].count / (plan.shards[1].count / 10))


def test_watch_adds_up_what_tasks_say_of_themselves(half_run):
    for number, unreadable in enumerate((2, 3)):
        record = {"task": f"{number}/2", "started": str(number), "outcome": "running", "unreadable": unreadable}
        write_task(half_run, task_file(number), record)
    seen = next(watch(half_run))
    assert seen.unreadable == 5
    assert [t["outcome"] for t in seen.tasks].count("running") == 2


def test_watch_ends_when_the_run_is_complete(half_run):
    manifest = (half_run / "run.json").read_bytes()

    def finish(seconds: float) -> None:
        for path in half_run.glob("shard-*"):
            path.rename(half_run / "shards" / path.name)
        (half_run / "manifest.json").write_bytes(manifest)

    assert [seen.complete for seen in watch(half_run, sleep=finish)] == [False, True]


def test_watch_of_a_run_without_shards_knows_no_rate(half_run):
    for path in (half_run / "shards").iterdir():
        path.unlink()
    seen = next(watch(half_run))
    assert (seen.shards_landed, seen.samples_per_s, seen.seconds_left) == (0, None, None)


def test_info_watch_prints_lines_where_there_is_no_terminal(finished_run, run_cli):
    code, out, _ = run_cli("info", finished_run, "--watch")
    assert code == 0
    assert "3 of 3 shards" in out
