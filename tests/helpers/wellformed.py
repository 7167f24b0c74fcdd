"""What is wrong with an HTML page that must be whole, safe, and readable by everyone, told from its text alone."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

VOID = {"area", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
SVG_LEAVES = {"line", "rect", "circle"}
FORBIDDEN = {"script", "iframe", "object", "embed", "form", "base", "link"}


class Page(HTMLParser):
    """A parsed page: `wrong` lists its faults, `text` is what people read, `elements` counts names."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self._level = 0
        self.feed(source)
        self.close()
        self.wrong += [f"<{name}> is never closed" for name in self._open]
        ids = Counter(str(a["id"]) for _, a in self.attributes if "id" in a)
        self.wrong += [f"id {name} comes {count} times" for name, count in ids.items() if count > 1]
        for _, found in self.attributes:
            targets = [str(found.get("href", ""))[1:]] if str(found.get("href", "")).startswith("#") else []
            targets += str(found.get("aria-labelledby") or "").split()
            self.wrong += [f"nothing has the id {target}" for target in targets if target not in ids]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements[tag] += 1
        self.attributes.append((tag, found))
        if len(found) < len(attrs):
            self.wrong.append(f"<{tag}> has an attribute twice")
        self._check(tag, found)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in SVG_LEAVES:
            self.wrong.append(f"<{tag}/> closes itself")
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self._text.append(data)

    def _check(self, tag: str, found: dict[str, str | None]) -> None:
        if tag in FORBIDDEN:
            self.wrong.append(f"<{tag}> has no place here")
        self.wrong += [f"<{tag}> has {name}" for name in found if name.startswith("on")]
        for name in ("src", "href"):
            address = found.get(name)
            if address is not None and not address.startswith(("data:image/", "#")):
                self.wrong.append(f"<{tag}> leads to {address[:60]}")
        if tag == "img" and not found.get("alt"):
            self.wrong.append("<img> without alt")
        if tag == "svg" and not (found.get("role") == "img" and found.get("aria-label")):
            self.wrong.append("<svg> without a name")
        if tag == "th" and found.get("scope") not in ("row", "col"):
            self.wrong.append("<th> without scope")
        if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            if int(tag[1]) > self._level + 1:
                self.wrong.append(f"<{tag}> skips a level")
            self._level = int(tag[1])
