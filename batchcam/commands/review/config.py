"""What `review` is asked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from batchcam.config import AnyPath, Config, Given, argument, confidence, field, parse_verdicts


def parse_limit(text: str) -> tuple[str, float]:
    """Return a word and per cent, from "WORD=P"."""
    word, _, number = text.partition("=")
    try:
        limit = float(number)
    except ValueError:
        limit = -1
    if not word or not 0 <= limit <= 100:
        raise ValueError(f"{text!r}: expected WORD=P, a verdict and percent, such as wrong-reasons=5")
    return word, limit


class ReviewConfig(Config):
    """Everything that `review` is asked."""

    files: Given[tuple[Path, ...], AnyPath | Iterable[AnyPath]] = argument("FILES...")
    _: dataclasses.KW_ONLY
    run: Given[Path | None, AnyPath | None] = field("Check also that RUN has these samples, with these images.")
    draw: Given[Path | None, AnyPath | None] = field(
        "The draw.json of the samples.  [default: that beside the files]", metavar="FILE"
    )
    verdicts: Given[tuple[str, ...] | None, Sequence[str] | str | None] = field(
        "Words that count as verdicts.  [default: those of the draw]", metavar="WORD,…", parse=parse_verdicts
    )
    max: tuple[str, ...] = field(
        "Gate: percent of all samples drawn from, by the estimate, with this verdict, or disputed, or open; may be "
        "repeated.",
        default=(),
        metavar="WORD=P",
    )
    min_kappa: float | None = field("Gate: agreement beyond chance.", low=-1, high=1, metavar="K")
    confidence: float = confidence()

    def __post_init__(self) -> None:
        given: AnyPath | Iterable[AnyPath] = self.files
        paths = [given] if isinstance(given, (str, os.PathLike)) else given
        object.__setattr__(self, "files", tuple(map(Path, paths)))
        super().__post_init__()
