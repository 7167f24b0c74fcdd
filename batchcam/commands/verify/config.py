"""What `verify` is asked."""

from __future__ import annotations

import re
from pathlib import Path

from batchcam.config.options import AnyPath, Given, field
from batchcam.config.shared import Classifier, MapDataset, RunConfig, random_seed
from batchcam.errors import ConfigError


def parse_digest(text: str) -> str:
    """Return a SHA-256 in lower case."""
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise ValueError(f"{text!r}: expected a SHA-256, 64 hexadecimal digits")
    return text.lower()


class VerifyConfig(RunConfig):
    """Everything that `verify` is asked."""

    recompute: int = field("Run the network again on so many samples.", default=0, low=0)
    classifier: Classifier | None = field("The run's checkpoint, for --recompute.", "--checkpoint")
    data: Given[str | MapDataset | None, AnyPath | MapDataset | None] = field("The run's dataset, for --recompute.")
    seed: int = random_seed("the draw of samples")
    device: str = field("Where to recompute: cpu, cuda, cuda:N or auto.", default="auto")
    workers: int | None = field("Processes that read shards; 0: one.  [default: one for each CPU]", "-j", low=0)
    manifest_sha256: str | None = field(
        "SHA-256 of manifest.json, as verify told it when the run was made.", metavar="HEX", parse=parse_digest
    )
    signature: Given[Path | None, AnyPath | None] = field("SSH signature of manifest.json, namespace batchcam.")
    allowed_signers: Given[Path | None, AnyPath | None] = field(
        "Who may have signed: lines of name and public key, see ssh-keygen(1)."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recompute and not (self.classifier and self.data):
            raise ConfigError("--recompute needs --checkpoint and --data")
