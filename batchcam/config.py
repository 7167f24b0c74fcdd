"""What every command is asked: how one field says its option, and the options that several commands share."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, Protocol, TypeVar

from batchcam.errors import ConfigError
from batchcam.rules import (
    CERTAINTY,
    DEFAULT_THRESHOLD,
    ENGINES,
    EVIDENCE,
    FEWEST_IN_GROUP,
    IDENTITY_TOLERANCE,
    OWN_VERDICTS,
    PROBLEM_TYPES,
)
from batchcam.store.bringing import is_url
from batchcam.store.places import local

if sys.version_info >= (3, 11):
    from typing import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[type], type]:
        """Return a decorator that does nothing: type checkers know what it means."""
        return lambda kind: kind


DEFAULT_BATCH_SIZE: Final = 64
PRECISIONS: Final = tuple(IDENTITY_TOLERANCE)
PRESET_NAMES: Final = ("imagenet", "stl10")
INTERPOLATIONS: Final = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
PIXELS: Final = ("pillow", "tensor", "draft")
FITS: Final = ("crop", "pad", "stretch")
LABEL_KINDS: Final = ("names", "indices")
START_METHODS: Final = ("fork", "spawn")

LARGEST_COUNT: Final = 2**31 - 1
"""More does not fit into torch's integers or a run's plan."""

MOST_PROCESSES: Final = 1024
LARGEST_SEED: Final = 2**32 - 1  # of those that NumPy and torch take

MOST_OPTION_BYTES: Final = 2**24
"""Largest file of options or class names: a hundred for each of a hundred thousand classes, and more."""

MIN_COMPARED: Final = 95.0
"""Per cent of an old run's samples below which what is compared says little of the runs."""

LONGEST_S: Final = 1e9
"""Thirty years; Python's timers refuse three hundred."""

AnyPath = str | os.PathLike[str]
AnySize = tuple[int, ...] | int | str | None
AnyNumbers = tuple[float, ...] | float | str | None

Read = TypeVar("Read")
Asked = TypeVar("Asked")
Built = TypeVar("Built")
Summary = TypeVar("Summary")
P = ParamSpec("P")

if TYPE_CHECKING:

    class Given(Generic[Read, Asked]):
        """A field that reads as one type and may be given as another, which the check makes the first."""

        def __get__(self, config: object, kind: type) -> Read: ...

        def __set__(self, config: object, value: Asked) -> None: ...

else:

    class Given:
        """The type that a field reads as."""

        def __class_getitem__(cls, kinds: tuple[Any, Any]) -> Any:
            return kinds[0]


class Network(Protocol):
    """A `torch.nn.Module` that takes images (N, C, H, W) and returns logits (N, K)."""

    def state_dict(self) -> Mapping[str, Any]: ...


class MapDataset(Protocol):
    """A map-style dataset: items (image or tensor, label), or (image or tensor, label, id)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Option:
    """How a field is asked for: what the command line, the variable, `--config` and the check know of it.

    Attributes:
        help: what it is for; ends with the default where code or another file decides that.
        flags: its name where that is not the field's, and a short one; of a bool that is True the one that denies it.
        choices: its only values.
        low: its smallest value.
        high: its largest value.
        above: what every value is larger than.
        below: what every value is smaller than.
        metavar: what stands for a value in the help.
        parse: makes a value of a text, or raises ValueError; the message begins with the text.
        is_argument: whether its place says what it is.
        passed_to: of words that are another command's options: that command.
        reads_run: whether its paths are of runs that are read, which may also be URLs or zip files.
    """

    help: str = ""
    flags: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    is_argument: bool = False
    passed_to: str = ""
    reads_run: bool = False

    def check(self, name: str, value: object) -> None:
        """Raise ConfigError if `value` is no choice, or out of range."""
        if self.choices and value not in self.choices:
            raise ConfigError(f"{name} {value}: choose one of {', '.join(self.choices)}")
        if not isinstance(value, (int, float)):
            return
        if self.low <= value <= self.high and self.above < value < self.below:
            return
        if math.isfinite(self.low) and math.isfinite(self.high):
            raise ConfigError(f"{name} {value}: must be from {self.low} to {self.high}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} {value}: must be a finite number")
        bounds = {"at least": self.low, "at most": self.high, "above": self.above, "below": self.below}
        told = " and ".join(f"{words} {bound}" for words, bound in bounds.items() if math.isfinite(bound))
        raise ConfigError(f"{name} {value}: must be {told}")


def field(help: str, *flags: str, default: Any = None, **settings: Any) -> Any:
    """Return a dataclass field that knows its option; `settings` are further fields of `Option`."""
    return dataclasses.field(default=default, metadata={Option: Option(help, flags, **settings)})


def required(help: str, *flags: str, **settings: Any) -> Any:
    """Return such a field without a default."""
    return field(help, *flags, default=dataclasses.MISSING, **settings)


def argument(metavar: str | None = None) -> Any:
    """Return a field without a default that the command line asks for by its place."""
    return required("", metavar=metavar, is_argument=True)


def run_argument(metavar: str | None = None) -> Any:
    """Return such a field for a run that is read, or several, wherever they lie."""
    return required("", metavar=metavar, is_argument=True, reads_run=True)


def passed_on(command: str) -> Any:
    """Return a field, a tuple of texts, for all words after the arguments: another command's options, untouched."""
    metavar = f"[option of batchcam {command}]..."
    return field("", default=(), metavar=metavar, is_argument=True, passed_to=command)


