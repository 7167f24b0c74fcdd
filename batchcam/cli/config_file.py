"""Options from a TOML file: `--config`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from batchcam.config.texts import read_option_file
from batchcam.errors import ConfigError


def read_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Make the values of a TOML file the defaults of this command's options."""
    if path is None:
        return
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(read_option_file(path, "--config"))
    except (ValueError, RecursionError) as error:  # besides TOMLDecodeError an integer of too many digits
        raise ConfigError(f"--config {path}: cannot read: {error}") from error
    commands = _commands(context)
    command = str(context.info_name)
    for name, value in content.items():
        if isinstance(value, dict) != (name in commands):
            raise ConfigError(f"--config {path}: {name!r}: tables are for commands: {', '.join(sorted(commands))}")
    shared = {k: v for k, v in content.items() if k not in commands}
    known = _option_names(context.command)
    elsewhere = {name for each in commands.values() for name in _option_names(each)}
    defaults = {}
    for key, value in {**shared, **content.get(command, {})}.items():
        name = key.replace("_", "-")
        if name in known:
            defaults[str(known[name].name)] = _as_written(known[name], value, f"--config {path}: {key}")
        elif key not in shared or name not in elsewhere:
            raise ConfigError(f"--config {path}: no option {key!r} in {command}; there are: {', '.join(sorted(known))}")
    context.default_map = defaults


def _commands(context: click.Context) -> dict[str, click.Command]:
    root = context.find_root().command
    return dict(root.commands) if isinstance(root, click.Group) else {}


def _option_names(command: click.Command) -> dict[str, click.Option]:
    """Return each option that a file may set, by the long name that people write."""
    names = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name not in ("config", "version", "debug", "findings_ok"):
            names[max(parameter.opts, key=len).lstrip("-")] = parameter
    return names


def _as_written(option: click.Option, value: object, where: str) -> Any:
    """Return a value of a TOML file as the command line has it: click turns a 1.5 into 1, but refuses a "1.5"."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise ConfigError(f"{where}: expected true or false")
        return value
    is_joined = "," in str(option.metavar)  # R,G,B
    several = option.multiple or option.nargs > 1 or is_joined
    items = value if isinstance(value, list) and several else [value]
    for item in items:
        too_long = isinstance(item, int) and item.bit_length() > 64  # TOML has no such integer, nor can str write all
        if type(item) not in (str, int, float) or too_long or "\0" in str(item):
            raise ConfigError(f"{where}: expected text or a number{', or a list of them' if several else ''}")
    texts = [str(item) for item in items]
    if is_joined:
        return ",".join(texts)
    if option.nargs > 1 and len(texts) != option.nargs:
        raise ConfigError(f"{where}: expected a list of {option.nargs}")
    return texts if several else texts[0]
