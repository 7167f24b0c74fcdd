"""Rules that the worker applies and the auditor checks again: what a record may say, and numeric tolerances."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import unicodedata
from typing import Final


class Status(enum.IntFlag):
    """What is to be known about a sample's row; flags add up."""

    OK = 0
    UNREADABLE = 1  # the image could not be read: numbers are NaN, prediction -1, map 0
    NON_FINITE = 2  # a NaN or an infinity in logits or CAMs: map 0
    CONSTANT_MAP = 4  # the predicted class's CAM says nothing about where: map 0
    NO_POSITIVE_EVIDENCE = 8  # no cell of the predicted class's CAM is above zero


STATUS_MISSING: Final = 255
"""Fill value of the status: the row's shard is missing from the run."""

EXACT: Final = "cam"
"""The method whose maps add up to the logits; no identity covers the others."""

LEGRAD: Final = "legrad"

METHODS: Final = (EXACT, "gradcam", "gradcam++", "layercam", "hirescam", "xgradcam", "eigencam", LEGRAD)

CONTROL_WORDS: Final = {"head": "the last layer", "weights": "every layer"}
"""What has random weights in each control, for people."""

CONTROLS: Final = ("none", *CONTROL_WORDS)
"""What was replaced by random weights before explaining, to see whether maps care: nothing, the head, everything."""

SINGLE_LABEL: Final = "single-label"
MULTI_LABEL: Final = "multi-label"
PROBLEM_TYPES: Final = (SINGLE_LABEL, MULTI_LABEL)
"""Whether one class of a sample is true, by softmax, or each of them by itself, by sigmoid."""

DEFAULT_THRESHOLD: Final = 0.5

CONFIG_FILE: Final = "config.json"
"""By its presence a directory of transformers or timm is a checkpoint: it says which network it holds."""

MAP_KINDS: Final = ("uint8", "float32", "none")
"""The kinds of upsampled map of the predicted class."""

FEATURE_KINDS: Final = ("none", "float16", "float32")
"""How what the classifier takes is stored."""

PALETTES: Final = ("viridis", "jet")
"""Colours of maps: viridis is perceptually even, jet is the best known."""

EVIDENCE: Final = ("border_share", "corner_share", "spread", "peak_y", "peak_x")
"""Of the predicted class's map: shares of its positive evidence in the outermost ring and in the corner cells, its
relative entropy over the cells, and where the map is largest, as a share of the view from its top left."""

PEAK_IN_IMAGE: Final = ("peak_image_y", "peak_image_x")
"""The same place in pixels of the upright original; outside of it where the view is padded."""

CERTAINTY: Final = ("entropy", "margin", "loss")
"""Of the softmax: entropy in nats, lead of the largest probability over the next, cross-entropy against the label."""


@dataclasses.dataclass(frozen=True)
class CamSelection:
    """The classes whose CAMs are stored for each sample: all, predicted, predicted+label, positive, or topk:N.

    Attributes:
        text: as people and the plan write it.
        top: N of topk:N, None for the others.
    """

    text: str
    top: int | None = None

    @classmethod
    def parse(cls, text: str) -> CamSelection:
        """Return the selection that `text` says.

        Raises:
            ValueError: it is none.
        """
        if text in ("all", "predicted", "predicted+label", "positive"):
            return cls(text)
        kind, _, number = text.partition(":")
        if kind != "topk" or not number.isdecimal() or int(number) < 1:
            raise ValueError(f"{text!r}: choose one of all, predicted, predicted+label, positive, topk:N with N from 1")
        return cls(text, int(number))

    def __str__(self) -> str:
        return self.text

    @property
    def is_all(self) -> bool:
        """Whether every class has a CAM, in the order of the classes."""
        return self.text == "all"

    @property
    def has_label(self) -> bool:
        """Whether the label's CAM follows the predicted class's."""
        return self.text == "predicted+label"

    @property
    def is_positive(self) -> bool:
        """Whether the predicted class's CAM comes first, then those of the others that reach their thresholds."""
        return self.text == "positive"

    def count(self, class_count: int) -> int:
        """Return M, the most CAMs that a sample of a network with so many classes has.

        Raises:
            ValueError: there are fewer classes than `top`.
        """
        if self.top and self.top > class_count:
            raise ValueError(f"cams {self.text}: more than the {class_count} classes")
        return class_count if self.is_all or self.is_positive else self.top or 1 + self.has_label


