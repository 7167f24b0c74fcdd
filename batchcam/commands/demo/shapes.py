"""A small labelled image set made from code: textured shapes on cluttered backgrounds, each with its exact mask."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from batchcam.errors import ConfigError

Plane: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
Image: TypeAlias = NDArray[np.uint8]

SMALLEST_SIZE: Final = 32
HUE_SPREAD: Final = 0.07  # of the colour circle, each way; a class has a fifth of it
RADIUS: Final = (0.22, 0.28)  # of the image's side
MARGIN: Final = 0.02  # between the object and the image's edge, of the image's side
CENTRED_SHARE: Final = 0.1  # of the images place the object without regard to the image's centre


def _disc(u: Plane, v: Plane) -> Mask:
    return np.asarray(np.hypot(u, v) <= 0.95)


def _square(u: Plane, v: Plane) -> Mask:
    return np.asarray(np.maximum(np.abs(u), np.abs(v)) <= 0.82)


def _triangle(u: Plane, v: Plane) -> Mask:
    half_width = (v + 1.3) / np.float32(np.sqrt(3))
    return (v <= 0.65) & (np.abs(u) <= half_width)


def _cross(u: Plane, v: Plane) -> Mask:
    long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    return (long <= 0.98) & (short <= 0.42)


def _star(u: Plane, v: Plane) -> Mask:
    # a five-pointed star in polar form: each of its ten edges is a straight line between the two radii
    angle = np.abs(np.mod(np.arctan2(u, -v), 2 * np.pi / 5) - np.pi / 5)
    inner, outer, turn = 0.65, 1.2, np.pi / 5
    edge = inner * outer * np.sin(turn) / (inner * np.sin(angle) + outer * np.sin(turn - angle))
    return np.asarray(np.hypot(u, v) <= edge)


def _stripes(x: Plane, y: Plane) -> Mask:
    return np.asarray(np.mod(x, 2) < 1)


def _checks(x: Plane, y: Plane) -> Mask:
    return np.asarray(np.mod(np.floor(x / 1.2) + np.floor(y / 1.2), 2) < 1)


def _dots(x: Plane, y: Plane) -> Mask:
    return np.asarray(np.hypot(np.mod(x, 2) - 1, np.mod(y, 2) - 1) < 0.62)


def _grid(x: Plane, y: Plane) -> Mask:
    return np.minimum(np.mod(x, 2), np.mod(y, 2)) < 0.5


def _holes(x: Plane, y: Plane) -> Mask:
    return ~_dots(x, y)


_LOOK: Final[dict[str, tuple[Callable[[Plane, Plane], Mask], Callable[[Plane, Plane], Mask]]]] = {
    "cross": (_cross, _grid),
    "disc": (_disc, _stripes),
    "square": (_square, _checks),
    "star": (_star, _holes),
    "triangle": (_triangle, _dots),
}

CLASSES: Final[tuple[str, ...]] = tuple(_LOOK)
"""Class names, in the order of `ImageFolder`: sorted."""


def generate(root: Path, split: str, per_class: int, size: int = 128, seed: int = 0) -> None:
    """Write a labelled set: images to `root/images/SPLIT/CLASS/NNNNN.png`, masks (0 or 255) to `root/masks/…`.

    An image depends on seed, split, class, number and size alone, so a larger set begins with the smaller one.

    Args:
        root: folder to write to; made where it is missing, files of the same names are replaced.
        split: name of the set, such as `train`: a plain folder name.
        per_class: images of each class.
        size: side of the square images in pixels, at least 32.
        seed: start of all randomness, not negative.

    Raises:
        ConfigError: an argument is out of its range.
        OSError: the folder can't be written.
    """
    if split != Path(split).name or split in ("", "..") or "\0" in split:
        raise ConfigError(f"split {split!r} is no plain folder name: use one such as 'train'")
    if per_class < 1 or seed < 0:
        raise ConfigError(f"per_class is {per_class} and seed {seed}: use at least 1 image and a seed of 0 or more")
    for class_index, class_name in enumerate(CLASSES):
        folders = [root / kind / split / class_name for kind in ("images", "masks")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            image, mask = draw(class_name, _generator(seed, split, class_index, number), size)
            for folder, picture in zip(folders, (image[..., ::-1], mask * np.uint8(255)), strict=True):
                (folder / f"{number:05d}.png").write_bytes(_png(picture))


def _generator(seed: int, split: str, class_index: int, number: int) -> np.random.Generator:
    entropy = [seed, zlib.crc32(split.encode()), class_index, number]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def _png(picture: Image) -> bytes:
    """Return the PNG file of a picture in OpenCV's order: BGR, or grey."""
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(picture))
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} can't be written as PNG")
    return bytes(encoded)


