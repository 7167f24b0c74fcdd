"""Networks by torch and by OpenVINO: `python -m benchmarks.engines [NAME…]` prints a table, a line an architecture.

Random weights, images of the network's own size, all CPUs. Both engines take what explain gives them, parts of a batch
in turn; times are of the forward pass alone, and ratios medians over interleaved rounds. "converted" is what the first
process of a network waits for, "kept" what every other does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
import torchvision
from torch import nn

from batchcam.errors import BatchcamError
from batchcam.job.cpus import available_cpus
from batchcam.maps.parts import parts
from batchcam.maps.preparation import prepare
from batchcam.network.compiled import compiled
from batchcam.network.target_layer import TargetLayer
from batchcam.rules import CONTROLS, EXACT
from tests.helpers.networks import random_images, randomised

NAMES = (
    *("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "googlenet", "inception_v3"),
    *("squeezenet1_1", "shufflenet_v2_x1_0", "mobilenet_v2", "mnasnet1_0", "efficientnet_b0", "efficientnet_v2_s"),
    *("regnet_y_400mf", "regnet_x_3_2gf", "convnext_tiny", "swin_t", "swin_v2_t"),
)
BATCH = 16
SIZES = {"inception_v3": 299, "efficientnet_v2_s": 384, "swin_v2_t": 256}
USUAL_SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(available_cpus())
    print(f"torch {torch.__version__}, {available_cpus()} CPUs, batches of {BATCH}, {options.rounds} rounds\n")
    print("| network | torch, ms an image | OpenVINO is | largest difference | converted, s | kept, s |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for name in options.names:
            print(f"| {name} | {row(name, options.rounds)} |", flush=True)


def row(name: str, rounds: int) -> str:
    """Return the cells of a network: a line that says why where OpenVINO can't compute it."""
    size = SIZES.get(name, USUAL_SIZE)
    network = randomised(torchvision.models.get_model(name, weights=None, num_classes=10)).eval()
    images = random_images(BATCH, size, size).contiguous(memory_format=torch.channels_last)
    explainable = prepare(network, images[:4], EXACT, CONTROLS[0], None)
    layer = TargetLayer.parse(explainable.target_layer).name
    times = []
    try:
        for _ in range(2):
            begun = time.perf_counter()
            other, told = compiled(network, layer, images[:4], [name])
            times.append(time.perf_counter() - begun)
    except BatchcamError as error:
        return f"{error} | | | |"
    by_torch, by_openvino = measured(lambda: whole(network, images), lambda: whole(other, images), rounds)
    ratio = statistics.median(a / b for a, b in zip(by_torch, by_openvino, strict=True))
    milliseconds = statistics.median(by_torch) / BATCH * 1e3
    return f"{milliseconds:.1f} | {ratio:.2f}× as fast | {told.split()[-3]} | {times[0]:.1f} | {times[1]:.2f}"


@torch.inference_mode()
def whole(network: nn.Module, images: torch.Tensor) -> None:
    for part in parts(images, images.device, network):
        network(images[part])


def measured(first: Callable[[], None], second: Callable[[], None], rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of both, round by round, after one that does not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for run, found in zip((first, second), seconds, strict=True):
            begun = time.perf_counter()
            run()
            found.append(time.perf_counter() - begun)
    return seconds[0][1:], seconds[1][1:]


if __name__ == "__main__":
    main()
