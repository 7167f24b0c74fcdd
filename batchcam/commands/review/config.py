"""What `review` is asked."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from batchcam.config.options import AnyPath, Given, argument, field
from batchcam.config.shared import Config, confidence
from batchcam.config.texts import parse_verdicts
from batchcam.errors import ConfigError


class ReviewConfig(Config):
    """Everything that `review` is asked."""

    files: Given[tuple[Path, ...], AnyPath | Iterable[AnyPath]] = argument("FILES...")
    _: dataclasses.KW_ONLY
    run: Given[Path | None, AnyPath | None] = field(
        "Check also that RUN has these samples, with these images.", reads_run=True
    )
    draw: Given[Path | None, AnyPath | None] = field(
        "The draw.json of the samples.  [default: that beside the files]", metavar="FILE"
    )
    verdicts: Given[tuple[str, ...] | None, Sequence[str] | str | None] = field(
        "Words that count as verdicts.  [default: those of the draw]", metavar="WORD,…", parse=parse_verdicts
    )
    max: tuple[str, ...] = field(
        "Gate: percent of all samples drawn from, by the estimate, with this verdict, of anybody or still open; or "
        "disputed; or open; may be repeated.",
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
        _ = self.limits

    @property
    def limits(self) -> dict[str, float]:
        """The gates on verdicts, per cent by word.

        Raises:
            ConfigError: one can't be understood.
        """
        found = {}
        for text in self.max:
            word, _, number = text.partition("=")
            if not word or not re.fullmatch(r"\d{1,3}(\.\d+)?", number) or float(number) > 100:
                raise ConfigError(f"--max {text}: want WORD=P, a verdict and percent, such as wrong-reasons=5")
            found[word] = float(number)
        return found
