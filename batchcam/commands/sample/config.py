"""What `sample` is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from batchcam.config.options import Given, field, flag_of, members, required
from batchcam.config.places import require_outside
from batchcam.config.shared import PartialConfig, Selection, originals, overwriting, random_seed
from batchcam.config.texts import parse_verdicts
from batchcam.rules import VERDICTS

MOST_DRAWN: Final = 5000  # about 15 kB of pictures each, in one file


class SampleConfig(PartialConfig):
    """Everything that `sample` is asked."""

    out: Path = required("Folder for verdicts.csv, to be filled in, sheet.html with the pictures, and draw.json.")
    n: int = field("How many samples to draw.", default=100, low=1, high=MOST_DRAWN, metavar="N")
    seed: int = random_seed("the draw")
    stratify: str | None = field(
        "Draw in proportion, and at least 2, of each class (where not known the predicted one), prediction or status; "
        "or of each value of a further column of the manifest.",
        metavar="class, prediction, status, COLUMN",
    )
    verdicts: Given[tuple[str, ...], Sequence[str] | str] = field(
        "Words that people may say of a sample.", default=",".join(VERDICTS), metavar="WORD,…", parse=parse_verdicts
    )
    selection: Selection = Selection()
    data: str | None = originals()
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_outside(self.out, self.run.parent if self.run.is_file() else self.run)

    @property
    def pool(self) -> str:
        """The options that choose the samples to draw from, "" where there are none."""
        asked = [(field, getattr(self.selection, field.name)) for field, _ in members(Selection)]
        told = [(flag_of(field), value) for field, value in asked if value != field.default]
        return " ".join(flag if value is True else f"{flag} {_text(value)}" for flag, value in told)


def _text(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)
