//! JSON on its way into a VM and out of it, exactly.

use std::borrow::Cow;
use std::collections::BTreeMap;

use mlua::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Number, Value as Json};

use super::inner::Inner;
use crate::model::field_type::{FieldTree, FieldTypes, Given, TypedValue};
use crate::model::json_text::{self, float_of, whole_characters};
use crate::model::limits::JSON_DEPTH_MAX;
use crate::model::numeric::Numeric;

/// Items of a list at most: a higher index in a list is a mistake, and not so many nulls.
const LIST_LEN_MAX: usize = 10_000_000;

/// Where a number of the VM says that it came as JSON.
pub(super) const FROM_JSON: i64 = 3;

/// A JSON value, read as far as its kind.
pub(super) enum Scalar<'j> {
    Null,
    Boolean(bool),
    Integer(i64),
    /// A number with a fraction or an exponent that a float holds digit for digit.
    Float(f64),
    /// Any other number: its canonical text.
    Exact(Cow<'j, str>),
    Text(Cow<'j, str>),
    /// An object or a list: its JSON.
    Nested(&'j str),
}

/// Reads one JSON value. Half characters are U+FFFD.
///
/// # Errors
/// A text with a broken escape, or a number with more digits than any column takes.
pub(super) fn scalar(raw: &str) -> Result<Scalar<'_>, String> {
    Ok(match raw.as_bytes().first() {
        Some(b'"') if !raw.contains('\\') => Scalar::Text(Cow::Borrowed(&raw[1..raw.len() - 1])),
        Some(b'"') => Scalar::Text(Cow::Owned(
            json_text::read(raw).map_err(|error| format!("a text that cannot be read: {error}"))?,
        )),
        Some(b'{' | b'[') => Scalar::Nested(raw),
        Some(b't') => Scalar::Boolean(true),
        Some(b'f') => Scalar::Boolean(false),
        Some(b'-' | b'0'..=b'9') => number(raw)?,
        _ => Scalar::Null,
    })
}

fn number(raw: &str) -> Result<Scalar<'_>, String> {
    if !raw.contains(['.', 'e', 'E']) {
        return Ok(raw.parse().map_or(Scalar::Exact(Cow::Borrowed(raw)), Scalar::Integer));
    }
    if let Some(value) = float_of(raw) {
        return Ok(Scalar::Float(value));
    }
    match raw.parse::<Numeric>() {
        Ok(value) => Ok(Scalar::Exact(Cow::Owned(value.to_string()))),
        Err(_) => Err(format!("the number {raw} is out of range")),
    }
}

