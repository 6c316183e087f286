//! Readers for fields of events whose values come in many forms, for serde's `deserialize_with`.
//!
//! Amounts come as numbers and as texts, integers in hex, times as seconds. These read all forms of a type as one, as
//! `[source.fields]` does for scripts. A field that may be null is an `Option`.
//!
//! ```
//! use forebay::{Numeric, Timestamp, fields};
//!
//! #[derive(serde::Deserialize)]
//! struct Transfer {
//!     #[serde(deserialize_with = "fields::numeric")]
//!     value: Numeric,
//!     #[serde(deserialize_with = "fields::bigint")]
//!     log: i64,
//!     #[serde(default, deserialize_with = "fields::seconds")]
//!     at: Option<Timestamp>,
//! }
//!
//! let transfer: Transfer = serde_json::from_str(r#"{"value":"0x1f","log":"17","at":1517363399.65}"#)?;
//! assert_eq!((transfer.value, transfer.log), (Numeric::from(31_i64), 17));
//! assert_eq!(transfer.at.map(|at| at.to_string()).as_deref(), Some("2018-01-31T01:49:59.650Z"));
//! # Ok::<(), serde_json::Error>(())
//! ```

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::model::field_type::{FieldType, TimeUnit, TypedValue};
use crate::model::numeric::Numeric;
use crate::model::timestamp::Timestamp;

/// What a field may be declared as: a value, or an `Option` of it.
pub trait FromField<V>: Sized {
    /// From the field's value; none of null.
    fn from_field(value: Option<V>) -> Option<Self>;
}

impl<V> FromField<V> for V {
    fn from_field(value: Option<V>) -> Option<V> {
        value
    }
}

impl<V> FromField<V> for Option<V> {
    fn from_field(value: Option<V>) -> Option<Self> {
        Some(value)
    }
}

fn read<'de, D: Deserializer<'de>, V, T: FromField<V>>(
    deserializer: D,
    kind: FieldType,
    take: impl FnOnce(TypedValue<'_>) -> Option<V>,
) -> Result<T, D::Error> {
    let json = <&'de RawValue>::deserialize(deserializer)?;
    let value = kind.read_json(json.get(), take).map_err(D::Error::custom)?;
    T::from_field(value).ok_or_else(|| D::Error::custom("expected a value, got null; an Option takes both"))
}

/// An exact number: from numbers, and from texts such as `"17.5"` and `"0x1f"`.
///
/// # Errors
/// It is none.
pub fn numeric<'de, D: Deserializer<'de>, T: FromField<Numeric>>(deserializer: D) -> Result<T, D::Error> {
    read(deserializer, FieldType::Numeric, |value| match value {
        TypedValue::Numeric(number) => Some(number),
        _ => None,
    })
}

/// An integer of 64 bits: from whole numbers, and from texts such as `"17"` and `"0x1f"`.
///
/// # Errors
/// It is none.
pub fn bigint<'de, D: Deserializer<'de>, T: FromField<i64>>(deserializer: D) -> Result<T, D::Error> {
    read(deserializer, FieldType::Bigint, |value| match value {
        TypedValue::Bigint(number) => Some(number),
        _ => None,
    })
}

/// A text: from texts, and from numbers, which stand for their digits.
///
/// # Errors
/// It is neither.
pub fn text<'de, D: Deserializer<'de>, T: FromField<String>>(deserializer: D) -> Result<T, D::Error> {
    read(deserializer, FieldType::Text, |value| match value {
        TypedValue::Text(text) => Some(text.into_owned()),
        _ => None,
    })
}

/// A float: from numbers, and from texts such as `"17.5"` and `"0x1f"`.
///
/// # Errors
/// It is none.
pub fn double<'de, D: Deserializer<'de>, T: FromField<f64>>(deserializer: D) -> Result<T, D::Error> {
    read(deserializer, FieldType::Double, |value| match value {
        TypedValue::Double(number) => Some(number),
        _ => None,
    })
}

/// A boolean: also from texts and numbers such as `"true"`, `"f"` and `1`.
///
/// # Errors
/// It is none.
pub fn boolean<'de, D: Deserializer<'de>, T: FromField<bool>>(deserializer: D) -> Result<T, D::Error> {
    read(deserializer, FieldType::Boolean, |value| match value {
        TypedValue::Boolean(value) => Some(value),
        _ => None,
    })
}

fn time<'de, D: Deserializer<'de>, T: FromField<Timestamp>>(
    deserializer: D,
    unit: Option<TimeUnit>,
) -> Result<T, D::Error> {
    read(deserializer, FieldType::Timestamptz(unit), |value| match value {
        TypedValue::Time(time) => Some(time),
        _ => None,
    })
}

/// A time: from RFC 3339.
///
/// # Errors
/// It is none.
pub fn timestamp<'de, D: Deserializer<'de>, T: FromField<Timestamp>>(deserializer: D) -> Result<T, D::Error> {
    time(deserializer, None)
}

/// A time: from seconds since 1970, and from RFC 3339.
///
/// # Errors
/// It is none.
pub fn seconds<'de, D: Deserializer<'de>, T: FromField<Timestamp>>(deserializer: D) -> Result<T, D::Error> {
    time(deserializer, Some(TimeUnit::Seconds))
}

/// A time: from milliseconds since 1970, and from RFC 3339.
///
/// # Errors
/// It is none.
pub fn millis<'de, D: Deserializer<'de>, T: FromField<Timestamp>>(deserializer: D) -> Result<T, D::Error> {
    time(deserializer, Some(TimeUnit::Millis))
}
