"""What each command is asked to do: one frozen dataclass a command, checked when built."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

from batchcam.errors import ConfigError
from batchcam.rules import CONTROLS, IDENTITY_TOLERANCE, METHODS

SEEDS = 2**32  # of which NumPy and torch take any
DEFAULT_BATCH_SIZE = 64
PRECISIONS = tuple(IDENTITY_TOLERANCE)
SAMPLE_TIMEOUT_S = 300.0  # longer than a file server's restart, shorter than a night

MOST = {"workers": 1024, "threads": 1024, "batch_size": 2**31 - 1, "shard_size": 2**31 - 1}
"""More does not fit into torch's integers or a run's plan, or would start so many processes."""

MOST_OPTION_BYTES = 2**24
"""Largest file of options or class names: a hundred for each of a hundred thousand classes, and more."""

LONGEST_S = 1e9
"""Thirty years; Python's timers refuse three hundred."""


def _require_count(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ConfigError(f"--{name.replace('_', '-')} {value}: must be at least {least}")
    if value is not None and value > MOST[name]:
        raise ConfigError(f"--{name.replace('_', '-')} {value}: must be at most {MOST[name]}")


def _require_seed(seed: int) -> None:
    if not 0 <= seed < SEEDS:
        raise ConfigError(f"--seed {seed}: must be from 0 to {SEEDS - 1}")


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Which network, which classes, which preprocessing, where the checkpoint does not say.

    Attributes:
        checkpoint: `.pth`, `.pt` or `.safetensors`.
        arch: torchvision's name of the network.
        model: `module:callable` that returns the network.
        class_names: file with one name a line.
        preprocess: preset, imagenet or seed.
        image_size: N or HxW, the network's input, cropped from the centre.
        resize: N (shorter side) or HxW.
        mean: three numbers, separated by commas.
        std: three numbers, separated by commas.
    """

    checkpoint: Path
    arch: str | None = None
    model: str | None = None
    class_names: Path | None = None
    preprocess: str | None = None
    image_size: str | None = None
    resize: str | None = None
    mean: str | None = None
    std: str | None = None

    def __post_init__(self) -> None:
        if self.arch and self.model:
            raise ConfigError("--arch and --model exclude each other: the callable of --model builds the whole network")


@dataclasses.dataclass(frozen=True)
class Compute:
    """How to compute.

    Attributes:
        batch_size: samples of one forward pass; None: the run's, or the default.
        workers: loader processes; None: chosen for the machine.
        threads: CPU threads of the network; None: all CPUs that this process may use.
        device: cpu, cuda, cuda:N, or auto.
        precision: of the forward pass; None: the run's, or fp32.
        sample_timeout: seconds after which reading a sample is given up; 0: never.
    """

    batch_size: int | None = None
    workers: int | None = None
    threads: int | None = None
    device: str = "auto"
    precision: str | None = None
    sample_timeout: float = SAMPLE_TIMEOUT_S

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("workers", 0), ("threads", 1)):
            _require_count(name, getattr(self, name), least)
        if self.precision not in (None, *PRECISIONS):
            raise ConfigError(f"--precision {self.precision}: choose one of {', '.join(PRECISIONS)}")


@dataclasses.dataclass(frozen=True)
class ExplainConfig:
    """Everything that `explain` is asked; None where the run's plan, or else a default, decides.

    Attributes:
        classifier: the network.
        data: the dataset, as given.
        out: the run directory.
        compute: how to compute.
        task: this worker's share, i/n.
        shard_size: samples of a shard.
        target_layer: name of the layer to explain instead of the one found.
        identity: False waives the proof that the maps add up to the logits.
        method: how to make maps, one of rules.METHODS; None: the exact CAM.
        control: weights to replace by random ones first, one of rules.CONTROLS.
        cams: which classes' CAMs to store.
        maps: kind of upsampled map to store.
        time_limit_s: stop before this many seconds have passed.
        dry_run: stop after the preflight line.
        quiet: no progress.
    """

    classifier: Classifier
    data: str
    out: Path
    compute: Compute = Compute()
    task: str | None = None
    shard_size: int | None = None
    target_layer: str | None = None
    identity: bool = True
    method: str | None = None
    control: str | None = None
    cams: str | None = None
    maps: str | None = None
    time_limit_s: float | None = None
    dry_run: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        _require_count("shard_size", self.shard_size, 1)
        for option, value, known in (("method", self.method, METHODS), ("control", self.control, CONTROLS)):
            if value not in (None, *known):
                raise ConfigError(f"--{option} {value}: choose one of {', '.join(known)}")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that `train` is asked; the defaults are the seed's recipe.

    Attributes:
        data: training dataset.
        out: where the best checkpoint goes; the last one lies beside it.
        val: validation dataset; None: a part of the training dataset.
        val_fraction: that part, by class.
        arch: torchvision's name of the network.
        weights: file, or torchvision's name, of pretrained weights.
        epochs: passes over the training samples.
        batch_size: samples of one step.
        learning_rate: of Adam.
        weight_decay: of Adam.
        seed: of the split, the initial weights and the order of samples.
        preprocess, image_size, resize, mean, std: see Classifier.
        workers, threads, device, sample_timeout: see Compute.
        quiet: no progress.
    """

    data: str
    out: Path
    val: str | None = None
    val_fraction: float = 0.1
    arch: str = "resnet18"
    weights: str | None = None
    epochs: int = 20
    batch_size: int = 40
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    seed: int = 0
    preprocess: str | None = None
    image_size: str | None = None
    resize: str | None = None
    mean: str | None = None
    std: str | None = None
    workers: int | None = None
    threads: int | None = None
    device: str = "auto"
    sample_timeout: float = SAMPLE_TIMEOUT_S
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ConfigError("--epochs must be at least 1 and --batch-size at least 2 (batch normalisation needs two)")
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"--val-fraction {self.val_fraction}: must be from 0 (no validation) to below 1")
        if not (0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf):
            raise ConfigError("--learning-rate must be above 0 and --weight-decay not below, both finite")
        _require_seed(self.seed)
        _require_count("batch_size", self.batch_size, 2)
        _require_count("workers", self.workers, 0)
        _require_count("threads", self.threads, 1)


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Everything that `evaluate` is asked."""

    classifier: Classifier
    data: str
    compute: Compute = Compute()
    quiet: bool = False


@dataclasses.dataclass(frozen=True)
class VerifyConfig:
    """Everything that `verify` is asked.

    Attributes:
        run: the run directory.
        recompute: how many samples, drawn at random, to explain again.
        classifier: the network to do it with; None without `recompute`.
        data: the dataset to do it with.
        seed: of the draw.
        device: where to do it.
        quiet: no progress.
    """

    run: Path
    recompute: int = 0
    classifier: Classifier | None = None
    data: str | None = None
    seed: int = 0
    device: str = "auto"
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.recompute < 0:
            raise ConfigError(f"--recompute {self.recompute}: must not be negative")
        if self.recompute and not (self.classifier and self.data):
            raise ConfigError("--recompute needs --checkpoint and --data")
        _require_seed(self.seed)


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """Everything that `demo` is asked."""

    out: Path
    seed: int = 0
    threads: int | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        _require_seed(self.seed)
        _require_count("threads", self.threads, 1)


def require_outside(out: Path, run: Path) -> None:
    """Refuse to write into a run, which never changes and whose verification would report the file.

    Raises:
        ConfigError: `out` lies in `run`, or is it.
    """
    if out.resolve().is_relative_to(run.resolve()):
        raise ConfigError(f"--out {out}: lies in the run, which never changes; choose another place")


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


def parse_size(text: str, option: str) -> tuple[int, ...]:
    """Return (n,) for "N" and (height, width) for "HxW".

    Raises:
        ConfigError: it is neither.
    """
    match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    if not match or any(int(g) == 0 for g in match.groups() if g):
        raise ConfigError(f"{option} {text!r}: expected N or HxW, such as 224 or 240x320")
    return tuple(int(g) for g in match.groups() if g)


def parse_triple(text: str, option: str) -> tuple[float, float, float]:
    """Return three numbers from "a,b,c", or the same number three times from "a".

    Raises:
        ConfigError: it is neither.
    """
    try:
        numbers = [float(p) for p in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"{option} {text!r}: expected three numbers, such as 0.485,0.456,0.406")
    return (numbers[0], numbers[1], numbers[2])


def parse_duration(text: str, option: str) -> float:
    """Return seconds from "90", "90s", "15m", "2h" or "HH:MM:SS".

    Raises:
        ConfigError: it is none of them.
    """
    if match := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([smh]?)", text):
        return min(LONGEST_S, float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]])
    if match := re.fullmatch(r"([0-9]{1,9}):([0-5][0-9]):([0-5][0-9])", text):
        return min(LONGEST_S, int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3]))
    raise ConfigError(f"{option} {text!r}: expected seconds, 90s, 15m, 2h or HH:MM:SS")
