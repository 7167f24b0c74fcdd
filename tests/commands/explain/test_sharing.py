"""Several workers on one run, without a coordinator: they share what there is to do, and nothing is lost."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from pathlib import Path

import pytest
import torch

from batchcam.cli.printing import explain_text
from batchcam.commands.explain import claims as claims_module
from batchcam.commands.explain import explain as explain_module
from batchcam.commands.explain import work as work_module
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import ExplainSummary, explain
from batchcam.commands.merge import complete_run, merge
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import StoppedEarlyError, stopped_by
from batchcam.job.leases import Leases
from batchcam.job.processes import this_process
from batchcam.store import landing
from batchcam.store.schema import PARTIAL_SUFFIX
from tests.helpers.networks import CHANNELS, GapNetwork, seeded

SHARDS, SHARD_SIZE = 8, 3


class Images:
    """A map-style dataset of random images."""

    def __len__(self) -> int:
        return SHARDS * SHARD_SIZE

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 16, 16), generator=generator, dtype=torch.uint8), index % CHANNELS % 3


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> ExplainConfig:
    checkpoint = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save(seeded(GapNetwork).state_dict(), checkpoint)
    return ExplainConfig(
        Classifier(checkpoint, model="tests.helpers.networks:GapNetwork", preprocess="stl10", image_size="16"),
        f"python:{__name__}:Images",
        Path("to be replaced"),
        Compute(batch_size=SHARD_SIZE, workers=0, threads=1, device="cpu"),
        shard_size=SHARD_SIZE,
        quiet=True,
    )


@pytest.fixture(scope="module")
def reference(settings, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("reference") / "run"
    assert explain(dataclasses.replace(settings, out=run)).complete
    return run


def digests(run: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((run / "shards").iterdir())}


def shards_of(record: Path) -> list[str]:
    return json.loads(record.read_text())["shards"]


def land_when_begun(monkeypatch, run: Path, reference: Path, at: str, files: list[str]) -> None:
    """Make "another worker" land `files`, taken from `reference`, when this one has begun shard `at`."""
    real, asked = claims_module.has_landed, []

    def has_landed(folder: Path, shard) -> bool:
        answer = real(folder, shard)
        asked.append(shard.file)
        if asked.count(at) == 2:  # before it is claimed, and after
            for name in files:
                for source in (reference / "shards").glob(f"{name}*"):
                    (run / "shards" / source.name).write_bytes(source.read_bytes())
        return answer

    monkeypatch.setattr(claims_module, "has_landed", has_landed)


@pytest.mark.parametrize("workers", [0, 1])
def test_shards_that_others_land_meanwhile_are_not_done_again(settings, reference, tmp_path, monkeypatch, workers):
    run = tmp_path / "run"
    others = [f"shard-{i:05d}.h5" for i in (1, 4, 5, 7)]
    land_when_begun(monkeypatch, run, reference, "shard-00000.h5", others)
    compute = dataclasses.replace(settings.compute, workers=workers)
    summary = explain(dataclasses.replace(settings, out=run, compute=compute))
    assert summary.complete
    assert summary.samples == (SHARDS - len(others)) * SHARD_SIZE
    (record,) = run.glob("task-[0-9]*.json")
    assert shards_of(record) == [f"shard-{i:05d}.h5" for i in (0, 2, 3, 6)]
    assert digests(run) == digests(reference)
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []


def test_worker_says_how_many_shards_others_did(settings, reference, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    land_when_begun(monkeypatch, run, reference, "shard-00000.h5", ["shard-00003.h5", "shard-00006.h5"])
    explain(dataclasses.replace(settings, out=run, quiet=False))
    assert "2 of the shards to do were done by other workers meanwhile" in capsys.readouterr().err


def test_shard_that_another_worker_lands_first_is_harmless(settings, reference, tmp_path, monkeypatch):
    run = tmp_path / "run"
    land_when_begun(monkeypatch, run, reference, "shard-00002.h5", ["shard-00002.h5"])
    assert explain(dataclasses.replace(settings, out=run)).complete
    assert digests(run) == digests(reference)
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []


def test_whoever_plans_the_run_goes_in_order_and_later_workers_in_their_own(settings, tmp_path, monkeypatch):
    orders = []

    class Seen(work_module.Work):
        def __init__(self, config, plan, assembly, proved, claims, *others) -> None:
            orders.append([s.index for s in claims])
            super().__init__(config, plan, assembly, proved, claims, *others)

    monkeypatch.setattr(explain_module, "Work", Seen)
    for _ in range(5):
        torch.manual_seed(0)
        explain(dataclasses.replace(settings, out=tmp_path / "run"))
    explain(dataclasses.replace(settings, out=tmp_path / "run", task="1/2"))
    first, *later, task = orders
    assert first == list(range(SHARDS))
    assert all(sorted(order) == first for order in later)
    assert len({tuple(order) for order in later}) > 1
    assert sorted(task) == [1, 3, 5, 7]


def test_workers_without_a_task_share_the_shards(settings, reference, tmp_path, monkeypatch):
    """The second one starts when the first has two shards, and both go on by turns."""
    run, real = tmp_path / "run", claims_module.has_landed
    asked = []

    def has_landed(folder: Path, shard) -> bool:
        asked.append(shard)
        if len(asked) == 5:  # twice a shard, before it is claimed and after
            deadline = time.monotonic() + 60
            while not all(real(folder, begun) for begun in asked[:4]) and time.monotonic() < deadline:
                time.sleep(0.01)  # a thread lands them
            # works to its end now, which is what the first one then finds
            second = explain(dataclasses.replace(settings, out=run))
            assert second.complete
        return real(folder, shard)

    monkeypatch.setattr(claims_module, "has_landed", has_landed)
    first = explain(dataclasses.replace(settings, out=run))
    done = sorted(s for record in run.glob("task-[0-9]*.json") for s in shards_of(record))
    assert first.shards == 2
    assert done == [f"shard-{i:05d}.h5" for i in range(SHARDS)]
    assert digests(run) == digests(reference)


def test_manifest_that_lands_while_a_late_worker_starts_is_not_taken_for_stale(
    settings, reference, tmp_path, monkeypatch
):
    run, real = tmp_path / "run", explain_module.write_plan
    explain(dataclasses.replace(settings, out=run, task="0/2"))

    def write_plan(*words):
        # another worker lands the last shard and merges, after this one has listed what is missing
        monkeypatch.setattr(explain_module, "write_plan", real)
        assert explain(dataclasses.replace(settings, out=run)).complete
        return real(*words)

    monkeypatch.setattr(explain_module, "write_plan", write_plan)
    late = explain(dataclasses.replace(settings, out=run))
    assert (late.samples, late.complete) == (0, True)
    assert digests(run) == digests(reference)


@pytest.mark.parametrize("finish", [merge, complete_run], ids=["merge", "explain"])
@pytest.mark.parametrize("name", ["task-00000-0123abcd.json", "run.h5", "manifest.json"])
def test_temporary_file_of_a_dead_worker_goes_when_the_run_is_complete(settings, tmp_path, finish, name):
    run = tmp_path / "run"
    explain(dataclasses.replace(settings, out=run))
    (run / f".{name}.0123456789abcdef.partial").write_bytes(b"half of it")
    assert [f.kind.value for f in verify(VerifyConfig(run, quiet=True), confine=False).found] == ["leftover-file"]
    finish(run)
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []


def repeat_share(settings: ExplainConfig, run: Path, task: str, lost: list[int]) -> None:
    """Explain a share, and lose some of its shards again, as if its worker were at them."""
    explain(dataclasses.replace(settings, out=run, task=task))
    for index in lost:
        (run / "shards" / f"shard-{index:05d}.h5").unlink()


def test_worker_helps_those_that_have_begun_after_its_own_share(settings, reference, tmp_path, capsys):
    run = tmp_path / "run"
    repeat_share(settings, run, "1/3", lost=[1, 7])
    summary = explain(dataclasses.replace(settings, out=run, task="0/3", quiet=False))
    assert (
        "share 0/3 from --task: 3 of 8 shards to do here, then what other workers that have begun leave"
        in capsys.readouterr().err
    )
    assert told_of(summary) == (
        "did 5 of 8 shards: 3 of its own and 2 of others, share 0/3 from --task; 2 are left to others; not complete yet"
    )
    assert (summary.shards, summary.done_for_others, summary.left_to_others) == (5, 2, 2)
    last = explain(dataclasses.replace(settings, out=run, task="2/3"))
    assert (last.shards, last.complete) == (2, True)
    assert digests(run) == digests(reference)


def test_worker_of_its_share_only_leaves_the_rest_to_others(settings, tmp_path, capsys):
    run = tmp_path / "run"
    repeat_share(settings, run, "1/2", lost=[1, 7])
    summary = explain(dataclasses.replace(settings, out=run, task="0/2", share_only=True, quiet=False))
    assert "share 0/2 from --task: 4 of 8 shards to do here\n" in capsys.readouterr().err
    assert told_of(summary) == "did 4 of 8 shards: share 0/2 from --task; 2 are left to others; not complete yet"


def test_worker_without_work_of_its_own_helps_others(settings, reference, tmp_path):
    run = tmp_path / "run"
    for task in ("0/2", "1/2"):
        repeat_share(settings, run, task, lost=[])
    (run / "shards" / "shard-00003.h5").unlink()
    summary = explain(dataclasses.replace(settings, out=run, task="0/2"))
    assert (summary.to_do_shards, summary.shards, summary.complete) == (0, 1, True)
    assert digests(run) == digests(reference)


def other_worker(dead: bool = False) -> Leases:
    """Return the leases of a worker on another machine, or one of this machine that has ended."""
    return Leases({**this_process(), "pid": 2**30} if dead else {"host": "elsewhere"}, print, PARTIAL_SUFFIX)


def test_run_is_merged_by_one_worker_while_the_others_wait(settings, reference, tmp_path, monkeypatch):
    run, other = tmp_path / "run", other_worker()
    repeat_share(settings, run, "1/2", lost=[])
    assert other.claim(run / "manifest.json")
    paused = []

    def merge_meanwhile(seconds: float) -> None:
        assert not (run / "manifest.json").exists()
        paused.append(seconds)
        merge(run)

    monkeypatch.setattr(explain_module, "wait", merge_meanwhile)
    summary = explain(dataclasses.replace(settings, out=run, task="0/2"))
    assert (len(paused), summary.complete) == (1, True)
    assert summary.merged == dataclasses.replace(complete_run(run), kept=False)
    assert digests(run) == digests(reference)
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []


def test_the_worker_that_merges_reads_no_shard_of_others_again(settings, reference, tmp_path, monkeypatch):
    run, read, real = tmp_path / "run", [], landing.digest_of
    monkeypatch.setattr(
        landing, "digest_of", lambda file, look=None: (read.append(file.name), real(file, look or landing.unheeding))[1]
    )
    for task in ("0/2", "1/2"):
        explain(dataclasses.replace(settings, out=run, task=task))
    assert [name for name in map(str, read) if "shard-" in name] == []
    assert read
    assert (run / "run.h5").read_bytes() == (reference / "run.h5").read_bytes()


def test_run_whose_merging_worker_died_is_merged_by_another(settings, tmp_path):
    run = tmp_path / "run"
    repeat_share(settings, run, "1/2", lost=[])
    assert other_worker(dead=True).claim(run / "manifest.json")
    assert explain(dataclasses.replace(settings, out=run, task="0/2")).complete
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []


def test_lease_of_a_killed_worker_holds_up_nobody_and_goes(settings, reference, tmp_path):
    run = tmp_path / "run"
    repeat_share(settings, run, "1/2", lost=[3])
    for index in (2, 3):
        assert other_worker(dead=True).claim(run / "shards" / f"shard-{index:05d}.h5")
    assert explain(dataclasses.replace(settings, out=run, task="0/2")).complete
    assert digests(run) == digests(reference)
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []


def test_stopped_worker_gives_back_what_it_holds(settings, tmp_path, monkeypatch):
    run = tmp_path / "run"
    calls = iter([None, None, "SIGTERM"])

    def stop_if_asked() -> None:
        if reason := next(calls):
            raise stopped_by(reason)

    monkeypatch.setattr(work_module, "stop_if_asked", stop_if_asked)
    with pytest.raises(StoppedEarlyError, match="SIGTERM"):
        explain(dataclasses.replace(settings, out=run))
    assert sorted(p.name for p in (run / "shards").iterdir() if p.suffix != ".sha256") == [
        "shard-00000.h5",
        "shard-00001.h5",
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_shard_that_another_lands_first_is_given_up_half_way(settings, tmp_path, monkeypatch, workers):
    """Two batches make a shard; the other worker lands one between the two."""
    compute = dataclasses.replace(settings.compute, batch_size=2)
    settings = dataclasses.replace(settings, compute=compute)
    reference, run = tmp_path / "reference", tmp_path / "run"
    explain(dataclasses.replace(settings, out=reference))
    real = work_module.Work._rows

    def rows(work, batch, *words):
        if int(batch.indices[0]) == 2 * SHARD_SIZE:
            for source in (reference / "shards").glob("shard-00002*"):
                (run / "shards" / source.name).write_bytes(source.read_bytes())
        return real(work, batch, *words)

    monkeypatch.setattr(work_module.Work, "_rows", rows)
    monkeypatch.setattr(claims_module, "LOOK_EVERY_S", 0)
    compute = dataclasses.replace(compute, workers=workers)
    summary = explain(dataclasses.replace(settings, out=run, compute=compute))
    (record,) = run.glob("task-[0-9]*.json")
    assert "shard-00002.h5" not in shards_of(record)
    assert (summary.complete, summary.shards) == (True, SHARDS - 1)
    assert digests(run) == digests(reference)
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []


def told_of(summary: ExplainSummary) -> str:
    return explain_text(summary).partition("explained, ")[2].partition("images/s; ")[2]


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize(
    ("environment", "source"),
    [
        (
            {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"},
            "SLURM_PROCID/SLURM_STEP_NUM_TASKS",
        ),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "4"}, "RANK/WORLD_SIZE"),
    ],
)
def test_share_that_was_not_asked_for_is_told_before_and_after(
    settings, tmp_path, monkeypatch, capsys, quiet, environment, source
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    summary = explain(dataclasses.replace(settings, out=tmp_path / "run", quiet=quiet))
    assert f"share 1/4 from {source}: 2 of 8 shards to do here" in capsys.readouterr().err
    assert told_of(summary) == f"did 2 of 8 shards: share 1/4 from {source}; 6 are left to others; not complete yet"
    assert (summary.task, summary.task_from, summary.left_to_others) == ("1/4", source, 6)
    (record,) = (tmp_path / "run").glob("task-[0-9]*.json")
    assert json.loads(record.read_text())["task_from"] == source


def test_share_that_was_asked_for_is_told_too_but_not_before_when_quiet(settings, tmp_path, capsys):
    first = explain(dataclasses.replace(settings, out=tmp_path / "run", task="1/2"))
    assert capsys.readouterr().err == ""
    assert told_of(first) == "did 4 of 8 shards: share 1/2 from --task; 4 are left to others; not complete yet"
    second = explain(dataclasses.replace(settings, out=tmp_path / "run", task="0/2"))
    assert told_of(second).startswith("did 4 of 8 shards: share 0/2 from --task; complete: ")


def test_variables_of_nobody_leave_all_shards_to_a_worker_that_says_so(settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    summary = explain(dataclasses.replace(settings, out=tmp_path / "run", quiet=False))
    assert "RANK/WORLD_SIZE are 1/4, but neither torchrun nor srun" in capsys.readouterr().err
    assert (summary.complete, summary.task, summary.task_from) == (True, "0/1", "")


def test_parts_made_in_runs_apart_and_copied_together_merge_into_the_bytes_of_one_worker(settings, reference, tmp_path):
    parts = [tmp_path / name for name in ("here", "there")]
    for number, part in enumerate(parts):
        summary = explain(dataclasses.replace(settings, out=part, task=f"{number}/2"))
        assert (summary.complete, summary.left_to_others) == (False, SHARDS // 2)
    # as `cp -rn` and `aws s3 cp --recursive` do: run.json of either, which differ in who began the run and when
    shutil.copytree(parts[1], together := tmp_path / "together")
    shutil.copytree(parts[0], together, dirs_exist_ok=True)
    merge(together)
    assert digests(together) == digests(reference)
    assert (together / "run.h5").read_bytes() == (reference / "run.h5").read_bytes()
    assert verify(VerifyConfig(together, quiet=True), confine=False).found == []
    assert len(list(together.glob("task-[0-9]*.json"))) == 2
