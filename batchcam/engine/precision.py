"""The arithmetic of the forward pass."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import torch

from batchcam.cpus import available_cpus

_AUTOCAST_TYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_precision(precision: str, device: torch.device, threads: int | None = None) -> None:
    """Fix the arithmetic of this process: TF32 only when asked for, deterministic kernels, the number of CPU threads.

    Args:
        precision: fp32, tf32, bf16 or fp16.
        device: where the network runs.
        threads: of the network on CPUs; None: one for each available CPU.
    """
    torch.set_num_threads(threads or available_cpus())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a forward pass on `device` has this precision."""
    dtype = _AUTOCAST_TYPES.get(precision)
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()
