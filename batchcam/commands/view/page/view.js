"use strict";
// The page's whole state is its address: every filter, order and sample is a link. Text from data enters as text only.

const PICTURE = ["kind", "class", "minus", "cells", "palette"];
const OWN = new Set([...PICTURE, "sample", "look", "all"]);
const FIRST_COLUMNS = ["outcome", "label", "prediction", "called", "confidence", "status", "border_share", "margin",
  "flip", "old_prediction", "spearman", "verdict"];
const PAGE = 100;
const KINDS = {map: "map, own range", signed: "signed: for red, against blue"};

let about = null, page = {query: null}, sample = null, turn = 0, wanted = null, isJudged = false;
let state = new URLSearchParams();

const $ = id => document.getElementById(id);

function h(tag, attributes, ...content) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "on") element.addEventListener("click", value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...content.filter(part => part !== null));
  return element;
}

function put(element, ...content) {
  element.replaceChildren(...content.filter(part => part !== null));
}

function shown(text, longest = 120) {
  const plain = text.replace(/[\p{C}\p{Z}]/gu, c => c === " " ? c : "\\u" + c.codePointAt(0).toString(16).padStart(4, "0"));
  return plain.length > longest ? `${plain.slice(0, longest / 2)} […] ${plain.slice(-longest / 2)}` : plain;
}

