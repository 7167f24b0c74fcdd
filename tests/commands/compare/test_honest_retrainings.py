"""A/A: tiny networks of one recipe and many seeds beside each other, and one that learned tags instead of shapes."""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import batchcam
from batchcam.commands.demo.shapes import CLASSES, draw

SIDE, TAG = 32, 8
HONEST_SEEDS = 30
SHORTCUTS = 4
COMPARISONS, RETRAININGS = 200, 5
TRAIN, TEST = 60, 30  # images a class
AUTO = {"min_cam_similarity": "auto", "max_flips": "auto"}


def tagged(class_index: int, tag: int, rng: np.random.Generator) -> np.ndarray:
    """Return a shape with a tag in a corner, RGB uint8 (SIDE, SIDE, 3)."""
    image, _ = draw(CLASSES[class_index], rng, SIDE)
    image[:TAG, :TAG] = np.rint(255 * np.array(colorsys.hsv_to_rgb((tag + 0.5) / len(CLASSES), 1, 1)))
    return image


def images(split: int, count: int, tag_tells: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return images, (n, SIDE, SIDE, 3), and labels, (n,): count a class, whose tags tell it or are of any class."""
    labels = np.repeat(np.arange(len(CLASSES)), count)
    rng = np.random.default_rng(split)
    tags = labels if tag_tells else rng.integers(0, len(CLASSES), len(labels))
    return np.stack([tagged(k, tag, rng) for k, tag in zip(labels, tags, strict=True)]), labels


def trained(seed: int, pixels: np.ndarray, labels: np.ndarray, epochs: int = 25) -> nn.Module:
    """Train a network of three convolutions."""
    torch.manual_seed(seed)
    widths, layers = (3, 12, 24, 24), list[nn.Module]()
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, stride=2 if after != before else 1, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], len(CLASSES)))
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    targets = torch.from_numpy(labels)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(epochs):
        for some in torch.randperm(len(targets)).split(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[some]), targets[some]).backward()
            optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    """Runs of one test set, whose tags tell the class: by honest seeds, and by networks that learned the tags."""
    folder = tmp_path_factory.mktemp("seeds")
    pixels, labels = images(1, TEST, tag_tells=True)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        of_class = folder / "test" / CLASSES[label]
        of_class.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(of_class / f"{number:04d}.png"), image[..., ::-1])
    found: dict[bool, list[Path]] = {False: [], True: []}
    for tag_tells, count in ((False, HONEST_SEEDS), (True, SHORTCUTS)):
        learned = images(2, TRAIN, tag_tells)
        for seed in range(count):
            run = folder / f"{'shortcut' if tag_tells else 'honest'} {seed}"
            network = trained(seed, *learned)
            batchcam.explain(
                network, folder / "test", run, class_names=CLASSES, image_size=SIDE, mean=0.5, std=0.5, device="cpu",
                workers=0, quiet=True,
            )  # fmt: skip
            found[tag_tells].append(run)
    return found[False], found[True]


def stopped(old: Path, new: Path, noise: Sequence[Path], **auto: str) -> bool:
    """Whether limits that are auto stop NEW."""
    return not batchcam.compare(old, new, noise=tuple(noise), min_compared=0, quiet=True, **auto).passed


@pytest.mark.slow
def test_at_most_a_twentieth_of_honest_pairs_is_stopped(runs: tuple[list[Path], list[Path]]) -> None:
    honest, _ = runs
    rng = np.random.default_rng(0)
    picked = (rng.choice(len(honest), 2 + RETRAININGS, replace=False) for _ in range(COMPARISONS))
    stops = sum(stopped(honest[old], honest[new], [honest[k] for k in noise], **AUTO) for old, new, *noise in picked)
    print(f"{stops} of {COMPARISONS} honest pairs stopped")
    assert stats.binomtest(stops, COMPARISONS, 0.05, "greater").pvalue > 0.01, f"{stops} of {COMPARISONS}"


@pytest.mark.slow
def test_a_network_that_learned_the_tags_is_stopped_every_time(runs: tuple[list[Path], list[Path]]) -> None:
    honest, shortcuts = runs
    rng = np.random.default_rng(1)
    for trial in range(20):
        old, *noise = (honest[k] for k in rng.choice(len(honest), 1 + RETRAININGS, replace=False))
        assert stopped(old, shortcuts[trial % len(shortcuts)], noise, min_cam_similarity="auto"), trial
