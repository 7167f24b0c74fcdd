"""explain-gpus: a worker for each GPU of this machine; in an allocation of Slurm's, which may have several, by srun."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping

from batchcam.commands.submit.config import GpusConfig
from batchcam.errors import EXIT_DONE, EXIT_FINDINGS, EXIT_STOPPED_EARLY, ConfigError
from batchcam.job.cpus import available_cpus
from batchcam.job.steps import Steps, batchcam, ended

BAD_TO_WORST = (EXIT_DONE, EXIT_FINDINGS, EXIT_STOPPED_EARLY)
"""Exit codes; all others are worse."""


@dataclasses.dataclass(frozen=True)
class GpusSummary:
    """The worst of the workers' exit codes; srun's, which is the highest."""

    exit_code: int


def explain_gpus(config: GpusConfig, environment: Mapping[str, str] = os.environ) -> GpusSummary:
    """Explain with several GPUs; a worker that fails or stops early is no reason to end the others.

    Raises:
        ConfigError: there are fewer GPUs.
    """
    jobs = list(_by_srun(config) if environment.get("SLURM_JOB_ID") else _by_us(config, environment))
    with Steps(config.quiet) as process:
        workers = [process.start(command, {**environment, **more}) for command, more in jobs]
        codes = [ended(worker) for worker in workers]
    return GpusSummary(max(codes, key=lambda code: (*BAD_TO_WORST, code).index(code)))


def _words(config: GpusConfig, *share: str) -> list[str]:
    words = ["explain", config.checkpoint, config.data, "--out", str(config.run), *share, "--device", "cuda"]
    return [*batchcam(), *words, *config.options]


def _by_srun(config: GpusConfig) -> Iterator[tuple[list[str], dict[str, str]]]:
    yield ["srun", f"--ntasks={config.gpus}", "--gpus-per-task=1", "--kill-on-bad-exit=0", *_words(config)], {}


def _by_us(config: GpusConfig, environment: Mapping[str, str]) -> Iterator[tuple[list[str], dict[str, str]]]:
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    devices = [str(i) for i in range(config.gpus)] if visible is None else visible.split(",")
    if len(devices) < config.gpus:
        raise ConfigError(f"CUDA_VISIBLE_DEVICES names {len(devices)} GPUs, not {config.gpus}")
    cpus = str(max(1, available_cpus() // config.gpus))
    given = {name: environment.get(name, cpus) for name in ("BATCHCAM_THREADS", "BATCHCAM_WORKERS")}
    for index in range(config.gpus):
        yield _words(config, "--task", f"{index}/{config.gpus}"), {**given, "CUDA_VISIBLE_DEVICES": devices[index]}
