"""CPU time from a file to the network's input: `python -m benchmarks.decoding` prints a table for each kind of image.

One thread, in turns, medians: machines differ, and the load on one does, so compare what stands in one table.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import cv2
import numpy as np
import torch

from batchcam.config.shared import PIXELS
from batchcam.data.loader import UNIT_BYTES, SampleDataset, collate
from batchcam.data.preprocessing import PRESETS
from batchcam.data.sources import Source, open_source
from batchcam.data.timed_source import timed
from batchcam.images.planes import Decoding
from benchmarks.drawn import photos, stl10

IMAGES = 64


def pngs(folder: Path, count: int) -> None:
    """Draw 512 px PNGs, as smooth as photographs that were enlarged."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        image = cv2.resize(rng.integers(0, 256, (64, 64, 3), np.uint8), (512, 512), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number:05d}.png"), image)


def steps(data: str, preset: str, pixels: str, files: list[Path]) -> tuple[int, dict[str, Callable[[], object]]]:
    """Return how many images a loader process makes at one go, what it does with them, and parts of this."""
    preprocessing = PRESETS[preset].by(pixels)

    def source() -> Source:
        opened = open_source(data)
        opened.decoding = Decoding(least=preprocessing.least)
        return opened

    plain = SampleDataset(source(), preprocessing, preprocessing.image_size)
    whole = SampleDataset(timed(source(), 300), preprocessing, preprocessing.image_size)
    piece = range(min(IMAGES, UNIT_BYTES // int(plain.source.sizes.max())))
    images = [plain.source.read(index).image for index in piece]
    stored = [file.read_bytes() for file in files[: len(piece)]]
    samples = plain.__getitems__(piece)
    batch = collate(samples)
    return len(piece), {
        "all in a loader process": lambda: collate(whole.__getitems__(piece)),
        "the same without the thread that can be given up": lambda: collate(plain.__getitems__(piece)),
        "read, digest, decode": lambda: [plain.source.read(index) for index in piece],
        "digest": lambda: [hashlib.sha256(data).digest() for data in stored],
        "resize, crop": lambda: [preprocessing.apply(image) for image in images],
        "collate": lambda: collate(samples),
        "hand over by shared memory": lambda: ForkingPickler.loads(ForkingPickler.dumps(batch)),
    }


def measured(
    ways: dict[str, tuple[int, dict[str, Callable[[], object]]]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Return milliseconds of CPU an image, of each way, step and round."""
    spent: dict[str, dict[str, list[float]]] = {way: {step: [] for step in each} for way, (_, each) in ways.items()}
    for _ in range(rounds):
        for step in next(iter(spent.values())):
            for way, (count, each) in ways.items():
                each[step]()  # what it needs of memory is then there
                start = time.process_time()
                each[step]()
                spent[way][step].append(1000 * (time.process_time() - start) / count)
    return spent


def table(name: str, times: dict[str, dict[str, list[float]]]) -> str:
    lines = [f"| {name} | " + " | ".join(f"`{way}`" for way in times) + " |", "|---" * (1 + len(times)) + "|"]
    whole = next(iter(times["pillow"].values()))
    for step in times["pillow"]:
        shares = [[part / all_ for part, all_ in zip(each[step], whole, strict=True)] for each in times.values()]
        cells = (
            f"{statistics.median(each[step]):.3f} ({statistics.median(share):.2f})"
            for each, share in zip(times.values(), shares, strict=True)
        )
        lines.append(f"| {step} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos(folder / "photos", IMAGES)
        pngs(folder / "pngs", IMAGES)
        stl10(folder / "stl10", IMAGES)
        for kind, data, preset, files in (
            ("JPEG 500×375 → 224 px", folder / "photos", "imagenet", sorted(folder.glob("photos/*/*"))),
            ("JPEG 500×375 → 128 px", folder / "photos", "stl10", sorted(folder.glob("photos/*/*"))),
            ("PNG 512×512 → 224 px", folder / "pngs", "imagenet", sorted(folder.glob("pngs/*"))),
            ("STL10 96 → 128 px", f"stl10:{folder / 'stl10'}:test", "stl10", []),
        ):
            ways = {way: steps(str(data), preset, way, files) for way in PIXELS}
            print(table(f"{kind}, CPU ms an image (of all by pillow)", measured(ways, rounds)), flush=True)


if __name__ == "__main__":
    main()
