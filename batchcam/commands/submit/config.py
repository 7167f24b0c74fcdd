"""What `submit` is asked, and what the jobs are that it submits."""

from __future__ import annotations

from pathlib import Path

from batchcam.config.gates import Gates
from batchcam.config.options import AnyPath, Given, argument, field, passed_on
from batchcam.config.shared import LARGEST_COUNT, Config
from batchcam.errors import ConfigError

WITHOUT_FILES = ("stl10:", "torchvision:", "python:")
"""How datasets begin that are no image files."""


class SubmitConfig(Gates, Config):
    """Everything that `submit` is asked."""

    checkpoint: str = argument("CKPT")
    data: str = argument()
    run: Given[Path, AnyPath] = argument()
    options: tuple[str, ...] = passed_on("explain")
    tasks: int = field("Tasks of the array, which share the shards.", default=8, low=1, high=LARGEST_COUNT)
    at_once: int | None = field("How many of them may run at the same time.  [default: all]", low=1, high=LARGEST_COUNT)
    gpus: bool = field("A GPU for each task, which fails without one that works.", default=False)
    stage: bool = field("Each task copies its share of DATA, image files, to its node's own disk first.", default=False)
    sbatch: tuple[str, ...] = field(
        "An option of sbatch for the array, such as --time=08:00:00; may be repeated.", default=(), metavar="OPTION"
    )
    finish_sbatch: tuple[str, ...] = field("The same for the job that finishes the run.", default=(), metavar="OPTION")
    against: Given[Path | None, AnyPath | None] = field(
        "An older run to compare with; gates end the last job with exit code 3.", metavar="OLD"
    )
    scripts: Given[Path | None, AnyPath | None] = field(
        "Folder of explain.sbatch and finish.sbatch.  [default: those that came with batchcam]"
    )
    wait: bool = field("Return when the last job has ended, with its exit code.", default=False)
    dry_run: bool = field("Print the lines for sbatch, submit nothing.", default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.against is None and (gates := self.words):
            raise ConfigError(f"{gates[0]} needs --against")
        self.require_whole()
        if self.stage and self.data.startswith(WITHOUT_FILES):
            raise ConfigError(f"--stage copies image files, of which {self.data} has none")


class FinishConfig(Gates, Config):
    """What the last job is asked."""

    data: str = argument()
    run: Given[Path, AnyPath] = argument()
    against: Given[Path | None, AnyPath | None] = field("An older run to compare with.", metavar="OLD")


class TaskConfig(Config):
    """What a task of the array is asked."""

    checkpoint: str = argument("CKPT")
    data: str = argument()
    run: Given[Path, AnyPath] = argument()
    options: tuple[str, ...] = passed_on("explain")
    tasks: int | None = field("Tasks of the whole array.", low=1, high=LARGEST_COUNT)
    stage_in: Given[Path | None, AnyPath | None] = field("Copy the images to a new folder in there first.")
    goes: int = field("Fail after so many goes in a row without a new shard.", default=10, low=1, high=LARGEST_COUNT)


class GpusConfig(Config):
    """What workers of several GPUs are asked."""

    gpus: int = argument("GPUS")
    checkpoint: str = argument("CKPT")
    data: str = argument()
    run: Given[Path, AnyPath] = argument()
    options: tuple[str, ...] = passed_on("explain")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gpus < 1:
            raise ConfigError(f"GPUS {self.gpus}: must be at least 1")
