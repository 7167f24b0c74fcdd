"""`faithfulness`: curves against plain loops in float64, networks whose pixels are known, refusals."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.faithfulness.config import SUBSTRATE_NAMES, FaithfulnessConfig
from batchcam.commands.faithfulness.curves import CURVES, ORDERS, Probe, follow
from batchcam.commands.faithfulness.faithfulness import FaithfulnessSummary, draw
from batchcam.commands.faithfulness.faithfulness import faithfulness as command
from batchcam.commands.faithfulness.files import PAIRS
from batchcam.commands.faithfulness.text import faithfulness_text
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import CheckpointError, ConfigError, DatasetError, RunError
from batchcam.maps import cam
from batchcam.maps import imputation as faithfulness
from batchcam.store import landing
from batchcam.store.document import read_document
from batchcam.store.opening import open_run
from tests.helpers.networks import GapNetwork, seeded

SIZE = 16
MEAN, STD = 0.5, 0.25
HEIGHT = 10
STEPS = 5
CLASSES = ("ant", "bee", "cat")


class PatchNetwork(nn.Module):
    """Two classes; the logit of the first one depends on bright cells of 8 x 8 pixels only, that of the other is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 1, 8, stride=8), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.body[0].weight.fill_(1 / 192)
            self.body[0].bias.fill_(0.5)  # black is -2 and white 2 of the normalised input
            self.head.weight.copy_(torch.tensor([[40.0], [0.0]]))
            self.head.bias.fill_(0)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.body(images)).flatten(1))


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def make_run(
    folder: Path, network: str, images: Path, size: int, fit: str | None = None, **options: Any
) -> tuple[Path, Classifier]:
    checkpoint = folder / "model.pth"
    module, name = network.split(":")
    torch.save(sharp(globals()[name]).state_dict(), checkpoint)
    classifier = Classifier(
        checkpoint,
        model=f"{module}:{name}",
        image_size=str(size),
        mean=str(MEAN),
        std=str(STD),
        fit=fit,
        **names_of(folder, name),
    )
    compute = Compute(batch_size=16, workers=0, threads=1, device="cpu")
    explain(ExplainConfig(classifier, str(images), folder / "run", compute, quiet=True, **options))
    return folder / "run", classifier


def sharp(factory: type[nn.Module], seed: int = 0) -> nn.Module:
    """Return `factory()` with weights that `seed` decides, its probabilities far from equal."""
    network = seeded(factory, seed)
    if factory is GapNetwork:
        with torch.no_grad():
            network.head.weight.mul_(100)
    return network


def names_of(folder: Path, network: str) -> dict[str, Path]:
    """The folder of images has one class only; the network's names are in a file."""
    names = folder / "names.txt"
    names.write_text("\n".join(("patch", "nothing") if network == "PatchNetwork" else CLASSES))
    return {"class_names": names}


@dataclasses.dataclass(frozen=True)
class Case:
    run: Path
    classifier: Classifier
    data: Path

    def measure(self, **options: Any) -> FaithfulnessSummary:
        settings = {"samples": 100, "steps": STEPS, "threads": 1, "device": "cpu", "quiet": True, **options}
        return command(FaithfulnessConfig(self.run, self.classifier, str(self.data), **settings))


def random_images(root: Path, count: int, size: int = SIZE, seed: int = 0, height: int | None = None) -> Path:
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 256, (height or size, size, 3), dtype=np.uint8)
        write_image(root / CLASSES[number % 3] / f"{number:02d}.bmp", pixels)
    return root


@pytest.fixture(scope="module")
def random_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Nine images of noise and a network with random weights."""
    folder = tmp_path_factory.mktemp("random")
    data = random_images(folder / "images", 9)
    return Case(*make_run(folder, "tests.helpers.networks:GapNetwork", data, SIZE), data)


@pytest.fixture(scope="module")
def padded_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Six images of noise, lower than wide, in the middle of a square input."""
    folder = tmp_path_factory.mktemp("padded")
    data = random_images(folder / "images", 6, height=HEIGHT)
    return Case(*make_run(folder, "tests.helpers.networks:GapNetwork", data, SIZE, fit="pad"), data)


