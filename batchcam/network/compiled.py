"""A network as one compiled graph of OpenVINO: the same function in less time on a CPU.

https://docs.openvino.ai/2026/openvino-workflow/model-preparation/convert-model-pytorch.html
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import math
import sys
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from batchcam.errors import ConfigError, ModelError, one_line
from batchcam.network.compiled_cache import MEASURED, keep, key_of, read
from batchcam.network.forward import REASON_LENGTH, forward
from batchcam.rules import AUTO, ENGINE_GAIN, ENGINE_TOLERANCE, TORCH
from batchcam.version import version

if TYPE_CHECKING:
    from types import ModuleType

LIBRARIES: Final = ("openvino", "torch", "torchvision", "timm", "transformers")

ODD_COUNT: Final = 3
"""Images of the batch that proves a graph: none of the two that it was traced with, nor one."""

PIXELS_AT_ONCE, PIECES, FEWEST_IMAGES = 2 * 224 * 224, 16, 2
"""A piece of a batch is no larger than that many pixels, nor than a sixteenth or two images: all threads have work.

Not by the number of threads: results are equal to the last bit only for equal pieces.
"""

MEASURED_IMAGES, ROUNDS, MEASURING_S = 4, 3, 2.0
"""The batch that both engines are measured with, how often at least, and for how many seconds of CPU at least."""


def is_installed() -> bool:
    """Return whether OpenVINO is here."""
    return importlib.util.find_spec("openvino") is not None


class CompiledNetwork(nn.Module):
    """Normalised images (N, C, H, W), float32 on the CPU, to logits (N, K), through one compiled graph.

    Each piece of a batch is one thread's: threads that share a piece wait for each other by spinning, and where a
    loader process has taken one's CPU, the other's is lost.

    Args:
        queue: openvino.AsyncInferQueue of what it compiled; takes images with their channels last.

    Attributes:
        target: gives the target layer's output as it is, for whoever listens; not called by a graph of logits alone.
    """

    def __init__(self, queue: Any) -> None:
        super().__init__()
        self.target = nn.Identity()
        self._queue = queue

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        pixels = images.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()
        size = max(1, min(PIXELS_AT_ONCE // math.prod(images.shape[2:]), max(FEWEST_IMAGES, len(images) // PIECES)))
        done: dict[int, list[Tensor]] = {}

        def take(request: Any, start: int) -> None:
            # copied: the request's next piece comes to the same memory
            done[start] = [torch.from_numpy(each.data.copy()) for each in request.output_tensors]

        self._queue.set_callback(take)
        for start in range(0, len(images), size):
            self._queue.start_async([pixels[start : start + size]], start, share_inputs=True)
        self._queue.wait_all()
        logits, *outputs = (torch.cat(each) for each in zip(*(done[n] for n in sorted(done)), strict=True))
        for output in outputs:
            self.target(output)
        return logits


def on_engine(
    engine: str,
    network: nn.Module,
    layer: str | None,
    probe: Tensor,
    precision: str,
    source: Sequence[str] | None,
    gain: float = ENGINE_GAIN,
) -> tuple[nn.Module, str]:
    """Return the network as an engine computes it, a `CompiledNetwork`, or itself by torch; and why, where it is told.

    Args:
        engine: one of rules.ENGINES; auto takes OpenVINO for networks of libraries only, whose `source` is known.
        network, layer, probe, source: see `compiled`; the network may be anywhere.
        gain: how many times as fast as torch auto takes it; 0: however fast, and nothing is measured.

    Raises:
        ConfigError: OpenVINO is asked for on a GPU, or in another precision than fp32.
        ModelError: it is asked for, and can't compute the network as torch does.
    """
    fits = probe.device.type == "cpu" and precision == "fp32"
    # a graph has one branch of each: code that nobody knows may take another for images that the probe does not have
    if engine == TORCH or (engine == AUTO and not (fits and source and is_installed())):
        return network, ""
    if not fits:
        raise ConfigError(f"--engine {engine}: computes in fp32, on CPUs; --engine torch computes in {precision}")
    try:
        key = _speed_key(network, probe, source) if engine == AUTO and gain else None
        known = read(key) if key else None
        if known and float(known) < gain:
            return network, _too_slow(float(known), gain)
        result, told = compiled(network, layer, probe, source)
    except ModelError as error:
        if engine != AUTO:
            raise ModelError(f"--engine {engine}: {error}; --engine torch computes this network") from error
        return network, f"engine: torch; {error}"
    if key is None:
        return result, f"engine: {told}"
    times = float(known) if known else _times_as_fast(network, result, probe)
    if not known:
        keep(key, str(times).encode(), MEASURED)
    if times < gain:
        return network, _too_slow(times, gain)
    return result, f"engine: {told}, {times:.2f} × as fast on this machine"


def _too_slow(times: float, gain: float) -> str:
    return f"engine: torch; OpenVINO is {times:.2f} × as fast on this machine, and taken from {gain} ×"


def _speed_key(network: nn.Module, probe: Tensor, source: Sequence[str] | None) -> str:
    """Return what a measurement is kept under: its weights change every night, and what a network costs does not."""
    facts = (source, tuple(probe.shape[1:]), torch.get_num_threads(), _versions(_openvino()))
    return f"speed-{key_of(network, *facts, weights=False)}"


def _times_as_fast(network: nn.Module, result: CompiledNetwork, probe: Tensor) -> float:
    """Return how many times as fast as torch OpenVINO is: CPU seconds, which other programs hardly change, in turn."""
    images, begun = _batch(probe, MEASURED_IMAGES), time.process_time()
    spent: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        while len(spent[1]) < ROUNDS or time.process_time() - begun < MEASURING_S:
            for each, seconds in zip((network, result), spent, strict=True):
                start = time.process_time()
                forward(each, images)
                seconds.append(time.process_time() - start)
    return round(min(spent[0]) / min(spent[1]), 2)


def compiled(
    network: nn.Module, layer: str | None, probe: Tensor, source: Sequence[str] | None
) -> tuple[CompiledNetwork, str]:
    """Return the network compiled for this process's threads and images of the probe's size, and how close it is.

    Args:
        network: in evaluation mode, on the CPU, in float32.
        layer: the module whose output is wanted beside the logits; None: none is.
        probe: normalised images, (m, C, H, W).
        source: what the network was built from, all but its weights, where that is a library's code: other processes
            find the graph again. None: it is not kept.

    Raises:
        ModelError: OpenVINO is not installed, can't convert the network, or gives other numbers.
    """
    openvino = _openvino()
    facts = (source, layer, tuple(probe.shape[1:]), _versions(openvino))
    key = key_of(network, *facts) if source else None
    try:
        graph = _kept(openvino, key) or _built(openvino, network, layer, probe, key)
        result = CompiledNetwork(openvino.AsyncInferQueue(graph))
        difference = _difference(network, layer, result, probe)
    except ModelError:
        raise
    except Exception as error:  # whatever converters and their plugins raise
        raise ModelError(f"OpenVINO can't compile it: {one_line(error)[:REASON_LENGTH]}") from error
    if not difference <= ENGINE_TOLERANCE:
        raise ModelError(f"OpenVINO's numbers differ by {difference:.1g} of their range (at most {ENGINE_TOLERANCE:g})")
    return result, f"OpenVINO {openvino.__version__.partition('-')[0]}, within {difference:.1g} of torch"


def _openvino() -> ModuleType:
    """Return the library; without its telemetry, which would report each import and conversion over the network."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise ModelError("OpenVINO is not installed: pip install 'batchcam[cpu]'") from error

    module: ModuleType = openvino
    return module


