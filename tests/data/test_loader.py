"""Batches: what is in them, where they end, and that the processes that load them live and die as they should."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from batchcam.data.loader import (
    NO_DIGEST,
    UNIT_BYTES,
    BatchStream,
    LoadedBatch,
    LoadedSample,
    RangeBatches,
    SampleDataset,
    collate,
    is_loader_death,
    prepare,
)
from batchcam.data.preprocessing import Preprocessing
from batchcam.data.timed_source import timed
from batchcam.errors import BatchcamError, StoppedEarlyError
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.passing_faults import PassingFaultError, passing_fault
from batchcam.job.stop import Stop
from tests.helpers import ROOT
from tests.helpers.memory_source import UNREADABLE, MemorySource, digest

PREPROCESSING = Preprocessing((8,), (8, 8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CPU = torch.device("cpu")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def dataset(*kinds: object, size: tuple[int, int] = (8, 8)) -> SampleDataset:
    return SampleDataset(MemorySource(kinds), PREPROCESSING, size)


def equal(one: LoadedBatch, other: LoadedBatch) -> bool:
    if (one.errors, one.unsupported) != (other.errors, other.unsupported):
        return False
    pairs = [(getattr(one, n), getattr(other, n)) for n in ("indices", "pixels", "sha256", "crop_box", "image_size")]
    return all(a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


@pytest.mark.parametrize(
    ("ranges", "size"),
    [([(0, 10)], 3), ([(0, 4), (4, 4), (8, 1)], 3), ([(8, 2), (0, 5)], 64), ([(5, 1)], 1), ([(0, 6)], 6), ([], 4)],
)
def test_batches_cover_every_range_in_order_and_never_cross_an_edge(ranges, size):
    batches = RangeBatches(ranges, size)
    listed = list(batches)
    assert len(batches) == len(listed)
    assert [i for b in listed for i in b] == [i for first, count in ranges for i in range(first, first + count)]
    for batch in listed:
        assert 1 <= len(batch) <= size
        assert sum(first <= batch[0] and batch[-1] < first + count for first, count in ranges) == 1
    # full, but for the last one of each range
    assert sum(len(b) < size for b in listed) <= len(ranges)


def test_sample_is_preprocessed_and_says_where_it_comes_from():
    sample = dataset((16, 8), (16, 32))[1]
    image = MemorySource([None, (16, 32)]).read(1).image
    expected, box = PREPROCESSING.apply(image)
    assert torch.equal(sample.pixels, expected)
    assert (sample.index, sample.crop_box, sample.image_size, sample.error) == (1, box, (16, 32), "")
    assert sample.sha256 == digest(1)


def test_unreadable_sample_is_a_sample_with_an_error_and_the_digest_of_its_bytes():
    sample = dataset(UNREADABLE)[0]
    assert (sample.pixels, sample.error) == (None, "sample 0 is torn")
    assert sample.sha256 == digest(0)
    assert np.isnan(sample.crop_box).all()
    assert sample.image_size == (-1, -1)


def test_image_that_can_be_decoded_but_not_cropped_keeps_its_digest():
    preprocessing = Preprocessing(None, (8, 8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    sample = SampleDataset(MemorySource([(4, 4)]), preprocessing, (8, 8))[0]
    assert "smaller" in sample.error
    assert sample.sha256 == digest(0)


class Wordless(MemorySource):
    def read(self, index):
        raise UnreadableImageError("")


def test_error_is_never_empty_and_an_unknown_digest_is_zeros():
    sample = SampleDataset(Wordless([None]), PREPROCESSING, (8, 8))[0]
    assert (sample.error, sample.sha256) == ("unreadable", NO_DIGEST)


@pytest.mark.parametrize("shape", [(3, 8, 9), (3, 4, 4)])
def test_tensor_of_another_size_is_an_unreadable_sample(shape):
    tensors = SampleDataset(MemorySource([torch.zeros(shape)]), None, (8, 8))
    assert f"{shape}" in tensors[0].error
    assert tensors[0].pixels is None


def test_tensor_of_other_channels_is_an_unreadable_sample_and_not_the_end_of_the_job():
    tensors = SampleDataset(MemorySource([torch.zeros(3, 8, 8), torch.zeros(1, 8, 8)]), None, (8, 8))
    batch = collate([tensors[0], tensors[1]])
    assert batch.unreadable.tolist() == [False, True]


def test_float_tensor_counts_as_preprocessed():
    tensor = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    sample = SampleDataset(MemorySource([tensor]), None, (8, 8))[0]
    assert torch.equal(sample.pixels, tensor)
    assert (sample.crop_box, sample.image_size) == ((0, 0, 8, 8), (8, 8))
    assert prepare(tensor.double(), None)[0].dtype == torch.float32


def test_image_among_preprocessed_tensors_is_an_unreadable_sample():
    sample = SampleDataset(MemorySource([(8, 8)]), None, (8, 8))[0]
    assert "preprocessed tensors" in sample.error


def test_preprocessed_tensor_among_images_is_an_unreadable_sample():
    """Stacked, they would make floats of the images' bytes, which would then count as normalised."""
    samples = dataset((8, 8), torch.zeros(3, 8, 8))
    batch = collate([samples[0], samples[1]])
    assert batch.pixels.dtype == torch.uint8
    assert batch.unreadable.tolist() == [False, True]


