//! What events do, over real entities and over the model's: the same code handles both.

use std::collections::BTreeMap;

use forebay::query::Comparison;
use forebay::{Context, EntityRow, EntityTable, Find, Handler, HandlerError};
use serde_json::{Value as Json, json};

forebay::entity! {
    pub struct Item in "item" {
        v: Option<i64>,
        tag: String,
    }
    index v, tag
}

forebay::entity! {
    /// What was read.
    pub struct Note in "note" {
        text: String,
    }
}

/// What an event does.
#[derive(Debug, Clone)]
pub enum Op {
    Set(u8, Option<i8>),
    Delete(u8),
    Add(u8, i8),
    /// Writes down what is found: comparison, value, order, limit.
    Find(Option<(Comparison, i8)>, u8, Option<u8>),
    /// The same by tag, together with a condition on the value.
    FindTag(u8, Option<(Comparison, i8)>),
    Count(Option<(Comparison, i8)>),
    /// Deletes the first one of those above a value.
    Take(i8),
    /// Writes, reads and deletes, and then fails: it is put aside.
    Fail(u8, i8),
}

pub fn text_of(comparison: Comparison) -> &'static str {
    comparison.text()
}

pub fn op_json(op: &Op) -> Json {
    let condition = |condition: &Option<(Comparison, i8)>| condition.map(|(op, value)| json!([text_of(op), value]));
    match op {
        Op::Set(id, v) => json!({"op": "set", "id": id, "v": v}),
        Op::Delete(id) => json!({"op": "delete", "id": id}),
        Op::Add(id, v) => json!({"op": "add", "id": id, "v": v}),
        Op::Find(where_, order, limit) => {
            json!({"op": "find", "where": condition(where_), "order": order, "limit": limit})
        }
        Op::FindTag(tag, where_) => json!({"op": "tag", "id": tag, "where": condition(where_)}),
        Op::Count(where_) => json!({"op": "count", "where": condition(where_)}),
        Op::Take(v) => json!({"op": "take", "v": v}),
        Op::Fail(id, v) => json!({"op": "fail", "id": id, "v": v}),
    }
}

#[derive(serde::Deserialize)]
pub struct Event {
    pub n: u64,
    pub op: String,
    #[serde(default)]
    pub id: u8,
    #[serde(default)]
    pub v: Option<i64>,
    #[serde(default, rename = "where")]
    pub condition: Option<(String, i64)>,
    #[serde(default)]
    pub order: u8,
    #[serde(default)]
    pub limit: Option<usize>,
}

/// What handlers need of a region's entities: the real ones, or the model's.
pub trait Items {
    fn get(&mut self, id: &str) -> Result<Option<Item>, HandlerError>;
    fn set(&mut self, id: &str, item: Option<Item>) -> Result<(), HandlerError>;
    fn find(&mut self, find: &Wanted) -> Result<Vec<String>, HandlerError>;
    fn count(&mut self, find: &Wanted) -> Result<u64, HandlerError>;
    fn note(&mut self, id: &str, text: String) -> Result<(), HandlerError>;
}

/// What is looked for.
#[derive(Default)]
pub struct Wanted {
    pub v: Option<(Comparison, i64)>,
    pub tag: Option<String>,
    pub order: u8,
    pub limit: Option<usize>,
}

pub fn tag_of(v: Option<i64>) -> String {
    format!("t{}", v.unwrap_or(7).rem_euclid(3))
}

/// What an event does, over the real entities and over the model's.
pub fn handle(event: &Event, items: &mut dyn Items) -> Result<(), HandlerError> {
    let id = format!("k{}", event.id);
    let comparison = |text: &str| Comparison::ALL.into_iter().find(|op| op.text() == text).expect("a comparison");
    let v = event.condition.as_ref().map(|(op, value)| (comparison(op), *value));
    let note = format!("n{}", event.n % 5);
    match event.op.as_str() {
        "set" => items.set(&id, Some(Item { v: event.v, tag: tag_of(event.v) })),
        "delete" => items.set(&id, None),
        "add" => {
            let old = items.get(&id)?.and_then(|item| item.v).unwrap_or(0);
            let v = Some(old + event.v.unwrap_or(0));
            items.set(&id, Some(Item { v, tag: tag_of(v) }))
        }
        "find" => {
            let found = items.find(&Wanted { v, tag: None, order: event.order % 5, limit: event.limit })?;
            items.note(&note, found.join(" "))
        }
        "tag" => {
            let tag = Some(format!("t{}", event.id % 3));
            let found = items.find(&Wanted { v, tag, order: 0, limit: None })?;
            items.note(&note, found.join(" "))
        }
        "count" => {
            let count = items.count(&Wanted { v, ..Wanted::default() })?;
            let all = items.count(&Wanted::default())?;
            items.note(&note, format!("{count} of {all}"))
        }
        "fail" => {
            let old = items.get(&id)?.and_then(|item| item.v).unwrap_or(0);
            let v = Some(old + event.v.unwrap_or(0));
            items.set(&id, Some(Item { v, tag: tag_of(v) }))?;
            items.set(&format!("k{}", (event.id + 1) % 7), None)?;
            items.set(&format!("k{}", (event.id + 2) % 7), Some(Item { v: event.v, tag: tag_of(event.v) }))?;
            let found = items.find(&Wanted { v: None, tag: None, order: 2, limit: Some(2) })?;
            items.note(&note, found.join(" "))?;
            items.set(&id, None)?;
            Err(HandlerError::new("it was to fail"))
        }
        _ => {
            let v = Some((Comparison::Greater, event.v.unwrap_or(0)));
            let found = items.find(&Wanted { v, order: 2, limit: Some(1), tag: None })?;
            let first = found.first().and_then(|row| row.split('=').next());
            first.map_or(Ok(()), |id| items.set(id, None))
        }
    }
}

