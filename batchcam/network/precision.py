"""The arithmetic of this process, and of the forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import torch

from batchcam.job.cpus import available_cpus

_AUTOCAST_TYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_precision(precision: str, device: torch.device, threads: int | None = None) -> None:
    """Fix the arithmetic of this process: TF32 only when asked for, deterministic kernels, the number of CPU threads.

    Args:
        precision: fp32, tf32, bf16 or fp16.
        device: where the network runs.
        threads: of the network on CPUs; None: one for each available CPU.
    """
    torch.set_num_threads(threads or available_cpus())
    torch.backends.cudnn.allow_tf32 = precision == "tf32"  # of convolutions, which only networks have
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """Leave torch's settings of this process as they were, and its random numbers: a trainer goes on with them."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    in_use: Callable[[], bool] = torch.cuda.is_initialized  # torch gives it no types
    threads, device = torch.get_num_threads(), torch.cuda.current_device() if in_use() else None
    before = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32
    try:
        with torch.random.fork_rng(devices=()):  # a DataLoader draws a seed
            yield
    finally:
        torch.set_num_threads(threads)
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = before
        if device is not None:
            torch.cuda.set_device(device)


@contextlib.contextmanager
def in_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Give a forward pass on `device` its precision; what is computed outside of the block, as CAMs are, is float32."""
    dtype = _AUTOCAST_TYPES.get(precision)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
