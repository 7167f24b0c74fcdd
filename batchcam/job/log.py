"""stderr as a log: each line with its time, or as a JSON object, where no person sits in front of it."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from typing import TextIO

NAME = "batchcam: "
ERROR = f"{NAME}error: "

Form = Callable[[str], str]


def stamped(line: str) -> str:
    """Return a line behind the local time."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}" if line else line


def as_json(line: str) -> str:
    """Return a line as a JSON object: time (UTC), level (`error` or `info`), message."""
    level, prefix = ("error", ERROR) if line.startswith(ERROR) else ("info", NAME)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"time": at, "level": level, "message": line.removeprefix(prefix)})


class LogLines(io.TextIOBase):
    """A text stream that hands on whole lines, each in a form.

    Args:
        stream: where they go.
        form: makes of a line what is written.
    """

    def __init__(self, stream: TextIO, form: Form) -> None:
        self._stream, self._form = stream, form
        self._begun = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream; without one click would look for bytes below."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write the lines that `text` ends, and keep what it begins."""
        *lines, self._begun = (self._begun + text).split("\n")
        if lines:
            self._stream.write("".join(f"{self._form(line)}\n" for line in lines))
            self._stream.flush()
        return len(text)

    def end(self) -> None:
        """End a line that was begun."""
        if self._begun:
            self.write("\n")

    def fileno(self) -> int:
        """Return the stream's descriptor: processes that are started write there."""
        return self._stream.fileno()
