"""Memory of a worker: divided among shards, images that wait and decoding, or refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from batchcam.commands.explain import memory
from batchcam.commands.explain.memory import COPIES, PROCESS_BYTES, memory_for
from batchcam.data.decoding_memory import STORED_TIMES
from batchcam.errors import ConfigError
from batchcam.store.layout import shard_bytes
from batchcam.store.plan import Shard

IMAGE = 3 * 224 * 224
ASSEMBLY = SimpleNamespace(
    dataset=SimpleNamespace(sample_bytes=IMAGE), source=SimpleNamespace(sizes=np.array([-1, 100]))
)


@pytest.fixture
def plan(make_plan):
    return make_plan(sample_count=1000, shard_size=100, batch_size=20)


def allotted(total, plan, assembly, processes):
    return memory_for(total, plan, assembly, [Shard(0, 0, len(assembly.source.sizes))], processes)


@pytest.mark.parametrize("processes", [0, 1, 4])
def test_shards_and_two_batches_a_process_have_what_they_need_and_decoding_the_rest(plan, processes):
    total = 2**30
    found = allotted(total, plan, ASSEMBLY, processes)
    assert found.shards == COPIES * shard_bytes(plan, 100)
    assert found.waiting == 2 * 20 * IMAGE * max(1, processes)
    assert found.shards + found.waiting + found.decoding + processes * PROCESS_BYTES == total
    assert found.processes == processes


def test_where_memory_is_short_fewer_images_wait_but_one_batch_always(plan):
    shards, batch = COPIES * shard_bytes(plan, 100), 20 * IMAGE
    short = allotted(shards + 6 * batch, plan, ASSEMBLY, 0)
    assert (short.waiting, short.decoding) == (2 * batch, 4 * batch)
    assert allotted(shards + 3 * batch, plan, ASSEMBLY, 1).waiting == 3 * batch // 2
    assert allotted(shards + batch, plan, ASSEMBLY, 4).waiting == batch


@pytest.mark.parametrize(("megabytes", "processes"), [(5, 6), (200, 3), (300, 1), (2000, 1)])
def test_where_not_even_one_image_fits_beside_all_processes_there_are_fewer(megabytes, processes, plan):
    sizes = np.array([10, megabytes * 2**20 // STORED_TIMES])
    assembly = SimpleNamespace(dataset=SimpleNamespace(sample_bytes=1), source=SimpleNamespace(sizes=sizes))
    total = COPIES * shard_bytes(plan, 100) + 400 * 2**20
    found = allotted(total, plan, assembly, 6)
    assert found.processes == processes
    assert found.decoding >= min(megabytes * 2**20, 400 * 2**20 - PROCESS_BYTES - found.waiting)


def test_memory_that_can_not_hold_a_shard_and_a_batch_is_refused_with_what_they_take(plan):
    total = COPIES * shard_bytes(plan, 100) + 20 * IMAGE - 1
    with pytest.raises(
        ConfigError, match=r"^--memory .*: shards of 100 samples take .*, a batch .*smaller --shard-size"
    ):
        allotted(total, plan, ASSEMBLY, 4)


def test_by_default_it_is_three_quarters_of_what_is_left(plan, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 2**30)
    monkeypatch.setattr(memory, "_taken", lambda: 2**29)
    found = allotted(None, plan, ASSEMBLY, 1)
    assert found.shards + found.waiting + found.decoding + PROCESS_BYTES == 3 * 2**29 // 4
    monkeypatch.setattr(memory, "_taken", lambda: 2**30)
    with pytest.raises(ConfigError, match=r"^0 B of memory that are left: "):
        allotted(None, plan, ASSEMBLY, 1)
