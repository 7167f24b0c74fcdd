"""Text from data stays text: it can't become markup, hide or turn the line around."""

from __future__ import annotations

import html

import pytest

from batchcam.pictures.html import (
    Markup,
    data_uri,
    details,
    element,
    escape,
    foreign,
    image,
    join,
    page,
    section,
    shortened,
    table,
)
from tests.helpers.wellformed import Page

HOSTILE = [
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)",
    "</title></style></bdi><img src=x onerror=alert(1)>",
    "<!-- --> <![CDATA[ ]]> <?php ?>",
    "&lt;b&gt; &amp; &#60;",
    "javascript:alert(1)",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_back_as_it_went_in(text: str) -> None:
    source = element("p", foreign(text), title=text)
    parsed = Page(source)
    assert parsed.wrong == []
    assert html.unescape(source.removesuffix("</bdi></p>").rpartition("<bdi>")[2]) == text
    assert parsed.attributes[0] == ("p", {"title": text})
    assert parsed.elements == {"p": 1, "bdi": 1}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("a\u2066b\u2069", r"a\u2066b\u2069"),
        ("tab\tnew\nline", r"tab\u0009new\u000aline"),
        ("\x1b[31mred", r"\u001b[31mred"),
        ("nul\0", r"nul\u0000"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("\udce9", r"\udce9"),
        ("\U000e0041", r"\U000e0041"),
        ("蝶 zèbre 🦓 שלום", "蝶 zèbre 🦓 שלום"),
    ],
)
def test_characters_that_do_not_print_show_as_escapes(text: str, shown: str) -> None:
    assert escape(text) == shown
    escape(text).encode("utf-8")


def test_markup_is_not_escaped_twice_and_text_always_is() -> None:
    assert element("p", element("b", "<"), "<") == "<p><b>&lt;</b>&lt;</p>"
    assert join([Markup("<br>"), "<br>"], "\n") == "<br>\n&lt;br&gt;"


def test_attributes_are_named_omitted_and_bare_as_asked() -> None:
    written = element("a", "x", class_="k", aria_label="l", hidden=True, title=None, disabled=False)
    assert written == '<a class="k" aria-label="l" hidden>x</a>'


def test_long_text_is_cut_in_its_middle_and_says_so() -> None:
    text = "a" * 100 + "b" * 1000 + "c" * 100
    cut = shortened(text, 160)
    assert cut == "a" * 80 + " […1040 more…] " + "c" * 80
    assert shortened("short", 160) == "short"


def test_a_page_of_all_components_is_well_formed() -> None:
    rows = [("first", 1, element("td", "2", class_="text")), ("second", 3, "<4>")]
    body = section(
        "part",
        "Part",
        table("Numbers", ("name", "a", "b"), rows),
        details("More", image(b"x", "image/png", "a", (1, 2))),
    )
    parsed = Page(page("<title>", "p { color: red }", element("h1", "Whole"), body))
    assert parsed.wrong == []
    assert parsed.elements["td"] == 4
    assert "<4>" in parsed.text


def test_a_table_can_be_reached_and_scrolled_by_keyboard() -> None:
    ((_, wrapper), *_) = Page(table("Numbers", ("name",), [("x",)])).attributes
    assert wrapper["tabindex"] == "0"
    assert wrapper["aria-label"] == "Numbers"


def test_the_policy_of_a_page_forbids_everything_but_its_own_pictures_and_styles() -> None:
    metas = [found for tag, found in Page(page("t", "")).attributes if tag == "meta"]
    (policy,) = (m["content"] for m in metas if m.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_a_stylesheet_that_would_end_its_element_is_refused() -> None:
    with pytest.raises(ValueError, match="end its element"):
        page("t", "</style><script>")


def test_a_data_uri_holds_the_bytes() -> None:
    assert data_uri(b"\x00\xffa", "image/png") == "data:image/png;base64,AP9h"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("<p><b></p>", "closes nothing"),
        ("<p>", "never closed"),
        ('<i id="a"></i><i id="a"></i>', "comes 2 times"),
        ('<a href="#b"></a>', "nothing has the id"),
        ('<img src="http://x/y" alt="a">', "leads to"),
        ('<img src="data:image/png,">', "without alt"),
        ("<script></script>", "no place"),
        ('<p onclick="x"></p>', "has onclick"),
        ("<th></th>", "without scope"),
        ("<h1></h1><h3></h3>", "skips a level"),
    ],
)
def test_the_check_of_pages_can_fail(source: str, fault: str) -> None:
    assert any(fault in wrong for wrong in Page(source).wrong)