def like(kind: type, name: str) -> Any:
    """Return a field that is asked for as the one of this name in `kind`."""
    model = next(field for field, _ in members(kind) if field.name == name)
    return dataclasses.field(default=model.default, metadata=model.metadata)


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


def members(kind: Any) -> list[tuple[dataclasses.Field[Any], Any]]:
    """Return the fields of a config and the type of each, without the None that an optional one may be."""
    hints = typing.get_type_hints(kind)
    return [(field, _without_none(hints[field.name])) for field in dataclasses.fields(kind)]


def first_member(kind: Any) -> tuple[dataclasses.Field[Any], Any]:
    """Return the field of a part of a config that its option asks for: the one that is not given by name."""
    return next(member for member in members(kind) if not member[0].kw_only)


def _without_none(hint: Any) -> Any:
    if not isinstance(hint, types.UnionType):
        return hint
    return next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)


def option_of(field: dataclasses.Field[Any]) -> Option:
    """Return how a field is asked for."""
    option: Option = field.metadata.get(Option, Option())
    return option


def flag(name: str) -> str:
    """Return an option by the name of its field."""
    return "--" + name.replace("_", "-")


def flag_of(field: dataclasses.Field[Any]) -> str:
    """Return the long name of a field's option, with its dashes."""
    long = [each for each in option_of(field).flags if each.startswith("--")]
    return long[0] if long else flag(field.name)


def parse_columns(text: str) -> dict[str, str]:
    """Return what columns of a manifest are called, by what they are, from "path=image_id,label=diagnosis"."""
    parts = [part.partition("=") for part in re.split(r",(?=(?:path|label|id)=)", text)]
    columns = {known: name.strip() for known, _, name in parts}
    if len(columns) != len(parts) or not columns.keys() <= {"path", "label", "id"} or not all(columns.values()):
        raise ValueError(f"{text!r}: expected such as path=image_id,label=diagnosis, of path, label and id")
    return columns


def parse_size(text: str) -> tuple[int, ...]:
    """Return (n,) for "N" and (height, width) for "HxW"."""
    match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    if not match or any(int(g) == 0 for g in match.groups() if g):
        raise ValueError(f"{text!r}: expected N or HxW, such as 224 or 240x320")
    return tuple(int(g) for g in match.groups() if g)


