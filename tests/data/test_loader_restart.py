"""A loader process that is killed costs its shard, not the run: the loaders start again, and the bytes are the same."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from batchcam.commands.explain.explain import explain
from batchcam.commands.explain.work import RESTARTS
from batchcam.config.shared import Compute
from batchcam.data.loader import LoaderDiedError
from batchcam.data.samples import FileSource
from tests.commands.explain.test_explain import checkpoint, config, digests, images, reference  # noqa: F401


@pytest.fixture
def murder(monkeypatch, tmp_path):
    """Kill the loader process that reads sample 7, as often as said."""
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    read = FileSource.read

    def dying(times: int) -> None:
        def fatal(self, index):
            if index == 7 and len(list(deaths.iterdir())) < times:
                (deaths / str(len(list(deaths.iterdir())))).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return read(self, index)

        # the main process reads the first samples only, as its probe
        monkeypatch.setattr(FileSource, "read", fatal)

    return SimpleNamespace(dying=dying, count=lambda: len(list(deaths.iterdir())))


# torch raises in its handler of SIGCHLD, be it inside of another library's callback, where it can only be ignored
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("times", [1, RESTARTS])
def test_run_goes_on_with_the_same_bytes(times, murder, reference, checkpoint, images, tmp_path, capsys):  # noqa: F811
    murder.dying(times)
    settings = config(checkpoint, images, tmp_path / "run", quiet=False)
    compute = Compute(batch_size=settings.compute.batch_size, workers=2, threads=1, device="cpu")
    summary = explain(config(checkpoint, images, tmp_path / "run", compute=compute, quiet=False))
    assert murder.count() == times
    assert summary.complete
    assert digests(tmp_path / "run") == digests(reference)
    assert f"restart {times} of {RESTARTS}" in capsys.readouterr().err


# torch's handler of SIGCHLD raises at whatever line runs, such as one that has just opened a temporary file
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_loader_that_always_dies_ends_the_work_in_one_line(murder, checkpoint, images, tmp_path):  # noqa: F811
    murder.dying(99)
    compute = Compute(batch_size=2, workers=1, threads=1, device="cpu")
    with pytest.raises(LoaderDiedError, match="a loader process died") as caught:
        explain(config(checkpoint, images, tmp_path / "run", compute=compute))
    assert murder.count() == RESTARTS + 1
    assert str(caught.value).isprintable()
