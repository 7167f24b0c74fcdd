"""What `verify` is asked."""

from __future__ import annotations

from batchcam.config import AnyPath, Classifier, Given, MapDataset, RunConfig, field, random_seed
from batchcam.errors import ConfigError


class VerifyConfig(RunConfig):
    """Everything that `verify` is asked."""

    recompute: int = field("Run the network again on so many samples.", default=0, low=0)
    classifier: Classifier | None = field("The run's checkpoint, for --recompute.", "--checkpoint")
    data: Given[str | MapDataset | None, AnyPath | MapDataset | None] = field("The run's dataset, for --recompute.")
    seed: int = random_seed("the draw of samples")
    device: str = field("Where to recompute: cpu, cuda, cuda:N or auto.", default="auto")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recompute and not (self.classifier and self.data):
            raise ConfigError("--recompute needs --checkpoint and --data")
