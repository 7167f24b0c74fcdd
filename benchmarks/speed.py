"""Benchmark of explaining: `python -m benchmarks.speed --out DIR` writes table.md, bench.json and bench.svg.

Every contestant does a whole job over the same images, in a process of its own that is forked anew for each round, in
an order that rotates: building the network, loading, forward pass and, but for the two loops that only predict, maps
of the predicted class at the input's size, saved. The peers save what costs least, one uncompressed array a batch;
batchcam writes its whole record. Times leave out imports, and waking up a GPU. A contestant whose package is not
installed is left out: torchcam comes with the test extra; `pip install grad-cam captum` brings the others, in an
environment of their own. With `--device cuda` take more images, such as `--images 8192`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from batchcam.commands.explain.assembly import Assembly, assemble
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.config import Classifier, Compute
from batchcam.data.loader import BatchStream, RangeBatches
from batchcam.job.cpus import available_cpus, loader_processes
from batchcam.network.checkpoint import pack_checkpoint
from batchcam.network.precision import set_precision

BATCH = 64
CLASSES = tuple(f"class {k}" for k in range(10))
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ([0.5] * 3, [0.5] * 3)
DRAWN = 512  # photographs; more are the same under other names
POST_AT_MOST = 1024  # images of the post's loop, whose hooks grow in number with each


class UnsignedStl10(torchvision.datasets.STL10):
    """STL10 without its digests: these are other images."""

    def _check_integrity(self) -> bool:
        return True


class Job:
    """One dataset with the network that looks at it."""

    def __init__(
        self, name: str, data: str, resize: list[int], size: int, stats: tuple[list[float], list[float]], device: str
    ):
        self.name, self.data, self.resize, self.size, self.stats = name, data, resize, size, stats
        self.device = torch.device(device)
        self.checkpoint = Path()

    def preprocessing(self) -> dict[str, Any]:
        mean, std = self.stats
        return {"resize": self.resize, "image_size": [self.size] * 2, "mean": mean, "std": std,
                "interpolation": "bilinear"}  # fmt: skip

    def users_dataset(self) -> Dataset:
        """What people write: torchvision's dataset with its transforms."""
        resize = self.resize if len(self.resize) == 2 else self.resize[0]
        steps = [transforms.Resize(resize), transforms.CenterCrop(self.size), transforms.ToTensor()]
        turn = transforms.Compose([*steps, transforms.Normalize(*self.stats)])
        if self.data.startswith("stl10:"):
            return UnsignedStl10(self.data.split(":")[1], "test", transform=turn)
        return torchvision.datasets.ImageFolder(self.data, turn)

    def users_batches(self) -> Iterator[torch.Tensor]:
        pinned = self.device.type == "cuda"
        loader = DataLoader(self.users_dataset(), BATCH, num_workers=loader_processes(None), pin_memory=pinned)
        return (images.to(self.device, non_blocking=True) for images, _ in loader)

    def assembly(self) -> Assembly:
        return assemble(Classifier(self.checkpoint), self.data)

    def network(self) -> torch.nn.Module:
        return self.assembly().network.to(self.device)


def plain_loop(job: Job, out: Path) -> Callable[[], None]:
    """Batchcam's own loader, memory format and arithmetic, forward pass, argmax; nothing is saved."""
    assembly = job.assembly()
    network = assembly.network.to(job.device, memory_format=torch.channels_last)
    batches = RangeBatches([(0, len(assembly.source))], BATCH)
    set_precision("fp32", job.device)

    def run() -> None:
        processes = loader_processes(None)
        with BatchStream(assembly.dataset, batches, processes, job.device) as stream, torch.inference_mode():
            for batch in stream:
                pixels = assembly.preprocessing.normalise(batch.pixels.to(job.device, non_blocking=True))
                network(pixels.contiguous(memory_format=torch.channels_last)).argmax(1).tolist()

    return run


def naive_loop(job: Job, out: Path) -> Callable[[], None]:
    """torchvision's dataset and DataLoader, `model(x)`, argmax; nothing is saved."""
    network = job.network()

    def run() -> None:
        with torch.no_grad():
            for images in job.users_batches():
                network(images).argmax(1).tolist()

    return run


def batchcam_explain(job: Job, out: Path, precision: str = "fp32") -> Callable[[], None]:
    """The whole record: every class's CAM, uint8 maps, digests, identity, merge."""
    compute = Compute(BATCH, device=str(job.device), precision=precision)
    config = ExplainConfig(Classifier(job.checkpoint), job.data, out / "run", compute=compute, quiet=True)

    def run() -> None:
        explain(config)

    return run


