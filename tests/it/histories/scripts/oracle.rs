//! What a script does, told without a script engine: its tree, interpreted over maps.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use forebay::Numeric;
use serde_json::{Value as Json, json};

use super::script::{
    COLUMNS, Columns, ENTITIES, Entity, Event, Expr, FILLED, FLOAT_END, Given, Method, Query, Row, Script, Stmt,
};

#[derive(Debug, Clone, PartialEq)]
pub enum Val {
    Nil,
    Null,
    Bool(bool),
    Int(i64),
    Num(Numeric),
    Text(String),
    Json(Json),
}

/// A row as the script sees it: without what is nil.
pub type Table = BTreeMap<&'static str, Val>;

/// One region.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Region {
    pub tables: [BTreeMap<String, Table>; ENTITIES.len()],
    pub events: u64,
    pub last_block: i64,
    /// Events that were put aside.
    pub aside: u64,
}

/// What was raised: the type of the value.
struct Failure(&'static str);

const WRONG: Failure = Failure("string");

type Outcome<T> = Result<T, Failure>;

/// Whether the function goes on.
#[derive(PartialEq)]
enum Flow {
    On,
    Return,
}

impl Val {
    fn is_true(&self) -> bool {
        !matches!(self, Self::Nil | Self::Bool(false))
    }

    pub fn show(&self) -> String {
        match self {
            Self::Nil => "nil".to_owned(),
            Self::Null => "-".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Num(value) => value.to_string(),
            Self::Text(text) => text.clone(),
            Self::Json(json) => json.to_string(),
        }
    }

    /// As a part of JSON.
    fn plain(self) -> Json {
        match self {
            Self::Nil => Json::Null,
            Self::Bool(value) => value.into(),
            Self::Int(value) => value.into(),
            other => other.show().into(),
        }
    }

    /// The same as it stands in a table.
    fn passed_on(self) -> Json {
        match self {
            Self::Null => Json::Null,
            other => other.plain(),
        }
    }

    fn from_json(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => number.as_i64().map_or(Self::Nil, Self::Int),
            Json::String(text) => Self::Text(text.clone()),
            other => Self::Json(other.clone()),
        }
    }

    /// The id that it stands for.
    fn key(self) -> Outcome<String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Int(value) => Ok(value.to_string()),
            Self::Num(value) if !value.to_string().contains('.') => Ok(value.to_string()),
            _ => Err(WRONG),
        }
    }

    fn numeric(self) -> Outcome<Numeric> {
        match self {
            Self::Int(value) => Ok(value.into()),
            Self::Num(value) => Ok(value),
            Self::Text(text) => text.parse().map_err(|_| WRONG),
            _ => Err(WRONG),
        }
    }

    /// The value as a column holds it; nil if it holds none.
    fn stored(self, column: &str) -> Outcome<Self> {
        match (column, self) {
            (_, Self::Nil) => Ok(Self::Nil),
            ("j", Self::Json(json)) => Ok(Self::Json(json)),
            ("j", _) => Err(WRONG),
            (_, Self::Null) => Ok(Self::Nil),
            ("b", Self::Bool(value)) => Ok(Self::Bool(value)),
            ("s", Self::Text(text)) => Ok(Self::Text(text)),
            ("n", value) => value.numeric().map(Self::Num),
            ("v", value) => value.numeric()?.to_i64().map(Self::Int).ok_or(WRONG),
            _ => Err(WRONG),
        }
    }
}

fn compare(a: &Val, b: &Val) -> Outcome<Ordering> {
    match (a, b) {
        (Val::Text(a), Val::Text(b)) => Ok(a.cmp(b)),
        (Val::Text(_), Val::Int(_)) | (Val::Int(_), Val::Text(_)) => Err(WRONG),
        (a, b) => Ok(a.clone().numeric()?.cmp(&b.clone().numeric()?)),
    }
}

