"""`discover`: changed images against plain loops, networks whose cue is known, what is refused and left out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from batchcam.commands.discover import trials
from batchcam.commands.discover.config import DiscoverConfig
from batchcam.commands.discover.discover import discover
from batchcam.commands.discover.regions import overlap, peak_windows, pixels, window_apart, window_size
from batchcam.commands.discover.summary import DiscoverSummary
from batchcam.commands.discover.text import discover_text
from batchcam.commands.discover.trials import BORDER, TRIALS, draw
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import RunError
from tests.helpers.networks import GapNetwork, seeded
from tests.helpers.wellformed import Page

SIZE = 32
CELL = 8
MEAN, STD = 0.5, 0.25


class RedCells(nn.Module):
    """Two classes: the first one's logit is how red cells of 8 x 8 pixels are beyond a half, the other's is 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 1, CELL, stride=CELL), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            red = torch.tensor([1.0, -0.5, -0.5])[None, :, None, None]  # of black 0, of pure red 4
            self.body[0].weight.copy_(red.expand(1, 3, CELL, CELL) / CELL**2)
            self.body[0].bias.fill_(-self.least())
            self.head.weight.copy_(torch.tensor([[16.0], [0.0]]))
            self.head.bias.copy_(torch.tensor([0.0, 0.5]))

    @staticmethod
    def least() -> float:
        return 2.0

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.body(images)).flatten(1))


class RedEdges(RedCells):
    """The same of cells that are a little red, and half of them must be."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([0.0, 6.0]))

    @staticmethod
    def least() -> float:
        return 0.5


class OneCell(RedCells):
    """A network whose maps have one cell."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 1, SIZE), nn.ReLU())


@dataclasses.dataclass(frozen=True)
class Case:
    run: Path
    classifier: Classifier
    data: Path

    def found(self, **options: Any) -> DiscoverSummary:
        settings = {"samples": 100, "threads": 1, "device": "cpu", "quiet": True, **options}
        return discover(DiscoverConfig(self.run, self.classifier, str(self.data), **settings))


Draw = Callable[[np.random.Generator, str], np.ndarray]


def make(folder: Path, network: type[nn.Module], names: tuple[str, ...], draw_image: Draw, each: int = 30) -> Case:
    """Explain `each` images of each class."""
    rng = np.random.default_rng(0)
    for name in names:
        (folder / "images" / name).mkdir(parents=True)
        for number in range(each):
            cv2.imwrite(str(folder / "images" / name / f"{number:02d}.png"), draw_image(rng, name)[..., ::-1])
    built = seeded(network) if issubclass(network, GapNetwork) else network()
    if issubclass(network, GapNetwork):  # random weights say one class of all images
        images = [cv2.imread(str(path))[..., ::-1] / 255 for path in folder.glob("images/*/*.png")]
        with torch.no_grad():
            logits = built(torch.tensor((np.array(images) - MEAN) / STD).permute(0, 3, 1, 2).float())
            built.head.bias.sub_(logits.mean(0))
    torch.save(built.state_dict(), folder / "model.pth")
    classifier = Classifier(
        folder / "model.pth", model=f"{network.__module__}:{network.__name__}", image_size=str(SIZE),
        mean=str(MEAN), std=str(STD),
    )  # fmt: skip
    compute = Compute(batch_size=16, workers=0, threads=1, device="cpu")
    explain(ExplainConfig(classifier, str(folder / "images"), folder / "run", compute, quiet=True))
    return Case(folder / "run", classifier, folder / "images")


def noise(rng: np.random.Generator, name: str) -> np.ndarray:
    return rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)


