"""info --prometheus: what node_exporter's textfile collector reads."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from batchcam.commands.info import command, prometheus
from batchcam.commands.info.command import watch
from batchcam.commands.info.config import InfoConfig
from batchcam.commands.info.info import info
from batchcam.job.scheduler import epoch_seconds
from batchcam.store.plan import read_plan

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf'({NAME})\{{([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"\}} (\S+)')
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def parse(content: bytes) -> dict[str, tuple[dict[str, str], float]]:
    """Labels and value by metric, by the exposition format's grammar: HELP and TYPE before the one sample of each."""
    lines = content.decode("utf-8").split("\n")
    assert lines.pop() == ""  # the last line ends too
    found: dict[str, tuple[dict[str, str], float]] = {}
    for help, kind, line in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        sample = SAMPLE.fullmatch(line)
        assert sample is not None
        name, label, escaped, value = sample.groups()
        assert re.fullmatch(rf"# HELP {name} [^\\]+", help)
        assert kind == f"# TYPE {name} gauge"
        assert name not in found
        found[name] = ({label: re.sub(r"\\.", lambda m: ESCAPES[m[0]], escaped)}, float(value))
    return found


def values(path: Path) -> dict[str, float]:
    return {name.removeprefix("batchcam_"): value for name, (_, value) in parse(path.read_bytes()).items()}


def test_metrics_of_a_complete_run_are_what_its_manifest_says(sound_run: Path, tmp_path: Path, run_cli) -> None:
    file = tmp_path / "batchcam.prom"
    assert run_cli("info", sound_run, "--prometheus", file)[0] == 0
    manifest = json.loads((sound_run / "manifest.json").read_bytes())
    totals = manifest["totals"]
    assert values(file) == {
        "samples": totals["samples"],
        "unreadable": totals["status"]["unreadable"],
        "labelled": totals["labelled"],
        "accuracy": totals["correct"] / totals["labelled"],
        "shards": len(manifest["shards"]),
        "shards_landed": len(manifest["shards"]),
        "complete": 1,
        "last_success_timestamp_seconds": epoch_seconds(manifest["made"]["when"]),
        "task_seconds": pytest.approx(sum(task.get("seconds", 0) for task in manifest["tasks"])),
    }
    assert {str(labels) for labels, _ in parse(file.read_bytes()).values()} == {str({"run": str(sound_run)})}


@pytest.mark.parametrize("name", ['a "b"', "a\\nb", "a\nb", "ä b", "a\rb}", "\\"])
def test_a_name_of_a_run_comes_back_from_the_label(name: str) -> None:
    content = prometheus.text(name, dict.fromkeys(prometheus.METRICS, 1)).encode()
    assert {labels["run"] for labels, _ in parse(content).values()} == {name}


def test_a_name_that_is_no_utf_8_shows_as_escapes() -> None:
    content = prometheus.text(os.fsdecode(b"run\xff"), dict.fromkeys(prometheus.METRICS, 1)).encode()
    assert {labels["run"] for labels, _ in parse(content).values()} == {r"run\xff"}


def test_a_metric_without_a_value_is_left_out() -> None:
    content = prometheus.text("run", dict.fromkeys(prometheus.METRICS) | {"samples": 3, "accuracy": 0.1 + 0.2})
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
    assert seen[0].keys() ^ seen[1].keys() == {"labelled", "accuracy", "last_success_timestamp_seconds"}


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
    for content in ("", prometheus.text("another", dict.fromkeys(prometheus.METRICS, 0))):
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
    monkeypatch.setattr(command.reading, "info", lambda run: about)
    command.info(InfoConfig(sound_run, prometheus=tmp_path / "a.prom"))
    assert values(tmp_path / "a.prom")["labelled"] == 0
    assert "accuracy" not in values(tmp_path / "a.prom")
