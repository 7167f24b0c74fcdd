"""Numbers and pictures of docs/walkthrough.md: `python -m docs.make.walkthrough DEMO` after `batchcam demo --out DEMO`.

Does to the demo's images and model what the blog post does to STL10 and its ResNet18, beside what batchcam does.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from batchcam.commands.explain.assembly import assemble
from batchcam.config.shared import Classifier
from batchcam.data.loader import collate
from batchcam.pictures import heatmap, sheet
from batchcam.record import metrics, similarity

DOCS = Path(__file__).parents[1]
SHOWN = (11, 53, 92, 131, 177)


class Seed:
    """The network under the blog post's hook, and the same layer caught at other moments."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.kept = network, dict[str, torch.Tensor]()
        block = network.layer4[1]
        block.bn2.register_forward_hook(lambda m, i, o: self.keep("as the post keeps it", o.detach()))
        block.bn2.register_forward_hook(lambda m, i, o: self.keep("as it was at the hook", o.detach().clone()))
        network.layer4.register_forward_hook(lambda m, i, o: self.keep("pooled", o.detach().clone()))

    def keep(self, name: str, value: torch.Tensor) -> None:
        self.kept[name] = value

    def maps(self, pixels: torch.Tensor) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, float]]:
        """Return predictions, each kind's map of the predicted class (n, h, w), and its largest miss of the logit."""
        with torch.no_grad():
            logits = self.network(pixels)
        prediction = logits.argmax(1)
        weight, bias = self.network.fc.weight[prediction], self.network.fc.bias[prediction]
        maps = {name: torch.einsum("nc,nchw->nhw", weight, a).detach().numpy() for name, a in self.kept.items()}
        chosen = logits.gather(1, prediction[:, None])[:, 0]
        missed = {n: float(np.abs(m.mean((1, 2)) + (bias - chosen).detach().numpy()).max()) for n, m in maps.items()}
        return prediction.numpy(), maps, missed


def not_in_place(network: nn.Module) -> nn.Module:
    """Return the network with a last ReLU that makes a new tensor, as a user's own block may have."""
    network.layer4[1].relu = nn.ReLU(inplace=False)
    return network


def summed_apart(network: nn.Module) -> nn.Module:
    """Return the network with a last block that writes `out = out + identity`."""
    block = network.layer4[1]

    def forward(x: torch.Tensor) -> torch.Tensor:
        out = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
        return torch.relu(out + x)

    block.forward = forward
    return network


def peaks(maps: np.ndarray, masks: np.ndarray) -> float:
    return float(metrics.peak_hits(heatmap.upsample(maps, masks.shape[1:]), masks).mean())


def alike(maps: np.ndarray, others: np.ndarray) -> float:
    return float(np.nanmean(similarity.spearman(maps, others)))


