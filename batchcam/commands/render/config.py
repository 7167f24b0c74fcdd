"""What `render` is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchcam.config.options import field, required
from batchcam.config.places import require_outside
from batchcam.config.shared import PartialConfig, Selection, originals, overwriting
from batchcam.errors import ConfigError
from batchcam.rules import PALETTES

MOST_SHEET_PICTURES: Final = 1000
OTHER_PICTURES: Final = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pdf", ".svg")


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
