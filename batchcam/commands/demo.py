"""demo: the whole loop on generated images: train, explain, verify, pictures."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import cv2
import numpy as np

from batchcam import heatmap, metrics, shapes
from batchcam.audit import predicted_cams
from batchcam.commands.explain import explain
from batchcam.commands.train import train
from batchcam.commands.verify import verify
from batchcam.config import Classifier, Compute, DemoConfig, ExplainConfig, TrainConfig, VerifyConfig
from batchcam.console import note
from batchcam.errors import RunError
from batchcam.store import landing
from batchcam.store.plan import Plan, read_plan
from batchcam.store.reader import decode, open_file
from batchcam.store.schema import SHARD_FOLDER

IMAGE_SIZE = 128  # 4x4 cells; at 96 px, 3x3 cells are too coarse to hit the objects
TRAIN_PER_CLASS = 60
TEST_PER_CLASS = 40
EPOCHS = 6
BATCH_SIZE = 20
LEARNING_RATE = 5e-4  # the seed's 1e-4 and 1e-2 fine-tune; this starts from nothing
WEIGHT_DECAY = 0.0
PICTURES = 20
NAMES = ("sample_id", "label", "prediction", "confidence", "cams", "cam_class", "maps", "crop_box")


@dataclasses.dataclass(frozen=True)
class DemoSummary:
    """What the demo gave.

    Attributes:
        run: the run directory.
        picture: the grid of overlays.
        samples: test images.
        accuracy: on them.
        peak_in_object: share of them whose CAM has its peak on the object.
        centre_in_object: share of them whose centre lies on the object.
        findings: of verify.
        seconds: all of it.
    """

    run: str
    picture: str
    samples: int
    accuracy: float
    peak_in_object: float
    centre_in_object: float
    findings: int
    seconds: float


def demo(config: DemoConfig) -> DemoSummary:
    """Generate images, train, explain, verify, and draw; run again after an interruption to go on.

    Raises:
        RunError: verify found something, or an image is gone.
    """
    start = time.perf_counter()
    out = config.out
    note(f"drawing images into {out}", config.quiet)
    for split, per_class in (("train", TRAIN_PER_CLASS), ("test", TEST_PER_CLASS)):
        shapes.generate(out, split, per_class, IMAGE_SIZE, config.seed)
    run = out / "run"
    _train_and_explain(config, out / "model.pth", run)
    verified = verify(VerifyConfig(run, quiet=config.quiet))
    if verified.found:
        raise RunError(f"{run}: verify found: {verified.found[0]}")
    rows = _read(run, read_plan(run))
    masks = _masks(out / "masks" / "test", rows["id"])
    cams = heatmap.upsample(predicted_cams(rows), masks.shape[1:])
    picture = out / "cam.png"
    landing.land(picture, heatmap.write_png(_sheet(out / "images" / "test", rows)))
    return DemoSummary(
        run=str(run),
        picture=str(picture),
        samples=len(masks),
        accuracy=metrics.accuracy(rows["label"], rows["prediction"]) or 0.0,
        peak_in_object=float(metrics.peak_hits(cams, masks).mean()),
        centre_in_object=float(metrics.centre_hits(masks).mean()),
        findings=verified.findings,
        seconds=round(time.perf_counter() - start, 1),
    )


def _train_and_explain(config: DemoConfig, checkpoint: Path, run: Path) -> None:
    """Fine-tune on the training images, then explain the test images with the best checkpoint."""
    images = config.out / "images"
    train(
        TrainConfig(
            data=str(images / "train"),
            out=checkpoint,
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            seed=config.seed,
            image_size=str(IMAGE_SIZE),
            mean="0.5",
            std="0.5",
            threads=config.threads,
            device="cpu",
            quiet=config.quiet,
        )
    )
    compute = Compute(threads=config.threads, device="cpu")
    explain(ExplainConfig(Classifier(checkpoint), str(images / "test"), run, compute, quiet=config.quiet))


def _read(run: Path, plan: Plan) -> dict[str, np.ndarray]:
    """Return the arrays that the numbers and pictures need, over all shards."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    for shard in plan.shards:
        with open_file(run / SHARD_FOLDER / shard.file) as file:
            for name in NAMES:
                parts[name].append(file[name][...])
            names = np.array(decode(file["class_name"][...]))
    rows = {name: np.concatenate(values) for name, values in parts.items()}
    return {**rows, "id": np.array(decode(rows["sample_id"])), "class_name": names}


def _masks(folder: Path, ids: np.ndarray) -> np.ndarray:
    return np.stack([_image(folder / i, cv2.IMREAD_GRAYSCALE) > 0 for i in ids])


def _sheet(folder: Path, rows: dict[str, np.ndarray]) -> np.ndarray:
    """Return the seed's grid of twenty overlays, spread evenly over the test images."""
    tiles, captions = [], []
    for row in np.linspace(0, len(rows["id"]) - 1, PICTURES).round().astype(int):
        image = _image(folder / rows["id"][row], cv2.IMREAD_COLOR)[:, :, ::-1]
        tiles.append(heatmap.overlay(image, rows["maps"][row], tuple(rows["crop_box"][row]), "jet"))
        truth, guess = (rows["class_name"][rows[n][row]] for n in ("label", "prediction"))
        captions.append(f"{guess} {rows['confidence'][row]:.2f}" + ("" if guess == truth else f", is {truth}"))
    return heatmap.sheet(tiles, captions)


def _image(path: Path, mode: int) -> np.ndarray:
    image = cv2.imread(str(path), mode)
    if image is None:
        raise RunError(f"{path}: cannot read this image; remove the demo's folder and run it again")
    return image
