"""A network with one output, from the command line: two classes in the record, and in everything that reads it."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import batchcam
from batchcam.commands.explain import explain as explain_module
from batchcam.commands.explain.assembly import assemble
from batchcam.store.document import read_document
from tests.commands.test_every_command import COMMAND_NAMES, COMMANDS
from tests.helpers.damage import forget_list
from tests.helpers.networks import CHANNELS, GapNetwork, hook_count, seeded
from tests.helpers.outputs import run_json
from tests.helpers.synthetic import run_command

PREPROCESSING = ("--image-size", 24, "--mean", 0.5, "--std", 0.5)
COMPUTE = ("-j", 0, "--threads", 1, "--device", "cpu")
WEIGHT, BIAS = (0.0, 200.0, 0.0, 0.0), -9.0
"""Of a head that is negative for dark images and positive for light ones."""

LEVELS = (20, 50, 80, 180, 200, 220)  # of grey: three images are dark, three are light


class SqueezingNetwork(GapNetwork):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).squeeze()


def with_head(network: nn.Module) -> nn.Module:
    network.head = nn.Linear(CHANNELS, 1)
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor([WEIGHT]))
        network.head.bias.fill_(BIAS)
    return network


def linear() -> nn.Module:
    return with_head(seeded(GapNetwork))


def squeezed() -> nn.Module:
    return with_head(seeded(SqueezingNetwork))


def dropout() -> nn.Module:
    network = linear()
    network.head = nn.Sequential(nn.Dropout(0.5), network.head)
    return network


def sigmoid() -> nn.Module:
    network = squeezed()
    network.head = nn.Sequential(network.head, nn.Sigmoid())
    return network


def halved() -> nn.Module:
    """Return the same classifier with two outputs, by the formula of the record."""
    network = seeded(GapNetwork)
    network.head = nn.Linear(CHANNELS, 2)
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor([WEIGHT, WEIGHT]) / torch.tensor([[-2.0], [2.0]]))
        network.head.bias.copy_(torch.tensor([-BIAS / 2, BIAS / 2]))
    return network


NETWORKS = (linear, squeezed, dropout, sigmoid)


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(level - 12, level + 12, (24, 24, 3), dtype=np.uint8) for level in LEVELS]


def outputs() -> np.ndarray:
    """Return z of each image, float32 (n,), by the network alone."""
    pixels = torch.from_numpy(np.stack([each[..., ::-1].transpose(2, 0, 1) for each in images()]))
    with torch.no_grad():
        return linear()(pixels / 127.5 - 1)[:, 0].numpy()


class Files:
    """Weights and images, and the command lines about them."""

    def __init__(self, root: Path, names: Sequence[str] = ("dark", "light")) -> None:
        self.root, self.data, self.run = root, root / "data", root / "run"
        for number, image in enumerate(images()):
            folder = self.data / names[number * len(names) // len(LEVELS)]
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{number}.png"), image)
        self.use(linear)

    def use(self, factory: Any, **beside: Any) -> Files:
        """Let the checkpoint be that of another network, with what another program writes beside the weights."""
        self.factory = factory
        torch.save({"state_dict": factory().state_dict(), **beside}, self.weights)
        return self

    @property
    def weights(self) -> Path:
        return self.root / "weights.pth"

    def again(self) -> list[object]:
        """Return the options of a command that runs the network of a run again."""
        return ["--checkpoint", self.weights, "--data", self.data, *self.classifier(), "--device", "cpu"]

    def classifier(self) -> list[object]:
        return ["--model", f"{__name__}:{self.factory.__name__}", *PREPROCESSING]

    def explain(self, *more: object, data: Path | None = None) -> list[object]:
        data = data or self.data
        return ["explain", self.weights, data, "--out", self.run, *self.classifier(), *COMPUTE, *more]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize("factory", NETWORKS)
def test_record_holds_two_classes_whose_softmax_is_the_sigmoid(files: Files, factory: Any) -> None:
    files.use(factory)
    ended = run_json(*files.explain())
    assert (ended.code, ended.faults, ended.said["merged"]["totals"]["accuracy"]) == (0, [], 1)
    z = outputs()
    with batchcam.open_run(files.run) as run:
        assert run.class_names == ("dark", "light")
        np.testing.assert_allclose(run.logits[:], np.stack([-z / 2, z / 2], 1), rtol=1e-4)
        np.testing.assert_allclose(run.confidence[:], 1 / (1 + np.exp(-np.abs(z))), rtol=1e-4)
        recorded = 2 * run.logits[:, 1].astype(np.float64)
        np.testing.assert_allclose(run.confidence[:], 1 / (1 + np.exp(-np.abs(recorded))), rtol=0, atol=1e-7)
        assert np.abs(run.identity_residual[:]).max() < 1e-4
        assert run.prediction[:].tolist() == run.label[:].tolist() == (z > 0).tolist()
        assert run.plan.target_layer == "body"
    with h5py.File(files.run / "run.h5") as file:
        np.testing.assert_array_equal(file["classifier/weight"], np.outer([-0.5, 0.5], WEIGHT))
        np.testing.assert_array_equal(file["classifier/bias"], [-BIAS / 2, BIAS / 2])


def test_verify_faithfulness_and_evaluate_see_the_network_as_the_run_does(files: Files) -> None:
    assert run_json(*files.use(sigmoid).explain()).code == 0
    verified = run_json("verify", files.run, "--recompute", len(LEVELS), *files.again())
    assert (verified.code, verified.faults, verified.said["recomputed"]) == (0, [], len(LEVELS))
    judged = run_json("faithfulness", files.run, "--steps", 4, *files.again())
    assert (judged.code, judged.faults, judged.said["judged"]) == (0, [], len(LEVELS))
    assert judged.said["probability"] == pytest.approx(float((1 / (1 + np.exp(-np.abs(outputs())))).mean()), rel=1e-4)
    evaluated = run_json("evaluate", files.weights, files.data, *files.classifier(), *COMPUTE)
    assert (evaluated.code, evaluated.faults, evaluated.said["accuracy"]) == (0, [], 1)


DIFFERING = {
    *("annotations", "bytes", "checkpoint", "manifest_sha256", "new", "new_run_id", "notes", "old", "old_run_id"),
    *("origin", "out", "plan", "run", "run_id", "tasks"),
}
"""What JSON says of where a run lies, how it was asked for, and how large its files are."""


def explained_pair(root: Path, method: str) -> tuple[Files, Files]:
    """Return runs of one output and of its two halves."""
    made = Files(root / "one").use(linear), Files(root / "two").use(halved)
    for each in made:
        assert run_json(*each.explain("--method", method)).code == 0
    return made


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Files]:
    made = explained_pair(tmp_path_factory.mktemp("pair"), "cam")
    for each in made:
        boxes = "".join(f"{path.relative_to(each.data)},4,4,16,16\n" for path in sorted(each.data.rglob("*.png")))
        (each.root / "boxes.csv").write_text(f"sample_id,x0,y0,x1,y1\n{boxes}")
    return made


ON_THE_NETWORK: dict[str, Callable[[Files], list[object]]] = {
    "evaluate": lambda files: ["evaluate", files.weights, files.data, *files.classifier(), *COMPUTE],
    "faithfulness": lambda files: ["faithfulness", files.run, "--steps", 4, *files.again()],
    "verify --recompute": lambda files: ["verify", files.run, "--recompute", len(LEVELS), *files.again()],
}


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Return the values in a JSON object by where they stand, but for those that differ between any two runs."""
    if isinstance(value, dict):
        return {p: v for k in value.keys() - DIFFERING for p, v in leaves(value[k], f"{path}/{k}").items()}
    if isinstance(value, list):
        return {p: v for i, each in enumerate(value) for p, v in leaves(each, f"{path}/{i}").items()}
    return {path: value}


