"""Images for benchmarks: JPEGs with the spectrum of photographs, and STL10's binary files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

CLASSES = tuple(f"class {k}" for k in range(10))
DRAWN = 512  # photographs; more are the same under other names


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
