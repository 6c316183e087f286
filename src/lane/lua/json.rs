//! JSON on its way into a VM, exactly; and whether a float came that way.

use std::borrow::Cow;

use mlua::prelude::*;

use super::inner::Inner;
use crate::model::field_type::{FieldTree, FieldType, FieldTypes, Given, TypedValue};
use crate::model::json_text::{self, SAFE_INTEGER, float_of};
use crate::model::limits::JSON_DEPTH_MAX;
use crate::model::numeric::Numeric;

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
    if kind == FieldType::Jsonb && !raw.starts_with('"') {
        // It is JSON as it stands.
        return Ok(None);
    }
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
        Some(first @ (b't' | b'f')) => Given::Boolean(*first == b't'),
        Some(b'-' | b'0'..=b'9') => Given::Number(raw),
        _ => Given::Null,
    };
    let given = if tree.empty_is_null && given == Given::Text("") { Given::Null } else { given };
    let value = kind.read(given).map_err(|problem| format!("field {:?}: {problem}", tree.path))?;
    Ok(Some(take(value)))
}

/// A JSON value as a value of the VM, with what is said of its field. Null is the script's `null`.
///
/// # Errors
/// It is nested too deep, or something in it cannot be read; or the VM's memory does not suffice.
pub(super) fn to_lua(lua: &Lua, inner: &Inner, raw: &str, tree: Option<&FieldTree>) -> LuaResult<LuaValue> {
    Reader { lua, inner, cursor: Cursor { json: raw, at: 0 } }.value(tree, 0)
}

/// A JSON object as a table, with the types of its fields.
pub(super) fn object_to_lua(lua: &Lua, inner: &Inner, json: &str, types: &FieldTypes) -> LuaResult<LuaTable> {
    let mut reader = Reader { lua, inner, cursor: Cursor { json, at: 0 } };
    match reader.cursor.peek() {
        Some(b'{') => reader.object(Some(types), 0),
        _ => Err(broken()),
    }
}

fn broken() -> LuaError {
    LuaError::runtime("JSON that breaks off or is none")
}

/// Whether an event has the value of a float as a number that a script sees as a float: with a fraction or an exponent, or
/// in a field that is a double. A float of 2^53 or more that stands there as an integer is one in a script, so such a
/// float was computed.
pub(super) fn has_float(json: &str, types: &FieldTypes, value: f64) -> bool {
    Finder { cursor: Cursor { json, at: 0 }, value }.object(Some(types), 0).unwrap_or(false)
}

/// Looks for the value of a float in JSON.
struct Finder<'r> {
    cursor: Cursor<'r>,
    value: f64,
}

impl Finder<'_> {
    /// Whether it is there; none in JSON that is nested too deep.
    fn find(&mut self, tree: Option<&FieldTree>, depth: usize) -> Option<bool> {
        let own = tree.and_then(|tree| tree.own);
        match self.cursor.peek()? {
            _ if depth > JSON_DEPTH_MAX => None,
            b'{' => self.object(tree.map(|tree| &tree.below), depth + 1),
            b'[' => self.list(tree.filter(|_| own != Some(FieldType::Jsonb)), depth),
            first => {
                let raw = self.cursor.scalar().ok()?;
                let is_it = |value: TypedValue<'_>| matches!(value, TypedValue::Double(value) if value == self.value);
                Some(match (own, first) {
                    (Some(FieldType::Double), _) => tree.is_some_and(|tree| typed(tree, raw, is_it) == Ok(Some(true))),
                    // The text holds JSON.
                    (Some(FieldType::Jsonb), b'"') => json_text::read::<String>(raw).is_ok_and(|json| {
                        let mut within = Finder { cursor: Cursor { json: &json, at: 0 }, value: self.value };
                        within.find(tree.filter(|_| is_nested(&json)), depth + 1) == Some(true)
                    }),
                    (_, b'-' | b'0'..=b'9') => self.is_number(raw),
                    _ => false,
                })
            }
        }
    }

    fn is_number(&self, raw: &str) -> bool {
        let is_float = self.value.abs() < SAFE_INTEGER as f64 || raw.contains(['.', 'e', 'E']);
        is_float && float_of(raw) == Some(self.value)
    }

    /// Its members are at `depth`, as they are for [`Reader::object`].
    fn object(&mut self, types: Option<&FieldTypes>, depth: usize) -> Option<bool> {
        let mut has_more = self.cursor.begins(b'{', b'}').ok()?;
        while has_more {
            let key = self.cursor.key().ok()?;
            if self.find(types.and_then(|types| types.of(&key)), depth)? {
                return Some(true);
            }
            has_more = self.cursor.goes_on(b'}').ok()?;
        }
        Some(false)
    }

    fn list(&mut self, tree: Option<&FieldTree>, depth: usize) -> Option<bool> {
        let mut has_more = self.cursor.begins(b'[', b']').ok()?;
        while has_more {
            if self.find(tree, depth + 1)? {
                return Some(true);
            }
            has_more = self.cursor.goes_on(b']').ok()?;
        }
        Some(false)
    }
}

/// How far JSON is read. What comes here was read as JSON before.
struct Cursor<'r> {
    json: &'r str,
    at: usize,
}