def tagged(rng: np.random.Generator, name: str) -> np.ndarray:
    """Return a grey image; a red one has a red cell anywhere."""
    image = np.full((SIZE, SIZE, 3), rng.integers(40, 200), np.uint8)
    if name.startswith("red"):
        y, x = rng.integers(SIZE // CELL, size=2) * CELL
        image[y : y + CELL, x : x + CELL] = (255, 0, 0)
    return image


def in_corner(rng: np.random.Generator, name: str) -> np.ndarray:
    image = np.full((SIZE, SIZE, 3), rng.integers(40, 200), np.uint8)
    if name.startswith("red"):
        image[:CELL, :CELL] = (255, 0, 0)
    return image


def framed(rng: np.random.Generator, name: str) -> np.ndarray:
    image = np.full((SIZE, SIZE, 3), rng.integers(40, 200), np.uint8)
    if name.startswith("red"):
        inner = image[2:-2, 2:-2].copy()
        image[:] = (255, 0, 0)
        image[2:-2, 2:-2] = inner
    return image


def tinted(rng: np.random.Generator, name: str) -> np.ndarray:
    noisy = rng.integers(-9, 9, (SIZE, SIZE, 3)) + ((170, 80, 80) if name.startswith("red") else (120, 120, 120))
    return noisy.astype(np.uint8)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Images of noise, and a network with random weights."""
    return make(tmp_path_factory.mktemp("noisy"), GapNetwork, ("ant", "bee", "cat"), noise, 8)


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make(tmp_path_factory.mktemp("red"), RedCells, ("red<b>", "still"), tagged)


def test_answers_are_those_of_images_changed_one_by_one(noisy: Case, tmp_path: Path) -> None:
    noisy.found(out=tmp_path)
    network, edge = GapNetwork(), round(BORDER * SIZE)
    network.load_state_dict(torch.load(noisy.run.parent / "model.pth", weights_only=True))
    network.eval().double()
    ids = [path.relative_to(noisy.data).as_posix() for path in sorted(noisy.data.glob("*/*.png"))]
    images = [(cv2.imread(str(noisy.data / name))[..., ::-1].astype(float) / 255 - MEAN) / STD for name in ids]
    middle = pixels(np.array([3, 3]), (8, 8), (SIZE, SIZE))
    compared = 0
    with h5py.File(tmp_path / "discover.h5") as file:
        columns = {name: file[name][:] for name in file}
    for row in np.flatnonzero(columns["left_out"] == b""):
        image, target = images[columns["sample_index"][row]], images[columns["partner"][row]]
        peak, moved, other = ((slice(a, b), slice(c, d)) for a, b, c, d in columns["region"][row].tolist())
        changed = {}
        for trial, source, place in (
            ("peak", peak, peak), ("moved", peak, moved), ("random", other, other), ("centre", middle, middle)
        ):  # fmt: skip
            changed[trial] = target.copy()
            changed[trial][place] = image[source]
        changed["border"] = image.copy()
        changed["border"][edge:-edge, edge:-edge] = target[edge:-edge, edge:-edge]
        changed["kept"] = np.broadcast_to(image.mean((0, 1)), image.shape).copy()
        changed["kept"][peak] = image[peak]
        if columns["fill"][row] == b"mean":
            for trial, region in (("removed", peak), ("random_removed", other)):
                changed[trial] = image.copy()
                changed[trial][region] = image.mean((0, 1))
        for trial, picture in changed.items():
            with torch.no_grad():
                logits = network(torch.tensor(picture.transpose(2, 0, 1))[None])[0]
            best = logits.topk(2).values
            if best[0] - best[1] > 1e-4:
                told = logits.argmax() == columns["prediction"][row]
                assert columns["holds"][row, TRIALS.index(trial)] == told, (trial, row)
                compared += 1
    assert compared > 60


def test_the_network_is_asked_at_most_eight_times_a_sample(noisy: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, real = [], trials.forward

    def counted(network: nn.Module, images: Tensor) -> Tensor:
        asked.append(len(images))
        return real(network, images)

    monkeypatch.setattr(trials, "forward", counted)
    summary = noisy.found()
    assert 0 < sum(asked) <= 8 * summary.judged
    assert max(asked) <= 16  # of the run's batches


def test_the_same_seed_gives_the_same_files(noisy: Case, tmp_path: Path) -> None:
    for name in ("one", "two"):
        noisy.found(out=tmp_path / name)
    for name in ("discover.h5", "discover.html", "discover.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_sample_is_left_without_partners_because_of_the_size_of_groups(
    noisy: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = noisy.found()
    monkeypatch.setattr(trials, "GROUP", whole.drawn - 1)
    assert noisy.found().left_out == whole.left_out


def test_a_tag_anywhere_is_portable_evidence_of_its_class_alone(red: Case, tmp_path: Path) -> None:
    summary = red.found(out=tmp_path, max_portable=50)
    assert summary.claims == {"red<b>": "portable evidence"}
    verdict = summary.classes[0]
    assert (verdict.name, verdict.carrier, verdict.carried.share, verdict.carried.control) == ("red<b>", "peak", 1, 0)
    assert (verdict.needed.share, verdict.needed.control, verdict.holds["kept"]) == (1, 0, 1)
    assert (summary.gate.passed, summary.gate.worst, summary.gate.value, summary.exit_code) == (False, "red<b>", 100, 3)
    assert red.found(max_portable=100).exit_code == 0
    assert "red<b>: portable evidence: the region around the map's peak carries it into 100%" in discover_text(summary)
    page = Page((tmp_path / "discover.html").read_text())
    assert page.wrong == []
    assert "red<b> : portable evidence" in page.text
    said = json.loads((tmp_path / "discover.json").read_text())
    assert (said["claims"], set(said["files"])) == (summary.claims, {"discover.h5", "discover.html"})


@pytest.mark.parametrize(
    ("network", "draw_image", "claims", "carrier"),
    [
        (RedCells, in_corner, {"red": "both"}, "peak"),
        (RedEdges, framed, {"red": "portable evidence"}, "border"),
        (RedEdges, tinted, {}, None),
    ],
    ids=["corner", "frame", "tint"],
)
def test_cues_are_told_by_what_they_do(
    tmp_path: Path, network: type[nn.Module], draw_image: Draw, claims: dict[str, str], carrier: str | None
) -> None:
    summary = make(tmp_path, network, ("red", "still"), draw_image).found()
    assert summary.claims == claims
    assert "a colour cast" in " ".join(summary.not_seen)
    if carrier:
        assert summary.classes[0].carrier == carrier


def test_images_that_changed_or_are_gone_are_left_out_and_findings(tmp_path: Path) -> None:
    case = make(tmp_path, GapNetwork, ("ant", "bee", "cat"), noise, 8)
    first, second, *_ = sorted(case.data.glob("*/*.png"))
    size = first.stat().st_size
    first.write_bytes(first.read_bytes()[:-1] + b"\0")
    second.write_bytes(bytes(second.stat().st_size))
    assert first.stat().st_size == size  # the fingerprint holds
    summary = case.found()
    assert (summary.left_out["another image now"], summary.left_out["unreadable now"]) == (1, 1)
    assert (summary.findings, summary.exit_code) == (2, 3)


@pytest.mark.parametrize(("samples", "advice"), [(12, ": draw more by --samples"), (100, "")])
def test_too_few_samples_are_no_clean_result(tmp_path: Path, samples: int, advice: str) -> None:
    summary = make(tmp_path, GapNetwork, ("ant", "bee", "cat"), noise, 6).found(samples=samples, out=tmp_path / "out")
    few = len(summary.classes)
    assert f"{few} of {few} classes have too few samples to be judged{advice}" in summary.notes
    assert "nothing is judged: too few samples" in discover_text(summary)
    assert "no region that carries a class" not in discover_text(summary)
    page = (tmp_path / "out" / "discover.html").read_text()
    assert page.count("Nothing is judged: too few samples.") == 1
    assert 'class="state good"' not in page


def test_a_gate_on_all_samples_alone_does_not_pass(noisy: Case) -> None:
    summary = noisy.found(samples=30, max_portable=100)
    assert summary.overall.carried is not None
    assert all(v.carried is None for v in summary.classes)
    assert (summary.gate.value, summary.gate.passed, summary.exit_code) == (None, False, 3)
    assert "--max-portable: NOT JUDGED" in discover_text(summary)


def test_one_sample_has_no_image_to_be_pasted_into(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no sample of 1 can be judged: .*: draw more by --samples"):
        make(tmp_path, GapNetwork, ("ant", "bee", "cat"), noise, 2).found(samples=1)


def test_maps_of_one_cell_are_refused(tmp_path: Path) -> None:
    case = make(tmp_path, OneCell, ("ant", "bee"), noise, 2)
    with pytest.raises(RunError, match="maps of 1x1 cells tell no place"):
        case.found()


def test_classes_are_drawn_alike_and_none_twice() -> None:
    predictions = np.repeat([0, 1, 2, -1], [500, 40, 7, 30])
    rows = draw(predictions, 100, 3)
    assert len(set(rows.tolist())) == 100
    assert np.bincount(predictions[rows]).tolist() in ([53, 40, 7], [54, 39, 7])
    assert len(draw(predictions, 10**6, 0)) == 547


def test_windows_hold_the_peak_and_of_those_the_most_evidence() -> None:
    rng = np.random.default_rng(1)
    cams = rng.standard_normal((20, 7, 9)).astype(np.float32)
    size = window_size((7, 9))
    peaks, windows = peak_windows(cams, size)
    for cam, peak, window in zip(cams, peaks.tolist(), windows.tolist(), strict=True):
        assert cam[tuple(peak)] == cam.max()
        sums = {
            (y, x): np.maximum(cam[y : y + size[0], x : x + size[1]], 0).sum()
            for y in range(8 - size[0]) for x in range(10 - size[1])
            if y <= peak[0] < y + size[0] and x <= peak[1] < x + size[1]
        }  # fmt: skip
        assert sums[tuple(window)] == pytest.approx(max(sums.values()))
        assert not overlap(window_apart(rng, np.array(window), (7, 9), size), np.array(window), size)


def test_regions_of_neighbouring_cells_meet_without_a_gap() -> None:
    rows = [pixels(np.array([y, 0]), (6, 4), (50, 33))[0] for y in (0, 2, 4)]
    assert [(r.start, r.stop) for r in rows] == [(0, 17), (17, 33), (33, 50)]
