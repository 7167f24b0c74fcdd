"""Who competes in `benchmarks.speed`: batchcam, the plain loops, and other tools, as written and at their best.

Peers save what costs least, one uncompressed array a batch; batchcam writes its whole record. At their best, peers
have batch normalisations folded into convolutions, as torch.nn.utils.fusion does it, and images with channels last.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from batchcam.commands.explain.assembly import Assembly, assemble
from batchcam.config.shared import Classifier
from batchcam.data.loader import BatchStream, RangeBatches
from batchcam.job.cpus import loader_processes
from batchcam.maps.parts import parts
from batchcam.maps.preparation import ExplainableNetwork, prepare, with_engine
from batchcam.network.device import gpu_count
from batchcam.network.precision import set_precision
from batchcam.rules import AUTO, CONTROLS, EXACT, TORCH
from benchmarks.measured import Stream

BATCH = 64
STAGES = ("waiting_for_images", "explaining", "storing")
POST_AT_MOST = 1024  # images of the post's loop, whose hooks grow in number with each
LAST = torch.channels_last
CACHED = 2**19  # numbers of an operand that stays in a CPU's cache
FOLDED = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1"))


class UnsignedStl10(torchvision.datasets.STL10):
    """STL10 without its digests: these are other images."""

    def _check_integrity(self) -> bool:
        return True


@dataclasses.dataclass
class Job:
    """One dataset with the network that looks at it."""

    name: str
    data: str
    resize: list[int]
    size: int
    stats: tuple[list[float], list[float]]
    device: torch.device
    checkpoint: Path = Path()

    def preprocessing(self) -> dict[str, Any]:
        mean, std = self.stats
        return {"resize": self.resize, "image_size": [self.size] * 2, "mean": mean, "std": std,
                "interpolation": "bilinear"}  # fmt: skip

    def users_dataset(self, transform: Callable[[Any], Any] | None = None) -> Dataset:
        """What people write: torchvision's dataset with its transforms."""
        resize = self.resize if len(self.resize) == 2 else self.resize[0]
        steps = [transforms.Resize(resize), transforms.CenterCrop(self.size), transforms.ToTensor()]
        turn = transform or transforms.Compose([*steps, transforms.Normalize(*self.stats)])
        if self.data.startswith("stl10:"):
            return UnsignedStl10(self.data.split(":")[1], "test", transform=turn)
        return torchvision.datasets.ImageFolder(self.data, turn)

    def users_batches(self) -> Iterator[Tensor]:
        pinned = self.device.type == "cuda"
        processes = loader_processes(None, gpu_count(self.device))
        loader = DataLoader(self.users_dataset(), BATCH, num_workers=processes, pin_memory=pinned)
        return (images.to(self.device, non_blocking=True) for images, _ in loader)

    def assembly(self, pixels: str | None = None) -> Assembly:
        return assemble(Classifier(self.checkpoint, pixels=pixels), self.data)

    def network(self, best: bool = False) -> nn.Module:
        network = self.assembly().network.to(self.device)
        return folded(network).to(memory_format=LAST) if best else network

    def explainable(self, engine: str) -> tuple[ExplainableNetwork, Tensor]:
        """Return the network as explain runs it, and a batch for it."""
        images = torch.randn(BATCH, 3, self.size, self.size, device=self.device).contiguous(memory_format=LAST)
        set_precision("fp32", self.device)
        found = prepare(self.network(), images[:4], EXACT, CONTROLS[0], None)
        return with_engine(found, engine, images[:4], "fp32", [self.name]), images


def folded(network: nn.Module) -> nn.Module:
    """Fold a ResNet's batch normalisations into the convolutions before them."""
    for module in network.modules():
        for first, second in FOLDED:
            convolution, norm = getattr(module, first, None), getattr(module, second, None)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, first, fuse_conv_bn_eval(convolution, norm))
                setattr(module, second, nn.Identity())
    return network


