"""Fixtures and settings of all tests."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchcam.store.plan import Plan
from tests.helpers.synthetic import (
    Rows,
    land_shards,
    run_command,
    shard_image,
    synthetic_plan,
    synthetic_rows,
    synthetic_run,
)


def pytest_configure(config: pytest.Config) -> None:
    """Keep torch, where it is installed, to one thread: test machines are shared. Ctrl-C counts, logs are plain.

    Networks are torch's but in tests of the other engine: converting one takes longer than most tests.
    """
    os.environ["BATCHCAM_NO_LOG_TIMES"] = "1"
    os.environ["BATCHCAM_ENGINE"] = "torch"
    # before torch is imported: threads that wait busily for one that has no CPU take it from all tests
    os.environ["OMP_WAIT_POLICY"] = "passive"
    # a shell that starts the suite in the background has it ignored, by all children too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
    from batchcam.network import compiled

    compiled.is_installed = lambda: False


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs a GPU where there is none."""
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


@pytest.fixture(name="make_plan")
def _make_plan() -> Callable[..., Plan]:
    return synthetic_plan


@pytest.fixture(name="make_rows")
def _make_rows() -> Callable[..., Rows]:
    return synthetic_rows


@pytest.fixture(name="make_image")
def _make_image() -> Callable[..., bytes]:
    return shard_image


@pytest.fixture(name="make_shards")
def _make_shards() -> Callable[..., None]:
    return land_shards


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a finished run, options of the plan as keywords, and returns its folder."""

    def make(name: str = "run", seed: int = 0, **changes: Any) -> Path:
        synthetic_run(tmp_path / name, seed, **changes)
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def sound_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 21 samples in three shards, to be read only."""
    run = tmp_path_factory.mktemp("sound") / "run"
    synthetic_run(run)
    return run


@pytest.fixture
def finished_run(sound_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be changed."""
    return Path(shutil.copytree(sound_run, tmp_path / "finished"))


@pytest.fixture(name="run_cli")
def _run_cli() -> Callable[..., tuple[int, str, str]]:
    return run_command