def draw(class_name: str, rng: np.random.Generator, size: int = 128) -> tuple[Image, Mask]:
    """Draw one image of a class: a textured shape, mostly away from the image's centre, before clutter.

    Outline, texture and the hue of the texture's bright part tell the class. Position, size, angle, background and
    clutter, which has every hue, don't.

    Args:
        class_name: one of `CLASSES`.
        rng: source of all randomness; the same state draws the same image.
        size: side of the square image in pixels, at least 32.

    Returns:
        RGB image, uint8 (size, size, 3), and the object's exact mask, bool (size, size).

    Raises:
        ConfigError: the class is unknown or the size too small.
    """
    if class_name not in _LOOK:
        raise ConfigError(f"no shape is called {class_name!r}: choose from {', '.join(CLASSES)}")
    if size < SMALLEST_SIZE:
        raise ConfigError(f"image size {size} is too small for shapes: use at least {SMALLEST_SIZE}")
    image = _background(rng, size)
    radius = rng.uniform(*RADIUS) * size
    centre_y, centre_x = _position(rng, size, radius)
    u, v = _object_coordinates(rng, size, (centre_y, centre_x), radius)
    outline, texture = _LOOK[class_name]
    mask = outline(u, v)
    period = rng.uniform(0.042, 0.054) * size
    bright = texture(u * radius / period, v * radius / period)
    dark_colour, bright_colour = _two_colours(rng, CLASSES.index(class_name) / len(CLASSES))
    image[mask] = np.where(bright[mask, None], bright_colour, dark_colour)
    noise = rng.normal(0, 8, image.shape).astype(np.float32)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8), mask


def _background(rng: np.random.Generator, size: int) -> Plane:
    """Return smooth coloured noise with blobs and lines over it, float32 (size, size, 3)."""
    coarse = rng.uniform(70, 185, (6, 6, 3)).astype(np.float32)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(4, 9))):
        centre = tuple(int(c) for c in rng.integers(0, size, 2))
        axes = tuple(int(max(2, a * size)) for a in rng.uniform(0.02, 0.08, 2))
        cv2.ellipse(image, centre, axes, rng.uniform(0, 180), 0, 360, rng.uniform(0, 255, 3).tolist(), -1)
    for _ in range(int(rng.integers(3, 7))):
        start, end = (tuple(int(c) for c in rng.integers(0, size, 2)) for _ in range(2))
        cv2.line(image, start, end, rng.uniform(0, 255, 3).tolist(), int(rng.integers(1, max(2, size // 40) + 1)))
    return np.asarray(image, dtype=np.float32)


def _position(rng: np.random.Generator, size: int, radius: float) -> tuple[float, float]:
    """Return the object's centre (y, x): inside the image, and most of the time clear of the image's centre."""
    anywhere = rng.random() < CENTRED_SHARE
    reach = radius + MARGIN * size
    while True:
        y, x = rng.uniform(reach, size - reach, 2)
        if anywhere or np.hypot(y - size / 2, x - size / 2) > radius:
            return float(y), float(x)


def _object_coordinates(
    rng: np.random.Generator, size: int, centre: tuple[float, float], radius: float
) -> tuple[Plane, Plane]:
    """Return each pixel's coordinates (u, v) in the object's own turned frame, where its radius is 1."""
    y, x = np.mgrid[:size, :size].astype(np.float32) + np.float32(0.5)
    angle = rng.uniform(0, 2 * np.pi)
    dy, dx = (y - np.float32(centre[0])) / np.float32(radius), (x - np.float32(centre[1])) / np.float32(radius)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * dx + sin * dy, cos * dy - sin * dx


def _two_colours(rng: np.random.Generator, hue: float) -> tuple[Plane, Plane]:
    """Return a dark colour of any hue and a bright one of a hue near the class's, float32 (3,) each."""
    dark = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.3, 1), rng.uniform(0.1, 0.35))
    bright = colorsys.hsv_to_rgb(
        hue + rng.uniform(-HUE_SPREAD, HUE_SPREAD), rng.uniform(0.4, 0.8), rng.uniform(0.85, 1)
    )
    return np.float32(255) * np.array(dark, np.float32), np.float32(255) * np.array(bright, np.float32)
