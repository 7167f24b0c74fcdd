"""What the steps of a night said: RUNS/<day>.log."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

LINES_TOLD: Final = 15
MOST_BYTES: Final = 2**16


class Log:
    """The log of a run; where it can't be written, as on a full disk, a file that lasts as long as this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begun = 0

    def __enter__(self) -> Log:
        try:
            self.file: IO[bytes] = self.path.open("a+b", buffering=0)
        except OSError:
            self.file = tempfile.TemporaryFile("a+b", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def begin(self, words: Sequence[str]) -> None:
        """Note that a step begins."""
        self._begun = self.file.seek(0, 2)
        self.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} batchcam {shlex.join(words)}\n")

    def write(self, text: str) -> None:
        """Append a text."""
        with contextlib.suppress(OSError):
            self.file.write(text.encode(errors="surrogateescape"))

    def said(self) -> str:
        """Return the end of what the last step said, with the line that it began with."""
        self.file.seek(max(self._begun, self.file.seek(0, 2) - MOST_BYTES))
        return self.file.read().decode(errors="replace")

    def last_lines(self) -> list[str]:
        """Return the last lines of the log."""
        self.file.seek(max(0, self.file.seek(0, 2) - MOST_BYTES))
        return self.file.read().decode(errors="replace").splitlines()[-LINES_TOLD:]
