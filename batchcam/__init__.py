"""Explain a whole dataset's predictions with class activation maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchcam.store.opening import open_run

    __version__: str

__all__ = ["__version__", "open_run"]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # asks git in a checkout
        from batchcam.job.version import version

        return version()
    if name == "open_run":  # not imported above: `batchcam --help` would wait for numpy and h5py
        from batchcam.store.opening import open_run

        return open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
