use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which room may import which. A room stands below all that it imports, so there is no circle.
const ROOMS: &str = "
    model
    timeline    model
    rows        model
    undo        model rows
    snapshot    model
    tls         model
    redis       model tls
    program     model
    source      model undo timeline redis program
    batch       model rows undo
    store       model rows undo snapshot tls batch
    lane        model rows undo store
    commit      model timeline undo batch store
    publish     model timeline snapshot redis program batch store commit
    config      model snapshot source store publish
    run         model timeline rows undo snapshot source batch store lane commit publish config
    status      model store publish
    serve       model timeline store publish run status
    cli
";

/// What only some rooms may name, so that another of its kind is one more file there and none elsewhere: how the name
/// begins, and those rooms. docs/CONTRIBUTING.md counts on it.
const NAMES: [(&str, &[&str]); 9] = [
    ("Sqlite", &["store"]),
    ("Postgres", &["store"]),
    ("RedisUrl", &["redis", "source", "publish", "config"]),
    ("RedisTarget", &["publish"]),
    ("RedisSnapshots", &["publish"]),
    ("RedisStream", &["source", "config"]),
    ("Kafka", &["source", "config"]),
    ("CommandPlan", &["source", "config"]),
    ("ScriptFactory", &["lane"]),
];

/// Rooms that the changes of the table in docs/CONTRIBUTING.md touch together, at most.
const ROOMS_TOUCHED_MAX: usize = 20;

/// Lines of a file, its tests apart.
const FILE_LINES_MAX: usize = 700;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Columns of a line of Lua; rustfmt keeps the others.
const LUA_COLUMNS_MAX: usize = 120;
/// Locals of the main chunk of a Lua file. Lua refuses more than 200, and some are put before each file.
const LUA_LOCALS_MAX: usize = 150;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below `src` with that ending, by their path from there, without the unit tests at their end.
fn files(ending: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, ending, found);
            } else if path.extension().is_some_and(|found| found == ending) {
                found.push(path);
            }
        }
    }
    let src = root().join("src");
    let mut found = Vec::new();
    walk(&src, ending, &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a file");
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        (path.strip_prefix(&src).expect("below src").to_owned(), code)
    };
    found.into_iter().map(read).collect()
}

fn room_of(file: &Path) -> Option<String> {
    let mut parts = file.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let first = parts.next()?;
    parts.next().map(|_| first)
}

