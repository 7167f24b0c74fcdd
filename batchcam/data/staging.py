"""Copies of a worker's images on a disk near it, such as the node's own."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from batchcam.data.samples import FileSource, Source
from batchcam.data.timed_source import TimedSource
from batchcam.errors import ConfigError
from batchcam.images.regular_files import MOST_BYTES, NotRegularError, TooLargeError
from batchcam.images.remote import read_file
from batchcam.job.console import Progress, note, readable_size


@contextlib.contextmanager
def staged(source: Source, indices: Iterable[int], folder: Path, quiet: bool) -> Iterator[None]:
    """Copy the files of samples into a new folder in `folder`, where `source` then reads them; remove it in the end.

    What can't be copied is read where it is: a fault that matters will show again, in the words of the read.

    Raises:
        ConfigError: the dataset is no files, or `folder` can't be written to.
        StoppedEarlyError: there is a reason to stop.
    """
    files = source.inner if isinstance(source, TimedSource) else source
    if not isinstance(files, FileSource):
        raise ConfigError(f"--stage-to: {source.spec} is no dataset of image files; leave it out")
    try:
        copies = tempfile.TemporaryDirectory(prefix="batchcam.", dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise ConfigError(
            f"--stage-to {folder}: cannot write there: {error.strerror}; name a folder of this machine"
        ) from error
    with copies:
        _copy(files, list(indices), Path(copies.name), quiet)
        files.copies = copies.name
        try:
            yield
        finally:
            files.copies = None


def _copy(files: FileSource, indices: list[int], place: Path, quiet: bool) -> None:
    size = 0
    with Progress("stage", len(indices), "images", quiet) as progress:
        for index in indices:
            try:
                content = read_file(files.path(index), MOST_BYTES)
            except (OSError, NotRegularError, TooLargeError, MemoryError):
                progress.advance(1)
                continue
            copy = place / str(index)
            try:
                copy.write_bytes(content)
            except OSError as error:  # the disk is full
                copy.unlink(missing_ok=True)
                note(f"warning: --stage-to {place.parent}: {error.strerror}: the rest is read where it is", quiet=False)
                break
            size += len(content)
            progress.advance(1)
    note(f"{len(os.listdir(place))} images copied to {place}, {readable_size(size)}", quiet)