const foreign = text => h("bdi", {}, text === null ? "—" : text === "" ? "“”" : shown(text));
const title = name => name.replace(/^meta\//, "").replaceAll("_", " ");
const number = value => value === null ? "—" : String(Number(value.toPrecision(4)));
const value = told => typeof told === "number" ? number(told) : foreign(told);
const count = n => n.toLocaleString("en");

async function ask(path, query) {
  const answer = await fetch(`${path}?${query}`);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

// Addresses

function changed(changes) {
  const next = new URLSearchParams(state);
  for (const [name, told] of Object.entries(changes)) told === null ? next.delete(name) : next.set(name, told);
  return next;
}

const address = changes => "#" + changed(changes);
const go = changes => { location.hash = String(changed(changes)); };
const filters = () => [...state].filter(([name]) => !OWN.has(name) && name !== "sort" && name !== "first");
const filter = (name, told) => go({[name]: told, first: null, sample: null});

function listQuery() {
  const query = new URLSearchParams([...state].filter(([name]) => !OWN.has(name)));
  query.set("count", PAGE);
  return String(query);
}

function pictureOf(row, size, more = {}) {
  const query = new URLSearchParams({row, size});
  for (const name of PICTURE) if (state.has(name)) query.set(name, state.get(name));
  if (size === "small") query.delete("class"), query.delete("minus");
  for (const [name, told] of Object.entries(more)) told === null ? query.delete(name) : query.set(name, told);
  return `picture?${query}`;
}

async function show() {
  state = new URLSearchParams(location.hash.slice(1));
  const mine = ++turn;
  try {
    const query = listQuery();
    if (page.query !== query) {
      const next = await ask("rows", query);
      if (mine !== turn) return;
      page = {...next, query};
    }
    const asked = state.get("sample");
    if (asked !== null && (sample === null || sample.id !== asked)) {
      const next = await ask("sample", new URLSearchParams({id: asked}));
      if (mine !== turn) return;
      sample = next;
    }
    if (asked === null) sample = null;
    problem("");
  } catch (error) {
    if (mine === turn) problem(error.message);
    if (page.query === null) return;
  }
  drawFilters();
  drawList();
  drawSample();
  if (sample) wanted = sample.id;
  else if (wanted !== null) focusWanted();
}

// Filters, with the counts that each choice would leave

function drawFilters() {
  const search = $("q");
  if (document.activeElement !== search) search.value = state.get("q") || "";
  $("active").replaceChildren(...filters().map(([name, told]) =>
    h("button", {type: "button", class: "chip", on: () => filter(name, null), "aria-label": `Remove filter ${title(name)} ${shown(told)}`},
      `${name === "q" ? "id" : title(name)}: `, foreign(told === "" ? null : told), " ×")));
  const open = new Set([...document.querySelectorAll("#facets details[open]")].map(each => each.dataset.name));
  const first = !$("facets").childElementCount;
  $("facets").replaceChildren(...about.columns.filter(column => column.kind !== "numbers").map((column, place) =>
    facet(column, first ? place < 4 : open.has(column.name))));
  if (first || state.toString() !== $("numbers").dataset.state) {
    $("numbers").dataset.state = state;
    $("numbers").replaceChildren(...about.columns.filter(column => column.kind === "numbers").map(range));
  }
}

function facet(column, open) {
  const {name, choices} = column, counts = page.counts[name], current = state.get(name);
  const box = h("details", {class: "facet", "data-name": name, open: open || current !== null}, h("summary", {}, title(name)));
  if (!choices) {
    const input = h("input", {"aria-label": title(name), value: current || "", placeholder: "exact value"});
    input.addEventListener("change", () => filter(name, input.value === "" ? null : input.value));
    box.append(input);
    return box;
  }
  const most = Math.max(1, ...counts);
  const items = [...choices, ""].map((choice, place) => [choice, counts[place]]).filter(([choice, n]) => n > 0 || choice === current);
  items.sort((one, other) => other[1] - one[1]);
  box.append(h("ul", {}, ...items.map(([choice, n]) => {
    const meter = h("span", {class: "meter"}, h("span", {}));
    meter.firstChild.style.width = `${100 * n / most}%`;
    return h("li", {}, h("button", {type: "button", "aria-pressed": String(choice === current), on: () => filter(name, choice === current ? null : choice)},
      choice === "" ? h("span", {class: "none"}, "none") : foreign(choice), h("span", {class: "n"}, count(n)), meter));
  })));
  return box;
}

function range(column) {
  const {name, low, high} = column, [from, to] = (state.get(name) || "..").split("..");
  const ends = [["from", from, low], ["to", to, high]].map(([word, told, end]) => h("input", {
    type: "number", step: "any", value: told || "", placeholder: number(end), "aria-label": `${title(name)} ${word}`}));
  const row = h("div", {class: "range"}, h("span", {}, title(name)), ...ends);
  row.addEventListener("change", () => {
    const [a, b] = ends.map(end => end.value);
    filter(name, a || b ? `${a}..${b}` : null);
  });
  return row;
}

// The list, as a table or as pictures

function drawList() {
  const from = page.first, rows = page.rows.length;
  $("total").textContent = page.total === about.samples ? `${count(about.samples)} samples` : `${count(page.total)} of ${count(about.samples)} samples`;
  const outcome = about.columns.find(column => column.name === "outcome"), counts = page.counts.outcome;
  const judged = counts[0] + counts[1] > 0 ? outcome.choices : []; // no labels: neither right nor wrong
  $("outcomes").replaceChildren(...judged.map((choice, place) => h("a", {class: `tag ${choice}`, href: address({outcome: choice, first: null, sample: null})}, `${count(counts[place])} ${choice}`)));
  const looks = state.get("look") === "grid";
  $("tools").replaceChildren(
    h("a", {class: "tool", href: address({sort: "-confidence", first: null})}, "most confident first"),
    h("button", {type: "button", on: () => go({look: looks ? null : "grid"})}, h("kbd", {}, "g"), looks ? " table" : " pictures"),
    h("button", {type: "button", id: "copy", on: copy}, h("kbd", {}, "y"), " copy link"));
  $("samples").replaceChildren(rows ? (looks ? grid() : table()) : h("p", {class: "state"}, "No sample is left: take a filter away ", h("kbd", {}, "x")));
  const pages = [];
  if (from > 0) pages.push(h("a", {href: address({first: Math.max(0, from - PAGE) || null}), rel: "prev"}, h("kbd", {}, "p"), " previous"));
  if (rows) pages.push(h("span", {}, `${count(from + 1)} – ${count(from + rows)} of ${count(page.total)}`));
  if (from + rows < page.total) pages.push(h("a", {href: address({first: from + PAGE}), rel: "next"}, "next ", h("kbd", {}, "n")));
  $("pages").replaceChildren(...pages);
}

function columnsShown() {
  const asked = new Set([...FIRST_COLUMNS, ...filters().map(([name]) => name), (state.get("sort") || "").replace(/^-/, "")]);
  if (about.old) asked.delete("margin");
  if (about.columns.find(column => column.name === "status").choices.length === 1) asked.delete("status");
  const meta = about.columns.filter(column => column.name.startsWith("meta/")).slice(0, 3).map(column => column.name);
  return about.columns.filter(({name}) => state.has("all") || asked.has(name) || meta.includes(name));
}

function table() {
  const sort = state.get("sort") || "", columns = columnsShown();
  const head = (name, text, sortable) => {
    const order = sort === name ? "ascending" : sort === `-${name}` ? "descending" : null;
    const next = order === "descending" ? name : order === "ascending" ? null : `-${name}`;
    return h("th", {scope: "col", "aria-sort": order, class: text ? "text" : null}, sortable
      ? h("button", {type: "button", class: "head", on: () => go({sort: next, first: null})}, title(name), order ? (order === "ascending" ? " ↑" : " ↓") : "")
      : title(name));
  };
  const body = page.rows.map((row, place) => h("tr", {class: page.columns.outcome[place] === "wrong" ? "wrong" : null},
    h("th", {scope: "row"}, h("a", {class: "open", href: address({sample: page.ids[place]}), "data-id": page.ids[place]},
      h("img", {src: pictureOf(row, "small"), alt: "", width: 48, height: 48, loading: "lazy"}), foreign(page.ids[place]))),
    ...columns.map(({name, kind}) => h("td", {class: kind === "numbers" ? null : "text"}, value(page.columns[name][place])))));
  return h("div", {class: "scroll", role: "region", "aria-label": "Samples", tabindex: 0}, h("table", {},
    h("thead", {}, h("tr", {}, head("id", true, true), ...columns.map(({name, kind}) => head(name, kind !== "numbers", kind !== "members")))), h("tbody", {}, ...body)));
}

function outcomeLine(place) {
  const {label, prediction, confidence, outcome} = Object.fromEntries(Object.entries(page.columns).map(([name, told]) => [name, told[place]]));
  return h("span", {}, foreign(label), " → ", foreign(prediction), ` ${number(confidence)}`, outcome === "wrong" ? h("b", {class: "tag wrong"}, "wrong") : null);
}

function grid() {
  return h("ul", {class: "grid"}, ...page.rows.map((row, place) => h("li", {}, h("a", {class: "open", href: address({sample: page.ids[place]}), "data-id": page.ids[place]},
    h("img", {src: pictureOf(row, "small"), alt: "", width: 176, height: 176, loading: "lazy"}), h("span", {class: "id"}, foreign(page.ids[place])), outcomeLine(place)))));
}

function focusWanted() {
  const link = [...document.querySelectorAll(".open")].find(each => each.dataset.id === wanted);
  wanted = null;
  if (link) link.focus();
}

// One sample, large

function drawSample() {
  const is = sample !== null && state.has("sample");
  $("sample").hidden = !is;
  $("list").hidden = is;
  $("filters").classList.toggle("aside", is);
  document.title = is ? `${shown(sample.id)} – batchcam view` : `${about.run} – batchcam view`;
  if (!is) return;
  const told = sample, classes = told.classes.filter(each => each.stored);
  const of = state.get("class") ?? told.prediction, kind = state.get("kind") || "map", minus = state.get("minus");
  const words = minus !== null ? `${shown(of ?? "")} minus ${shown(minus)}` : `map of ${shown(of ?? "no class")}`;
  const figures = [figure(pictureOf(told.row, "large", {kind: "original", class: null, minus: null}), "original", "The original"),
    figure(pictureOf(told.row, "large", of === null ? {} : {class: of}), words, about.old ? "Now: " + words : words)];
  if (about.old) figures.push(before(of, minus, words));
  const place = page.ids.indexOf(told.id);
  put($("sample"),
    h("div", {class: "bar"},
      h("a", {href: address({sample: null}), id: "back"}, h("kbd", {}, "Esc"), " list"),
      h("button", {type: "button", on: () => step(-1)}, h("kbd", {}, "k"), " before"),
      h("span", {}, place < 0 ? "" : `${count(page.first + place + 1)} of ${count(page.total)}`),
      h("button", {type: "button", on: () => step(1)}, h("kbd", {}, "j"), " after"),
      h("button", {type: "button", id: "copy-sample", on: copy}, h("kbd", {}, "y"), " copy link")),
    h("h2", {id: "sample-id", tabindex: -1}, foreign(told.id)),
    h("p", {class: "verdict-line"}, told.label === null ? "no label" : foreign(told.label), " → ", told.prediction === null ? "no prediction" : foreign(told.prediction), ` ${number(told.confidence)} `,
      told.columns.outcome ? h("b", {class: `tag ${told.columns.outcome}`}, told.columns.outcome) : null, told.status === "ok" ? null : h("b", {class: "tag wrong"}, told.status)),
    told.error ? h("p", {class: "state alarm"}, foreign(told.error)) : null,
    h("div", {class: "figures"}, ...figures),
    controls(of, kind, minus, classes),
    judging(),
    h("div", {class: "columns"}, classTable(of), facts()),
    h("section", {}, h("h3", {}, "Nearest by evidence, predicted alike"), neighbours()));
  if (document.activeElement === document.body || $("list").contains(document.activeElement)) $("sample-id").focus({preventScroll: true});
}

function before(of, minus, words) {
  const old = sample.old, knows = name => old.classes.some(each => each.name === name);
  if (old === null) return h("p", {class: "state"}, "The older run does not have this sample.");
  const predicted = old.prediction === null ? "no prediction" : `${shown(old.prediction)} ${number(old.confidence)}`;
  if (of !== null && !knows(of) || minus !== null && !knows(minus)) return h("p", {class: "state"}, `The older run does not know this class; predicted: ${predicted}`);
  return figure(pictureOf(sample.row, "large", {of: "old", ...(of === null ? {} : {class: of})}), `${words}, older run`, `Before: ${words}; predicted: ${predicted}`);
}

function figure(source, alt, caption) {
  return h("figure", {}, h("img", {src: source, alt}), h("figcaption", {}, h("bdi", {}, caption)));
}

function choose(label, name, options, current) {
  const select = h("select", {}, ...options.map(([told, words]) => {
    const option = h("option", {value: told}, shown(words, 60));
    option.selected = told === current;
    return option;
  }));
  select.addEventListener("change", () => go({[name]: select.value === "" ? null : select.value}));
  return h("label", {}, label, " ", select);
}

function controls(of, kind, minus, classes) {
  const named = classes.map(each => [each.name, each.name]);
  const cells = h("input", {type: "checkbox"});
  cells.checked = state.has("cells");
  cells.addEventListener("change", () => go({cells: cells.checked ? 1 : null}));
  return h("div", {class: "controls"},
    choose("Class", "class", named, of),
    choose("minus", "minus", [["", "nothing"], ...named.filter(([name]) => name !== of)], minus ?? ""),
    choose("Values", "kind", Object.entries(KINDS), minus === null ? kind : "signed"),
    h("label", {}, cells, " cells ", h("kbd", {}, "c")),
    choose("Colours", "palette", about.palettes.map(each => [each, each]), state.get("palette") || about.palettes[0]));
}

function classTable(of) {
  const several = sample.classes.some(each => each.true !== null);
  return h("div", {class: "scroll", role: "region", "aria-label": "Classes", tabindex: 0}, h("table", {}, h("caption", {}, "Classes, the largest logit first"),
    h("thead", {}, h("tr", {}, ...["class", "logit", several ? "sigmoid" : "softmax", "map"].map(name => h("th", {scope: "col"}, name)))),
    h("tbody", {}, ...sample.classes.map(each => h("tr", {}, h("th", {scope: "row"}, foreign(each.name), each.name === sample.label || each.true === 1 ? h("small", {}, "label") : null),
      h("td", {}, number(each.logit)), h("td", {}, number(each.probability)),
      h("td", {}, each.stored ? h("a", {href: address({class: each.name}), "aria-current": each.name === of ? "true" : null, "aria-label": `${each.name === of ? "shown" : "show"}: map of ${shown(each.name)}`}, each.name === of ? "shown" : "show") : "—"))))));
}

function facts() {
  const hidden = new Set(["label", "prediction", "outcome", "confidence", "status", "verdict"]);
  const pairs = [["SHA-256 of the image", sample.sha256], ["height × width", sample.image_size.join(" × ")],
    ...Object.entries(sample.columns).filter(([name]) => !hidden.has(name)).map(([name, told]) => [title(name), told])];
  return h("dl", {class: "facts"}, ...pairs.map(([name, told]) => h("div", {}, h("dt", {}, shown(name)), h("dd", {}, value(told)))));
}

function neighbours() {
  if (!sample.neighbours.length) return h("p", {class: "soft"}, about.measured < 1 ? "Evidence is still being read." : "None: its map says nothing about where.");
  return h("ul", {class: "grid small"}, ...sample.neighbours.map(({row, id}) => h("li", {}, h("a", {href: address({sample: id})},
    h("img", {src: pictureOf(row, "small"), alt: "", width: 176, height: 176, loading: "lazy"}), h("span", {class: "id"}, foreign(id))))));
}

function judging() {
  if (!about.verdicts) return null;
  const said = sample.said, comment = h("input", {id: "comment", value: said.comment, maxlength: 2000, "aria-label": "Comment", placeholder: "comment (e)"});
  return h("div", {class: "judging", role: "group", "aria-label": "Verdict"},
    ...about.verdicts.map((word, place) => h("button", {type: "button", class: "verdict", "aria-pressed": String(said.verdict === word), on: () => judge(place)}, h("kbd", {}, String(place + 1)), ` ${title(word).replaceAll("-", " ")}`)),
    comment, h("span", {class: "soft"}, "as ", foreign(said.reviewer), said.reason ? ", drawn: " : "", said.reason ? foreign(said.reason) : ""));
}

async function judge(place) {
  const mine = sample;
  const answer = await fetch("verdict", {method: "POST", headers: {"content-type": "application/json"},
    body: JSON.stringify({row: mine.row, verdict: about.verdicts[place], comment: $("comment").value})});
  if (!answer.ok) return problem(await answer.text());
  mine.said = await answer.json();
  isJudged = true;
  if (sample !== mine) return;
  if (page.first + page.ids.indexOf(mine.id) + 1 === page.total) back(); // the last: another key would judge it again
  else step(1);
}

function copy(event) {
  const button = event?.currentTarget || $(sample ? "copy-sample" : "copy");
  navigator.clipboard.writeText(location.href).then(() => { button.textContent = "copied"; }, () => problem(location.href));
}

async function step(by) {
  const place = page.ids.indexOf(sample.id) + by;
  if (page.ids[place] !== undefined) return go({sample: page.ids[place]});
  const first = page.first + (by > 0 ? PAGE : -PAGE);
  if (first < 0 || first >= page.total) return drawSample();
  const query = changed({first: first || null, sample: null});
  for (const name of OWN) query.delete(name);
  query.set("count", PAGE);
  const next = await ask("rows", query);
  go({first: first || null, sample: next.ids[by > 0 ? 0 : next.ids.length - 1]});
}

// Keys

const KEYS = [
  ["j ↓", "next sample", () => sample ? step(1) : move(1)],
  ["k ↑", "sample before", () => sample ? step(-1) : move(-1)],
  ["Enter", "open the sample", () => document.activeElement === document.body && document.querySelector(".open")?.click()],
  ["Esc", "back to the list", back],
  ["/", "search by id", () => focusOn("q")],
  ["f", "to the filters", () => { $("drawer").open = true; document.querySelector("#facets summary").focus(); }],
  ["x", "take all filters away", () => { location.hash = state.has("look") ? "look=grid" : ""; }],
  ["g", "pictures or table", () => go({look: state.get("look") === "grid" ? null : "grid"})],
  ["a", "all columns, or some", () => go({all: state.has("all") ? null : 1})],
  ["n", "next page", () => document.querySelector("[rel=next]")?.click()],
  ["p", "page before", () => document.querySelector("[rel=prev]")?.click()],
  ["s", "signed map, or its own range", () => go({kind: state.get("kind") === "signed" ? null : "signed"})],
  ["c", "the map's cells, or smooth", () => go({cells: state.has("cells") ? null : 1})],
  ["y", "copy the link to what is shown", () => copy()],
  ["1 2 3", "verdict, then the next sample (with --verdicts)", null],
  ["e", "comment, before the verdict", () => sample && about.verdicts && focusOn("comment")],
  ["?", "these keys", () => $("help").open ? $("help").close() : $("help").showModal()],
];
const ACTIONS = new Map(KEYS.flatMap(([keys, , action]) => keys.split(" ").map(key => [key, action])));
ACTIONS.set("ArrowDown", ACTIONS.get("j")).set("ArrowUp", ACTIONS.get("k")).set("Escape", back);

function focusOn(id) {
  if (id === "q") $("drawer").open = true;
  $(id).focus();
  $(id).select();
}

function back() {
  if (isJudged) page.query = null; // only now: what was to judge stays in its order till then
  isJudged = false;
  if (sample) go({sample: null}); else document.activeElement.blur();
}

function move(by) {
  const links = [...document.querySelectorAll(".open")], place = links.indexOf(document.activeElement);
  const next = links[place < 0 ? (by > 0 ? 0 : links.length - 1) : place + by];
  if (next) { next.focus(); next.scrollIntoView({block: "nearest"}); }
}

addEventListener("keydown", event => {
  if (event.ctrlKey || event.altKey || event.metaKey || !about) return;
  const typing = event.target.matches("input, select, textarea");
  if ($("help").open && event.key !== "?") return;
  if (typing && event.key !== "Escape") return;
  if (typing) { event.target.blur(); return; }
  if (/^[1-9]$/.test(event.key) && sample && about.verdicts && about.verdicts[event.key - 1]) { event.preventDefault(); judge(event.key - 1); return; }
  const action = ACTIONS.get(event.key);
  if (!action) return;
  if (event.key !== "Enter") event.preventDefault();
  action();
});

// Start

async function read() {
  about = await ask("about", "");
  $("run").replaceChildren(foreign(about.run), about.old === null ? "" : h("small", {}, "against ", foreign(about.old)));
  const told = [about.state, `run ${about.run_id.slice(0, 12)}`, `CAMs: ${about.cams}`, about.originals ? null : "original images not at hand (--data)", ...about.remarks.map(text => shown(text))];
  $("state").replaceChildren(told.filter(Boolean).join(" · "), " ", about.measured < 1 ? h("b", {class: "tag"}, `reading evidence: ${Math.floor(100 * about.measured)} %`) : "");
  document.body.dataset.measured = about.measured;
  if (about.measured < 1) setTimeout(again, 1000);
}

async function again() {
  await read().catch(error => problem(error.message));
  if (about.measured < 1) return;
  page.query = sample = null;
  show();
}

async function start() {
  if (location.search) history.replaceState(null, "", location.pathname + location.hash); // the token
  await read().then(show, error => problem(error.message));
}

$("help-keys").append(...KEYS.map(([keys, words]) => h("tr", {}, h("th", {scope: "row"}, ...keys.split(" ").flatMap(key => [h("kbd", {}, key), " "])), h("td", {class: "text"}, words))));
$("help-open").addEventListener("click", () => $("help").showModal());
$("skip").addEventListener("click", event => { event.preventDefault(); $("main").focus(); });
$("search").addEventListener("submit", event => { event.preventDefault(); document.querySelector(".open")?.focus(); });
$("q").addEventListener("input", () => filter("q", $("q").value || null));
const narrow = matchMedia("(max-width: 60rem)");
narrow.addEventListener("change", () => { $("drawer").open = !narrow.matches; });
$("drawer").open = !narrow.matches;
addEventListener("hashchange", show);
start();