@pytest.fixture(scope="module")
def patch_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Twelve black images with one white cell each, at the edge; another one is all black, another is torn."""
    folder = tmp_path_factory.mktemp("patch")
    cells = [(y, x) for y in range(4) for x in range(4) if {y, x} & {0, 3}]
    for number, (y, x) in enumerate(cells):
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = 255
        write_image(folder / "images" / "patch" / f"{number:02d}.bmp", pixels)
    write_image(folder / "images" / "patch" / "black.bmp", np.zeros((32, 32, 3), np.uint8))
    (folder / "images" / "patch" / "torn.bmp").write_bytes(b"not a picture")
    data = folder / "images"
    return Case(*make_run(folder, f"{__name__}:PatchNetwork", data, 32), data)


def read_rows(out: Path, name: str = "faithfulness.csv") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / name).read_text(encoding="utf-8"))))


# The reference: one image, one step at a time, float64


def sorted_pixels(values: np.ndarray, permutation: np.ndarray) -> list[int]:
    flat = values.ravel().tolist()
    return sorted(permutation.tolist(), key=lambda pixel: -flat[pixel])  # sorted() keeps the order of equal ones


def blurred(image: np.ndarray) -> np.ndarray:
    deviation = 10 / 224 * min(image.shape[1:])
    radius = int(np.ceil(3 * deviation))
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * deviation**2))
    padded = np.pad(image, ((0, 0), (radius, radius), (radius, radius)), mode="edge")
    result = np.empty_like(image)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            window = padded[:, y : y + 2 * radius + 1, x : x + 2 * radius + 1]
            result[:, y, x] = (window * kernel).sum((1, 2)) / kernel.sum()
    return result


def imputed(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """ROAD's linear system, written down equation by equation and solved densely."""
    height, width = removed.shape
    number = {tuple(place): i for i, place in enumerate(np.argwhere(removed).tolist())}
    system, right = np.zeros((len(number), len(number))), np.zeros((len(number), image.shape[0]))
    for (y, x), i in number.items():
        for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
            near, weight = (y + dy, x + dx), 1 / 12 if dy and dx else 1 / 6
            if not (0 <= near[0] < height and 0 <= near[1] < width):
                continue
            system[i, i] += weight
            if near in number:
                system[i, number[near]] -= weight
            else:
                right[i] += weight * image[:, near[0], near[1]]
    result = image.copy()
    result[:, removed] = np.linalg.solve(system, right).T
    return result


def reference_areas(case: Case, ids: Sequence[str], seed: int, height: int = SIZE, steps: int = STEPS) -> np.ndarray:
    """Areas of samples by curve and order, float64 (n, 3, 4); images of another height lie in the input's middle."""
    top = (SIZE - height) // 2
    padding = nn.ConstantPad2d((0, 0, top, SIZE - height - top), (round(MEAN * 255) / 255 - MEAN) / STD)
    network = nn.Sequential(padding, sharp(GapNetwork).double())
    counts = [round(i * height * SIZE / steps) for i in range(steps + 1)]
    areas = []
    with open_run(case.run) as run:
        for sample in map(run.sample, ids):
            pixels = cv2.imread(str(case.data / sample.id))[:, :, ::-1].transpose(2, 0, 1)
            image = (pixels / 255 - MEAN) / STD
            rng = np.random.default_rng([seed, sample.index])
            permutation = rng.permutation(height * SIZE)
            grid = rng.standard_normal((4, 4), np.float32)
            noise = rng.standard_normal((3, height, SIZE), np.float32) * 0.01
            v, u = ((np.arange(n) + 0.5 - n / 2) / n / 0.25 for n in (height, SIZE))
            cams = [cam.upsample(torch.tensor(m)[None], (SIZE, SIZE))[0].numpy() for m in (run.cam(sample.row), grid)]
            shown, random = (values[top : top + height] for values in cams)
            upsampled = [shown, np.exp(-(v[:, None] ** 2 + u**2) / 2), random, np.zeros((height, SIZE))]
            index = int(run.prediction[sample.row])
            blank, deleted = blurred(image), np.broadcast_to(image.mean((1, 2), keepdims=True), image.shape)
            args = (network, image, deleted, blank, index, noise, counts)
            areas.append([reference_area(c, sorted_pixels(m, permutation), *args) for c in CURVES for m in upsampled])
    return np.array(areas).reshape(-1, len(CURVES), len(ORDERS))


