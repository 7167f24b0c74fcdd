"""Which tables of images there are, by the words that name one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

from batchcam.images import remote
from batchcam.images.arrow_tables import parquet_table
from batchcam.images.huggingface import open_huggingface
from batchcam.images.tables import Reading, Table, text_table
from batchcam.images.webdataset import open_webdataset

BY_PREFIX: Final[dict[str, Callable[[str, Reading], Table]]] = {"wds": open_webdataset, "hf": open_huggingface}
"""What opens the datasets that are named PREFIX:WORDS."""

_TEXTS: Final = (".csv", ".tsv", ".jsonl")


def is_table(file: str) -> bool:
    """Return whether a file, or what a URL leads to, is called like a table."""
    return remote.address(file).lower().endswith((*_TEXTS, ".parquet"))


@contextlib.contextmanager
def any_table(data: str, reading: Reading) -> Iterator[Table | None]:
    """Open the table that `data` names: by its prefix, or a file; None where it names none."""
    prefix, _, words = data.partition(":")
    if prefix in BY_PREFIX:
        yield BY_PREFIX[prefix](words, reading)
    elif (remote.is_url(data) or os.path.isfile(data)) and is_table(data):
        with table_in(data, reading) as table:
            yield table
    else:
        yield None


@contextlib.contextmanager
def table_in(file: str, reading: Reading) -> Iterator[Table]:
    """Open a file that is called like a table.

    Raises:
        TableError: it is none, also while its rows are read.
        OSError: it can't be read.
    """
    if remote.address(file).lower().endswith(".parquet"):
        yield parquet_table([file], reading)
    else:
        with text_table(file, reading) as table:
            yield table