@pytest.mark.parametrize("command", [*COMMAND_NAMES, *ON_THE_NETWORK])
def test_every_command_says_of_one_output_what_it_says_of_its_two_halves(
    pair: tuple[Files, Files], tmp_path: Path, command: str
) -> None:
    said = []
    for files in pair:
        out = tmp_path / files.root.name
        out.mkdir()
        words = COMMANDS[command](files.run, out) if command in COMMANDS else ON_THE_NETWORK[command](files)
        ended = run_json(*words)
        assert (ended.code, ended.faults) == (0, [])
        said.append(leaves(ended.said))
    numbers = [{p: v for p, v in each.items() if isinstance(v, float)} for each in said]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-4, abs=1e-6)
    others = [{p: v for p, v in each.items() if not isinstance(v, float)} for each in said]
    assert others[0] == others[1]


@pytest.mark.parametrize("method", ["cam", "gradcam"])
def test_compare_finds_one_output_and_its_two_halves_alike(tmp_path: Path, method: str) -> None:
    one, two = explained_pair(tmp_path, method)
    totals = run_json("compare", one.run, two.run).said["totals"]
    assert (totals["compared"], totals["flips"], totals["maps"]) == (len(LEVELS), 0, len(LEVELS))
    assert (totals["spearman"], totals["cosine"]) == pytest.approx((1, 1), abs=1e-6)
    assert totals["logit_change"] == pytest.approx(0, abs=1e-5)


