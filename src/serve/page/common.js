const POLL_MS = 1000, HIDDEN_POLL_MS = 15000, TIMEOUT_MS = 5000, LOST_MS = 4000, REGIONS_MS = 4000;
const PAGE_ROWS = 25, LIST_ROWS = 5;

const $ = (id) => document.getElementById(id);
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const attr = (node, name, value) => { if (node.getAttribute(name) !== value) node.setAttribute(name, value); };
const show = (node, is) => { if (node.hidden === is) node.hidden = !is; };
/** An element; its children are elements and texts, never markup. */
const make = (name, className, ...children) => {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
};
/** Fills a node anew only if what it shows has changed. */
const refill = (node, key, fill) => {
  if (node.dataset.key === key) return;
  node.dataset.key = key;
  node.replaceChildren(...fill());
};

// --- Numbers and times as one reads them ---

/** A whole number; one that a double does not hold has come as text. */
const num = (value) => value == null ? "–" : String(value).replace(/\B(?=(\d{3})+$)/g, ",");
const plural = (count, one) => `${num(count)} ${one}${Number(count) === 1 ? "" : "s"}`;
/** A rate in three digits, so that it does not flicker. */
const rate = (value) => {
  if (value == null) return "–";
  if (value < 10) return value < 0.05 ? "0" : value.toFixed(1);
  const unit = 10 ** Math.max(0, Math.floor(Math.log10(value)) - 2);
  return num(Math.round(value / unit) * unit);
};
const span = (seconds) => {
  if (seconds == null) return "–";
  const s = Math.floor(seconds);
  return s < 120 ? `${s} s` : s < 7200 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${num(Math.floor(s / 86400))} d`;
};
const ago = (seconds) => seconds < 1 ? "now" : `${span(seconds)} ago`;
const brief = (seconds) => seconds == null ? "–" : seconds < 0.0995 ? `${(seconds * 1e3).toFixed(seconds < 0.00995 ? 1 : 0)} ms` : seconds < 10 ? `${seconds.toFixed(1)} s` : span(seconds);
const bytes = (value) => {
  if (value == null) return "–";
  let at = 0;
  while (value >= 1000 && at < 4) { value /= 1024; at += 1; }
  return `${at === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${["B", "KiB", "MiB", "GiB", "TiB"][at]}`;
};
/** With a capital, a full stop, and no unit apart from its number. */
const sentence = (text) => text[0].toUpperCase() + text.slice(1).replace(/(\d) (?=(ms|s|min|h|%)(?!\w))/g, "$1\u00a0") + (/[.!?]$/.test(text) ? "" : ".");
const percent = (share) => `${Math.round(100 * share)} %`;
const exact = (time) => time == null ? "" : new Date(time).toISOString().replace("T", " ").replace("Z", " UTC");
/** Seconds since a time, by the server's clock. */
const since = (time) => Math.max(0, (Date.now() + seen.skew - Date.parse(time)) / 1000);
const setAgo = (node, time) => { put(node, time == null ? "–" : ago(since(time))); attr(node, "title", exact(time)); };
/** JSON whose whole numbers keep all digits: those that a double does not hold become texts. */
const parse = (text) => JSON.parse(/\d{16}/.test(text) ? text.replace(/"(?:\\.|[^"\\])*"|-?\d[\d.eE+-]*/g, (part) => /^-?\d{16,}$/.test(part) ? `"${part}"` : part) : text);

// --- What the server said last ---

const seen = { status: null, at: 0, asked: 0, failures: 0, why: "", skew: 0, regionsAt: 0, regionsPause: 0, token: null, pace: null };
const age = () => (performance.now() - seen.at) / 1000;
const isLost = () => performance.now() - seen.at > LOST_MS && (seen.failures > 0 || isAsking && performance.now() - seen.asked > LOST_MS);

async function ask(path) {
  const stop = new AbortController(), timer = setTimeout(() => stop.abort(), TIMEOUT_MS);
  try {
    const answer = await fetch(path, { signal: stop.signal, cache: "no-store" }), text = await answer.text();
    if (!answer.ok) throw new Error(`${answer.status}, ${text.match(/"error":\s*"([^"]*)/)?.[1] ?? answer.statusText}`);
    return text;
  } catch (error) {
    throw error.name === "AbortError" ? new Error(`no answer within ${TIMEOUT_MS / 1000} s`) : error;
  } finally {
    clearTimeout(timer);
  }
}

let timer = 0, isAsking = false;
async function poll() {
  if (isAsking) return;
  clearTimeout(timer);
  isAsking = true;
  seen.asked = performance.now();
  const wantsRegions = !document.hidden && seen.asked >= seen.regionsAt + seen.regionsPause;
  const query = !wantsRegions ? "?regions=none" : seen.token ? `?regions=changed&since=${encodeURIComponent(seen.token)}` : "";
  const text = await ask(`/status${query}`).catch((error) => { seen.failures += 1; seen.why = error.message; });
  isAsking = false;
  if (text !== undefined) {
    seen.at = performance.now();
    seen.failures = 0;
    try {
      take(parse(text), wantsRegions, query !== "");
    } catch (error) {
      console.error(error);
    }
    // A large answer is asked for less often.
    if (wantsRegions) { seen.regionsAt = seen.at; seen.regionsPause = Math.min(15000, Math.max(REGIONS_MS, 4 * (seen.at - seen.asked), text.length / 200)); }
  }
  render();
  timer = setTimeout(poll, document.hidden ? HIDDEN_POLL_MS : Math.max(250, POLL_MS - (performance.now() - seen.asked)));
}

function take(status, hasRegions, isPart) {
  const isNew = seen.status?.started_at !== status.started_at;
  if (isNew) seen.token = null;
  const skew = Date.parse(status.now) - Date.now();
  if (Math.abs(skew - seen.skew) > 300) seen.skew = skew;
  seen.status = status;
  takeMore(status, isNew);
  if (hasRegions && Array.isArray(status.regions)) takeRegions(status, isPart);
}

// --- The state: a few words, one sentence, and what to do ---

const SIGNS = {
  ok: ["✓", "M9 16.5l5 5 9.5-10.5"], busy: ["»", "M9 11l5 5-5 5M17 11l5 5-5 5"], warn: ["!", "M16 8.5v9M16 23v.2"], bad: ["✗", "M11 11l10 10M21 11L11 21"],
  idle: ["…", "M10.5 16h.2M16 16h.2M21.5 16h.2"], stop: ["■", "M11.5 11.5h9v9h-9z"], lost: ["?", "M12.5 12.5c0-5 7.5-4.5 7.5.2 0 3-4 3-4 6M16 23.3v.2"],
};
const state = (look, mark, title, say, todo) => ({ look, mark, title, say, todo });

const svg = (name, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};
function signOf(mark) {
  const sign = svg("svg", { viewBox: "0 0 32 32", class: "sign", "aria-hidden": "true" });
  sign.append(svg("circle", { cx: 16, cy: 16, r: 15 }), svg("path", { d: SIGNS[mark][1] }));
  return sign;
}
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const isDark = matchMedia("(prefers-color-scheme: dark)"), isStill = matchMedia("(prefers-reduced-motion: reduce)");
function icon({ look, mark }) {
  const key = look + mark + isDark.matches;
  if ($("icon").dataset.key === key) return;
  $("icon").dataset.key = key;
  $("icon").href = "data:image/svg+xml," + encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="16" cy="16" r="16" fill="${color(look)}"/><path d="${SIGNS[mark][1]}" fill="none" stroke="${color("on")}" stroke-width="4" stroke-linecap="round" stroke-linejoin="round"/></svg>`);
}

