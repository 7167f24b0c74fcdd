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
from batchcam.config import Classifier, Compute
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


@pytest.mark.parametrize(
    ("code", "state", "restarts", "ended", "asks"),
    [
        (0, "RUNNING", "", 0, False),
        (3, "RUNNING", "", 0, False),  # or the jobs that wait would not run
        (1, "RUNNING", "", 1, False),
        (2, "RUNNING", "", 2, False),
        (75, "RUNNING", "", 75, True),
        (75, "RUNNING", "9", 75, True),
        (75, "RUNNING", "10", 75, False),
        (75, "COMPLETING", "", 75, False),  # cancelled
        (75, "", "", 75, False),
        (137, "RUNNING", "", 137, True),
        (143, "RUNNING", "2", 143, True),
        (143, "COMPLETING", "2", 143, False),
    ],
)
def test_task_asks_for_another_go_when_it_helps_and_nobody_cancelled_it(pretend, code, state, restarts, ended, asks):
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "9", "SLURM_CPUS_PER_TASK": "2"}
    if restarts:
        array["SLURM_RESTART_COUNT"] = restarts
    programs = {"srun": f"exit {code}", "squeue": f"echo {state}", "scontrol": ""}
    words = ("m.pth", "my photos", "run", "-b", "8")
    done, calls = pretend("explain.sbatch", *words, programs_do=programs, EXPLAIN_TASKS="8", **array)
    assert done == ended
    assert calls[0] == "srun --ntasks=1 batchcam explain m.pth my photos --out run --task 3/8 -b 8"
    assert calls.count("scontrol requeue 7_3") == asks


ARRAY = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "9", "EXPLAIN_TASKS": "8"}

SECOND_TIME = 'if [ ! -e asked-$(basename "$0") ]; then touch asked-$(basename "$0"); exit 1; fi; '
"""A program that fails at first, as while slurmctld restarts."""


@pytest.mark.parametrize(
    ("squeue", "scontrol", "asks", "requests"),
    [
        (f"{SECOND_TIME} echo RUNNING", "", 2, 1),
        (f"{SECOND_TIME} echo COMPLETING", "", 2, 0),
        ("echo RUNNING", f"{SECOND_TIME} true", 1, 2),
        ("echo 'Welcome to Cluster 5'; echo; echo RUNNING", "", 1, 1),
        ("echo RUNNING; echo 'maintenance on Monday'", "", 1, 1),
        ("echo 'slurm_load_jobs error: Socket timed out'; exit 1", "", 20, 0),
        ("exit 1", "", 20, 0),
    ],
    ids=["slow", "slow-and-cancelled", "slow-requeue", "banner", "footer", "gone", "silent"],
)
def test_task_asks_slurm_again_and_takes_no_banner_for_an_answer(pretend, squeue, scontrol, asks, requests):
    programs = {"srun": "exit 75", "squeue": squeue, "scontrol": scontrol, "sleep": ""}
    done, calls = pretend("explain.sbatch", "m.pth", "photos", "run", programs_do=programs, **ARRAY)
    assert done == 75
    assert sum(call.startswith("squeue") for call in calls) == asks
    assert sum(call.startswith("scontrol") for call in calls) == requests


@pytest.mark.parametrize("missing", ["SLURM_ARRAY_TASK_ID", "EXPLAIN_TASKS"])
def test_task_without_a_number_or_a_count_is_refused(pretend, missing):
    environment = {name: value for name, value in ARRAY.items() if name != missing}
    done, calls = pretend("explain.sbatch", "m.pth", "photos", "run", programs_do={"srun": ""}, **environment)
    assert done != 0
    assert not calls


@pytest.mark.parametrize(
    ("codes", "ended", "steps"),
    [
        ({}, 0, ["merge", "verify", "report", "compare"]),
        ({"merge": 3}, 3, ["merge", "verify", "report", "compare"]),
        ({"report": 3}, 3, ["merge", "verify", "report", "compare"]),
        ({"compare": 3}, 3, ["merge", "verify", "report", "compare"]),
        ({"compare": 1}, 1, ["merge", "verify", "report", "compare"]),
        ({"merge": 1}, 1, ["merge"]),
        ({"verify": 3}, 3, ["merge", "verify"]),
        ({"merge": 3, "verify": 1}, 1, ["merge", "verify"]),
        ({"report": 2}, 2, ["merge", "verify", "report"]),
    ],
)
def test_last_job_goes_on_after_findings_and_stops_at_failures(pretend, codes, ended, steps):
    does = "case $1 in " + " ".join(f"{k}) exit {v} ;;" for k, v in codes.items()) + " esac"
    words = ("my photos", "runs/new run/", "runs/old/", "--max-flips", "2")
    done, calls = pretend("finish.sbatch", *words, programs_do={"batchcam": does})
    assert done == ended
    assert (
        calls
        == [
            "batchcam merge runs/new run",
            "batchcam verify runs/new run",
            "batchcam report runs/new run --data my photos --out runs/new run.html",
            "batchcam compare runs/old runs/new run --out runs/new run-against-old --max-flips 2",
        ][: len(steps)]
    )