/// Reads one JSON value as the type that its field has.
///
/// # Errors
/// It is not of that type, or cannot be read. The message names the field.
pub(super) fn typed<R>(
    tree: &FieldTree,
    raw: &str,
    take: impl FnOnce(TypedValue<'_>) -> R,
) -> Result<Option<R>, String> {
    let Some(kind) = tree.own else { return Ok(None) };
    let text;
    let given = match raw.as_bytes().first() {
        Some(b'"') => match scalar(raw)? {
            Scalar::Text(read) => {
                text = read;
                Given::Text(&text)
            }
            _ => Given::Null,
        },
        Some(b'{') => Given::Object,
        Some(b'[') => Given::List,
        Some(b't' | b'f') => Given::Boolean,
        Some(b'-' | b'0'..=b'9') => Given::Number(raw),
        _ => Given::Null,
    };
    let value = kind.read(given).map_err(|problem| format!("field {:?}: {problem}", tree.path))?;
    Ok(Some(take(value)))
}

/// A JSON value as a value of the VM, with what is said of its field. Null is the script's `null`.
pub(super) fn to_lua(lua: &Lua, inner: &Inner, raw: &str, tree: Option<&FieldTree>) -> LuaResult<LuaValue> {
    value_to_lua(lua, inner, raw, tree, 0)
}

fn value_to_lua(lua: &Lua, inner: &Inner, raw: &str, tree: Option<&FieldTree>, depth: usize) -> LuaResult<LuaValue> {
    if depth > JSON_DEPTH_MAX {
        return Err(LuaError::runtime(format!("nested deeper than {JSON_DEPTH_MAX}")));
    }
    if let Some(tree) = tree
        && let Some(value) = typed(tree, raw, |value| typed_to_lua(lua, inner, value)).map_err(LuaError::runtime)?
    {
        return value;
    }
    match scalar(raw).map_err(LuaError::external)? {
        Scalar::Null => Ok(LuaValue::NULL),
        Scalar::Boolean(value) => Ok(LuaValue::Boolean(value)),
        Scalar::Integer(value) => Ok(LuaValue::Integer(value)),
        Scalar::Float(value) => Ok(LuaValue::Number(value)),
        Scalar::Exact(digits) => inner.exact.call(&*digits),
        Scalar::Text(text) => lua.create_string(text.as_bytes()).map(LuaValue::String),
        Scalar::Nested(json) if json.starts_with('[') => list_to_lua(lua, inner, json, tree, depth),
        Scalar::Nested(json) => {
            fields_to_lua(lua, inner, json, tree.map(|tree| &tree.below), depth).map(LuaValue::Table)
        }
    }
}

fn typed_to_lua(lua: &Lua, inner: &Inner, value: TypedValue<'_>) -> LuaResult<LuaValue> {
    match value {
        TypedValue::Null => Ok(LuaValue::NULL),
        TypedValue::Numeric(number) => inner.canonical.call(number.to_string()),
        TypedValue::Bigint(number) => Ok(LuaValue::Integer(number)),
        TypedValue::Text(text) => lua.create_string(text.as_bytes()).map(LuaValue::String),
        TypedValue::Double(number) => Ok(LuaValue::Number(number)),
        TypedValue::Time(time) => lua.create_string(time.to_string()).map(LuaValue::String),
    }
}

/// Of a list, what is said of its field is said of each item.
fn list_to_lua(lua: &Lua, inner: &Inner, json: &str, tree: Option<&FieldTree>, depth: usize) -> LuaResult<LuaValue> {
    let items: Vec<&RawValue> = serde_json::from_str(json).map_err(LuaError::external)?;
    let table = lua.create_table_with_capacity(items.len(), 0)?;
    for (at, item) in items.iter().enumerate() {
        table.raw_set(at + 1, value_to_lua(lua, inner, item.get(), tree, depth + 1)?)?;
    }
    table.set_metatable(Some(inner.array_meta.clone()))?;
    Ok(LuaValue::Table(table))
}

/// A JSON object as a table, with the types of its fields.
pub(super) fn object_to_lua(lua: &Lua, inner: &Inner, json: &str, types: &FieldTypes) -> LuaResult<LuaTable> {
    fields_to_lua(lua, inner, json, Some(types), 0)
}

fn fields_to_lua(
    lua: &Lua,
    inner: &Inner,
    json: &str,
    types: Option<&FieldTypes>,
    depth: usize,
) -> LuaResult<LuaTable> {
    let table = lua.create_table()?;
    for_fields(json, |key, raw| {
        let tree = types.and_then(|types| types.of(key));
        table.raw_set(key, value_to_lua(lua, inner, raw, tree, depth + 1)?)
    })?;
    Ok(table)
}

/// Calls `visit` with each field of a JSON object.
fn for_fields(json: &str, mut visit: impl FnMut(&str, &str) -> LuaResult<()>) -> LuaResult<()> {
    struct Fields<'j>(Vec<(Cow<'j, str>, &'j RawValue)>);
    impl<'j> serde::Deserialize<'j> for Fields<'j> {
        fn deserialize<D: serde::Deserializer<'j>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visit;
            impl<'j> serde::de::Visitor<'j> for Visit {
                type Value = Fields<'j>;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a JSON object")
                }
                fn visit_map<A: serde::de::MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                    let mut fields = Vec::new();
                    while let Some(key) = map.next_key::<Cow<'j, str>>()? {
                        fields.push((key, map.next_value()?));
                    }
                    Ok(Fields(fields))
                }
            }
            deserializer.deserialize_map(Visit)
        }
    }
    let whole;
    let fields: Fields<'_> = match serde_json::from_str(json) {
        Ok(fields) => fields,
        // A key with half a character.
        Err(_) => {
            whole = whole_characters(json);
            serde_json::from_str(&whole).map_err(LuaError::external)?
        }
    };
    fields.0.iter().try_for_each(|(key, raw)| visit(key, raw.get()))
}

/// A value of the VM as canonical JSON. The error names the field and what is wrong with it.
pub(super) fn from_lua(inner: &Inner, value: &LuaValue) -> Result<String, String> {
    let mut json = String::new();
    encode(inner, value, "", 0, &mut json)?;
    Ok(json)
}

