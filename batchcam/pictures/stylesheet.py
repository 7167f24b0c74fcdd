"""How a page looks: light, dark and in print; no fonts or pictures from elsewhere."""

from __future__ import annotations

from typing import Final

_SHADES: Final = "\n".join(
    f".{kind}.s{step} {{ background: rgb(var(--{kind}) / {step * 0.055:.3f}) }}"
    for kind in ("right", "wrong", "plain")
    for step in range(1, 11)
)

STYLE: Final = (
    """
:root {
  color-scheme: light;
  --page: #fff; --panel: #f5f6f8; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --link: #0550ae;
  --right: 42 120 214; --wrong: 214 92 30; --plain: 96 108 122;
  --alarm: #8f1d14; --alarm-back: #fdecea; --good: #14532d; --good-back: #e8f5ec;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    color-scheme: dark;
    --page: #14171c; --panel: #1d2229; --ink: #e6e9ed; --soft: #9aa5b1; --line: #39424d; --link: #7ab7ff;
    --right: 92 158 240; --wrong: 240 134 74; --plain: 150 163 178;
    --alarm: #ffb4a9; --alarm-back: #3b1613; --good: #a7e3bb; --good-back: #12301d;
  }
}
* { box-sizing: border-box }
html { scroll-padding-top: 1rem }
body {
  margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem 4rem;
  background: var(--page); color: var(--ink); font: 1rem/1.5 system-ui, "Noto Sans", "Segoe UI", sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.2; margin: .25rem 0 }
h2 { font-size: 1.35rem; margin: 2.25rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line) }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem }
h4 { font-size: 1rem; margin: 1.25rem 0 .5rem }
p { max-width: 48rem; margin: .5rem 0 }
a { color: var(--link) }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid var(--link); outline-offset: 2px }
code { font: .9em/1.4 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere }
bdi { overflow-wrap: anywhere }
.skip { position: absolute; left: -100rem }
.skip:focus { left: 1rem; top: .5rem; padding: .5rem 1rem; background: var(--page); z-index: 1 }
.soft { color: var(--soft) }
small { display: block; color: var(--soft); font-size: .8em; font-weight: 400; white-space: nowrap }
nav ul {
  display: flex; flex-wrap: wrap; gap: .1rem 1rem; padding: 0; margin: .5rem 0; list-style: none; font-size: .9rem
}
#look > h2 { margin-top: .75rem; padding-top: .5rem }
.state { display: block; margin: .75rem 0; padding: .6rem .9rem; border-radius: .4rem; max-width: none }
.state.alarm { background: var(--alarm-back); color: var(--alarm); border: 1px solid currentColor; font-weight: 600 }
.state.good { background: var(--good-back); color: var(--good) }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .75rem; margin: 1rem 0 }
.numbers div {
  display: flex; flex-direction: column-reverse; justify-content: flex-end; background: var(--panel);
  border-radius: .4rem; padding: .6rem .8rem
}
.numbers dt { color: var(--soft); font-size: .85rem; line-height: 1.3 }
.numbers small { font-size: .85rem; white-space: normal }
.numbers dd { margin: 0; font-size: 1.45rem; font-variant-numeric: tabular-nums; line-height: 1.3 }
.facts { margin: .5rem 0 }
.facts div {
  display: grid; grid-template-columns: 11rem 1fr; gap: 1rem; padding: .3rem 0;
  border-bottom: 1px solid var(--line)
}
.facts dt { color: var(--soft) }
.facts dd { margin: 0; overflow-wrap: anywhere; min-width: 0 }
.scroll { overflow-x: auto; margin: .75rem 0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
caption { text-align: left; color: var(--soft); padding: .25rem 0 }
th, td { padding: .3rem .6rem; text-align: right; vertical-align: middle; border-bottom: 1px solid var(--line) }
th { font-weight: 600 }
th:first-child, th.text, td.text, .texts th { text-align: left }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--line) }
tbody th { font-weight: 400; min-width: 7rem; max-width: 22rem }
.scores tbody th { min-width: 10rem }
td.text { min-width: 5rem; max-width: 36rem; overflow-wrap: anywhere }
.matrix th, .matrix td { padding: .25rem .2rem; text-align: center; min-width: 1.95rem }
.matrix tbody th { text-align: right; min-width: 6rem; max-width: 12rem }
.matrix thead th:not(:first-child) {
  writing-mode: vertical-rl; text-align: left; padding: .5rem .25rem; max-height: 12rem
}
.matrix td { border: 1px solid var(--page) }
.matrix .none { color: var(--soft) }
.meter {
  display: inline-block; width: 4.5rem; height: .55rem; margin-left: .5rem;
  background: rgb(var(--plain) / .25); vertical-align: middle
}
.meter span { display: block; height: 100%; background: rgb(var(--right)) }
img { display: block; max-width: 100%; height: auto }
.cells {
  image-rendering: pixelated; border: 1px solid var(--line); display: inline-block; vertical-align: middle;
  max-width: none
}
.charts { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start }
.charts figure { margin: 0; flex: 0 1 auto; min-width: 0 }
figcaption { font-size: .9rem }
svg { display: block; max-width: 100%; height: auto }
svg text { fill: var(--soft); font-size: 11px }
svg .axis { fill: var(--ink); font-size: 12px }
.gridline { stroke: var(--line); stroke-width: 1 }
.diagonal { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 4 }
.dot { fill: var(--ink); stroke: var(--page); stroke-width: 1.5 }
.bar.right { fill: rgb(var(--right)) } .bar.wrong { fill: rgb(var(--wrong)) } .bar.plain { fill: rgb(var(--plain)) }
.legend { display: flex; align-items: center; gap: .6rem; margin: .75rem 0; font-size: .9rem }
.legend .ramp { width: 10rem; height: .8rem }
.gallery {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1rem; margin: 1rem 0;
  padding: 0; list-style: none
}
.gallery figure { margin: 0; background: var(--panel); border-radius: .4rem; padding: .75rem; height: 100% }
.gallery figcaption { margin-top: .5rem }
.gallery p { margin: 0 }
.gallery.wide { grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)) }
.gallery.wide img { width: 100%; height: auto }
.strip {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: .75rem;
  margin: .4rem 0; padding: 0; list-style: none
}
.strip.wide { grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)) }
.strip figcaption { font-size: .8rem; line-height: 1.35 }
article { margin: .75rem 0 1.25rem }
article h3, article p, article figure { margin: 0; max-width: none }
.tiles { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; color: var(--soft) }
.tiles span { text-align: center }
.ids { max-height: 20rem; overflow-y: auto; margin: .25rem 0 }
.pair td.text { min-width: 11rem }
.pair td.differs { font-weight: 600; color: var(--alarm); white-space: nowrap; min-width: 0 }
.wrong-text { color: var(--alarm) }
summary { cursor: pointer; padding: .25rem 0; color: var(--link) }
"""
    + _SHADES
    + """
@media (max-width: 40rem) {
  .facts div { grid-template-columns: 1fr; gap: 0 }
  .gallery, .gallery.wide { grid-template-columns: 1fr }
  .strip { grid-template-columns: 1fr 1fr }
  .strip:not(.wide) li:nth-child(n+5) { display: none }
  nav ul { flex-wrap: nowrap; overflow-x: auto; white-space: nowrap }
}
.sign td { height: 3.5rem; min-width: 9rem; text-align: left }
@page { margin: 14mm }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt }
  nav, .skip { display: none }
  .scroll { overflow: visible }
  table { font-size: 8pt }
  th, td { padding: .15rem .35rem }
  .scores { font-size: 7pt }
  .scores th, .scores td { padding: .15rem }
  .matrix th, .matrix td { font-size: 7pt; padding: .1rem .15rem; min-width: 0 }
  thead { display: table-header-group }
  tr, figure, .numbers div, .facts div { break-inside: avoid }
  h2, h3, h4, caption { break-after: avoid }
  .gallery { display: block }
  .strip { grid-template-columns: repeat(5, 1fr) }
  .gallery li { display: inline-block; width: 31.5%; margin: 0 1.5% 3mm 0; vertical-align: top; font-size: 8pt }
  .gallery.wide li { width: 48% }
  .ids { max-height: none; overflow: visible }
  .charts figure { width: 46% }
  .charts svg { width: 100% }
  .bar, .meter, .meter span, .matrix td, .ramp, img, .state {
    print-color-adjust: exact; -webkit-print-color-adjust: exact
  }
  a { color: inherit; text-decoration: none }
  details::details-content { content-visibility: visible; display: block; height: auto; block-size: auto }
  tbody th, .scores tbody th, td.text, .pair td.text { min-width: 0 }
  tbody th bdi { overflow-wrap: break-word }
  p:has(+ .gallery) { break-after: avoid }
}
"""
)
"""The stylesheet of a report; its classes are the vocabulary of the modules that write pages."""
