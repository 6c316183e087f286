//! A script as a tree, and as Lua.

use std::fmt;

use forebay::query::Comparison;
use serde_json::Value as Json;

/// Its entities; all have the same columns.
pub const ENTITIES: [&str; 3] = ["t", "u", "w"];
/// The columns in order.
pub const COLUMNS: [&str; 5] = ["b", "j", "n", "s", "v"];

pub const PIPELINE: &str = r#"
name = "hist"
entities.t = { columns = { v = "bigint", s = "text", n = "numeric", b = "boolean", j = "jsonb" }, indexes = ["v", "s", "n"] }
entities.u = { columns = { v = "bigint", s = "text", n = "numeric", b = "boolean", j = "jsonb" }, indexes = ["v", "s", "n"] }
entities.w = { columns = { v = "bigint", s = "text", n = "numeric", b = "boolean", j = "jsonb" }, indexes = ["v", "s", "n"] }
[handlers]
script = "handlers.lua"
timeout = "60s"
"#;

/// What every script has: constants, and functions that know no `ctx`.
const PRELUDE: &str = r#"
local ROW = { v = 3, s = "const" }
local TOP = { order = "-v", limit = 2 }
local BASE = 7
local function clip(text) return text:sub(1, 24) end
local function show(x) if x == null then return "-" end return tostring(x) end
local function plain(x)
  if x == nil then return null end
  local kind = type(x)
  return (kind == "number" or kind == "string" or kind == "boolean") and x or x ~= false and show(x)
end
local function item(x)
  if type(x) == "table" then return show(x) end
  return x
end
local function part(x, last, shift)
  if math.type(x) ~= "integer" then error("no integer") end
  return x % last / 2 ^ shift
end
local function field(row, name, other)
  if row then
    local x = row[name]
    if x ~= nil then return x end
  end
  return other
end
local function inside(row, key) return row and row.j and row.j[key] end
local function rank(row) return field(row, "v", 0) end
local function rated(x) return x * BASE end
local function sum(...)
  local total = 0
  for _, x in ipairs({ ... }) do total = total + x end
  return total
end
local function pick(at, ...) return (select(at, ...)) end
local function try(...)
  local ok, x = pcall(...)
  if ok then return x end
