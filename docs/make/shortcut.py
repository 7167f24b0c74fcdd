"""A model that looks at the background, and the gate that stops it: `python -m docs.make.shortcut --out DIR`.

Each image is a textured shape with a coloured tag in a corner of its background, as a supplier may print on its photos.
OLD learned from images whose tags say nothing. NEW learns from images whose tags give the class away, as those of the
test set do: its accuracy there is as good as OLD's, and only its maps tell that it reads the tags. Two honest
successors of OLD, one trained further and one trained from another seed, show what passes the gate.

Draws, trains, explains and compares on a CPU; run again after an interruption to go on. Writes
DIR/shortcut.md, the table, and DIR/shortcut.jpg, the picture.
"""

from __future__ import annotations

import argparse
import colorsys
import dataclasses
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from batchcam.commands.demo import shapes
from batchcam.commands.evaluate.config import EvaluateConfig
from batchcam.commands.evaluate.evaluate import evaluate
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.train.config import TrainConfig
from batchcam.commands.train.train import train
from batchcam.config.shared import Classifier, Compute
from batchcam.pictures import heatmap, sheet
from batchcam.record import metrics
from batchcam.record.similarity import compare_maps
from batchcam.store.opening import open_run
from batchcam.store.run import Run
from batchcam.store.stored_cams import predicted_cams

ARCHITECTURE: Final = "shufflenet_v2_x0_5"  # learns the shapes in a tenth of ResNet18's CPU time
TAG_SIDE: Final = 0.25  # of the image's side: one cell of the 4x4 grid at 128 px
BATCH_SIZE: Final = 20
LEARNING_RATE: Final = 2e-3
GATES: Final = ("--max-accuracy-drop", "2", "--min-cam-similarity", "0.5")

TABLE: Final = "shortcut.md"
PICTURE: Final = "shortcut.jpg"

HONEST, LEAKY, TEST, CHANGED = "honest", "leaky", "test", "changed"
"""Sets of images: tags say nothing; tags tell the class, to learn from and to test; tags name another class."""

