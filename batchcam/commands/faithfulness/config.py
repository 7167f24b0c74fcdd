"""What `faithfulness` is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchcam.config.options import field
from batchcam.config.places import require_outside
from batchcam.config.shared import NetworkConfig, clustering, confidence, overwriting, random_seed

SUBSTRATE_NAMES: Final = ("mean", "zero", "blur")
"""What can stand in for the pixels that are taken away; `zero` is of the normalised input."""


class FaithfulnessConfig(NetworkConfig):
    """Everything that `faithfulness` is asked."""

    samples: int = field("How many to draw at random.", default=50, low=1)
    steps: int = field("Steps of each curve.", default=20, low=2, high=1000)
    seed: int = random_seed("the draw, the random orders and the noise")
    deletion_to: str = field("What deleted pixels become.", default="mean", choices=SUBSTRATE_NAMES)
    insertion_from: str = field("What pixels go into.", default="blur", choices=SUBSTRATE_NAMES)
    confidence: float = confidence()
    cluster: str | None = clustering()
    out: Path | None = field("Folder for faithfulness.json, faithfulness.csv and curves.csv.")
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out is not None:
            require_outside(self.out, self.run.parent if self.run.is_file() else self.run)
