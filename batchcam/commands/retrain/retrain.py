"""retrain: train, evaluate, and promote or not."""

from __future__ import annotations

from batchcam.commands.promote.decision import Candidate, DecisionSummary, decide, options_of
from batchcam.commands.retrain.config import RetrainConfig
from batchcam.config import LabelOptions, ManifestReading
from batchcam.job.steps import Steps


def retrain(config: RetrainConfig) -> DecisionSummary:
    """Train, evaluate, explain, verify, compare with the promoted version, then promote or refuse.

    Raises:
        StoppedEarlyError: another one is at work beside the version.
        BatchcamError: its folder can't be written to.
    """
    checkpoint = config.version_folder / "model.pth"

    def work(steps: Steps) -> bool:
        candidate = Candidate(config.version_folder, config.test, config, steps)
        unread = candidate.step("train", config.train, "--out", str(checkpoint), *config.options)
        # TEST's labels are written as those of TRAIN
        alike = [*options_of(ManifestReading, config.options), *options_of(LabelOptions, config.options)]
        candidate.step("evaluate", str(checkpoint), config.test, *alike)
        candidate.judge(checkpoint, *alike)
        return bool(unread) or candidate.findings

    return decide(config.version_folder, config.quiet, work)