def explain(job: Job, out: Path, stream: Stream, **settings: Any) -> None:
    """The whole record: every class's CAM, uint8 maps, digests, identity, merge."""
    # also those of another checkout: see `use_tree`
    import batchcam
    from batchcam.commands.explain.work import Work
    from batchcam.maps.transfer import Transfer

    original, bytes_of = Work.run, collections.Counter[str]()

    def counting(way: str) -> Callable[..., Any]:
        move = getattr(Transfer, way)

        def counted(transfer: Transfer, tensors: Any) -> Any:
            each = [tensors] if isinstance(tensors, Tensor) else tensors.values()
            bytes_of[way] += sum(tensor.nbytes for tensor in each)
            return move(transfer, tensors)

        return counted

    for way in ("to_device", "to_host"):
        setattr(Transfer, way, counting(way))

    def run(work: Work, tell: Callable[[], None]) -> None:
        with stream:
            original(work, tell)

    Work.run = run  # type: ignore[method-assign]
    batchcam.explain(
        job.checkpoint, job.data, out / "run", batch_size=BATCH, device=str(job.device), quiet=True, **settings
    )
    record = json.loads(next((out / "run").glob("task-*.json")).read_text())
    shares = {f"share_{name}": record[f"seconds_{name}"] / record["seconds"] for name in STAGES}
    moved = {f"bytes_{way}": count / record["samples"] for way, count in bytes_of.items()}
    stream.more = {**shares, **moved, "loader_processes": record["workers"]}


def plain_loop(job: Job, out: Path, stream: Stream) -> None:
    """Batchcam's own loader, memory format and arithmetic, forward pass, argmax; nothing is saved."""
    assembly = job.assembly()
    network = assembly.network.to(job.device, memory_format=LAST)
    set_precision("fp32", job.device)
    with stream, loaded(assembly, job) as batches, torch.inference_mode():
        for batch in batches:
            pixels = assembly.preprocessing.normalise(batch.pixels.to(job.device, non_blocking=True))
            network(pixels.contiguous(memory_format=LAST)).argmax(1).tolist()


def loaded(assembly: Assembly, job: Job) -> BatchStream:
    batches = RangeBatches([(0, len(assembly.source))], BATCH)
    return BatchStream(assembly.dataset, batches, loader_processes(None, gpu_count(job.device)), job.device)


def naive_loop(job: Job, out: Path, stream: Stream) -> None:
    """torchvision's dataset and DataLoader, `model(x)`, argmax; nothing is saved."""
    network = job.network()
    with stream, torch.no_grad():
        for images in job.users_batches():
            network(images).argmax(1).tolist()


def timm_loop(job: Job, out: Path, stream: Stream) -> None:
    """timm's inference.py with --channels-last: its loader, which normalises on the device, the best class; no maps."""
    from timm.data import create_loader

    network = job.network().to(memory_format=LAST)
    mean, std = job.stats
    loader = create_loader(
        job.users_dataset(), (3, job.size, job.size), BATCH, mean=mean, std=std, interpolation="bilinear",
        num_workers=loader_processes(None, gpu_count(job.device)), crop_pct=job.size / job.resize[0], device=job.device,
        pin_memory=job.device.type == "cuda",
    )  # fmt: skip
    with stream, torch.inference_mode():
        for images, _ in loader:
            probabilities, classes = network(images.contiguous(memory_format=LAST)).softmax(-1).topk(1)
            probabilities.cpu().numpy(), classes.cpu().numpy()


def post_loop(job: Job, out: Path, stream: Stream) -> int:
    """The blog post's way: one image at a time, one more hook at each call, a Python loop over channels."""
    network, dataset = job.network(), job.users_dataset()
    kept: dict[str, Tensor] = {}

    def keep(module: nn.Module, images: Any, output: Tensor) -> None:
        kept["features"] = output.detach()

    count = min(len(dataset), POST_AT_MOST)
    with stream, torch.no_grad():
        for number in range(count):
            network.layer4.register_forward_hook(keep)
            prediction = network(dataset[number][0][None].to(job.device)).argmax(1)
            features, weight = kept["features"].squeeze(), network.fc.weight
            cam = torch.zeros_like(features[0])
            for channel in range(len(features)):
                cam += features[channel] * weight[prediction.item()][channel]
            values = cam.cpu().numpy()
            values = (values - values.min()) / (values.max() - values.min())
            np.save(out / f"{number}.npy", cv2.resize(np.uint8(255 * values), (job.size, job.size)))
    return count


