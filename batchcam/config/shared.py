"""What several commands are asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from batchcam.config.options import (
    AnyNumbers,
    AnyPath,
    AnySize,
    Given,
    Part,
    argument,
    field,
    flag_of,
    like,
    members,
    required,
    run_argument,
)
from batchcam.config.texts import (
    LONGEST_S,
    parse_columns,
    parse_duration,
    parse_names,
    parse_numbers,
    parse_preset,
    parse_range,
    parse_size,
)
from batchcam.errors import ConfigError
from batchcam.rules import CERTAINTY, DEFAULT_THRESHOLD, ENGINES, EVIDENCE, IDENTITY_TOLERANCE, PROBLEM_TYPES

DEFAULT_BATCH_SIZE: Final = 64
PRECISIONS: Final = tuple(IDENTITY_TOLERANCE)
INTERPOLATIONS: Final = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
PIXELS: Final = ("pillow", "tensor", "draft")
FITS: Final = ("crop", "pad", "stretch")
LABEL_KINDS: Final = ("names", "indices")
START_METHODS: Final = ("fork", "spawn")

LARGEST_COUNT: Final = 2**31 - 1
"""More does not fit into torch's integers or a run's plan."""

MOST_PROCESSES: Final = 1024
LARGEST_SEED: Final = 2**32 - 1  # of those that NumPy and torch take


class Network(Protocol):
    """A `torch.nn.Module` that takes images (N, C, H, W) and returns logits (N, K)."""

    def state_dict(self) -> Mapping[str, Any]: ...


class MapDataset(Protocol):
    """A map-style dataset: items (image or tensor, label), or (image or tensor, label, id)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def random_seed(of: str) -> Any:
    """Return a field for the random seed of something."""
    return field(f"Random seed of {of}.", default=0, low=0, high=LARGEST_SEED)


def time_limit() -> Any:
    """Return a field for the seconds after which to stop early."""
    return field(
        "Stop early after 90s, 15m, 2h or HH:MM:SS.",
        "--time-limit",
        low=0,
        high=LONGEST_S,
        metavar="TIME",
        parse=parse_duration,
    )


def originals(purpose: str = "") -> Any:
    """Return a field for the place of a run's images."""
    return field(
        f"Where the original images are{purpose}.  [default: where the run found them; python:, torchvision: and "
        "URLs only where they are named here]"
    )


def clustering() -> Any:
    """Return a field for the column that says which samples are not independent of each other."""
    about = (
        "Intervals over the values of this further column of the manifest, such as patient: samples of one tell less."
    )
    return field(about, metavar="COLUMN")


def grouping() -> Any:
    """Return a field for the columns by which samples are grouped."""
    about = "Also by the values of this further column of the manifest; twice: by both."
    return field(about, "--group-by", default=(), metavar="COLUMN")


def confidence() -> Any:
    """Return a field for how sure intervals are."""
    return field("Percent of confidence of the intervals.", default=95.0, low=50, high=99.9999, metavar="P")


def overwriting() -> Any:
    """Return a field for whether what batchcam did not make may be replaced."""
    return field("Replace what lies at --out although batchcam did not make it.", default=False)


class Config(Part):
    """What every command is asked."""

    _: dataclasses.KW_ONLY
    quiet: bool = field("No progress and no notes.", "-q", default=False)


class RunConfig(Config):
    """What every command about one run is asked: the run directory, one of its shards, or a folder of runs."""

    run: Given[Path, AnyPath] = run_argument()


class MergeConfig(RunConfig):
    """Everything that `merge` is asked."""

    run: Given[Path, AnyPath] = argument()
    _: dataclasses.KW_ONLY
    prove: bool = field(
        "Read also shards that are untouched since this run's tasks wrote them, or a merge proved them.", default=False
    )
    time_limit_s: Given[float | None, float | str | None] = time_limit()


class PartialConfig(RunConfig):
    """What commands are asked that can do with a part of a run."""

    _: dataclasses.KW_ONLY
    partial: bool = field("Leave out shards that are gone or damaged; then end with 3.", default=False)


