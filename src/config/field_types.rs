//! `[source.fields]`: the types of fields of events.

use super::reading::{ConfigError, Item};
use crate::model::field_type::{FieldType, FieldTypes, TimeUnit};
use crate::model::text::nearest;

/// What a table holds that is a type, and not a table of fields below.
const TYPE_KEYS: [&str; 2] = ["type", "unit"];

/// Reads the types of fields. A table without `type` and `unit` holds the fields of an object: TOML reads
/// `tx.value = "numeric"` so.
pub(super) fn read_field_types(value: &Item<'_, '_>) -> Result<FieldTypes, ConfigError> {
    let mut types = FieldTypes::default();
    read_into(value, "", &mut types)?;
    Ok(types)
}

fn read_into(value: &Item<'_, '_>, above: &str, types: &mut FieldTypes) -> Result<(), ConfigError> {
    for (name, value) in value.pairs("a table [source.fields] of types such as value = \"numeric\"")? {
        if name.is_empty() {
            return Err(value.key_error("fields: the name of a field may not be empty"));
        }
        let name = if above.is_empty() { name } else { format!("{above}.{name}") };
        if types.of(&name).is_some_and(|field| field.own.is_some()) {
            return Err(value.key_error(format!("field {name} is given twice")));
        }
        let kind = if !value.is_table() {
            read_type(&value, &name)?
        } else if TYPE_KEYS.iter().any(|key| value.holds(key)) {
            read_type_and_unit(value, &name)?
        } else {
            read_into(&value, &name, types)?;
            continue;
        };
        *types = std::mem::take(types).with(&name, kind);
    }
    Ok(())
}

fn read_type(value: &Item<'_, '_>, name: &str) -> Result<FieldType, ConfigError> {
    let given = value.text()?;
    FieldType::from_name(&given).ok_or_else(|| {
        let known = FieldType::NAMES;
        let hint = nearest(&given, &known);
        value.error(format!("field {name}: {given:?} is not a type{hint}; expected one of {}", known.join(", ")))
    })
}

fn read_type_and_unit(value: Item<'_, '_>, name: &str) -> Result<FieldType, ConfigError> {
    let expected = "a type such as { type = \"timestamptz\", unit = \"ms\" }";
    let mut section = value.section(expected, &TYPE_KEYS)?;
    let kind_at = section.required("type", "the type of the field, such as \"timestamptz\"")?;
    let mut kind = read_type(&kind_at, name)?;
    if let Some(unit_at) = section.optional("unit") {
        let given = unit_at.text()?;
        let unit = TimeUnit::from_name(&given).ok_or_else(|| {
            unit_at
                .error(format!("field {name}: unit: expected \"s\" (seconds) or \"ms\" (milliseconds), got {given:?}"))
        })?;
        kind = match kind {
            FieldType::Timestamptz(_) => FieldType::Timestamptz(Some(unit)),
            _ => return Err(unit_at.error(format!("field {name}: unit: only a timestamptz has one"))),
        };
    }
    section.finish()?;
    Ok(kind)
}
