"""A command as the package's function of its name."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Built = TypeVar("Built")
Summary = TypeVar("Summary")
P = ParamSpec("P")


def keywords(config: Callable[P, Built], command: Callable[[Built], Summary]) -> Callable[P, Summary]:
    """Return a command as the package's function of its name, which takes its config's fields."""

    @functools.wraps(command)
    def call(*values: P.args, **named: P.kwargs) -> Summary:
        return command(config(*values, **named))

    about = re.split("\n\n(?:Args|Raises):", inspect.cleandoc(command.__doc__ or ""))[0]
    call.__doc__ = f"{about}\n\nArgs:{(config.__doc__ or '').partition('Attributes:')[2]}"
    call.__module__ = "batchcam"  # where pickle finds it
    returned = inspect.signature(command).return_annotation
    vars(call)["__signature__"] = inspect.signature(config).replace(return_annotation=returned)
    return call