fn encode(inner: &Inner, value: &LuaValue, path: &str, depth: usize, json: &mut String) -> Result<(), String> {
    let refused =
        |what: String| Err(format!("{}{what}", if path.is_empty() { String::new() } else { format!("{path}: ") }));
    if depth > JSON_DEPTH_MAX {
        return refused(format!("nested deeper than {JSON_DEPTH_MAX}, or contains itself"));
    }
    match value {
        LuaValue::Nil => json.push_str("null"),
        value if *value == LuaValue::NULL => json.push_str("null"),
        LuaValue::Boolean(value) => json.push_str(if *value { "true" } else { "false" }),
        LuaValue::Integer(value) => json.push_str(&value.to_string()),
        // Postgres has no negative zero in JSON.
        LuaValue::Number(value) => match Number::from_f64(*value + 0.0) {
            Some(number) => json.push_str(&number.to_string()),
            None => return refused(format!("{value} has no form in JSON")),
        },
        LuaValue::String(text) => match text.to_str() {
            Ok(text) if text.contains('\0') => return refused("a text with a NUL, which no database keeps".into()),
            Ok(text) => push_text(json, &text),
            Err(_) => return refused("a text that is not UTF-8".into()),
        },
        LuaValue::Table(table) => return encode_table(inner, table, path, depth, json),
        other => return refused(format!("a {} has no form in JSON", other.type_name())),
    }
    Ok(())
}

fn push_text(json: &mut String, text: &str) {
    json.push_str(&Json::from(text).to_string());
}

fn encode_table(inner: &Inner, table: &LuaTable, path: &str, depth: usize, json: &mut String) -> Result<(), String> {
    let at = |problem: String| if path.is_empty() { problem } else { format!("{path}: {problem}") };
    let fault = |error: LuaError| at(error.to_string());
    let meta = table.metatable();
    if meta.as_ref() == Some(&inner.numeric_meta) {
        let text = LuaValue::Table(table.clone()).to_string().map_err(fault)?;
        // A number that came as one leaves as one; one that was computed is a text.
        match table.raw_get::<bool>(FROM_JSON).map_err(fault)? {
            true => json.push_str(&text),
            false => push_text(json, &text),
        }
        return Ok(());
    }
    let is_marked = meta.as_ref().is_some_and(|meta| *meta == inner.array_meta || *meta == inner.frozen_array_meta);
    let plain = match (&meta, is_marked) {
        (Some(_), false) => inner.plain.call::<LuaTable>(table).map_err(fault)?,
        _ => table.clone(),
    };
    let len = if is_marked { last_index(&plain)? } else { plain.raw_len() };
    if is_marked || (len > 0 && is_list(&plain, len)?) {
        return encode_list(inner, &plain, len, path, depth, json);
    }
    let mut fields = BTreeMap::new();
    for pair in plain.pairs::<LuaValue, LuaValue>() {
        let (key, value) = pair.map_err(fault)?;
        fields.insert(key_text(&key).map_err(at)?, value);
    }
    json.push('{');
    for (number, (name, value)) in fields.iter().enumerate() {
        json.push_str(if number > 0 { "," } else { "" });
        push_text(json, name);
        json.push(':');
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        encode(inner, value, &below, depth + 1, json)?;
    }
    json.push('}');
    Ok(())
}

fn key_text(key: &LuaValue) -> Result<String, String> {
    match key {
        LuaValue::String(text) => match text.to_str() {
            Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
            _ => Err("a key that is not UTF-8 text".into()),
        },
        LuaValue::Integer(number) => Err(format!(
            "a table with the number {number} among its keys is neither a list (1 to n) nor an object (texts); make the keys texts"
        )),
        other => Err(format!("a {} as a key has no form in JSON", other.type_name())),
    }
}

/// The last index of a list in which nulls may have left holes.
fn last_index(list: &LuaTable) -> Result<usize, String> {
    let mut last = 0;
    for pair in list.pairs::<LuaValue, LuaValue>() {
        let (key, _) = pair.map_err(|error| error.to_string())?;
        let index = match key {
            LuaValue::Integer(index) => usize::try_from(index).ok().filter(|index| (1..=LIST_LEN_MAX).contains(index)),
            _ => None,
        };
        last = last.max(index.ok_or_else(|| "a list with a key that is no place in it".to_owned())?);
    }
    Ok(last)
}

fn is_list(table: &LuaTable, len: usize) -> Result<bool, String> {
    let mut count = 0;
    for pair in table.pairs::<LuaValue, LuaValue>() {
        let (key, _) = pair.map_err(|error| error.to_string())?;
        if !matches!(key, LuaValue::Integer(_)) {
            return Ok(false);
        }
        count += 1;
    }
    Ok(count == len)
}

fn encode_list(
    inner: &Inner,
    table: &LuaTable,
    len: usize,
    path: &str,
    depth: usize,
    json: &mut String,
) -> Result<(), String> {
    json.push('[');
    for at in 1..=len {
        json.push_str(if at > 1 { "," } else { "" });
        let below = format!("{path}[{at}]");
        let value: LuaValue = table.raw_get(at).map_err(|error| format!("{below}: {error}"))?;
        encode(inner, &value, &below, depth + 1, json)?;
    }
    json.push(']');
    Ok(())
}