def test_batch_holds_every_sample_in_its_place_and_zeros_for_unreadable_ones():
    samples = dataset((8, 8), UNREADABLE, (16, 8))
    batch = collate([samples[i] for i in range(3)])
    assert batch.indices.tolist() == [0, 1, 2]
    assert (batch.pixels.shape, batch.pixels.dtype) == ((3, 3, 8, 8), torch.uint8)
    for i in (0, 2):
        assert torch.equal(batch.pixels[i], samples[i].pixels)
    assert not batch.pixels[1].any()
    assert [bytes(d) for d in batch.sha256.numpy()] == [digest(i) for i in range(3)]
    assert batch.crop_box.isnan().any(1).tolist() == [False, True, False]
    assert batch.image_size.tolist() == [[8, 8], [-1, -1], [16, 8]]
    assert batch.errors == ["", "sample 1 is torn", ""]
    assert batch.unreadable.tolist() == [False, True, False]


def test_batch_without_a_readable_sample_has_no_pixels():
    samples = dataset(UNREADABLE, UNREADABLE)
    batch = collate([samples[0], samples[1]])
    assert len(batch.pixels) == 0
    assert len(batch.indices) == 2
    assert batch.unreadable.all()


def test_arrays_of_a_batch_have_the_schemas_types():
    batch = collate([dataset((8, 8))[0]])
    found = {n: getattr(batch, n).dtype for n in ("indices", "sha256", "crop_box", "image_size")}
    assert found == {
        "indices": torch.int64, "sha256": torch.uint8, "crop_box": torch.float32, "image_size": torch.int32,
    }  # fmt: skip


def mixed(count: int = 23) -> SampleDataset:
    return dataset(*[UNREADABLE if i % 5 == 3 else (8 + i % 3, 12) for i in range(count)])


def stream(processes: int, count: int = 23) -> BatchStream:
    return BatchStream(mixed(count), RangeBatches([(0, 8), (8, count - 8)], 3), processes, CPU)


def test_two_processes_give_the_batches_that_none_gives():
    with stream(0) as alone, stream(2) as helped:
        pairs = list(zip(alone, helped, strict=True))
    assert len(pairs) == 3 + 5
    assert all(equal(a, b) for a, b in pairs)


def sized(source: MemorySource, size: int) -> MemorySource:
    source.sizes = np.full(len(source), size)
    return source


