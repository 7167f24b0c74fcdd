"""Exchanged classes: told from predictions and last layers; and small networks, trained, trained on, and with a head
whose classes were swapped, each explained for real."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchcam.commands.compare.compare import CompareSummary, compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.exchanges import cycles, followers
from batchcam.commands.compare.text import compare_text
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.config.shared import Classifier, Compute
from batchcam.network.checkpoint import pack_checkpoint
from batchcam.record.metrics import PairCounts
from batchcam.store.document import read_document
from tests.helpers.networks import GapNetwork

CLASSES = ("blue", "green", "red")
PER_CLASS = 20
SIDE = 32
PREPROCESSING = {
    "resize": [SIDE],
    "image_size": [SIDE, SIDE],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bilinear",
}
SWAPPED = [1, 0, 2]
CYCLED = [1, 2, 0]


def predicted(moves: dict[tuple[int, int], int], class_count: int) -> PairCounts:
    """So many samples for each (old, new) predicted class."""
    counts = PairCounts(class_count)
    for (old, new), count in moves.items():
        counts.add(np.full(count, old), np.full(count, new))
    return counts


@pytest.mark.parametrize(
    ("moved", "stayed", "told"),
    [(7, 0, True), (6, 0, False), (28, 12, True), (27, 13, False), (540, 460, True), (539, 461, False)],
)
def test_a_class_follows_another_when_clearly_more_than_half_of_its_samples_do(
    moved: int, stayed: int, told: bool
) -> None:
    moves = {(0, 2): moved, (0, 0): stayed, (1, 1): 1000}
    assert followers(predicted(moves, 4)).tolist() == [2 if told else -1, 1, -1, -1]
    back = {(new, old): count for (old, new), count in moves.items()}
    assert followers(predicted(back, 4)).tolist() == [-1, 1, 0 if told else -1, -1]


def test_a_class_that_two_others_fall_into_is_followed_by_neither() -> None:
    assert followers(predicted({(0, 2): 50, (1, 2): 50, (2, 2): 50}, 3)).tolist() == [-1, -1, -1]


def test_no_samples_tell_nothing() -> None:
    assert followers(predicted({}, 3)).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("seed", range(5))
def test_cycles_of_a_permutation_make_it_again(seed: int) -> None:
    permutation = np.random.default_rng(seed).permutation(12)
    again = np.arange(12)
    for cycle in cycles(permutation):
        assert len(cycle) > 1
        assert cycle[0] == min(cycle)
        for before, after in zip(cycle, cycle[1:] + cycle[:1], strict=True):
            again[before] = after
    assert again.tolist() == permutation.tolist()


def test_a_chain_that_does_not_close_is_no_cycle() -> None:
    assert cycles(np.array([1, 2, -1, 4, 3])) == [(3, 4)]


def draw_images(root: Path) -> Path:
    """Write images of one coloured square each, on grey noise."""
    rng = np.random.default_rng(0)
    for index, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            image = rng.integers(90, 160, (SIDE, SIDE, 3), dtype=np.uint8)
            y, x = rng.integers(0, SIDE - 12, 2)
            image[y : y + 12, x : x + 12, index] = 250  # OpenCV's order: blue, green, red
            cv2.imwrite(str(root / name / f"{number:03d}.png"), image)
    return root


def load_images(root: Path) -> tuple[Tensor, Tensor]:
    """Return all images, as the preprocessing above has them, and their labels, in the order of the sample ids."""
    paths = sorted(root.glob("*/*.png"))
    pixels = np.stack([cv2.imread(str(p))[..., ::-1] for p in paths]).transpose(0, 3, 1, 2)
    labels = torch.tensor([CLASSES.index(p.parent.name) for p in paths])
    return torch.from_numpy(pixels.astype(np.float32) / 255 * 2 - 1), labels


def build() -> nn.Module:
    return GapNetwork()


def learn(network: nn.Module, images: Tensor, labels: Tensor, steps: int) -> nn.Module:
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network.eval()


def reordered(network: nn.Module, order: list[int]) -> nn.Module:
    """Return a network that has class `order[k]`'s row of the last layer as class k's."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.head.weight.copy_(network.head.weight[order])
        other.head.bias.copy_(network.head.bias[order])
    return other


@dataclasses.dataclass(frozen=True)
class Case:
    """A trained network, what became of it, the images, and both networks' runs over them."""

    networks: dict[str, nn.Module]
    runs: dict[str, Path]
    images: Tensor


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("retrained")
    images, labels = load_images(draw_images(root / "images"))
    torch.manual_seed(3)
    first = learn(GapNetwork(), images, labels, 150)
    torch.manual_seed(5)
    networks = {
        "first": first,
        "further": learn(copy.deepcopy(first), images, labels, 20),
        "swapped": reordered(first, SWAPPED),
        "cycled": reordered(first, CYCLED),
        "retrained on swapped labels": learn(GapNetwork(), images, torch.tensor(SWAPPED)[labels], 150),
    }
    runs = {}
    for name, network in networks.items():
        path = root / f"{name}.pth"
        path.write_bytes(pack_checkpoint(network.state_dict(), "", CLASSES, PREPROCESSING, {}))
        classifier = Classifier(path, model=f"{__name__}:build")
        runs[name] = root / "runs" / name
        compute = Compute(batch_size=20, workers=0, threads=1, device="cpu")
        explain(ExplainConfig(classifier, str(root / "images"), runs[name], compute, shard_size=25, quiet=True))
    return Case(networks, runs, images)