/// The order of two values of a column.
fn order(a: &Val, b: &Val) -> Ordering {
    match (a, b) {
        (Val::Bool(a), Val::Bool(b)) => a.cmp(b),
        (a, b) => compare(a, b).unwrap_or(Ordering::Equal),
    }
}

fn arithmetic(
    a: Val,
    b: Val,
    whole: impl Fn(i64, i64) -> Option<i64>,
    exact: impl Fn(&Numeric, &Numeric) -> Numeric,
) -> Outcome<Val> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => whole(a, b).map(Val::Int).ok_or(WRONG),
        // An exact number takes a text of digits, too.
        (a @ Val::Num(_), b) | (a, b @ Val::Num(_)) => Ok(Val::Num(exact(&a.numeric()?, &b.numeric()?))),
        _ => Err(WRONG),
    }
}

fn clip(mut text: String) -> String {
    text.truncate(24);
    text
}

/// A call of a handler.
struct Call<'a> {
    script: &'a Script,
    region: &'a mut Region,
    name: &'a str,
    block: i64,
    event: Table,
    x: Val,
    y: Val,
    i: i64,
    row: Option<Table>,
    entity: usize,
}

impl Call<'_> {
    fn entity(&self, entity: Entity) -> usize {
        match entity {
            Entity::Of(at) => usize::from(at),
            Entity::Loop => self.entity,
        }
    }

    fn get(&self, entity: usize, id: &str) -> Option<Table> {
        self.region.tables[entity].get(id).cloned()
    }

    fn rank(&self, entity: usize, id: &str) -> Val {
        self.get(entity, id).and_then(|row| row.get("v").cloned()).unwrap_or(Val::Int(0))
    }

    /// What is done before the script's own statements; returns whether that is all.
    fn crowd(&mut self, event: &Event) -> bool {
        for at in 1..=event.fills {
            let row = [("v", Val::Int(i64::from(at % 13))), ("s", Val::Text(format!("b{}", at % 7)))];
            self.region.tables[0].insert(format!("b{at}"), row.into());
        }
        for at in 1..=event.drops {
            self.region.tables[0].remove(&format!("b{at}"));
        }
        let Some((looks, from)) = event.looks else { return false };
        let ids = (1..=looks).map(|at| (from + at * 500) % FILLED);
        let ranks = ids.map(|id| match self.rank(0, &format!("b{id}")) {
            Val::Int(rank) => rank.rem_euclid(1000),
            _ => 0,
        });
        let total = Val::Int(ranks.sum());
        self.region.tables[1].insert(format!("l{from}"), [("v", total)].into());
        true
    }

    fn find(&self, entity: Entity, query: &Query) -> Outcome<Vec<Table>> {
        let top = Query::Of { test: None, order: Some((true, "v")), limit: Some(2) };
        let Query::Of { test, order: by, limit } = (if matches!(query, Query::Const) { &top } else { query }) else {
            return Err(WRONG);
        };
        let mut found: Vec<Table> = Vec::new();
        let test = match test {
            Some((column, comparison, value)) => match self.eval(value)?.stored(column)? {
                Val::Nil => return Err(WRONG),
                value => Some((column, comparison, value)),
            },
            None => None,
        };
        for (id, row) in &self.region.tables[self.entity(entity)] {
            let holds = test.as_ref().is_none_or(|(column, comparison, value)| {
                row.get(*column).is_some_and(|held| comparison.holds(order(held, value)))
            });
            if holds {
                let mut row = row.clone();
                row.insert("id", Val::Text(id.clone()));
                found.push(row);
            }
        }
        if let Some((is_down, column)) = by {
            found.sort_by(|a, b| match (a.get(column), b.get(column)) {
                (Some(a), Some(b)) if *is_down => order(b, a),
                (Some(a), Some(b)) => order(a, b),
                (a, b) => a.is_none().cmp(&b.is_none()),
            });
        }
        found.truncate(limit.map_or(usize::MAX, usize::from));
        Ok(found)
    }

    fn row(&self, row: &Row) -> Outcome<Option<Table>> {
        Ok(match row {
            Row::Get(entity, id) => self.get(self.entity(*entity), &self.eval(id)?.key()?),
            Row::Try(entity, id) => self.eval(id)?.key().ok().and_then(|id| self.get(self.entity(*entity), &id)),
            Row::First(entity, query) => self.find(*entity, query)?.into_iter().next(),
            Row::Loop => self.row.clone(),
            Row::Const => Some(Table::from([("v", Val::Int(3)), ("s", Val::Text("const".to_owned()))])),
            Row::Event => Some(self.event.clone()),
        })
    }

    fn ids(&self, entity: Entity, query: &Query, by: Option<Entity>) -> Outcome<String> {
        let found = self.find(entity, query)?;
        let mut ids: Vec<String> = found.iter().map(|row| row["id"].show()).collect();
        if let Some(by) = by {
            ids.sort_by(|a, b| order(&self.rank(self.entity(by), a), &self.rank(self.entity(by), b)));
        }
        Ok(clip(ids.join(",")))
    }

    fn eval(&self, expr: &Expr) -> Outcome<Val> {
        Ok(match expr {
            Expr::Nil => Val::Nil,
            Expr::Null => Val::Null,
            Expr::Bool(value) => Val::Bool(*value),
            Expr::Int(value) => Val::Int(*value),
            Expr::Text(text) => Val::Text((*text).to_owned()),
            Expr::X => self.x.clone(),
            Expr::Y => self.y.clone(),
            Expr::I => Val::Int(self.i),
            Expr::Region => Val::Text(self.name.to_owned()),
            Expr::Block => Val::Int(self.block),
            Expr::Field(row, column, other) => {
                let value = self.row(row)?.and_then(|row| row.get(column).cloned());
                let other = self.eval(other)?;
                value.unwrap_or(other)
            }
            Expr::Inside(row, key) => match self.row(row)?.and_then(|row| row.get("j").cloned()) {
                Some(Val::Json(json)) => json.get(key).map_or(Val::Nil, Val::from_json),
                _ => Val::Nil,
            },
            Expr::Keys(row) => {
                let row = self.row(row)?.unwrap_or_default();
                Val::Text(row.keys().copied().collect::<Vec<_>>().join(","))
            }
            Expr::Count(entity, query) => Val::Int(self.find(*entity, &query.without_order())?.len() as i64),
            Expr::Found(entity, query) => Val::Int(self.find(*entity, query)?.len() as i64),
            Expr::Ids(entity, query, by) => Val::Text(self.ids(*entity, query, *by)?),
            Expr::Digits(text, entity) => {
                let Val::Text(text) = self.eval(text)? else { return Err(WRONG) };
                let digit = |c: char| match c.is_ascii_digit() {
                    true => self.rank(self.entity(*entity), &format!("k{c}")).show(),
                    false => c.to_string(),
                };
                Val::Text(clip(text.chars().map(digit).collect()))
            }
            Expr::Object(a, items) => {
                let a = self.eval(a)?.plain();
                let items: Outcome<Vec<Json>> = items.iter().map(|item| Ok(self.eval(item)?.plain())).collect();
                Val::Json(json!({ "a": a, "l": items? }))
            }
            Expr::List(is_marked, items) => self.list(*is_marked, items)?,
            Expr::FloatText(_, a, shift) => {
                let Val::Int(a) = self.eval(a)? else { return Err(WRONG) };
                let float = a.rem_euclid(FLOAT_END) as f64 / f64::from(1_u32 << shift);
                Val::Text(serde_json::to_string(&float).expect("a number"))
            }
            _ => self.compute(expr)?,
        })
    }

    /// An object with a list: what is nil is null where the list is marked as one, and a hole elsewhere. At its end nil is
    /// nothing.
    fn list(&self, is_marked: bool, items: &[Expr]) -> Outcome<Val> {
        let mut items = items.iter().map(|item| self.eval(item)).collect::<Outcome<Vec<Val>>>()?;
        while items.last() == Some(&Val::Nil) {
            items.pop();
        }
        if !is_marked && items.contains(&Val::Nil) {
            return Err(WRONG);
        }
        let list: Vec<Json> = items.into_iter().map(Val::passed_on).collect();
        let list = if list.is_empty() && !is_marked { json!({}) } else { list.into() };
        Ok(Val::Json(json!({ "l": list })))
    }

    /// What is computed out of other values alone.
    fn compute(&self, expr: &Expr) -> Outcome<Val> {
        Ok(match expr {
            Expr::Add(a, b) => arithmetic(self.eval(a)?, self.eval(b)?, i64::checked_add, |a, b| a + b)?,
            Expr::Sub(a, b) => arithmetic(self.eval(a)?, self.eval(b)?, i64::checked_sub, |a, b| a - b)?,
            Expr::Times(a, b) => arithmetic(self.eval(a)?, Val::Int(*b), i64::checked_mul, |a, b| a * b)?,
            Expr::Rated(a) => arithmetic(self.eval(a)?, Val::Int(7), i64::checked_mul, |a, b| a * b)?,
            Expr::Rem(a, b) => match self.eval(a)? {
                Val::Int(a) => Val::Int(a.rem_euclid(*b)),
                Val::Num(a) => Val::Num(a.checked_rem(&Numeric::from(*b)).map_err(|_| WRONG)?),
                _ => return Err(WRONG),
            },
            Expr::Numeric(a) => Val::Num(self.eval(a)?.numeric()?),
            Expr::Show(a) => Val::Text(self.eval(a)?.show()),
            Expr::Concat(a, b) => Val::Text(clip(self.eval(a)?.show() + &self.eval(b)?.show())),
            Expr::Less(a, b) => Val::Bool(compare(&self.eval(a)?, &self.eval(b)?)?.is_lt()),
            Expr::Equal(a, b) => Val::Bool(self.eval(a)? == self.eval(b)?),
            Expr::Not(a) => Val::Bool(!self.eval(a)?.is_true()),
            Expr::Or(a, b) => {
                let a = self.eval(a)?;
                if a.is_true() { a } else { self.eval(b)? }
            }
            Expr::Sum(items) => {
                let items: Outcome<Vec<Val>> = items.iter().map(|item| self.eval(item)).collect();
                // It ends at the first nil, as `ipairs` does.
                let mut items = items?.into_iter().take_while(|item| *item != Val::Nil);
                items.try_fold(Val::Int(0), |sum, item| arithmetic(sum, item, i64::checked_add, |a, b| a + b))?
            }
            Expr::Pick(at, items) => {
                let items: Outcome<Vec<Val>> = items.iter().map(|item| self.eval(item)).collect();
                items?.into_iter().nth(usize::from(*at) - 1).unwrap_or(Val::Nil)
            }
            _ => return Err(WRONG),
        })
    }

    fn columns(&self, columns: &Columns) -> Outcome<Table> {
        let mut table = Table::new();
        for (name, value) in columns {
            match self.eval(value)? {
                Val::Nil => table.remove(name),
                value => table.insert(name, value),
            };
        }
        Ok(table)
    }

    fn write(&mut self, method: Method, entity: Entity, id: &Expr, given: &Given) -> Outcome<()> {
        let (entity, id) = (self.entity(entity), self.eval(id)?);
        let is_event = matches!(given, Given::Row(Row::Event));
        let (mut table, behind) = match given {
            Given::Columns(columns) | Given::Computed(columns, _) => (self.columns(columns)?, None),
            Given::Inherits(columns, row) => (self.columns(columns)?, self.row(row)?),
            Given::Row(row) => (self.row(row)?.unwrap_or_default(), None),
            Given::Changed(row, column, value) => {
                let mut table = self.row(row)?.unwrap_or_default();
                match self.eval(value)? {
                    Val::Nil => table.remove(column),
                    value => table.insert(column, value),
                };
                (table, None)
            }
        };
        let id = id.key()?;
        if is_event && method != Method::Set {
            return Err(WRONG);
        }
        // A row of `find` may come back with its id. Of the event only columns count.
        if table.remove("id").is_some_and(|found| !is_event && found != Val::Text(id.clone())) {
            return Err(WRONG);
        }
        if method != Method::Set {
            return self.change(method, entity, id, table);
        }
        if let Given::Computed(_, computed) = given {
            for column in COLUMNS.iter().filter(|column| !table.contains_key(*column)).collect::<Vec<_>>() {
                let Some((name, stmts, value)) = computed.iter().find(|(name, ..)| name == column) else { continue };
                let value = match self.run(stmts)? {
                    Flow::Return => self.x.clone(),
                    Flow::On => self.eval(value)?,
                };
                table.insert(name, value);
            }
        }
        for (column, value) in behind.into_iter().flatten().filter(|(column, _)| *column != "id") {
            table.entry(column).or_insert(value);
        }
        let mut row = Table::new();
        for (column, value) in table {
            match value.stored(column)? {
                Val::Nil => {}
                value => drop(row.insert(column, value)),
            }
        }
        self.region.tables[entity].insert(id, row);
        Ok(())
    }

    /// `add`, `max` and `min`.
    fn change(&mut self, method: Method, entity: usize, id: String, table: Table) -> Outcome<()> {
        let mut row = self.get(entity, &id).unwrap_or_default();
        for (column, value) in table {
            if column == "j" || (method == Method::Add && !["n", "v"].contains(&column)) {
                return Err(WRONG);
            }
            let value = value.stored(column)?;
            let value = match (row.get(column).cloned(), value) {
                (_, Val::Nil) => continue,
                (None, value) => value,
                (Some(was), value) => match method {
                    Method::Add => arithmetic(was, value, i64::checked_add, |a, b| a + b)?,
                    Method::Max if order(&value, &was).is_le() => continue,
                    Method::Min if order(&value, &was).is_ge() => continue,
                    _ => value,
                },
            };
            row.insert(column, value);
        }
        self.region.tables[entity].insert(id, row);
        Ok(())
    }

    fn run(&mut self, stmts: &[Stmt]) -> Outcome<Flow> {
        for stmt in stmts {
            if self.step(stmt)? == Flow::Return {
                return Ok(Flow::Return);
            }
        }
        Ok(Flow::On)
    }

    fn step(&mut self, stmt: &Stmt) -> Outcome<Flow> {
        match stmt {
            Stmt::Write(method, entity, id, given) => self.write(*method, *entity, id, given)?,
            Stmt::Delete(entity, id) => {
                let id = self.eval(id)?.key()?;
                self.region.tables[self.entity(*entity)].remove(&id);
            }
            Stmt::Assign(true, value) => self.x = self.eval(value)?,
            Stmt::Assign(false, value) => self.y = self.eval(value)?,
            Stmt::If(test, then, or) => {
                let is_true = self.eval(test)?.is_true();
                return self.run(if is_true { then } else { or });
            }
            Stmt::Fail(kind) => return Err(Failure(["string", "table", "nil"][usize::from(kind % 3)])),
            Stmt::Return => return Ok(Flow::Return),
            Stmt::Catch(reads, stmts, failed) => {
                if let Err(failure) = self.run(stmts) {
                    if *reads {
                        let id = self.event["id"].show();
                        let row = Table::from([("v", self.rank(0, &id))]);
                        self.region.tables[1].insert(id, row);
                    }
                    self.x = Val::Text(failure.0.to_owned());
                    return self.run(failed);
                }
            }
            Stmt::Closure(x, stmts) => {
                let x = self.eval(x)?;
                let outer = std::mem::replace(&mut self.x, x);
                let ended = self.run(stmts);
                let inner = std::mem::replace(&mut self.x, outer);
                self.y = if ended? == Flow::Return { inner } else { self.y.clone() };
            }
            Stmt::Helper(at, x, y) => {
                let (x, y) = (self.eval(x)?, self.eval(y)?);
                let (script, event) = (self.script, self.event.clone());
                let (name, block, region) = (self.name, self.block, &mut *self.region);
                let mut call = Call { script, region, name, block, event, x, y, i: 0, row: None, entity: 0 };
                let ended = call.run(&script.helpers[usize::from(*at)])?;
                self.x = if ended == Flow::Return { call.x } else { call.y };
            }
            _ => return self.repeat(stmt),
        }
        Ok(Flow::On)
    }

    /// A loop.
    fn repeat(&mut self, stmt: &Stmt) -> Outcome<Flow> {
        let outer = (self.i, self.row.clone(), self.entity);
        let mut ended = Ok(Flow::On);
        let mut pass = |call: &mut Self, stmts: &[Stmt]| {
            ended = call.run(stmts);
            !matches!(ended, Ok(Flow::On))
        };
        match stmt {
            Stmt::Times(times, stmts) => {
                for i in 1..=i64::from(*times) {
                    self.i = i;
                    if pass(self, stmts) {
                        break;
                    }
                }
            }
            Stmt::Rows(entity, query, stmts) => {
                for row in self.find(*entity, query)? {
                    self.row = Some(row);
                    if pass(self, stmts) {
                        break;
                    }
                }
            }
            Stmt::Entities(which, stmts) => {
                for at in which {
                    self.entity = usize::from(*at);
                    if pass(self, stmts) {
                        break;
                    }
                }
            }
            _ => {}
        }
        (self.i, self.row, self.entity) = outer;
        ended
    }
}

