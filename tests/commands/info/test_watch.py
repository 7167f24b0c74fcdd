"""info --watch: what a person sees of a run in progress, and what a script is told."""

from __future__ import annotations

import json
import os
import time

import pytest

from batchcam.cli.printing import UNWELL_SHOWN, watch_line, watch_text
from batchcam.commands.info import watch as watching
from batchcam.commands.info.command import watch
from batchcam.commands.info.config import InfoConfig
from batchcam.commands.info.watch import RATE_SHARDS, STALLED_S, Watcher
from batchcam.errors import RunError
from batchcam.job.leases import STALE_S, lease_path
from batchcam.store.manifest import task_file, write_task
from batchcam.store.plan import read_plan
from batchcam.store.schema import PARTIAL_SUFFIX

LANDED = 1_700_000_000
"""When the first shard landed; the second one ten seconds later."""


@pytest.fixture
def half_run(finished_run):
    """A run without tasks of which the last shard is missing, whose others landed ten seconds apart."""
    for path in (finished_run / "manifest.json", *finished_run.glob("task-*.json")):
        path.unlink()
    shards = read_plan(finished_run).shards
    for path in finished_run.glob(f"shards/{shards[-1].file}*"):
        path.rename(finished_run / path.name)
    os.utime(finished_run / "run.json", (LANDED, LANDED))
    for number, shard in enumerate(shards[:-1]):
        land_at(finished_run / "shards" / shard.file, LANDED + 10 * number)
    return finished_run


def land_at(path, seconds):
    os.utime(path, (seconds, seconds))


def look(run, seconds=10):
    """A look so many seconds after the first shard landed."""
    return Watcher(run, lambda: LANDED + seconds).look()


def utc(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(LANDED + seconds))


def record(run, task, outcome, started=0, written=10, **more):
    """Leave a task's record, written so many seconds after the first shard landed."""
    name = task_file(int(task.partition("/")[0]))
    times = {"started": utc(started), "written": utc(written)}
    write_task(run, name, {"task": task, "host": f"node{task}", "outcome": outcome, **times, **more})
    land_at(run / name, LANDED + written)


def test_watch_tells_shards_rate_and_time_left(half_run):
    plan = read_plan(half_run)
    seen = look(half_run)
    assert (seen.shards_landed, seen.shards, seen.complete) == (2, 3, False)
    assert seen.samples_landed == sum(s.count for s in plan.shards[:-1])
    assert seen.samples_per_s == pytest.approx(plan.shards[1].count / 10)
    assert seen.seconds_left == pytest.approx(plan.shards[2].count / (plan.shards[1].count / 10))


def test_the_rate_stays_until_the_next_shard_is_late_and_falls_then(half_run):
    count = read_plan(half_run).shards[1].count
    rates = [look(half_run, seconds).samples_per_s for seconds in (10, 20, 30, 1010)]
    assert rates == pytest.approx([count / 10, count / 10, count / 20, count / 1000])


def test_a_silence_is_told_with_the_rate_and_the_time_left_that_it_means(half_run):
    plan = read_plan(half_run)
    seen = look(half_run, 10 + 14 * 60 + 5)
    assert seen.silent_s == 14 * 60 + 5
    assert seen.seconds_left == pytest.approx(plan.shards[2].count / plan.shards[1].count * (14 * 60 + 5))
    assert "no shard for 14 min" in watch_line(seen)
    assert "no shard for" not in watch_line(look(half_run, 30))


def test_a_run_that_is_silent_for_days_tells_days(half_run):
    line = watch_line(look(half_run, 20 * 86400))
    assert "no shard for 19 days" in line
    assert " days left" in line


def test_a_run_whose_shards_are_all_there_waits_for_merge(half_run):
    for path in half_run.glob("shard-*"):
        path.rename(half_run / "shards" / path.name)
        land_at(half_run / "shards" / path.name, LANDED + 20)
    seen = look(half_run, 20 + 3600)
    assert "not merged yet; no shard for 60 min" in watch_line(seen)
    with pytest.raises(RunError, match="nobody merged them: run batchcam merge"):
        watching.require_progress(seen, 1800)


def test_where_work_goes_on_after_a_pause_the_silence_counts_from_the_first_start(half_run):
    record(half_run, "0/2", "stopped early", written=12)
    assert look(half_run, 90_100).silent_s == 90_090
    for started in (90_000, 90_040):  # as one that ends again and again
        record(half_run, "0/2", "running", started=started, written=started)
    assert look(half_run, 90_100).silent_s == 100


