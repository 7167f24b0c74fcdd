"""Which device a job runs on."""

from __future__ import annotations

import torch

from batchcam.errors import DeviceError


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device called `name`, a GPU as the current one; `auto` is a CUDA device, or the CPU.

    Args:
        name: torch's name of a device, or auto.
        local_rank: which of the workers on this machine asks; several CUDA devices are shared out among them.

    Raises:
        DeviceError: there is no such device here.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return _current(torch.device("cuda", local_rank % torch.cuda.device_count()))
    try:
        device = torch.device(name)
        torch.ones(1, device=device).cpu()  # a meta device holds no values
    except Exception as error:  # torch raises RuntimeError, AssertionError, NotImplementedError by device and build
        found = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise DeviceError(f"--device {name}: not on this machine; there are: {found}") from error
    return _current(device)


def _current(device: torch.device) -> torch.device:
    """Make a GPU the one that is meant where none is named: else half a gigabyte of the first one is taken as well."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device
