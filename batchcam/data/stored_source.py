"""Images that lie inside of other files: tars, zips, Parquet, Arrow."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from batchcam.data.samples import Numbers, Source, StoredSample, Texts, decoded, unreadable
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.members import HolderError, Stored
from batchcam.images.passing_faults import PassingFaultError


class StoredSource(Source):
    """A dataset whose images are stored bytes, as files are."""

    digests_of = "files"

    def __init__(
        self,
        spec: str,
        sample_ids: Texts,
        labels: Numbers,
        stored: Stored,
        class_names: tuple[str, ...] | None = None,
        notes: Iterable[str] = (),
        empty_classes: tuple[str, ...] = (),
        numeric: bool = False,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        """Keep a listing of what is stored, or of its `rows`, one a sample."""
        sizes = stored.sizes if rows is None else stored.sizes[rows]
        super().__init__(spec, sample_ids, labels, sizes, class_names, notes, empty_classes, numeric)
        self._stored, self._rows = stored, rows

    def read(self, index: int) -> StoredSample:
        """Read and decode one image.

        Raises:
            PassingFaultError: the file in which it lies is away, or another one than was listed.
        """
        index = range(len(self))[index]
        try:
            data = self._stored.read(index if self._rows is None else int(self._rows[index]))
        except HolderError as error:
            raise PassingFaultError(f"{error}: run the same command again") from error
        except OSError as error:
            raise unreadable(error) from error
        except MemoryError as error:
            raise UnreadableImageError("not enough memory to read it") from error
        return decoded(data, int(self.sizes[index]), self.decoding)
