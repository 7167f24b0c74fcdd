"""Where commands may write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from batchcam.errors import ConfigError


def require_outside(out: Path, run: Path) -> None:
    """Refuse to write into a run, which never changes and whose verification would report the file.

    Raises:
        ConfigError: `out` lies in `run`, or is it.
    """
    if out.resolve().is_relative_to(run.resolve()):
        raise ConfigError(f"--out {out}: lies in the run, which never changes; choose another place")


PROMOTED: Final = "promoted"
"""The link to the promoted version of a model, beside the versions."""


def require_version(version: Path) -> None:
    """Refuse what can't be a version of a model beside the link to the promoted one.

    Raises:
        ConfigError: it is the link itself, or something else lies where the link is to be.
    """
    if version.name == PROMOTED:
        raise ConfigError(f"{version}: is the link to the promoted version; name a new one")
    require_link(version.parent / PROMOTED)


def require_link(path: Path) -> None:
    """Refuse what is in the way of a link that is going to be moved.

    Raises:
        ConfigError: something lies at `path` that is no link.
    """
    if os.path.lexists(path) and not path.is_symlink():
        raise ConfigError(f"{path}: is in the way; it has to be a link, or nothing")
