"""Prometheus's text format, for node_exporter's textfile collector.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from batchcam.errors import ConfigError

PREFIX: Final = "batchcam_"
MARK: Final = f"# HELP {PREFIX}".encode()

Sample = tuple[Mapping[str, str], float]
"""Labels by name, and a value."""


def require_ours(path: Path) -> None:
    """Refuse to replace a file that is not of our metrics.

    Raises:
        ConfigError: something else lies there.
    """
    if not os.path.lexists(path) or (path.is_file() and path.stat().st_size == 0):
        return
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(MARK)) == MARK:
                return
    raise ConfigError(f"--prometheus {path}: is there, and batchcam did not make it; name another file")


def exposition(metrics: Iterable[tuple[str, str, Iterable[Sample]]]) -> str:
    """Return metrics as text: the name, what it means, and its samples; those that have none are left out."""
    lines = []
    for name, meaning, samples in metrics:
        metric = PREFIX + name
        told = []
        for labels, value in samples:
            written = ",".join(f'{key}="{_label(text)}"' for key, text in labels.items())
            told.append(f"{metric}{{{written}}} {value!r}")
        if told:
            lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} gauge", *told]
    return "\n".join(lines) + "\n"


def _label(value: str) -> str:
    r"""Return a label's value, escaped; bytes of a name that are no UTF-8 show as \xff."""
    valid = os.fsencode(value).decode(errors="backslashreplace")
    return valid.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
