"""One epoch of training, one pass of validation, and what they start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from batchcam.data.loader import LoadedBatch
from batchcam.data.own_transform import OwnTransform
from batchcam.data.preprocessing import Preprocessing
from batchcam.errors import BatchcamError, CheckpointError, ModelError
from batchcam.job.stop import stop_if_asked
from batchcam.maps.parts import parts
from batchcam.network.checkpoint import load_checkpoint
from batchcam.network.forward import forward
from batchcam.network.heads import halves
from batchcam.network.model import build_network, load_network
from batchcam.network.precision import in_precision
from batchcam.network.training_images import TrainingImages
from batchcam.record.sigmoid_scores import auroc

NO_DIGESTS: Final = np.empty((0, 32), np.uint8)


@dataclasses.dataclass(frozen=True)
class Score:
    """How one pass went.

    Attributes:
        loss: mean over the samples that counted, of several labels a sample over those known; None without any.
        score: accuracy, or the mean of `aurocs` that are known; None without any.
        unreadable: samples that could not be read.
        digests: SHA-256 of each sample that counted, uint8 (n, 32).
        aurocs: of several labels a sample: that of each class, None where it has not both a yes and a no.
    """

    loss: float | None
    score: float | None
    unreadable: int
    digests: np.ndarray
    aurocs: tuple[float | None, ...] = ()

    @property
    def samples(self) -> int:
        """How many samples counted."""
        return len(self.digests)


def split_by_class(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions for training and for validation: of each class `fraction`, rounded, drawn by `seed`.

    A class keeps at least one sample to learn from.

    Args:
        labels: int64 (n,).
        fraction: share of each class to validate on.
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    held_out = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        # one at least to learn from
        held_out.append(members[: min(round(fraction * len(members)), len(members) - 1)])
    validation = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def rarest_classes(labels: np.ndarray) -> np.ndarray:
    """Return of each sample the class with the fewest yes among those that are true of it, K where none is, int64 (n,).

    Args:
        labels: 1, 0, and -1 where not known, int8 (n, K).
    """
    counts = (labels == 1).sum(0)
    order = np.argsort(counts, kind="stable")
    true = np.pad(labels[:, order] == 1, ((0, 0), (0, 1)), constant_values=True)
    return np.asarray(np.append(order, len(order))[true.argmax(1)])


def shuffled_batches(positions: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return `positions` in batches, in an order that only `seed` and `epoch` decide; a last batch of one is dropped.

    Batch normalisation can't learn from one sample.
    """
    order = np.random.default_rng([seed, epoch]).permutation(positions).tolist()
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [b for b in batches if len(b) > 1]


