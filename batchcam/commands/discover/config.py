"""What `discover` is asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from batchcam.config.options import AnyPath, Given, field
from batchcam.config.places import require_outside
from batchcam.config.shared import NetworkConfig, overwriting, random_seed


class DiscoverConfig(NetworkConfig):
    """Everything that `discover` is asked."""

    _: dataclasses.KW_ONLY
    samples: int = field("How many to draw, of each predicted class as many.", default=1000, low=1)
    max_portable: float | None = field(
        "Gate: percent of other classes' images that a class's region turns into this class, beyond what control "
        "regions turn; of the worst class, and of all.",
        low=0,
        high=100,
    )
    seed: int = random_seed("the draw, the random regions and the noise")
    out: Given[Path | None, AnyPath | None] = field("Folder for discover.html, discover.h5 and discover.json.")
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out is not None:
            require_outside(self.out, self.run.parent if self.run.is_file() else self.run)
