"""The scripts in jobs/ under a real Slurm of three nodes on this machine (helpers/slurm): a night of interruptions."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import batchcam
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.shared import Classifier, Compute
from tests.helpers import ROOT
from tests.helpers.networks import GapNetwork, seeded

JOBS = ROOT / "jobs"
SLURM = ROOT / "tests" / "helpers" / "slurm"
UNAVAILABLE = 69  # exit code of slurm-up
CLASSES = ("ant", "bee", "cat")
SHARDS, SHARD_SIZE, TASKS = 24, 5, 4
PATIENCE_S = 180  # on a busy machine; 20 is plenty on another

# each shard is one batch, which takes a second while there is a file named "slow"
NETWORK = """
import os
import time
from pathlib import Path

from tests.helpers.networks import GapNetwork

Path(__file__).with_name("gpu").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))

class Network(GapNetwork):
    def forward(self, images):
        if len(images) == 5 and Path(__file__).with_name("slow").exists():
            time.sleep(1)
        return super().forward(images)
"""


@pytest.fixture
def pretend(tmp_path) -> Callable[..., tuple[int, list[str]]]:
    """Run a script where other programs are pretended; return its exit code and how it called them."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def run(script: str, *words: str, programs_do: dict[str, str], **environment: str) -> tuple[int, list[str]]:
        for name, does in programs_do.items():
            program = programs / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/calls"\n{does}\n')
            program.chmod(0o755)
        environment = {"PATH": f"{programs}:/usr/bin:/bin", "TMPDIR": str(tmp_path), **environment}
        done = subprocess.run(["bash", JOBS / script, *words], cwd=tmp_path, env=environment, timeout=60)
        calls = tmp_path / "calls"
        return done.returncode, calls.read_text().splitlines() if calls.exists() else []

    return run


ARRAY = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "9", "EXPLAIN_TASKS": "8"}
SAYS_ENVIRONMENT = "env | grep -E '^(BATCHCAM_(THREADS|WORKERS)|SRUN_CPUS_PER_TASK|SLURM_EXPORT_ENV)=' | sort >> calls"


@pytest.mark.parametrize(
    ("script", "words", "environment", "command"),
    [
        ("submit.sh", ["--tasks", "4", "m.pth", "my photos", "run", "-b", "8"], {},
         f"submit --scripts {JOBS} --tasks 4 m.pth my photos run -b 8"),
        ("explain.sbatch", ["m.pth", "my photos", "run", "-b", "8"], ARRAY,
         "slurm-task --tasks 8 --goes 10 m.pth my photos run -b 8"),
        ("explain.sbatch", ["m.pth", "photos", "run"],
         ARRAY | {"EXPLAIN_RESTARTS": "3", "EXPLAIN_STAGE": "1", "TMPDIR": "/scratch"},
         "slurm-task --tasks 8 --goes 3 --stage-in /scratch m.pth photos run"),
        ("finish.sbatch", ["my photos", "run"], {}, "finish -- my photos run"),
        ("finish.sbatch", ["photos", "run", "old", "--max-flips", "2"], {},
         "finish --against old --max-flips 2 -- photos run"),
        ("explain_gpus.sh", ["2", "m.pth", "photos", "run", "-b", "8"], {}, "explain-gpus 2 m.pth photos run -b 8"),
    ],
)  # fmt: skip
def test_script_hands_its_words_on_and_ends_as_the_command_does(pretend, script, words, environment, command):
    assert pretend(script, *words, programs_do={"batchcam": "exit 75"}, **environment) == (75, [f"batchcam {command}"])


@pytest.mark.parametrize(("gpus", "loaders"), [({}, 3), ({"CUDA_VISIBLE_DEVICES": "0"}, 6)])
def test_task_uses_the_cpus_that_slurm_gives_it(pretend, gpus, loaders):
    environment = {**ARRAY, **gpus, "SLURM_CPUS_PER_TASK": "6"}
    _, calls = pretend("explain.sbatch", "m.pth", "d", "r", programs_do={"batchcam": SAYS_ENVIRONMENT}, **environment)
    assert calls[1:] == [
        "BATCHCAM_THREADS=6", f"BATCHCAM_WORKERS={loaders}", "SLURM_EXPORT_ENV=ALL", "SRUN_CPUS_PER_TASK=6",
    ]  # fmt: skip