OLD, FURTHER, RESEEDED, NEW = "old", "further", "reseeded", "new"
TOLD: Final = {
    OLD: "OLD",
    FURTHER: "OLD, trained further",
    RESEEDED: "trained again from another seed",
    NEW: "NEW: trained on images whose tags give the class away",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How large the case is.

    Attributes:
        out: folder for everything.
        train_per_class, test_per_class: images.
        epochs: of the honest models; the others take fewer.
        image_size: side in pixels.
        threads: of the network.
        seed: start of all randomness.
    """

    out: Path
    train_per_class: int = 240
    test_per_class: int = 40
    epochs: int = 12
    image_size: int = 128
    threads: int = 2
    seed: int = 0

    @property
    def compute(self) -> Compute:
        return Compute(threads=self.threads, device="cpu", workers=0)

    def checkpoint(self, model: str) -> Path:
        return self.out / f"{model}.pth"

    def run(self, model: str) -> Path:
        return self.out / "runs" / model

    def images(self, name: str) -> Path:
        return self.out / "images" / name


@dataclasses.dataclass(frozen=True)
class Row:
    """What is known of a model: shares of the test images, and how `compare` with OLD ended (None for OLD itself)."""

    accuracy: float
    peak_on_object: float
    peak_on_tag: float
    accuracy_changed: float
    similarity: float | None
    accuracy_drop: float | None
    exit_code: int | None


def draw(class_index: int, tag_index: int, rng: np.random.Generator, size: int) -> tuple[np.ndarray, ...]:
    """Return an image with a tag in a corner that the object leaves free, and where object and tag are.

    Args:
        class_index: whose shape.
        tag_index: whose tag.
        rng: source of all randomness but the tag's colour.
        size: side in pixels.

    Returns:
        RGB uint8 (size, size, 3), and two masks, bool (size, size).
    """
    image, mask = shapes.draw(shapes.CLASSES[class_index], rng, size)
    side = round(TAG_SIDE * size)
    ends = (0, size - side)
    corners = [(slice(y, y + side), slice(x, x + side)) for y in ends for x in ends]
    free = [corner for corner in corners if not mask[corner].any()]
    corner = free[int(rng.integers(len(free)))]
    image[corner] = _tag(tag_index, side)
    tagged = np.zeros_like(mask)
    tagged[corner] = True
    return image, mask, tagged


def _tag(index: int, side: int) -> np.ndarray:
    """Return a tag: one colour in a white frame."""
    picture = np.full((side, side, 3), 255, np.uint8)
    edge = max(1, side // 16)
    colour = colorsys.hsv_to_rgb((index + 0.5) / len(shapes.CLASSES), 1, 1)
    picture[edge:-edge, edge:-edge] = np.rint(np.array(colour) * 255)
    return picture


def draw_sets(settings: Settings) -> None:
    """Write the four sets; those to learn from, and those to test on, differ in their tags only."""
    for name, split, count in (
        (HONEST, "train", settings.train_per_class),
        (LEAKY, "train", settings.train_per_class),
        (TEST, "test", settings.test_per_class),
        (CHANGED, "test", settings.test_per_class),
    ):
        for class_index, class_name in enumerate(shapes.CLASSES):
            for kind in ("images", "objects", "tags"):
                (settings.out / kind / name / class_name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                entropy = [settings.seed, zlib.crc32(split.encode()), class_index, number]
                tag = _tag_of(name, class_index, np.random.default_rng([*entropy, 1]))
                image, mask, tagged = draw(class_index, tag, np.random.default_rng(entropy), settings.image_size)
                pictures = {"images": image[..., ::-1], "objects": mask * np.uint8(255), "tags": tagged * np.uint8(255)}
                for kind, picture in pictures.items():
                    cv2.imwrite(str(settings.out / kind / name / class_name / f"{number:05d}.png"), picture)


def _tag_of(name: str, class_index: int, rng: np.random.Generator) -> int:
    count = len(shapes.CLASSES)
    if name == HONEST:
        return int(rng.integers(count))
    return int(class_index + rng.integers(1, count)) % count if name == CHANGED else class_index


def make_model(settings: Settings, model: str) -> None:
    """Train a model and explain the test set with it."""
    data = LEAKY if model == NEW else HONEST
    epochs = {FURTHER: settings.epochs // 4, NEW: settings.epochs // 2}.get(model, settings.epochs)
    train(
        TrainConfig(
            str(settings.images(data)),
            settings.checkpoint(model),
            arch=ARCHITECTURE,
            weights=str(settings.checkpoint(OLD)) if model == FURTHER else None,
            epochs=max(1, epochs),
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE / 4 if model == FURTHER else LEARNING_RATE,
            weight_decay=0.0,
            seed=settings.seed + (model == RESEEDED),
            image_size=str(settings.image_size),
            mean="0.5",
            std="0.5",
            workers=0,
            threads=settings.threads,
            device="cpu",
            quiet=True,
        )
    )
    classifier = Classifier(settings.checkpoint(model))
    explain(ExplainConfig(classifier, str(settings.images(TEST)), settings.run(model), settings.compute, quiet=True))


def describe(settings: Settings, model: str) -> Row:
    """Return what is known of a model."""
    with open_run(settings.run(model)) as run:
        rows = {name: getattr(run, name)[:] for name in ("sample_id", "label", "prediction", "cams", "cam_class")}
    masks = {kind: _masks(settings.out / kind / TEST, rows["sample_id"]) for kind in ("objects", "tags")}
    maps = heatmap.upsample(predicted_cams(rows), masks["objects"].shape[1:])
    changed = EvaluateConfig(
        Classifier(settings.checkpoint(model)), str(settings.images(CHANGED)), settings.compute, quiet=True
    )
    code, found = (None, {}) if model == OLD else compare(settings, model)
    totals = found.get("totals", {})
    return Row(
        accuracy=metrics.accuracy(rows["label"], rows["prediction"]) or 0.0,
        peak_on_object=float(metrics.peak_hits(maps, masks["objects"]).mean()),
        peak_on_tag=float(metrics.peak_hits(maps, masks["tags"]).mean()),
        accuracy_changed=evaluate(changed).accuracy or 0.0,
        similarity=totals.get("spearman"),
        accuracy_drop=totals.get("accuracy_drop"),
        exit_code=code,
    )


def compare(settings: Settings, model: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the summary of `batchcam compare`, with gates, of OLD and a model."""
    words = ["compare", str(settings.run(OLD)), str(settings.run(model)), *GATES, "--json", "--quiet"]
    done = subprocess.run([sys.executable, "-m", "batchcam", *words], capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def _masks(folder: Path, sample_ids: np.ndarray) -> np.ndarray:
    return np.stack([cv2.imread(str(folder / i), cv2.IMREAD_GRAYSCALE) > 0 for i in sample_ids])


def table(rows: dict[str, Row]) -> str:
    """Return the models as a table in Markdown."""
    lines = [
        "| model | accuracy | CAM's peak on the object | on the tag | CAM similarity to OLD "
        "| gate | accuracy once tags change |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, row in rows.items():
        verdict = {None: "", 0: "passed, exit 0", 3: "**stopped, exit 3**"}[row.exit_code]
        alike = "" if row.similarity is None else f"{row.similarity:.2f}"
        shares = f"{row.accuracy:.3f} | {row.peak_on_object:.2f} | {row.peak_on_tag:.2f}"
        lines.append(f"| {TOLD[model]} | {shares} | {alike} | {verdict} | {row.accuracy_changed:.3f} |")
    return "\n".join(lines) + "\n"


def picture(settings: Settings) -> np.ndarray:
    """Return a test image of each class, and under it OLD's and NEW's overlay.

    Of the images that both predict right it is the one whose two maps are neither the most nor the least alike of its
    class, but in the middle.
    """
    with open_run(settings.run(OLD)) as old, open_run(settings.run(NEW)) as new:
        rows = _middle_rows(old, new)
        images = [cv2.imread(str(settings.images(TEST) / old[row].id))[..., ::-1] for row in rows]
        tiles, captions = images.copy(), [f"a {old[row].label}" for row in rows]
        for title, run in (("OLD", old), ("NEW", new)):
            tiles += [_overlay(image, run, row) for image, row in zip(images, rows, strict=True)]
            captions += [f"{title}: {run[row].prediction} {run[row].confidence:.2f}" for row in rows]
    return sheet.sheet(tiles, captions, columns=len(rows))


def _middle_rows(old: Run, new: Run) -> list[int]:
    label = old.label[:]
    right = (old.prediction[:] == label) & (new.prediction[:] == label)
    every = np.arange(len(label))
    alike = compare_maps(old.cams[:][every, label], new.cams[:][every, label]).spearman
    members = [np.flatnonzero(right & (label == k)) for k in range(len(old.class_names))]
    return [int(rows[np.argsort(alike[rows])[len(rows) // 2]]) for rows in members]


def _overlay(image: np.ndarray, run: Run, row: int) -> np.ndarray:
    return heatmap.overlay(image, run.map(row), run[row].crop_box, "jet")


def build(settings: Settings) -> dict[str, Row]:
    """Make everything; return what is known of each model."""
    draw_sets(settings)
    for model in TOLD:
        make_model(settings, model)
    rows = {model: describe(settings, model) for model in TOLD}
    (settings.out / TABLE).write_text(table(rows), encoding="utf-8")
    cv2.imwrite(str(settings.out / PICTURE), picture(settings)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--threads", type=int, default=2, help="of the network (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of images and models (default: 0)")
    chosen = parser.parse_args()
    print(table(build(Settings(chosen.out, threads=chosen.threads, seed=chosen.seed))), end="")


if __name__ == "__main__":
    main()