function renderState(status) {
  const now = stateNow(status), notes = status && !isLost() ? looks(status) : [];
  if (now.look === "ok" && notes.length > 0) Object.assign(now, { look: "warn", mark: "warn", title: "It runs, but look at this" });
  attr($("band"), "class", `card band ${now.look}`);
  attr($("sign"), "d", SIGNS[now.mark][1]);
  put($("state"), now.title);
  put($("say"), now.say);
  put($("todo"), now.todo ?? "");
  show($("todo"), Boolean(now.todo));
  refill($("looks"), notes.join(), () => notes.map(([text, href]) => { const link = make("a", "", text); link.href = href; return link; }));
  show($("looks"), notes.length > 0);
  const share = isLost() ? null : seen.pace?.share ?? null, bar = $("bar").firstChild;
  show(bar, share != null);
  bar.style.transform = `scaleX(${share ?? 0})`;
  if (share == null) $("bar").removeAttribute("aria-valuenow"); else attr($("bar"), "aria-valuenow", String(Math.floor(100 * share)));
  document.title = `${SIGNS[now.mark][0]} ${now.title} · ${status?.pipeline ?? "forebay"}`;
  icon(now);
  document.documentElement.classList.toggle("gone", isLost());
}

/** The parts, each with its key in `health`, its name, what is said of it if it is well, and if it is not. */
function renderFlow(status) {
  const given = status.health?.parts ?? {}, parts = flowOf(status).filter(([key]) => given[key]);
  refill($("flow"), parts.map(([key]) => key).join(), () => parts.map(([, name]) => make("li", "", signOf("ok"), make("div", "", make("b", "", name), make("span")))));
  parts.forEach(([key, , about, not], at) => {
    const item = $("flow").children[at], { ok, message } = given[key], look = isLost() ? "idle" : ok ? "ok" : status.health.ok ? "warn" : "bad";
    // What is said above is not said twice.
    const text = isLost() ? "not known" : ok ? about || "well" : message && message !== status.health.message ? message : not;
    attr(item, "class", look);
    attr(item.querySelector("path"), "d", SIGNS[isLost() ? "lost" : look][1]);
    put(item.querySelector("span"), text);
    attr(item, "title", text);
  });
}

