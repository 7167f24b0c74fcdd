"""docs/cli.md, the command line as click knows it: `python -m docs.make.cli` writes it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from batchcam.cli.commands import cli

PAGE = Path(__file__).parents[1] / "cli.md"

HEAD = """# Command line

`batchcam COMMAND -h` shows the same. Each option that names a variable can be set by it, and by its long name in a TOML
file (`--config FILE`), at the file's top level or in a table with the command's name. The command line wins over a
variable, and a variable over the file. batchcam warns of a `BATCHCAM_…` variable that no option has.
"""

Record = tuple[str, str, str]
"""An option: its names, its variable, its help."""


def page() -> str:
    """Return the text of docs/cli.md."""
    commands = {
        name: list(_records(name, command)) for name, command in sorted(cli.commands.items()) if not command.hidden
    }
    shared = [record for record in next(iter(commands.values())) if all(record in of for of in commands.values())]
    parts = [HEAD, "## Every command\n", *map(_item, shared)]
    for name, records in commands.items():
        command, context = cli.commands[name], _context(name)
        usage = command.get_usage(context).removeprefix("Usage: ")
        parts += [f"\n## batchcam {name}\n", _escaped(_plain(command.help)), f"\n```text\n{usage}\n```\n"]
        parts += [_item(record) for record in records if record not in shared]
        parts += [f"\n```text\n{_plain(command.epilog)}\n```"]
    return "\n".join(parts) + "\n"


def _context(name: str) -> click.Context:
    command = cli.commands[name]
    return command.context_class(command, None, f"batchcam {name}", terminal_width=100, **command.context_settings)


def _records(name: str, command: click.Command) -> Iterator[Record]:
    context = _context(name)
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and (told := parameter.get_help_record(context)):
            variable = parameter.envvar if isinstance(parameter.envvar, str) else ""
            yield told[0], variable, re.sub(r"\s+", " ", told[1])


def _item(record: Record) -> str:
    names, variable, help = record
    return f"- `{names}`{f' · `{variable}`' if variable else ''}<br>\n  {_escaped(help)}"


def _plain(text: str | None) -> str:
    """Return help text without click's marks, and with at most one empty line in a row."""
    return re.sub(r"\n{3,}", "\n\n", inspect.cleandoc((text or "").replace("\b", "")))


def _escaped(text: str) -> str:
    """Return `text` so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
