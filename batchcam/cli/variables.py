"""Options from variables: one whose name no option has is most likely mistyped, and would be ignored for ever."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

import click

PREFIX = "BATCHCAM_"


def variable_of(option: str) -> str:
    """Return the variable of a long option, without its dashes: BATCHCAM_BATCH_SIZE of batch-size."""
    return PREFIX + option.upper().replace("-", "_")


def remarks(group: click.Group, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a remark for each variable that looks like an option's but is none of any command."""
    known = {p.envvar for command in group.commands.values() for p in command.params if isinstance(p.envvar, str)}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, 1)
            yield f"warning: {name} is ignored: no option has this name" + (f"; {close[0]}?" if close else "")
