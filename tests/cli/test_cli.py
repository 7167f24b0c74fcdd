"""The command line: exit codes with their one line, options from files and variables, JSON on the last line."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision

from batchcam import __version__
from batchcam.cli import main
from batchcam.cli.commands import cli
from batchcam.config.texts import MOST_OPTION_BYTES
from batchcam.network.checkpoint import pack_checkpoint
from tests.helpers.networks import GapNetwork, seeded

CLASSES = ("ant", "bee", "cat")
NETWORK = "tests.helpers.networks:GapNetwork"
PREPROCESSING = {
    "resize": [32],
    "image_size": [32, 32],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bilinear",
}


def resnet18(class_count: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None, num_classes=class_count)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    path.write_bytes(pack_checkpoint(resnet18().state_dict(), "resnet18", CLASSES, PREPROCESSING, {}))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir()
        for number in range(2):
            cv2.imwrite(str(root / name / f"{number}.png"), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    return root


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(w) for w in words])
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def explain_words(checkpoint: Path, data: object, out: object) -> list[object]:
    return ["explain", checkpoint, data, "--out", out, "-j", 0, "--threads", 1, "--device", "cpu"]


def expect(capsys: pytest.CaptureFixture[str], words: list[object], code: int, *phrases: str) -> None:
    """The command ends with `code` and one line on stderr that holds all `phrases`."""
    ended, _, stderr = run(capsys, *words, "--quiet")
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("batchcam: error: ")
    for phrase in phrases:
        assert phrase in lines[0]
    assert ended == code


@pytest.mark.parametrize("name", sorted(cli.commands))
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_every_command_ends_with_an_example_and_its_exit_codes(capsys, name, flag):
    code, out, _ = run(capsys, name, flag)
    assert code == 0
    example, codes = out.split("Exit codes:")
    assert f"batchcam {name}" in example.split("Example:")[1]
    assert "0   done" in codes
    assert "1   failed" in codes


@pytest.mark.parametrize("words", [["--version"], *([name, "--version"] for name in sorted(cli.commands))])
def test_version_is_told_everywhere(capsys, words):
    code, out, _ = run(capsys, *words)
    assert (code, __version__ in out) == (0, True)


def test_missing_checkpoint(capsys, images, tmp_path):
    words = explain_words(tmp_path / "none.pth", images, tmp_path / "run")
    expect(capsys, words, 1, "none.pth", "No such file or directory")


def test_text_file_as_checkpoint(capsys, images, tmp_path):
    (tmp_path / "a.pth").write_text("dear diary\n" * 50)
    expect(capsys, explain_words(tmp_path / "a.pth", images, tmp_path / "run"), 1, "a.pth", "not a checkpoint")


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_pickle_bomb_as_checkpoint_runs_nothing(capsys, images, tmp_path, kind):
    target, path = tmp_path / "exploded", tmp_path / "bomb.pth"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"model": Bomb(target)}))
            archive.writestr("archive/version", "3")
    else:
        path.write_bytes(pickle.dumps(Bomb(target)))
    expect(capsys, explain_words(path, images, tmp_path / "run"), 1, "bomb.pth")
    assert not target.exists()
    assert not (tmp_path / "run").exists()


def plain_checkpoint(path: Path, state: dict[str, torch.Tensor]) -> list[str]:
    torch.save(state, path)
    return ["--arch", "resnet18", "--preprocess", "stl10"]


def test_missing_and_extra_keys_are_named(capsys, images, tmp_path):
    state = resnet18().state_dict()
    state["stem.weight"] = state.pop("conv1.weight")
    more = plain_checkpoint(tmp_path / "a.pth", state)
    words = [*explain_words(tmp_path / "a.pth", images, tmp_path / "run"), *more]
    expect(capsys, words, 1, "1 missing (conv1.weight)", "1 unexpected (stem.weight)")


def test_class_count_against_the_datasets(capsys, images, tmp_path):
    more = plain_checkpoint(tmp_path / "a.pth", resnet18(10).state_dict())
    words = [*explain_words(tmp_path / "a.pth", images, tmp_path / "run"), *more]
    expect(capsys, words, 1, "3 classes", "checkpoint 10", "--class-names")


def test_class_names_against_the_datasets(capsys, images, tmp_path):
    shutil.copytree(images, tmp_path / "data")
    (tmp_path / "data" / "cat").rename(tmp_path / "data" / "dog")
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\n")
    more = plain_checkpoint(tmp_path / "a.pth", resnet18().state_dict())
    words = [*explain_words(tmp_path / "a.pth", tmp_path / "data", tmp_path / "run"), *more, "--class-names", names]
    expect(capsys, words, 1, "dog")


def test_vgg_is_refused_for_want_of_global_average_pooling(capsys, images, tmp_path, monkeypatch):
    (tmp_path / "small_vgg.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(7))\n"
        "    return nn.Sequential(features, nn.Flatten(), nn.Linear(196, 8), nn.ReLU(), nn.Linear(8, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import small_vgg  # type: ignore[import-not-found]

    torch.save(small_vgg.build().state_dict(), tmp_path / "vgg.pth")
    words = explain_words(tmp_path / "vgg.pth", images, tmp_path / "run")
    expect(capsys, [*words, "--model", "small_vgg:build", "--preprocess", "stl10"], 1, "global average pooling")
    assert not (tmp_path / "run").exists()


def test_empty_dataset(capsys, checkpoint, tmp_path):
    (tmp_path / "data" / "ant").mkdir(parents=True)
    expect(capsys, explain_words(checkpoint, tmp_path / "data", tmp_path / "run"), 1, "data")


def test_missing_dataset(capsys, checkpoint, tmp_path):
    expect(capsys, explain_words(checkpoint, tmp_path / "nowhere", tmp_path / "run"), 1, "nowhere", "no such")


def test_output_that_can_not_be_written(capsys, checkpoint, images, tmp_path):
    (tmp_path / "file").write_text("in the way")
    expect(capsys, explain_words(checkpoint, images, tmp_path / "file" / "run"), 2, "file/run", "not a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_output_in_a_folder_without_permission(capsys, checkpoint, images, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    expect(capsys, explain_words(checkpoint, images, tmp_path / "locked" / "run"), 1, "Permission denied")


def test_output_on_a_full_file_system_stops_early_and_goes_on_with_room(checkpoint, images, tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    size = ["-o", "size=32k"]
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", *size, "tmpfs", mount], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        command = [sys.executable, "-m", "batchcam", *map(str, explain_words(checkpoint, images, mount / "run"))]
        full = subprocess.run(command, capture_output=True, text=True)
        assert full.returncode == 75, full.stderr
        assert "No space left on device; make room and run the same command again" in full.stderr.splitlines()[-1]
        assert not [p for p in (mount / "run").rglob("*") if p.name.startswith("shard-") and p.suffix == ".h5"]
        subprocess.run(["mount", "-o", "remount,size=8m", mount], check=True)
        assert subprocess.run(command, capture_output=True).returncode == 0
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="this machine has that device")
def test_cuda_device_that_is_not_there(capsys, checkpoint, images, tmp_path):
    words = ["explain", checkpoint, images, "--out", tmp_path / "run", "--device", "cuda:7"]
    expect(capsys, words, 1, "cuda:7", "not on this machine")


def test_run_directory_of_another_run(capsys, checkpoint, images, tmp_path):
    assert run(capsys, *explain_words(checkpoint, images, tmp_path / "run"), "-q")[0] == 0
    other = resnet18().state_dict()
    other["fc.bias"] += 1
    (tmp_path / "other.pth").write_bytes(pack_checkpoint(other, "resnet18", CLASSES, PREPROCESSING, {}))
    words = explain_words(tmp_path / "other.pth", images, tmp_path / "run")
    expect(capsys, words, 1, "belongs to another run", "checkpoint sha256")


def test_folder_that_is_no_run(capsys, tmp_path):
    for name in ("verify", "info", "merge"):
        expect(capsys, [name, tmp_path], 1, "not a run directory")
        expect(capsys, [name, tmp_path / "none"], 1, "none: no such folder")


@pytest.mark.parametrize("command", ["info", "verify", "merge"])
def test_part_of_a_run_is_told_which_folder_to_name(capsys, sound_run, command):
    for name in ("run.h5", "shards/shard-00000.h5"):
        expect(capsys, [command, sound_run / name], 1, f"a file of a run: name the folder {sound_run}")
    expect(capsys, [command, sound_run / "shards"], 1, f"a folder of a run: name the folder {sound_run}")


def test_unknown_option_and_bad_values_are_usage_errors(capsys, checkpoint, images, tmp_path):
    words = explain_words(checkpoint, images, tmp_path / "run")
    expect(capsys, [*words, "--colour"], 2, "--colour")
    expect(capsys, [*words, "--task", "4/4"], 2, "4/4", "0 to n-1")
    expect(capsys, [*words, "--cams", "topk:9"], 2, "topk:9")
    expect(capsys, [*words, "-b", "0"], 2, "batch-size")
    expect(capsys, [*words, "--time-limit", "soon"], 2, "soon")
    assert not (tmp_path / "run").exists()


def test_errors_and_data_can_not_forge_lines(capsys, tmp_path):
    _, _, stderr = run(capsys, "info", tmp_path / "a\nbatchcam: all is well\x1b[2J")
    assert len(stderr.splitlines()) == 1
    assert "\x1b" not in stderr


def test_json_ends_stdout_with_one_object_also_on_failure(capsys, checkpoint, images, tmp_path):
    code, out, _ = run(capsys, *explain_words(checkpoint, images, tmp_path / "run"), "--json", "-q")
    said = json.loads(out.splitlines()[-1])
    assert (code, said["exit_code"], said["samples"], said["complete"]) == (0, 0, 6, True)
    code, out, _ = run(capsys, "verify", tmp_path / "none", "--json")
    said = json.loads(out.splitlines()[-1])
    assert (code, said["exit_code"]) == (1, 1)
    assert "no such folder" in said["error"]


def test_findings_end_with_exit_code_3(capsys, checkpoint, images, tmp_path):
    shutil.copytree(images, tmp_path / "data")
    (tmp_path / "data" / "bee" / "1.png").write_bytes(b"")
    code, out, _ = run(capsys, *explain_words(checkpoint, tmp_path / "data", tmp_path / "run"), "-q")
    assert code == 3
    assert "1 unreadable" in out
    assert "unreadable  bee/1.png: " in run(capsys, "info", tmp_path / "run")[1]
    assert run(capsys, "verify", tmp_path / "run", "-q")[0] == 0
    (tmp_path / "run" / "stray").write_text("")
    assert run(capsys, "verify", tmp_path / "run", "-q")[0] == 3


def test_findings_may_be_made_exit_code_0_for_one_call_and_for_none_of_those_that_it_starts(
    capsys, checkpoint, images, tmp_path, monkeypatch
):
    shutil.copytree(images, tmp_path / "data")
    (tmp_path / "data" / "bee" / "1.png").write_bytes(b"")
    words = explain_words(checkpoint, tmp_path / "data", tmp_path / "run")
    code, out, _ = run(capsys, *words, "-q", "--findings-ok", "--json")
    assert (code, json.loads(out.splitlines()[-1])["exit_code"]) == (0, 0)
    assert "1 unreadable" in out
    monkeypatch.setenv("BATCHCAM_FINDINGS_OK", "1")
    assert run(capsys, *words, "-q")[0] == 3
    assert run(capsys, "verify", tmp_path / "none", "--findings-ok")[0] == 1


def test_options_come_from_variables(capsys, checkpoint, images, tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHCAM_SHARD_SIZE", "2")
    monkeypatch.setenv("BATCHCAM_TASK", "1/3")
    _, out, _ = run(capsys, *explain_words(checkpoint, images, tmp_path / "run"), "--json", "-q")
    assert json.loads(out.splitlines()[-1])["shards"] == 1
    assert [p.name for p in (tmp_path / "run/shards").glob("*.h5")] == ["shard-00001.h5"]


LONG = "x" * 5000
NAMED_TOO_LONG = (
    ("info", LONG), ("merge", LONG), ("render", LONG, "--out", "a.png"), ("report", LONG, "--out", "a.html"),
    ("compare", LONG, LONG), ("export", LONG, "--to", "csv", "--out", "o"), ("explain", LONG, LONG, "--out", LONG),
    ("localize", LONG, "--annotations", LONG), ("faithfulness", LONG, "--checkpoint", LONG, "--data", LONG),
    ("discover", LONG, "--checkpoint", LONG, "--data", LONG),
    ("evaluate", LONG, LONG), ("demo", "--out", LONG), ("render", "here", "--out", LONG),
    ("report", "here", "--out", LONG + ".html"), ("export", "here", "--to", "csv", "--out", LONG),
)  # fmt: skip


@pytest.mark.parametrize("words", NAMED_TOO_LONG, ids=lambda words: f"{words[0]} {len(words[1])}")
def test_a_name_that_no_file_can_have_is_an_error_that_says_so(
    capsys, checkpoint, images, tmp_path, monkeypatch, words
):
    monkeypatch.chdir(tmp_path)
    run(capsys, *explain_words(checkpoint, images, tmp_path / "here"), "-q")
    code, _, err = run(capsys, *words)
    assert code in (1, 2)
    assert "unexpected" not in err
    assert "ile name too long" in err


def test_an_error_of_the_file_system_that_nobody_caught_tells_the_file(capsys, tmp_path, monkeypatch):
    def refuse(**asked: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), asked["run"])

    monkeypatch.setattr("batchcam.commands.merge.merge", refuse)
    expect(capsys, ["merge", "a\nb"], 1, "a b: Permission denied; --debug shows where")


@pytest.mark.parametrize("command", ["evaluate", "explain"])
def test_more_loader_processes_than_cpus_are_told(capsys, checkpoint, images, tmp_path, monkeypatch, command):
    monkeypatch.setattr("batchcam.job.cpus.available_cpus", lambda: 1)
    words = explain_words(checkpoint, images, tmp_path / "run")
    words = words if command == "explain" else ["evaluate", *words[1:3], *words[5:]]
    assert "warning: --workers 2: this process may use 1 CPU\n" in run(capsys, *words, "-j", 2)[2]


def test_a_variable_that_is_no_options_is_told(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHCAM_WOKERS", "2")
    monkeypatch.setenv("BATCHCAM_\n", "2")
    code, _, err = run(capsys, "info", tmp_path / "none", "-q")
    assert code == 1
    assert "batchcam: warning: BATCHCAM_WOKERS is ignored: no option has this name; BATCHCAM_WORKERS?" in err
    assert "batchcam: warning: BATCHCAM_ is ignored" in err


def test_variables_of_options_are_not_told(capsys, tmp_path, monkeypatch):
    for name in ("WORKERS", "CONFIG", "DEBUG", "TOP", "JSON", "DEVICE"):
        monkeypatch.setenv(f"BATCHCAM_{name}", "")
    assert "ignored" not in run(capsys, "info", tmp_path / "none")[2]


def test_options_come_from_a_file_and_the_command_line_wins(capsys, checkpoint, images, tmp_path):
    (tmp_path / "c.toml").write_text('quiet = true\nseed = 3\n[explain]\nshard-size = 2\ncams = "predicted"\n')
    words = explain_words(checkpoint, images, tmp_path / "run")
    code, out, _ = run(capsys, *words, "--config", tmp_path / "c.toml", "--shard-size", 3, "--json")
    assert (code, json.loads(out.splitlines()[-1])["shards"]) == (0, 2)
    assert json.loads((tmp_path / "run/run.json").read_text())["plan"]["cams"] == "predicted"


def test_unknown_key_in_a_file_is_an_error_that_lists_the_known_ones(capsys, checkpoint, images, tmp_path):
    (tmp_path / "c.toml").write_text("[explain]\nshard-sise = 2\n")
    words = [*explain_words(checkpoint, images, tmp_path / "run"), "--config", tmp_path / "c.toml"]
    expect(capsys, words, 2, "shard-sise", "shard-size")


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        ("[explian]\nquiet = true\n", "explian"),
        ("explain = 3\n", "explain"),
        ("json = [\n", "cannot read"),
        ("json = 0\n", "true or false"),
        ('quiet = "yes"\n', "true or false"),
        ("shard-size = 2.5\n", "2.5"),
        ("shard-size = true\n", "text or a number"),
        ("shard-size = 2026-01-02\n", "text or a number"),
        (f"shard-size = 0x{'f' * 5000}\n", "text or a number"),
        (f"shard-size = {'9' * 5000}\n", "cannot read"),
        (f"arch = {'[' * 5000}\n", "cannot read"),
        ('class-names = "a\\u0000b"\n', "text or a number"),
        ('cams = ["all", "predicted"]\n', "text or a number"),
    ],
)
def test_file_of_another_shape_is_a_usage_error(capsys, checkpoint, images, tmp_path, content, phrase):
    (tmp_path / "c.toml").write_text(content)
    words = [*explain_words(checkpoint, images, tmp_path / "run"), "--config", tmp_path / "c.toml"]
    expect(capsys, words, 2, phrase)


@pytest.mark.parametrize("option", ["--config", "--class-names"])
def test_an_endless_file_of_options_is_refused(checkpoint, images, tmp_path, option):
    """In a process of its own, whose memory is bounded: reading it to the end would take all there is."""
    words = map(str, [*explain_words(checkpoint, images, tmp_path / "run"), option, "/dev/zero", "-q"])
    limited = f"ulimit -v 16000000; exec {shlex.join([sys.executable, '-m', 'batchcam', *words])}"
    ended = subprocess.run(limited, shell=True, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (
        2, f"batchcam: error: {option} /dev/zero: has more than {MOST_OPTION_BYTES} bytes\n"
    )  # fmt: skip


def test_options_come_from_a_pipe(capsys, checkpoint, images, tmp_path):
    reader, writer = os.pipe()
    os.write(writer, b"shard-size = 2\n")
    os.close(writer)
    words = [*explain_words(checkpoint, images, tmp_path / "run"), "--config", f"/dev/fd/{reader}", "--json", "-q"]
    _, out, _ = run(capsys, *words)
    os.close(reader)
    assert json.loads(out.splitlines()[-1])["shards"] == 3


def test_json_can_be_asked_for_by_file_and_variable(capsys, checkpoint, images, tmp_path, monkeypatch):
    (tmp_path / "c.toml").write_text("json = true\nquiet = true\n")
    _, out, _ = run(capsys, *explain_words(checkpoint, images, tmp_path / "run"), "--config", tmp_path / "c.toml")
    assert json.loads(out.splitlines()[-1])["samples"] == 6
    monkeypatch.setenv("BATCHCAM_JSON", "1")
    _, out, _ = run(capsys, "info", tmp_path / "none")
    assert "no such folder" in json.loads(out.splitlines()[-1])["error"]
    assert json.loads(run(capsys, "info", tmp_path / "run")[1].splitlines()[-1])["exit_code"] == 0


def test_command_works_with_streams_that_a_scheduler_closed(checkpoint, images, tmp_path):
    words = [sys.executable, "-m", "batchcam", *map(str, explain_words(checkpoint, images, tmp_path / "run"))]
    closed = subprocess.run(f"{shlex.join(words)} 2>&- <&-", shell=True, stdout=subprocess.PIPE, text=True)
    assert closed.returncode == 0
    assert len(closed.stdout.splitlines()) == 1
    checked = [sys.executable, "-m", "batchcam", "verify", str(tmp_path / "run")]
    assert subprocess.run(f"{shlex.join(checked)} 2>&-", shell=True, stdout=subprocess.PIPE).returncode == 0


def test_batchcam_alone_prints_its_help(capsys):
    code, out, _ = run(capsys)
    assert code == 2
    assert "explain" in out
    assert len(out.splitlines()) > 10


def test_info_tells_what_was_explained(capsys, checkpoint, images, tmp_path):
    run(capsys, *explain_words(checkpoint, images, tmp_path / "run"), "-q")
    code, out, _ = run(capsys, "info", tmp_path / "run")
    assert code == 0
    for phrase in ("complete", "resnet18, layer4", "6; accuracy", "identity", "holds", "ant"):
        assert phrase in out


def test_evaluate_counts_what_a_plain_loop_counts(capsys, checkpoint, images):
    network = resnet18().eval()
    correct = 0
    for label, name in enumerate(CLASSES):
        for path in sorted((images / name).iterdir()):
            picture = cv2.imread(str(path))[:, :, ::-1].astype(np.float32) / 255
            with torch.inference_mode():
                logits = network(torch.from_numpy((picture.transpose(2, 0, 1) - 0.5) / 0.5)[None])
            correct += int(logits.argmax()) == label
    words = ["evaluate", checkpoint, images, "-j", 0, "--threads", 1, "--device", "cpu", "--json", "-q"]
    _, out, _ = run(capsys, *words)
    assert json.loads(out.splitlines()[-1])["accuracy"] == pytest.approx(correct / 6)


def test_evaluate_of_images_without_labels_counts_predictions(capsys, tmp_path, checkpoint, images):
    ids = [f"{path.relative_to(images)}" for path in sorted(images.glob("*/*"))]
    (images / "samples.csv").write_text("path\n" + "\n".join(ids) + "\n")
    words = ["evaluate", checkpoint, images / "samples.csv", "-j", 0, "--threads", 1, "--device", "cpu", "--json", "-q"]
    code, out, _ = run(capsys, *words)
    assert (code, out.splitlines()[0]) == (0, "no labels; 6 samples")
    assert sum(c["predicted"] for c in json.loads(out.splitlines()[-1])["classes"]) == 6


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize("out", ["data", "data/run", "data/ant/deep/run", "link", "link/run"])
def test_a_run_among_its_own_class_folders_is_refused(capsys, checkpoint, images, tmp_path, out, more):
    shutil.copytree(images, tmp_path / "data")
    (tmp_path / "link").symlink_to("data")
    before = sorted(tmp_path.rglob("*"))
    words = [*explain_words(checkpoint, tmp_path / "data", tmp_path / out), *more]
    expect(capsys, words, 2, f"{out}: is, or lies in, the dataset: ", "choose another --out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_beside_the_class_folders_or_the_images_of_a_manifest_is_taken(capsys, checkpoint, images, tmp_path):
    shutil.copytree(images, tmp_path / "data")
    (tmp_path / "data" / "list.csv").write_text("path,label\nant/0.png,ant\n")
    for data, out in (("data", "data and run"), ("data/list.csv", "data/run")):
        words = [*explain_words(checkpoint, tmp_path / data, tmp_path / out), "--dry-run", "-q"]
        assert run(capsys, *words)[0] == 0


def test_a_checkpoint_in_a_class_folder_is_refused(capsys, images, tmp_path):
    shutil.copytree(images, tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    words = ["train", tmp_path / "data", "--out", tmp_path / "data/models/model.pth"]
    expect(capsys, words, 2, "data/models/model.pth: its folder is, or becomes, a class of ")
    assert sorted(tmp_path.rglob("*")) == before


def test_run_behind_a_link_that_leads_nowhere(capsys, checkpoint, images, tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    expect(
        capsys, explain_words(checkpoint, images, tmp_path / "link"), 2, "link: a link to a folder that is not there"
    )


def test_dry_run_says_what_there_is_to_do(capsys, checkpoint, images, tmp_path):
    words = [*explain_words(checkpoint, images, tmp_path / "run"), "--shard-size", 4, "--dry-run", "--json", "-q"]
    code, out, _ = run(capsys, *words)
    line, said = out.splitlines()[0], json.loads(out.splitlines()[-1])
    assert code == 0
    assert line.startswith(f"{tmp_path}/run: would explain 6 samples in 2 shards, at most ")
    assert line.endswith("kB; nothing written")
    assert (said["dry_run"], said["to_do_samples"], said["to_do_shards"], said["samples"]) == (True, 6, 2, 0)
    assert not (tmp_path / "run").exists()
    code, out, _ = run(capsys, *words, "--task", "1/2")
    assert "would explain 2 samples in 1 shard, " in out
    assert run(capsys, *(w for w in words if w != "--dry-run"))[0] == 0
    assert sum(p.stat().st_size for p in (tmp_path / "run").rglob("*.h5")) < said["to_do_bytes"] < 300_000


def test_a_complete_run_says_that_its_shards_were_not_checked_and_a_new_one_does_not(
    capsys, checkpoint, images, tmp_path
):
    words = explain_words(checkpoint, images, tmp_path / "a run")
    first, again = (run(capsys, *words, "-q")[1] for _ in range(2))
    assert "not checked" not in first
    assert f"; finished shards were not checked: batchcam verify '{tmp_path}/a run'\n" in again


def test_class_names_of_the_dataset_are_told_where_the_checkpoint_has_none(capsys, checkpoint, images, tmp_path):
    told = "class names: from the dataset, in its order, 0 ant … 2 cat; the checkpoint has none"
    more = plain_checkpoint(tmp_path / "a.pth", resnet18().state_dict())
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    words = [*explain_words(tmp_path / "a.pth", images, tmp_path / "run"), *more, "--dry-run"]
    assert told in run(capsys, *words)[2]
    assert told not in run(capsys, *words, "--class-names", tmp_path / "names.txt")[2]
    assert told not in run(capsys, *explain_words(checkpoint, images, tmp_path / "run"), "--dry-run")[2]


def test_a_model_named_by_its_file_is_told_how_to_name_it(capsys, images, tmp_path):
    more = plain_checkpoint(tmp_path / "a.pth", resnet18().state_dict())[2:]
    words = [*explain_words(tmp_path / "a.pth", images, tmp_path / "run"), *more, "--model", "mynet.py:make"]
    expect(capsys, words, 1, "write --model mynet:make")


def test_what_runs_a_network_again_asks_for_the_runs_own_model(capsys, images, tmp_path):
    weights = tmp_path / "a.pth"
    torch.save(seeded(GapNetwork).state_dict(), weights)
    words = [*explain_words(weights, images, tmp_path / "run"), "--preprocess", "stl10", "-q"]
    assert run(capsys, *words, "--model", NETWORK)[0] == 0
    again = ["--checkpoint", weights, "--data", images, "--device", "cpu"]
    commands = (
        ["verify", tmp_path / "run", "--recompute", 1],
        *([c, tmp_path / "run"] for c in ("faithfulness", "discover")),
    )
    for command in commands:
        expect(
            capsys,
            [*command, *again],
            2,
            f"this run was made with --model {NETWORK}: give it again",
        )


@pytest.mark.parametrize("name", sorted(n for n, c in cli.commands.items() if "75  stopped" in str(c.epilog)))
def test_the_time_limit_is_told_of_by_commands_that_have_one(capsys, name):
    _, out, _ = run(capsys, name, "-h")
    assert ("--time-limit" in out.split("Exit codes:")[1]) == ("--time-limit TIME" in out)