def post_loop(job: Job, out: Path) -> Callable[[], int]:
    """The blog post's way: one image at a time, one more hook at each call, a Python loop over channels."""
    network, dataset = job.network(), job.users_dataset()
    kept: dict[str, torch.Tensor] = {}

    def keep(module: torch.nn.Module, images: Any, output: torch.Tensor) -> None:
        kept["features"] = output.detach()

    def run() -> int:
        count = min(len(dataset), POST_AT_MOST)
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

    return torch.no_grad()(run)


def saving(job: Job, out: Path, maps_of: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], None]:
    """Run a peer over the batches and save its maps, (n, H, W)."""

    def run() -> None:
        for number, images in enumerate(job.users_batches()):
            maps = torch.as_tensor(maps_of(images))
            low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
            np.save(out / f"{number}.npy", (255 * (maps - low) / (high - low)).to(torch.uint8).cpu().numpy())

    return run


def resized(maps: torch.Tensor, size: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]


def torchcam_cam(job: Job, out: Path) -> Callable[[], None]:
    """torch-cam's CAM."""
    from torchcam.methods import CAM

    network = job.network()
    extractor = CAM(network, "layer4", "fc")

    def maps_of(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits = network(images)
            return resized(extractor(logits.argmax(1).tolist(), logits, normalized=False)[0], job.size)

    return saving(job, out, maps_of)


def grad_cam(job: Job, out: Path) -> Callable[[], None]:
    """pytorch-grad-cam's GradCAM."""
    from pytorch_grad_cam import GradCAM

    network = job.network()
    method = GradCAM(network, [network.layer4])
    return saving(job, out, lambda images: method(images, None))


def captum_grad_cam(job: Job, out: Path) -> Callable[[], None]:
    """captum's LayerGradCam."""
    from captum.attr import LayerGradCam

    network = job.network()
    method = LayerGradCam(network, network.layer4)

    def maps_of(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            predictions = network(images).argmax(1)
        return resized(method.attribute(images, predictions).detach()[:, 0], job.size)

    return saving(job, out, maps_of)


def decoding(job: Job, out: Path) -> Callable[[], None]:
    """Batchcam's loader alone."""
    assembly = job.assembly()
    batches = RangeBatches([(0, len(assembly.source))], BATCH)

    def run() -> None:
        with BatchStream(assembly.dataset, batches, loader_processes(None), job.device) as stream:
            for _ in stream:
                pass

    return run


def forwarding(job: Job, out: Path) -> Callable[[], None]:
    """The network alone, channels_last, on a batch in memory."""
    assembly = job.assembly()
    network = assembly.network.to(job.device, memory_format=torch.channels_last)
    pixels = torch.randn(BATCH, 3, job.size, job.size, device=job.device).contiguous(memory_format=torch.channels_last)
    set_precision("fp32", job.device)

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, len(assembly.source), BATCH):
                logits = network(pixels[: len(assembly.source) - start])
            logits.cpu()  # a GPU is waited for once

    return run


CONTESTANTS = {
    "batchcam explain": batchcam_explain,
    "batchcam explain --precision tf32": functools.partial(batchcam_explain, precision="tf32"),
    "plain loop, same loader": plain_loop,
    "naive model(x) loop": naive_loop,
    "torch-cam CAM": torchcam_cam,
    "pytorch-grad-cam GradCAM": grad_cam,
    "captum LayerGradCam": captum_grad_cam,
    "the blog post's loop": post_loop,
    "stage: decoding only": decoding,
    "stage: forward pass only": forwarding,
}


def measure(contestant: Callable[[Job, Path], Callable[[], int | None]], job: Job) -> dict[str, float] | None:
    """Run a contestant in a forked process; return seconds, CPU seconds, peak memory; None if it is not installed."""
    reader, writer = os.pipe()
    if child := os.fork():
        os.close(writer)
        with os.fdopen(reader) as stream:
            stream.readline()  # all set: the clock starts
            with gpu_watch(job.device) as busy:
                text = stream.readline()
        os.waitpid(child, 0)
        return {**json.loads(text), **busy} if text else None
    folder = Path(tempfile.mkdtemp(dir=Path(job.checkpoint).parent))
    try:
        torch.set_num_threads(available_cpus())
        torch.ones(1, device=job.device)
        images = len(job.users_dataset())
        os.write(writer, b"\n")
        before, start = cpu_seconds(), time.perf_counter()
        count = contestant(job, folder)() or images
        each = (time.perf_counter() - start) / count
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found = {"s": each, "cpu_s": (cpu_seconds() - before) / count, "peak_mb": peak}
        if job.device.type == "cuda":
            found["gpu_mb"] = torch.cuda.max_memory_allocated(job.device) / 2**20
        os.write(writer, json.dumps(found).encode() + b"\n")
    except ImportError:
        pass
    except Exception:
        traceback.print_exc()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


@contextlib.contextmanager
def gpu_watch(device: torch.device) -> Iterator[dict[str, float]]:
    """Give a dict that in the end holds the share of the time in which the GPU was busy; without a GPU it stays empty.

    The driver's own count, asked for by another process: this one forks, and must not touch the GPU itself.
    """
    found: dict[str, float] = {}
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        yield found
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpu = visible.split(",")[device.index or 0] if visible else device.index or 0
    words = ["nvidia-smi", f"--id={gpu}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with subprocess.Popen([*words, "--loop-ms=200"], stdout=subprocess.PIPE, text=True) as watch:
        try:
            yield found
        finally:
            watch.terminate()
        shares = [int(line) for line in watch.communicate()[0].split() if line.isdecimal()]
    if shares:
        found["gpu_busy"] = statistics.mean(shares) / 100


def cpu_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def compete(job: Job, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each contestant: medians over interleaved rounds, and rates relative to batchcam's."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    names = [name for name in CONTESTANTS if job.device.type == "cuda" or "tf32" not in name]
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if (found := measure(CONTESTANTS[name], job)) is not None:
                results[name].append(found)
                print(f"{job.name}, round {number + 1}: {name} {1 / found['s']:.1f} images/s", flush=True)
    yardstick = [r["s"] for r in results["batchcam explain"]]
    rows = []
    for name, found in results.items():
        if not found:
            continue
        rates = [1 / r["s"] for r in found]
        rows.append(
            {
                "name": name,
                "images_per_s": statistics.median(rates),
                "spread": [min(rates), max(rates)],
                # round by round: what slows the machine down slows both
                "batchcam_is_times": statistics.median(r["s"] / y for r, y in zip(found, yardstick, strict=True)),
                "cpu_ms_per_image": 1000 * statistics.median(r["cpu_s"] for r in found),
                **{
                    name: statistics.median(r[name] for r in found)
                    for name in ("peak_mb", "gpu_mb", "gpu_busy")
                    if all(name in r for r in found)
                },
            }
        )
    return rows


def write_speed(rounds: int) -> dict[str, float]:
    """Return what landing shards of 128 px maps costs, against writing the same bytes."""
    from batchcam.store.plan import write_plan
    from batchcam.store.shard import ShardWriter
    from benchmarks.reader import ORIGIN
    from benchmarks.reader import rows as plausible_rows
    from tests.helpers.synthetic import synthetic_plan

    size = 3600
    plan = synthetic_plan(
        sample_count=size, shard_size=size, sample_id_bytes=9, grid_size=(4, 4), input_size=(128, 128), channels=512
    )
    columns, texts = plausible_rows(plan, plan.shards[0], np.random.default_rng(0))
    smooth = np.random.default_rng(1).standard_normal((size, 4, 4), np.float32)
    maps = np.stack([cv2.resize(m, (128, 128)) for m in smooth])
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    columns["maps"] = np.uint8((maps - low) / (high - low) * 255)
    weight = np.zeros((len(plan.class_names), plan.channels), np.float32)
    walls, cpus, plain = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            write_plan(run, plan, ORIGIN)
            with ShardWriter(run, plan, weight, weight[:, 0].copy()) as writer:
                before, start = cpu_seconds(), time.perf_counter()
                builder = writer.builder(plan.shards[0])
                builder.append(columns, texts)
                writer.submit(builder)
                writer.wait()
                walls.append(time.perf_counter() - start)
                cpus.append(cpu_seconds() - before)
            image = (run / "shards" / "shard-00000.h5").read_bytes()
            start = time.perf_counter()
            with (Path(folder) / "same").open("wb") as stream:
                os.write(stream.fileno(), image)
                os.fsync(stream.fileno())
            plain.append(time.perf_counter() - start)
    return {
        "maps_per_s": size / statistics.median(walls),
        "cpu_us_per_map": 1e6 * statistics.median(cpus) / size,
        "share_of_raw_bytes": len(image) / columns["maps"].nbytes,
        "os_write_maps_per_s": size / statistics.median(plain),
    }


def photos(folder: Path, count: int) -> None:
    """Draw JPEGs of 500x375 with the spectrum of photographs: 1/f noise in three channels."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.rfftfreq(500)[None])
    frequency[0, 0] = 1
    for number in range(count):
        path = folder / CLASSES[number % len(CLASSES)] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number >= DRAWN:
            path.hardlink_to(folder / CLASSES[number % DRAWN % len(CLASSES)] / f"{number % DRAWN:05d}.jpg")
            continue
        spectrum = rng.standard_normal((3, 375, 251)) + 1j * rng.standard_normal((3, 375, 251))
        image = np.fft.irfft2(spectrum / frequency, (375, 500)).transpose(1, 2, 0)
        image = 127 + 50 * (image - image.mean()) / image.std()
        cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])


def stl10(folder: Path, count: int) -> None:
    """Write STL10's binary test files, filled with the first photographs."""
    binary = folder / "stl10_binary"
    binary.mkdir(parents=True)
    rng = np.random.default_rng(1)
    rng.integers(0, 256, (count, 3, 96, 96), np.uint8).tofile(binary / "test_X.bin")
    (np.arange(count, dtype=np.uint8) % 10 + 1).tofile(binary / "test_y.bin")
    (binary / "class_names.txt").write_text("\n".join(CLASSES) + "\n")


def table(job: str, rows: list[dict[str, Any]]) -> str:
    on_gpu = "gpu_mb" in rows[0]
    lines = [f"| {job} | images/s | batchcam is | CPU ms/image | peak MB |" + " GPU busy | GPU MB |" * on_gpu]
    lines.append("|---|---|---|---|---|" + "---|---|" * on_gpu)
    for row in rows:
        low, high = row["spread"]
        busy = f"{row['gpu_busy']:.0%}" if "gpu_busy" in row else "–"
        lines.append(
            f"| {row['name']} | {row['images_per_s']:.1f} ({low:.1f}–{high:.1f}) "
            f"| {row['batchcam_is_times']:.2f}× as fast | {row['cpu_ms_per_image']:.1f} | {row['peak_mb']:.0f} |"
            + (f" {busy} | {row['gpu_mb']:.0f} |" if on_gpu else "")
        )
    return "\n".join(lines)


def chart(jobs: dict[str, list[dict[str, Any]]]) -> str:
    """Return horizontal bars of images per second, as SVG."""
    parts, y = [], 10
    for job, rows in jobs.items():
        most = max(r["images_per_s"] for r in rows if not r["name"].startswith("stage"))
        parts.append(f'<text x="10" y="{y + 14}" font-weight="bold">{job}: images/s</text>')
        y += 24
        for row in rows:
            if row["name"].startswith("stage"):
                continue
            width, fill = 420 * row["images_per_s"] / most, "#1b6ca8" if "batchcam" in row["name"] else "#9aa5b1"
            parts.append(f'<text x="190" y="{y + 14}" text-anchor="end">{row["name"]}</text>')
            parts.append(f'<rect x="198" y="{y + 2}" width="{width:.0f}" height="16" fill="{fill}"/>')
            parts.append(f'<text x="{204 + width:.0f}" y="{y + 14}">{row["images_per_s"]:.0f}</text>')
            y += 22
        y += 14
    style = 'font-family="sans-serif" font-size="12"'
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="680" height="{y}" {style}>{paper}{"".join(parts)}</svg>\n'


def main() -> None:
    for peer in ("torchcam.methods", "pytorch_grad_cam", "captum.attr"):
        with contextlib.suppress(ImportError):
            importlib.import_module(peer)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=512, help="JPEGs; twice as many of STL10")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        photos(folder / "photos", asked.images)
        stl10(folder / "stl10", 2 * asked.images)
        jobs = [  # about as long each
            Job("JPEG 500×375 → 224 px", str(folder / "photos"), [256], 224, IMAGENET, asked.device),
            Job("STL10 binary 96 → 128 px", f"stl10:{folder / 'stl10'}:test", [128, 128], 128, HALF, asked.device),
        ]
        found = {}
        for number, job in enumerate(jobs):
            torch.manual_seed(0)
            state = torchvision.models.resnet18(weights=None, num_classes=len(CLASSES)).state_dict()
            job.checkpoint = folder / f"{number}.pth"
            content = pack_checkpoint(state, "resnet18", CLASSES, job.preprocessing(), {})
            job.checkpoint.write_bytes(content)
            found[job.name] = compete(job, asked.rounds)
    writing = write_speed(asked.rounds)
    gpu = f"{torch.cuda.get_device_name(asked.device)}, " if asked.device != "cpu" else ""  # nothing forks any more
    machine = f"{gpu}{available_cpus()} CPUs ({platform.machine()}), torch {torch.__version__}, {date.today()}"
    told = [
        f"ResNet18, batch {BATCH}, {asked.rounds} rounds of {asked.images} images (STL10: twice as many), {machine}"
    ]
    told += [table(name, rows) for name, rows in found.items()]
    told.append(
        f"Landing shards of 128 px maps: {writing['maps_per_s']:,.0f} maps/s, {writing['cpu_us_per_map']:.0f} µs of "
        f"CPU a map, {writing['share_of_raw_bytes']:.2f} of the raw bytes; the same bytes by `os.write` and fsync: "
        f"{writing['os_write_maps_per_s']:,.0f} maps/s."
    )
    print("\n" + "\n\n".join(told))
    (asked.out / "table.md").write_text("\n\n".join(told) + "\n", encoding="utf-8")
    (asked.out / "bench.json").write_text(json.dumps({"machine": machine, "jobs": found, "writing": writing}, indent=1))
    (asked.out / "bench.svg").write_text(chart(found), encoding="utf-8")


if __name__ == "__main__":
    main()
