"""Every kind of data of the docs' table is read as it says, by its digests and labels, or refused with what helps."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from batchcam.data.findings import LabelReading, read_findings
from batchcam.data.labels import match_classes
from batchcam.data.sources import open_source
from batchcam.errors import BatchcamError
from batchcam.images.decoding import UnreadableImageError, decode_image
from batchcam.images.tables import Reading
from tests.helpers.data_kinds import FILES, KINDS, NONE, ONE, SEVERAL, DataKind, read_kinds
from tests.helpers.places import CLASSES, IMAGES, label_of

EACH = pytest.mark.parametrize("kind", KINDS, ids=[kind.given for kind in KINDS])


def digest(kind: DataKind, content: bytes) -> bytes:
    return hashlib.sha256(content if kind.proof == FILES else decode_image(content).tobytes()).digest()


def require_read(kind: DataKind, data: str, reading: Reading) -> None:
    source = open_source(data, reading=reading)
    digests = [source.read(index).sha256 for index in range(len(source))]
    if kind.proof == ONE:
        assert digests
        return
    assert sorted(digests) == sorted(digest(kind, content) for content in IMAGES.values())
    if kind.labels == SEVERAL:
        said = "single-label" if "single-label" in kind.words else "multi-label"
        found = read_findings(source, CLASSES, LabelReading(said))
        assert found is not None
        assert (np.asarray(found.values) == 1).any()
        return
    labels = dict(zip(digests, match_classes(source, CLASSES).indices.tolist(), strict=True))
    wanted = {digest(kind, content): CLASSES.index(label_of(name)) for name, content in IMAGES.items()}
    assert labels == (dict.fromkeys(wanted, -1) if kind.labels == NONE else wanted)


@EACH
def test_each_kind_of_the_table_is_read_or_refused_as_it_says(kind: DataKind, tmp_path: Path) -> None:
    if kind.package:
        pytest.importorskip(kind.package)
    data = kind.make(tmp_path)
    if not kind.says:
        require_read(kind, data, kind.reading)
        return
    with pytest.raises((BatchcamError, UnreadableImageError)) as raised:
        require_read(kind, data, kind.reading)
    assert re.search(kind.says, str(raised.value))
    assert "\n" not in str(raised.value)
    if kind.helped:
        require_read(kind, *kind.helped(tmp_path))


def test_most_kinds_are_read() -> None:
    assert (read_kinds(), len(KINDS)) >= (40, 51)
