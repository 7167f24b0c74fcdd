"""Compiled graphs in the user's cache folder: the next process does not convert the same network again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from torch import nn

KEPT = 8
"""How many graphs stay, the latest used; each takes about what the weights do."""

MEASURED = 1000
"""How many measurements of a few bytes do."""

DIGEST_BYTES = 32


def key_of(network: nn.Module, *facts: object, weights: bool = True) -> str:
    """Return the name of a network's graph: a digest of its modules, its weights, and what else its numbers come from.

    Args:
        network: of a library's code, whose version is one of the facts.
        facts: that too.
        weights: whether they count.
    """
    digest = hashlib.sha256(repr((network, facts)).encode())
    for name, tensor in network.state_dict().items() if weights else ():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().reshape(-1).data)
    return digest.hexdigest()


def read(key: str) -> bytes | None:
    """Return what was kept under `key`, None where nothing was, or not all of it is there."""
    path = _folder() / key
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    return content[DIGEST_BYTES:] if hashlib.sha256(content[DIGEST_BYTES:]).digest() == content[:DIGEST_BYTES] else None


def keep(key: str, content: bytes, most: int = KEPT) -> None:
    """Keep `content` under `key`, and of its kind the `most` latest used; where nothing can be written, nothing is."""
    folder = _folder()
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as file:
            try:
                file.write(hashlib.sha256(content).digest() + content)
                file.close()
                os.replace(file.name, folder / key)
            except BaseException:
                os.unlink(file.name)
                raise
        kind = "speed-" in key
        for path in _latest_first(path for path in folder.iterdir() if ("speed-" in path.name) == kind)[most:]:
            path.unlink(missing_ok=True)


def _folder() -> Path:
    """Return the folder: https://specifications.freedesktop.org/basedir-spec/latest/, where only whole paths count."""
    said = os.environ.get("XDG_CACHE_HOME", "")
    return Path(said if os.path.isabs(said) else os.path.expanduser("~/.cache")) / "batchcam" / "compiled"


def _latest_first(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in paths:
        with contextlib.suppress(OSError):  # another process has just removed it
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]