const big = (id, text, unit = "") => refill($(id), `${text} ${unit}`, () => [text, make("small", "", unit && ` ${unit}`)]);

// --- Regions ---

const collator = new Intl.Collator("en", { numeric: true });
const regions = { all: new Map(), shown: [], states: new Map(), column: COLUMNS[0], isDown: false, find: "", state: null, page: 0, rows: [] };
/** A name that is seen: one of blanks is quoted. */
const nameOf = ({ region }) => region.trim() ? region : JSON.stringify(region);
/** Of a region that nothing was done for yet it is what is there. */
const stateOf = ({ state }) => state ?? "there";
const setState = (node, region) => { attr(node, "class", `pill ${lookOf(region)}`); put(node, stateOf(region)); attr(node, "title", MEANS[stateOf(region)] ?? ""); };

function takeRegions(status, isPart) {
  if (!isPart) regions.all.clear();
  for (const region of status.regions) regions.all.set(region.region, region);
  seen.token = status.regions_token ?? null;
  regions.states = new Map();
  for (const region of regions.all.values()) {
    const known = regions.states.get(stateOf(region)), look = lookOf(region);
    regions.states.set(stateOf(region), { count: (known?.count ?? 0) + 1, look: known && look === "busy" ? known.look : look });
  }
  if (!regions.states.has(regions.state)) regions.state = null;
  arrange();
}
function arrange() {
  const { column, state, isDown } = regions, sought = regions.find.toLowerCase(), sign = isDown ? -1 : 1;
  const compare = typeof column.of({}) === "number" ? (a, b) => a === b ? 0 : a - b : collator.compare;
  const kept = [...regions.all.values()].filter((region) => (state == null || stateOf(region) === state) && (!sought || region.region.toLowerCase().includes(sought)));
  const keyed = kept.map((region) => [column.of(region) ?? "", region]).sort((a, b) => sign * compare(a[0], b[0]) || collator.compare(a[1].region, b[1].region));
  regions.shown = keyed.map(([, region]) => region);
  regions.page = Math.max(0, Math.min(regions.page, Math.ceil(kept.length / PAGE_ROWS) - 1));
  renderChips();
  renderRows();
}
function renderChips() {
  const states = Object.keys(LOOKS).filter((state) => regions.states.has(state)), wanted = regions.all.size > 1 ? [null, ...states] : [];
  refill($("chips"), wanted.join(), () => wanted.map((state) => {
    const chip = make("button", "", make("span"));
    chip.type = "button";
    chip.title = MEANS[state] ?? "";
    chip.addEventListener("click", () => { regions.state = regions.state === state ? null : state; regions.page = 0; arrange(); });
    return chip;
  }));
  wanted.forEach((state, at) => {
    const { count, look } = state ? regions.states.get(state) : { count: regions.all.size }, text = $("chips").children[at].firstChild;
    put(text, `${state ?? "all"} ${num(count)}`);
    attr(text, "class", look ? `pill ${look}` : "");
    attr($("chips").children[at], "aria-pressed", String(regions.state === state));
  });
}
function makeRow() {
  const one = { region: null, cells: COLUMNS.map(({ className }) => make("td", className)), name: make("button"), pill: make("span") };
  one.name.type = "button";
  one.cells[0].append(one.name);
  one.cells[1].append(one.pill);
  one.row = make("tr", "", ...one.cells);
  one.row.addEventListener("click", () => openSnapshot(one.region));
  $("rows").append(one.row);
  return one;
}
function renderRows() {
  const from = regions.page * PAGE_ROWS, count = regions.shown.length, page = regions.shown.slice(from, from + PAGE_ROWS), hasPages = regions.all.size > PAGE_ROWS;
  while (regions.rows.length < page.length) regions.rows.push(makeRow());
  regions.rows.forEach((one, at) => {
    const region = one.region = page[at];
    show(one.row, Boolean(region));
    if (!region) return;
    put(one.name, nameOf(region));
    attr(one.name, "title", region.region);
    setState(one.pill, region);
    COLUMNS.forEach(({ text, time }, cell) => time ? setAgo(one.cells[cell], time(region)) : text && put(one.cells[cell], text(region)));
  });
  put($("range"), !hasPages ? "" : count <= PAGE_ROWS ? num(count) : `${num(from + 1)}–${num(Math.min(count, from + PAGE_ROWS))} of ${num(count)}`);
  show($("prev"), hasPages);
  show($("next"), hasPages);
  $("prev").disabled = from === 0;
  $("next").disabled = from + PAGE_ROWS >= count;
  show($("no-regions"), count === 0);
  put($("no-regions"), seen.regionsAt === 0 ? "Asking …" : seen.status.store?.error && regions.all.size === 0 ? sentence(seen.status.store.error) : regions.all.size === 0 ? NO_REGIONS : "There is no such region.");
}
$("columns").append(...COLUMNS.map((column) => {
  const button = make("button", "", column.name), head = make("th", column.className, button);
  head.scope = "col";
  button.type = "button";
  button.addEventListener("click", () => { Object.assign(regions, { isDown: regions.column === column && !regions.isDown, column, page: 0 }); sorted(); arrange(); });
  return head;
}));
function sorted() {
  COLUMNS.forEach((column, at) => {
    const head = $("columns").children[at];
    if (column === regions.column) attr(head, "aria-sort", regions.isDown ? "descending" : "ascending"); else head.removeAttribute("aria-sort");
  });
}
const turnPage = (by) => () => { regions.page += by; renderRows(); };
$("find").addEventListener("input", () => { regions.find = $("find").value.trim(); regions.page = 0; arrange(); });
$("prev").addEventListener("click", turnPage(-1));
$("next").addEventListener("click", turnPage(1));

