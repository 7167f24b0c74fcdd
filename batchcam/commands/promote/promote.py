"""promote: judge a checkpoint that somebody else's code trained, and promote it or not."""

from __future__ import annotations

from pathlib import Path

from batchcam.commands.promote.config import PromoteConfig
from batchcam.commands.promote.decision import Candidate, DecisionSummary, decide
from batchcam.errors import BatchcamError, ConfigError
from batchcam.job.steps import Steps
from batchcam.store import landing


def promote(config: PromoteConfig) -> DecisionSummary:
    """Copy a checkpoint to VERSION, explain, verify, compare with the promoted version, then promote or refuse.

    Raises:
        StoppedEarlyError: another one is at work beside the version.
        ConfigError: there is no such checkpoint.
        BatchcamError: VERSION holds another one, or can't be written to.
    """
    if not config.checkpoint.is_file():
        what = "a directory: save its weights as one file" if config.checkpoint.is_dir() else "no such file"
        raise ConfigError(f"{config.checkpoint}: {what}")

    def work(steps: Steps) -> bool:
        candidate = Candidate(config.version_folder, config.test, config, steps)
        candidate.judge(_adopted(config.checkpoint, config.version_folder), *config.options)
        return candidate.findings

    return decide(config.version_folder, config.quiet, work)


def _adopted(checkpoint: Path, version: Path) -> Path:
    """Return the checkpoint of a version: a copy, so that it and its run are of one version, always.

    Raises:
        BatchcamError: the version has another one.
    """
    copy = version / f"model{checkpoint.suffix}"
    if copy.exists():
        if not copy.samefile(checkpoint) and landing.file_digest(copy) != landing.file_digest(checkpoint):
            raise BatchcamError(f"{copy}: is there, and another checkpoint than {checkpoint}; name a new VERSION")
    else:
        landing.land(copy, checkpoint.read_bytes())
    return copy
