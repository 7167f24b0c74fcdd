"""What `train` is asked."""

from __future__ import annotations

from pathlib import Path

from batchcam.config.options import argument, field, like, required
from batchcam.config.shared import (
    LARGEST_COUNT,
    Classifier,
    Compute,
    Config,
    LabelOptions,
    ManifestReading,
    View,
    overwriting,
    random_seed,
)


class TrainConfig(View, ManifestReading, LabelOptions, Config):
    """Everything that `train` is asked; the defaults are the STL10 recipe."""

    data: str = argument()
    out: Path = required("The best checkpoint; the last one, to resume from, lies beside it.")
    val: str | None = field("Validation dataset.  [default: a tenth of each class of DATA]")
    val_fraction: float = field("Share of DATA to validate on, without --val.", default=0.1, low=0, below=1)
    arch: str = field("torchvision's name of the network.", default="resnet18")
    weights: str | None = field("Pretrained weights: a file, or torchvision's name such as DEFAULT.")
    one_output: bool = field(
        "Of two classes: one output z, the logit of the second one, learned by binary cross-entropy.", default=False
    )
    epochs: int = field("Times to go through the training images; a larger number goes on.", default=20, low=1)
    # batch normalisation needs two images
    batch_size: int = field("Images of one step.", "-b", default=40, low=2, high=LARGEST_COUNT)
    learning_rate: float = field("Step size of Adam.", default=1e-4, above=0)
    weight_decay: float = field("Weight decay of Adam.", default=1e-2, low=0)
    flip: bool = field("Mirror half of the images left to right, others in each epoch.", default=False)
    seed: int = random_seed("split, weights, order and flips")
    label_kind: str | None = like(Classifier, "label_kind")
    bits: int | None = like(Classifier, "bits")
    workers: int | None = like(Compute, "workers")
    start_method: str | None = like(Compute, "start_method")
    threads: int | None = like(Compute, "threads")
    device: str = like(Compute, "device")
    sample_timeout: float = like(Compute, "sample_timeout")
    overwrite: bool = overwriting()