def saving(job: Job, out: Path, stream: Stream, best: bool, maps_of: Callable[[Tensor], Any]) -> None:
    """Run a peer over the batches and save its maps, (n, H, W)."""
    with stream:
        for number, images in enumerate(job.users_batches()):
            maps = torch.as_tensor(maps_of(images.contiguous(memory_format=LAST) if best else images))
            low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
            np.save(out / f"{number}.npy", (255 * (maps - low) / (high - low)).to(torch.uint8).cpu().numpy())


def resized(maps: Tensor, size: int) -> Tensor:
    return nn.functional.interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]


def torchcam_cam(job: Job, out: Path, stream: Stream, best: bool = False) -> None:
    """torch-cam's CAM."""
    from torchcam.methods import CAM

    network = job.network(best)
    extractor = CAM(network, "layer4", "fc")

    def maps_of(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits = network(images)
            return resized(extractor(logits.argmax(1).tolist(), logits, normalized=False)[0], job.size)

    saving(job, out, stream, best, maps_of)


def grad_cam(job: Job, out: Path, stream: Stream, best: bool = False) -> None:
    """pytorch-grad-cam's GradCAM."""
    from pytorch_grad_cam import GradCAM

    network = job.network(best)
    method = GradCAM(network, [network.layer4])
    saving(job, out, stream, best, lambda images: method(images, None))


def captum_grad_cam(job: Job, out: Path, stream: Stream, best: bool = False) -> None:
    """captum's LayerGradCam."""
    from captum.attr import LayerGradCam

    network = job.network(best)
    method = LayerGradCam(network, network.layer4)

    def maps_of(images: Tensor) -> Tensor:
        with torch.no_grad():
            predictions = network(images).argmax(1)
        return resized(method.attribute(images, predictions).detach()[:, 0], job.size)

    saving(job, out, stream, best, maps_of)


def ultralytics_cam(job: Job, out: Path, stream: Stream) -> None:
    """ultralytics' LayerCAM at its best: its function knows a network by its last module, and draws an overlay each."""
    from ultralytics.utils import LOGGER
    from ultralytics.utils.plotting import class_activation_map

    LOGGER.setLevel("WARNING")
    network = job.network(best=True).requires_grad_(False)
    layers = list(network.children())
    head = nn.Sequential(layers[-2], nn.Flatten(), layers[-1])

    class Backend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Module()
            self.model.model = nn.Sequential(*layers[:-2], head)

        def forward(self, images: Tensor) -> Tensor:
            return self.model.model(images)

    backend = Backend()
    with stream:
        for number, images in enumerate(job.users_batches()):
            names = [f"{number}-{place}" for place in range(len(images))]
            class_activation_map(backend, images.contiguous(memory_format=LAST), names, out, conf=1.0, topk=1)


def decoding(job: Job, out: Path, stream: Stream, pixels: str | None = None) -> None:
    """Batchcam's loader alone."""
    assembly = job.assembly(pixels)
    with stream, loaded(assembly, job) as batches:
        for _ in batches:
            pass


def forwarding(job: Job, out: Path, stream: Stream, engine: str = AUTO) -> None:
    """The network alone, as explain runs it, on a batch in memory."""
    count = len(job.users_dataset())
    explainable, images = job.explainable(engine)
    network = explainable.network
    with stream, torch.inference_mode():
        for start in range(0, count, BATCH):
            batch = images[: count - start]
            for part in parts(batch, job.device, network):
                logits = network(batch[part])
        logits.cpu()  # a GPU is waited for once


def multiplying(job: Job, out: Path, stream: Stream) -> None:
    """The network's convolutions and linear layers as matrix products, without what gathers their operands.

    Of as many rows at once as a CPU's cache holds, by torch.mm or as a 1×1 convolution, whichever is quicker here:
    the one is MKL's, the other oneDNN's.
    """
    count = len(job.users_dataset())
    explainable, images = job.explainable(TORCH)
    part = images[parts(images, job.device, explainable.network)[0]]
    rows = CACHED if job.device.type == "cpu" else 2**62
    with torch.inference_mode():
        products = [product(*shape, rows, job.device) for shape in shapes(explainable.network, part)]
        with stream:
            for _ in range(0, count, len(part)):
                for times, multiply in products:
                    for _ in range(times):
                        last = multiply()
            last.cpu()  # likewise


def product(groups: int, m: int, k: int, n: int, cached: int, device: torch.device) -> tuple[int, Callable[[], Tensor]]:
    """Return the quicker way to multiply some rows of (m, k) by (k, n), and how often it makes all, of all groups."""
    times = min(m, math.ceil(m * k / cached))
    a, b = torch.randn(m // times, k, device=device), torch.randn(k, n, device=device)
    image = a.T[None, :, :, None].contiguous(memory_format=LAST)
    weight = b.T[:, :, None, None].contiguous(memory_format=LAST)
    ways = (lambda: torch.mm(a, b)), (lambda: torch.conv2d(image, weight))
    return times * groups, min(ways, key=quickest)


def quickest(work: Callable[[], Tensor], tries: int = 5) -> float:
    seconds = []
    for _ in range(tries):
        begun = time.perf_counter()
        work().flatten()[0].item()  # a GPU is waited for
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def shapes(network: nn.Module, images: Tensor) -> list[tuple[int, int, int, int]]:
    """Return (groups, m, k, n) of each convolution and linear layer: (m, k) by (k, n) for each group."""
    found: list[tuple[int, int, int, int]] = []

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        groups = getattr(module, "groups", 1)
        channels = module.weight.shape[0]  # type: ignore[union-attr]
        found.append((groups, output.numel() // channels, module.weight[0].numel(), channels // groups))  # type: ignore

    handles = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.inference_mode():
        network(images)
    for handle in handles:
        handle.remove()
    return found


OURS = "batchcam explain"
BEFORE = f"{OURS}, --before"
BOUND = "bound: its matrix products alone"
BATCHCAM, PLAIN = "batchcam.commands.explain.explain", "torch, torchvision"

CONTESTANTS: dict[str, tuple[Callable[..., int | None], str]] = {
    OURS: (explain, BATCHCAM),
    f"{OURS} --engine torch": (functools.partial(explain, engine=TORCH), BATCHCAM),
    f"{OURS} --pixels tensor": (functools.partial(explain, pixels="tensor"), BATCHCAM),
    f"{OURS} --precision tf32": (functools.partial(explain, precision="tf32"), BATCHCAM),
    f"{OURS} --precision bf16 --pixels tensor": (
        functools.partial(explain, precision="bf16", pixels="tensor"),
        BATCHCAM,
    ),
    "plain loop, same loader": (plain_loop, BATCHCAM),
    "naive model(x) loop": (naive_loop, PLAIN),
    "timm inference, channels_last": (timm_loop, f"{PLAIN}, timm"),
    "torch-cam CAM": (torchcam_cam, f"{PLAIN}, torchcam.methods"),
    "torch-cam CAM, at its best": (functools.partial(torchcam_cam, best=True), f"{PLAIN}, torchcam.methods"),
    "pytorch-grad-cam GradCAM": (grad_cam, f"{PLAIN}, pytorch_grad_cam"),
    "pytorch-grad-cam GradCAM, at its best": (functools.partial(grad_cam, best=True), f"{PLAIN}, pytorch_grad_cam"),
    "captum LayerGradCam": (captum_grad_cam, f"{PLAIN}, captum.attr"),
    "captum LayerGradCam, at its best": (functools.partial(captum_grad_cam, best=True), f"{PLAIN}, captum.attr"),
    "ultralytics LayerCAM, at its best": (ultralytics_cam, f"{PLAIN}, ultralytics.utils.plotting"),
    "the blog post's loop": (post_loop, PLAIN),
    "stage: decoding": (decoding, BATCHCAM),
    "stage: decoding, --pixels tensor": (functools.partial(decoding, pixels="tensor"), BATCHCAM),
    "stage: forward pass": (forwarding, BATCHCAM),
    "stage: forward pass, --engine torch": (functools.partial(forwarding, engine=TORCH), BATCHCAM),
    BOUND: (multiplying, PLAIN),
}
"""By name: what does the job, and the modules that it imports."""

RESNET_ONLY = ("torch-cam", "pytorch-grad-cam", "captum", "ultralytics", "the blog", "timm")
GPU_ONLY = ("--precision",)