def test_watch_adds_up_what_tasks_found_unreadable(half_run):
    for number, unreadable in enumerate((2, 3)):
        record(half_run, f"{number}/2", "running", unreadable=unreadable)
    assert look(half_run).unreadable == 5


def test_tasks_that_are_not_well_are_counted_and_listed(half_run):
    record(half_run, "0/5", "done")
    record(half_run, "1/5", "running", written=STALLED_S)
    record(half_run, "2/5", "running", written=20)
    record(half_run, "3/5", "failed", written=30)
    record(half_run, "4/5", "stopped early", written=40)
    seen = look(half_run, STALLED_S + 21)
    assert seen.tasks == {"done": 1, "running": 1, "stalled": 1, "failed": 1, "stopped early": 1}
    assert [(each.task, each.state) for each in seen.unwell] == [
        ("2/5", "stalled"), ("3/5", "failed"), ("4/5", "stopped early"),
    ]  # fmt: skip
    assert "1 task failed, 1 task stalled, 1 task stopped early" in watch_line(seen)
    assert "stalled: 2/5 on node2/5, last heard of 10 min ago" in watch_text(seen).splitlines()


def test_a_task_is_given_the_time_of_several_shards_before_it_counts_as_stalled(half_run):
    record(half_run, "0/2", "running", seconds=2000.0, shards=["shard-00000.h5", "shard-00001.h5"])
    record(half_run, "1/2", "running")
    assert look(half_run, 10 + 3 * 1000 - 1).tasks == {"running": 2}
    assert look(half_run, 10 + 3 * 1000 + 1).tasks == {"stalled": 2}


def test_a_task_whose_share_a_later_one_took_over_is_no_longer_told(half_run):
    record(half_run, "0/2", "failed", written=20)
    record(half_run, "1/2", "running", written=20)
    for number in range(2):
        record(half_run, f"{number}/2", "running", started=30, written=STALLED_S + 30)
    seen = look(half_run, STALLED_S + 40)
    assert (seen.tasks, seen.unwell) == ({"running": 2}, [])


def test_a_thousand_tasks_fit_on_a_screen(half_run):
    states = [watching.UnwellTask(f"{n}/1000", "node", "failed", 60.0) for n in range(400)]
    seen = look(half_run)
    seen.tasks.update({"running": 600, "failed": 400})
    seen.unwell.extend(states)
    lines = watch_text(seen).splitlines()
    assert len(lines) == 3 + UNWELL_SHOWN + 1 <= 24
    assert lines[2] == "1000 tasks: 400 failed, 600 running"
    assert lines[-1] == f"… and {400 - UNWELL_SHOWN} more; --json lists all"


def test_a_look_reads_only_what_is_new(half_run, monkeypatch):
    record(half_run, "0/2", "running")
    watcher = Watcher(half_run, lambda: LANDED)
    first = watcher.look()
    read = []
    for name in ("read_digest", "read_task"):
        real = getattr(watching, name)
        monkeypatch.setattr(watching, name, lambda path, real=real: (read.append(path.name), real(path))[1])
    assert (watcher.look(), read) == (first, [])
    for path in half_run.glob("shard-*"):
        path.rename(half_run / "shards" / path.name)
    record(half_run, "1/2", "failed")
    assert watcher.look().shards_landed == 3
    assert sorted(name[:7] for name in read) == ["shard-0", "task-00"]


def test_a_shard_that_is_removed_for_repair_is_no_longer_landed(half_run):
    watcher = Watcher(half_run, lambda: LANDED)
    assert watcher.look().shards_landed == 2
    (half_run / "shards" / read_plan(half_run).shards[0].file).unlink()
    assert watcher.look().shards_landed == 1


@pytest.mark.parametrize("ahead", [-5000, 5000])
def test_the_clock_of_the_file_system_is_taken_from_what_lands_meanwhile(half_run, ahead):
    now = [LANDED + 20]
    watcher = Watcher(half_run, lambda: now[0] - ahead)
    watcher.look()
    for path in half_run.glob("shard-*"):
        path.rename(half_run / "shards" / path.name)
        land_at(half_run / "shards" / path.name, LANDED + 45)
    now[0] = LANDED + 50
    watcher.look()
    now[0] = LANDED + 645
    assert watcher.look().silent_s == pytest.approx(600, abs=30)  # the time between the looks


def test_a_file_of_the_future_does_not_make_a_negative_silence(half_run):
    assert look(half_run, -1000).silent_s == 0