def reference_area(
    curve: str,
    order: list[int],
    network: nn.Module,
    image: np.ndarray,
    deleted: np.ndarray,
    blank: np.ndarray,
    index: int,
    noise: np.ndarray,
    counts: list[int],
) -> float:
    heights = []
    for count in counts[:-1] if curve == "road" else counts:
        changed = np.zeros(len(order), bool)
        changed[order[:count]] = True
        changed = changed.reshape(image.shape[1:])
        if curve == "deletion":
            picture = np.where(changed, deleted, image)
        elif curve == "insertion":
            picture = np.where(changed, image, blank)
        else:
            picture = imputed(image, changed) + noise * changed
        with torch.no_grad():
            heights.append(float(network(torch.tensor(picture)[None]).softmax(1)[0, index]))
    shares = np.array(counts[: len(heights)]) / counts[-1]
    return float(sum((a + b) / 2 * w for a, b, w in zip(heights, heights[1:], np.diff(shares))) / shares[-1])  # noqa: B905


def test_areas_equal_plain_loops_over_samples_and_steps_in_float64(
    random_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faithfulness, "RESIDUAL", 1e-6)
    summary = random_case.measure(samples=4, seed=7, out=tmp_path / "out")
    rows = read_rows(tmp_path / "out")
    expected = reference_areas(random_case, [row["sample_id"] for row in rows], 7)
    written = np.array([[float(row[name]) for name in PAIRS] for row in rows])
    assert expected.std() > 0.05
    np.testing.assert_allclose(written.reshape(expected.shape), expected, atol=2e-4)
    for c, curve in enumerate(CURVES):
        for o, order in enumerate(ORDERS):
            score, ahead = summary.scores[curve][order], expected[:, c, o] - expected[:, c, 0]
            ahead = -ahead if curve == "insertion" else ahead
            assert score.area == pytest.approx(expected[:, c, o].mean(), abs=2e-4)
            if order != "map":
                assert score.ahead == pytest.approx(ahead.mean(), abs=2e-4)
                assert score.ahead_error == pytest.approx(ahead.std(ddof=1) / 2, abs=2e-4)


def test_padding_is_neither_changed_nor_counted(
    padded_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faithfulness, "RESIDUAL", 1e-6)
    steps = 8  # equal steps of whole pixels, with padding and without
    padded_case.measure(seed=7, steps=steps, out=tmp_path / "out")
    rows = read_rows(tmp_path / "out")
    expected = reference_areas(padded_case, [row["sample_id"] for row in rows], 7, HEIGHT, steps)
    written = np.array([[float(row[name]) for name in PAIRS] for row in rows])
    assert expected.std() > 0.05
    np.testing.assert_allclose(written.reshape(expected.shape), expected, atol=2e-4)


def test_equal_values_keep_the_order_of_the_permutation() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, (5, 6, 7)).astype(np.float32)
    permutations = np.stack([rng.permutation(42) for _ in values])
    places = faithfulness.ranks(torch.from_numpy(values), torch.from_numpy(permutations)).flatten(1)
    for place, value, permutation in zip(places, values, permutations, strict=True):
        assert place.argsort().tolist() == sorted_pixels(value, permutation)


def test_the_centre_is_ordered_as_a_gaussian_in_shares_of_each_side() -> None:
    v, u = (((np.arange(n) + 0.5) / n - 0.5) / 0.25 for n in (10, 24))
    gaussian = np.exp(-(v[:, None] ** 2 + u**2) / 2)
    ours = faithfulness.centre_map((10, 24)).double().numpy()
    np.testing.assert_allclose(np.exp(ours / 0.125), gaussian, rtol=1e-4)


@pytest.mark.parametrize(("pixels", "steps"), [(256, 5), (49, 49), (7, 2), (224 * 224, 20)])
def test_steps_are_equal_shares_rounded_to_whole_pixels(pixels: int, steps: int) -> None:
    exact = [Fraction(i * pixels, steps) for i in range(steps + 1)]
    counts = faithfulness.step_counts(pixels, steps).tolist()
    assert max(abs(count - share) for count, share in zip(counts, exact, strict=True)) <= Fraction(1, 2)
    assert (counts[0], counts[-1]) == (0, pixels)


def test_blur_equals_a_plain_two_dimensional_gaussian() -> None:
    image = np.random.default_rng(0).standard_normal((2, 23, 31))
    ours = faithfulness.blurred(torch.from_numpy(image)[None])[0].numpy()
    np.testing.assert_allclose(ours, blurred(image), atol=1e-12)


