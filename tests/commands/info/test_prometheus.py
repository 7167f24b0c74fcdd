"""info --prometheus: what node_exporter's textfile collector reads."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from statsmodels.stats.proportion import proportion_confint

from batchcam.commands.compare.compare import compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.info import command, prometheus
from batchcam.commands.info.command import watch
from batchcam.commands.info.config import InfoConfig
from batchcam.commands.info.info import info
from batchcam.job.scheduler import epoch_seconds
from batchcam.store.manifest import task_file, write_task
from batchcam.store.plan import read_plan
from tests.helpers.run_pairs import make_rows, write

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf'({NAME})\{{run="((?:[^"\\\n]|\\["\\n])*)"(?:,state="([a-z ]+)")?\}} (\S+)')
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def parse(content: bytes) -> dict[str, tuple[dict[str, str], float]]:
    """Labels and value by metric, by the exposition format's grammar: HELP and TYPE before the samples of each."""
    lines = content.decode("utf-8").split("\n")
    assert lines.pop() == ""  # the last line ends too
    found: dict[str, tuple[dict[str, str], float]] = {}
    head: list[str] = []
    for line in lines:
        if line.startswith("# "):
            head.append(line)
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample is not None
        name, run, state, value = sample.groups()
        if head:
            assert re.fullmatch(rf"# HELP {name} [^\\]+", head[0])
            assert head[1:] == [f"# TYPE {name} gauge"]
            assert name not in {key.partition("/")[0] for key in found}
            last, head = name, []
        assert name == last
        key = f"{name}/{state}" if state else name
        assert key not in found
        found[key] = ({"run": re.sub(r"\\.", lambda m: ESCAPES[m[0]], run)}, float(value))
    assert not head
    return found


def values(path: Path) -> dict[str, float]:
    return {name.removeprefix("batchcam_"): value for name, (_, value) in parse(path.read_bytes()).items()}


def tasks(**count: int) -> dict[str, int]:
    states = ("running", "done", "failed", "stopped early", "stalled")
    return {f"tasks/{state}": count.get(state.replace(" ", "_"), 0) for state in states}


def test_metrics_of_a_complete_run_are_what_its_manifest_says(sound_run: Path, tmp_path: Path, run_cli) -> None:
    file = tmp_path / "batchcam.prom"
    assert run_cli("info", sound_run, "--prometheus", file, "--confidence", "90")[0] == 0
    manifest = json.loads((sound_run / "manifest.json").read_bytes())
    totals = manifest["totals"]
    wilson = proportion_confint(totals["correct"], totals["labelled"], 0.1, "wilson")
    assert values(file) == {
        "samples": totals["samples"],
        "unreadable": totals["status"]["unreadable"],
        "labelled": totals["labelled"],
        "accuracy": totals["correct"] / totals["labelled"],
        "accuracy_low": pytest.approx(wilson[0]),
        "accuracy_high": pytest.approx(wilson[1]),
        "shards": len(manifest["shards"]),
        "shards_landed": len(manifest["shards"]),
        "complete": 1,
        "last_success_timestamp_seconds": epoch_seconds(manifest["made"]["when"]),
        "task_seconds": pytest.approx(sum(task.get("seconds", 0) for task in manifest["tasks"])),
        **tasks(done=len(manifest["tasks"])),
    }
    assert {str(labels) for labels, _ in parse(file.read_bytes()).values()} == {str({"run": str(sound_run)})}


@pytest.mark.parametrize("name", ['a "b"', "a\\nb", "a\nb", "ä b", "a\rb}", "\\"])
def test_a_name_of_a_run_comes_back_from_the_label(name: str) -> None:
    content = prometheus.text(name, dict.fromkeys(prometheus.METRICS, 1), {"done": 1}).encode()
    assert {labels["run"] for labels, _ in parse(content).values()} == {name}


def test_a_name_that_is_no_utf_8_shows_as_escapes() -> None:
    content = prometheus.text(os.fsdecode(b"run\xff"), dict.fromkeys(prometheus.METRICS, 1), {}).encode()
    assert {labels["run"] for labels, _ in parse(content).values()} == {r"run\xff"}


def test_a_metric_without_a_value_is_left_out() -> None:
    known = dict.fromkeys(prometheus.METRICS) | {"samples": 3, "accuracy": 0.1 + 0.2}
    content = prometheus.text("run", known, {})
    assert {name: value for name, (_, value) in parse(content.encode()).items()} == {
        "batchcam_samples": 3,
        "batchcam_accuracy": 0.1 + 0.2,
    }


