//! Reading TOML with positions: every value knows where it stands, every section which keys it knows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::model::text::{nearest, shown_path};
use crate::model::units::{parse_bytes, parse_duration};
use crate::snapshot::Every;

/// What is wrong with a pipeline file, and where.
#[derive(Debug, Clone, thiserror::Error)]
pub struct ConfigError {
    file: PathBuf,
    place: Option<(usize, usize)>,
    message: String,
    /// Why the file cannot be read.
    source: Option<Arc<std::io::Error>>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", shown_path(&self.file), self.message),
            None => write!(f, "{}: {}", shown_path(&self.file), self.message),
        }
    }
}

impl ConfigError {
    /// An error of the file as a whole.
    pub fn of_file(file: &Path, message: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), place: None, message: message.to_string(), source: None }
    }

    /// An error of a file that cannot be read.
    pub(super) fn of_reading(file: &Path, message: impl fmt::Display, error: std::io::Error) -> Self {
        Self { source: Some(Arc::new(error)), ..Self::of_file(file, message) }
    }
}

/// The folder of a file, never empty.
#[doc(hidden)]
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A text that is being read.
pub(super) struct PipelineText<'t> {
    file: &'t Path,
    text: &'t str,
}

impl<'t> PipelineText<'t> {
    pub(super) fn new(file: &'t Path, text: &'t str) -> Self {
        Self { file, text }
    }

    pub(super) fn folder(&self) -> &'t Path {
        folder_of(self.file)
    }

    pub(super) fn root(&self, known: &'static [&'static str]) -> Result<Section<'_, 't>, ConfigError> {
        match DeTable::parse(self.text) {
            Ok(table) => Ok(Section {
                document: self,
                name: String::new(),
                at: 0..0,
                entries: entries(table.into_inner()),
                known,
            }),
            Err(error) => Err(self.error(error.span().unwrap_or(0..0), error.message())),
        }
    }

    /// Every key of the text by its dotted path, with its value. A text that is no TOML has none.
    pub(super) fn keys(&self) -> BTreeMap<String, String> {
        let mut keys = BTreeMap::new();
        if let Ok(table) = DeTable::parse(self.text) {
            note_keys("", table.get_ref(), &mut keys);
        }
        keys
    }

    fn error(&self, at: Range<usize>, message: impl fmt::Display) -> ConfigError {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let place = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
        ConfigError { file: self.file.to_owned(), place: Some(place), message: message.to_string(), source: None }
    }
}

fn note_keys(path: &str, table: &DeTable<'_>, keys: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let name = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        match value.get_ref() {
            DeValue::Table(inner) => note_keys(&name, inner, keys),
            value => drop(keys.insert(name, value_text(value))),
        }
    }
}

/// A value without its place and the way it is written.
fn value_text(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Array(values) => values.iter().map(|value| value_text(value.get_ref())).collect::<Vec<_>>().join(", "),
        DeValue::Table(table) => {
            let mut keys = BTreeMap::new();
            note_keys("", table, &mut keys);
            format!("{keys:?}")
        }
        value => format!("{value:?}"),
    }
}

#[derive(Clone)]
struct KeyValue<'t> {
    key: Cow<'t, str>,
    key_at: Range<usize>,
    value_at: Range<usize>,
    value: DeValue<'t>,
}