def test_watch_ends_when_the_run_is_complete(half_run):
    manifest = (half_run / "run.json").read_bytes()

    def finish(seconds: float) -> None:
        for path in half_run.glob("shard-*"):
            path.rename(half_run / "shards" / path.name)
        (half_run / "manifest.json").write_bytes(manifest)

    assert [seen.complete for seen in watch(InfoConfig(half_run), sleep=finish)] == [False, True]


def test_watch_of_a_run_without_shards_knows_no_rate_and_counts_the_silence_from_the_plan(half_run):
    for path in (half_run / "shards").iterdir():
        path.unlink()
    seen = look(half_run, 100)
    assert (seen.shards_landed, seen.samples_per_s, seen.seconds_left, seen.silent_s) == (0, None, None, 100)


def test_the_rate_is_that_of_the_latest_shards(half_run, monkeypatch):
    assert RATE_SHARDS > 2
    monkeypatch.setattr(watching, "RATE_SHARDS", 2)
    for path in half_run.glob("shard-*"):
        path.rename(half_run / "shards" / path.name)
        land_at(half_run / "shards" / path.name, LANDED + 12)
    assert look(half_run, 12).samples_per_s == pytest.approx(read_plan(half_run).shards[2].count / 2)


def test_watch_with_stall_goes_on_until_no_shard_landed_for_so_long(half_run):
    now, slept = [LANDED + 10], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    looks = watch(InfoConfig(half_run, stall="30m"), 600, sleep, lambda: now[0])
    with pytest.raises(RunError, match=f"{half_run}: no shard landed for 30 min, 2 of 3 are there"):
        list(looks)
    assert slept == [600, 600, 600]


@pytest.mark.parametrize("options", [("--watch",), ()])
def test_a_stalled_run_ends_with_1_and_one_line(half_run, run_cli, options):
    code, _, err = run_cli("info", half_run, "--stall", "30m", *options)
    assert code == 1
    assert err.count("\n") == 1
    assert "no shard landed for" in err


def test_a_complete_run_is_never_stalled(finished_run, run_cli):
    for path in finished_run.glob("shards/*"):
        land_at(path, LANDED)
    for options in ((), ("--watch",)):
        assert run_cli("info", finished_run, "--stall", "1s", *options)[0] == 0


def test_info_watch_prints_lines_where_there_is_no_terminal(finished_run, run_cli):
    code, out, _ = run_cli("info", finished_run, "--watch")
    assert code == 0
    assert "3 of 3 shards" in out


def test_json_is_one_line_for_each_look(half_run, run_cli):
    code, out, _ = run_cli("info", half_run, "--watch", "--stall", "30m", "--json")
    look, error = map(json.loads, out.splitlines())
    assert (look["shards_landed"], look["complete"], look["exit_code"]) == (2, False, None)
    assert (error["exit_code"], code) == (1, 1)


def lease(run, shard, at, generation=0):
    """Leave a sign of life of a shard's worker, so many seconds after the first shard landed."""
    path = lease_path(run / "shards" / shard.file, generation, PARTIAL_SUFFIX)
    path.touch()
    land_at(path, LANDED + at)
    return path


def test_shards_under_way_are_told_with_the_last_sign_of_their_workers(half_run):
    shards = read_plan(half_run).shards
    lease(half_run, shards[0], 5)  # has landed, and its lease is not cleaned up yet
    lease(half_run, shards[2], 15)
    seen = look(half_run, 35)
    assert [(each.shard, each.silent_s) for each in seen.under_way] == [(2, 20)]
    assert "; shard 2 under way, last sign 20 s ago" in watch_line(seen)
    assert "left by" in watch_line(look(half_run, 20 + STALE_S))
    lease(half_run, shards[2], 30, generation=1)  # another worker's, which has taken it over
    assert "; shard 2 under way, last sign 5 s ago" in watch_line(look(half_run, 35))


def test_many_shards_under_way_take_one_line_and_those_of_dead_workers_are_counted(half_run):
    shards = read_plan(half_run).shards
    for path in half_run.glob("shards/shard-*"):
        path.unlink()
    land_at(half_run / "run.json", LANDED)
    for shard, at in zip(shards, (0, 300, 340), strict=True):
        lease(half_run, shard, at)
    line = watch_line(look(half_run, 345))
    assert "2 shards under way, last sign 5 s to 45 s ago; 1 shard left by workers without a sign of life" in line


def test_a_task_that_ended_tells_why(half_run):
    record(half_run, "0/2", "failed", reason="m.pth: no such file")
    assert "failed: 0/2 on node0/2, last heard of 5 s ago: m.pth: no such file" in watch_text(look(half_run, 15))