@pytest.mark.parametrize("processes", [0, 3])
@pytest.mark.parametrize("size", [-1, UNIT_BYTES // 3, 100 * UNIT_BYTES])
def test_batch_that_is_made_in_pieces_is_the_one_that_is_made_at_one_go(size, processes):
    kinds = [UNREADABLE if i % 5 == 3 or 8 <= i < 16 else (8 + i % 3, 12) for i in range(40)]
    samples = SampleDataset(sized(MemorySource(kinds), size), PREPROCESSING, (8, 8))
    lists = list(RangeBatches([(0, 24), (24, 16)], 20))
    with BatchStream(samples, lists, processes, CPU) as batches:
        found = list(batches)
    assert len(found) == len(lists)
    assert all(
        equal(batch, collate([samples[i] for i in indices])) for batch, indices in zip(found, lists, strict=True)
    )


def test_batch_of_unreadable_samples_only_has_no_pixels_when_it_is_made_in_pieces():
    samples = SampleDataset(sized(MemorySource([UNREADABLE] * 5), UNIT_BYTES), PREPROCESSING, (8, 8))
    with BatchStream(samples, [list(range(5))], 0, CPU) as batches:
        assert equal(next(batches), collate([samples[i] for i in range(5)]))


class SaysWho(MemorySource):
    """Its samples' errors say which process has read them."""

    def read(self, index):
        raise UnreadableImageError(str(os.getpid()))


@pytest.mark.parametrize(
    ("sizes", "makers"), [([UNIT_BYTES] * 8, 4), ([UNIT_BYTES // 2] * 4, 2), ([100] * 8, 1), ([-1] * 8, 1)]
)
def test_large_images_of_one_batch_are_made_by_all_processes_and_small_ones_at_one_go(sizes, makers):
    source = SaysWho([None] * len(sizes))
    source.sizes = np.array(sizes)
    indices = list(range(len(sizes)))
    with BatchStream(SampleDataset(source, PREPROCESSING, (8, 8)), [indices], 4, CPU) as batches:
        batch = next(batches)
    assert batch.indices.tolist() == indices
    assert len(set(batch.errors)) == makers


class Endless(MemorySource):
    """Its samples take as long as the test lets them."""

    def __init__(self, folder: Path) -> None:
        super().__init__([(8, 8)] * 4)
        self.folder = folder

    def read(self, index):
        (self.folder / f"begun-{index}").touch()
        for _ in range(600):
            if (self.folder / "go").exists():
                break
            time.sleep(0.1)
        (self.folder / f"read-{index}").touch()
        return super().read(index)


@pytest.mark.parametrize("processes", [0, 2])
def test_stop_is_heard_while_an_image_is_being_read_and_waits_for_none(processes, tmp_path):
    samples = SampleDataset(timed(Endless(tmp_path), 300), PREPROCESSING, (8, 8))
    with Stop(2), pytest.raises(StoppedEarlyError, match="time limit"), BatchStream(
        samples, [[0, 1], [2, 3]], processes, CPU
    ) as batches:  # fmt: skip
        next(batches)
    assert not children()
    assert [path.name for path in tmp_path.glob("read-*")] == []
    (tmp_path / "go").touch()


def test_source_without_a_time_limit_for_reads_is_stopped_between_two_samples():
    source = MemorySource([(8, 8)] * 3)
    read = []
    with Stop(0.0), pytest.raises(StoppedEarlyError):
        source.each([0, 1, 2], lambda index, _: read.append(index))
    assert read == [0]


@pytest.mark.parametrize("processes", [0, 2])
def test_stream_gives_batches_inside_its_block_only(processes):
    outside = stream(processes)
    with pytest.raises(RuntimeError, match="inside its `with` block only"):
        next(outside)
    with outside:
        next(outside)
    with pytest.raises(RuntimeError, match="inside its `with` block only"):
        next(outside)


def children() -> list[multiprocessing.process.BaseProcess]:
    return multiprocessing.active_children()


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_loader_processes_are_deaf_to_what_a_scheduler_sends_to_the_whole_job(number):
    with stream(2) as batches:
        processes = children()
        assert len(processes) == 2
        # from their first moment on
        for pause in (0, 0, 0.02, 0.1, 0):
            time.sleep(pause)
            for process in processes:
                os.kill(process.pid, number)
        loaded = list(batches)
    assert [int(i) for b in loaded for i in b.indices] == list(range(23))
    assert not children()


def test_no_process_is_left_after_the_block():
    with stream(2) as batches:
        next(batches)
        assert len(children()) == 2
    assert not children()


def divide(number: int) -> None:
    raise ZeroDivisionError(number)


def test_no_process_is_left_after_an_exception_whose_traceback_is_still_held():
    with pytest.raises(ZeroDivisionError) as held, stream(2) as batches:
        divide(len(next(batches).errors))
    assert held.value.__traceback__ is not None
    assert not children()


class Broken(MemorySource):
    def read(self, index: int):
        if index == 4:
            raise OSError("a bug of the source's")
        return super().read(index)


def test_no_process_is_left_after_an_exception_of_a_loader_whose_traceback_is_still_held():
    broken = SampleDataset(Broken([(8, 8)] * 9), PREPROCESSING, (8, 8))
    with pytest.raises(OSError, match="a bug of the source's") as held, BatchStream(
        broken, RangeBatches([(0, 9)], 2), 2, CPU
    ) as batches:  # fmt: skip
        list(batches)
    assert held.value.__traceback__ is not None
    assert not children()


class OpenedHere(MemorySource):
    """A source that works in the process alone in which it was made, or into which it was copied: as fsspec's."""

    def __init__(self, count: int) -> None:
        super().__init__([(8, 8)] * count)
        self.process = os.getpid()

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, process=os.getpid())

    def read(self, index: int):
        if os.getpid() != self.process:
            raise passing_fault(RuntimeError("This class is not fork-safe"))
        return super().read(index)


@pytest.mark.parametrize("processes", [0, 2])
def test_a_fault_that_is_not_the_samples_comes_out_of_a_loader_in_its_own_words(processes: int) -> None:
    source = OpenedHere(9)
    source.process = -1
    dataset = SampleDataset(source, PREPROCESSING, (8, 8))
    batches = RangeBatches([(0, 9)], 2)
    with BatchStream(dataset, batches, processes, CPU) as stream, pytest.raises(PassingFaultError) as caught:
        next(stream)
    assert str(caught.value).startswith("RuntimeError: This class is not fork-safe: the dataset was opened before")
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("start_method", ["spawn"])
def test_a_source_that_can_not_be_forked_is_read_by_processes_that_are_started_anew(start_method: str) -> None:
    dataset = SampleDataset(OpenedHere(4), PREPROCESSING, (8, 8))
    with BatchStream(dataset, RangeBatches([(0, 4)], 2), 1, CPU, start_method) as batches:
        assert [batch.errors for batch in batches] == [["", ""], ["", ""]]


def program(tmp_path: Path, body: str) -> list[str]:
    """A program that has `batches`, a stream of two processes that was entered, and then does `body`."""
    path = tmp_path / "program.py"
    start = """
        import os, signal, sys, time
        sys.path.insert(0, {root!r})
        from tests.data.test_loader import children, stream

        if __name__ == "__main__":
            batches = stream(2, count=400)
            batches.__enter__()
            next(batches)
            print(*[process.pid for process in children()], flush=True)
    """
    text = textwrap.dedent(start).format(root=str(ROOT))
    path.write_text(text + textwrap.indent(textwrap.dedent(body), "    "))
    return [sys.executable, str(path)]


def wait_until_gone(pids: list[int], seconds: float) -> None:
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in status(pid) for pid in pids):
        assert time.monotonic() < end, f"still there after {seconds} s: {pids}"
        time.sleep(0.1)


def status(pid: int) -> str:
    try:
        return "\n" + Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "\nState:\tZ"


def test_interpreter_ends_though_a_stream_was_not_finished(tmp_path):
    ended = subprocess.run(program(tmp_path, "pass"), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    wait_until_gone([int(pid) for pid in ended.stdout.split()], 10)


def test_loader_processes_end_when_a_signal_ends_their_parent(tmp_path):
    bodies = {signal.SIGKILL: "os.kill(os.getpid(), signal.SIGKILL)", signal.SIGTERM: "os.kill(0, signal.SIGTERM)"}
    pids = []
    for number, body in bodies.items():
        ended = subprocess.run(
            program(tmp_path, body), capture_output=True, text=True, timeout=60, start_new_session=True
        )
        assert ended.returncode == -number
        pids += [int(pid) for pid in ended.stdout.split()]
    assert len(pids) == 4
    wait_until_gone(pids, 30)


def test_killed_loader_process_is_an_error_and_no_hang(tmp_path):
    body = """
        os.kill(children()[0].pid, signal.SIGKILL)
        list(batches)
    """
    ended = subprocess.run(program(tmp_path, body), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    # torch's handler of SIGCHLD may raise at any line, also after the stream's own error
    assert "a loader process died" in ended.stderr or "killed by signal: Killed" in ended.stderr


def test_batch_that_cannot_be_handed_over_is_an_error_and_no_hang(tmp_path):
    body = """
        from batchcam.data import loader

        class Batch:
            def __reduce__(self):
                raise RuntimeError("unable to allocate shared memory: No space left on device")

        loader.collate = lambda samples: Batch()
        with stream(1) as lost:
            next(lost)
    """
    ended = subprocess.run(program(tmp_path, body), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "can't hand over a batch: unable to allocate shared memory: No space left on device\n" in ended.stderr
    assert "a loader process died" in ended.stderr or "exited unexpectedly" in ended.stderr


@pytest.mark.parametrize("semaphores", range(0, 9, 2))
def test_loader_processes_that_cannot_start_are_an_error_that_says_what_to_do(semaphores, monkeypatch):
    real, left = multiprocessing.synchronize.SemLock.__init__, [semaphores]

    def few(*arguments: object, **options: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments, **options)

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", few)
    with pytest.raises(BatchcamError, match="cannot start loader processes: No space left on device; try --workers 0"):
        stream(1).__enter__()
    gc.collect()  # pytest fails when what torch leaves behind complains
    assert not children()


def test_abandoned_stream_can_be_opened_again():
    batches = stream(2)
    for _ in range(2):
        with batches:
            assert next(batches).indices.tolist() == [0, 1, 2]
    assert not children()


def sample(pixels: Tensor | None) -> LoadedSample:
    return LoadedSample(0, pixels, NO_DIGEST, (0.0, 0.0, 1.0, 1.0), (1, 1), "" if pixels is not None else "torn")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs a GPU's driver")
def test_pinned_batch_has_the_same_pixels():
    batch = collate([sample(torch.ones(3, 2, 2, dtype=torch.uint8))])
    assert batch.pin_memory().pixels.is_pinned()
    assert torch.equal(batch.pin_memory().pixels, batch.pixels)


@pytest.mark.parametrize(
    ("message", "death"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", True),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", True),
        ("Caught ValueError in DataLoader worker process 0.", False),
    ],
)
def test_torchs_words_for_a_loader_that_died(message, death):
    assert is_loader_death(RuntimeError(message)) is death


def test_more_processes_than_cpus_are_started_without_a_warning():
    """pytest makes errors of warnings."""
    with stream(len(os.sched_getaffinity(0)) + 1) as batches:
        assert sum(len(batch.indices) for batch in batches) == 23


def test_loader_whose_parent_is_gone_before_it_starts_ends_itself():
    gone = subprocess.Popen(["true"])
    gone.wait()
    code = (
        "from batchcam.data.loader import _leave_signals_to_parent\n"
        f"_leave_signals_to_parent(None, {gone.pid}, 0)\n"
        "raise SystemExit('went on without its parent')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
