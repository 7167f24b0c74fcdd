"""From the name of a run, which may be a URL or a zip file, to a folder of this machine."""

from __future__ import annotations

from pathlib import Path

from batchcam.store.bringing import is_elsewhere


def local(path: Path) -> Path:
    """Return a folder, or shard, to read a run from: `path`, unless it is a URL or a zip file.

    Raises:
        RunError: nothing can be read there.
        BatchcamError: a package is missing.
        StoppedEarlyError: the network or the server is away.
    """
    if not is_elsewhere(path):
        return path
    from batchcam.store.mirror import mirrored  # Pillow's import takes its time

    return mirrored(path)