pub struct Real<'a, 'c>(&'a mut Context<'c>);

pub fn real_find(wanted: &Wanted) -> Find {
    let mut find = Find::all();
    if let Some((op, value)) = wanted.v {
        find = find.filter("v", op, value);
    }
    if let Some(tag) = &wanted.tag {
        find = find.filter("tag", Comparison::Equal, tag.clone());
    }
    find = match wanted.order {
        1 => find.ascending("v"),
        2 => find.descending("v"),
        3 => find.ascending("tag"),
        4 => find.descending("tag"),
        _ => find,
    };
    match wanted.limit {
        Some(limit) => find.limit(limit),
        None => find,
    }
}

impl Items for Real<'_, '_> {
    fn get(&mut self, id: &str) -> Result<Option<Item>, HandlerError> {
        self.0.get(id)
    }
    fn set(&mut self, id: &str, item: Option<Item>) -> Result<(), HandlerError> {
        match item {
            Some(item) => self.0.set(id, item),
            None => self.0.delete::<Item>(id),
        }
    }
    fn find(&mut self, wanted: &Wanted) -> Result<Vec<String>, HandlerError> {
        let found = self.0.find::<Item>(&real_find(wanted))?;
        Ok(found.into_iter().map(|(id, item)| format!("{id}={:?}", item.v)).collect())
    }
    fn count(&mut self, wanted: &Wanted) -> Result<u64, HandlerError> {
        self.0.count_where::<Item>(&real_find(wanted))
    }
    fn note(&mut self, id: &str, text: String) -> Result<(), HandlerError> {
        self.0.set(id, Note { text })
    }
}

/// One region of the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Region {
    pub items: BTreeMap<String, Item>,
    pub notes: BTreeMap<String, String>,
    pub events: u64,
    pub last_block: i64,
    /// Events that were put aside.
    pub aside: u64,
}

impl Region {
    pub fn found(&self, wanted: &Wanted) -> Vec<(&String, &Item)> {
        let holds = |item: &Item| {
            let by_v = wanted.v.is_none_or(|(op, value)| item.v.is_some_and(|v| op.holds(v.cmp(&value))));
            by_v && wanted.tag.as_ref().is_none_or(|tag| item.tag == *tag)
        };
        let mut found: Vec<_> = self.items.iter().filter(|(_, item)| holds(item)).collect();
        let by_v = |item: &Item| (item.v.is_none(), item.v);
        match wanted.order {
            1 => found.sort_by_key(|(_, item)| by_v(item)),
            2 => found.sort_by_key(|(_, item)| (item.v.is_none(), std::cmp::Reverse(item.v))),
            3 => found.sort_by_key(|(_, item)| item.tag.clone()),
            4 => found.sort_by_key(|(_, item)| std::cmp::Reverse(item.tag.clone())),
            _ => {}
        }
        found.truncate(wanted.limit.unwrap_or(usize::MAX));
        found
    }

    pub fn doc(&self) -> Json {
        json!({"n": self.items.len(), "s": self.items.values().filter_map(|item| item.v).sum::<i64>()})
    }
}

impl Items for Region {
    fn get(&mut self, id: &str) -> Result<Option<Item>, HandlerError> {
        Ok(self.items.get(id).cloned())
    }
    fn set(&mut self, id: &str, item: Option<Item>) -> Result<(), HandlerError> {
        match item {
            Some(item) => drop(self.items.insert(id.to_owned(), item)),
            None => drop(self.items.remove(id)),
        }
        Ok(())
    }
    fn find(&mut self, wanted: &Wanted) -> Result<Vec<String>, HandlerError> {
        Ok(self.found(wanted).into_iter().map(|(id, item)| format!("{id}={:?}", item.v)).collect())
    }
    fn count(&mut self, wanted: &Wanted) -> Result<u64, HandlerError> {
        Ok(self.found(wanted).len() as u64)
    }
    fn note(&mut self, id: &str, text: String) -> Result<(), HandlerError> {
        self.notes.insert(id.to_owned(), text);
        Ok(())
    }
}

pub struct Histories;

impl Handler for Histories {
    type Event<'e> = Event;
    fn entities(&self) -> Vec<EntityTable> {
        vec![Item::table(), Note::table()]
    }
    fn on_event(&self, event: Event, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        handle(&event, &mut Real(ctx))
    }
    fn has_snapshots(&self) -> bool {
        true
    }
    fn on_snapshot(&self, ctx: &mut Context<'_>) -> Result<Option<Json>, HandlerError> {
        let items = ctx.find::<Item>(&Find::all().ascending("v"))?;
        Ok(Some(json!({"n": ctx.count::<Item>()?, "s": items.iter().filter_map(|(_, item)| item.v).sum::<i64>()})))
    }
}