impl<'r> Cursor<'r> {
    /// The next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.json.as_bytes().get(self.at..)?;
        self.at += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
        self.json.as_bytes().get(self.at).copied()
    }

    /// Passes by the next byte, if it is that one.
    fn takes(&mut self, wanted: u8) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn wants(&mut self, wanted: u8) -> LuaResult<()> {
        if self.takes(wanted) { Ok(()) } else { Err(broken()) }
    }

    /// Passes by the beginning of an object or a list; says whether it holds anything.
    fn begins(&mut self, open: u8, close: u8) -> LuaResult<bool> {
        self.wants(open)?;
        Ok(!self.takes(close))
    }

    /// Passes by a comma, or by the end of an object or a list; says whether it goes on.
    fn goes_on(&mut self, close: u8) -> LuaResult<bool> {
        if self.takes(b',') { Ok(true) } else { self.wants(close).map(|()| false) }
    }

    /// The raw text, number or word that comes next.
    fn scalar(&mut self) -> LuaResult<&'r str> {
        let start = self.at;
        let bytes = self.json.as_bytes();
        self.at = match self.peek() {
            Some(b'"') => json_text::end_of_text(bytes, start),
            _ => {
                let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
                start + bytes[start..].iter().take_while(|byte| !is_end(byte)).count()
            }
        };
        self.json.get(start..self.at).filter(|raw| !raw.is_empty()).ok_or_else(broken)
    }

    /// The key that comes next, and its colon.
    fn key(&mut self) -> LuaResult<Cow<'r, str>> {
        self.peek();
        let Scalar::Text(key) = scalar(self.scalar()?).map_err(LuaError::external)? else { return Err(broken()) };
        self.wants(b':')?;
        Ok(key)
    }
}

/// Makes values of the VM of JSON, in one pass, whatever it holds.
struct Reader<'r> {
    lua: &'r Lua,
    inner: &'r Inner,
    cursor: Cursor<'r>,
}

impl Reader<'_> {
    fn value(&mut self, tree: Option<&FieldTree>, depth: usize) -> LuaResult<LuaValue> {
        if depth > JSON_DEPTH_MAX {
            return Err(LuaError::runtime(format!("nested deeper than {JSON_DEPTH_MAX}")));
        }
        let raw = match self.cursor.peek() {
            Some(b'[') => "[",
            Some(b'{') => "{",
            _ => self.cursor.scalar()?,
        };
        if let Some(tree) = tree
            && let Some(value) =
                typed(tree, raw, |value| typed_to_lua(self.lua, self.inner, tree, value)).map_err(LuaError::runtime)?
        {
            return value;
        }
        match raw {
            "[" => self.list(tree, depth).map(LuaValue::Table),
            "{" => self.object(tree.map(|tree| &tree.below), depth + 1).map(LuaValue::Table),
            _ => match scalar(raw).map_err(LuaError::external)? {
                Scalar::Null | Scalar::Nested(_) => Ok(LuaValue::NULL),
                Scalar::Boolean(value) => Ok(LuaValue::Boolean(value)),
                Scalar::Integer(value) => Ok(LuaValue::Integer(value)),
                Scalar::Float(value) => Ok(LuaValue::Number(value)),
                Scalar::Exact(digits) => self.inner.exact.call(&*digits),
                Scalar::Text(text) => self.lua.create_string(text.as_bytes()).map(LuaValue::String),
            },
        }
    }

    /// Of a list, what is said of its field is said of each item; but its texts hold no JSON of their own.
    fn list(&mut self, tree: Option<&FieldTree>, depth: usize) -> LuaResult<LuaTable> {
        let tree = tree.filter(|tree| tree.own != Some(FieldType::Jsonb));
        let mut has_more = self.cursor.begins(b'[', b']')?;
        let table = self.lua.create_table()?;
        let mut count = 0;
        while has_more {
            count += 1;
            table.raw_set(count, self.value(tree, depth + 1)?)?;
            has_more = self.cursor.goes_on(b']')?;
        }
        table.set_metatable(Some(self.inner.array_meta.clone()))?;
        Ok(table)
    }

    /// Its members are at `depth`: those of an event are as deep as each is on its own.
    fn object(&mut self, types: Option<&FieldTypes>, depth: usize) -> LuaResult<LuaTable> {
        let mut has_more = self.cursor.begins(b'{', b'}')?;
        let table = self.lua.create_table()?;
        while has_more {
            let key = self.cursor.key()?;
            let tree = types.and_then(|types| types.of(&key));
            table.raw_set(&*key, self.value(tree, depth)?)?;
            has_more = self.cursor.goes_on(b'}')?;
        }
        Ok(table)
    }
}

/// Whether JSON is an object or a list.
pub(super) fn is_nested(json: &str) -> bool {
    json.starts_with(['{', '['])
}

fn typed_to_lua(lua: &Lua, inner: &Inner, tree: &FieldTree, value: TypedValue<'_>) -> LuaResult<LuaValue> {
    match value {
        TypedValue::Null => Ok(LuaValue::NULL),
        TypedValue::Numeric(number) => inner.canonical.call(number.to_string()),
        TypedValue::Bigint(number) => Ok(LuaValue::Integer(number)),
        TypedValue::Text(text) => lua.create_string(text.as_bytes()).map(LuaValue::String),
        TypedValue::Double(number) => Ok(LuaValue::Number(number)),
        TypedValue::Time(time) => lua.create_string(time.to_string()).map(LuaValue::String),
        TypedValue::Boolean(value) => Ok(LuaValue::Boolean(value)),
        // A text within it holds no JSON of its own.
        TypedValue::Json(json) => to_lua(lua, inner, json, Some(tree).filter(|_| is_nested(json))),
    }
}
