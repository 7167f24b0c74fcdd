"""What `render` is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchcam.config import Part, PartialConfig, field, originals, overwriting, require_outside, required
from batchcam.errors import ConfigError
from batchcam.rules import CERTAINTY, EVIDENCE, PALETTES

RANKINGS: Final = ("confidence", *CERTAINTY, "identity_residual", *EVIDENCE)
"""What samples can be ranked by: softmax at the predicted class; how far mean of CAM + bias is from the logit; and what
is measured of each sample."""

MOST_SHEET_PICTURES: Final = 1000
OTHER_PICTURES: Final = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pdf", ".svg")


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


class RenderConfig(PartialConfig):
    """Everything that `render` is asked."""

    out: Path = required("FILE.png: one sheet; else a folder: one picture per sample.")
    selection: Selection = Selection()
    data: str | None = originals()
    palette: str = field("Colours of the maps.", default="viridis", choices=PALETTES)
    cells: bool = field("Show the map's own cells instead of interpolating.", default=False)
    signed: bool = field("Raw values around zero: evidence for red, against blue.", default=False)
    contrast: tuple[str, str] | None = field(
        "CAM of class A minus that of B; also 'predicted', 'label'.", metavar="A B"
    )
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contrast and self.contrast[0] == self.contrast[1]:
            raise ConfigError(f"--contrast {self.contrast[0]} twice: name two different classes")
        require_outside(self.out, self.run)
        if self.out.suffix.lower() in OTHER_PICTURES and not self.out.is_dir():
            raise ConfigError(f"--out {self.out}: pictures are PNG; name a FILE.png, or a folder")
        asked = self.selection.top or self.selection.bottom or len(self.selection.sample_ids)
        if self.is_sheet and asked > MOST_SHEET_PICTURES:
            raise ConfigError(f"a sheet holds at most {MOST_SHEET_PICTURES} pictures; name a folder with --out")

    @property
    def of_one_label(self) -> str:
        """What it asks for that only samples of one label have, "" for nothing."""
        return self.selection.of_one_label or ("--contrast label" if "label" in (self.contrast or ()) else "")

    @property
    def is_sheet(self) -> bool:
        """Whether all pictures go into one file."""
        return self.out.suffix.lower() == ".png" and not self.out.is_dir()

    @property
    def is_signed(self) -> bool:
        """Whether zero has its own colour."""
        return self.signed or self.contrast is not None
