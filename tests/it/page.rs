//! The status page in a real Chromium, over real runs: what it says of a run that is well, of one whose store is away, of
//! one that is gone; that it is read in the dark, on a phone, with a keyboard and by a screen reader; and that it runs
//! nothing that comes from events.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::Value as Json;

use crate::support::browser::Browser;
use crate::support::postgres_server::{Server, free_port};
use crate::support::project::Project;
use crate::support::redis_server::Redis;
use crate::support::served::Served;
use crate::support::wait_until;

const PIPELINE: &str = r#"name = "shop"
[source]
path = "events.ndjson"
settle = "50ms"
[entities.product]
columns = { sold = "bigint", revenue = "numeric" }
[handlers]
script = "handlers.lua"
[errors]
on_event = "quarantine"
[snapshots]
every = "batch"
[store]
url = "sqlite:shop.db"
"#;

const SCRIPT: &str = r#"function on_event(event, ctx)
  if event.fail then error(event.fail) end
  ctx.product:add("all", { sold = 1, revenue = numeric("123456789012345678.25") })
end
function on_snapshot(ctx)
  return { all = ctx.product:get("all"), none = {} }
end
"#;

/// Keys as WebDriver numbers them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";

/// Texts whose contrast is below what WCAG asks at level AA.
const PALE: &str = r#"
const rgb = (color) => { const part = color.match(/[\d.]+/g).map(Number), unit = color.startsWith("color(") ? 255 : 1; return [part[0] * unit, part[1] * unit, part[2] * unit, part[3] ?? 1]; };
const over = (above, below) => [0, 1, 2].map((at) => above[at] * above[3] + below[at] * (1 - above[3]));
const light = (color) => { const [r, g, b] = color.map((part) => { part /= 255; return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05; };
const ground = (node) => { const all = []; for (; node; node = node.parentElement) all.push(rgb(getComputedStyle(node).backgroundColor)); return all.reduceRight((below, above) => over(above, below), [255, 255, 255]); };
const pale = [];
for (const node of document.querySelectorAll("body *")) {
  if (!node.checkVisibility() || node.disabled || node.matches(".sr, script, noscript") || ![...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) continue;
  const style = getComputedStyle(node), below = ground(node), text = over(rgb(style.color), below), size = parseFloat(style.fontSize);
  const [a, b] = [light(text), light(below)], ratio = Math.max(a, b) / Math.min(a, b), isLarge = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
  if (ratio < (isLarge ? 3 : 4.5)) pale.push(`${node.tagName} ${node.id} ${node.textContent.slice(0, 40)}: ${ratio.toFixed(2)}`);
}
return pale;"#;

/// What a screen reader would have no name or no place for.
const NAMELESS: &str = r#"
const wrong = [], named = (node) => node.getAttribute("aria-label") || node.getAttribute("aria-labelledby")?.split(" ").map((id) => document.getElementById(id)?.textContent).join("") || node.textContent.trim();
for (const node of document.querySelectorAll("a, button, input, section, dialog, table, [role=img], [role=group], [role=progressbar]")) if ((node.checkVisibility() || node.matches("dialog")) && !named(node) && !node.closest("dialog:not([open])")) wrong.push(node.outerHTML.slice(0, 90));
for (const one of ["header", "main", "footer", "h1", "[role=status] h2"]) if (document.querySelectorAll(`.page ${one}`).length !== 1) wrong.push(`not one ${one}`);
for (const head of document.querySelectorAll("th")) if (head.scope !== "col") wrong.push("a column without a scope");
if (document.querySelectorAll("[aria-sort]").length !== 1) wrong.push("not one column that is sorted by");
if (document.querySelectorAll("main [aria-live], main [role=status]").length !== 1) wrong.push("not one live region");
return wrong;"#;

/// How much has moved since the page was opened, as browsers measure it; and the requests that overlapped.
const MOVED: &str = r#"
let moved = 0;
const seen = new PerformanceObserver(() => {});
seen.observe({ type: "layout-shift", buffered: true });
for (const entry of seen.takeRecords()) if (!entry.hadRecentInput) moved += entry.value;
return moved;"#;
const OVERLAPPED: &str = r#"
const asked = performance.getEntriesByType("resource").filter(({ name }) => name.includes("/status"));
return asked.filter(({ startTime }, at) => at > 0 && startTime < asked[at - 1].responseEnd).length;"#;
const ELSEWHERE: &str = "return performance.getEntriesByType('resource').map(({ name }) => name).filter((name) => !name.startsWith(location.origin + '/'))";

fn line(block: i64, region: &str) -> String {
    format!("{}\n", serde_json::json!({ "block": block, "region": region }))
}

fn append(project: &Project, text: &str) {
    let mut file = OpenOptions::new().append(true).open(project.path("events.ndjson")).expect("the events");
    file.write_all(text.as_bytes()).expect("the events");
}

fn project(events: &str) -> Project {
    Project::with(PIPELINE, SCRIPT, events)
}

/// A run that follows its source. What is not well is told soon.
fn follow(project: &Project, more: &[&str]) -> Served {
    Served::start(project, &[&["--follow", "--stall", "1s"], more].concat())
}

fn open(browser: &Browser, served: &Served) {
    browser.open(&format!("http://{}/", served.address));
}

/// A browser before a run that is well.
fn looks_at(served: &Served) -> Browser {
    let browser = Browser::start();
    open(&browser, served);
    browser.shows("state", "All is well");
    browser
}

fn none() -> Json {
    Json::Array(Vec::new())
}

/// Nothing is wrong with the page itself.
#[track_caller]
pub fn is_sound(browser: &Browser) {
    assert_eq!(browser.run(PALE), none(), "contrast");
    assert_eq!(browser.run(NAMELESS), none(), "names");
    assert_eq!(browser.run(ELSEWHERE), none(), "requests elsewhere");
    assert_eq!(browser.run(OVERLAPPED), 0, "requests at the same time");
    let moved = browser.run(MOVED);
    assert!(moved.as_f64().is_some_and(|moved| moved < 0.1), "the layout moved: {moved}");
}

/// It is seen whole, from left to right.
#[track_caller]
pub fn is_narrow_enough(browser: &Browser) {
    let widths = browser.run("return [document.documentElement.scrollWidth, innerWidth]");
    assert!(widths[0].as_u64() <= widths[1].as_u64(), "it scrolls sideways: {widths}");
}

#[test]
fn a_run_that_is_well_is_shown_as_it_goes_on() {
    let project = project(&[line(1, "europe"), line(2, "mena"), line(2, "europe")].concat());
    let redis = Redis::start(&[]);
    let served = follow(&project, &["--snapshots", &redis.url()]);
    let browser = looks_at(&served);
    browser.shows("block", "2");
    browser.shows("flow", &redis.url());
    browser.shows("behind", "0 blocks");
    browser.shows("rows", "mena");
    assert_eq!(browser.text("name"), "shop");
    let title = browser.run("return document.title");
    assert_eq!(title, "✓ All is well · shop");
    browser.waits_for("document.getElementById('icon').href.startsWith('data:image/svg+xml,')");

    append(&project, &line(1234, "asia"));
    browser.shows("block", "1,234");
    browser.shows("rows", "asia");
    browser.shows("facts", "Rows written");
    browser.waits_for("/^\\d+ s ago$|^now$/.test(document.getElementById('last').innerText)");
    browser.waits_for("/UTC$/.test(document.getElementById('last').title)");
    // The overlap is drawn: something of a colour is in it.
    browser.waits_for(
        "(() => { const strip = document.getElementById('strip'); return strip.width > 0 && strip.getContext('2d').getImageData(0, 0, strip.width, strip.height).data.some((part) => part > 0); })()",
    );
    is_sound(&browser);
    browser.prefers("prefers-color-scheme", "dark");
    browser.waits_for("getComputedStyle(document.body).backgroundColor === 'rgb(13, 17, 23)'");
    is_sound(&browser);
    assert_eq!(browser.console(), Vec::<String>::new());
    drop(browser);
    served.stop(&project).0.ends_with(130);
}

#[test]
fn an_outage_of_the_store_is_told_with_what_to_do_and_ends_by_itself() {
    let server = Server::start("");
    let project = project(&line(1, "europe"));
    let url = server.url(&server.make_database());
    let served = follow(&project, &["--store", &url]);
    let browser = looks_at(&served);
    browser.shows("rows", "europe");

    server.crash();
    append(&project, &line(2, "europe"));
    browser.shows("state", "The store does not answer");
    browser.waits_for("document.getElementById('band').classList.contains('bad')");
    browser.waits_for("document.title.startsWith('✗ The store does not answer')");
    browser.waits_for("document.querySelectorAll('#flow .bad').length === 1");
    browser.shows("todo", "start it again");
    browser.shows("say", "Everything up to block 1 is committed");
    browser.waits_for("!document.getElementById('newest').innerText.includes('open')");
    browser.shows("rows", "europe");
    is_sound(&browser);
    browser.size(320, 640);
    is_narrow_enough(&browser);
    browser.prefers("prefers-color-scheme", "dark");
    assert_eq!(browser.run(PALE), none(), "contrast");

    server.restart();
    browser.shows("state", "All is well");
    browser.shows("block", "2");
    browser.waits_for("document.querySelectorAll('#flow .bad').length === 0");
    assert_eq!(browser.console(), Vec::<String>::new());
    drop(browser);
    served.stop(&project).0.ends_with(130);
}

#[test]
fn a_server_that_is_gone_is_told_and_the_page_goes_on_when_it_is_back() {
    let project = project(&line(1, "europe"));
    let address = format!("127.0.0.1:{}", free_port());
    let served = Served::start_at(&address, &project, &["--follow"]);
    let browser = looks_at(&served);
    browser.shows("rows", "europe");
    browser.run("window.isTheSame = true");
    // As if it were killed.
    drop(served);

    browser.shows("state", "No answer from forebay");
    browser.waits_for("/^What you see is \\d+ s old/.test(document.getElementById('say').innerText)");
    browser.waits_for("document.title.startsWith('? ')");
    browser.shows("rows", "europe");
    assert_eq!(browser.run(PALE), none(), "contrast");
    append(&project, &line(2, "mena"));
    let served = Served::start_at(&address, &project, &["--follow"]);
    browser.shows("state", "All is well");
    browser.shows("block", "2");
    browser.shows("rows", "mena");
    assert_eq!(browser.run("return window.isTheSame"), true, "it was not loaded again");
    drop(browser);
    served.stop(&project).0.ends_with(130);
}

#[test]
fn what_comes_from_events_is_text_on_a_phone_too() {
    let hostile = "<img src=x onerror=\"window.isHacked=1\">";
    let long = "x".repeat(200);
    let failed = serde_json::json!({ "block": 2, "region": hostile, "fail": format!("<script>window.isHacked=1</script>{long}") });
    let project = project(&format!("{}{}{failed}\n", line(1, hostile), line(1, &format!("a/b %2e {long}"))));
    let served = follow(&project, &[]);
    let browser = Browser::start();
    browser.size(360, 700);
    open(&browser, &served);
    browser.shows("state", "It runs, but look at this");
    browser.shows("looks", "1 event in quarantine");
    browser.shows("quarantine", "<script>window.isHacked=1</script>");
    browser.shows("quarantine", "forebay quarantine");
    browser.shows("rows", hostile);
    is_narrow_enough(&browser);
    for at in 0..2 {
        browser.run(&format!("document.querySelectorAll('#rows button')[{at}].click()"));
        browser.shows("d-text", "\"sold\": 1");
        is_narrow_enough(&browser);
        browser.press(ESCAPE);
        browser.waits_for("!document.getElementById('snapshot').open");
    }
    is_sound(&browser);
    assert_eq!(browser.run("return window.isHacked ?? null"), Json::Null);
    assert_eq!(browser.console(), Vec::<String>::new());
    drop(browser);
    served.stop(&project).0.ends_with(130);
}

#[test]
fn ten_thousand_regions_are_found_and_sorted_with_the_keyboard() {
    let events: String = (0..10_000).map(|number| line(1 + number / 100, &format!("region-{number}"))).collect();
    let project = project(&events);
    let served = follow(&project, &[]);
    let browser = looks_at(&served);
    browser.shows("range", "1–25 of 10,000");
    assert_eq!(browser.run("return document.querySelectorAll('#rows tr').length"), 25, "no more than are shown");
    let first = "return document.querySelector('#rows tr').innerText.split(/\\s/)[0]";
    assert_eq!(browser.run(first), "region-0");

    browser.run("document.querySelectorAll('#columns button')[2].focus()");
    browser.press(ENTER);
    browser.press(ENTER);
    browser.waits_for("document.querySelectorAll('th')[2].getAttribute('aria-sort') === 'descending'");
    assert_eq!(browser.run(first), "region-9900");
    browser.run("document.getElementById('next').focus()");
    browser.press(ENTER);
    browser.shows("range", "26–50 of 10,000");

    browser.run("document.activeElement.blur()");
    browser.press("/");
    assert_eq!(browser.run("return document.activeElement.id"), "find");
    browser.press("N-4711");
    browser.waits_for("document.querySelectorAll('#rows tr:not([hidden])').length === 1");
    // From the search over the states and the heads of the columns to the region.
    browser.run("document.querySelector('th:last-child button').focus()");
    browser.press(TAB);
    assert_eq!(browser.run("return document.activeElement.innerText"), "region-4711");
    browser.press(ENTER);
    browser.shows("d-text", "\"revenue\": \"123456789012345678.25\"");
    assert_eq!(browser.text("d-name"), "region-4711");
    assert_eq!(browser.run(PALE), none(), "contrast");
    assert_eq!(browser.run(NAMELESS), none(), "names");
    browser.press(ESCAPE);
    browser.waits_for("document.activeElement.innerText === 'region-4711'");
    assert_eq!(browser.console(), Vec::<String>::new());
    drop(browser);
    served.stop(&project).0.ends_with(130);
}

/// In how many places the strip of the last minute stands within some frames; and how many answers came meanwhile.
const MOVES: &str = r#"return (async () => {
  const asked = () => performance.getEntriesByType("resource").length, before = asked(), places = new Set();
  for (let at = 0; at < 90; at += 1) { await new Promise(requestAnimationFrame); places.add(document.getElementById("strip").style.transform); }
  return [places.size, asked() - before];
})()"#;

#[test]
fn nothing_moves_by_itself_for_who_wants_that() {
    let project = project(&line(1, "europe"));
    let served = follow(&project, &[]);
    let browser = Browser::start();
    browser.size(1280, 900);
    browser.prefers("prefers-reduced-motion", "reduce");
    open(&browser, &served);
    browser.shows("state", "All is well");
    let still = browser.run(MOVES);
    // Each answer moves it, in one step; so may one that is being taken in.
    assert!(still[0].as_u64() <= still[1].as_u64().map(|answers| answers + 2), "places and answers: {still}");
    let transition = "return getComputedStyle(document.querySelector('.bar i')).transitionDuration";
    assert_eq!(browser.run(transition), "0s");
    let runs = "return document.getAnimations().length";
    assert_eq!(browser.run(runs), 0);
    is_sound(&browser);
    // Who has asked for nothing sees it move on.
    browser.prefers("prefers-reduced-motion", "no-preference");
    assert_ne!(browser.run(transition), "0s");
    wait_until(|| {
        let moves = browser.run(MOVES);
        moves[0].as_u64() > moves[1].as_u64().map(|answers| answers + 5)
    });
    assert_eq!(browser.console(), Vec::<String>::new());
    drop(browser);
    served.stop(&project).0.ends_with(130);
}

/// Names that a browser or a server may take for something else in a path.
#[test]
fn a_region_of_any_name_is_opened() {
    let names =
        [".", "..", "...", "%2e", "%2E%2e", "a/../b", "/", "\\", "?", "#", "&region=x", "+", " ", "é", "日本", "."];
    let project = project(&names.iter().zip(1..).map(|(name, block)| line(block, name)).collect::<String>());
    let script = SCRIPT.replace("none = {}", "name = ctx.region");
    project.write("handlers.lua", script);
    let served = follow(&project, &[]);
    let browser = looks_at(&served);
    browser.waits_for("document.querySelectorAll('#rows tr:not([hidden])').length === 15");
    for at in 0..15 {
        browser.run(&format!("document.querySelectorAll('#rows button')[{at}].click()"));
        browser.shows("d-text", "\"name\"");
        // The document is that of the region, also where it is opened alone.
        let name = browser.run(&format!("return document.querySelectorAll('#rows button')[{at}].title"));
        let shown = browser.run("return JSON.parse(document.getElementById('d-text').innerText).name");
        assert_eq!(shown, name);
        let alone = "const x = new XMLHttpRequest(); x.open('GET', document.getElementById('d-raw').href, false); x.send(); return JSON.parse(x.responseText).name";
        assert_eq!(browser.run(alone), name);
        browser.press(ESCAPE);
        browser.waits_for("!document.getElementById('snapshot').open");
    }
    assert_eq!(browser.console(), Vec::<String>::new());
    drop(browser);
    served.stop(&project).0.ends_with(130);
}