def test_task_without_the_number_of_tasks_is_refused(pretend):
    done, calls = pretend("explain.sbatch", "m.pth", "photos", "run", programs_do={"batchcam": ""})
    assert done != 0
    assert calls == []


def test_signal_of_slurms_reaches_the_command_as_the_shell_is_gone(tmp_path):
    worker = tmp_path / "batchcam"
    worker.write_text("#!/bin/bash\ntrap 'exit 75' TERM\ntouch here\nwhile :; do sleep 0.05; done\n")
    worker.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **ARRAY}
    words = ["bash", JOBS / "explain.sbatch", "m.pth", "photos", "run"]
    with subprocess.Popen(words, cwd=tmp_path, env=environment) as script:
        deadline = time.monotonic() + 30
        while not (tmp_path / "here").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        script.send_signal(signal.SIGTERM)
        assert script.wait(timeout=30) == 75


def test_scripts_are_found_where_cd_prints_and_by_a_link(tmp_path):
    (tmp_path / "submit").symlink_to(JOBS / "submit.sh")
    words = ["--dry-run", "m.pth", "photos", "run"]
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "batchcam").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batchcam "$@"\n')
    (programs / "batchcam").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    environment = {**os.environ, "CDPATH": str(JOBS.parent), "PATH": path, "PYTHONPATH": str(ROOT)}
    for script in ("jobs/submit.sh", tmp_path / "submit"):
        done = subprocess.run(["bash", script, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert str(JOBS / "explain.sbatch") in shlex.split(done.stdout)


def test_scripts_hold_nothing_of_a_site():
    for script in ("explain.sbatch", "finish.sbatch", "submit.sh"):
        text = (JOBS / script).read_text()
        assert not re.search(r"#SBATCH.*--(partition|account|qos|gres|constraint|nodelist|mail)|module load", text)


@pytest.mark.parametrize("script", ["explain.sbatch", "finish.sbatch"])
def test_options_of_sbatch_come_before_the_first_command(script):
    lines = (JOBS / script).read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert lines[first] == "set -euo pipefail"
    assert not any(line.startswith("#SBATCH") for line in lines[first:])


@pytest.mark.parametrize("script", ["slurm-up", "slurm-down"])
def test_shellcheck_finds_nothing(script):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(["shellcheck", SLURM / script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


class Cluster:
    """Slurm's commands in a working directory of their own."""

    def __init__(self, folder: Path, here: Path) -> None:
        self.folder, self.here = folder, here
        programs = here / "bin"
        programs.mkdir()
        (programs / "batchcam").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batchcam "$@"\n')
        (programs / "batchcam").chmod(0o755)
        kept = {k: v for k, v in os.environ.items() if not re.match("SLURM|SBATCH|SRUN|BATCHCAM|EXPLAIN", k)}
        self.environment = {
            **kept,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": f"{here}:{ROOT}",
            "TMPDIR": str(here / "scratch"),
        }
        (here / "scratch").mkdir()
        self.most_running = 0

    def run(self, *words: str | Path, code: int = 0) -> str:
        """Return stdout of a command that ends with exit code `code`."""
        done = subprocess.run(words, cwd=self.here, env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def submit(self, *words: str | Path, code: int = 0) -> tuple[str, str]:
        """Return the ids of the two jobs that submit.sh submits."""
        said = self.run(
            JOBS / "submit.sh", "--sbatch", "--cpus-per-task=1", "--sbatch", "--mem=500M", *words, code=code
        )
        array, finish = re.fullmatch(r"explain (\d+)\nfinish (\d+)\n", said).groups()
        return array, finish

    def tasks(self, array: str) -> dict[int, tuple[str, str]]:
        """Return state and node of each task of an array that has not ended."""
        lines = self.run("squeue", "--noheader", "--array", "--job", array, "--format", "%K %T %N").splitlines()
        rows = [line.split(" ") for line in lines]
        self.most_running = max(self.most_running, sum(state == "RUNNING" for _, state, _ in rows))
        return {int(index): (state, node) for index, state, node in rows}

    def state(self, job: str) -> str:
        """Return a job's state and exit code, such as `COMPLETED 0:0`."""
        shown = self.run("scontrol", "show", "job", "--oneliner", job)
        return " ".join(re.search(rf"{key}=(\S+)", shown)[1] for key in ("JobState", "ExitCode"))

    def wait_for(self, what: str, happened: Callable[[], object]) -> None:
        """Wait until `happened()`, which is asked ten times a second."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            if time.monotonic() > deadline:
                pytest.fail(
                    f"waited {PATIENCE_S} s for {what}\n" + self.run("sinfo") + self.run("squeue") + self.log("*")
                )
            time.sleep(0.1)

    def wait_until_ended(self, job: str) -> str:
        """Return how a job ended, once it has."""
        self.wait_for(f"the end of job {job}", lambda: not re.match("PENDING|RUNNING|COMPLETING", self.state(job)))
        return self.state(job)

    def crash(self, node: str) -> None:
        """A node loses power; somebody declares it down, and it comes back."""
        self.run(SLURM / "slurm-down", "--crash", node, self.folder)
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        self.run(SLURM / "slurm-up", self.folder)

    def log(self, pattern: str) -> str:
        """Return the text of all logs whose name matches."""
        return "".join(p.read_text() for p in sorted(self.here.glob(f"logs/{pattern}")))


@contextlib.contextmanager
def started(make: pytest.TempPathFactory, *options: str) -> Iterator[Cluster]:
    """A cluster, for as long as it is needed."""
    folder = make.mktemp("slurm")
    done = subprocess.run([SLURM / "slurm-up", *options, folder], capture_output=True, text=True)
    if done.returncode == UNAVAILABLE:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    try:
        yield Cluster(folder, make.mktemp("work"))
    finally:
        subprocess.run([SLURM / "slurm-down", folder], check=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with started(tmp_path_factory) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def place(cluster) -> Path:
    """The working directory with a network, two checkpoints and images, and runs of one uninterrupted worker each."""
    here = cluster.here
    (here / "slow_network.py").write_text(NETWORK)
    for name, seed in (("model", 0), ("older", 3)):
        torch.save(seeded(GapNetwork, seed).state_dict(), here / f"{name}.pth")
    rng = np.random.default_rng(1)
    for number in range(SHARDS * SHARD_SIZE):
        folder = here / "images" / CLASSES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number:03d}.png"), rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.syspath_prepend(str(here))
        for name in ("model", "older"):
            classifier = Classifier(
                here / f"{name}.pth", model="slow_network:Network", preprocess="stl10", image_size="16"
            )
            compute = Compute(batch_size=SHARD_SIZE, workers=0, threads=1, device="cpu")
            explain(
                ExplainConfig(
                    classifier, str(here / "images"), here / f"{name}-alone", compute, shard_size=SHARD_SIZE, quiet=True
                )
            )
    return here


def options(*more: str) -> list[str]:
    """Return the words of submit.sh after its own options."""
    return [
        "model.pth", "images", *more, "--model", "slow_network:Network", "--preprocess", "stl10", "--image-size", "16",
        "-b", str(SHARD_SIZE), "--shard-size", str(SHARD_SIZE),
    ]  # fmt: skip


def landed(run: Path, task: int) -> int:
    """Return how many shards of a task have landed."""
    return sum((run / "shards" / f"shard-{s:05d}.h5").exists() for s in range(task, SHARDS, TASKS))


def digests(run: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((run / "shards").glob("shard-*"))}


def records(run: Path, task: int) -> list[dict]:
    """Return what the workers of a task recorded, by their restarts."""
    found = [json.loads(p.read_text()) for p in run.glob("task-[0-9]*.json")]
    return sorted((r for r in found if r["task"] == f"{task}/{TASKS}"), key=lambda r: r["restarts"])


class Interruptions:
    """What can happen to the tasks of an array, each by its number and its node."""

    def __init__(self, cluster: Cluster, run: Path, array: str) -> None:
        self.cluster, self.run, self.array = cluster, run, array

    def kill(self, node: str) -> None:
        """SIGKILL to the worker of task 0, as when memory is short."""
        os.kill(records(self.run, 0)[-1]["pid"], signal.SIGKILL)

    def requeue(self, node: str) -> None:
        self.cluster.run("scontrol", "requeue", f"{self.array}_1")

    def crash(self, node: str) -> None:
        self.cluster.crash(node)

    def preempt(self, node: str) -> None:
        self.cluster.run("sbatch", "--partition=urgent", f"--nodelist={node}", "--ntasks=2", "--wrap=true")

    def end_of_time(self, node: str) -> None:
        """The time limit of task 0 is a minute away: what --signal=B:TERM@60 does, without the wait."""
        self.cluster.run("scancel", "--batch", "--signal=TERM", f"{self.array}_0")


@pytest.fixture(scope="module")
def night(cluster, place) -> tuple[Path, str, str]:
    """A run whose tasks are interrupted in every way there is, its two job ids; when all has ended."""
    run = place / "night"
    (place / "slow").touch()
    array, finish = cluster.submit(
        "--tasks", str(TASKS), "--at-once", "2", "--stage", "--gpus", "--sbatch", "--exclusive",
        "--against", "older-alone", "--max-flips", "0",
        *options("night", "--share-only", "--device", "cpu"),  # the GPUs are pretended
    )  # fmt: skip
    interrupt = Interruptions(cluster, run, array)
    due = {0: (1, interrupt.kill), 1: (1, interrupt.requeue), 2: (1, interrupt.crash), 3: (1, interrupt.preempt)}

    def interrupted() -> bool:
        """Interrupt each task once it has landed so many shards, the first one a second time."""
        running = {task: node for task, (state, node) in cluster.tasks(array).items() if state == "RUNNING"}
        for task, (count, act) in list(due.items()):
            if task in running and landed(run, task) >= count:
                del due[task]
                act(running[task])
                if act == interrupt.kill:
                    due[task] = (landed(run, task) + 1, interrupt.end_of_time)
        return not due

    cluster.wait_for("tasks to interrupt", interrupted)
    cluster.wait_for("the end of task 0", lambda: cluster.tasks(array)[0][0] != "RUNNING")
    (place / "slow").unlink()
    cluster.wait_until_ended(finish)
    return run, array, finish


def test_interrupted_tasks_give_the_bytes_of_one_uninterrupted_worker(cluster, place, night):
    run = night[0]
    assert digests(run) == digests(place / "model-alone"), cluster.log("*")
    assert verify(VerifyConfig(run, quiet=True)).found == []
    with batchcam.open_run(run) as opened:
        assert opened.sample_index[:].tolist() == list(range(SHARDS * SHARD_SIZE))


def test_at_most_as_many_tasks_run_at_once_as_asked(cluster, night):
    assert cluster.most_running == 2


def test_every_task_went_on_from_its_finished_shards(night):
    run, _, _ = night
    for task in range(TASKS):
        workers = records(run, task)
        assert [w["restarts"] for w in workers] == list(range(len(workers)))
        assert len(workers) > 1
        done = [s for w in workers for s in w["shards"]]
        assert len(done) == len(set(done)), "a shard was made twice"


def test_interruptions_are_told_apart_in_the_log(cluster, night):
    array = night[1]
    killed, requeued, crashed, preempted = (cluster.log(f"*-{array}_{task}.out") for task in range(TASKS))
    assert "restart 0: exit code 137: asking for another go" in killed
    assert "restart 1: exit code 75: asking for another go" in killed
    assert "restart 0: ended with exit code 75; Slurm says COMPLETING" in requeued
    assert re.findall(r"restart (\d): (starts|.*exit code.*)", crashed) == [("0", "starts"), ("1", "starts")]
    assert "restart 0: exit code 75: asking for another go" in preempted


def test_last_job_merges_verifies_reports_compares_and_ends_with_the_findings(cluster, night):
    run, _, finish = night
    assert cluster.state(finish) == "FAILED 3:0"
    said = cluster.log(f"*-{finish}.out")
    assert f"night: no findings; {SHARDS * SHARD_SIZE} samples in {SHARDS} shards" in said
    assert "done, with findings" in said
    assert run.with_suffix(".html").stat().st_size > 10_000
    compared = json.loads((run.parent / "night-against-older-alone" / "compare.json").read_text())
    assert compared["findings"] == 1


def test_each_task_has_the_gpu_that_slurm_gives_it(place, night):
    assert (place / "gpu").read_text() == "0"


def test_staged_images_are_removed_wherever_the_script_could(place, night):
    left = list((place / "scratch").glob("batchcam.*"))
    assert len(left) <= 1  # of the node that crashed


def test_failed_array_stops_the_chain_and_says_why(cluster, place):
    (place / "broken.pth").write_bytes(b"not a checkpoint")
    words = [
        JOBS / "submit.sh",
        "--tasks",
        "2",
        "--wait",
        "--sbatch",
        "--mem=500M",
        "--sbatch",
        "--cpus-per-task=1",
        "broken.pth",
        "images",
        "broken",
    ]
    failed = subprocess.run(words, cwd=place, env=cluster.environment, capture_output=True, text=True)
    assert failed.returncode == 1
    array, finish = re.findall(r"\d+", failed.stdout)
    assert cluster.wait_until_ended(array).startswith("FAILED 1:0")
    assert cluster.wait_until_ended(finish).startswith("CANCELLED")
    assert f"grep -e error: -e FAILED logs/*-{array}_*.out" in failed.stderr
    assert "batchcam: error: broken.pth" in failed.stderr
    assert f"job {array}_1 on n" in failed.stderr
    assert not cluster.log(f"*-{finish}.out")


def test_cancelled_array_stays_cancelled_and_cleans_up(cluster, place):
    (place / "slow").touch()
    before = set((place / "scratch").glob("batchcam.*"))
    array, finish = cluster.submit("--tasks", "2", "--stage", *options("cancelled"))
    run = place / "cancelled"
    cluster.wait_for("a shard of each task", lambda: landed(run, 0) and landed(run, 1))
    cluster.run("scancel", array)
    assert cluster.wait_until_ended(array).startswith("CANCELLED")
    assert cluster.wait_until_ended(finish).startswith("CANCELLED")
    (place / "slow").unlink()
    assert cluster.log(f"*-{array}_0.out").count(": starts") == 1
    assert "ended with exit code 75; Slurm says" in cluster.log(f"*-{array}_0.out")
    assert set((place / "scratch").glob("batchcam.*")) == before
    assert not list(run.rglob("*.partial"))


# a file whose name says who is hungry makes that process want more memory than there is, once; as above for "slow"
HUNGRY = f"""
import contextlib
import time
from pathlib import Path

import torch

from tests.helpers.networks import GapNetwork

def eat(who):
    flag = Path(__file__).with_name(who)
    if flag.exists():
        if "always" not in flag.read_text():
            flag.unlink(missing_ok=True)
        bytearray(3 * 2**30)

class Images:
    def __len__(self):
        return {SHARDS * SHARD_SIZE}

    def __getitem__(self, index):
        if index >= {SHARD_SIZE} and torch.utils.data.get_worker_info():
            eat("loader")
        pixels = torch.randint(0, 256, (3, 16, 16), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        return pixels, index % 3

class Network(GapNetwork):
    def forward(self, images):
        if len(images) == {SHARD_SIZE}:
            eat("worker")
            if Path(__file__).with_name("slow").exists():
                time.sleep(1)
        return super().forward(images)
"""


@pytest.fixture(scope="module")
def strict(tmp_path_factory) -> Iterator[Cluster]:
    """A cluster where a job has no more memory than it asked for, and a run of one undisturbed worker."""
    with started(tmp_path_factory, "--memory") as cluster:
        (cluster.here / "hungry.py").write_text(HUNGRY)
        torch.save(seeded(GapNetwork).state_dict(), cluster.here / "model.pth")
        cluster.run("bin/batchcam", "explain", *hungry_words("alone", "--out"), "--threads", "1", "--device", "cpu")
        yield cluster


def hungry_words(run: str, *before: str) -> list[str]:
    return [
        "model.pth", "python:hungry:Images", *before, run, "--model", "hungry:Network", "--preprocess", "stl10",
        "--image-size", "16", "-b", str(SHARD_SIZE), "--shard-size", str(SHARD_SIZE), "-q",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("who", ["loader", "worker"])
def test_a_process_that_wants_more_memory_than_there_is_costs_nothing_but_time(strict, who):
    (strict.here / who).write_text("once")
    run = strict.here / f"{who}-run"
    array, finish = strict.submit("--tasks", "2", "--sbatch", "--mem=1500M", *hungry_words(run.name))
    assert strict.wait_until_ended(finish) == "COMPLETED 0:0", strict.log("*")
    logs = strict.log(f"*-{array}_*.out")
    assert re.search("oom.kill", logs)
    assert ("out of memory; once more, with --workers 0" in logs) == (who == "worker")
    assert digests(run) == digests(strict.here / "alone")
    assert verify(VerifyConfig(run, quiet=True)).found == []


@pytest.mark.slow
def test_a_worker_that_always_wants_more_memory_fails_with_how_much_to_ask_for(strict):
    (strict.here / "worker").write_text("always")
    array, finish = strict.submit("--tasks", "1", "--sbatch", "--mem=1500M", *hungry_words("starved"))
    assert strict.wait_until_ended(finish).startswith("CANCELLED")
    assert strict.wait_until_ended(f"{array}_0") == "FAILED 1:0"
    assert "FAILED: 1500 MB are not enough: submit with --mem=3000M" in strict.log(f"*-{array}_0.out")


@contextlib.contextmanager
def submitted(cluster: Cluster, *words: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A submit.sh that waits, and the ids of its jobs."""
    pipe = subprocess.PIPE
    command, told = [JOBS / "submit.sh", "--wait", *words], ""
    with subprocess.Popen(
        command, cwd=cluster.here, env=cluster.environment, text=True, stdout=pipe, stderr=pipe
    ) as job:
        try:
            while not (found := re.search(r"explain (\d+): (?s:.*) finish (\d+): ", told)):
                told += job.stderr.readline() or pytest.fail(told)
            yield job, *found.groups()
        finally:
            job.kill()


@pytest.mark.slow
def test_a_run_survives_a_loader_a_worker_a_node_twelve_preemptions_and_the_loss_of_its_last_job(strict):
    here, run = strict.here, strict.here / "worst"
    for flag in ("loader", "worker", "slow"):
        (here / flag).write_text("once")

    def is_at_work(task: int, shards: int) -> bool:
        """Return whether a task runs that has landed so many shards, and whose worker has begun."""
        there = sum((run / "shards" / f"shard-{shard:05d}.h5").exists() for shard in range(task, SHARDS, 2))
        records = [json.loads(path.read_text()) for path in run.glob(f"task-{task:05d}-*.json")]
        going = any(each["outcome"] == "running" for each in records)
        return strict.tasks(array).get(task, [""])[0] == "RUNNING" and there >= shards and going

    for_tasks = (f"--sbatch={each}" for each in ("--mem=1500M", "--cpus-per-task=1", "--exclusive"))
    words = ["--tasks", "2", *for_tasks, "--finish-sbatch=--no-requeue", *hungry_words(run.name)[:-1]]
    words += ["--share-only", "--device", "cpu"]  # of a whole node each task has the pretended GPU
    with submitted(strict, *words) as (job, array, finish):
        for least in (*range(10), 9, 9):
            strict.wait_for(f"{least} shards of task 1", lambda least=least: is_at_work(1, least))
            strict.run("scontrol", "requeue", f"{array}_1")
            if least == 0:
                strict.wait_for("a shard of task 0", lambda: is_at_work(0, 1))
                strict.crash(strict.tasks(array)[0][1])
        (here / "slow").unlink()
        strict.wait_for("the last job", lambda: strict.state(finish).startswith("RUNNING"))
        (node,) = re.findall(r" NodeList=(n\d)", strict.run("scontrol", "show", "job", "--oneliner", finish))
        strict.crash(node)
        _, said = job.communicate(timeout=PATIENCE_S)
        assert job.returncode == 1
    assert f"job {finish} ended as NODE_FAIL, exit code 1; how the run is: batchcam info {run.name}" in said
    assert not (here / "loader").exists()
    assert not (here / "worker").exists()
    restarts = [re.findall(r"restart (\d+): starts", strict.log(f"*-{array}_{task}.out")) for task in (0, 1)]
    assert max(map(int, restarts[0])) >= 1
    assert max(map(int, restarts[1])) >= 12
    again = strict.run("sbatch", "--parsable", JOBS / "finish.sbatch", "python:hungry:Images", run.name).strip()
    assert strict.wait_until_ended(again) == "COMPLETED 0:0", strict.log("*")
    assert digests(run) == digests(here / "alone")
    assert verify(VerifyConfig(run, quiet=True)).found == []
