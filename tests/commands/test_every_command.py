"""Every command on runs at the edge: no samples, one, one class, 1,000 classes, ids of any kind, nothing readable."""

from __future__ import annotations

import csv
import dataclasses
import functools
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch

import batchcam
from batchcam.cli.commands import cli
from batchcam.commands.explain import explain as explain_module
from batchcam.commands.explain.assembly import assemble
from tests.helpers.networks import CHANNELS, GapNetwork
from tests.helpers.outputs import (
    READERS,
    Ended,
    Words,
    exact,
    faults_of_files,
    files_of,
    read_table,
    run_json,
    snapshot,
)
from tests.helpers.wellformed import Page

IDS = (
    *("cat/001.png", "../../etc/passwd", "/abs/o/lute.png", "..", "two words .png", "🦓👩‍🚀.png", "line\nbreak.png"),
    *("<script>alert(1)</script>", "x" * 300, "蝶" * 300),
)
NAMES = ("ant", "bee", "cat")
COMPUTE = ("-j", 0, "--threads", 1, "--device", "cpu")
PREPROCESSING = ("--image-size", 24, "--mean", 0.5, "--std", 0.5)

COMMANDS: dict[str, Words] = {
    **READERS,
    "merge": lambda run, out: ["merge", shutil.copytree(run, out / "merged")],
    "export parquet": lambda run, out: ["export", run, "--to", "parquet", "--out", out / "table"],
    "localize": lambda run, out: ["localize", run, "--annotations", run.parent / "boxes.csv", "--out", out / "scores"],
}
needs_pyarrow = pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason="pyarrow is not installed")
COMMAND_NAMES = [pytest.param(c, marks=needs_pyarrow if "parquet" in c else ()) for c in COMMANDS]


def network(class_count: int) -> torch.nn.Module:
    torch.manual_seed(class_count)
    network = GapNetwork()
    network.head = torch.nn.Linear(CHANNELS, class_count)
    return network


def one_class() -> torch.nn.Module:
    return network(1)


def three_classes() -> torch.nn.Module:
    return network(3)


def thousand_classes() -> torch.nn.Module:
    return network(1000)


@dataclasses.dataclass(frozen=True)
class Case:
    """A dataset and a network for it.

    Attributes:
        network: factory of the network.
        names: its classes; one for a run as older versions explained one output.
        ids: of the samples.
        readable: whether there are images.
    """

    network: Callable[[], torch.nn.Module]
    names: tuple[str, ...]
    ids: tuple[str, ...]
    readable: bool = True


CASES = {
    "one sample": Case(three_classes, NAMES, ("only.png",)),
    "one class": Case(one_class, ("only",), ("0.png", "1.png", "2.png")),
    "one output": Case(one_class, ("no", "yes"), ("0.png", "1.png", "2.png")),
    "1,000 classes": Case(thousand_classes, tuple(f"class {i:03d}" for i in range(1000)), ("0.png", "1.png", "2.png")),
    "ids of any kind": Case(three_classes, NAMES, IDS),
    "nothing readable": Case(three_classes, NAMES, ("0.png", "1.png"), readable=False),
}


@dataclasses.dataclass(frozen=True)
class Made:
    """A case on disk: its files, how explain ended, and the run."""

    case: Case
    folder: Path
    explained: Ended

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def data(self) -> Path:
        return self.folder / "samples.csv"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.pth"

    @property
    def classifier(self) -> list[object]:
        factory = f"{__name__}:{self.case.network.__name__}"
        return ["--model", factory, "--class-names", self.folder / "names.txt", *PREPROCESSING]


def write_manifest(path: Path, ids: tuple[str, ...], labels: list[object]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(
            [("path", "label", "id"), *((f"images/{i}.png", labels[i], ids[i]) for i in range(len(ids)))]
        )


def write_images(folder: Path, count: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))


