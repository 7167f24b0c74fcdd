"""Which shard a worker makes next: its own, then others'; what it waits for, takes over, and gives up."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest

from batchcam.commands.explain import claims as claims_module
from batchcam.commands.explain.claims import PATIENCE, Claims, planning
from batchcam.errors import StoppedEarlyError
from batchcam.job.leases import Leases
from batchcam.job.stop import Stop
from batchcam.store import landing
from batchcam.store.plan import Shard
from batchcam.store.schema import PARTIAL_SUFFIX

ALL = [Shard(index, index * 4, 4) for index in range(6)]


class Team:
    """Workers on one run, each with claims of its own."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.dead: set[str] = set()
        (run / "shards").mkdir()

    def claims(
        self,
        own: Sequence[int],
        name: str = "one",
        again: Collection[int] = (),
        others: Callable[[], Sequence[int]] = list,
    ) -> Claims:
        leases = Leases(
            {"name": name}, lambda error: None, PARTIAL_SUFFIX, lambda holder: holder.get("name") in self.dead
        )
        return Claims(self.run, [ALL[i] for i in own], again, lambda: [ALL[i] for i in others()], leases, quiet=True)

    def land(self, *indices: int) -> None:
        for index in indices:
            landing.land_own(self.run / "shards" / ALL[index].file, b"rows")

    def make(self, claims: Claims) -> list[int]:
        """Land and finish all that can be claimed without waiting; return which."""
        made = []
        for shard in claims:
            self.land(shard.index)
            claims.finish(shard)
            made.append(shard.index)
        return made

    @property
    def leases(self) -> list[str]:
        return [name for name in os.listdir(self.run / "shards") if "lease" in name]


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


def while_waiting(monkeypatch, *steps: Callable[[], object]) -> list[float]:
    """Let something happen in each pause, and nothing take time; return how long the pauses were to be."""
    pauses: list[float] = []

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        steps[len(pauses) - 1]()  # one more look than there are steps is an error, not a hang

    monkeypatch.setattr(claims_module.stop, "wait", wait)
    return pauses


def test_two_workers_make_every_shard_once_in_whatever_order(team):
    first, second = team.claims(range(6)), team.claims([3, 0, 5, 1, 4, 2], "two")
    made = []
    for pair in zip(first, second, strict=False):
        for claims, shard in zip((first, second), pair, strict=True):
            team.land(shard.index)
            claims.finish(shard)
            made.append(shard.index)
    assert sorted(made) == list(range(6))
    assert team.make(first) + team.make(second) == []
    assert not first.wait()
    assert not second.wait()
    assert team.leases == []


def test_what_is_left_is_given_back_at_the_end(team):
    with team.claims(range(6)) as claims:
        assert next(iter(claims)).index == 0
        assert len(team.leases) == 1
    assert team.leases == []


def test_a_shard_that_another_holds_is_passed_over_and_waited_for(team, monkeypatch):
    other, claims = team.claims([1], "two"), team.claims([0, 1, 2])
    (held,) = other
    assert team.make(claims) == [0, 2]
    pauses = while_waiting(monkeypatch, lambda: None, lambda: team.land(1), lambda: other.finish(held))
    assert not claims.wait()
    assert len(pauses) == 2


def test_a_shard_that_its_holder_gives_back_is_made(team, monkeypatch):
    other, claims = team.claims([1], "two"), team.claims([0, 1])
    list(other)
    assert team.make(claims) == [0]
    while_waiting(monkeypatch, lambda: other.__exit__())
    assert claims.wait()
    assert team.make(claims) == [1]
    assert not claims.wait()


def test_a_shard_of_a_dead_worker_is_made_in_its_turn(team):
    list(team.claims([0, 1], "dead"))
    team.dead.add("dead")
    assert team.make(team.claims([0, 1, 2])) == [0, 1, 2]


def test_a_shard_whose_holder_takes_far_longer_than_this_worker_is_made_by_one_of_the_idle(team, monkeypatch):
    monkeypatch.setattr(claims_module, "LEAST_PATIENCE_S", 0)
    monkeypatch.setattr(claims_module, "PATIENCE", 0)
    list(team.claims([1], "slow"))
    idle = [team.claims([number, 1], str(number)) for number in (0, 2)]
    assert [team.make(claims) for claims in idle] == [[0], [2]]
    assert idle[0].wait()
    monkeypatch.setattr(claims_module, "LEAST_PATIENCE_S", 1000)
    while_waiting(monkeypatch, lambda: team.land(1))
    assert not idle[1].wait()


def test_patience_lasts_as_long_as_shards_take_and_no_shard_is_taken_from_a_worker_of_the_same_speed(team, monkeypatch):
    list(team.claims([1], "two"))
    claims = team.claims([0, 1])
    assert team.make(claims) == [0]
    monkeypatch.setattr(claims, "_took_s", [1.0, 1000.0, 5.0])
    asked = []
    monkeypatch.setattr(claims.leases, "claim", lambda path, patience_s: asked.append(patience_s) or True)
    assert claims.wait()
    assert asked == [PATIENCE * 5.0]


def test_who_has_made_nothing_waits_for_its_own_shards_only(team, monkeypatch):
    list(team.claims([0, 1], "two"))
    helper = team.claims([], others=lambda: [1])
    assert helper.wait()
    assert team.make(helper) == []
    assert not helper.wait()
    waits = team.claims([0])
    while_waiting(monkeypatch, lambda: team.land(0))
    assert team.make(waits) == []
    assert not waits.wait()


