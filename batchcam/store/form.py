"""Has the content of a JSON document the form that its readers rely on? It may come from someone else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COUNT_LIMIT = 2**63
TEXT_LIMIT = 2**16

Form = Any
"""`str`, `int` (a count), `float` (any number), `None`, a tuple of alternatives, a list with the one form of all its
items, or a dict of forms by key: a key that ends in `?` may be absent, `*` stands for all others."""


def mismatch(content: object, form: Form, where: str = "") -> str | None:
    """Return where `content` has another form, None when it has not.

    Example:
        >>> mismatch({"totals": {"samples": "many"}}, {"totals": {"samples": int}})
        'totals.samples'
    """
    if isinstance(form, tuple):
        tried = [mismatch(content, each, where) for each in form]
        return None if None in tried else tried[0]
    if isinstance(form, list):
        if not isinstance(content, list):
            return where
        found = (mismatch(each, form[0], f"{where}[{i}]") for i, each in enumerate(content))
        return next((each for each in found if each is not None), None)
    if isinstance(form, Mapping):
        return _mismatch_of_table(content, form, where) if isinstance(content, dict) else where
    if form is str:
        fits = isinstance(content, str) and len(content) <= TEXT_LIMIT
    elif form is int:
        fits = isinstance(content, int) and type(content) is int and 0 <= content < COUNT_LIMIT
    else:
        fits = content is None if form is None else type(content) in (int, float)
    return None if fits else where


def _mismatch_of_table(content: dict[str, object], form: Mapping[str, Form], where: str) -> str | None:
    forms = {key.removesuffix("?"): each for key, each in form.items() if key != "*"}
    for key in form:
        if key != "*" and not key.endswith("?") and key not in content:
            return f"{where}.{key}".lstrip(".")
    for key, value in content.items():
        each = forms.get(key, form.get("*", ...))
        if each is not ... and (found := mismatch(value, each, f"{where}.{key}".lstrip("."))) is not None:
            return found
    return None
