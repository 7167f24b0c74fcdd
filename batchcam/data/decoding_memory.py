"""Memory for the images that are being decoded: loader processes wait for each other, and none is killed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any, Final

from batchcam.data.timed_source import start_clock_anew
from batchcam.images.decoding import calling_before_pixels
from batchcam.job.stop import stop_if_asked

LOOK_EVERY_S: Final = 0.02

STORED_TIMES: Final = 4
"""What an image takes at least, in times of its stored bytes: before it is read nothing else is known of it."""

BYTES_PER_PIXEL: Final = 8
"""Of an image while it is decoded: Pillow keeps four, and as many of what a conversion or a turn makes of it."""


class DecodingMemory:
    """Bytes that loader processes may have together for stored images and those that they decode.

    Whoever needs more than is left waits; but one image is always read, and one decoded, however large.

    Args:
        size: so many bytes.
        context: that starts the processes.
    """

    def __init__(self, size: int, context: BaseContext) -> None:
        self._size = size
        self._taken, self._decoders = context.RawValue("q", 0), context.RawValue("i", 0)
        self._lock = context.Lock()

    @contextlib.contextmanager
    def of_image(self, stored_bytes: int) -> Iterator[None]:
        """Hold memory for an image of so many stored bytes while the block runs, and more once its pixels are known.

        Raises:
            StoppedEarlyError: the work should stop.
        """
        held = [stored_bytes * STORED_TIMES]

        def decode(pixels: int) -> None:
            if len(held) > 1:
                return  # another image of the same sample would wait for this one
            more = max(0, stored_bytes + pixels * BYTES_PER_PIXEL - sum(held))
            while not self._take(more, self._decoders, decoders=1):
                _wait()
            held.append(more)

        while not self._take(held[0], self._taken):
            stop_if_asked()
            _wait()
        try:
            with calling_before_pixels(decode):
                yield
        finally:
            with self._lock:
                self._taken.value -= sum(held)
                self._decoders.value -= len(held) - 1

    def _take(self, size: int, others: Any, decoders: int = 0) -> bool:
        """Take `size` bytes if so many are left, or if there are no `others` to wait for; return whether it did."""
        with self._lock:
            fits = self._taken.value + size <= self._size or not others.value
            if fits:
                self._taken.value += size
                self._decoders.value += decoders
        return fits


def _wait() -> None:
    start_clock_anew()
    time.sleep(LOOK_EVERY_S)