RANKINGS: Final = ("confidence", *CERTAINTY, "identity_residual", *EVIDENCE)
"""What samples can be ranked by: softmax at the predicted class; how far mean of CAM + bias is from the logit; and what
is measured of each sample."""


class Selection(Part):
    """Which samples, every condition narrowing the others; without any, all of them.

    A class is meant as the dataset labels a sample, or as it is predicted where the dataset does not; of several labels
    a sample, as it reaches its threshold. Samples come in the order of `sample_ids`, or of their rank.
    """

    sample_ids: tuple[str, ...] = field("These samples; may be repeated.", "--sample", default=(), metavar="ID")
    label: str | None = field(
        "Samples of this class, by name or index; multi-label: with its map, also --wrong is of it.",
        "--class",
        metavar="C",
    )
    predicted: str | None = field("Samples predicted as this class, by name or index.", metavar="C")
    wrong: bool = field(
        "Samples predicted otherwise than labelled; multi-label: in any class, with the map of the worst.",
        default=False,
    )
    confusion: tuple[str, str] | None = field("Samples of class A predicted as B.", metavar="A B")
    where: tuple[str, ...] = field(
        "Samples with this value in a further column of the manifest; may be repeated, each narrows.",
        default=(),
        metavar="COLUMN=VALUE",
    )
    top: int | None = field("The N with the largest values of --by.", low=1, metavar="N")
    bottom: int | None = field("The N with the smallest values of --by.", low=1, metavar="N")
    by: str = field("What --top and --bottom rank by.", default="confidence", choices=RANKINGS)

    def __post_init__(self) -> None:
        super().__post_init__()
        for condition in self.where:
            if "=" not in condition:
                raise ConfigError(f"--where {condition}: say COLUMN=VALUE, such as site=b")
        if self.top is not None and self.bottom is not None:
            raise ConfigError("--top and --bottom exclude each other: ask for one, then for the other")

    @property
    def of_one_label(self) -> str:
        """What it asks for that only samples of one label have, "" for nothing."""
        if (self.top or self.bottom) and self.by in ("entropy", "margin", "loss"):
            return f"--by {self.by}"
        return "--confusion" if self.confusion else ""


