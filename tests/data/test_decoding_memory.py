"""Memory for decoding: who needs more than is left waits, one image goes on, and waiting is no sample's fault."""

from __future__ import annotations

import io
import multiprocessing
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from batchcam.data.decoding_memory import BYTES_PER_PIXEL, DecodingMemory
from batchcam.data.folder import open_folder
from batchcam.data.loader import BatchStream, RangeBatches, Room, SampleDataset, collate
from batchcam.data.preprocessing import Preprocessing
from batchcam.data.timed_source import start_clock_anew, timed
from batchcam.images.decoding import UnreadableImageError, decode_image, load_image
from tests.helpers.memory_source import MemorySource

SIDE = 8
DECODED = SIDE * SIDE * BYTES_PER_PIXEL  # more than four times what is stored
STORED = 10


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(buffer, "PNG")
    return buffer.getvalue()


class Opened:
    """An image opened elsewhere, whose pixels are loaded when they are asked for."""

    @staticmethod
    def decode(data: bytes) -> None:
        load_image(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("decode", [decode_image, Opened.decode], ids=["stored", "opened"])
@pytest.mark.parametrize(
    ("size", "most"), [(1, 1), (2 * (STORED + DECODED), 2), (100 * DECODED, 6)], ids=["one", "two", "all"]
)
def test_as_many_images_are_decoded_at_one_time_as_fit_and_always_one(size, most, decode):
    memory, data = DecodingMemory(size, multiprocessing.get_context()), png()
    together, lock, all_in = [0], threading.Lock(), threading.Barrier(most, timeout=60)
    seen: list[int] = []

    def work() -> None:
        with memory.of_image(STORED):
            decode(data)
            with lock:
                together[0] += 1
                seen.append(together[0])
            all_in.wait()
            with lock:
                together[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 6
    assert max(seen) == most
    assert (memory._taken.value, memory._decoders.value) == (0, 0)


def test_memory_of_an_image_that_can_not_be_decoded_is_given_back():
    memory, torn = DecodingMemory(1, multiprocessing.get_context()), png()[:44]
    with pytest.raises(UnreadableImageError), memory.of_image(STORED):
        decode_image(torn)
    assert (memory._taken.value, memory._decoders.value) == (0, 0)


@pytest.mark.parametrize(("waits_for_memory", "error"), [(True, ""), (False, "reading took longer than 0.4 s")])
def test_time_that_a_sample_waits_for_memory_does_not_count_as_its_own(waits_for_memory, error):
    class Slow(MemorySource):
        def read(self, index):
            for _ in range(60):
                time.sleep(0.05)
                if waits_for_memory:
                    start_clock_anew()
            return super().read(index)

    samples = SampleDataset(timed(Slow([(SIDE, SIDE)]), 0.4), PREPROCESSING, (SIDE, SIDE))
    assert samples[0].error == error


PREPROCESSING = Preprocessing((SIDE,), (SIDE, SIDE), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_processes_with_next_to_no_memory_make_the_batches_that_one_makes_with_all(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, 2 * SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a" / f"{number:02d}.png")
    source = open_folder(str(tmp_path), str(tmp_path))
    source.sizes = source.sizes.copy()
    samples = SampleDataset(timed(source, 60), PREPROCESSING, (SIDE, SIDE))
    lists = list(RangeBatches([(0, 12)], 5))
    with BatchStream(samples, lists, 3, torch.device("cpu"), room=Room(1, 1)) as batches:
        found = list(batches)
    made = [collate([samples[i] for i in indices]) for indices in lists]
    assert [batch.errors for batch in found] == [batch.errors for batch in made]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(found, made, strict=True))
