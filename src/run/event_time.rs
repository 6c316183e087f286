//! The time of an event, out of a field that the user names: how far a source's last committed event lies back.
//!
//! It is taken of one event a round, on the thread that seals, and never by the reader.

use crate::lane::Round;
use crate::model::field_type::{FieldType, FieldTypes, TimeUnit, TypedValue};
use crate::model::json_scan::members;
use crate::model::timestamp::Timestamp;
use crate::source::SourceConfig;

/// Numbers below it are seconds since 1970, others milliseconds: as seconds it is the year 5138, as milliseconds 1973.
const MILLIS_MIN: f64 = 1e11;

/// Where events have their time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventTime {
    field: String,
    /// The unit of `[source.fields]`; without one, a number says by its size which it is.
    unit: Option<TimeUnit>,
    is_warned: bool,
}

impl EventTime {
    /// None where the user names no field.
    pub(super) fn of(source: &SourceConfig) -> Option<Self> {
        source.time.as_deref().map(|field| Self::new(field, &source.fields))
    }

    fn new(field: &str, types: &FieldTypes) -> Self {
        let unit = match types.kind_of(field) {
            Some(FieldType::Timestamptz(unit)) => unit,
            _ => None,
        };
        Self { field: field.to_owned(), unit, is_warned: false }
    }

    /// The time of the last event of a round; none if it has none.
    pub(super) fn of_last(&mut self, round: &Round) -> Option<Timestamp> {
        let lasts = round.lanes.iter().enumerate().filter_map(|(lane, described)| {
            let place = described.events.last()?;
            Some(((place.page, place.at), lane, described.events.len() - 1))
        });
        let (_, lane, at) = lasts.max_by_key(|(place, ..)| *place)?;
        let (event, page) = round.event(lane, at)?;
        let time = self.of_json(page.json(event));
        if time.is_none() && !std::mem::replace(&mut self.is_warned, true) {
            tracing::warn!(
                "{}:{}: field {:?} ([source] time): expected a time (RFC 3339), or seconds or milliseconds since 1970; \
                 how far the source is behind is not known",
                page.origin,
                event.line,
                self.field
            );
        }
        time
    }

    fn of_json(&self, json: &str) -> Option<Timestamp> {
        let nested = || self.field.split('.').try_fold(json, member);
        self.parse(member(json, &self.field).or_else(nested)?)
    }

    fn parse(&self, raw: &str) -> Option<Timestamp> {
        let by_size = || {
            let number: f64 = raw.trim_matches('"').parse().ok()?;
            Some(if number.abs() < MILLIS_MIN { TimeUnit::Seconds } else { TimeUnit::Millis })
        };
        let kind = FieldType::Timestamptz(self.unit.or_else(by_size));
        let read = kind.read_json(raw, |value| match value {
            TypedValue::Time(time) => Some(time),
            _ => None,
        });
        read.ok().flatten()
    }
}

/// The value of a member of an object.
fn member<'j>(json: &'j str, name: &str) -> Option<&'j str> {
    let mut found = None;
    members(json, |key, value| {
        if key == name {
            found = Some(value);
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_each_form_and_at_any_depth() {
        let time = EventTime::new("at", &FieldTypes::default());
        for json in [
            r#"{"at":"2026-01-31T12:00:00Z"}"#,
            r#"{"at":1769860800}"#,
            r#"{"at":1769860800000}"#,
            r#"{"at":"1769860800"}"#,
        ] {
            assert_eq!(
                time.of_json(json).map(|time| time.to_string()).as_deref(),
                Some("2026-01-31T12:00:00Z"),
                "{json}"
            );
        }
        for json in ["{}", r#"{"at":null}"#, r#"{"at":"yesterday"}"#, r#"{"at":{}}"#, "[]"] {
            assert_eq!(time.of_json(json), None, "{json}");
        }
        let types = FieldTypes::default().with("tx.at", FieldType::Timestamptz(Some(TimeUnit::Millis)));
        let nested = EventTime::new("tx.at", &types);
        let found = nested.of_json(r#"{"tx":{"at":5000}}"#).map(|time| time.to_string());
        assert_eq!(found.as_deref(), Some("1970-01-01T00:00:05Z"));
    }
}