def test_last_job_leaves_the_manifest_of_a_complete_run_alone(pretend, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").touch()
    done, calls = pretend("finish.sbatch", "photos", "run", programs_do={"batchcam": ""})
    assert (done, calls) == (0, ["batchcam verify run", "batchcam report run --data photos --out run.html"])


@pytest.mark.parametrize("data", ["python:my.module:photos", "torchvision:CIFAR10:data:test"])
def test_last_job_names_no_images_where_there_are_no_files(pretend, data):
    _, calls = pretend("finish.sbatch", data, "run", programs_do={"batchcam": ""})
    assert calls[-1] == "batchcam report run --out run.html"


def test_dry_run_prints_the_lines_for_sbatch_and_submits_nothing(tmp_path):
    (tmp_path / "my photos").mkdir()
    words = [
        JOBS / "submit.sh", "--dry-run", "--tasks", "6", "--at-once", "2", "--gpus", "--stage", "--sbatch", "--time=60",
        "--against", "old", "--max-flips", "2", "--min-compared", "90", "m.pth", "my photos", "run", "-b", "8",
    ]  # fmt: skip
    said = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
    explained, finished = map(shlex.split, said)
    assert explained == [
        "sbatch", "--parsable", "--array=0-5%2", "--export=ALL,EXPLAIN_TASKS=6,EXPLAIN_STAGE=1", "--gpus-per-task=1",
        "--time=60", str(JOBS / "explain.sbatch"), "m.pth", "my photos", "run", "--device", "cuda", "-b", "8",
    ]  # fmt: skip
    assert finished == [
        "sbatch", "--parsable", "--kill-on-invalid-dep=yes", "--dependency=afterok:EXPLAIN",
        str(JOBS / "finish.sbatch"), "my photos", "run", "old", "--max-flips", "2", "--min-compared", "90",
    ]  # fmt: skip
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["m.pth", "photos"],
        ["--tasks", "0", "m.pth", "photos", "run"],
        ["--tasks", "many", "m.pth", "photos", "run"],
        ["--at-once"],
        ["--cpu", "m.pth", "photos", "run"],
        ["--max-flips", "2", "m.pth", "photos", "run"],
        ["--stage", "m.pth", "stl10:photos", "run"],
    ],
    ids=" ".join,
)
def test_submission_that_can_not_be_meant_is_refused(words, tmp_path):
    done = subprocess.run([JOBS / "submit.sh", "--dry-run", *words], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("submit.sh: ")


@pytest.mark.parametrize(
    "said",
    [
        "echo 41",
        "echo '41;cluster'",
        "echo Welcome; echo '  3 reservations'; echo; echo 41",
        "echo 2026; echo 41",
        "echo 41; echo 'Estimated cost: 12 units'",
        r"printf '41\r\n'",
        "echo Submitted batch job 41",
    ],
)
def test_id_of_a_job_is_found_in_whatever_sbatch_prints(pretend, said, capfd):
    done, calls = pretend("submit.sh", "m.pth", "photos", "run", programs_do={"sbatch": said})
    assert (done, capfd.readouterr().out) == (0, "explain 41\nfinish 41\n")
    assert " --dependency=afterok:41 " in calls[1]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("", 1),
        ("echo queue closed", 1),
        ("echo job 41 accepted", 1),
        ("echo 41 42", 1),
        ("echo 41x", 1),
        ("echo 41; exit 5", 5),
    ],
)
def test_submission_ends_with_what_sbatch_said_where_no_job_id_is_in_it(pretend, said, code, capfd):
    done, calls = pretend("submit.sh", "m.pth", "photos", "run", programs_do={"sbatch": said})
    assert (done, len(calls)) == (code, 1)
    told = capfd.readouterr().err
    assert told.startswith("submit.sh: no job id for explain: sbatch ended with exit code ")
    assert said.removeprefix("echo ").partition(";")[0] in told