def _versions(openvino: ModuleType) -> tuple[str, ...]:
    """Return what a graph depends on besides the network: the code that made it, and the processor."""
    packages = [d for d in LIBRARIES if importlib.util.find_spec(d)]
    processor = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    return (version(), processor, *(f"{name} {importlib.metadata.version(name)}" for name in packages))


def _kept(openvino: ModuleType, key: str | None) -> object | None:
    """Return the graph that another process kept, None where there is none that can be used."""
    content = read(key) if key else None
    if content is None:
        return None
    try:
        graph: object = openvino.Core().import_model(io.BytesIO(content), "CPU", _properties())
    except RuntimeError:  # it was made by another build
        return None
    return graph


def _built(openvino: ModuleType, network: nn.Module, layer: str | None, probe: Tensor, key: str | None) -> object:
    """Return the graph of the network, and keep it under `key`."""
    height, width = probe.shape[2:]
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of torch.jit, by which OpenVINO traces
        model = openvino.convert_model(_WithOutput(network, layer), example_input=_batch(probe, 2))
    model.reshape({0: [-1, probe.shape[1], height, width]})
    channels_last = openvino.preprocess.PrePostProcessor(model)
    channels_last.input().tensor().set_layout(openvino.Layout("NHWC"))
    channels_last.input().model().set_layout(openvino.Layout("NCHW"))
    graph: object = openvino.Core().compile_model(channels_last.build(), "CPU", _properties())
    if key:
        content = graph.export_model()  # type: ignore[attr-defined]
        keep(key, content if isinstance(content, bytes) else content.getvalue())
    return graph


def _properties() -> dict[str, object]:
    return {
        "INFERENCE_PRECISION_HINT": "f32",  # else it is bf16 where the CPU has it
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": min(torch.get_num_threads(), PIECES),
        "ENABLE_CPU_PINNING": False,  # several workers of a machine would share the first cores
    }


class _WithOutput(nn.Module):
    """The network, with one layer's output beside the logits."""

    def __init__(self, network: nn.Module, layer: str | None) -> None:
        super().__init__()
        self._network, self._layer = network, layer

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self._layer is None:
            return (forward(self._network, images),)
        kept: list[Tensor] = []
        # copied: later in-place operations would change it
        handle = self._network.get_submodule(self._layer).register_forward_hook(
            lambda _, __, out: kept.append(out.clone())
        )
        try:
            return (forward(self._network, images), kept[-1])
        finally:
            handle.remove()


def _difference(network: nn.Module, layer: str | None, result: CompiledNetwork, probe: Tensor) -> float:
    """Return the largest difference of logits and of the layer's output, as a share of the largest value.

    The probe runs in other numbers of images than the graph was traced with, where a count would have been baked in.
    """
    largest = 0.0
    for images in (_batch(probe, ODD_COUNT), probe[:1]):
        with torch.inference_mode():
            there, here = _WithOutput(network, layer)(images), _WithOutput(result, "target" if layer else None)(images)
        for a, b in zip(there, here, strict=True):
            if a.shape != b.shape:
                raise ModelError(f"OpenVINO gives shape {tuple(b.shape)} where torch gives {tuple(a.shape)}")
            largest = max(largest, float((a - b).abs().max() / (a.max() - a.min()).clamp(min=1e-30)))
    return largest


def _batch(probe: Tensor, count: int) -> Tensor:
    """Return so many images of the probe, again from its first where it has fewer."""
    return probe[torch.arange(count, device=probe.device) % len(probe)]
