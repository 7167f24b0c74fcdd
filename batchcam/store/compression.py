"""Chunks of maps as the gzip filter of HDF5 stores them, compressed outside HDF5 and in parallel."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

LEVEL = 1

FIRST_BYTES = 8
"""Written out on their own by ISA-L; with three or fewer its history would not have begun."""

try:
    # 3.5 to 5 times less CPU than zlib at the same size, and the same format for every reader
    import isal
    from isal import isal_zlib
except ImportError:
    _compress: Callable[[bytes, int], bytes] = zlib.compress
    COMPRESSOR = f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
else:
    COMPRESSOR = f"isal {isal.__version__}"

    def _compress(data: bytes, level: int) -> bytes:
        """Return `data` as a zlib stream, the same one always.

        ISA-L up to at least 2.32 enters the third byte of a stream into its hash table at a place that an uninitialised
        register gives (`write_first_byte` in igzip_icf_body_h1_gr_bt.asm), so which matches it finds depends on where
        in memory it works. Not so where something precedes: `FIRST_BYTES` that are written out beforehand.
        """
        stream, view = isal_zlib.compressobj(level), memoryview(data)
        begun = stream.compress(view[:FIRST_BYTES]) + stream.flush(isal_zlib.Z_SYNC_FLUSH)
        return begun + stream.compress(view[FIRST_BYTES:]) + stream.flush()


def deflate_chunk(rows: np.ndarray, chunk_rows: int) -> bytes:
    """Return `rows` as one chunk for HDF5's filter pipeline (shuffle for wider types, then deflate).

    Args:
        rows: (r, ...) with r <= `chunk_rows`; a last chunk is padded with zeros to its full shape, as HDF5 wants.
        chunk_rows: rows of a whole chunk.
    """
    if len(rows) < chunk_rows:
        rows = np.concatenate([rows, np.zeros((chunk_rows - len(rows), *rows.shape[1:]), rows.dtype)])
    if rows.itemsize > 1:  # the shuffle filter: all first bytes, then all second bytes, …
        rows = np.ascontiguousarray(rows.reshape(-1).view(np.uint8).reshape(-1, rows.itemsize).T)
    return _compress(rows.tobytes(), LEVEL)
