"""What `localize` is asked."""

from __future__ import annotations

from pathlib import Path

from batchcam.config.options import field, required
from batchcam.config.places import require_outside
from batchcam.config.shared import RunConfig, clustering, confidence, overwriting


class LocalizeConfig(RunConfig):
    """Everything that `localize` is asked."""

    annotations: Path = required("CSV file, COCO's JSON, folder of masks or YOLO's texts, or WSOL's localization.txt.")
    target: str = field("Whose CAM.", default="label", choices=("label", "predicted"))
    frame: str = field("view: what the network saw; image: WSOL's 224x224.", default="view", choices=("view", "image"))
    tolerance: float | None = field(
        "How far beside an object the pointing game counts as a hit, in pixels.  [default: 15 at 224]",
        low=0,
        metavar="PX",
    )
    mask_root: Path | None = field("Folder of the masks.  [default: where the annotations lie]")
    prefix: str | None = field("What stands before the sample ids in the annotations.  [default: found by itself]")
    confidence: float = confidence()
    cluster: str | None = clustering()
    out: Path | None = field("Folder for localize.json, localize.csv and curves.csv.")
    workers: int | None = field("Threads that judge maps.  [default: all CPUs, at most 8]", "-j", low=0)
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out is not None:
            require_outside(self.out, self.run.parent if self.run.is_file() else self.run)