// --- Warnings ---

function fill(box, entries, total, item) {
  const count = box.querySelector(".count");
  refill(box.querySelector("ol"), JSON.stringify(entries), () => entries.map(item));
  show(box.querySelector(".empty"), total === 0);
  show(count, total > 0);
  put(count, num(total));
  for (const time of box.querySelectorAll("time")) setAgo(time, time.dateTime);
}
function meta(parts, time) {
  const line = make("p", "meta", parts.filter(Boolean).join(" · ")), when = make("time");
  if (time == null) return line;
  when.dateTime = time;
  line.append(line.textContent && " · ", when);
  return line;
}
let allWarnings = false;
function renderWarnings({ warnings = [] }) {
  const more = $("warnings").querySelector(".note");
  fill($("warnings"), allWarnings ? warnings : warnings.slice(0, LIST_ROWS), warnings.length, ({ level, message, count, time }) => {
    const look = level === "error" ? "bad" : "warn";
    return make("li", look, make("div", "what", signOf(look), make("p", "", make("span", "sr", `${level}: `), message ?? "")), meta([count > 1 && `${num(count)} times`], time));
  });
  attr($("warnings").querySelector(".count"), "class", `count ${warnings.some(({ level }) => level === "error") ? "bad" : "warn"}`);
  show(more, warnings.length > LIST_ROWS);
  put(more.firstChild, allWarnings ? "Show fewer" : `Show all ${num(warnings.length)}`);
}
$("warnings").querySelector(".note button").addEventListener("click", () => { allWarnings = !allWarnings; render(); });