@dataclasses.dataclass(frozen=True)
class Tokens:
    """`prefix` tokens that are no cells, such as the class token, then a grid row by row; written HxW or HxW+prefix."""

    height: int
    width: int
    prefix: int = 0

    @classmethod
    def parse(cls, text: str) -> Tokens:
        """Return what `str` wrote.

        Raises:
            ValueError: it wrote something else.
        """
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})(?:\+(\d{1,5}))?", text)
        if not match or not int(match[1]) * int(match[2]):
            raise ValueError(f"{text!r}: expected HxW, or HxW+N with N tokens before the grid's, such as 14x14+1")
        return cls(int(match[1]), int(match[2]), int(match[3] or 0))

    def __str__(self) -> str:
        return f"{self.height}x{self.width}" + (f"+{self.prefix}" if self.prefix else "")

    @property
    def cells(self) -> int:
        """How many lie in the grid."""
        return self.height * self.width

    @property
    def count(self) -> int:
        """How many there are."""
        return self.cells + self.prefix


IN_MEMORY: Final = "in memory"
"""What a record says first of a network or a dataset that is no file."""

CONSTANT_RELATIVE_RANGE: Final = 1e-6
"""A CAM is constant when max - min <= this * max(abs(max), abs(min)): float32 rounding, not evidence."""

IDENTITY_TOLERANCE: Final = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 5e-2, "fp16": 1e-2}
"""Largest abs(mean(CAM) + bias - logit) by precision, relative to max(1, largest abs(logit) of the sample)."""

FEATURE_TOLERANCE: Final = {**IDENTITY_TOLERANCE, "fp32": 1e-5}
"""The same of abs(W f + b - logit), f being the features as float32."""

HALF_ROUNDING: Final = (2.0**-11, 2.0**-25)
"""How far float16 is from the number that it stands for: as a share of it, and of numbers below its smallest one."""

TORCH: Final = "torch"
OPENVINO: Final = "openvino"
AUTO: Final = "auto"
ENGINES: Final = (AUTO, TORCH, OPENVINO)
"""What computes the network; auto: OpenVINO where it can, and is faster by ENGINE_GAIN, else torch."""

ENGINE_TOLERANCE: Final = 1e-5
"""Largest difference of another engine's logits and activations from torch's, as a share of their range."""

ENGINE_GAIN: Final = 1.15
"""How many times as fast as torch's its forward pass has to be: less is lost in starting, and in all that is not it."""

NO_NAME: Final = re.compile(r"[\\/\x00-\x1f\x7f]|^\.$")
"""What the name of an HDF5 object can't be, or the escape of it."""

VERDICTS: Final = ("right-reasons", "wrong-reasons", "unclear")
"""What a person can say of a sample whose map was looked at, unless other words are asked for."""

DISPUTED: Final = "disputed"
OPEN: Final = "open"
OWN_VERDICTS: Final = (DISPUTED, OPEN)
"""What is said of samples on which reviewers differ, and of those without a verdict."""

FEWEST_IN_GROUP: Final = 20
"""Labelled samples below which a group is not judged."""

BASELINE_NIGHTS: Final = 14
"""Before the first night that a trend judges: of fewer it is hardly known how much nights differ."""

FEWEST_NIGHTS: Final = 7
"""Of a baseline."""

RECOMPUTE_TOLERANCE: Final = {"fp32": 1e-3, "tf32": 2e-2, "bf16": 1e-1, "fp16": 2e-2}
"""Largest difference by precision when a network runs again, as a share of the sample's largest value: batches,
machines, libraries differ."""


def array_name(column: str) -> str:
    """Return the name of a column's array: its own; a backslash doubled, a slash or control character as `\\xNN`."""
    return NO_NAME.sub(lambda found: "\\\\" if found[0] == "\\" else f"\\x{ord(found[0]):02x}", column.strip())


def column_name(array: str) -> str:
    """Return the name of a column by that of its array."""
    return re.sub(r"\\(?:\\|x(..))", lambda found: chr(int(found[1], 16)) if found[1] else "\\", array)


def threshold_logit(threshold: float) -> float:
    """Return the logit from which a class of a multi-label run counts, whose sigmoid is `threshold`."""
    return math.log(threshold / (1 - threshold))


def composed(name: str) -> str:
    """Return a class name or an id in the Unicode form in which they are compared: Macs write another one (NFD)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def identity_words(method: str, identity: bool) -> str:
    """Return what a plan says of the identity, for people."""
    if method != EXACT:
        return f"none: maps by {method} do not add up to the logits"
    return "holds" if identity else "WAIVED: these maps do not explain the logits"


def in_memory(value: object) -> str:
    """Return what a record says of a network or a dataset in memory: that it is, and its class."""
    return f"{IN_MEMORY}: {type(value).__module__}.{type(value).__qualname__}"


def flag_name(flag: Status) -> str:
    """Return a status flag's name as people read it."""
    return str(flag.name).lower().replace("_", " ")
