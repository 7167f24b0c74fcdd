"""Batches of a dataset, decoded by loader processes, in an order that shards dictate."""

from __future__ import annotations

import atexit
import collections
import contextlib
import copy
import dataclasses
import functools
import math
import multiprocessing.queues
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any, Final

import numpy as np
import torch
import torch.multiprocessing
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from batchcam.config.shared import DEFAULT_BATCH_SIZE
from batchcam.data.decoding_memory import DecodingMemory
from batchcam.data.own_transform import OwnTransform
from batchcam.data.preprocessing import Preprocessing
from batchcam.data.samples import Numbers, Source, StoredSample
from batchcam.errors import BatchcamError, one_line
from batchcam.images.decoding import UnreadableImageError, UnsupportedImageError
from batchcam.images.planes import Decoded, original_size
from batchcam.job.processes import JOB_SIGNALS, die_with_parent
from batchcam.job.stop import follow, stop_if_asked

NO_DIGEST = bytes(32)

UNIT_BYTES: Final = 2**22
"""Stored bytes of the images that a loader process makes at one go: a tenth of a second of decoding."""

UNKNOWN_BYTES: Final = UNIT_BYTES // 8
"""What an image counts for whose size is not known."""

LOOK_EVERY_S: Final = 0.5
"""Seconds between two looks whether to stop, while images are waited for."""


class LoaderDiedError(BatchcamError):
    """A loader process is gone, and with it the batches it was to make."""


@dataclasses.dataclass(frozen=True)
class LoadedSample:
    """One sample, ready for a batch; `pixels` is None when it is unreadable, and `error` says why.

    `unsupported` says that the image is of a kind that is refused, which another read does not change.
    """

    index: int
    pixels: Tensor | None
    sha256: bytes
    crop_box: tuple[float, float, float, float]
    image_size: tuple[int, int]
    error: str
    unsupported: bool = False


_SMALL: Final = ("indices", "sha256", "crop_box", "image_size")
"""Tensors of a batch with a few bytes for each sample."""


@dataclasses.dataclass(frozen=True)
class LoadedBatch:
    """Consecutive samples of one shard.

    Attributes:
        indices: positions in the dataset, int64 (n,).
        pixels: (n, C, H, W), uint8, or float32 of preprocessed tensors or with --range; zeros for unreadable samples.
        sha256: digests of the stored images, uint8 (n, 32).
        crop_box: the network's view in pixels of the original, float32 (n, 4); NaN for unreadable samples.
        image_size: height and width of the original, int32 (n, 2); -1 for unreadable samples.
        errors: one line for each unreadable sample, "" for the others.
        unsupported: which samples are images of a kind that is refused, for each.
    """

    indices: Tensor
    pixels: Tensor
    sha256: Tensor
    crop_box: Tensor
    image_size: Tensor
    errors: list[str]
    unsupported: list[bool]

    def __getstate__(self) -> dict[str, Any]:
        # each tensor that a loader process hands over takes a file descriptor and half a millisecond
        return {**vars(self), **{name: getattr(self, name).numpy() for name in _SMALL}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, **{name: torch.from_numpy(state[name]) for name in _SMALL})

    def pin_memory(self) -> LoadedBatch:
        """Return the batch with page-locked pixels; the DataLoader calls it when they go to a GPU."""
        return dataclasses.replace(self, pixels=self.pixels.pin_memory())

    @property
    def unreadable(self) -> np.ndarray:
        """Which samples are unreadable, bool (n,)."""
        return np.array([bool(e) for e in self.errors])


