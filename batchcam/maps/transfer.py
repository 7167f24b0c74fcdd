"""Tensors on their way to a device and back, beside its computations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Arriving:
    """Tensors on their way to the host, and the event behind the last of them, None where there is nothing to wait for.

    Example:
        >>> arriving = transfer.to_host({"logits": logits})
        >>> ...  # whatever else there is to do
        >>> logits = arriving.arrays()["logits"]
    """

    tensors: Mapping[str, Tensor]
    arrived: torch.cuda.Event | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Wait until all are here, and return them."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return {name: tensor.numpy() for name, tensor in self.tensors.items()}


class Transfer:
    """Copies between the host and one device.

    With a GPU they have a stream for each direction, and page-locked memory on the host: they run beside the
    computations, and the host waits for none of them before it wants an array.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-streams

    Args:
        device: the other side.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._up, self._down = _stream(device), _stream(device)

    def to_device(self, tensor: Tensor) -> Tensor:
        """Return a host's tensor on the device; what is computed there next waits for it."""
        if self._up is None:
            return tensor.to(self._device)
        with torch.cuda.stream(self._up):
            moved = tensor.contiguous().pin_memory().to(self._device, non_blocking=True)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._up)
        moved.record_stream(computing)
        return moved

    def to_host(self, tensors: Mapping[str, Tensor]) -> Arriving:
        """Start to copy the device's tensors, once they are computed."""
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        if self._down is None:
            return Arriving({name: tensor.cpu() for name, tensor in whole.items()})
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            copies = {name: _page_locked_copy(tensor, self._down) for name, tensor in whole.items()}
            # while it waits a thread sleeps: the CPUs are there to decode images
            arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            arrived.record(self._down)
        return Arriving(copies, arrived)


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _page_locked_copy(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
    tensor.record_stream(stream)
    return copy
