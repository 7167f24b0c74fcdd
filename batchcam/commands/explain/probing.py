"""The first images as the network takes them: how they are preprocessed, and whether that works."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from batchcam.config.shared import Classifier
from batchcam.data.loader import prepare
from batchcam.data.own_transform import OwnTransform
from batchcam.data.preprocessing import UNSAID, Preprocessing, chosen_preprocessing
from batchcam.data.sources import Source
from batchcam.errors import ConfigError, DatasetError, StoppedEarlyError
from batchcam.images.decoding import UnreadableImageError, UnsupportedImageError
from batchcam.images.planes import TOLD, Decoding, Plane, planes
from batchcam.network.checkpoint import Checkpoint
from batchcam.network.forward import USUAL_CHANNELS, image_channels

PROBE_SAMPLES = 4
PROBE_ATTEMPTS = 64  # first samples looked at for readable ones

_PIXELS: Final = {
    "tensor": "resized as torchvision's transforms.v2 resizes tensors",
    "draft": "JPEGs of twice the size and more are decoded at a half, quarter or eighth of theirs",
}


def normalised(probe: Tensor, preprocessing: Preprocessing | OwnTransform | None) -> Tensor:
    """Return pixels as a network takes them, float32; tensors of the dataset's own making stay as they are."""
    return preprocessing.normalise(probe) if preprocessing else probe.float()


def preprocessing_of(
    classifier: Classifier, checkpoint: Checkpoint, network: nn.Module
) -> Preprocessing | OwnTransform | None:
    if classifier.transform:
        if checkpoint.preprocessing is not None:
            raise ConfigError(f"--transform: the checkpoint says its preprocessing: {dict(checkpoint.preprocessing)}")
        return OwnTransform(classifier.transform)
    try:
        asked = chosen_preprocessing(classifier)
    except ConfigError as error:
        if checkpoint.preprocessing is None or str(error) != UNSAID:
            raise
        raise ConfigError(
            f"the checkpoint says its preprocessing: {dict(checkpoint.preprocessing)}; leave the options out"
        ) from error
    chosen = asked
    if checkpoint.preprocessing is not None:
        chosen = Preprocessing.from_dict(checkpoint.preprocessing).by(classifier.pixels)
        if asked and asked.of_channels(chosen.channels).by(chosen.pixels) != chosen:
            raise ConfigError(
                f"the checkpoint was trained with other preprocessing: {chosen.to_dict()}; leave the options out"
            )
    return chosen and chosen.of_channels(image_channels(network, chosen.image_size))


def probe_of(
    source: Source, preprocessing: Preprocessing | OwnTransform | None, may_be_unreadable: bool, unsaid: str
) -> tuple[Tensor, Preprocessing | OwnTransform | None, tuple[str, ...]]:
    """Return up to PROBE_SAMPLES readable samples, their preprocessing, and what to tell of how images are read.

    They are noise if there are none among the first ones, and need not be. Tensors have no preprocessing.
    """
    probe: list[Tensor] = []
    kinds: list[tuple[object, ...]] = []
    images: list[Plane] = []
    reason, refused = "no sample", 0
    attempts = min(len(source), PROBE_ATTEMPTS)
    for index in range(attempts):
        try:
            image = source.read(index).image
            if preprocessing is None and not isinstance(image, Tensor):
                why = f": {unsaid}" if unsaid else ""
                raise ConfigError(f"the checkpoint does not say its preprocessing{why}; {UNSAID}")
            pixels = prepare(image, preprocessing)[0]
            if not torch.isfinite(pixels).all():
                raise UnreadableImageError("NaN or infinite pixels")
        except UnreadableImageError as error:
            reason = str(error)
            refused += isinstance(error, UnsupportedImageError)
            continue
        kinds.append((isinstance(image, Tensor), pixels.shape, pixels.dtype))
        if kinds[-1] == kinds[0]:
            probe.append(pixels)
            images += [] if isinstance(image, Tensor) else planes(image)[:1]
        if len(probe) == PROBE_SAMPLES:
            break
    if probe:
        if not images:
            if isinstance(preprocessing, OwnTransform) or source.decoding.range is not None:
                raise ConfigError(
                    f"{source.spec}: gives tensors, which are taken as they are: no --transform or --range"
                )
            return torch.stack(probe), None, ()
        if isinstance(preprocessing, OwnTransform):
            preprocessing.try_on(images)
        return torch.stack(probe), preprocessing, tuple(_as_told(source.decoding, preprocessing, images))
    if not isinstance(preprocessing, Preprocessing) or not may_be_unreadable:
        passed_over = "".join(f" ({remark})" for remark in source.notes)
        none = f"{source.spec}: none of the first {attempts} images can be read: {reason}{passed_over}"
        if refused == attempts:
            raise DatasetError(none)
        raise StoppedEarlyError(f"{none}: is the storage there? Run the same command again when it is")
    shape = (PROBE_SAMPLES, preprocessing.channels, *preprocessing.image_size)
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return noise if source.decoding.range is None else noise / 255, preprocessing, ()


def _as_told(
    decoding: Decoding, preprocessing: Preprocessing | OwnTransform | None, images: Sequence[Plane]
) -> Iterator[str]:
    """Yield what to tell of how stored values become the network's input."""
    yield from dict.fromkeys(filter(None, (image.info.get(TOLD) for image in images)))
    if isinstance(preprocessing, OwnTransform):
        shown = (
            "the part of an image that it shows is traced by coordinates"
            if preprocessing.traced
            else "which part of an image it shows can't be traced: maps are of its own view, pictures show them alone"
        )
        yield f"transform: {preprocessing.spec}, as it is; {shown}"
    if isinstance(preprocessing, Preprocessing) and preprocessing.pixels in _PIXELS:
        yield f"pixels: {_PIXELS[preprocessing.pixels]}"
    count = decoding.channels
    if count == 1:
        yield "channels: the network takes 1: images in grey, colours as 0.299 R + 0.587 G + 0.114 B"
    elif count != USUAL_CHANNELS:
        first = "first" if count < USUAL_CHANNELS else "first three"
        yield f"channels: the network takes {count}, as stored; pictures show the {first}"
    if decoding.range is not None:
        low, high = decoding.range
        yield f"range: stored values from {low:g} to {high:g} become 0 to 1, and others the nearer of these"
