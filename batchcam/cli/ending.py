"""How a call of the command line ends: its exit code, and an error in one line."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator

import click

from batchcam.cli.commands import cli
from batchcam.cli.variables import variable_of
from batchcam.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED_EARLY, BatchcamError, one_line
from batchcam.job.log import Form, LogLines, as_json, stamped
from batchcam.job.stop import stop_if_asked

YES = ("1", "true", "t", "yes", "y", "on")  # click's words for a flag


def exit_code(arguments: list[str] | None) -> int:
    """Run the command line, tell an error in one line, and return the exit code.

    Args:
        arguments: of a call inside of another program; None: the process's own, whose stderr may be a log.
    """
    if arguments is not None:
        return _exit_code(arguments)
    with _log(sys.argv[1:]):
        return _exit_code(sys.argv[1:])


def _exit_code(words: list[str]) -> int:
    try:
        stop_if_asked()  # a signal came during the imports
        code = cli.main(words, prog_name="batchcam", standalone_mode=False)
        return code if isinstance(code, int) else EXIT_DONE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message())
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted; run the same command again to go on", EXIT_STOPPED_EARLY, words)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code, words)
    except BatchcamError as error:
        _debug(words)
        return _fail(str(error), error.exit_code, words, error.kind)
    except ModuleNotFoundError as error:
        _debug(words)
        advice = "this command needs more than the auditor's side: pip install '.[worker]' in batchcam's folder"
        return _fail(f"no module {error.name}; {advice}", EXIT_FAILED, words)
    except OSError as error:  # a folder that may not be entered, a name that is too long, a file server that is gone
        _debug(words)
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
        return _fail(f"{where}{error.strerror or error}; --debug shows where", EXIT_FAILED, words)
    except Exception as error:
        _debug(words)
        return _fail(f"unexpected {type(error).__name__}: {error}; --debug shows where", EXIT_FAILED, words)


@contextlib.contextmanager
def _log(words: list[str]) -> Iterator[None]:
    """Give lines on stderr the form of a log, where it is one."""
    stream, form = sys.stderr, _form_of_lines(words)
    if form is None:
        yield
        return
    sys.stderr = lines = LogLines(stream, form)
    try:
        yield
    finally:
        lines.end()
        sys.stderr = stream


def _form_of_lines(words: list[str]) -> Form | None:
    if _is_asked("log-json", words):
        return as_json
    # systemd's journal has times, and what nightly tells is a mail
    has_times = sys.stderr.isatty() or "JOURNAL_STREAM" in os.environ or words[:1] == ["nightly"]
    return None if has_times or _is_asked("no-log-times", words) else stamped


def _is_asked(option: str, words: list[str]) -> bool:
    """Return whether a flag is on, for what happens outside of the command that reads it."""
    return f"--{option}" in words or os.environ.get(variable_of(option), "").strip().lower() in YES


def _fail(message: str, code: int, words: list[str], kind: str | None = None) -> int:
    click.echo(f"batchcam: error: {one_line(message)}", err=True)
    if _is_asked("json", words):
        click.echo(json.dumps({"error": one_line(message), "error_kind": kind, "exit_code": code}))
    return code


def _debug(words: list[str]) -> None:
    if _is_asked("debug", words):
        import traceback

        traceback.print_exc()