class SampleDataset(Dataset[Any]):
    """A source's samples, decoded and preprocessed; a bad one is a sample with an error, never an exception.

    Args:
        source: the dataset.
        preprocessing: how an image becomes the network's input; None: the samples are preprocessed tensors.
        input_size: (H, W) that every sample must have in the end.
        channels: C that every sample must have in the end.

    Attributes:
        memory: for the images, where several processes decode some; None: as much as they want.
    """

    def __init__(
        self,
        source: Source,
        preprocessing: Preprocessing | OwnTransform | None,
        input_size: tuple[int, int],
        channels: int = 3,
    ) -> None:
        self.source, self.preprocessing, self.input_size = source, preprocessing, input_size
        self.memory: DecodingMemory | None = None
        self._shape = (channels, *input_size)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> LoadedSample:
        return self.source.each([index], self._load)[0]

    def __getitems__(self, indices: Sequence[int]) -> list[LoadedSample] | BatchcamError:
        """Return several samples, or what ended the work: torch's loader asks for a whole batch by this name."""
        try:
            return self.source.each(indices, self._load)
        except BatchcamError as error:  # raised in a loader process, it would come out as torch's own words
            return error

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample that is ready."""
        is_bytes = isinstance(self.preprocessing, Preprocessing) and self.source.decoding.range is None
        return math.prod(self._shape) * (1 if is_bytes else 4)

    def _load(self, index: int, read: Callable[[int], StoredSample]) -> LoadedSample:
        if self.memory is None:
            return self._made(index, read)
        with self.memory.of_image(max(0, int(self.source.sizes[index]))):
            return self._made(index, read)

    def _made(self, index: int, read: Callable[[int], StoredSample]) -> LoadedSample:
        sha256: bytes | None = None
        try:
            stored = read(index)
            sha256 = stored.sha256
            if isinstance(stored.image, Tensor) and self.preprocessing is not None:
                # stacked with images it would make floats of their bytes, which would then count as normalised
                raise UnreadableImageError("a preprocessed tensor in a dataset whose other samples are images")
            pixels, crop_box, size = prepare(stored.image, self.preprocessing)
            if tuple(pixels.shape) != self._shape:
                kind = UnsupportedImageError if isinstance(self.preprocessing, OwnTransform) else UnreadableImageError
                raise kind(f"input of {tuple(pixels.shape)}, the run's is {self._shape}")
        except UnreadableImageError as error:
            digest = sha256 or getattr(error, "sha256", None) or NO_DIGEST
            unsupported = isinstance(error, UnsupportedImageError)
            reason = str(error) or "unreadable"
            return LoadedSample(index, None, digest, (float("nan"),) * 4, (-1, -1), reason, unsupported)
        return LoadedSample(index, pixels, sha256, crop_box, size, "")


def prepare(
    image: Decoded | Tensor, preprocessing: Preprocessing | OwnTransform | None
) -> tuple[Tensor, tuple[float, float, float, float], tuple[int, int]]:
    """Return an image's pixels for the network, its crop box, and its own (height, width).

    A float tensor counts as preprocessed and passes through.
    """
    if isinstance(image, Tensor):
        height, width = image.shape[1:]
        return image.float(), (0.0, 0.0, float(width), float(height)), (height, width)
    if preprocessing is None:
        raise UnreadableImageError("an image in a dataset whose other samples are preprocessed tensors")
    pixels, crop_box = preprocessing.apply(image)
    if isinstance(preprocessing, OwnTransform) and not preprocessing.traced:
        return pixels, crop_box, (pixels.shape[1], pixels.shape[2])
    return pixels, crop_box, original_size(image)


class RangeBatches(Sampler[list[int]]):
    """Index lists of at most `batch_size` that never cross the edge of a range.

    Args:
        ranges: (first, count) of each shard, in the order of work.
        batch_size: samples of one forward pass.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]], batch_size: int) -> None:
        self._ranges, self._batch_size = ranges, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        for first, count in self._ranges:
            for start in range(first, first + count, self._batch_size):
                yield list(range(start, min(start + self._batch_size, first + count)))

    def __len__(self) -> int:
        return sum(-(-count // self._batch_size) for _, count in self._ranges)


def collate(samples: Sequence[LoadedSample]) -> LoadedBatch:
    """Return one batch; unreadable samples keep their place, with pixels of zero."""
    good = next((s.pixels for s in samples if s.pixels is not None), None)
    blank = torch.zeros_like(good) if good is not None else None
    if blank is None:
        pixels = torch.empty(0)
    else:
        pixels = torch.stack([blank if s.pixels is None else s.pixels for s in samples])
    return LoadedBatch(
        indices=torch.tensor([s.index for s in samples], dtype=torch.int64),
        pixels=pixels,
        sha256=torch.tensor(np.frombuffer(b"".join(s.sha256 for s in samples), np.uint8).reshape(-1, 32).copy()),
        crop_box=torch.tensor([s.crop_box for s in samples], dtype=torch.float32),
        image_size=torch.tensor([s.image_size for s in samples], dtype=torch.int32),
        errors=[s.error for s in samples],
        unsupported=[s.unsupported for s in samples],
    )


def joined(units: Sequence[LoadedBatch], pinned: bool = False) -> LoadedBatch:
    """Return the batch that consecutive samples make together: what `collate` makes of all.

    Args:
        units: some of the samples each.
        pinned: whether its pixels are to be page-locked.
    """
    if len(units) == 1:
        return units[0].pin_memory() if pinned else units[0]
    whole = {name: torch.cat([getattr(unit, name) for unit in units]) for name in _SMALL}
    good = next((unit.pixels for unit in units if len(unit.pixels)), torch.empty(0))
    pixels = torch.empty(
        (len(whole["indices"]) * bool(len(good)), *good.shape[1:]), dtype=good.dtype, pin_memory=pinned
    )
    start = 0
    for unit in units if len(good) else ():
        part = pixels[start : (start := start + len(unit.indices))]
        part.copy_(unit.pixels) if len(unit.pixels) else part.zero_()
    return LoadedBatch(
        pixels=pixels,
        errors=[error for unit in units for error in unit.errors],
        unsupported=[each for unit in units for each in unit.unsupported],
        **whole,
    )


class _Units(Sampler[list[int]]):
    """Batches in the pieces that loader processes make at one go, each of about `UNIT_BYTES` of stored images.

    Attributes:
        counts: how many pieces each batch has that has been begun and not been taken from here.
    """

    def __init__(self, batches: Iterable[list[int]], sizes: Numbers) -> None:
        self.counts: collections.deque[int] = collections.deque()
        self._batches, self._sizes = batches, sizes

    def __iter__(self) -> Iterator[list[int]]:
        self.counts.clear()
        for batch in self._batches:
            # an image that begins in the next four million bytes begins the next piece
            sizes = _weights(self._sizes[batch])
            edges = 1 + np.flatnonzero(np.diff((np.cumsum(sizes) - sizes) // UNIT_BYTES))
            pieces = [piece.tolist() for piece in np.split(np.asarray(batch), edges)]
            self.counts.append(len(pieces))
            yield from pieces

    def typical(self, batch_size: int) -> int:
        """Return how many pieces a batch has, judged by the first samples: a list is read no further than need be."""
        some = self._sizes[np.arange(min(len(self._sizes), 1000))]
        return max(1, min(batch_size, round(batch_size * float(_weights(some).mean()) / UNIT_BYTES)))


def _weights(sizes: np.ndarray) -> np.ndarray:
    return np.where(sizes < 0, UNKNOWN_BYTES, sizes)


@dataclasses.dataclass(frozen=True)
class Room:
    """Bytes of memory that the loader processes have together.

    Attributes:
        waiting: for samples that are ready before they are asked for.
        decoding: for images, stored and decoded.
    """

    waiting: int
    decoding: int


class BatchStream:
    """Batches of `dataset` in the order of `batches`; use it with `with`, then loop over it.

    The loader processes start when the block is entered and end with it. Each batch is made by all of them, a few
    images at one go.

    Args:
        dataset: what to load.
        batches: index lists, such as RangeBatches.
        processes: loader processes; 0 decodes in this one.
        device: where they go; for a GPU their pixels are page-locked.
        start_method: how loader processes are started, one of config.START_METHODS; None: the system's way.
        batch_size: samples of a full batch; each process has two of them under way.
        room: what these may take; None: as much as they want.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        batches: Iterable[list[int]],
        processes: int,
        device: torch.device,
        start_method: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        room: Room | None = None,
    ) -> None:
        self._units = _Units(batches, dataset.source.sizes)
        self._pinned = device.type == "cuda"
        # without a lock, unlike an Event: a signal's handler that is interrupted by a signal would wait for itself
        # only where there are processes: it lives in shared memory, which `-j 0` does without
        context = torch.multiprocessing.get_context(start_method) if processes else None
        self._closing = context.RawValue("b", 0) if context else _Closing()
        if context and room:
            dataset = copy.copy(dataset)
            dataset.memory = DecodingMemory(room.decoding, context)
        with _without_torchs_advice():
            self._loader: DataLoader[LoadedBatch | BatchcamError] = DataLoader(
                dataset,
                batch_sampler=self._units,
                num_workers=processes,
                multiprocessing_context=context,
                collate_fn=_batch,
                timeout=LOOK_EVERY_S if processes else 0,
                prefetch_factor=self._ahead(dataset, batch_size, processes, room) if processes else None,
                worker_init_fn=functools.partial(_leave_signals_to_parent, self._closing, os.getpid()),
            )
        self._iterator: Iterator[LoadedBatch | BatchcamError] | None = None

    def _ahead(self, dataset: SampleDataset, batch_size: int, processes: int, room: Room | None) -> int:
        """Return how many pieces each process has under way."""
        most = 2 * self._units.typical(batch_size)
        if room is None:
            return most
        piece_bytes = dataset.sample_bytes * batch_size / self._units.typical(batch_size)
        return max(1, min(most, int(room.waiting / (piece_bytes * processes))))

    def __enter__(self) -> BatchStream:
        # a block that is never left: multiprocessing's own clean-up sends SIGTERM and waits for ever
        atexit.register(self._close)
        self._closing.value = 0
        # loader processes inherit the mask until they have their own handlers
        before = signal.pthread_sigmask(signal.SIG_BLOCK, JOB_SIGNALS)
        try:
            with _without_torchs_advice():
                self._iterator = iter(self._loader)
        except OSError as error:  # no room for semaphores in /dev/shm, no process left
            _forget_unbuilt_iterator(error)
            raise BatchcamError(f"cannot start loader processes: {error.strerror or error}; try --workers 0") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        atexit.unregister(self._close)
        # dropping the iterator ends its processes too, but not while an exception's traceback holds it
        if end := getattr(self._iterator, "_shutdown_workers", None):
            end()
        self._iterator = None

    def _close(self) -> None:
        self._closing.value = 1

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> LoadedBatch:
        """Return the next batch.

        Raises:
            StoppedEarlyError: the work should stop, the storage hangs, or a fault that is not a sample's.
            LoaderDiedError: a loader process died.
        """
        units = [self._next_unit()]
        for _ in range(self._units.counts.popleft() - 1):
            stop_if_asked()
            units.append(self._next_unit())
        return joined(units, self._pinned)

    def _next_unit(self) -> LoadedBatch:
        if self._iterator is None:
            raise RuntimeError("a BatchStream gives batches inside its `with` block only")
        while True:
            try:
                unit = next(self._iterator)
            except (RuntimeError, ConnectionError, EOFError) as error:
                if str(error).startswith("DataLoader timed out"):
                    stop_if_asked()
                    continue
                # torch tells by RuntimeError, unless the loader died while it was handing over a batch
                if isinstance(error, RuntimeError) and not is_loader_death(error):
                    raise
                raise loader_died(error) from error
            if isinstance(unit, BatchcamError):
                raise unit
            return unit


def _batch(samples: Sequence[LoadedSample] | BatchcamError) -> LoadedBatch | BatchcamError:
    return samples if isinstance(samples, BatchcamError) else collate(samples)


@contextlib.contextmanager
def _without_torchs_advice() -> Iterator[None]:
    """Silence torch where it tells at length that there are more processes than CPUs: they were asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield


def is_loader_death(error: BaseException) -> bool:
    """Return whether `error` tells that a loader process died: torch raises it from wherever the news arrives."""
    # "DataLoader worker process 0" would be an exception in a living one
    return isinstance(error, LoaderDiedError) or "DataLoader worker (pid" in str(error)


def loader_died(error: BaseException) -> LoaderDiedError:
    """Return what to tell about the death of a loader process."""
    if isinstance(error, LoaderDiedError):
        return error
    advice = "out of memory, or of shared memory (/dev/shm)? try fewer --workers"
    return LoaderDiedError(f"a loader process died: {error}; {advice}")


def _forget_unbuilt_iterator(error: BaseException) -> None:
    """Mark torch's iterator, whose construction failed, as shut down: else its end looks for processes in vain."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        iterator: Any = frame.f_locals.get("self")
        if type(iterator).__name__ == "_MultiProcessingDataLoaderIter" and not hasattr(iterator, "_workers"):
            iterator._shutdown = True


class _Closing:
    """What a RawValue is to loader processes, where there are none."""

    value = 0


def _leave_signals_to_parent(closing: Any, parent: int, process: int) -> None:
    """Make a loader process deaf to what a scheduler sends to the whole job, as long as its parent lives and works.

    When the parent is done, SIGTERM counts again, and what is being decoded is given up.
    """

    def heard(number: int, frame: FrameType | None) -> None:
        if closing.value or os.getppid() != parent:
            os._exit(0)

    follow(lambda: "the end of the work" if closing.value else None)
    die_with_parent(parent)  # torch looks every five seconds, and not from the start
    # the hook's own answer is a traceback, and a batch that is waited for without end
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_without_batch)  # type: ignore[attr-defined]

    signal.signal(signal.SIGTERM, heard)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, JOB_SIGNALS)


def _end_without_batch(error: BaseException, batch: object) -> None:
    """End this process: it can't hand over a batch, such as for want of shared memory (/dev/shm)."""
    print(f"batchcam: a loader process can't hand over a batch: {one_line(error)}", file=sys.stderr, flush=True)
    os._exit(1)