/// The module of a file, as a path from the crate.
fn module_of(file: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        file.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

/// The paths that a file names: each `use`, its braces taken apart, and each `crate::…` in the code.
fn paths(code: &str) -> BTreeSet<String> {
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for start in code.match_indices("use ").map(|(at, _)| at) {
        let before = code[..start].rsplit('\n').next().unwrap_or_default().trim();
        if before.is_empty() || before.starts_with("pub") {
            let statement = code[start + 4..].split(';').next().unwrap_or_default();
            expand("", statement, &mut found);
        }
    }
    let is_name = |byte: char| byte.is_ascii_alphanumeric() || byte == '_' || byte == ':';
    for (at, _) in code.match_indices("crate::") {
        found.insert(code[at..].chars().take_while(|byte| is_name(*byte)).collect::<String>());
    }
    found
}

/// Takes `a::{b, c::{d, e}}` apart.
fn expand(prefix: &str, text: &str, found: &mut BTreeSet<String>) {
    let text = text.trim();
    let Some(open) = text.find('{') else {
        found.insert(format!("{prefix}{}", text.split(" as ").next().unwrap_or_default().trim()));
        return;
    };
    let prefix = format!("{prefix}{}", text[..open].trim());
    let inside = text[open + 1..].trim_end().trim_end_matches('}');
    let (mut depth, mut begin) = (0, 0);
    for (at, byte) in inside.char_indices() {
        match byte {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &inside[begin..at], found);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if !inside[begin..].trim().is_empty() {
        expand(&prefix, &inside[begin..], found);
    }
}

/// Where a path leads, from the crate.
fn resolve(module: &[String], path: &str) -> Option<Vec<String>> {
    let mut parts: Vec<&str> = path.split("::").map(str::trim).collect();
    let mut base: Vec<String> = match *parts.first()? {
        "crate" => {
            parts.remove(0);
            Vec::new()
        }
        "super" => {
            let mut base = module.to_vec();
            while parts.first() == Some(&"super") {
                parts.remove(0);
                base.pop();
            }
            base
        }
        "self" => {
            parts.remove(0);
            module.to_vec()
        }
        _ => return None,
    };
    base.extend(parts.into_iter().map(str::to_owned));
    Some(base)
}

fn table() -> BTreeMap<String, BTreeSet<String>> {
    let rows = ROOMS.lines().filter(|line| !line.trim().is_empty());
    let row = |line: &str| {
        let mut names = line.split_whitespace().map(str::to_owned);
        (names.next().expect("a room"), names.collect())
    };
    rows.map(row).collect()
}

#[test]
fn a_room_imports_what_the_table_says_and_no_more() {
    let table = table();
    let order: Vec<&str> = ROOMS.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for (room, imports) in &table {
        let place = |name: &str| order.iter().position(|room| *room == name).unwrap_or(usize::MAX);
        for import in imports {
            assert!(place(import) < place(room), "{room} imports {import}, which stands below it: a circle");
        }
    }
    let mut wrong = Vec::new();
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, code) in files("rs") {
        let Some(room) = room_of(&file) else { continue };
        let allowed = table.get(&room).unwrap_or_else(|| panic!("the table lacks the room {room}"));
        for path in paths(&code) {
            let Some(target) = resolve(&module_of(&file), &path) else { continue };
            let Some(other) = target.first().filter(|other| **other != room && table.contains_key(*other)) else {
                continue;
            };
            used.entry(room.clone()).or_default().insert(other.clone());
            if !allowed.contains(other) {
                wrong.push(format!("{}: {room} may not import {other} ({path})", file.display()));
            }
        }
    }
    for (room, imports) in &table {
        let unused = imports.iter().filter(|import| !used.get(room).is_some_and(|used| used.contains(*import)));
        wrong.extend(unused.map(|import| format!("{room} does not import {import}: take it out of the table")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_of_a_room_import_each_other_in_no_circle() {
    let files = files("rs");
    let modules: BTreeSet<Vec<String>> = files.iter().map(|(file, _)| module_of(file)).collect();
    let mut arrows: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (file, code) in &files {
        let module = module_of(file);
        for path in paths(code) {
            let Some(target) = resolve(&module, &path) else { continue };
            let found = (1..=target.len()).rev().map(|len| &target[..len]).find(|path| modules.contains(*path));
            let Some(found) = found.filter(|found| !module.starts_with(found) && !found.starts_with(&module)) else {
                continue;
            };
            arrows.entry(module.clone()).or_default().insert(found.to_vec());
        }
    }
    // What imports nothing that is left is taken away until nothing more can go; the rest are circles.
    loop {
        let gone: Vec<Vec<String>> =
            modules.iter().filter(|module| arrows.get(*module).is_none_or(BTreeSet::is_empty)).cloned().collect();
        let before: usize = arrows.values().map(BTreeSet::len).sum();
        for targets in arrows.values_mut() {
            targets.retain(|target| !gone.contains(target));
        }
        if arrows.values().map(BTreeSet::len).sum::<usize>() == before {
            break;
        }
    }
    let named = |module: &Vec<String>| module.join("::");
    let left = arrows.iter().filter(|(_, targets)| !targets.is_empty());
    let left: Vec<String> = left
        .map(|(from, to)| format!("{} -> {}", named(from), to.iter().map(named).collect::<Vec<_>>().join(", ")))
        .collect();
    assert!(left.is_empty(), "circles among:\n{}", left.join("\n"));
}

/// The names in a line of code: not those in its texts, nor in its comment.
fn names(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    let outside = code.split('"').step_by(2);
    outside.flat_map(|code| code.split(|character: char| !character.is_ascii_alphanumeric() && character != '_'))
}

#[test]
fn what_is_of_one_kind_is_named_where_it_is_at_home() {
    let mut wrong = Vec::new();
    for (file, code) in files("rs") {
        let Some(room) = room_of(&file) else { continue };
        for (at, line) in code.lines().enumerate() {
            for (kind, rooms) in NAMES {
                if !rooms.contains(&&*room) && names(line).any(|name| name.starts_with(kind)) {
                    let rooms = rooms.join(", ");
                    wrong.push(format!("{}:{}: {kind}… is of {rooms}: {}", file.display(), at + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The part of a document below a heading, up to the next one of its level or above.
fn section<'d>(document: &'d str, heading: &str) -> &'d str {
    let begin = document.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let text = &document[begin + heading.len() + 2..];
    let level = heading.chars().take_while(|character| *character == '#').count();
    let ends = (1..=level).filter_map(|level| text.find(&format!("\n{} ", "#".repeat(level))));
    &text[..ends.min().unwrap_or(text.len())]
}

#[test]
fn the_lists_of_what_a_change_touches_are_true() {
    let document = std::fs::read_to_string(root().join("docs/CONTRIBUTING.md")).expect("the document");
    let rooms: BTreeSet<String> = table().into_keys().collect();
    let room_in = |path: &str| path.split('/').next().filter(|room| rooms.contains(*room)).map(str::to_owned);
    let (mut wrong, mut sum) = (Vec::new(), 0);
    let lists = section(&document, "## Which files to touch");
    for path in quoted(lists).filter(|path| path.contains('/') && !path.contains("NAME") && !path.contains(' ')) {
        let path = path.trim_end_matches('*').trim_end_matches('.');
        let is_there = |base: &str| root().join(base).join(path).exists();
        if (room_in(path).is_some() || ["tests/", "docs/"].iter().any(|folder| path.starts_with(folder)))
            && !is_there("src")
            && !is_there("")
        {
            wrong.push(format!("there is no {path}"));
        }
    }
    let touched = section(&document, "### What these changes touch");
    for row in touched.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| change")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [change, list, first, named, count] = cells[..] else {
            wrong.push(format!("expected five columns: {row}"));
            continue;
        };
        let named: BTreeSet<String> = named.split(", ").map(|room| room.trim_matches('*').to_owned()).collect();
        sum += named.len();
        if count.parse() != Ok(named.len()) || !named.is_subset(&rooms) {
            wrong.push(format!("{change}: {count} rooms are not {}", named.into_iter().collect::<Vec<_>>().join(", ")));
            continue;
        }
        let heading = list.trim_start_matches('[').split(']').next().unwrap_or_default();
        let heading = format!("### {}{}", heading[..1].to_uppercase(), &heading[1..]);
        let listed: BTreeSet<String> = quoted(section(&document, &heading)).filter_map(room_in).collect();
        let first = room_in(first.trim_matches('`'));
        if !named.is_subset(&listed) || !first.is_some_and(|first| named.contains(&first)) {
            wrong.push(format!("{change}: its rooms are {named:?}, and its list has {listed:?}"));
        }
    }
    if !touched.contains(&format!("That is {sum} rooms")) || !(1..=ROOMS_TOUCHED_MAX).contains(&sum) {
        wrong.push(format!("write `That is {sum} rooms`, at most {ROOMS_TOUCHED_MAX} of which are allowed"));
    }
    assert!(wrong.is_empty(), "docs/CONTRIBUTING.md:\n{}", wrong.join("\n"));
}

/// Lines of each function: its head, and the line that ends it at the same indentation.
fn functions<'c>(code: &'c str, is_head: impl Fn(&str) -> bool, ends: &[&str]) -> Vec<(&'c str, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| is_head(line)) {
        let indent = line.len() - line.trim_start().len();
        let is_end = |line: &&str| {
            line.get(..indent).is_some_and(|before| before.trim().is_empty())
                && line.get(indent..).is_some_and(|rest| ends.contains(&rest.trim_end()))
        };
        let len = lines[at..].iter().position(is_end).map_or(1, |end| end + 1);
        found.push((line.trim(), len));
    }
    found
}

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    let rust = |line: &str| {
        let line = line.trim_start();
        let names = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "pub const fn ", "pub(crate) const fn "];
        (names.iter().any(|name| line.starts_with(name)) || (line.starts_with("pub(in ") && line.contains(") fn ")))
            && !line.ends_with(';')
            && !line.ends_with('}')
    };
    let lua = |line: &str| {
        let line = line.trim_start();
        (line.starts_with("function ") || line.starts_with("local function ")) && !line.ends_with(" end")
    };
    for (ending, is_lua) in [("rs", false), ("lua", true)] {
        for (file, code) in files(ending) {
            let lines = code.lines().count();
            if lines > FILE_LINES_MAX {
                long.push(format!("{}: {lines} lines; at most {FILE_LINES_MAX}", file.display()));
            }
            let functions = if is_lua { functions(&code, lua, &["end"]) } else { functions(&code, rust, &["}"]) };
            let over = functions.into_iter().filter(|(_, len)| *len > FUNCTION_LINES_MAX);
            long.extend(over.map(|(head, len)| format!("{}: {len} lines: {head}", file.display())));
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// `==` asks the `__eq` of its left side first: where a metatable that a value shows stands there, a script's is asked and
/// is given ours.
#[test]
fn what_values_are_told_apart_by_stands_on_the_left() {
    let is_of_name = |c: &char| c.is_alphanumeric() || "_.".contains(*c);
    let is_ours = |name: &str| name.ends_with("_meta") || name.ends_with(".meta");
    let is_wrong = |line: &str| {
        ["==", "~="].iter().flat_map(|sign| line.match_indices(sign)).any(|(at, sign)| {
            let (left, right) = (line[..at].trim_end(), line[at + sign.len()..].trim_start());
            let shows =
                left.rfind("rawmeta(").is_some_and(|from| left[from..].find(')') == Some(left.len() - from - 1));
            let name: String = right.chars().take_while(is_of_name).collect();
            let before = left.rsplit(|c| !is_of_name(&c)).next().unwrap_or_default();
            (shows && name != "nil") || (!is_ours(before) && (is_ours(&name) || name == "meta"))
        })
    };
    for line in ["if rawmeta(a) == numeric_meta then", "x = b and meta ~= event_meta", "rawmeta(id) ~= numbers.meta"] {
        assert!(is_wrong(line), "{line}");
    }
    for line in ["if numeric_meta == rawmeta(a) then", "if rawmeta(row) ~= nil then", "if event_meta == meta then"] {
        assert!(!is_wrong(line), "{line}");
    }
    let of_ours = |file: &Path| !file.components().any(|part| part.as_os_str() == "tests");
    for (file, code) in files("lua").into_iter().filter(|(file, _)| of_ours(file)) {
        let code = code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("--"));
        let wrong: Vec<String> =
            code.filter(|(_, line)| is_wrong(line)).map(|(at, line)| format!("{}: {line}", at + 1)).collect();
        assert!(wrong.is_empty(), "{}: ours belongs before the sign\n{}", file.display(), wrong.join("\n"));
    }
}

#[test]
fn lua_is_narrow_and_has_room_for_locals() {
    let mut wrong = Vec::new();
    for (file, code) in files("lua") {
        for (at, line) in code.lines().enumerate() {
            if line.chars().count() > LUA_COLUMNS_MAX {
                wrong.push(format!("{}:{}: over {LUA_COLUMNS_MAX} columns", file.display(), at + 1));
            }
        }
        let names = |line: &str| {
            let rest = line.strip_prefix("local ")?;
            Some(if rest.starts_with("function ") { 1 } else { rest.split('=').next()?.split(',').count() })
        };
        let locals: usize = code.lines().filter_map(names).sum();
        if locals > LUA_LOCALS_MAX {
            wrong.push(format!("{}: {locals} locals in its main chunk; at most {LUA_LOCALS_MAX}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
