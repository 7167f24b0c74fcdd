"""Which device a job runs on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

import torch

from batchcam.errors import DeviceError

VISIBLE: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""Which GPUs a process may use: where one of them is set, no other variable matters."""

ALLOCATED: Final = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "GPU_DEVICE_ORDINAL", "NVIDIA_VISIBLE_DEVICES")
"""Which GPUs a scheduler, or what starts a container, gave."""

COUNTED: Final = tuple(f"SLURM_GPUS{each}" for each in ("", "_ON_NODE", "_PER_NODE", "_PER_SOCKET", "_PER_TASK"))
"""How many GPUs Slurm was asked for, or gave: 2, or a100:2."""

# images with CUDA inside say "all" wherever they run
NO_GPU: Final = re.compile(r"\s*(-1.*|none|void|all|NoDevFiles)?\s*", re.IGNORECASE)


def pick_device(name: str, local_rank: int = 0, environment: Mapping[str, str] = os.environ) -> torch.device:
    """Return the device called `name`, a GPU as the current one; `auto` is a CUDA device, or the CPU.

    Args:
        name: torch's name of a device, or auto.
        local_rank: which of the workers on this machine asks; several CUDA devices are shared out among them.
        environment: where it may say that a GPU was asked for.

    Raises:
        DeviceError: there is no such device here, or none that works; or `auto` finds no GPU where one was asked for.
    """
    if name == "auto" and not torch.cuda.is_available():
        _require_none_asked_for(environment)
        return torch.device("cpu")
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    meant = gpus[local_rank % len(gpus)] if gpus and name in ("auto", "cuda") else name
    try:
        device = torch.device(meant)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # or half a gigabyte of the first one is taken as well
        torch.ones(1, device=device).cpu()  # a meta device holds no values
    except Exception as error:  # torch raises RuntimeError, AssertionError, NotImplementedError by device and build
        if meant in gpus:
            raise DeviceError(
                f"--device {name}: {meant} does not work: {error}; mend it, or say --device cpu"
            ) from error
        raise DeviceError(f"--device {name}: not on this machine; there are: {', '.join(['cpu', *gpus])}") from error
    return device


def gpu_count(device: torch.device) -> int:
    """Return how many GPUs of this machine `device` was chosen from, 0 if it is none."""
    return torch.cuda.device_count() if device.type == "cuda" else 0


def _require_none_asked_for(environment: Mapping[str, str]) -> None:
    asked = _asked_for(environment)
    if asked:
        raise DeviceError(
            f"--device auto: a GPU was asked for, as {asked}={environment[asked]} says, but torch {torch.__version__} "
            f"finds none that works: {_why_none()}; mend that, or say --device cpu"
        )


def _asked_for(environment: Mapping[str, str]) -> str | None:
    """Return the name of a variable that says that this process is meant to have a GPU."""
    given = [name for name in VISIBLE if name in environment] or [*ALLOCATED, *COUNTED]
    for name in given:
        value = environment.get(name, "")
        is_zero = name in COUNTED and re.search(r"(^|:)0+$", value)
        if not is_zero and not NO_GPU.fullmatch(value):
            return name
    return None


def _why_none() -> str:
    try:
        torch.zeros(1, device="cuda")
    except Exception as error:  # torch raises RuntimeError, AssertionError by what is missing
        return str(error).partition(". ")[0]
    return "no CUDA device"