def flipped_samples(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return which of `count` samples an epoch sees mirrored, bool (count,): half of them, by `seed` and `epoch`."""
    return np.random.default_rng([seed, epoch, 1]).random(count) < 0.5


def initial_network(
    architecture: str, class_count: int, weights: str | None, seed: int
) -> tuple[nn.Module, TrainingImages]:
    """Return the network to fine-tune: untrained, or with pretrained weights and a new last layer.

    With it comes which images these weights were trained on, as far as their file says.

    Args:
        architecture: torchvision's name.
        class_count: K, or 1 for the one output of two classes.
        weights: None, a file, or torchvision's name of weights, such as DEFAULT or IMAGENET1K_V1.
        seed: of whatever is drawn.

    Raises:
        CheckpointError: the file is no checkpoint of this network, or torchvision's weights can't be had.
        ModelError: there is no such network, its last layer can't be replaced, or its one output has one sign.
    """
    if class_count == 1 and architecture.startswith("squeezenet"):
        raise ModelError(f"{architecture} ends in a ReLU: its one output is never negative; choose another --arch")
    torch.manual_seed(seed)
    known = TrainingImages()
    if weights is None:
        return build_network(architecture, class_count), known
    if Path(weights).exists():
        checkpoint = load_checkpoint(Path(weights))
        known = checkpoint.trained_on or known
        network, _, _ = load_network(architecture, checkpoint.state, weights)
    else:
        network = _torchvision_weights(architecture, weights)
    _replace_last_layer(network, class_count)
    return network, known


def train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    preprocessing: Preprocessing | OwnTransform | None,
    labels: np.ndarray,
    batches: Iterable[LoadedBatch],
    device: torch.device,
    advance: Callable[[int], None],
    flipped: np.ndarray | None = None,
) -> Score:
    """Take one step per batch, each told to `advance`; return loss and score as they were while learning.

    Args:
        network: in any mode, on `device`.
        optimizer: of its parameters.
        preprocessing: of uint8 images; others are normalised.
        labels: of the dataset: class indices (n,), or 1, 0, and -1 where not known, int8 (n, K).
        batches: what to learn from.
        device: where to compute.
        advance: is told how many images a batch had.
        flipped: which samples of the dataset to mirror left to right, bool (n,); None: none.
    """
    network.train()
    tally = _Tally()
    for batch in batches:
        images, truth = _readable(batch, preprocessing, labels, device)
        if len(truth) > 1:
            if flipped is not None:
                images = _mirrored(images, flipped[batch.indices.numpy()[~batch.unreadable]])
            optimizer.zero_grad()
            logits = _logits(network, images)
            loss = loss_of(logits, truth)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            tally.add(batch, logits.detach(), truth, loss.detach())
        tally.unreadable += int(batch.unreadable.sum())
        advance(len(batch.indices))
    return tally.score()


@torch.inference_mode()
def validate(
    network: nn.Module,
    preprocessing: Preprocessing | OwnTransform | None,
    labels: np.ndarray,
    batches: Iterable[LoadedBatch],
    device: torch.device,
) -> Score:
    """Return loss and score in evaluation mode."""
    network.eval()
    tally = _Tally()
    for batch in batches:
        stop_if_asked()
        images, truth = _readable(batch, preprocessing, labels, device)
        if len(truth):
            logits = _logits(network, images)
            tally.add(batch, logits, truth, loss_of(logits, truth))
        tally.unreadable += int(batch.unreadable.sum())
    return tally.score()


@torch.inference_mode()
def predict(
    network: nn.Module,
    preprocessing: Preprocessing | OwnTransform | None,
    batch: LoadedBatch,
    class_count: int,
    device: torch.device,
    precision: str,
) -> np.ndarray:
    """Return the logits of each sample, float32 (n, K); NaN for unreadable ones."""
    logits = np.full((len(batch.indices), class_count), np.nan, np.float32)
    if not len(batch.pixels):
        return logits
    with in_precision(precision, device):
        pieces = parts(batch.pixels, device, network)
        each = [forward(network, _images(batch.pixels[p], preprocessing, device)) for p in pieces]
    return np.where(batch.unreadable[:, None], logits, torch.cat(each).float().cpu().numpy())


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    """Return the logits (N, K); of one output z, -z/2 and z/2, whose cross-entropy is the binary one of sigmoid(z)."""
    output = network(images)
    logits: Tensor = output if isinstance(output, Tensor) else output.logits  # GoogLeNet, Inception: side exits
    return halves(network, (images,), logits) if logits.shape[1] == 1 else logits


def loss_of(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the cross-entropy of classes (n,), or the mean binary one of what is known, 1 or 0, of (n, K)."""
    if truth.ndim == 1:
        return F.cross_entropy(logits, truth)
    known = truth >= 0
    return F.binary_cross_entropy_with_logits(logits[known], truth[known].to(logits.dtype))


class _Tally:
    """Sums over the batches of a pass."""

    def __init__(self) -> None:
        self.correct = self.known = self.unreadable = 0
        self.loss = 0.0
        self.digests = [NO_DIGESTS]
        self.several: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, batch: LoadedBatch, logits: Tensor, truth: Tensor, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise BatchcamError("training diverged: the loss is not finite; lower --learning-rate")
        self.digests.append(batch.sha256.numpy()[~batch.unreadable])
        known = int((truth >= 0).sum())
        self.known += known
        self.loss += float(loss) * known
        if truth.ndim == 1:
            self.correct += int((logits.argmax(1) == truth).sum())
        else:
            self.several.append((truth.cpu().numpy(), logits.float().cpu().numpy()))

    def score(self) -> Score:
        digests = np.concatenate(self.digests)
        if not self.known:
            return Score(None, None, self.unreadable, digests)
        loss = self.loss / self.known
        if not self.several:
            return Score(loss, self.correct / self.known, self.unreadable, digests)
        truth, logits = (np.concatenate(parts) for parts in zip(*self.several, strict=True))
        known = truth >= 0
        aurocs = tuple(auroc(logits[known[:, k], k], truth[known[:, k], k] == 1) for k in range(truth.shape[1]))
        told = [each for each in aurocs if each is not None]
        return Score(loss, float(np.mean(told)) if told else None, self.unreadable, digests, aurocs)


def _images(pixels: Tensor, preprocessing: Preprocessing | OwnTransform | None, device: torch.device) -> Tensor:
    pixels = pixels.to(device, non_blocking=True)
    images = preprocessing.normalise(pixels) if preprocessing else pixels.float()
    return images.contiguous(memory_format=torch.channels_last)


def _mirrored(images: Tensor, chosen: np.ndarray) -> Tensor:
    """Return images of which the chosen ones are mirrored left to right."""
    return torch.where(torch.from_numpy(chosen).to(images.device)[:, None, None, None], images.flip(-1), images)


def _readable(
    batch: LoadedBatch, preprocessing: Preprocessing | OwnTransform | None, labels: np.ndarray, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return normalised images and labels of the batch's readable samples."""
    good = torch.from_numpy(~batch.unreadable)
    truth = torch.from_numpy(labels[batch.indices.numpy()])[good].to(device)
    pixels = batch.pixels[good] if len(batch.pixels) else batch.pixels
    return (_images(pixels, preprocessing, device) if len(pixels) else pixels), truth


def _torchvision_weights(architecture: str, name: str) -> nn.Module:
    try:
        weights = torchvision.models.get_model_weights(architecture)[name]
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"--weights {name}: no such file, and {architecture} has no weights of that name"
        ) from error
    except Exception as error:  # whatever the network or the cache folder raises
        raise CheckpointError(f"--weights {name}: cannot download: {error}; give a local file") from error
    return load_network(architecture, state, name)[0]


def _replace_last_layer(network: nn.Module, class_count: int) -> None:
    """Put a new linear layer in place of the network's last one."""
    linear = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ModelError("the network has no linear layer to replace; choose another --arch")
    name, last = linear[-1]
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, nn.Linear(last.in_features, class_count))
