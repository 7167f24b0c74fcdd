"""promote: judge a checkpoint that somebody else's code trained, and promote it or not."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchcam.commands.promote.config import PromoteConfig
from batchcam.commands.promote.decision import Candidate, DecisionSummary, decide
from batchcam.errors import BatchcamError, ConfigError
from batchcam.job.steps import Steps
from batchcam.rules import CONFIG_FILE
from batchcam.store import landing

PARTS: Final = (".json", ".safetensors", ".bin")
"""Endings of what directories of transformers and timm are read from."""


def promote(config: PromoteConfig) -> DecisionSummary:
    """Copy a checkpoint to VERSION, explain, verify, compare with the promoted version, then promote or refuse.

    Raises:
        StoppedEarlyError: another one is at work beside the version.
        ConfigError: there is no such checkpoint.
        BatchcamError: VERSION holds another one, or can't be written to.
    """
    checkpoint = config.checkpoint
    if not (checkpoint.is_file() or (checkpoint / CONFIG_FILE).is_file()):
        without = f"a directory without a {CONFIG_FILE}: name a checkpoint in it"
        raise ConfigError(f"{checkpoint}: {without if checkpoint.is_dir() else 'no such file'}")

    def work(steps: Steps) -> bool:
        candidate = Candidate(config.version_folder, config.test, config, steps)
        candidate.judge(_adopted(checkpoint, config.version_folder), *config.options)
        return candidate.findings

    return decide(config.version_folder, config.quiet, work)


def _adopted(checkpoint: Path, version: Path) -> Path:
    """Return the checkpoint of a version: a copy, so that it and its run are of one version, always.

    Of a directory, its config.json comes last: its presence means that the others are there.
    """
    files = _files(checkpoint)
    names = sorted(files, key=CONFIG_FILE.__eq__)
    copy = version / f"model{checkpoint.suffix if checkpoint.is_file() else ''}"
    if (copy / names[-1]).exists():
        if not copy.samefile(checkpoint) and _digests(copy) != _digests(checkpoint):
            raise BatchcamError(f"{copy}: is there, and another checkpoint than {checkpoint}; name a new VERSION")
        return copy
    if checkpoint.is_dir():
        landing.make_folder(copy)
        for left in _files(copy).values():  # of a copy that was stopped
            left.unlink()
    for name in names:
        landing.land(copy / name, files[name].read_bytes())
    return copy


def _files(checkpoint: Path) -> dict[str, Path]:
    """Return the files of a checkpoint by their name in it: of a directory, those that it may be read from."""
    if not checkpoint.is_dir():
        return {"": checkpoint}
    return {path.name: path for path in checkpoint.iterdir() if path.suffix in PARTS and path.is_file()}


def _digests(checkpoint: Path) -> dict[str, str]:
    return {name: landing.file_digest(path) for name, path in _files(checkpoint).items()}
