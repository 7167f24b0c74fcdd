"""What `report` is asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from batchcam.config.gates import Gates
from batchcam.config.options import AnyPath, Given, field, flag, required
from batchcam.config.places import require_outside
from batchcam.config.shared import PartialConfig, originals, overwriting
from batchcam.errors import ConfigError

SUFFIXES: Final = (".html", ".htm")
MOST_TOP: Final = 200  # pictures of a kind: about 15 kB each, in a file that mail should carry

OF_ONE_RUN: Final = ("group_by", "confidence", "cluster")
"""What of `Gates` means something without an older run."""

NOTES: Final = ("intended purpose", "provider", "responsible person", "reviewer")
"""What a sign-off has room for, whoever tells it."""


class ReportConfig(Gates, PartialConfig):
    """Everything that `report` is asked."""

    out: Given[Path, AnyPath] = required("FILE.html: one file that needs nothing else.")
    data: str | None = originals()
    against: Given[Path | None, AnyPath | None] = field(
        "An older run of the same samples: tell what moved since; a gate that stops ends with 3.",
        metavar="OLD",
        reads_run=True,
    )
    review: tuple[AnyPath, ...] = field(
        "A file with people's verdicts on samples of the run, or a folder of them; may be repeated: show what follows.",
        default=(),
        metavar="PATH",
    )
    train_run: Given[Path | None, AnyPath | None] = field(
        "A run over the images that the network was trained on: those that RUN has too are findings.",
        metavar="RUN",
        reads_run=True,
    )
    note: tuple[str, ...] = field(
        "What the sign-off says and no record knows: intended purpose, provider, responsible person, reviewer, or "
        "another name; may be repeated.",
        default=(),
        metavar="NAME=TEXT",
    )
    top: int = field("Most pictures of each kind.", default=24, low=0, high=MOST_TOP)
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"--out {self.out}: want a name that ends in .html")
        if self.against is None and (asked := [name for name in self.given if name not in OF_ONE_RUN]):
            raise ConfigError(f"{flag(asked[0])} needs --against")
        _ = self.notes
        for run in (self.run, self.against, self.train_run):
            if run is not None:
                require_outside(self.out, run.parent if run.is_file() else run)

    @property
    def notes(self) -> dict[str, str | None]:
        """What --note tells by its name, None of a name of NOTES that it does not.

        Raises:
            ConfigError: a note has no name or no text, or its name stands twice.
        """
        found: dict[str, str | None] = dict.fromkeys(NOTES)
        for text in self.note:
            key, _, value = map(str.strip, text.partition("="))
            name = re.sub(r"[\s_-]+", " ", key).casefold()
            name = name if name in NOTES else key
            if not name or not value:
                raise ConfigError(f"--note {text}: want NAME=TEXT, such as reviewer=Ann")
            if found.get(name):
                raise ConfigError(f"--note {text}: {name} stands twice")
            found[name] = value
        return found
