"""JSON documents of a run that carry their own digest, so that an edit or a flipped bit shows."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

from batchcam.errors import BatchcamError, RunError
from batchcam.store.bringing import bring

DIGEST_KEY = "document_sha256"
"""SHA-256 of the document's text without this key."""

SIZE_LIMIT = 2**26
"""A larger document is not one of ours. JSON takes up to thirty times its size in memory."""


def canonical(value: object) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def seal(content: dict[str, Any]) -> bytes:
    """Return `content` as the text of a document, with its digest, for people to read.

    Raises:
        BatchcamError: it would be longer than a document that is read.
    """
    document = _text({**content, DIGEST_KEY: _digest(content)})
    if len(document) > SIZE_LIMIT:
        raise BatchcamError(f"a document of {len(document)} bytes, where a run's may have {SIZE_LIMIT}: not written")
    return document


def read_document(path: Path) -> dict[str, Any]:
    """Return the content of the document at `path` without its digest.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        RunError: it can't be read, is not JSON, or was changed after it was written.
    """
    try:
        status = path.lstat()
        # a pipe would be waited for, a device read forever, a link may lead out of the run
        if not stat.S_ISREG(status.st_mode) or status.st_size > SIZE_LIMIT:
            raise RunError(f"{path}: not a file of at most {SIZE_LIMIT} bytes; not a document of batchcam")
        bring(path)
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise RunError(f"{path}: cannot read: {error.strerror}") from error
    try:
        content = json.loads(raw)
        if not isinstance(content, dict):
            raise RunError(f"{path}: not a document of batchcam")
        stated = content.pop(DIGEST_KEY, None)
        # comparing the whole text finds changes that JSON ignores, such as a second key of the same name;
        # writing it again fails on NaN and on depths that reading survives
        unchanged = stated == _digest(content) and _text({**content, DIGEST_KEY: stated}) == raw
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not JSON: {error}") from error
    if not unchanged:
        raise RunError(f"{path}: changed after it was written: its {DIGEST_KEY} does not match")
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(_encode(canonical(content))).hexdigest()


def _text(content: dict[str, Any]) -> bytes:
    return _encode(json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _encode(text: str) -> bytes:
    # a path that is not UTF-8 reaches us as surrogates, whose escape by Python is also JSON's
    return text.encode("utf-8", "backslashreplace")
