//! Values of a VM as canonical JSON: what `jsonb` columns and documents hold.
//!
//! Tables are read raw: none of the script's code runs. What is built counts to the VM's memory while it is built.

use std::collections::BTreeMap;
use std::io::{self, Write};

use mlua::Either;
use mlua::prelude::*;
use serde_json::Number;

use super::crossing::{OUT_OF_MEMORY, problem_of};
use super::inner::Inner;
use super::json::FROM_JSON;
use crate::model::limits::{JSON_DEPTH_MAX, NAME_BYTES_MAX};

/// Items of a list at most: a higher index in a list is a mistake, and not so many nulls.
const LIST_LEN_MAX: usize = 10_000_000;

/// Bytes that a key takes beside its text while its object is put in order, about.
const KEY_BYTES: usize = 64;

/// Bytes of the way to a value in a message, about.
const PATH_BYTES_MAX: usize = 200;

/// The JSON of a document. The error names the field and what is wrong with it.
pub(super) fn document(inner: &Inner, value: &LuaValue) -> Result<String, Fault> {
    encode(inner, value, inner.memory_left())
}

/// The same for a column: the VM gets a copy of it, and has both for a moment.
pub(super) fn column(inner: &Inner, value: &LuaValue) -> Result<String, Fault> {
    encode(inner, value, inner.memory_left() / 2)
}

fn encode(inner: &Inner, value: &LuaValue, bytes_max: usize) -> Result<String, Fault> {
    let mut encoder = Encoder { inner, json: Vec::new(), aside: 0, bytes_max };
    encoder.value(value, 0)?;
    String::from_utf8(encoder.json).map_err(|error| error.to_string().into())
}

/// What is wrong, and the way to it: the innermost step first.
pub(super) struct Fault {
    problem: String,
    path: Vec<String>,
}

impl Fault {
    fn within(mut self, step: impl FnOnce() -> String) -> Self {
        self.path.push(step());
        self
    }

    /// Whether there is no memory for it.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.problem == OUT_OF_MEMORY
    }

    /// As a message has it: the way, and what is wrong.
    pub(super) fn text(self) -> String {
        let mut path = String::new();
        for step in self.path.iter().rev() {
            if path.len() > PATH_BYTES_MAX {
                path.push('…');
                break;
            }
            path.push_str(if path.is_empty() || step.starts_with('[') { "" } else { "." });
            path.push_str(step);
        }
        if path.is_empty() { self.problem } else { format!("{path}: {}", self.problem) }
    }
}

impl<T: Into<String>> From<T> for Fault {
    fn from(problem: T) -> Self {
        Self { problem: problem.into(), path: Vec::new() }
    }
}

fn of_vm(error: LuaError) -> Fault {
    problem_of(&error).into()
}

struct Encoder<'e> {
    inner: &'e Inner,
    json: Vec<u8>,
    /// Bytes of keys that are being put in order.
    aside: usize,
    bytes_max: usize,
}

/// Takes the JSON of a text, as far as there is memory for it.
impl Write for Encoder<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.json.len() + self.aside + bytes.len() > self.bytes_max {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.json.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Encoder<'_> {
    fn push(&mut self, text: &str) -> Result<(), Fault> {
        self.write_all(text.as_bytes()).map_err(|_| OUT_OF_MEMORY.into())
    }

    fn push_text(&mut self, text: &str) -> Result<(), Fault> {
        serde_json::to_writer(self, text).map_err(|_| OUT_OF_MEMORY.into())
    }

    fn value(&mut self, value: &LuaValue, depth: usize) -> Result<(), Fault> {
        if depth > JSON_DEPTH_MAX {
            return Err(format!("nested deeper than {JSON_DEPTH_MAX}, or contains itself").into());
        }
        match value {
            LuaValue::Nil => self.push("null"),
            value if *value == LuaValue::NULL => self.push("null"),
            LuaValue::Boolean(value) => self.push(if *value { "true" } else { "false" }),
            LuaValue::Integer(value) => self.push(&value.to_string()),
            // Postgres has no negative zero in JSON.
            LuaValue::Number(value) => match Number::from_f64(*value + 0.0) {
                Some(number) => self.push(&number.to_string()),
                None => Err(format!("{value} has no form in JSON").into()),
            },
            LuaValue::String(text) => match text.to_str() {
                Ok(text) if text.contains('\0') => Err("a text with a NUL, which no database keeps".into()),
                Ok(text) => self.push_text(&text),
                Err(_) => Err("a text that is not UTF-8".into()),
            },
            LuaValue::Table(table) => self.table(table, depth),
            other => Err(format!("a {} has no form in JSON", other.type_name()).into()),
        }
    }