@pytest.fixture
def compared(case: Case) -> Callable[..., CompareSummary]:
    def compare_with_first(name: str, **options: object) -> CompareSummary:
        return compare(CompareConfig(case.runs["first"], case.runs[name], quiet=True, **options))

    return compare_with_first


def changed_predictions(case: Case, name: str) -> int:
    """Samples whose predicted class differs, by the networks themselves."""
    with torch.inference_mode():
        old, new = (case.networks[n](case.images).argmax(1) for n in ("first", name))
    return int((old != new).sum())


def test_the_network_of_these_tests_has_learned(case: Case, compared: Callable[..., CompareSummary]) -> None:
    assert compared("first").totals.old_accuracy > 0.9


def test_a_checkpoint_compared_with_itself_moves_nothing_and_passes_every_gate(
    compared: Callable[..., CompareSummary],
) -> None:
    summary = compared("first", max_flips=0, max_accuracy_drop=0, min_cam_similarity=1)
    t = summary.totals
    assert (t.flips, t.accuracy_drop, t.logit_change, t.spearman, t.cosine, t.peak_shift) == (0, 0, 0, 1, 1, 0)
    assert (summary.findings, summary.exchanges, summary.movers) == (0, [], [])


def test_a_checkpoint_trained_further_moves_a_little_and_exchanges_nothing(
    case: Case, compared: Callable[..., CompareSummary]
) -> None:
    summary = compared("further", max_flips=5, min_cam_similarity=0.8)
    assert summary.totals.flips == changed_predictions(case, "further")
    assert (summary.findings, summary.exchanges) == (0, [])
    assert 0.8 < summary.totals.spearman < 1
    assert "swapped" not in compare_text(summary)


def test_two_classes_swapped_in_the_head_are_named(
    case: Case, compared: Callable[..., CompareSummary], tmp_path: Path
) -> None:
    summary = compared("swapped", max_flips=5, out=tmp_path / "out")
    (exchange,) = summary.exchanges
    assert exchange.classes == ("blue", "green")
    assert exchange.followed == exchange.samples == summary.totals.flips == changed_predictions(case, "swapped")
    assert (exchange.spearman, exchange.same_weights) == (1, True)
    assert exchange.spearman_as_named < 0.5
    assert summary.findings == 1
    line = next(each for each in compare_text(summary).splitlines() if each.startswith("exchanged"))
    assert "blue and green look swapped" in line
    assert f"{exchange.followed} of {exchange.samples}" in line
    assert read_document(tmp_path / "out" / "compare.json")["exchanges"] == [
        json.loads(json.dumps(dataclasses.asdict(exchange)))
    ]


def test_three_classes_moved_in_a_circle_are_named_in_its_order(
    case: Case, compared: Callable[..., CompareSummary]
) -> None:
    summary = compared("cycled")
    (exchange,) = summary.exchanges
    assert exchange.classes == ("blue", "red", "green")  # the new head's red has the old one's blue row, and so on
    assert (exchange.followed, exchange.samples, exchange.spearman) == (60, 60, 1)
    assert "3 classes look permuted, blue → red → green → blue" in compare_text(summary)


def test_classes_swapped_in_the_labels_of_another_training_are_named_without_any_weight_in_common(
    case: Case, compared: Callable[..., CompareSummary]
) -> None:
    (exchange,) = compared("retrained on swapped labels").exchanges
    assert exchange.classes == ("blue", "green")
    assert not exchange.same_weights
    assert exchange.followed > 0.8 * exchange.samples
    assert exchange.spearman > exchange.spearman_as_named + 0.5


def test_names_swapped_beside_the_same_weights_are_named_too(case: Case, tmp_path: Path) -> None:
    renamed = tuple(CLASSES[k] for k in SWAPPED)
    path = tmp_path / "renamed.pth"
    path.write_bytes(pack_checkpoint(case.networks["first"].state_dict(), "", renamed, PREPROCESSING, {}))
    classifier = Classifier(path, model=f"{__name__}:build")
    compute = Compute(batch_size=20, workers=0, threads=1, device="cpu")
    images = case.runs["first"].parent.parent / "images"
    explain(ExplainConfig(classifier, str(images), tmp_path / "run", compute, cams="predicted", quiet=True))
    (exchange,) = compare(CompareConfig(case.runs["first"], tmp_path / "run", quiet=True)).exchanges
    assert exchange.classes == ("blue", "green")
    assert (exchange.followed, exchange.spearman, exchange.same_weights) == (exchange.samples, 1, True)
    assert exchange.spearman_as_named is None  # the run stores the maps of predicted classes alone