// --- Facts ---

/** Groups of facts: each a name, its lines of a name and a text or a time, and the shares of a bar, if it has one. */
function renderGroups(given) {
  const groups = given.map(([name, lines, shares = []]) => [name, lines.filter(Boolean), shares]);
  refill($("facts"), groups.map(([name, lines]) => name + lines.map(([what]) => what)).join(), () => groups.map(([name, lines, shares]) => {
    const list = make("dl", "", ...lines.map(([what]) => make("div", "", make("dt", "", what), make("dd"))));
    const meter = make("div", "meter", ...["work", "odd", "seal"].map((part) => { const bar = make("i"); bar.style.background = `var(--${part})`; return bar; }));
    return make("div", "", make("h3", "", name), ...(shares.length > 0 ? [meter] : []), list);
  }));
  const values = groups.flatMap(([, lines]) => lines);
  $("facts").querySelectorAll("dd").forEach((node, at) => { const value = values[at][1]; if (value && typeof value === "object") setAgo(node, value.time); else put(node, value ?? "–"); });
  const bars = $("facts").querySelectorAll(".meter i");
  groups.flatMap(([, , shares]) => shares).forEach((share, at) => { bars[at].style.width = `${100 * share}%`; });
}

// --- All of it ---

function render() {
  const status = seen.status;
  renderState(status);
  if (!status) return;
  document.documentElement.classList.remove("asking");
  put($("fresh"), `updated ${ago(age())}${seen.failures > 0 ? ` (${seen.why})` : ""}`);
  put($("name"), status.pipeline);
  put($("by"), BY);
  put($("version"), `version ${status.version}`);
  put($("uptime"), isLost() ? "" : `up ${span(since(status.started_at))}`);
  attr($("uptime"), "title", `since ${exact(status.started_at)}`);
  renderFlow(status);
  renderMore(status);
  put($("old"), status.store?.error && status.store.age_seconds != null ? `as they were ${span(status.store.age_seconds)} ago` : "");
  renderWarnings(status);
  renderRows();
}

addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || $("snapshot").open || event.target.tagName === "INPUT") return;
  event.preventDefault();
  $("find").focus();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
isDark.addEventListener("change", () => { repaint(); render(); });
// Ages go on while no answer comes.
setInterval(() => { if (!document.hidden && (isAsking || seen.failures > 0)) render(); }, POLL_MS);