def parse_numbers(text: str) -> tuple[float, ...]:
    """Return the numbers of "a,b,c"."""
    try:
        numbers = tuple(float(p) for p in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{text!r}: expected numbers, such as 0.485,0.456,0.406, or one for all channels")
    return numbers


def parse_range(text: str) -> tuple[float, float]:
    """Return two numbers, of which the second is larger, from "LOW,HIGH"."""
    try:
        low, high = (float(p) for p in text.split(","))
    except ValueError:
        low = high = math.nan
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(f"{text!r}: expected LOW,HIGH, such as 0,4095")
    return (low, high)


def parse_preset(text: str) -> str:
    """Return the name of a preprocessing."""
    if text not in PRESET_NAMES and not re.fullmatch(r"[A-Za-z0-9_]+_Weights\.[A-Za-z0-9_]+|timm:[\w.]+", text):
        raise ValueError(
            f"{text}: choose one of {', '.join(PRESET_NAMES)}, or torchvision's or timm's name of weights, such as "
            "ResNet50_Weights.IMAGENET1K_V2 or timm:resnet50.a1_in1k"
        )
    return text


def parse_bytes(text: str) -> int:
    """Return bytes from "2G", "512M" or "800000": K, M, G and T are powers of 1024, as Slurm's --mem."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]+)?)([KMGT]?)B?", text.upper())
    if not match or not (size := int(float(match[1]) * 1024 ** " KMGT".index(match[2] or " "))):
        raise ValueError(f"{text!r}: expected bytes, such as 512M or 2G")
    return size


def parse_duration(text: str) -> float:
    """Return seconds from "90", "90s", "15m", "2h" or "HH:MM:SS"."""
    if match := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([smh]?)", text):
        return min(LONGEST_S, float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]])
    if match := re.fullmatch(r"([0-9]{1,9}):([0-5][0-9]):([0-5][0-9])", text):
        return min(LONGEST_S, int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3]))
    raise ValueError(f"{text!r}: expected seconds, 90s, 15m, 2h or HH:MM:SS")


# not frozen_default: mypy reads an inherited field of a frozen class as what it may be given as
@dataclass_transform(field_specifiers=(required, argument, run_argument, dataclasses.field))
class Part:
    """A frozen dataclass of what a command is asked, or of a part of it; it is checked when it is built.

    Where a field holds a Path, or what its option parses, a text will do. The docstring lists what the options say.
    """

    def __init_subclass__(cls) -> None:
        kind: Any = dataclasses.dataclass(frozen=True)(cls)
        told = [f"    {f.name}: {option_of(f).help}" for f in dataclasses.fields(kind) if option_of(f).help]
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Attributes:", *told])

    def __post_init__(self) -> None:
        """Refuse what can't be meant.

        Raises:
            ConfigError: the message names the option.
        """
        for field, kind in members(type(self)):
            object.__setattr__(self, field.name, _checked(field, kind, getattr(self, field.name)))


def _checked(field: dataclasses.Field[Any], kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if kind in (Path, str) and isinstance(value, (str, os.PathLike)):
        value = kind(os.fspath(value))
    option = option_of(field)
    if option.reads_run:
        value = tuple(map(local, value)) if isinstance(value, tuple) else local(value)
    elif isinstance(value, Path) and is_url(value):
        name = field.name.upper() if option.is_argument else flag_of(field)
        raise ConfigError(f"{name}: has to be a path of this machine, not a URL")
    is_one_for_all = typing.get_origin(kind) is tuple and not isinstance(value, tuple)
    if option.parse and (is_one_for_all or isinstance(value, str)):
        try:
            value = option.parse(str(value))
        except ValueError as error:
            raise ConfigError(f"{flag_of(field)} {error}") from error
    option.check(flag_of(field), value)
    return value


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


def parse_names(text: str) -> tuple[str, ...]:
    """Return the names of "a,b,c"."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len({*names}) < len(names):
        raise ValueError(f"{text!r}: expected names, each once, such as Effusion,Pneumonia")
    return names


def parse_verdicts(text: str) -> tuple[str, ...]:
    """Return the words of "a,b,c" that people may say of a sample."""
    words = parse_names(text)
    if len({word.casefold() for word in (*words, *OWN_VERDICTS)}) < len(words) + len(OWN_VERDICTS):
        raise ValueError(
            f"{text!r}: differ in case alone, or are {' or '.join(OWN_VERDICTS)}, which review says itself"
        )
    return words


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


AUTO: Final = "auto"


def parse_limit(text: str) -> float | str:
    """Return a limit, or "auto" for one from retrainings."""
    try:
        return text if text == AUTO else float(text)
    except ValueError:
        raise ValueError(f"{text!r}: expected a number, or auto") from None


PERCENT: Final[dict[str, Any]] = {"low": 0, "high": 100, "metavar": "P"}
SIMILARITY: Final[dict[str, Any]] = {"low": -1, "high": 1, "metavar": "S|auto", "parse": parse_limit}

ESTIMATE: Final = "estimate"
PROVEN_WITHIN: Final = "proven-within"
PROVEN_BEYOND: Final = "proven-beyond"


class Gates(Part):
    """How far a run may be from an older one."""

    _: dataclasses.KW_ONLY
    max_flips: float | str | None = field(
        "Gate: percent of compared samples whose prediction changed; multi-label: with a class that is told otherwise; "
        "auto, here and below: by --noise.",
        **(PERCENT | {"metavar": "P|auto", "parse": parse_limit}),
    )
    max_accuracy_drop: float | None = field(
        "Gate: percentage points, on samples labelled in both; not of multi-label runs.", **PERCENT
    )
    max_accuracy_rise: float | None = field("Gate: the same of a rise, as by a leak of the test set.", **PERCENT)
    min_accuracy: float | None = field(
        "Gate: percent of the same samples that NEW predicts right; promote, retrain: of a first version, too.",
        **PERCENT,
    )
    max_auroc_drop: float | None = field(
        "Gate, multi-label: points of 0.01 of the mean AUROC over the classes, on labels that both state.", **PERCENT
    )
    max_class_auroc_drop: float | None = field(
        f"Gate, multi-label: the same of each class with {FEWEST_IN_GROUP} labels that both state.", **PERCENT
    )
    min_cam_similarity: float | str | None = field(
        "Gate: mean similarity (rank correlation) of the CAMs.", **SIMILARITY
    )
    min_class_similarity: float | str | None = field(
        "Gate: the same of each class with ten pairs of CAMs.", **SIMILARITY
    )
    max_count_shift: float | None = field(
        "Gate: percent by which a class is predicted more or less often, of the larger count, if that is ten.",
        **PERCENT,
    )
    max_group_drop: float | None = field(
        f"Gate: percentage points, in each group of --group-by with {FEWEST_IN_GROUP} samples labelled in both; "
        "multi-label: of the AUROC of each class in each.",
        **PERCENT,
    )
    group_by: tuple[str, ...] = grouping()
    cluster: str | None = clustering()
    noise: tuple[AnyPath, ...] = field(
        "A run of OLD's samples by an honest retraining: its recipe, another seed. At least twice: tells whether NEW "
        "moves more than retraining does, and sets the limits that are auto.",
        default=(),
        metavar="RUN",
    )
    same_setup: bool = field(
        "Gate: the same preprocessing, precision, engine, class names and order of them.", default=False
    )
    min_compared: float | None = field(
        "Gate: percent of OLD that could be judged: of the samples, and of labels, maps and classes where a gate is on "
        f"them.  [default: {MIN_COMPARED:g} with a gate; 0: off]",
        **PERCENT,
    )
    decide: str = field(
        "Who decides where an interval holds the limit: the estimate; or pass only what is proven to be within it, or "
        "stop only what is proven to be beyond.",
        default=ESTIMATE,
        choices=(ESTIMATE, PROVEN_WITHIN, PROVEN_BEYOND),
    )
    confidence: float = confidence()
    shared_classes: bool = field("Compare the classes that both runs name, and leave out the others.", default=False)
    rename: tuple[str, ...] = field(
        "A class that NEW calls otherwise than OLD; may be repeated.", default=(), metavar="OLD=NEW"
    )
    changed_inputs: str = field(
        "Samples of one id whose images' bytes are others in NEW.", default="leave", choices=("compare", "leave")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for text in self.rename:
            if not re.fullmatch("(?s).+=.+", text):
                raise ConfigError(f"--rename {text}: want OLD=NEW, two names of one class")
        if self.max_group_drop is not None and not self.group_by:
            raise ConfigError("--max-group-drop: of which groups? say --group-by COLUMN")
        if self.min_accuracy is not None and 0 < self.min_accuracy <= 1:
            share = self.min_accuracy
            raise ConfigError(
                f"--min-accuracy {share:g}: in per cent: say {100 * share:g} for {share:.3f}, or more than 1"
            )

    def require_whole(self) -> None:
        """Refuse limits that are auto without retrainings to take them from, and who decides where no limit is.

        Raises:
            ConfigError: there are none.
        """
        if self.decide != ESTIMATE and not self.asks:
            raise ConfigError(f"--decide {self.decide}: of which gate? say one with a limit, such as --max-flips P")
        if self.auto and not self.noise:
            raise ConfigError(f"{flag(self.auto[0])} auto: from which retrainings? say --noise RUN, at least twice")

    def require_meant(self, multi_label: bool) -> None:
        """Refuse gates, and a single retraining, that mean nothing for the runs that are compared.

        Args:
            multi_label: whether they are.

        Raises:
            ConfigError: the message names the gates that do.
        """
        if len(self.noise) == 1:
            raise ConfigError(f"--noise {self.noise[0]}: one retraining has no spread: name at least two")
        given = [
            name for name in ("max_accuracy_drop", "max_accuracy_rise", "min_accuracy") if self.limits[name] is not None
        ]
        if multi_label and given:
            raise ConfigError(
                f"{flag(given[0])}: multi-label runs have no accuracy: say --max-auroc-drop P (points of 0.01 of the "
                "mean AUROC over the classes) or --max-class-auroc-drop P (of each class)"
            )
        for name in ("max_auroc_drop", "max_class_auroc_drop"):
            if self.limits[name] is not None and not multi_label:
                raise ConfigError(f"{flag(name)}: goes with multi-label runs: say --max-accuracy-drop P")

    @property
    def given(self) -> dict[str, Any]:
        """What is asked otherwise than by default, by name."""
        values = {each.name: (getattr(self, each.name), each.default) for each, _ in members(Gates)}
        return {name: value for name, (value, default) in values.items() if value != default}

    @property
    def words(self) -> list[str]:
        """The options of `batchcam compare` that ask for the same."""
        words: list[str] = []
        for name, value in self.given.items():
            if value is True:
                words.append(flag(name))
                continue
            for one in value if isinstance(value, tuple) else (value,):
                words += [flag(name), f"{one:.15g}" if isinstance(one, float | int) else str(one)]
        return words

    @property
    def limits(self) -> dict[str, float | str | None]:
        """The limits by name, None where none was asked for, AUTO where --noise tells it."""
        names = (each.name for each, _ in members(Gates) if each.name[:4] in ("max_", "min_"))
        return {name: getattr(self, name) for name in names if name != "min_compared"}

    @property
    def evidence(self) -> float:
        """Per cent of what OLD has that have to be judged, 0 where nothing depends on it."""
        if self.min_compared is not None:
            return self.min_compared
        return MIN_COMPARED if self.asks else 0

    @property
    def asks(self) -> bool:
        """Whether a limit was asked for."""
        return any(limit is not None for limit in self.limits.values())

    @property
    def is_gate(self) -> bool:
        """Whether anything was asked that may stop a run."""
        return self.evidence > 0 or self.same_setup or self.asks

    @property
    def auto(self) -> list[str]:
        """The limits that --noise tells."""
        return [name for name, limit in self.limits.items() if limit == AUTO]

    @property
    def of_one_run(self) -> Gates:
        """Those that mean something for a run held against itself: minima that are numbers."""
        others = {"rename", "noise", *self.auto}
        given = {name: value for name, value in self.given.items() if name not in others}
        return Gates(**{name: value for name, value in given.items() if not name.startswith("max_")})


def keywords(config: Callable[P, Built], command: Callable[[Built], Summary]) -> Callable[P, Summary]:
    """Return a command as the package's function of its name, which takes its config's fields."""

    @functools.wraps(command)
    def call(*values: P.args, **named: P.kwargs) -> Summary:
        return command(config(*values, **named))

    about = re.split("\n\n(?:Args|Raises):", inspect.cleandoc(command.__doc__ or ""))[0]
    call.__doc__ = f"{about}\n\nArgs:{(config.__doc__ or '').partition('Attributes:')[2]}"
    call.__module__ = "batchcam"  # where pickle finds it
    returned = inspect.signature(command).return_annotation
    vars(call)["__signature__"] = inspect.signature(config).replace(return_annotation=returned)
    return call


def require_outside(out: Path, run: Path) -> None:
    """Refuse to write into a run, which never changes and whose verification would report the file.

    Raises:
        ConfigError: `out` lies in `run`, or is it.
    """
    if out.resolve().is_relative_to(run.resolve()):
        raise ConfigError(f"--out {out}: lies in the run, which never changes; choose another place")


PROMOTED: Final = "promoted"
"""The link to the promoted version of a model, beside the versions."""


def require_version(version: Path) -> None:
    """Refuse what can't be a version of a model beside the link to the promoted one.

    Raises:
        ConfigError: it is the link itself, or something else lies where the link is to be.
    """
    if version.name == PROMOTED:
        raise ConfigError(f"{version}: is the link to the promoted version; name a new one")
    require_link(version.parent / PROMOTED)


def require_link(path: Path) -> None:
    """Refuse what is in the way of a link that is going to be moved.

    Raises:
        ConfigError: something lies at `path` that is no link.
    """
    if os.path.lexists(path) and not path.is_symlink():
        raise ConfigError(f"{path}: is in the way; it has to be a link, or nothing")


def read_option_file(path: Path, option: str) -> str:
    """Return the text of a small file that an option names; it may be a pipe, as from the shell's <(...).

    Raises:
        ConfigError: it can't be read, has more than `MOST_OPTION_BYTES`, as /dev/zero does, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_OPTION_BYTES + 1)
        if len(content) > MOST_OPTION_BYTES:
            raise ConfigError(f"{option} {path}: has more than {MOST_OPTION_BYTES} bytes")
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option} {path}: cannot read: {getattr(error, 'strerror', None) or error}") from error