def make(folder: Path, case: Case) -> Made:
    folder.mkdir()
    torch.save(case.network().state_dict(), folder / "weights.pth")
    (folder / "names.txt").write_text("\n".join(case.names), encoding="utf-8")
    with (folder / "boxes.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("sample_id", "x0", "y0", "x1", "y1"), *((i, 5, 6, 20, 25) for i in case.ids)])
    write_manifest(folder / "samples.csv", case.ids, [i % len(case.names) for i in range(len(case.ids))])
    if case.readable:
        write_images(folder / "images", len(case.ids))
    made = Made(case, folder, Ended(0, "", ""))
    words = ["explain", made.weights, made.data, "--out", made.run, "--shard-size", 4, *made.classifier, *COMPUTE]
    with pytest.MonkeyPatch.context() as patch:
        if len(case.names) == 1:
            patch.setattr(explain_module, "assemble", functools.partial(assemble, fallback_names=case.names))
        explained = run_json(*words, "--max-unreadable", 50 if case.readable else 100)
    return dataclasses.replace(made, explained=explained)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Return a function that gives a case by name, made once."""
    root, known = tmp_path_factory.mktemp("cases"), dict[str, Made]()

    def get(name: str) -> Made:
        if name not in known:
            known[name] = make(root / name.replace(",", ""), CASES[name])
        return known[name]

    return get


def test_no_command_is_forgotten() -> None:
    on_runs = {"merge", "localize", *(words(Path("run"), Path("out"))[0] for words in READERS.values())}
    others = {
        "explain",
        "evaluate",
        "faithfulness",
        "discover",
        "train",
        "demo",
        "nightly",
        "retrain",
        "promote",
        "submit",
        "jobs",
        "trend",
        "review",
        "view",
    }
    assert {name for name, command in cli.commands.items() if not command.hidden} - on_runs == others


# runs with samples

CODES = {
    ("one class", "render --contrast"): 2,
    ("nothing readable", "merge"): 3,
    ("nothing readable", "report"): 3,
    ("nothing readable", "compare gate"): 3,
    ("nothing readable", "export png"): 1,
    ("nothing readable", "export wsol"): 1,
    ("nothing readable", "export virelay"): 1,
    ("nothing readable", "localize"): 1,
}
"""Exit codes other than 0: nothing to contrast a class with; findings; nothing to show."""


@pytest.mark.parametrize("name", CASES)
def test_explain_explains_every_sample(made: Callable[[str], Made], name: str) -> None:
    ended = made(name).explained
    count = len(CASES[name].ids)
    assert (ended.code, ended.faults) == (0 if CASES[name].readable else 3, [])
    assert (ended.said["samples"], ended.said["complete"]) == (count, True)
    assert ended.said["unreadable"] == (0 if CASES[name].readable else count)


@pytest.mark.parametrize("command", COMMAND_NAMES)
@pytest.mark.parametrize("name", CASES)
def test_a_command_does_its_work_and_leaves_everything_else_alone(
    made: Callable[[str], Made], tmp_path: Path, name: str, command: str
) -> None:
    case = made(name)
    out = tmp_path / "out"
    out.mkdir()
    before = snapshot(case.folder)
    ended = run_json(*COMMANDS[command](case.run, out))
    assert (ended.code, ended.faults) == (CODES.get((name, command), 0), [])
    assert snapshot(case.folder) == before
    assert list(tmp_path.iterdir()) == [out]
    assert faults_of_files(out) == []
    if ended.code in (0, 3):
        CHECKS[command](case, ended.said, out)
    else:
        assert [path for path in files_of(out) if path.name != "export.json"] == []


def check_info(case: Made, said: dict[str, Any], out: Path) -> None:
    assert [c["name"] for c in said["classes"]] == list(case.case.names)
    assert said["totals"]["samples"] == len(case.case.ids)


def check_merge(case: Made, said: dict[str, Any], out: Path) -> None:
    assert said["totals"]["samples"] == len(case.case.ids)
    with h5py.File(out / "merged" / "run.h5") as file:
        assert file["sample_id"].asstr()[:].tolist() == list(case.case.ids)


def check_verify(case: Made, said: dict[str, Any], out: Path) -> None:
    assert (said["found"], said["samples"]) == ([], len(case.case.ids))


def check_pictures(case: Made, said: dict[str, Any], out: Path) -> None:
    count = len(case.case.ids)
    sheet = (out / "sheet.png").exists()
    assert (said["pictures"], said["files"]) == (count, 1 if sheet else count)
    assert (said["missing_originals"], said["without_map"]) == (0, 0)
    assert len(files_of(out)) == said["files"]


def check_sample(case: Made, said: dict[str, Any], out: Path) -> None:
    (line,) = read_table(out / "review" / "verdicts.csv")
    assert exact(line["sample_id"]) in case.case.ids
    assert (said["drawn"], said["size"], said["without_image"]) == (1, len(case.case.ids), not case.case.readable)
    assert Page((out / "review" / "sheet.html").read_text(encoding="utf-8")).wrong == []


def check_report(case: Made, said: dict[str, Any], out: Path) -> None:
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert said["samples"] == len(case.case.ids)
    assert batchcam.open_run(case.run).plan.run_id in page.text
    assert said["without_image"] == said["changed"] == 0


def check_compare(case: Made, said: dict[str, Any], out: Path) -> None:
    readable = len(case.case.ids) if case.case.readable else 0
    assert (said["totals"]["compared"], said["totals"]["flips"]) == (readable, 0)
    assert len(files_of(out)) == (0 if said["gates"] else 3)
    assert [mover["sample_id"] for mover in said["movers"] if mover["sample_id"] not in case.case.ids] == []


def check_table(case: Made, said: dict[str, Any], out: Path) -> None:
    lines = read_table(out / "table" / "samples.csv")
    assert [exact(line["sample_id"]) for line in lines] == list(case.case.ids)
    assert [exact(line["label_name"]) for line in lines] == [
        case.case.names[i % len(case.case.names)] for i in range(len(case.case.ids))
    ]


def check_parquet(case: Made, said: dict[str, Any], out: Path) -> None:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(out / "table" / "samples.parquet")
    assert table["sample_id"].to_pylist() == list(case.case.ids)


def check_png(case: Made, said: dict[str, Any], out: Path) -> None:
    lines = read_table(out / "pictures" / "index.csv")
    assert [exact(line["sample_id"]) for line in lines] == list(case.case.ids)
    assert {line["image"] for line in lines} == {"found"}
    assert {out / "pictures" / exact(line[kind]) for line in lines for kind in ("overlay", "map")} == set(
        out.rglob("*.png")
    )


def check_wsol(case: Made, said: dict[str, Any], out: Path) -> None:
    lines = read_table(out / "wsol" / "names.csv")
    assert [exact(line["sample_id"]) for line in lines] == list(case.case.ids)
    names = (out / "wsol" / "metadata" / "image_ids.txt").read_text(encoding="utf-8").splitlines()
    assert names == [exact(line["image_id"]) for line in lines]
    assert {out / "wsol" / "scoremaps" / f"{each}.npy" for each in names} == set(out.rglob("*.npy"))


def check_virelay(case: Made, said: dict[str, Any], out: Path) -> None:
    lines = read_table(out / "project" / "samples.csv")
    assert [exact(line["sample_id"]) for line in lines] == list(case.case.ids)
    assert {line["image"] for line in lines} == {"found"}


def check_localize(case: Made, said: dict[str, Any], out: Path) -> None:
    with (out / "scores" / "localize.csv").open(encoding="utf-8", newline="") as stream:
        judged = [exact(row["sample_id"]) for row in csv.DictReader(stream)]
    assert judged == (list(case.case.ids) if case.case.readable else [])


CHECKS: dict[str, Callable[[Made, dict[str, Any], Path], None]] = {
    "info": check_info,
    "merge": check_merge,
    "verify": check_verify,
    **{name: check_pictures for name in READERS if name.startswith("render")},
    "report": check_report,
    "sample": check_sample,
    "compare": check_compare,
    "compare gate": check_compare,
    "export csv": check_table,
    "export parquet": check_parquet,
    "export png": check_png,
    "export wsol": check_wsol,
    "export virelay": check_virelay,
    "localize": check_localize,
}


@pytest.mark.parametrize("name", CASES)
def test_verify_explains_samples_again(made: Callable[[str], Made], name: str) -> None:
    case = made(name)
    again = ["--recompute", 2, "--checkpoint", case.weights, "--data", case.data, "--device", "cpu"]
    ended = run_json("verify", case.run, *again, *case.classifier)
    assert (ended.code, ended.faults, ended.said["found"]) == (0, [], [])
    assert ended.said["recomputed"] == min(2, len(case.case.ids))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.readable and len(case.names) > 1])
def test_evaluate_counts_every_sample(made: Callable[[str], Made], name: str) -> None:
    case = made(name)
    ended = run_json("evaluate", case.weights, case.data, *case.classifier, *COMPUTE)
    assert (ended.code, ended.faults) == (0, [])
    assert (ended.said["samples"], ended.said["labelled"]) == (len(case.case.ids), len(case.case.ids))
    assert len(ended.said["classes"]) == len(case.case.names)


@pytest.mark.parametrize("command", ["evaluate", "explain"])
def test_where_nothing_can_be_read_the_work_stops_early_and_writes_nothing(
    made: Callable[[str], Made], tmp_path: Path, command: str
) -> None:
    case, out = made("nothing readable"), tmp_path / "run"
    ended = run_json(command, case.weights, case.data, *(["--out", out] if command == "explain" else []),
                     *case.classifier, *COMPUTE)  # fmt: skip
    assert (ended.code, ended.faults, out.exists()) == (75, [], False)
    assert "is the storage there?" in ended.err


@pytest.mark.parametrize("name", CASES)
def test_the_reader_gives_ids_and_samples_back(made: Callable[[str], Made], name: str) -> None:
    case = made(name)
    with batchcam.open_run(case.run) as run:
        assert run.sample_id[:].tolist() == [run[row].id for row in range(len(run))] == list(case.case.ids)
        assert [run.sample(each).index for each in case.case.ids] == list(range(len(case.case.ids)))
        assert run.class_names == case.case.names
        assert run.cams.shape[:2] == (len(case.case.ids), len(case.case.names))
        assert bool((run.status[:] & 1).all()) is not case.case.readable


@pytest.mark.parametrize("sample_id", IDS, ids=ascii)
def test_render_finds_a_sample_by_its_id(made: Callable[[str], Made], tmp_path: Path, sample_id: str) -> None:
    ended = run_json("render", made("ids of any kind").run, f"--sample={sample_id}", "--out", tmp_path / "one.png")
    assert (ended.code, ended.faults, ended.said["pictures"]) == (0, [], 1)


# training

TRAIN = ("--epochs", 1, "--arch", "shufflenet_v2_x0_5", "--preprocess", "stl10", "--image-size", 32, *COMPUTE)


@pytest.mark.parametrize(
    ("ids", "labels", "message"),
    [
        (("a",), ["ant"], "has one class; a classifier needs two"),
        (("a",), [1], "no image of the"),
        (("a", "b"), ["ant", "ant"], "has one class; a classifier needs two"),
        (("a", "b"), ["ant", "bee"], "no image to learn from could be read; one that could not: No such file"),
    ],
    ids=["one sample", "one sample of two classes", "one class", "nothing readable"],
)
def test_train_refuses_what_nothing_can_be_learned_from(
    tmp_path: Path, ids: tuple[str, ...], labels: list[object], message: str
) -> None:
    write_manifest(tmp_path / "samples.csv", ids, labels)
    ended = run_json("train", tmp_path / "samples.csv", "--out", tmp_path / "out" / "best.pth", *TRAIN)
    assert (ended.code, ended.faults) == (1, [])
    assert message in ended.err
    assert files_of(tmp_path / "out") == []


def test_train_refuses_a_dataset_with_one_readable_image(tmp_path: Path) -> None:
    write_manifest(tmp_path / "samples.csv", ("a", "b"), ["ant", "bee"])
    write_images(tmp_path / "images", 1)
    ended = run_json("train", tmp_path / "samples.csv", "--out", tmp_path / "best.pth", *TRAIN)
    assert (ended.code, ended.faults) == (1, [])
    assert "only one image to learn from could be read; one that could not: No such file" in ended.err


def test_train_learns_ids_of_any_kind(tmp_path: Path) -> None:
    write_manifest(tmp_path / "samples.csv", IDS, list(range(len(IDS))))
    write_images(tmp_path / "images", len(IDS))
    ended = run_json("train", tmp_path / "samples.csv", "--out", tmp_path / "best.pth", *TRAIN)
    assert (ended.code, ended.faults) == (0, [])
    ended = run_json("evaluate", tmp_path / "best.pth", tmp_path / "samples.csv", *COMPUTE)
    assert (ended.code, ended.faults, len(ended.said["classes"])) == (0, [], len(IDS))


# runs and datasets without samples

EMPTY = ("no shard landed", "empty folder", "no folder", "a file")


@pytest.fixture(scope="module")
def empty(made: Callable[[str], Made], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives what is no run, or one without samples."""
    root = tmp_path_factory.mktemp("empty")
    started = Path(shutil.copytree(made("one class").run, root / "no shard landed"))
    for name in ("manifest.json", "run.h5", "run.h5.sha256"):
        (started / name).unlink()
    for path in (started / "shards").iterdir():
        path.unlink()
    (root / "empty folder").mkdir()
    (root / "a file").write_text("not HDF5")
    return lambda name: root / name


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "export parquet"])
@pytest.mark.parametrize("name", EMPTY)
def test_a_command_says_that_there_is_nothing_and_writes_nothing(
    empty: Callable[[str], Path], tmp_path: Path, name: str, command: str
) -> None:
    run, out = empty(name), tmp_path / "out"
    out.mkdir()
    before = snapshot(run.parent)
    words = ["merge", run] if command == "merge" else COMMANDS[command](run, out)
    ended = run_json(*words)
    assert ended.faults == []
    assert snapshot(run.parent) == before
    assert files_of(out) == []
    if (name, command) == ("no shard landed", "info"):
        assert (ended.code, ended.said["complete"], ended.said["shards_landed"]) == (0, False, 0)
    elif (name, command) == ("no shard landed", "verify"):
        assert (ended.code, {f["kind"] for f in ended.said["found"]}) == (3, {"manifest-missing", "file-missing"})
    else:
        assert ended.code == 1
        assert ended.err.startswith(f"batchcam: error: {run}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "no class folders in it, and no images: check the path"),
        ("folder of empty class folders", "no images in its class folders: looked for "),
        ("header.csv", "no samples below the header line: add a line for each image"),
        ("nothing.csv", "no column named path: the header needs path[,label][,id], found nothing"),
        ("missing", "no such file or folder"),
    ],
)
@pytest.mark.parametrize("command", ["explain", "evaluate", "train"])
def test_a_dataset_without_samples_is_refused_and_nothing_written(
    made: Callable[[str], Made], tmp_path: Path, command: str, name: str, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder of empty class folders" / "ant").mkdir(parents=True)
    (tmp_path / "header.csv").write_text("path,label\n")
    (tmp_path / "nothing.csv").write_text("")
    case, before = made("one sample"), snapshot(tmp_path)
    words = {
        "explain": ["explain", case.weights, tmp_path / name, "--out", tmp_path / "out", *case.classifier, *COMPUTE],
        "evaluate": ["evaluate", case.weights, tmp_path / name, *case.classifier, *COMPUTE],
        "train": ["train", tmp_path / name, "--out", tmp_path / "out" / "best.pth", *TRAIN],
    }
    ended = run_json(*words[command])
    assert (ended.code, ended.faults) == (1, [])
    assert f"{tmp_path / name}: " in ended.err
    assert message in ended.err
    assert snapshot(tmp_path) == before


# the check itself


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.csv", "id\n=1+1\n", "'=1+1' starts a formula"),
        ("a.csv", "id\na;@x\n", "'@x' starts a formula"),
        ("a.csv", 'id\n"a\nb"\n', "lines within cells"),
        ("a.csv", "id\n\u202ea\n", "characters that do not print"),
        ("a.csv", "id,label\n1\n", "rows of several lengths"),
        ("a.html", "<p>\x1b[31m</p>", "stands in the page"),
        ("a.png", "no picture", "no picture"),
        ("aux.txt", "a", "a device's name on Windows"),
        ("a:b.txt", "a", "characters that not every system takes"),
        ("a .txt ", "a", "an end that not every program keeps"),
    ],
)
def test_the_check_of_files_can_fail(tmp_path: Path, name: str, content: str, fault: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert fault in " ".join(faults_of_files(tmp_path))


@pytest.mark.parametrize(
    ("ended", "fault"),
    [
        (Ended(0, 'a\x1b[31m\n{"exit_code": 0}\n', ""), "in the output"),
        (Ended(0, 'a\u202e\n{"exit_code": 0}\n', ""), "in the output"),
        (Ended(3, 'a\n{"exit_code": 0}\n', ""), "JSON says exit code 0, not 3"),
        (Ended(0, 'a\n{"exit_code": 0}\n', "a warning\n"), "on stderr"),
        (Ended(1, '{"exit_code": 1}\n', "batchcam: error: unexpected KeyError: 'x'\n"), "KeyError"),
        (Ended(1, '{"exit_code": 1}\n', "batchcam: error: a\nb\n"), "not one line"),
    ],
)
def test_the_check_of_output_can_fail(ended: Ended, fault: str) -> None:
    assert fault in " ".join(ended.faults)