def hooks(folder: Path, checkpoint: Path, pixels: torch.Tensor, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Print what the hook catches in three networks that compute the same, and return the maps of the first."""
    kinds = {
        "torchvision's block: in place": lambda network: network,
        "last ReLU not in place": not_in_place,
        "last sum not in place": summed_apart,
    }
    first: dict[str, np.ndarray] = {}
    print("| block | what is looked at | largest miss of the logit | rank correlation | peak on the object |")
    print("|---|---|---|---|---|")
    for kind, change in kinds.items():
        network = change(assemble(Classifier(checkpoint), str(folder)).network)
        _, maps, missed = Seed(network).maps(pixels)
        first = first or maps
        for name in ("as the post keeps it", "as it was at the hook", "pooled"):
            print(
                f"| {kind} | {name} | {missed[name]:.2g} | {alike(maps[name], maps['pooled']):.2f} "
                f"| {peaks(maps[name], masks):.3f} |"
            )
    return first


def rounding(maps: np.ndarray, size: tuple[int, int]) -> None:
    """Print how far scaling to 8 bits before resizing leads."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    scaled = (maps - low) / (high - low)
    early = np.stack([cv2.resize(np.uint8(255 * m), size[::-1]) for m in scaled])
    late, _ = heatmap.normalise(heatmap.upsample(maps, size))
    away = np.abs(early.astype(int) - late)
    print(f"\n8 bits before resizing: {away.max()} grey levels at most, {away.mean():.2f} in the mean; ", end="")
    print(f"brightest pixel of an image {early.max((1, 2)).min()} to {early.max((1, 2)).max()}")


def constant_map() -> None:
    """Print what min-max makes of a constant map."""
    constant = np.full((4, 4), 3.0, np.float32)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        values = np.uint8((constant - constant.min()) / (constant.max() - constant.min()) * 255)
    print(f"\nconstant map: {[str(w.message) for w in told]} and then {np.unique(values)}")


def repeated_hooks(checkpoint: Path, folder: Path, pixels: torch.Tensor) -> None:
    """Print what a hook that is registered at every call and never removed costs."""
    network = assemble(Classifier(checkpoint), str(folder)).network
    kept: dict[str, torch.Tensor] = {}
    image, times = pixels[:1], []
    for call in range(2001):
        network.layer4[1].bn2.register_forward_hook(lambda m, i, o: kept.update(final=o.detach()))
        if call % 1000 == 0:
            start = time.perf_counter()
            with torch.no_grad():
                for _ in range(5):
                    network(image)
            times.append((time.perf_counter() - start) / 5 * 1000)
    print(f"\nhooks after 2,001 calls: {len(network.layer4[1].bn2._forward_hooks)}; ", end="")
    print("ms of a forward pass after 1, 1,001, 2,001 calls:", [round(t, 1) for t in times])


def accuracies(demo: Path, checkpoint: Path) -> None:
    """Print accuracy where the model learned and where it did not."""
    for split in ("train", "test"):
        assembly = assemble(Classifier(checkpoint), str(demo / "images" / split))
        hits = total = 0
        for start in range(0, len(assembly.source), 100):
            batch = collate([assembly.dataset[i] for i in range(start, min(start + 100, len(assembly.source)))])
            with torch.inference_mode():
                predicted = assembly.network(assembly.preprocessing.normalise(batch.pixels)).argmax(1).numpy()
            hits += int((predicted == assembly.labels[batch.indices.numpy()]).sum())
            total += len(predicted)
        print(f"\naccuracy on {total} {split} images: {hits / total:.3f}")


def picture(maps: dict[str, np.ndarray], images: list[np.ndarray]) -> None:
    """Draw images, the red channel as the post shows it, and maps of both moments."""
    rows: dict[str, list[np.ndarray]] = {"image": [], "post: 'the original'": [], "at the hook": [], "pooled": []}
    for index in SHOWN:
        image = images[index]
        rows["image"].append(image)
        rows["post: 'the original'"].append(np.repeat(image[:, :, :1], 3, 2))
        size, box = image.shape[:2], (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
        for row, kind in (("at the hook", "as it was at the hook"), ("pooled", "pooled")):
            grey, _ = heatmap.normalise(heatmap.upsample(maps[kind][index : index + 1], size))
            rows[row].append(heatmap.overlay(image, grey[0], box, "jet"))
    tiles = [tile for row in rows.values() for tile in row]
    captions = [name for name, row in rows.items() for _ in row]
    drawn = sheet.sheet(tiles, captions, columns=len(SHOWN))
    cv2.imwrite(str(DOCS / "walkthrough.jpg"), drawn[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("demo", type=Path)
    demo = parser.parse_args().demo
    torch.set_num_threads(1)
    checkpoint, folder = demo / "model.pth", demo / "images" / "test"
    assembly = assemble(Classifier(checkpoint), str(folder))
    batch = collate([assembly.dataset[i] for i in range(len(assembly.source))])
    pixels = assembly.preprocessing.normalise(batch.pixels)
    ids = assembly.source.sample_ids
    masks = np.stack([cv2.imread(str(demo / "masks" / "test" / i), cv2.IMREAD_GRAYSCALE) > 0 for i in ids])
    images = [cv2.imread(str(folder / i))[:, :, ::-1] for i in ids]
    maps = hooks(folder, checkpoint, pixels, masks)
    rounding(maps["pooled"], assembly.input_size)
    constant_map()
    repeated_hooks(checkpoint, folder, pixels)
    accuracies(demo, checkpoint)
    picture(maps, images)


if __name__ == "__main__":
    main()
