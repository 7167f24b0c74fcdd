"""HTML built from escaped parts: text from data can't become markup, hide characters or turn the line around."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Final

from batchcam.errors import escaped_code

VOID: Final = frozenset({"br", "img", "meta", "rect", "line", "circle", "path", "polyline", "polygon"})
"""Elements without content; those of SVG close themselves only when written with a slash."""

LONGEST_TEXT: Final = 160
"""Characters of one text from data that a page shows; a longer one is cut in its middle, visibly."""

CONTENT_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
"""What a page may load and run: pictures and styles that it holds itself, and nothing else."""


class Markup(str):
    """HTML that stands in a page as it is; every other string is escaped first."""

    __slots__ = ()


def visible(text: object) -> str:
    """Return `text` with each character that does not print, such as a mark that turns text around, as \\uXXXX.

    The same characters as in `errors.one_line`, which spells some of them shorter.
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(c if c.isprintable() else escaped_code(c) for c in plain)


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return `text`, cut in its middle to `longest` characters, with the number of those left out in between."""
    if len(text) <= longest:
        return text
    kept = longest // 2
    return f"{text[:kept]} […{len(text) - 2 * kept} more…] {text[-kept:]}"


def escape(value: object) -> Markup:
    """Return `value` as markup: markup as it is, other text visible and escaped for content and quoted attributes."""
    return value if isinstance(value, Markup) else Markup(html.escape(visible(value), quote=True))


def foreign(text: object, longest: int = LONGEST_TEXT) -> Markup:
    """Return text from data, such as a sample id, as markup of its own direction that its surroundings don't feel."""
    return element("bdi", shortened(str(text), longest))


def join(parts: Iterable[object], separator: str = "") -> Markup:
    """Return parts, escaped where they are not markup, one after the other; the separator is taken as markup."""
    return Markup(separator.join(escape(part) for part in parts))


def element(name: str, *content: object, **attributes: object) -> Markup:
    """Return one element.

    Args:
        content: markup, or text to be escaped; None is left out.
        attributes: `class_` gives class, `aria_label` aria-label; None and False leave one out, True stands alone.

    Example:
        >>> element("td", "<b>", class_="id")
        '<td class="id">&lt;b&gt;</td>'
    """
    start = name + "".join(_attribute(key, value) for key, value in attributes.items())
    inner = join(part for part in content if part is not None)
    if name in VOID and not inner:
        return Markup(f"<{start}>" if name in ("br", "img", "meta") else f"<{start}/>")
    return Markup(f"<{start}>{inner}</{name}>")


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(value)}"'


def data_uri(data: bytes, media_type: str) -> str:
    """Return the bytes of a picture as a `data:` address."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def image(data: bytes, media_type: str, alt: str, size: tuple[int, int], class_: str | None = None) -> Markup:
    """Return a picture held by the page itself.

    Args:
        media_type: such as image/png.
        alt: what it shows, for those who don't see it.
        size: (height, width) in CSS pixels.
    """
    height, width = size
    return element("img", src=data_uri(data, media_type), alt=alt, width=width, height=height, class_=class_)


def table(caption: str, head: Sequence[object], rows: Iterable[Sequence[object]], class_: str | None = None) -> Markup:
    """Return a table whose first column names the row; it scrolls by keyboard where it is wider than the page.

    A cell that is already a `td` element, or a name that is a `th` element, stays as it is.

    Args:
        rows: one cell for each column.
    """
    top = element("tr", *(_cell(name, "th", scope="col") for name in head))
    body = join((_row(cells) for cells in rows), "\n")
    whole = element("table", element("caption", caption), element("thead", top), element("tbody", body), class_=class_)
    return element("div", whole, class_="scroll", role="region", aria_label=caption, tabindex=0)


def _row(cells: Sequence[object]) -> Markup:
    first, *rest = cells
    return element("tr", element("th", first, scope="row"), *(_cell(cell, "td") for cell in rest))


def _cell(cell: object, kind: str, **attributes: object) -> Markup:
    if isinstance(cell, Markup) and cell.startswith(f"<{kind}"):
        return cell
    return element(kind, cell, **attributes)


def definitions(pairs: Iterable[tuple[object, object]], class_: str | None = None) -> Markup:
    """Return a list of names and what each stands for."""
    rows = (element("div", element("dt", name), element("dd", value)) for name, value in pairs)
    return element("dl", *rows, class_=class_)


def details(summary: str, *content: object) -> Markup:
    """Return content that opens on demand; print shows it."""
    return element("details", element("summary", summary), *content)


def section(anchor: str, heading: str, *content: object) -> Markup:
    """Return a section of the page with its heading and an anchor to link to."""
    label = f"{anchor}-heading"
    return element("section", element("h2", heading, id=label), *content, id=anchor, aria_labelledby=label)


def page(title: str, style: str, *body: object) -> str:
    """Return a whole document that loads nothing, runs nothing and needs no network.

    Args:
        style: CSS, of the program's own making.

    Raises:
        ValueError: the CSS would end its own element.
    """
    if "</" in style:
        raise ValueError("a stylesheet can't hold '</': it would end its element")
    head = join(
        (
            element("meta", charset="utf-8"),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{html.escape(CONTENT_POLICY, quote=True)}">'),
            element("meta", name_="viewport", content_="width=device-width, initial-scale=1"),
            element("meta", name_="referrer", content_="no-referrer"),
            element("title", title),
            element("style", Markup(style)),
        ),
        "\n",
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n{element("body", *body)}\n</html>\n'