def test_scripts_are_found_where_cd_prints_and_by_a_link(tmp_path):
    (tmp_path / "submit").symlink_to(JOBS / "submit.sh")
    words = ["--dry-run", "m.pth", "photos", "run"]
    environment = {**os.environ, "CDPATH": str(JOBS.parent)}
    for script in ("jobs/submit.sh", tmp_path / "submit"):
        done = subprocess.run(["bash", script, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert str(JOBS / "explain.sbatch") in shlex.split(done.stdout)


@pytest.mark.parametrize(
    ("scontrol", "code", "told"),
    [
        ("echo 'Welcome'; echo 'JobId=41 JobState=COMPLETED Reason=None ExitCode=0:0'", 0, ""),
        (f"{SECOND_TIME} echo 'JobId=41 JobState=FAILED Reason=None ExitCode=3:0'", 3, ""),
        ("echo 'JobId=41 JobState=NODE_FAIL Reason=None ExitCode=0:0'", 1, ""),
        ("exit 1", 1, "submit.sh: Slurm says nothing of job 41 any more; how the run is: batchcam info 'run'"),
    ],
    ids=["banner", "slow", "node-failed", "silent"],
)
def test_waiting_ends_with_the_job_or_when_slurm_says_nothing_of_it_any_more(pretend, scontrol, code, told, capfd):
    programs = {"sbatch": "echo 41", "scontrol": scontrol, "sleep": ""}
    done, _ = pretend("submit.sh", "--wait", "m.pth", "photos", "run", programs_do=programs)
    assert done == code
    assert told in capfd.readouterr().err


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


@pytest.mark.parametrize(
    ("codes", "worst"),
    [((0, 0), 0), ((0, 3), 3), ((3, 0), 3), ((75, 3), 75), ((3, 75), 75), ((1, 75), 1), ((75, 1), 1)],
)
def test_workers_of_several_gpus_have_a_gpu_and_a_share_each_and_end_with_the_worst_code(pretend, codes, worst):
    does = (
        f"case $CUDA_VISIBLE_DEVICES$* in 5*--task\\ 0/2*) exit {codes[0]} ;; 7*--task\\ 1/2*) exit {codes[1]} ;; esac"
    )
    words = ("2", "m.pth", "my photos", "run", "-b", "8")
    done, calls = pretend("explain_gpus.sh", *words, programs_do={"batchcam": does}, CUDA_VISIBLE_DEVICES="5,7")
    assert done == worst
    assert sorted(calls) == [
        f"batchcam explain m.pth my photos --out run --task {i}/2 --device cuda -b 8" for i in range(2)
    ]


def test_several_gpus_in_an_allocation_are_left_to_srun(pretend):
    programs = {"srun": "exit 75"}
    done, calls = pretend("explain_gpus.sh", "8", "m.pth", "photos", "run", programs_do=programs, SLURM_JOB_ID="3")
    assert done == 75
    explain = "batchcam explain m.pth photos --out run --device cuda"
    assert calls == [f"srun --ntasks=8 --gpus-per-task=1 --kill-on-bad-exit=0 {explain}"]


@pytest.mark.parametrize(("nproc", "threads"), [("echo 8", 4), ("echo 1", 1), ("echo no; exit 1", 1), ("echo", 1)])
def test_workers_of_one_machine_share_its_cpus(pretend, tmp_path, nproc, threads):
    programs = {"batchcam": f'echo "$BATCHCAM_THREADS $BATCHCAM_WORKERS" >{tmp_path}/threads', "nproc": nproc}
    assert pretend("explain_gpus.sh", "2", "m.pth", "photos", "run", programs_do=programs)[0] == 0
    assert (tmp_path / "threads").read_text() == f"{threads} {threads}\n"


@pytest.mark.parametrize("words", [["2", "m.pth", "photos"], ["0", "m.pth", "photos", "run"], ["m.pth"] * 4])
def test_several_gpus_without_their_number_are_refused(pretend, words):
    assert pretend("explain_gpus.sh", *words, programs_do={"batchcam": ""}) == (2, [])


def test_more_workers_than_visible_gpus_are_refused(pretend):
    words = ("3", "m.pth", "photos", "run")
    assert pretend("explain_gpus.sh", *words, programs_do={"batchcam": ""}, CUDA_VISIBLE_DEVICES="5,7") == (2, [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_workers_of_all_gpus(tmp_path, number):
    worker = tmp_path / "batchcam"
    worker.write_text("#!/bin/bash\ntrap 'exit 75' USR1\ntouch $BASHPID.here\nwhile :; do sleep 0.05; done\n")
    worker.chmod(0o755)
    words = ["bash", JOBS / "explain_gpus.sh", "2", "m.pth", "photos", "run"]
    script = subprocess.Popen(words, cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob("*.here"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    script.send_signal(number)
    assert script.wait(timeout=30) == 75


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

    def log(self, pattern: str) -> str:
        """Return the text of all logs whose name matches."""
        return "".join(p.read_text() for p in sorted(self.here.glob(f"logs/{pattern}")))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([SLURM / "slurm-up", folder], capture_output=True, text=True)
    if started.returncode == UNAVAILABLE:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    try:
        yield Cluster(folder, tmp_path_factory.mktemp("work"))
    finally:
        subprocess.run([SLURM / "slurm-down", folder], check=True)


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
    found = [json.loads(p.read_text()) for p in run.glob("task-*.json")]
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
        """The node of task 2 loses power; somebody declares it down, and it comes back."""
        self.cluster.run(SLURM / "slurm-down", "--crash", node, self.cluster.folder)
        self.cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        self.cluster.run(SLURM / "slurm-up", self.cluster.folder)

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
        "--against", "older-alone", "--max-flips", "0", *options("night", "--device", "cpu"),  # the GPUs are pretended
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
