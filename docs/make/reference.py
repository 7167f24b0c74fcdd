"""What griffe, which makes the site's reference, has to be told of this code."""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe


class Reference(griffe.Extension):
    """Shows an option's help at its field, a command's first line at its keyword form, examples as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Call a docstring's `Example:` what griffe calls it."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)

    def on_attribute(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Give fields of a config, and keyword forms, the text that stands elsewhere."""
        if attr.docstring or not isinstance(attr.value, griffe.ExprCall):
            return
        kind, arguments = str(attr.value.function), [str(argument) for argument in attr.value.arguments]
        if kind in ("field", "required") and arguments[0].startswith(("'", '"')):
            attr.docstring = griffe.Docstring(ast.literal_eval(arguments[0]), parent=attr)
        elif kind == "keywords":
            config, command = arguments
            told = attr.module[command].docstring.value.partition("\n")[0]
            attr.docstring = griffe.Docstring(f"{told} Takes the fields of `{config}`.", parent=attr)