class View(Part):
    """How an image becomes the network's input, where the checkpoint does not say."""

    _: dataclasses.KW_ONLY
    preprocess: str | None = field(
        "What the options below do not say: imagenet (256, crop 224), stl10 (128, mean and std 0.5: what train does), "
        "or what goes with weights of torchvision's, such as ResNet50_Weights.IMAGENET1K_V2, or of timm's, such as "
        "timm:resnet50.a1_in1k.",
        metavar="PRESET",
        parse=parse_preset,
    )
    image_size: Given[tuple[int, ...] | None, AnySize] = field(
        "The network's input, cropped from the centre.", metavar="N|HxW", parse=parse_size
    )
    resize: Given[tuple[int, ...] | None, AnySize] = field(
        "Before the crop: shorter side to N, or exactly HxW.  [default: --image-size]",
        metavar="N|HxW",
        parse=parse_size,
    )
    mean: Given[tuple[float, ...] | None, AnyNumbers] = field(
        "Mean of the channels, in units of 0…1: one for all, or one each.", metavar="R,G,B", parse=parse_numbers
    )
    std: Given[tuple[float, ...] | None, AnyNumbers] = field(
        "Standard deviation of the channels.", metavar="R,G,B", parse=parse_numbers
    )
    crop_pct: float | None = field(
        "Instead of --resize: the crop's share of the resized image's side, as timm's models say.", above=0, high=1
    )
    interpolation: str | None = field("Of resizing, as Pillow does it.  [default: bilinear]", choices=INTERPOLATIONS)
    fit: str | None = field(
        "crop: cut from the centre; pad: resize to lie whole in the input, the rest in the colour of the mean; "
        "stretch: resize to the input exactly, whatever the aspect.  [default: crop]",
        choices=FITS,
    )
    pixels: str | None = field(
        "How images are decoded and resized, whatever the checkpoint says: pillow; tensor: as torchvision's "
        "transforms.v2 resizes tensors; draft: JPEGs of twice the size and more are decoded at a half, quarter or "
        "eighth of theirs.  [default: the checkpoint's, or pillow]",
        choices=PIXELS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = self.fit in ("pad", "stretch")
        stated = {"--resize": self.resize, "--crop-pct": self.crop_pct, f"--fit {self.fit}": whole}
        if len(sizes := [name for name, value in stated.items() if value]) > 1:
            raise ConfigError(f"{' and '.join(sizes)} exclude each other: each says what an image is resized to")


class ManifestReading(Part):
    """How a manifest is meant, where its header does not say."""

    _: dataclasses.KW_ONLY
    columns: Given[Mapping[str, str] | None, Mapping[str, str] | str | None] = field(
        "Which columns of a manifest are path, label and id: path=image_id,label=diagnosis. Of a table that holds the "
        "images path is their column.",
        metavar="KIND=NAME,…",
        parse=parse_columns,
    )
    root: Given[str | None, AnyPath | None] = field(
        "Folder, or URL of one, that the paths of a manifest start from.  [default: the manifest's]"
    )
    suffix: str | None = field("What these paths lack, such as .jpg.", metavar="ENDING")


class Classifier(View, ManifestReading):
    """Which network, which classes, which preprocessing, where the checkpoint does not say.

    A network in memory stands for a checkpoint, and the names themselves for a file of class names.
    """

    checkpoint: Given[Path | Network, AnyPath | Network]
    _: dataclasses.KW_ONLY
    arch: str | None = field(
        "torchvision's name of the network, or timm's, such as timm:resnet50, or after hf: a directory, a model in the "
        "cache of Hugging Face or a kind of network of transformers', where the checkpoint does not say."
    )
    arch_option: tuple[str, ...] = field(
        "What the function that builds the network is to be told besides, such as transform_input=false.",
        default=(),
        metavar="NAME=VALUE",
    )
    model: str | None = field("Your own function that returns the network.", metavar="MODULE:CALLABLE")
    weights_key: str | None = field(
        "Which weights of a checkpoint that holds several: a key such as state_dict_ema, or a prefix of names."
    )
    class_names: Given[Path | Sequence[str] | None, AnyPath | Sequence[str] | None] = field(
        "File with one class name a line, where the checkpoint does not say."
    )
    label_kind: str | None = field(
        "What labels of a manifest are that are whole numbers.  [default: names where all are known, else indices]",
        choices=LABEL_KINDS,
    )
    bits: int | None = field(
        "How many are used of 16-bit values, where the file does not say it: 12 makes 4095 white.  [default: 16 where "
        "the brightest value needs more than 14, else the image is unreadable]",
        low=8,
        high=16,
        metavar="BITS",
    )
    range: Given[tuple[float, float] | None, tuple[float, float] | str | None] = field(
        "Stored values that become 0 and 1, before mean and standard deviation; what lies outside counts as these. For "
        "deep and float images, and DICOM.  [default: 8 bits are made of all values, or of DICOM's first window]",
        metavar="LOW,HIGH",
        parse=parse_range,
    )
    transform: str | None = field(
        "Your own transform of an image into the network's input, of whatever library: applied as it is, to images in "
        "RGB.",
        metavar="MODULE:CALLABLE",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.range is not None and (len(self.range) != 2 or not self.range[0] < self.range[1]):
            raise ConfigError(f"--range {self.range}: expected LOW,HIGH, such as 0,4095")
        if self.bits is not None and self.range is not None:
            raise ConfigError("--bits and --range exclude each other: each says which values are black and white")
        said = [flag_of(each) for each, _ in members(View) if getattr(self, each.name) is not None]
        said += ["--range"] * (self.range is not None)
        if self.transform and said:
            raise ConfigError(f"--transform and {said[0]} exclude each other: the transform is all that is done")
        if self.arch and self.model:
            raise ConfigError("--arch and --model exclude each other: the callable of --model builds the whole network")
        if self.is_in_memory and (self.arch or self.model or self.weights_key):
            raise ConfigError("--arch, --model and --weights-key say how to build a network: one in memory is built")
        if self.arch_option and (self.model or self.is_in_memory):
            raise ConfigError("--arch-option goes with the networks of libraries, which --arch names")

    @property
    def is_in_memory(self) -> bool:
        """Whether the network itself is given, and no file."""
        return not isinstance(self.checkpoint, Path)


class Compute(Part):
    """How to compute; None where the run's plan, or else the machine, decides."""

    _: dataclasses.KW_ONLY
    batch_size: int | None = field(
        f"Images of one forward pass.  [default: {DEFAULT_BATCH_SIZE}]", "-b", low=1, high=LARGEST_COUNT
    )
    workers: int | None = field(
        "Processes that decode images.  [default: half of the CPUs, with a GPU all]", "-j", low=0, high=MOST_PROCESSES
    )
    start_method: str | None = field(
        "How these are started, where a dataset can't be forked.  [default: as Python does]", choices=START_METHODS
    )
    threads: int | None = field("CPU threads of the network.  [default: all CPUs]", low=1, high=MOST_PROCESSES)
    device: str = field("cpu, cuda, cuda:N, or auto.", default="auto")
    sample_timeout: Given[float, float | str] = field(
        "Give up an image that takes longer to read: it counts as unreadable. 0: never.",
        default="5m",  # longer than a file server's restart, shorter than a night
        low=0,
        high=LONGEST_S,
        metavar="TIME",
        parse=parse_duration,
    )
    engine: str | None = field(
        "What computes the network: torch; openvino, of the extra cpu, in fp32 on CPUs; or auto: openvino where it is "
        "installed, gives torch's numbers to 1e-5 and is at least 1.15 times as fast, of networks that torchvision, "
        "timm or transformers build.  [default: auto]",
        choices=ENGINES,
    )
    precision: str | None = field("Of the network's arithmetic; CAMs are float32.  [default: fp32]", choices=PRECISIONS)


class NetworkConfig(RunConfig):
    """What commands are asked that ask a run's network again."""

    classifier: Classifier = required("The run's checkpoint.", "--checkpoint")
    data: str = required("The run's dataset.")
    _: dataclasses.KW_ONLY
    device: str = like(Compute, "device")
    threads: int | None = like(Compute, "threads")


class LabelOptions(Part):
    """How a dataset's labels are to be read: one class a sample, or several."""

    _: dataclasses.KW_ONLY
    problem_type: str | None = field(
        "multi-label: each class is true or not by itself, by sigmoid.  [default: as the labels say]",
        choices=PROBLEM_TYPES,
    )
    label_separator: str | None = field(
        "multi-label: what stands between the classes of a label.  [default: |]", metavar="TEXT"
    )
    findings: Given[tuple[str, ...] | None, Sequence[str] | str | None] = field(
        "multi-label: the classes that a manifest has a column for, of 1 and 0, and nothing or -1 where not known, or "
        "that count in its lists; CLASS=NAME where it is called otherwise there.  [default: columns named as classes]",
        metavar="CLASS,…",
        parse=parse_names,
    )


class LabelledConfig(LabelOptions, Config):
    """What commands are asked that take a dataset's labels, and tell which classes count."""

    _: dataclasses.KW_ONLY
    threshold: str | None = field(
        "multi-label: probability from which a class counts: P, CLASS=P,…, or a .json or .csv file of class and P.  "
        f"[default: {DEFAULT_THRESHOLD}]",
        metavar="P",
    )
    thresholds_from: Given[Path | None, AnyPath | None] = field(
        "multi-label: for each class the threshold of the largest F1 on this labelled run of the same checkpoint.",
        metavar="RUN",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold and self.thresholds_from:
            raise ConfigError("--threshold and --thresholds-from exclude each other")
