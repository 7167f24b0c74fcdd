"""What `compare` is asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from batchcam.config.gates import Gates
from batchcam.config.options import AnyPath, Given, field, run_argument
from batchcam.config.places import require_outside
from batchcam.config.shared import Config, overwriting
from batchcam.errors import ConfigError


class CompareConfig(Gates, Config):
    """Everything that `compare` is asked."""

    old: Given[Path, AnyPath] = run_argument()
    new: Given[Path, AnyPath] = run_argument()
    _: dataclasses.KW_ONLY
    out: Given[Path | None, AnyPath | None] = field("Folder for compare.h5, compare.json and movers.csv.")
    target: str = field("Whose class's CAMs to compare.", default="old", choices=("old", "new", "label"))
    top: int = field("Movers to list of each kind.", default=50, low=0, high=10_000)
    overwrite: bool = overwriting()
    markdown: bool = field(
        "Tell it in GitHub's Markdown, as for a pull request's summary; not with --json.", default=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole()
        if self.out is not None:
            for run in (self.old, self.new, *map(Path, self.noise)):
                require_outside(self.out, run.parent if run.is_file() else run)

    def require_meant(self, multi_label: bool) -> None:
        """Refuse what means nothing for the runs that are compared, `--target label` of multi-label runs too."""
        super().require_meant(multi_label)
        if multi_label and self.target == "label":
            raise ConfigError("--target label: several labels of a sample may be true: say old or new")