def test_with_watch_the_file_is_written_at_each_look(finished_run: Path, tmp_path: Path) -> None:
    file, kept = tmp_path / "batchcam.prom", tmp_path / "manifest.json"
    (finished_run / "manifest.json").rename(kept)
    last = read_plan(finished_run).shards[-1]
    for path in finished_run.glob(f"shards/{last.file}*"):
        path.rename(tmp_path / path.name)
    seen = []

    def finish(seconds: float) -> None:
        seen.append(values(file))
        for path in tmp_path.glob("shard-*"):
            path.rename(finished_run / "shards" / path.name)
        shutil.copy(kept, finished_run / "manifest.json")

    list(watch(InfoConfig(finished_run, watch=True, prometheus=file), sleep=finish))
    seen.append(values(file))
    assert [(each["complete"], each["shards_landed"], each["samples"]) for each in seen] == [
        (0, 2, last.first),
        (1, 3, 21),
    ]
    assert seen[0].keys() ^ seen[1].keys() == {
        *("labelled", "accuracy", "accuracy_low", "accuracy_high", "last_success_timestamp_seconds")
    }


def test_a_stalled_run_has_its_metrics_all_the_same(finished_run: Path, tmp_path: Path, run_cli) -> None:
    (finished_run / "manifest.json").unlink()
    for path in [*finished_run.glob("task-*"), *finished_run.glob("shards/*.h5")]:
        os.utime(path, (0, 0)) if path.suffix == ".h5" else path.unlink()
    for options in ((), ("--watch",)):
        file = tmp_path / f"{len(options)}.prom"
        assert run_cli("info", finished_run, "--stall", "30m", "--prometheus", file, *options)[0] == 1
        assert values(file)["complete"] == 0


def test_metrics_replace_metrics_and_nothing_else(sound_run: Path, tmp_path: Path, run_cli) -> None:
    file = tmp_path / "batchcam.prom"
    for content in ("", prometheus.text("another", dict.fromkeys(prometheus.METRICS, 0), {})):
        file.write_text(content)
        assert run_cli("info", sound_run, "--prometheus", file)[0] == 0
        assert values(file)["complete"] == 1
    for options in ((), ("--watch",)):
        file.write_text("node_load1 3\n")
        code, _, err = run_cli("info", sound_run, "--prometheus", file, *options)
        assert (code, file.read_text()) == (2, "node_load1 3\n")
        assert f"--prometheus {file}: is there, and batchcam did not make it" in err
    assert [path.name for path in tmp_path.iterdir()] == ["batchcam.prom"]


def test_an_accuracy_is_absent_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound_run: Path) -> None:
    about = info(sound_run)
    about.totals.update(labelled=0, accuracy=None)
    about.intervals.update(accuracy=None)
    monkeypatch.setattr(command.reading, "info", lambda run, level, cluster: about)
    command.info(InfoConfig(sound_run, prometheus=tmp_path / "a.prom"))
    assert values(tmp_path / "a.prom")["labelled"] == 0
    assert "accuracy" not in values(tmp_path / "a.prom")


def test_tasks_are_counted_by_state_while_a_run_is_made(finished_run: Path, tmp_path: Path, run_cli) -> None:
    (finished_run / "manifest.json").unlink()
    for path in finished_run.glob("task-*"):
        path.unlink()
    for share, outcome in (("0/3", "running"), ("1/3", "failed"), ("2/3", "running")):
        write_task(finished_run, task_file(0), {"task": share, "outcome": outcome, "started": "2026-11-24T02:30:00Z"})
    file = tmp_path / "batchcam.prom"
    for path in finished_run.rglob("*"):
        os.utime(path, (0, 0)) if path.suffix == ".h5" else None
    for options, code in (((), 0), (("--watch", "--stall", "1s"), 1)):
        assert run_cli("info", finished_run, "--prometheus", file, *options)[0] == code
        assert {name: count for name, count in values(file).items() if "/" in name} == tasks(running=2, failed=1)


def test_flips_are_those_that_compare_counts(tmp_path: Path, run_cli) -> None:
    old, new = (write(tmp_path / name, *make_rows(seed)) for name, seed in (("old", 0), ("new", 1)))
    totals = compare(CompareConfig(old, new, shared_classes=True, quiet=True)).totals
    assert 0 < totals.flips < totals.compared
    for options in ((), ("--watch",)):
        file = tmp_path / f"{len(options)}.prom"
        assert run_cli("info", new, "--prometheus", file, "--against", old, *options)[0] == 0
        assert (values(file)["compared"], values(file)["flips"]) == (totals.compared, totals.flips)


def test_a_run_that_is_not_complete_has_no_flips_yet(
    finished_run: Path, sound_run: Path, tmp_path: Path, run_cli
) -> None:
    (finished_run / "manifest.json").unlink()
    file = tmp_path / "batchcam.prom"
    assert run_cli("info", finished_run, "--prometheus", file, "--against", sound_run)[0] == 0
    assert not {"compared", "flips"} & values(file).keys()


def test_a_run_to_compare_with_is_refused_where_nothing_would_tell(sound_run: Path, run_cli) -> None:
    code, _, err = run_cli("info", sound_run, "--against", sound_run)
    assert (code, "--against: counts flips for --prometheus: give that too" in err) == (2, True)