def test_a_worker_helps_others_after_its_own_share_and_waits_for_what_they_hold(team, monkeypatch):
    other = team.claims([1, 3, 5], "two")
    held = next(iter(other))
    claims = team.claims([0, 2, 4], others=lambda: [5, 3, 1])
    assert claims.wait()
    assert team.make(claims) == [0, 2, 4, 5, 3]
    while_waiting(monkeypatch, lambda: team.land(held.index))
    assert not claims.wait()


def test_others_are_asked_about_when_the_own_share_is_made_and_once(team):
    asked = []

    def others() -> list[int]:
        asked.append(sorted(p.name for p in (team.run / "shards").glob("*.h5")))
        return []

    claims = team.claims([0, 1], others=others)
    assert claims.wait()
    assert asked == []
    team.make(claims)
    assert not claims.wait()
    assert asked == [["shard-00000.h5", "shard-00001.h5"]]


def test_waiting_ends_when_the_work_is_to_stop(team):
    list(team.claims([0], "two"))
    claims = team.claims([0])
    assert list(claims) == []
    with Stop(time_limit_s=0), pytest.raises(StoppedEarlyError, match="time limit"):
        claims.wait()


def test_what_was_begun_is_made_again_after_a_loader_died_and_stays_claimed_meanwhile(team):
    claims, other = team.claims(range(3)), team.claims(range(3), "two")
    shards = iter(claims)
    first, second = next(shards), next(shards)
    team.land(first.index)
    claims.finish(first)
    claims.begin_again()
    assert claims.wait()
    assert next(iter(other)).index == 2
    assert team.make(claims) == [second.index]


def test_a_shard_that_another_landed_is_given_up_and_none_else(team, monkeypatch):
    monkeypatch.setattr(claims_module, "LOOK_EVERY_S", 0)
    claims = team.claims([0, 1])
    first, second = claims
    assert not claims.look_whether_overtaken(first)
    team.land(0)
    assert not claims.look_whether_overtaken(second)
    assert not claims.is_overtaken(first)  # nobody looked
    assert claims.look_whether_overtaken(first)
    assert (claims.is_overtaken(first), claims.is_overtaken(second)) == (True, False)
    assert len(team.leases) == 1


def test_a_landed_shard_that_is_to_be_made_again_is_made_and_never_overtaken(team, monkeypatch):
    monkeypatch.setattr(claims_module, "LOOK_EVERY_S", 0)
    team.land(0, 1)
    claims = team.claims([0, 1], again={1})
    (shard,) = claims
    assert shard.index == 1
    assert not claims.look_whether_overtaken(shard)


def test_of_many_shards_that_others_hold_a_look_asks_after_few_and_all_get_their_turn(team, monkeypatch):
    monkeypatch.setattr(claims_module, "LEASES_LOOKED_AT", 2)
    list(team.claims(range(1, 6), "two"))
    helper = team.claims([0], others=lambda: [1, 2, 3, 4, 5])
    assert helper.wait()
    asked: list[list[Path]] = [[]]
    claim = helper.leases.claim
    monkeypatch.setattr(helper.leases, "claim", lambda path, *more: asked[-1].append(path) or claim(path, *more))
    assert team.make(helper) == [0]
    steps = [lambda: asked.append([])] * 60
    while_waiting(monkeypatch, *steps, lambda: team.land(*range(1, 6)))
    assert not helper.wait()
    assert {len(set(each)) for each in asked[1:-1]} == {2}
    assert len({path.name for each in asked for path in each}) == 6


def holder_of_leases(name: str) -> Leases:
    """Leases of a worker that can have them, and to which one of the name "dead" has ended."""
    return Leases({"name": name}, lambda error: pytest.fail(str(error)), PARTIAL_SUFFIX, lambda h: h["name"] == "dead")


def test_one_worker_plans_and_the_others_wait_until_it_has(team, monkeypatch):
    run = team.run / "runs" / "new"
    first, second = map(holder_of_leases, ("one", "two"))
    with planning(run, first, quiet=True):
        pauses = while_waiting(monkeypatch, lambda: None, lambda: (run / "run.json").write_text("planned"))
        with planning(run, second, quiet=True):
            assert len(pauses) == 2
    assert os.listdir(run) == ["run.json"]


def test_who_waited_for_a_worker_that_gave_up_goes_on_at_once_as_others_do(team, monkeypatch):
    run = team.run / "new"
    first, second = map(holder_of_leases, "ab")
    planner = planning(run, first, quiet=True)
    planner.__enter__()
    while_waiting(monkeypatch, lambda: first.release(run / "run.json"))
    with planning(run, second, quiet=True):
        pass
    planner.__exit__(None, None, None)
    assert not run.exists()


def test_the_plan_of_a_dead_worker_is_made_by_another(team):
    run = team.run / "new"
    run.mkdir()
    assert holder_of_leases("dead").claim(run / "run.json")
    with planning(run, holder_of_leases("two"), quiet=True):
        assert len(os.listdir(run)) == 2


def test_samples_to_come_are_those_of_the_own_share(team):
    claims = team.claims([0, 2], others=lambda: [1])
    assert claims.own_samples == 8
    assert team.make(claims) == [0, 2, 1]
    assert claims.own_samples == 0