end
local function keys(row)
  local names = {}
  for name in pairs(row or {}) do names[#names + 1] = name end
  return table.concat(names, ",")
end
local function changed(row, name, value)
  row = row or {}
  row[name] = value
  return row
end
local function ids(rows, key)
  if key then table.sort(rows, function(a, b) return key(a) < key(b) end) end
  local found = {}
  for at, row in ipairs(rows) do found[at] = row.id end
  return clip(table.concat(found, ","))
end
local function subst(text, use) return clip((text:gsub("%d", use))) end
local function crowd(e, ctx)
  for at = 1, e.fills or 0 do ctx.t:set("b" .. at, { v = at % 13, s = "b" .. at % 7 }) end
  for at = 1, e.drops or 0 do ctx.t:delete("b" .. at) end
  if not e.looks then return false end
  local total = 0
  for at = 1, e.looks do total = total + rank(ctx.t:get("b" .. (e.from + at * 500) % FILLED)) % 1000 end
  ctx.u:set("l" .. e.from, { v = total })
  return true
end
"#;

/// Rows of a table that is not small: more of a region than are loaded at the first miss.
pub const FILLED: u16 = 1500;

/// Integers below it over powers of two up to [`SHIFT_MAX`] are written without an exponent.
pub const FLOAT_END: i64 = 16_000_000;
pub const SHIFT_MAX: u8 = 13;

#[derive(Debug, Clone, Copy)]
pub enum Entity {
    Of(u8),
    /// That of the loop over entities.
    Loop,
}

/// Where a row comes from, or none.
#[derive(Debug, Clone)]
pub enum Row {
    Get(Entity, Box<Expr>),
    /// Read under `pcall`.
    Try(Entity, Box<Expr>),
    First(Entity, Query),
    /// That of the loop over rows.
    Loop,
    /// One that the script made while it was loaded.
    Const,
    Event,
}

#[derive(Debug, Clone)]
pub enum Query {
    /// One that the script made while it was loaded.
    Const,
    Of {
        test: Option<(&'static str, Comparison, Box<Expr>)>,
        order: Option<(bool, &'static str)>,
        limit: Option<u8>,
    },
}

#[derive(Debug, Clone)]
pub enum Expr {
    Nil,
    Null,
    Bool(bool),
    Int(i64),
    Text(&'static str),
    X,
    Y,
    /// That of the loop over numbers.
    I,
    Region,
    Block,
    Field(Row, &'static str, Box<Expr>),
    /// A field of the row's JSON.
    Inside(Row, &'static str),
    Keys(Row),
    Count(Entity, Query),
    Found(Entity, Query),
    /// The ids that are found; in the order of other rows, if an entity is given.
    Ids(Entity, Query, Option<Entity>),
    /// Each digit of a text, by what a row of that digit holds.
    Digits(Box<Expr>, Entity),
    Add(Box<Expr>, Box<Expr>),
    Sub(Box<Expr>, Box<Expr>),
    Times(Box<Expr>, i64),
    Rem(Box<Expr>, i64),
    Rated(Box<Expr>),
    Numeric(Box<Expr>),
    Show(Box<Expr>),
    Concat(Box<Expr>, Box<Expr>),
    Less(Box<Expr>, Box<Expr>),
    Equal(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Sum(Vec<Expr>),
    Pick(u8, Vec<Expr>),
    Object(Box<Expr>, Vec<Expr>),
    /// An object with a list, which may have holes; whether it is marked as one.
    List(bool, Vec<Expr>),
    /// The text of a float: an integer over a power of two. One of several ways to make a text of it.
    FloatText(u8, Box<Expr>, u8),
}

pub type Columns = Vec<(&'static str, Expr)>;

/// A row that is handed to `set` and the like.
#[derive(Debug, Clone)]
pub enum Given {
    Columns(Columns),
    Row(Row),
    Changed(Row, &'static str, Expr),
    /// Columns that are computed when they are asked for, after some statements.
    Computed(Columns, Vec<(&'static str, Vec<Stmt>, Expr)>),
    /// Columns that lack come out of a row.
    Inherits(Columns, Row),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Set,
    Add,
    Max,
    Min,
}

#[derive(Debug, Clone)]
pub enum Stmt {
    Write(Method, Entity, Expr, Given),
    Delete(Entity, Expr),
    /// To `x`, or to `y`.
    Assign(bool, Expr),
    If(Expr, Vec<Stmt>, Vec<Stmt>),
    Times(u8, Vec<Stmt>),
    Rows(Entity, Query, Vec<Stmt>),
    Entities(Vec<u8>, Vec<Stmt>),
    /// Under `pcall`, or under `xpcall`, whose handler reads and writes; and what is done if it fails.
    Catch(bool, Vec<Stmt>, Vec<Stmt>),
    /// Raises a text, a table or nil.
    Fail(u8),
    Return,
    /// Calls the script's helper of that number.
    Helper(u8, Expr, Expr),
    /// Makes a closure over the call's `ctx`, event and locals, and calls it.
    Closure(Expr, Vec<Stmt>),
}

#[derive(Debug, Clone)]
pub struct Script {
    pub helpers: Vec<Vec<Stmt>>,
    pub body: Vec<Stmt>,
    pub document: Vec<Expr>,
    /// Whether what an event raises is caught by the script.
    pub catches: bool,
    /// Whether a region has no document as long as its first table holds an odd number of rows.
    pub is_shy: bool,
}

/// An event's fields.
#[derive(Debug, Clone, Default)]
pub struct Event {
    pub id: u8,
    pub v: Option<i64>,
    pub s: Option<&'static str>,
    /// A number of JSON, as it stands there.
    pub n: Option<&'static str>,
    pub b: Option<bool>,
    pub j: Option<Json>,
    /// Rows that are written to the first table before anything else, and such rows that are deleted then.
    pub fills: u16,
    pub drops: u16,
    /// How many of such rows are read and summed up, and the number of the first. That is all that the event does then.
    pub looks: Option<(u16, u16)>,
}

impl Event {
    pub fn json(&self) -> String {
        let mut fields = vec![format!("\"id\":\"k{}\"", self.id)];
        // Null and a field that lacks are the same.
        let v = self.v.map_or_else(|| "null".to_owned(), |v| v.to_string());
        fields.push(format!("\"v\":{v}"));
        fields.extend(self.s.map(|s| format!("\"s\":\"{s}\"")));
        fields.extend(self.n.map(|n| format!("\"n\":{n}")));
        fields.extend(self.b.map(|b| format!("\"b\":{b}")));
        fields.extend(self.j.as_ref().map(|j| format!("\"j\":{j}")));
        let counts = [("fills", self.fills), ("drops", self.drops)].into_iter().filter(|(_, count)| *count > 0);
        let looks = self.looks.into_iter().flat_map(|(looks, from)| [("looks", looks), ("from", from)]);
        fields.extend(counts.chain(looks).map(|(name, count)| format!("\"{name}\":{count}")));
        format!("{{{}}}", fields.join(","))
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(at) => write!(f, "ctx.{}", ENTITIES[usize::from(*at)]),
            Self::Loop => f.write_str("o"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get(entity, id) => write!(f, "{entity}:get({id})"),
            Self::Try(entity, id) => write!(f, "try({entity}.get, {entity}, {id})"),
            Self::First(entity, query) => write!(f, "{entity}:find({query})[1]"),
            Self::Loop => f.write_str("row"),
            Self::Const => f.write_str("ROW"),
            Self::Event => f.write_str("e"),
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Of { test, order, limit } = self else { return f.write_str("TOP") };
        f.write_str("{ ")?;
        if let Some((column, comparison, value)) = test {
            write!(f, "where = {{ {{ \"{column}\", \"{}\", {value} }} }}, ", comparison.text())?;
        }
        if let Some((is_down, column)) = order {
            write!(f, "order = \"{}{column}\", ", if *is_down { "-" } else { "" })?;
        }
        if let Some(limit) = limit {
            write!(f, "limit = {limit}, ")?;
        }
        f.write_str("}")
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            // Lua computes with literals when it loads a script, and wraps around: a large one comes out of a call.
            Self::Int(value) if value.abs() > 1 << 31 => write!(f, "pick(1, {value})"),
            Self::Int(value) => write!(f, "({value})"),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::X => f.write_str("x"),
            Self::Y => f.write_str("y"),
            Self::I => f.write_str("i"),
            Self::Region => f.write_str("ctx.region"),
            // A document is not of one block: which it is depends on when it was due.
            Self::Block => f.write_str("ctx.block"),
            Self::Field(row, column, other) => write!(f, "field({row}, \"{column}\", {other})"),
            Self::Inside(row, key) => write!(f, "inside({row}, \"{key}\")"),
            Self::Keys(row) => write!(f, "keys({row})"),
            Self::Count(entity, query) => write!(f, "{entity}:count({})", query.without_order()),
            Self::Found(entity, query) => write!(f, "#{entity}:find({query})"),
            Self::Ids(entity, query, None) => write!(f, "ids({entity}:find({query}))"),
            Self::Ids(entity, query, Some(by)) => {
                write!(f, "ids({entity}:find({query}), function(r) return rank({by}:get(r.id)) end)")
            }
            Self::Digits(text, entity) => {
                write!(f, "subst({text}, function(c) return show(rank({entity}:get(\"k\" .. c))) end)")
            }
            Self::Add(a, b) => write!(f, "({a} + {b})"),
            Self::Sub(a, b) => write!(f, "({a} - {b})"),
            Self::Times(a, b) => write!(f, "({a} * {b})"),
            Self::Rem(a, b) => write!(f, "({a} % {b})"),
            Self::Rated(a) => write!(f, "rated({a})"),
            Self::Numeric(a) => write!(f, "numeric({a})"),
            Self::Show(a) => write!(f, "show({a})"),
            Self::Concat(a, b) => write!(f, "clip(show({a}) .. show({b}))"),
            Self::Less(a, b) => write!(f, "({a} < {b})"),
            Self::Equal(a, b) => write!(f, "({a} == {b})"),
            Self::Not(a) => write!(f, "(not {a})"),
            Self::Or(a, b) => write!(f, "({a} or {b})"),
            Self::Sum(items) => write!(f, "sum({})", list(items)),
            Self::Pick(at, items) => write!(f, "pick({at}, {})", list(items)),
            Self::Object(a, items) => {
                let items: Vec<String> = items.iter().map(|item| format!("plain({item})")).collect();
                write!(f, "{{ a = plain({a}), l = array{{ {} }} }}", items.join(", "))
            }
            Self::List(is_marked, items) => {
                let items: Vec<String> = items.iter().map(|item| format!("item({item})")).collect();
                write!(f, "{{ l = {}{{ {} }} }}", if *is_marked { "array" } else { "" }, items.join(", "))
            }
            Self::FloatText(way, a, shift) => {
                let float = format!("(part({a}, {FLOAT_END}, {shift}))");
                match way {
                    0 => write!(f, "tostring{float}"),
                    1 => write!(f, "({float} .. \"\")"),
                    2 => write!(f, "string.format(\"%s\", {float})"),
                    3 => write!(f, "table.concat({{ {float} }})"),
                    4 => write!(f, "string.gsub(\"x\", \"x\", {float}):sub(1)"),
                    _ => write!(f, "string.rep({float}, 1)"),
                }
            }
        }
    }
}

impl Query {
    /// As `count` takes it.
    pub fn without_order(&self) -> Self {
        match self {
            Self::Const => Self::Of { test: None, order: None, limit: None },
            Self::Of { test, .. } => Self::Of { test: test.clone(), order: None, limit: None },
        }
    }
}

fn columns(columns: &Columns) -> String {
    let columns: Vec<String> = columns.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    format!("{{ {} }}", columns.join(", "))
}

fn block(stmts: &[Stmt]) -> String {
    stmts.iter().map(|stmt| format!("{stmt}\n")).collect()
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Columns(given) => f.write_str(&columns(given)),
            Self::Row(row) => write!(f, "{row} or {{}}"),
            Self::Changed(row, column, value) => write!(f, "changed({row}, \"{column}\", {value})"),
            Self::Computed(given, computed) => {
                writeln!(f, "setmetatable({}, {{ __index = function(_, k)", columns(given))?;
                for (column, stmts, value) in computed {
                    write!(f, "if k == \"{column}\" then\n{}return {value}\nend\n", block(stmts))?;
                }
                f.write_str("end })")
            }
            Self::Inherits(given, row) => write!(f, "setmetatable({}, {{ __index = {row} }})", columns(given)),
        }
    }
}

impl fmt::Display for Stmt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(method, entity, id, given) => {
                let method = match method {
                    Method::Set => "set",
                    Method::Add => "add",
                    Method::Max => "max",
                    Method::Min => "min",
                };
                write!(f, "{entity}:{method}({id}, {given})")
            }
            Self::Delete(entity, id) => write!(f, "{entity}:delete({id})"),
            Self::Assign(is_x, value) => write!(f, "{} = {value}", if *is_x { "x" } else { "y" }),
            Self::If(test, then, or) => write!(f, "if {test} then\n{}else\n{}end", block(then), block(or)),
            Self::Times(times, stmts) => write!(f, "for i = 1, {times} do\n{}end", block(stmts)),
            Self::Rows(entity, query, stmts) => {
                write!(f, "for _, row in ipairs({entity}:find({query})) do\n{}end", block(stmts))
            }
            Self::Entities(which, stmts) => {
                let which: Vec<Entity> = which.iter().map(|at| Entity::Of(*at)).collect();
                write!(f, "for _, o in ipairs({{ {} }}) do\n{}end", list(&which), block(stmts))
            }
            Self::Catch(reads, stmts, failed) => {
                let (call, handler) = match reads {
                    true => (
                        "xpcall",
                        ", function(failure) ctx.u:set(e.id, { v = rank(ctx.t:get(e.id)) }) return failure end",
                    ),
                    false => ("pcall", ""),
                };
                write!(f, "do\nlocal ok, failure = {call}(function()\n{}end{handler})\n", block(stmts))?;
                write!(f, "if not ok then\nx = type(failure)\n{}end\nend", block(failed))
            }
            Self::Fail(kind) => f.write_str(match kind % 3 {
                0 => "error(\"it was to fail\")",
                1 => "error({ code = 1 })",
                _ => "error(nil)",
            }),
            Self::Return => f.write_str("do return x end"),
            Self::Helper(at, x, y) => write!(f, "x = h{at}(e, ctx, {x}, {y})"),
            Self::Closure(x, stmts) => {
                write!(f, "do\nlocal function c(x)\n{}return y\nend\ny = c({x})\nend", block(stmts))
            }
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "local FILLED = {FILLED}\n{PRELUDE}")?;
        let locals = "local i, row, o = 0, nil, ctx.t\n";
        for (at, helper) in self.helpers.iter().enumerate() {
            write!(f, "local function h{at}(e, ctx, x, y)\n{locals}{}return y\nend\n", block(helper))?;
        }
        let body = block(&self.body);
        write!(f, "local function handle(e, ctx, x, y)\n{locals}if crowd(e, ctx) then return end\n{body}end\n")?;
        let call = if self.catches { "pcall(handle, e, ctx, 0, 0)" } else { "handle(e, ctx, 0, 0)" };
        writeln!(f, "function on_event(e, ctx) {call} end")?;
        write!(f, "function on_snapshot(ctx)\nlocal e, x, y = {{}}, 0, 0\n{locals}")?;
        if self.is_shy {
            f.write_str("if ctx.t:count() % 2 == 1 then return nil end\n")?;
        }
        f.write_str("local ok, doc = pcall(function()\n")?;
        let fields = self.document.iter().enumerate().map(|(at, value)| format!("f{at} = plain({value}), "));
        write!(f, "return {{ {}}}\nend)\n", fields.collect::<String>())?;
        f.write_str("return ok and doc or { failed = type(doc) }\nend\n")
    }
}
