"""What `explain` is asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from batchcam.config.options import AnyPath, Given, argument, field, required
from batchcam.config.shared import LARGEST_COUNT, Classifier, Compute, LabelledConfig, MapDataset, time_limit
from batchcam.config.texts import parse_bytes
from batchcam.rules import CONTROLS, FEATURE_KINDS, MAP_KINDS, METHODS, CamSelection, Tokens

EVERYTHING: Final = 100
"""Per cent of images that may be unreadable where nothing is to stop the work."""


class ExplainConfig(LabelledConfig):
    """Everything that `explain` is asked; None where the run's plan, or else a default, decides."""

    classifier: Classifier = argument("CKPT")
    data: Given[str | MapDataset, AnyPath | MapDataset] = argument()
    out: Given[Path, AnyPath] = required("The run directory.")
    compute: Compute = Compute()
    task: str | None = field(
        "This worker's share of the shards, 0/N to N-1/N, done first.  [default: from what started it, or all]",
        metavar="I/N",
    )
    tasks: int | None = field(
        "How many tasks share the run, where their scheduler tells them only their numbers: arrays of Slurm and PBS, "
        "Indexed Jobs of Kubernetes.",
        low=1,
        high=LARGEST_COUNT,
    )
    share_only: bool = field(
        "End after this worker's share instead of helping with those that other workers have begun.", default=False
    )
    shard_size: int | None = field("Samples of one shard.  [default: about 64 MiB]", low=1, high=LARGEST_COUNT)
    target_layer: str | None = field(
        "Layer to explain.  [default: the one that the classifier pools; for gradient methods the last grid]"
    )
    tokens: Given[Tokens | None, Tokens | str | None] = field(
        "Which of a transformer's tokens are cells, row by row: a grid HxW after N tokens of another kind, such as "
        "14x14+1.  [default: found]",
        metavar="HxW[+N]",
        parse=Tokens.parse,
    )
    identity: bool = field(
        "Explain --target-layer although its CAMs do not add up to the logits.", "--no-identity", default=True
    )
    method: str | None = field(
        "cam adds up to the logits; the others are gradient methods, for networks without it.  [default: cam]",
        choices=METHODS,
    )
    control: str | None = field(
        "Sanity check: give the last layer (head) or all layers (weights) random weights, then explain; maps that "
        "stay the same do not depend on what was learned.",
        choices=CONTROLS,
    )
    cams: Given[CamSelection | None, CamSelection | str | None] = field(
        "Classes to store: all, predicted, predicted+label, topk:N; multi-label: positive, those that reach their "
        "thresholds and the prediction.  [default: all; predicted with gradients]",
        metavar="SELECTION",
        parse=CamSelection.parse,
    )
    maps: str | None = field("Upsampled map of the predicted class.  [default: uint8]", choices=MAP_KINDS)
    features: str | None = field(
        "Also store what the classifier takes, by which verify checks the logits again, and near-duplicates and wrong "
        "labels are found.  [default: none]",
        choices=FEATURE_KINDS,
    )
    time_limit_s: Given[float | None, float | str | None] = time_limit()
    max_unreadable: float = field(
        "Stop early when more per cent of the images of a shard can't be read, or none of the first ones. 100: never.",
        default=50,
        low=0,
        high=EVERYTHING,
        metavar="PERCENT",
    )
    retry_unreadable: bool = field(
        "Also try again what could not be read before; whatever could stays as it is, byte by byte.", default=False
    )
    stage_to: Given[Path | None, AnyPath | None] = field(
        "Copy this worker's images into a new folder there first, such as on the node's own disk; it is removed at the "
        "end.",
        metavar="FOLDER",
    )
    new_since: Given[Path | None, AnyPath | None] = field(
        "Leave out the samples that this complete run, or the complete runs of this folder, hold already: of the same "
        "id and size, explained in the same way. What they could not read is explained.",
        metavar="RUN",
    )
    by_digest: bool = field(
        "With --new-since: read the images and compare their SHA-256, not their size.", default=False
    )
    memory: Given[int | None, int | str | None] = field(
        "For images and maps on their way through this worker: decoded, waiting, put together into shards; the network "
        "takes its own.  [default: three quarters of what the machine, container or job leaves it]",
        low=1,
        metavar="BYTES",
        parse=parse_bytes,
    )
    dry_run: bool = field("Check everything, tell samples, shards and bytes, write nothing.", default=False)

    def nested(self) -> ExplainConfig:
        """Return the config itself, or the one that a call's keywords make."""
        return self


class ExplainKeywords(ExplainConfig, Compute, Classifier):
    """The same as a call in Python says it: the fields of the classifier and of computing stand beside the rest."""

    classifier: Classifier = dataclasses.field(init=False)
    compute: Compute = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Leave the check to `nested`."""

    def nested(self) -> ExplainConfig:
        """Return the config."""
        given = vars(self)
        own, classifier, compute = (
            {f.name: given[f.name] for f in dataclasses.fields(kind) if f.name in given}
            for kind in (ExplainConfig, Classifier, Compute)
        )
        return ExplainConfig(classifier=Classifier(**classifier), compute=Compute(**compute), **own)