HOLES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "none": lambda y, x: y < 0,
    "block": lambda y, x: (abs(y - 8) < 6) & (abs(x - 11) < 8),
    "all but a corner": lambda y, x: y + x > 0,
    "left half": lambda y, x: x < 12,
    "scattered": lambda y, x: (y * 7 + x * 13) % 5 > 0,
}


@pytest.mark.parametrize("hole", HOLES)
def test_imputation_solves_the_papers_linear_system(hole: str) -> None:
    image = np.random.default_rng(1).standard_normal((3, 17, 24))
    removed = HOLES[hole](*np.mgrid[:17, :24])
    ours = faithfulness.impute(torch.from_numpy(image).float()[None], torch.from_numpy(removed)[None])[0].numpy()
    np.testing.assert_allclose(ours, imputed(image, removed), atol=faithfulness.NOISE / 2)
    assert np.array_equal(ours[:, ~removed], image[:, ~removed].astype(np.float32))


def test_imputation_of_an_image_does_not_depend_on_its_batch() -> None:
    images = torch.from_numpy(np.random.default_rng(2).standard_normal((5, 3, 17, 24), np.float32))
    removed = torch.from_numpy(np.stack([hole(*np.mgrid[:17, :24]) for hole in HOLES.values()]))
    alone = torch.cat([faithfulness.impute(images[i : i + 1], removed[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(faithfulness.impute(images, removed), alone, atol=1e-5, rtol=0)


def test_area_under_a_straight_line_is_its_mean_height() -> None:
    fractions = torch.tensor([0.0, 0.1, 0.4, 0.8])
    assert float(faithfulness.area(3 - fractions, fractions)) == pytest.approx(3 - 0.4)


def test_deleting_the_pixels_that_a_logit_depends_on_kills_it_and_no_others_do() -> None:
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[2:6, 9:13] = True  # a sixteenth

    class MaskedSum(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            total = (images * mask).sum((1, 2, 3))
            return torch.stack([total, torch.zeros_like(total)], 1)

    images = torch.full((1, 3, 16, 16), 0.1)
    probe = Probe(MaskedSum(), torch.device("cpu"), "fp32", 5, 16, 0, torch.zeros_like, torch.zeros_like)
    permutation = torch.randperm(256, generator=torch.Generator().manual_seed(0))[None]
    counts = faithfulness.step_counts(256, 16)
    curves = {}
    for name, values in {"truth": mask.float(), "opposite": -mask.float()}.items():
        places = faithfulness.ranks(values[None], permutation)
        curves[name] = follow(
            lambda i, changed: torch.where(changed[:, None], 0, images[i]), places, counts, torch.tensor([0]), probe
        )[0]
    assert curves["truth"][0] == pytest.approx(1 / (1 + np.exp(-4.8)))
    assert curves["truth"][1:] == pytest.approx(0.5)
    assert curves["opposite"][:-1] == pytest.approx(curves["truth"][0])
    assert curves["opposite"][-1] == pytest.approx(0.5)


def test_maps_that_are_the_truth_beat_every_baseline_on_every_curve(patch_case: Case) -> None:
    summary = patch_case.measure(steps=16, deletion_to="zero")
    assert summary.judged == 12
    for curve in CURVES:
        for order in ORDERS[1:]:
            score = summary.scores[curve][order]
            assert score.ahead > 3 * score.ahead_error, (curve, order)
            assert score.ahead_percent >= 75, (curve, order)


def test_what_can_not_be_judged_is_skipped_and_counted(patch_case: Case, tmp_path: Path) -> None:
    summary = patch_case.measure(out=tmp_path / "out")
    assert (summary.drawn, summary.judged, summary.findings) == (14, 12, 0)
    assert summary.left_out == {"unreadable": 1, "constant map": 1}
    torn = read_rows(tmp_path / "out")[-1]
    assert (torn["sample_id"], torn["left_out"], torn["prediction"]) == ("patch/torn.bmp", "unreadable", "")
    assert torn["error"]
    assert {torn[name] for name in ("probability", *PAIRS)} == {""}


def test_images_that_are_others_now_are_findings(tmp_path: Path) -> None:
    data = random_images(tmp_path / "images", 6)
    case = Case(*make_run(tmp_path, "tests.helpers.networks:GapNetwork", data, SIZE), data)
    write_image(data / "bee" / "01.bmp", np.zeros((SIZE, SIZE, 3), np.uint8))
    gone = data / "cat" / "02.bmp"
    gone.write_bytes(bytes(gone.stat().st_size))
    summary = case.measure()
    assert summary.left_out == {"unreadable now": 1, "another image now": 1}
    assert (summary.judged, summary.findings) == (4, 2)


def test_a_run_without_a_sample_to_judge_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "patch" / "a.bmp", np.zeros((32, 32, 3), np.uint8))
    case = Case(*make_run(tmp_path, f"{__name__}:PatchNetwork", tmp_path / "images", 32), tmp_path / "images")
    with pytest.raises(RunError, match="no sample of 1 can be judged: 1 constant map"):
        case.measure()


def test_the_same_seed_gives_the_same_files_and_another_one_other_samples(random_case: Case, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        random_case.measure(samples=4, seed=seed, out=tmp_path / name)
    files = [{p.name: p.read_bytes() for p in sorted((tmp_path / n).iterdir())} for n in "abc"]
    assert files[0] == files[1]
    assert sorted(files[0]) == ["curves.csv", "faithfulness.csv", "faithfulness.json"]
    ids = [[row["sample_id"] for row in read_rows(tmp_path / n)] for n in "ac"]
    assert ids[0] != ids[1]


def test_a_samples_areas_do_not_depend_on_which_others_are_drawn(random_case: Case, tmp_path: Path) -> None:
    for count in (4, 9):
        random_case.measure(samples=count, out=tmp_path / str(count))
    few, all_ = ({row["sample_id"]: row for row in read_rows(tmp_path / n)} for n in ("4", "9"))
    assert len(few) == 4
    for sample_id, row in few.items():
        for name in PAIRS:
            assert float(row[name]) == pytest.approx(float(all_[sample_id][name]), abs=1e-4)


def test_the_draw_has_no_repetition_and_covers_everything_when_asked_for_more() -> None:
    assert draw(5, 9, 0).tolist() == [0, 1, 2, 3, 4]
    assert len(set(draw(1000, 50, 0).tolist())) == 50
    drawn = np.concatenate([draw(10, 3, seed) for seed in range(500)])
    assert np.bincount(drawn, minlength=10).min() > 100


def test_another_checkpoint_or_dataset_is_refused(random_case: Case, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save(seeded(GapNetwork, 1).state_dict(), other)
    classifier = dataclasses.replace(random_case.classifier, checkpoint=other)
    with pytest.raises(CheckpointError, match="not the checkpoint of this run"):
        dataclasses.replace(random_case, classifier=classifier).measure()
    data = random_images(tmp_path / "images", 8)
    for path in data.rglob("*.bmp"):
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(DatasetError, match="not the dataset of this run"):
        dataclasses.replace(random_case, data=data).measure()


def test_another_preprocessing_is_refused(random_case: Case) -> None:
    for change in ({"mean": "0.4"}, {"image_size": "12"}):
        classifier = dataclasses.replace(random_case.classifier, **change)
        with pytest.raises(ConfigError, match="the run's preprocessing is another one"):
            dataclasses.replace(random_case, classifier=classifier).measure()


@pytest.mark.parametrize(
    ("array", "value"),
    [("sample_index", 99), ("sample_index", -1), ("prediction", 3), ("prediction", -1), ("cam_class", 7)],
)
def test_a_record_that_contradicts_itself_is_refused(random_case: Case, array: str, value: int, tmp_path: Path) -> None:
    run = shutil.copytree(random_case.run, tmp_path / "run")
    for name in ("run.h5", "manifest.json"):
        (run / name).unlink()
    shard = next(run.glob("shards/*.h5"))
    with h5py.File(shard, "r+") as file:
        file[array][2] = value
    shard.with_name(shard.name + ".sha256").write_text(f"{landing.file_digest(shard)}  {shard.name}\n")
    with pytest.raises(RunError, match="row 2 contradicts itself; see batchcam verify"):
        dataclasses.replace(random_case, run=run).measure()


@pytest.mark.parametrize(
    ("options", "notes"),
    [
        ({"method": "gradcam", "cams": "topk:2"}, []),
        ({"control": "weights"}, ["control weights", "no change moves the probability by more than 0.0"]),
    ],
    ids=["gradcam", "control"],
)
def test_other_methods_and_controls_are_measured_on_the_runs_network(
    options: dict[str, str], notes: list[str], tmp_path: Path
) -> None:
    data = random_images(tmp_path / "images", 3)
    case = Case(*make_run(tmp_path, "tests.helpers.networks:GapNetwork", data, SIZE, **options), data)
    summary = case.measure()
    assert summary.judged == 3
    with open_run(case.run) as run:
        assert summary.probability == pytest.approx(run.confidence[:].mean(), abs=1e-5)
    assert len(summary.notes) == len(notes)
    assert all(ours.startswith(start) for ours, start in zip(summary.notes, notes, strict=True))


@pytest.mark.parametrize(("name", "end"), [(name, end) for end, name in enumerate(SUBSTRATE_NAMES)])
def test_substrates_are_what_their_names_say(name: str, end: int) -> None:
    image = np.random.default_rng(0).standard_normal((3, 8, 9))
    whole = np.broadcast_to(image.mean((1, 2), keepdims=True), image.shape)
    ours = faithfulness.SUBSTRATES[name](torch.from_numpy(image)[None])[0].numpy()
    np.testing.assert_allclose(ours, (whole, np.zeros_like(image), blurred(image))[end], atol=1e-12)


def test_curves_start_at_the_probability_and_end_where_every_order_ends(random_case: Case, tmp_path: Path) -> None:
    summary = random_case.measure(out=tmp_path / "out")
    rows = read_rows(tmp_path / "out", "curves.csv")
    assert len(rows) == STEPS + 1
    for curve, row in (("deletion", 0), ("road", 0), ("insertion", -1)):
        for order in ORDERS:
            assert float(rows[row][f"{curve}_{order}"]) == pytest.approx(summary.probability, abs=1e-5)
    assert len({rows[-1][f"deletion_{order}"] for order in ORDERS}) == 1
    assert {rows[-1][f"road_{order}"] for order in ORDERS} == {""}


def test_the_document_names_the_digests_of_the_other_files(random_case: Case, tmp_path: Path) -> None:
    summary = random_case.measure(out=tmp_path / "out")
    content = read_document(tmp_path / "out" / "faithfulness.json")
    assert sorted(content["files"]) == ["curves.csv", "faithfulness.csv"]
    for name, digest in content["files"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
    said = json.loads(json.dumps(dataclasses.asdict(summary.scores["road"]["centre"])))
    assert content["scores"]["road"]["centre"] == said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "--samples 0"),
        ({"steps": 1}, "--steps 1"),
        ({"steps": 1001}, "--steps 1001"),
        ({"steps": 257}, "--steps 257: the network's input has 256 pixels"),
        ({"seed": -1}, "--seed -1"),
        ({"threads": 0}, "--threads 0"),
        ({"deletion_to": "black"}, "--deletion-to black: choose one of mean, zero, blur"),
        ({"insertion_from": "x\ny"}, "--insertion-from x y: choose"),
    ],
)
def test_what_can_not_be_meant_is_refused(random_case: Case, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        random_case.measure(**options)


def test_the_run_is_never_written_into(random_case: Case) -> None:
    with pytest.raises(ConfigError, match="lies in the run"):
        random_case.measure(out=random_case.run / "scores")


def test_the_text_has_each_area_beside_the_baselines_and_how_far_the_map_is_ahead(random_case: Case) -> None:
    summary = random_case.measure()
    lines = faithfulness_text(summary).split("\n")
    road = next(line for line in lines if line.startswith("ROAD, low"))
    for score in summary.scores["road"].values():
        assert "{:.3f} ({:.3f} to {:.3f})".format(score.area, *score.area_interval) in road
    score = summary.scores["road"]["centre"]
    ahead = "{:+.3f} ({:+.3f} to {:+.3f})".format(score.ahead, *score.ahead_interval)
    share = "{:.0f} % ({:.0f}–{:.0f})".format(score.ahead_percent, *score.ahead_percent_interval)
    assert f"{ahead}, {share}" in lines[-2]
    hostile = dataclasses.replace(summary, run="a\nb\x1b[2J", notes=("c\nd",))
    assert len(faithfulness_text(hostile).split("\n")) == len(lines) + 1
    assert "\x1b" not in faithfulness_text(hostile)
