"""What texts of options mean."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Final

from batchcam.errors import ConfigError
from batchcam.rules import OWN_VERDICTS

PRESET_NAMES: Final = ("imagenet", "stl10")

MOST_OPTION_BYTES: Final = 2**24
"""Largest file of options or class names: a hundred for each of a hundred thousand classes, and more."""

LONGEST_S: Final = 1e9
"""Thirty years; Python's timers refuse three hundred."""


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