fn entries(table: DeTable<'_>) -> Vec<KeyValue<'_>> {
    let mut entries: Vec<KeyValue<'_>> = table
        .into_iter()
        .map(|(key, value): (Spanned<Cow<'_, str>>, Spanned<DeValue<'_>>)| KeyValue {
            key_at: key.span(),
            key: key.into_inner(),
            value_at: value.span(),
            value: value.into_inner(),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_at.start);
    entries
}

/// A table of the file. What nobody has asked for when it is finished is an unknown key.
pub(super) struct Section<'d, 't> {
    document: &'d PipelineText<'t>,
    name: String,
    at: Range<usize>,
    entries: Vec<KeyValue<'t>>,
    known: &'static [&'static str],
}

impl<'d, 't> Section<'d, 't> {
    pub(super) fn optional(&mut self, key: &'static str) -> Option<Item<'d, 't>> {
        debug_assert!(self.known.contains(&key), "{key} is not among the known keys");
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        Some(Item { document: self.document, path: self.path(key), entry: self.entries.remove(at) })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    pub(super) fn required(&mut self, key: &'static str, expected: &str) -> Result<Item<'d, 't>, ConfigError> {
        let missing = self.error(format!("missing key {:?}: expected {expected}", self.path(key)));
        // A misspelt key is a better message than a missing one.
        match self.optional(key) {
            Some(item) => Ok(item),
            None => match self.entries.iter().find(|entry| !nearest(&entry.key, &[key]).is_empty()) {
                Some(entry) => Err(self.unknown(entry)),
                None => Err(missing),
            },
        }
    }

    /// The table of that key; an empty one if it is not there.
    pub(super) fn section(
        &mut self,
        key: &'static str,
        known: &'static [&'static str],
    ) -> Result<Section<'d, 't>, ConfigError> {
        match self.optional(key) {
            Some(item) => item.section(&format!("a table [{key}]"), known),
            None => Ok(Section { document: self.document, name: key.to_owned(), at: 0..0, entries: Vec::new(), known }),
        }
    }

    pub(super) fn required_section(
        &mut self,
        key: &'static str,
        known: &'static [&'static str],
    ) -> Result<Section<'d, 't>, ConfigError> {
        self.required(key, &format!("a table [{key}]"))?.section(&format!("a table [{key}]"), known)
    }

    pub(super) fn error(&self, message: impl fmt::Display) -> ConfigError {
        self.document.error(self.at.clone(), message)
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        match self.entries.first() {
            Some(entry) => Err(self.unknown(entry)),
            None => Ok(()),
        }
    }

    fn unknown(&self, entry: &KeyValue<'_>) -> ConfigError {
        let place = if self.name.is_empty() { String::new() } else { format!(" in [{}]", self.name) };
        let known = self.known;
        let message =
            format!("unknown key {:?}{place}{}; known are {}", entry.key, nearest(&entry.key, known), known.join(", "));
        self.document.error(entry.key_at.clone(), message)
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// A value of the file.
#[derive(Clone)]
pub(super) struct Item<'d, 't> {
    document: &'d PipelineText<'t>,
    path: String,
    entry: KeyValue<'t>,
}

impl<'d, 't> Item<'d, 't> {
    pub(super) fn error(&self, message: impl fmt::Display) -> ConfigError {
        self.document.error(self.entry.value_at.clone(), message)
    }

    pub(super) fn key_error(&self, message: impl fmt::Display) -> ConfigError {
        self.document.error(self.entry.key_at.clone(), message)
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.entry.value, DeValue::Table(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.entry.value, DeValue::Array(_))
    }

    /// Whether it is a table with that key.
    pub(super) fn holds(&self, key: &str) -> bool {
        matches!(&self.entry.value, DeValue::Table(table) if table.iter().any(|(name, _)| name.get_ref() == key))
    }

    pub(super) fn text(&self) -> Result<String, ConfigError> {
        self.text_or("a string")
    }

    /// A string, where `expected` says what else there could be.
    pub(super) fn text_or(&self, expected: &str) -> Result<String, ConfigError> {
        match &self.entry.value {
            DeValue::String(text) => Ok(text.to_string()),
            other => Err(self.expected(expected, other)),
        }
    }

    pub(super) fn non_empty(&self) -> Result<String, ConfigError> {
        match self.text()? {
            text if text.is_empty() => Err(self.error(format!("{}: expected a text that is not empty", self.path))),
            text => Ok(text),
        }
    }

    pub(super) fn texts(&self) -> Result<Vec<String>, ConfigError> {
        let DeValue::Array(items) = &self.entry.value else {
            return Err(self.expected("a list of strings", &self.entry.value));
        };
        let text = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            other => Err(self.document.error(item.span(), self.wrong_type("a list of strings", other))),
        };
        items.iter().map(text).collect()
    }

    /// A string, a number or a boolean, as JSON.
    pub(super) fn json(&self) -> Result<Json, ConfigError> {
        match &self.entry.value {
            DeValue::String(text) => Ok(text.as_ref().into()),
            DeValue::Integer(_) => self.integer().map(Json::from),
            DeValue::Float(number) => {
                let number = number.as_str().replace('_', "");
                number
                    .parse::<f64>()
                    .ok()
                    .and_then(serde_json::Number::from_f64)
                    .map(Json::Number)
                    .ok_or_else(|| self.error(format!("{}: expected a number that JSON has", self.path)))
            }
            DeValue::Boolean(value) => Ok((*value).into()),
            other => Err(self.expected("a string, a number or a boolean", other)),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        match &self.entry.value {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(self.expected("true or false", other)),
        }
    }

    pub(super) fn integer(&self) -> Result<i64, ConfigError> {
        match &self.entry.value {
            DeValue::Integer(number) => i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
                .map_err(|_| self.error(format!("{}: expected an integer of 64 bits", self.path))),
            other => Err(self.expected("an integer", other)),
        }
    }

    /// An integer of at least 1.
    pub(super) fn count(&self, what: &str) -> Result<u64, ConfigError> {
        let number = self.integer()?;
        u64::try_from(number)
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| self.error(format!("{what}: expected at least 1, got {number}")))
    }

    /// An amount of memory: a string with a unit, or bytes.
    pub(super) fn bytes(&self) -> Result<u64, ConfigError> {
        match &self.entry.value {
            DeValue::Integer(_) => self.count(&self.path),
            DeValue::String(text) => parse_bytes(text).map_err(|error| self.error(format!("{}: {error}", self.path))),
            other => Err(self.expected("an amount of memory such as \"512MiB\"", other)),
        }
    }

    pub(super) fn duration(&self) -> Result<Duration, ConfigError> {
        match self.duration_or_zero()? {
            Duration::ZERO => Err(self.error(format!("{}: expected a duration above zero", self.path))),
            span => Ok(span),
        }
    }

    pub(super) fn duration_or_zero(&self) -> Result<Duration, ConfigError> {
        let DeValue::String(text) = &self.entry.value else {
            return Err(self.expected("a duration such as \"10s\"", &self.entry.value));
        };
        parse_duration(text).map_err(|error| self.error(format!("{}: {error}", self.path)))
    }

    pub(super) fn every(&self) -> Result<Every, ConfigError> {
        self.text()?.parse::<Every>().map_err(|error| self.error(format!("{}: {error}", self.path)))
    }

    pub(super) fn section(
        self,
        expected: &str,
        known: &'static [&'static str],
    ) -> Result<Section<'d, 't>, ConfigError> {
        match self.entry.value {
            DeValue::Table(table) => Ok(Section {
                document: self.document,
                name: self.path,
                at: self.entry.key_at,
                entries: entries(table),
                known,
            }),
            ref other => Err(self.expected(expected, other)),
        }
    }

    /// The tables of a table, with their names.
    pub(super) fn sections(
        &self,
        expected: &str,
        known: &'static [&'static str],
    ) -> Result<Vec<(String, Section<'d, 't>)>, ConfigError> {
        self.pairs(expected)?.into_iter().map(|(name, item)| Ok((name, item.section(expected, known)?))).collect()
    }

    /// The values of a table, with their keys.
    pub(super) fn pairs(&self, expected: &str) -> Result<Vec<(String, Item<'d, 't>)>, ConfigError> {
        let section = self.clone().section(expected, &[])?;
        let item = |entry: KeyValue<'t>| {
            let path = format!("{}.{}", self.path, entry.key);
            (entry.key.to_string(), Item { document: self.document, path, entry })
        };
        Ok(section.entries.into_iter().map(item).collect())
    }

    fn expected(&self, expected: &str, got: &DeValue<'_>) -> ConfigError {
        self.error(self.wrong_type(expected, got))
    }

    fn wrong_type(&self, expected: &str, got: &DeValue<'_>) -> String {
        format!("{}: expected {expected}, got {} {}", self.path, article(got.type_str()), got.type_str())
    }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}