/// The event as the script sees it.
fn fields(event: &Event) -> Table {
    let number = |text: &str| text.parse().map_or_else(|_| Val::Num(text.parse().expect("a number")), Val::Int);
    let fields = [
        ("id", Some(Val::Text(format!("k{}", event.id)))),
        ("v", event.v.map(Val::Int)),
        ("s", event.s.map(|s| Val::Text(s.to_owned()))),
        ("n", event.n.map(number)),
        ("b", event.b.map(Val::Bool)),
        ("j", event.j.clone().map(Val::Json)),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Handles an event.
pub fn handle(script: &Script, region: &mut Region, name: &str, block: i64, event: &Event) {
    region.events += 1;
    region.last_block = block;
    let before = (!script.catches && event.looks.is_none()).then(|| region.tables.clone());
    let (x, y) = (Val::Int(0), Val::Int(0));
    let mut call =
        Call { script, region: &mut *region, name, block, event: fields(event), x, y, i: 0, row: None, entity: 0 };
    let has_failed = !call.crowd(event) && call.run(&script.body).is_err();
    if let Some(before) = before.filter(|_| has_failed) {
        region.tables = before;
        region.aside += 1;
    }
}

/// The region's document: null if it has none.
pub fn document(script: &Script, region: &Region, name: &str) -> Json {
    /// Integers beyond it are texts in documents.
    const EXACT: i64 = 1 << 53;
    let (x, y) = (Val::Int(0), Val::Int(0));
    if script.is_shy && region.tables[0].len() % 2 == 1 {
        return Json::Null;
    }
    let (region, block) = (&mut region.clone(), region.last_block);
    let call = Call { script, region, name, block, event: Table::new(), x, y, i: 0, row: None, entity: 0 };
    let mut document = serde_json::Map::new();
    for (at, value) in script.document.iter().enumerate() {
        let value = match call.eval(value) {
            Ok(Val::Int(value)) if !(-EXACT..=EXACT).contains(&value) => value.to_string().into(),
            Ok(value) => value.plain(),
            Err(failure) => return json!({ "failed": failure.0 }),
        };
        document.insert(format!("f{at}"), value);
    }
    document.into()
}
