"""What `export` is asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from batchcam.config.options import AnyPath, Given, field, required
from batchcam.config.places import require_outside
from batchcam.config.shared import PartialConfig, originals
from batchcam.errors import ConfigError
from batchcam.rules import PALETTES

FORMATS: Final = ("virelay", "wsol", "png", "fiftyone", "csv", "parquet", "npz", "h5", "zarr", "intoto")
TAKES: Final = {
    "data": ("virelay", "png", "fiftyone"),
    "target": ("virelay", "wsol", "png", "fiftyone"),
    "predicted": tuple(name for name in FORMATS if name not in ("zarr", "intoto")),
    "size": ("virelay", "wsol"),
    "palette": ("png",),
    "train_run": ("csv", "parquet"),
}
"""Which formats an option is for."""

FILE_ENDINGS: Final = (".csv", ".parquet")
LARGEST_SIDE: Final = 4096
SIZES: Final = f"want HxW of at most {LARGEST_SIDE}, input, or grid (virelay)"


def parse_map_size(text: str) -> tuple[int, int] | str:
    """Return (height, width), or the words input or grid."""
    if text in ("input", "grid"):
        return text
    match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text, re.ASCII)
    height, width = (int(side) for side in match.groups()) if match else (0, 0)
    if not match or max(height, width) > LARGEST_SIDE:
        raise ValueError(f"{text}: {SIZES}")
    return height, width


class ExportConfig(PartialConfig):
    """Everything that `export` is asked; the folder is new, empty, or an earlier call's, which goes on."""

    to: str = required("parquet: pip install pyarrow first.", choices=FORMATS)
    out: Path = required("Folder; run again to go on.")
    data: str | None = originals(", for virelay, png and fiftyone")
    target: str | None = field("Explained class.  [default: predicted; label for wsol]", choices=("predicted", "label"))
    predicted: str | None = field("Samples predicted as this class alone, by name or index.", metavar="C")
    size: tuple[int, int] | str | None = field(
        "Size of the maps, or 'input', or for virelay 'grid'.  [default: 224x224 for wsol]",
        metavar="HxW",
        parse=parse_map_size,
    )
    train_run: Given[Path | None, AnyPath | None] = field(
        "For csv and parquet of a run with features: of each sample also the nearest one of this other run, such as of "
        "the training images.",
        metavar="RUN",
        reads_run=True,
    )
    palette: str | None = field("Colours of the maps, for png.  [default: viridis]", choices=PALETTES)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, formats in TAKES.items():
            if getattr(self, name) is not None and self.to not in formats:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option}: not an option of {self.to}, only of {', '.join(formats)}")
        if self.size == "grid" and self.to != "virelay":
            raise ConfigError(f"--size grid: {SIZES}")
        if self.out.suffix.lower() in FILE_ENDINGS and not self.out.is_dir():
            raise ConfigError(f"--out {self.out}: a folder is made: name it without the ending")
        require_outside(self.out, self.run)
