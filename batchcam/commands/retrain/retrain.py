"""retrain: train, evaluate, and promote or not."""

from __future__ import annotations

from typing import Final

from batchcam.commands.promote.decision import NOISE, Candidate, DecisionSummary, decide, options_of, run_step
from batchcam.commands.retrain.config import RetrainConfig
from batchcam.config.shared import LabelOptions, ManifestReading
from batchcam.job.steps import Steps
from batchcam.store import landing
from batchcam.store.schema import MANIFEST_FILE

FIRST_SEED: Final = 1_000_000
"""Before those of retrainings, far from any that people choose."""


def retrain(config: RetrainConfig) -> DecisionSummary:
    """Train, evaluate, explain, verify, compare with the promoted version, then promote or refuse.

    Raises:
        StoppedEarlyError: another one is at work beside the version.
        BatchcamError: its folder can't be written to.
    """
    checkpoint = config.version_folder / "model.pth"
    # TEST's labels are written as those of TRAIN
    alike = [*options_of(ManifestReading, config.options), *options_of(LabelOptions, config.options)]

    def work(steps: Steps) -> bool:
        candidate = Candidate(config.version_folder, config.test, config, steps)
        unread = candidate.step("train", config.train, "--out", str(checkpoint), *config.options)
        candidate.step("evaluate", str(checkpoint), config.test, *alike)
        candidate.judge(checkpoint, *alike)
        return bool(unread) or candidate.findings

    def after(steps: Steps) -> None:
        for number in range(1, config.seeds + 1):
            folder = config.version_folder / NOISE / str(number)
            if not (folder / "run" / MANIFEST_FILE).exists():
                landing.make_folder(folder)
                again, seed = str(folder / "model.pth"), str(FIRST_SEED + number)
                run_step(steps, "train", config.train, "--out", again, *config.options, "--seed", seed)
                run_step(steps, "explain", again, config.test, "--out", str(folder / "run"), *alike)

    return decide(config.version_folder, config.quiet, work, after)