    fn table(&mut self, table: &LuaTable, depth: usize) -> Result<(), Fault> {
        let meta = table.metatable();
        if meta.as_ref() == Some(&self.inner.numeric_meta) {
            let text = LuaValue::Table(table.clone()).to_string().map_err(of_vm)?;
            // A number that came as one leaves as one; one that was computed is a text.
            return match table.raw_get::<bool>(FROM_JSON).map_err(of_vm)? {
                true => self.push(&text),
                false => self.push_text(&text),
            };
        }
        let Inner { array_meta, frozen_array_meta, .. } = self.inner;
        let is_marked = meta.as_ref().is_some_and(|meta| meta == array_meta || meta == frozen_array_meta);
        let plain = match (&meta, is_marked) {
            (Some(_), false) => match self.inner.plain.call::<Either<LuaTable, String>>(table).map_err(of_vm)? {
                Either::Left(plain) => plain,
                Either::Right(problem) => return Err(problem.into()),
            },
            _ => table.clone(),
        };
        let len = if is_marked { last_index(&plain)? } else { plain.raw_len() };
        if is_marked || (len > 0 && is_list(&plain, len)?) {
            return self.list(&plain, len, depth);
        }
        let before = self.aside;
        let mut fields = BTreeMap::new();
        for pair in plain.pairs::<LuaValue, LuaValue>() {
            let (key, value) = pair.map_err(of_vm)?;
            let Ok(key) = key_text(&key) else { return Err(odd_key(&plain)) };
            self.aside += key.len() + KEY_BYTES;
            if self.json.len() + self.aside > self.bytes_max {
                return Err(OUT_OF_MEMORY.into());
            }
            fields.insert(key, value);
        }
        self.push("{")?;
        for (number, (name, value)) in fields.iter().enumerate() {
            self.push(if number > 0 { "," } else { "" })?;
            self.push_text(name)?;
            self.push(":")?;
            self.value(value, depth + 1).map_err(|fault| fault.within(|| step(name)))?;
        }
        self.aside = before;
        self.push("}")
    }

    fn list(&mut self, table: &LuaTable, len: usize, depth: usize) -> Result<(), Fault> {
        self.push("[")?;
        for at in 1..=len {
            self.push(if at > 1 { "," } else { "" })?;
            let value = table.raw_get(at).map_err(of_vm);
            value
                .and_then(|value: LuaValue| self.value(&value, depth + 1))
                .map_err(|fault| fault.within(|| format!("[{at}]")))?;
        }
        self.push("]")
    }
}

/// A name in the way to a value.
fn step(name: &str) -> String {
    name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

fn key_text(key: &LuaValue) -> Result<String, Fault> {
    match key {
        LuaValue::String(text) => match text.to_str() {
            Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
            _ => Err("a key that is not UTF-8 text".into()),
        },
        LuaValue::Integer(number) => Err(format!(
            "a table with the number {number} among its keys is neither a list (1 to n) nor an object (texts); make the keys texts"
        )
        .into()),
        other => Err(format!("a {} as a key has no form in JSON", other.type_name()).into()),
    }
}

/// What is wrong with the first key that has no form in JSON: with the smallest number, if one is.
fn odd_key(table: &LuaTable) -> Fault {
    let mut first: Option<(bool, Option<i64>, String)> = None;
    for pair in table.pairs::<LuaValue, LuaValue>() {
        let key = match pair {
            Ok((key, _)) => key,
            Err(error) => return of_vm(error),
        };
        let Err(fault) = key_text(&key) else { continue };
        let number = key.as_integer();
        let found = (number.is_none(), number, fault.problem);
        if first.as_ref().is_none_or(|first| found < *first) {
            first = Some(found);
        }
    }
    first.map_or_else(|| "a key has no form in JSON".into(), |(_, _, problem)| problem.into())
}

/// The last index of a list in which nulls may have left holes.
fn last_index(list: &LuaTable) -> Result<usize, Fault> {
    let mut last = 0;
    for pair in list.pairs::<LuaValue, LuaValue>() {
        let (key, _) = pair.map_err(of_vm)?;
        let index = match key {
            LuaValue::Integer(index) => usize::try_from(index).ok().filter(|index| (1..=LIST_LEN_MAX).contains(index)),
            _ => None,
        };
        last = last.max(index.ok_or("a list with a key that is no place in it")?);
    }
    Ok(last)
}

fn is_list(table: &LuaTable, len: usize) -> Result<bool, Fault> {
    let mut count = 0;
    for pair in table.pairs::<LuaValue, LuaValue>() {
        let (key, _) = pair.map_err(of_vm)?;
        // Of a table with holes the length may be any place that a hole follows.
        let is_place =
            matches!(key, LuaValue::Integer(at) if usize::try_from(at).is_ok_and(|at| (1..=len).contains(&at)));
        if !is_place {
            return Ok(false);
        }
        count += 1;
    }
    Ok(count == len)
}