def test_what_was_made_of_the_output_is_told_and_stands_in_the_plan(files: Files) -> None:
    code, _, err = run_command(*files.use(sigmoid).explain())
    told = [
        "the network ends in a sigmoid: the logits are what enters it, from 'head.0'",
        "one output z: explained as two classes, dark with logit -z/2 and light with logit z/2",
    ]
    assert code == 0
    assert set(told) <= {line.removeprefix("batchcam: ") for line in err.splitlines()}
    assert set(told) <= set(read_document(files.run / "run.json")["origin"]["remarks"])
    assert set(told) <= set(run_json("info", files.run).said["notes"])


@pytest.mark.parametrize("options", [("--method", "gradcam"), ("--control", "head")], ids=str)
def test_methods_and_controls_take_it_as_two_classes(files: Files, options: tuple[str, str]) -> None:
    assert run_json(*files.use(dropout).explain(*options)).code == 0
    verified = run_json("verify", files.run, "--recompute", 2, *files.again())
    assert (verified.code, verified.faults) == (0, [])
    with batchcam.open_run(files.run) as run:
        np.testing.assert_array_equal(run.logits[:, 0], -run.logits[:, 1])


@pytest.mark.parametrize("labels", ["01", ("no", "yes"), ""], ids=["0 and 1", "names", "none"])
def test_labels_of_a_manifest_are_indices_or_the_two_names(files: Files, labels: Sequence[str]) -> None:
    paths = sorted(files.data.rglob("*.png"))
    lines = [f"{path},{labels[i // 3] if labels else ''}" for i, path in enumerate(paths)]
    (files.root / "list.csv").write_text("\n".join(("path,label", *lines)))
    (files.root / "names.txt").write_text("no\nyes\n")
    names = ("--class-names", files.root / "names.txt") if "no" in labels else ()
    ended = run_json(*files.explain(*names, data=files.root / "list.csv"))
    assert (ended.code, ended.faults) == (0, [])
    with batchcam.open_run(files.run) as run:
        assert run.class_names == (("no", "yes") if names else ("0", "1"))
        assert run.label[:].tolist() == ([0, 0, 0, 1, 1, 1] if labels else [-1] * 6)
        assert run.prediction[:].tolist() == [0, 0, 0, 1, 1, 1]


