"""Which device a job runs on, and when it is none that was asked for; GPUs are pretended."""

from __future__ import annotations

import pytest
import torch

from batchcam.errors import DeviceError
from batchcam.network.device import gpu_count, pick_device


@pytest.fixture
def no_gpu(monkeypatch) -> None:
    def zeros(*_: object, **__: object) -> None:
        raise RuntimeError("Found no NVIDIA driver on your system. Please check that you have one")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch, "zeros", zeros)


@pytest.fixture
def two_gpus(monkeypatch) -> list[torch.device]:
    """Pretend two GPUs that work; return the list of what becomes the current one."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(1))
    return current


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CUDA_VISIBLE_DEVICES", "0"),
        ("CUDA_VISIBLE_DEVICES", "0,1"),
        ("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"),
        ("CUDA_VISIBLE_DEVICES", "MIG-7d1a0f4c/1/0"),
        ("ROCR_VISIBLE_DEVICES", "1"),
        ("SLURM_JOB_GPUS", "0"),
        ("SLURM_STEP_GPUS", "3"),
        ("SLURM_GPUS", "a100:2"),
        ("SLURM_GPUS_ON_NODE", "1"),
        ("SLURM_GPUS_PER_TASK", "1"),
        ("NVIDIA_VISIBLE_DEVICES", "GPU-8932f937"),
    ],
)
def test_auto_is_no_cpu_where_a_gpu_was_asked_for(no_gpu, name, value):
    with pytest.raises(DeviceError) as refused:
        pick_device("auto", environment={name: value})
    assert str(refused.value) == (
        f"--device auto: a GPU was asked for, as {name}={value} says, but torch {torch.__version__} finds none that "
        "works: Found no NVIDIA driver on your system; mend that, or say --device cpu"
    )
    assert pick_device("cpu", environment={name: value}) == torch.device("cpu")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "-1"},
        {"CUDA_VISIBLE_DEVICES": "NoDevFiles"},
        {"CUDA_VISIBLE_DEVICES": "", "SLURM_JOB_GPUS": "0"},  # a job with a GPU, a process without
        {"SLURM_GPUS": "0"},
        {"SLURM_GPUS_ON_NODE": "0"},
        {"SLURM_GPUS_PER_NODE": "a100:0"},
        {"SLURM_JOB_GPUS": ""},
        {"NVIDIA_VISIBLE_DEVICES": "all"},
        {"NVIDIA_VISIBLE_DEVICES": "void"},
    ],
)
def test_auto_is_the_cpu_where_no_gpu_was_asked_for(no_gpu, environment):
    assert pick_device("auto", environment=environment) == torch.device("cpu")


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_workers_of_one_machine_take_a_gpu_each(two_gpus, name):
    assert [pick_device(name, rank).index for rank in range(3)] == [0, 1, 0]
    assert [device.index for device in two_gpus] == [0, 1, 0]  # none of them touches the others' memory


def test_gpu_that_is_named_is_taken_whatever_the_rank(two_gpus):
    assert pick_device("cuda:1", 0) == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_gpu_that_does_not_work_is_no_cpu_and_no_traceback(two_gpus, monkeypatch, name):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with")

    monkeypatch.setattr(torch, "ones", broken)
    with pytest.raises(DeviceError, match=f"--device {name}: cuda:0 does not work: CUDA error: no kernel image"):
        pick_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:3", "gpu", "meta"])
def test_device_that_is_not_here_is_refused_with_those_that_are(no_gpu, name):
    with pytest.raises(DeviceError, match=f"--device {name}: not on this machine; there are: cpu$"):
        pick_device(name)


def test_gpus_are_counted_for_whoever_computes_on_one(two_gpus):
    assert [gpu_count(torch.device(name)) for name in ("cuda", "cuda:1", "cpu")] == [2, 2, 0]
