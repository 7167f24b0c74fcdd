"""demo: the whole loop on generated images: train, explain, verify, pictures."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import cv2
import numpy as np

from batchcam.commands.demo import shapes
from batchcam.commands.demo.config import DemoConfig
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import ExplainSummary, explain
from batchcam.commands.train.config import TrainConfig
from batchcam.commands.train.train import train
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import ConfigError, RunError
from batchcam.job.console import note
from batchcam.pictures import heatmap, sheet
from batchcam.pictures.originals import open_originals
from batchcam.pictures.overlay import View, overlay
from batchcam.record import metrics
from batchcam.store import landing
from batchcam.store.opening import open_run
from batchcam.store.run import Run
from batchcam.store.stored_cams import predicted_cams

IMAGE_SIZE = 128  # 4x4 cells; at 96 px, 3x3 cells are too coarse to hit the objects
TRAIN_PER_CLASS = 60
TEST_PER_CLASS = 40
EPOCHS = 6
BATCH_SIZE = 20
LEARNING_RATE = 5e-4  # the seed's 1e-4 and 1e-2 fine-tune; this starts from nothing
WEIGHT_DECAY = 0.0
PICTURES = 20
NAMES = ("sample_id", "label", "prediction", "cams", "cam_class")


@dataclasses.dataclass(frozen=True)
class DemoSummary:
    """What the demo gave.

    Attributes:
        picture: the grid of overlays.
        samples: test images.
        judged: of them, with a prediction; the next three are over these.
        accuracy: share predicted right.
        peak_in_object: share whose CAM has its peak on the object.
        centre_in_object: share whose centre lies on the object.
        trained_on: test images that are training images too.
        findings: of verify.
        seconds: all of it.
    """

    run: str
    picture: str
    samples: int
    judged: int
    accuracy: float
    peak_in_object: float
    centre_in_object: float
    trained_on: int | None
    findings: int
    seconds: float


def demo(config: DemoConfig) -> DemoSummary:
    """Generate images, train, explain, verify, and draw; run again after an interruption to go on.

    Raises:
        ConfigError: the folder holds other files than a demo's.
        RunError: verify found something, or an image is gone.
    """
    start = time.perf_counter()
    out = config.out
    if out.is_dir() and any(out.iterdir()) and not (out / "masks" / "train" / shapes.CLASSES[0]).is_dir():
        raise ConfigError(f"--out {out}: holds other files; name a new folder")
    note(f"drawing images into {out}", config.quiet)
    try:
        for split, per_class in (("train", TRAIN_PER_CLASS), ("test", TEST_PER_CLASS)):
            shapes.generate(out, split, per_class, IMAGE_SIZE, config.seed)
    except OSError as error:
        raise landing.write_error(Path(error.filename or out), error) from error
    run = out / "run"
    explained = _train_and_explain(config, out / "model.pth", run)
    verified = verify(VerifyConfig(run, quiet=config.quiet))
    if verified.found:
        raise RunError(f"{run}: verify found: {verified.found[0]}")
    picture = out / "cam.png"
    with open_run(run) as opened:
        rows = {name: getattr(opened, name)[:] for name in NAMES}
        landing.land(picture, heatmap.write_png(_sheet(out / "images" / "test", opened)))
    landing.remove_stale_partials(out, [picture.name])
    masks = np.stack([_mask(out / "masks" / "test" / sample_id) for sample_id in rows["sample_id"]])
    cams = heatmap.upsample(predicted_cams(rows), masks.shape[1:])
    judged = rows["prediction"] >= 0
    return DemoSummary(
        run=str(run),
        picture=str(picture),
        samples=len(masks),
        judged=int(judged.sum()),
        accuracy=metrics.accuracy(rows["label"], rows["prediction"]) or 0.0,
        peak_in_object=float(metrics.peak_hits(cams[judged], masks[judged]).mean()),
        centre_in_object=float(metrics.centre_hits(masks[judged]).mean()),
        trained_on=explained.trained_on,
        findings=verified.findings,
        seconds=round(time.perf_counter() - start, 1),
    )


def _train_and_explain(config: DemoConfig, checkpoint: Path, run: Path) -> ExplainSummary:
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
            image_size=(IMAGE_SIZE,),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            threads=config.threads,
            device="cpu",
            quiet=config.quiet,
        )
    )
    compute = Compute(threads=config.threads, device="cpu")
    return explain(ExplainConfig(Classifier(checkpoint), str(images / "test"), run, compute, quiet=config.quiet))


def _sheet(folder: Path, run: Run) -> np.ndarray:
    """Return the seed's grid of twenty overlays, spread evenly over the test images."""
    originals, tiles, captions = open_originals(run, str(folder)), [], []
    for row in np.linspace(0, len(run) - 1, PICTURES).round().astype(int):
        sample = run[row]
        original = originals.read(sample)
        if original.image is None:
            raise RunError(f"{folder / sample.id}: {original.reason}; remove the demo's folder and run it again")
        tiles.append(overlay(original.image, run.cam(row), View.of(run, sample), sample.image_size).picture)
        wrong = "" if sample.prediction == sample.label else f", is {sample.label}"
        captions.append(f"{sample.prediction} {sample.confidence:.2f}{wrong}")
    return sheet.sheet(tiles, captions)


def _mask(path: Path) -> np.ndarray:
    # imread crashes on a path that is no UTF-8
    mask = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise RunError(f"{path}: cannot read this mask; remove the demo's folder and run it again")
    return np.asarray(mask > 0)