def write_columns(files: Files, *columns: str) -> Path:
    """Write a list with columns of 0 and 1, for dark and light images or for light ones alone."""
    paths = sorted(files.data.rglob("*.png"))
    rows = [(path, *(int(path.parent.name == name) for name in columns)) for path in paths]
    with (files.root / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", *columns), *rows])
    (files.root / "names.txt").write_text("dark\nlight\n")
    return files.root / "list.csv"


@pytest.mark.parametrize(
    ("columns", "options"),
    [(("light",), ("--columns", "label=light")), (("dark", "light"), ("--problem-type", "single-label"))],
    ids=["one column", "a column a class"],
)
def test_columns_of_0_and_1_are_labels_where_it_is_said_and_stay_so_when_gone_on_with(
    files: Files, columns: tuple[str, ...], options: tuple[str, str]
) -> None:
    words = files.explain("--class-names", files.root / "names.txt", *options, data=write_columns(files, *columns))
    for _ in range(2):
        code, _, err = run_command(*words)
        assert (code, "no column is named label" in err) == (0, False)
    with batchcam.open_run(files.run) as run:
        assert run.class_names == ("dark", "light")
        assert run.label[:].tolist() == run.prediction[:].tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "said"), [(("--findings", "light"), "options ask for"), ((), "has")], ids=["asked for", "lists"]
)
def test_several_labels_a_sample_are_refused_with_the_way_out(
    files: Files, options: tuple[str, ...], said: str
) -> None:
    data = write_columns(files, "light")
    if not options:
        data.write_text(f"path,label\n{next(files.data.rglob('*.png'))},dark|light\n")
    ended = run_json(*files.explain("--class-names", files.root / "names.txt", *options, data=data))
    assert (ended.code, ended.faults) == (2, [])
    assert f"list.csv: {said} several labels a sample; the network's one output is for one of two classes" in ended.err


def test_folders_0_and_1_are_the_classes(tmp_path: Path) -> None:
    ended = run_json(*Files(tmp_path, ("0", "1")).explain())
    assert (ended.code, ended.said["merged"]["totals"]["accuracy"]) == (0, 1)


def test_two_names_beside_the_weights_are_the_classes(files: Files) -> None:
    assert run_json(*files.use(linear, class_to_idx={"light": 0, "dark": 1}).explain()).code == 0
    with batchcam.open_run(files.run) as run:
        assert run.class_names == ("light", "dark")
        assert run.label[:].tolist() == [1, 1, 1, 0, 0, 0]


def test_one_name_beside_the_weights_is_passed_over_and_told(files: Files) -> None:
    code, _, err = run_command(*files.use(linear, classes=["light"]).explain())
    assert code == 0
    assert "class names: the checkpoint's classes names 1, not 2: passed over" in err


BOTH = "(one output is two classes: name both, first the one for which it is negative)"


@pytest.mark.parametrize("names", [("light",), ("dark", "grey", "light")], ids=len)
def test_class_names_that_are_not_two_are_refused(files: Files, names: tuple[str, ...]) -> None:
    (files.root / "names.txt").write_text("\n".join(names))
    ended = run_json(*files.explain("--class-names", files.root / "names.txt"))
    assert (ended.code, ended.faults) == (1, [])
    assert f"for 2 classes {BOTH}" in ended.err


@pytest.mark.parametrize("names", [("light",), ("dark", "grey", "light")], ids=len)
def test_folders_that_are_not_two_need_class_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    ended = run_json(*Files(tmp_path, names).explain())
    assert (ended.code, ended.faults) == (1, [])
    assert f"the checkpoint 2 {BOTH}" in ended.err


def test_network_in_memory_is_left_with_its_one_output(files: Files) -> None:
    network = linear()
    hooks = hook_count(network)
    summary = batchcam.explain(network, str(files.data), files.run, image_size="24", mean="0.5", std="0.5",
                               workers=0, threads=1, device="cpu", quiet=True)  # fmt: skip
    assert summary.merged.totals["accuracy"] == 1
    assert (network(torch.zeros(2, 3, 24, 24)).shape, hook_count(network)) == ((2, 1), hooks)


def test_run_of_one_class_by_an_older_version_is_not_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = Files(tmp_path / "one", ("all",))
    with monkeypatch.context() as patch:
        patch.setattr(explain_module, "assemble", functools.partial(assemble, fallback_names=("all",)))
        assert run_json(*one.explain()).code == 0
    forget_list(one.run)
    (one.root / "names.txt").write_text("all\nnone\n")
    ended = run_json(*one.explain("--class-names", one.root / "names.txt"))
    assert (ended.code, ended.faults) == (1, [])
    assert "belongs to another run: class names (['all'] there, ['all', 'none'] here)" in ended.err
