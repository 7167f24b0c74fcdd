"""Every error of ours and the exit code it ends the process with."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_FINDINGS = 3
EXIT_STOPPED_EARLY = 75  # EX_TEMPFAIL of sysexits.h: run the same command again

CLASSES_DIFFER = "classes"
"""What `--json` says of an error that tells that classes do not fit."""


_CALLED: dict[str, str] = {}


def call(folder: str, name: str) -> None:
    """Let a folder of this machine that stands for another place be called so in every message."""
    _CALLED[folder] = name


def called(text: str) -> str:
    """Return a text with such folders by what they are called."""
    for folder, name in _CALLED.items():
        text = text.replace(folder, name)
    return text


class BatchcamError(Exception):
    """Trouble in the world, told in one line: what, where, what to do."""

    exit_code = EXIT_FAILED
    kind: str | None = None

    def __str__(self) -> str:
        """Return the message on one line that prints, whatever texts of other people's files it quotes."""
        return one_line(called(super().__str__()))


class ConfigError(BatchcamError):
    """An option, a configuration file or a combination of both that can't be meant."""

    exit_code = EXIT_USAGE


class CheckpointError(BatchcamError):
    """A checkpoint that can't be read, isn't one, or doesn't fit the network."""


class ModelError(BatchcamError):
    """A network that can't be explained: no global average pooling before its last linear layer, or the wrong layer."""


class DeviceError(BatchcamError):
    """A device that this machine does not have."""


class DatasetError(BatchcamError):
    """A dataset that can't be listed, is empty, or doesn't fit the checkpoint."""


class ClassesError(DatasetError):
    """A dataset with classes that the checkpoint does not have."""

    kind = CLASSES_DIFFER


class OtherClassesError(ConfigError):
    """Two runs with different classes, where nobody said to compare those that both have."""

    kind = CLASSES_DIFFER


class RunError(BatchcamError):
    """A run directory that is another run's, damaged, or incomplete."""


class CheckerError(BatchcamError):
    """The process that is to check a run can't start, which says nothing about the run."""


class OutOfMemoryError(BatchcamError):
    """There is too little memory to read a file, which says nothing about the file."""


class StoppedEarlyError(BatchcamError):
    """The work stopped before its end and goes on when the same command is run again."""

    exit_code = EXIT_STOPPED_EARLY


def stopped_by(reason: str) -> StoppedEarlyError:
    """Return the error to raise when a signal or a time limit, `reason`, stops the work."""
    return StoppedEarlyError(f"stopped by {reason}; run the same command again to go on")


class StorageFullError(StoppedEarlyError):
    """The output's file system has no room, or no quota, left."""


def without_path(error: BatchcamError | FileNotFoundError) -> str:
    """Return what `error` says of a file, without the path in front."""
    return str(error).partition(": ")[2] or str(error)


def one_line(text: object) -> str:
    r"""Return `text` on one line, so that it can't forge lines of a log, or steer a terminal.

    White space becomes single spaces; other characters that do not print show as escapes such as \x1b and \u202e.
    """
    line = " ".join(str(text).split())
    return line if line.isprintable() else "".join(c if c.isprintable() else escaped(c) for c in line)


def escaped(character: str) -> str:
    r"""Return a character as Python writes it in a string: \n, \x1b, \u202e, \U000e0001, \\."""
    return character.encode("unicode_escape").decode("ascii")


def escaped_code(character: str) -> str:
    r"""Return a character's number as Python writes it in a string, in one form: \u001b, \u202e, \U000e0001."""
    code = ord(character)
    return rf"\u{code:04x}" if code < 0x10000 else rf"\U{code:08x}"
