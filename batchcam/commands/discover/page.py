"""discover.html: what was found, and the regions themselves, so that a person sees what carries a class."""

from __future__ import annotations

from typing import Final

import cv2

from batchcam.commands.discover.rule import TOO_FEW, Verdict
from batchcam.commands.discover.summary import DiscoverSummary
from batchcam.commands.discover.text import claim_text, effect_text, gate_text
from batchcam.commands.discover.trials import Outcomes
from batchcam.pictures import sheet
from batchcam.pictures.html import Markup, definitions, element, foreign, image, join, page, section, table
from batchcam.pictures.stylesheet import STYLE
from batchcam.record.study import counts_text
from batchcam.store.run import Run

CLASSES_SHOWN: Final = 20
TILE: Final = (120, 120)
JPEG_QUALITY: Final = 85

INTRODUCTION: Final = (
    "A shortcut, such as a tag in a corner, gives a class away wherever it is seen. Here the region around each map's "
    "peak was cut out and pasted into images of other classes: does the network then say the region's class, far more "
    "often than with other regions of the same image? And does it still say it without the region?"
)


def write_page(run: Run, found: Outcomes, summary: DiscoverSummary) -> str:
    """Return the result as the text of one HTML file."""
    claims = [v for v in (summary.overall, *summary.classes) if v.is_claim]
    is_judged = summary.overall.verdict != TOO_FEW
    nothing = NOTHING if is_judged else "Nothing is judged: too few samples."
    listed = element("ul", *(element("li", foreign(claim_text(v), longest=600)) for v in claims))
    gate = None if summary.gate is None else element("p", foreign(gate_text(summary)))
    parts = [
        ("summary", "Summary", join((_numbers(summary), listed if claims else "", gate or ""))),
        ("classes", "Classes, the largest effect first", _table(summary)),
        ("regions", "The regions, by class", _regions(run, found, summary)),
        ("unseen", "What this does not see", element("ul", *(element("li", each) for each in summary.not_seen))),
        ("notes", "Notes", element("ul", *(element("li", foreign(note, longest=400)) for note in summary.notes))),
    ]
    state = "alarm" if claims or not is_judged else "good"
    told = f"{len(claims)} found, of all samples and {len(summary.classes)} classes." if claims else nothing
    head = element(
        "header",
        element("h1", "What carries a class by itself"),
        element("p", "Run ", element("code", summary.run_id[:16]), class_="soft"),
        element("p", told, class_=f"state {state}"),
        element("p", INTRODUCTION),
        element("nav", element("ul", *(element("li", element("a", name, href=f"#{a}")) for a, name, _ in parts))),
    )
    main = element("main", *(section(*part) for part in parts), id="content", tabindex=-1)
    return page(f"batchcam discover {summary.run_id[:12]}", STYLE, head, main)


NOTHING: Final = "Nothing found that these tests can see; the list below says what they can't."


def _numbers(summary: DiscoverSummary) -> Markup:
    numbers = [
        ("samples judged", f"{summary.judged:,}"),
        ("classes", f"{len(summary.classes):,}"),
        ("cells of a region", "×".join(map(str, summary.region))),
        ("cells of a map", "×".join(map(str, summary.grid))),
    ]
    left_out = element("p", f"Left out: {counts_text(summary.left_out)}.") if summary.left_out else ""
    return join((definitions(numbers, "numbers"), left_out))


def _table(summary: DiscoverSummary) -> Markup:
    head = ("class", "samples", "carried", "control", "more, with its interval", "p", "also elsewhere", "kept alone",
            "needed, with its interval", "peaks at the edge", "verdict")  # fmt: skip
    rows = (_row(verdict) for verdict in (summary.overall, *summary.classes))
    caption = "Shares of samples; intervals allow for all that is tested here, p-values by Holm"
    return table(caption, head, rows, "scores")


def _row(v: Verdict) -> list[object]:
    name = "all samples" if v.name is None else foreign(v.name)
    if v.carried is None or v.needed is None:
        return [name, v.judged, *["–"] * 8, v.verdict]
    by = " by its border" if v.carrier == "border" else ""
    return [
        name,
        v.judged,
        f"{v.carried.share:.2f}{by}",
        f"{v.carried.control:.2f}",
        effect_text(v.carried),
        f"{v.carried.p:.2g}",
        f"{v.holds['moved']:.2f}",
        f"{v.holds['kept']:.2f}",
        effect_text(v.needed),
        "–" if v.place is None else f"{v.place.share:.2f} {v.place.name} ({v.place.even:.2f} of the cells)",
        v.verdict,
    ]


def _regions(run: Run, found: Outcomes, summary: DiscoverSummary) -> Markup:
    numbers = {name: k for k, name in enumerate(run.class_names)}
    shown = [v for v in summary.classes if numbers[str(v.name)] in found.pictures.shown]
    parts = [_sheet(run, found, v, numbers[str(v.name)]) for v in shown[:CLASSES_SHOWN]]
    more = f"{len(shown) - CLASSES_SHOWN:,} further classes are in the table alone." if len(shown) > len(parts) else ""
    return join((element("p", PICTURES), *parts, element("p", more)))


PICTURES: Final = (
    "Above, images as the network saw them, with the region around the map's peak; below, that region. Regions that "
    "carried their class into another image come first. Is it the object, or something that came with it?"
)


def _sheet(run: Run, found: Outcomes, verdict: Verdict, class_: int) -> Markup:
    samples = sorted(found.pictures.shown[class_], key=lambda each: not each[0])
    words = ["carries it" if carries else "does not" for carries, *_ in samples]
    ids = run.sample_id[found.rows[[place for _, place, _, _ in samples]]]
    tiles = [view for _, _, view, _ in samples] + [region for *_, region in samples]
    drawn = sheet.sheet(tiles, [*ids, *words], columns=len(samples), tile_size=TILE)
    _, encoded = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    alt = f"{len(samples)} images, each with the region around its map's peak beneath"
    heading = element("h3", foreign(verdict.name), f": {verdict.verdict}")
    height, width = drawn.shape[:2]
    return join((heading, image(bytes(encoded), "image/jpeg", alt, (height, width))))
