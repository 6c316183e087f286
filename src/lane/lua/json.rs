//! JSON on its way into a VM and out of it, exactly.

use std::borrow::Cow;

use mlua::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value as Json};

use super::inner::Inner;
use crate::model::field_type::{FieldTree, FieldTypes, Given, TypedValue};
use crate::model::limits::JSON_DEPTH_MAX;

/// Items of a list at most: a higher index in a list is a mistake, and not so many nulls.
const LIST_LEN_MAX: usize = 10_000_000;

/// A JSON value, read as far as its kind.
pub(super) enum Scalar<'j> {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    /// An integer beyond 64 bits: its digits.
    LongInteger(&'j str),
    Text(Cow<'j, str>),
    /// An object or a list: its JSON.
    Nested(&'j str),
}

/// Reads one JSON value.
///
/// # Errors
/// A text with a broken escape, or a number that no float comes near.
pub(super) fn scalar(raw: &str) -> Result<Scalar<'_>, String> {
    Ok(match raw.as_bytes().first() {
        Some(b'"') if !raw.contains('\\') => Scalar::Text(Cow::Borrowed(&raw[1..raw.len() - 1])),
        Some(b'"') => Scalar::Text(Cow::Owned(
            serde_json::from_str(raw).map_err(|error| format!("a text that cannot be read: {error}"))?,
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
        return Ok(raw.parse().map_or(Scalar::LongInteger(raw), Scalar::Integer));
    }
    match raw.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Scalar::Float(value)),
        _ => Err(format!("the number {raw} is out of range")),
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

/// A JSON value as a value of the VM, with what is said of its field. Null is nil.
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
        Scalar::Null => Ok(LuaValue::Nil),
        Scalar::Boolean(value) => Ok(LuaValue::Boolean(value)),
        Scalar::Integer(value) => Ok(LuaValue::Integer(value)),
        Scalar::Float(value) => Ok(LuaValue::Number(value)),
        Scalar::LongInteger(digits) => inner.numeric.call(digits),
        Scalar::Text(text) => lua.create_string(text.as_bytes()).map(LuaValue::String),
        Scalar::Nested(json) if json.starts_with('[') => list_to_lua(lua, inner, json, tree, depth),
        Scalar::Nested(json) => {
            fields_to_lua(lua, inner, json, tree.map(|tree| &tree.below), depth).map(LuaValue::Table)
        }
    }
}

fn typed_to_lua(lua: &Lua, inner: &Inner, value: TypedValue<'_>) -> LuaResult<LuaValue> {
    match value {
        TypedValue::Null => Ok(LuaValue::Nil),
        TypedValue::Numeric(number) => inner.numeric.call(number.to_string()),
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
    let fields: Fields<'_> = serde_json::from_str(json).map_err(LuaError::external)?;
    fields.0.iter().try_for_each(|(key, raw)| visit(key, raw.get()))
}

/// A value of the VM as JSON. The error names the field and what is wrong with it.
pub(super) fn from_lua(inner: &Inner, value: &LuaValue) -> Result<Json, String> {
    encode(inner, value, "", 0)
}

fn encode(inner: &Inner, value: &LuaValue, path: &str, depth: usize) -> Result<Json, String> {
    let refused =
        |what: String| Err(format!("{}{what}", if path.is_empty() { String::new() } else { format!("{path}: ") }));
    if depth > JSON_DEPTH_MAX {
        return refused(format!("nested deeper than {JSON_DEPTH_MAX}, or contains itself"));
    }
    match value {
        LuaValue::Nil => Ok(Json::Null),
        LuaValue::Boolean(value) => Ok(Json::Bool(*value)),
        LuaValue::Integer(value) => Ok(Json::from(*value)),
        // Postgres has no negative zero in JSON.
        LuaValue::Number(value) => match Number::from_f64(*value + 0.0) {
            Some(number) => Ok(Json::Number(number)),
            None => refused(format!("{value} has no form in JSON")),
        },
        LuaValue::String(text) => match text.to_str() {
            Ok(text) if text.contains('\0') => refused("a text with a NUL, which no database keeps".into()),
            Ok(text) => Ok(Json::String(text.to_owned())),
            Err(_) => refused("a text that is not UTF-8".into()),
        },
        LuaValue::Table(table) => encode_table(inner, table, path, depth),
        other => refused(format!("a {} has no form in JSON", other.type_name())),
    }
}

fn encode_table(inner: &Inner, table: &LuaTable, path: &str, depth: usize) -> Result<Json, String> {
    let at = |problem: String| if path.is_empty() { problem } else { format!("{path}: {problem}") };
    let fault = |error: LuaError| at(error.to_string());
    let meta = table.metatable();
    if meta.as_ref() == Some(&inner.numeric_meta) {
        let text = LuaValue::Table(table.clone()).to_string().map_err(fault)?;
        return Ok(Json::String(text));
    }
    let is_marked = meta.as_ref() == Some(&inner.array_meta);
    let plain = match (&meta, is_marked) {
        (Some(_), false) => inner.plain.call::<LuaTable>(table).map_err(fault)?,
        _ => table.clone(),
    };
    let len = if is_marked { last_index(&plain)? } else { plain.raw_len() };
    if is_marked || (len > 0 && is_list(&plain, len)?) {
        return encode_list(inner, &plain, len, path, depth);
    }
    let mut fields = Map::new();
    for pair in plain.pairs::<LuaValue, LuaValue>() {
        let (key, value) = pair.map_err(fault)?;
        let name = key_text(&key).map_err(at)?;
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        fields.insert(name, encode(inner, &value, &below, depth + 1)?);
    }
    Ok(Json::Object(fields))
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

fn encode_list(inner: &Inner, table: &LuaTable, len: usize, path: &str, depth: usize) -> Result<Json, String> {
    let item = |at: usize| {
        let below = format!("{path}[{at}]");
        let value: LuaValue = table.raw_get(at).map_err(|error| format!("{below}: {error}"))?;
        encode(inner, &value, &below, depth + 1)
    };
    (1..=len).map(item).collect::<Result<Vec<_>, _>>().map(Json::Array)
}
