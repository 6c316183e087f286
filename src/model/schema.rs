//! The tables of a pipeline: entities and their typed columns.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Index;

use crate::model::ids::EntityNo;
use crate::model::limits::{COLUMNS_MAX, NAME_BYTES_MAX, PIPELINE_NAME_BYTES_MAX};
use crate::model::query::has_order;
use crate::model::value::ColumnType;

/// A column of an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Column {
    /// Its name in the table and in handlers.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
}

impl Column {
    /// A column of that name and type.
    pub fn new(name: impl Into<String>, kind: ColumnType) -> Self {
        Self { name: name.into(), kind }
    }
}

/// A kind of entity: one table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entity {
    /// The name of the table.
    pub name: String,
    /// The columns besides `region` and `id`, ordered by name.
    pub columns: Vec<Column>,
    /// Columns that a query may filter or order by, ordered by name.
    pub indexes: Vec<String>,
}

impl Entity {
    /// An entity of these columns, without an index. [`Schema::new`] says whether it can be a table.
    pub fn new(name: impl Into<String>, columns: impl IntoIterator<Item = Column>) -> Self {
        Self { name: name.into(), columns: columns.into_iter().collect(), indexes: Vec::new() }
    }

    /// The same with columns that a query may filter or order by.
    #[must_use]
    pub fn with_indexes(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.indexes = columns.into_iter().map(Into::into).collect();
        self
    }

    /// The position of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The columns as stores note them: `name type, name type`. Names hold neither spaces nor commas.
    pub(crate) fn columns_text(&self) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|column| format!("{} {}", column.name, column.kind)).collect();
        columns.join(", ")
    }
}

/// The names and types of columns that were noted down.
pub(crate) fn parse_columns(text: &str) -> Vec<(&str, &str)> {
    text.split(", ").filter_map(|column| column.split_once(' ')).collect()
}

/// All entities of a pipeline, ordered by name: an entity's position is its number.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Schema {
    entities: Vec<Entity>,
}

/// A name or a column list that no store could take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(pub(crate) String);

impl Schema {
    /// A schema of these entities; columns and indexes are put in order.
    ///
    /// # Errors
    /// A name is not usable, is given twice, or an index names no column.
    pub fn new(entities: impl IntoIterator<Item = Entity>) -> Result<Self, SchemaError> {
        let mut by_name = BTreeMap::new();
        for mut entity in entities {
            check_entity(&entity)?;
            entity.columns.sort_by(|a, b| a.name.cmp(&b.name));
            entity.indexes.sort();
            entity.indexes.dedup();
            if let Some(twice) = by_name.insert(entity.name.clone(), entity) {
                return Err(SchemaError(format!("entity {:?} is given twice", twice.name)));
            }
        }
        Ok(Self { entities: by_name.into_values().collect() })
    }

    /// The entities in order.
    pub fn entities(&self) -> &[Entity] {
        &self.entities
    }

    /// The number of the entity of that name.
    pub fn entity(&self, name: &str) -> Option<EntityNo> {
        self.entities.iter().position(|entity| entity.name == name).map(EntityNo::at)
    }
}

impl Index<EntityNo> for Schema {
    type Output = Entity;

    fn index(&self, entity: EntityNo) -> &Entity {
        &self.entities[entity.index()]
    }
}

fn check_entity(entity: &Entity) -> Result<(), SchemaError> {
    check_entity_name(&entity.name)?;
    let within = |error: SchemaError| SchemaError(format!("entity {:?}: {error}", entity.name));
    if entity.columns.len() > COLUMNS_MAX {
        let count = entity.columns.len();
        return Err(within(SchemaError(format!(
            "{count} columns are more than the {COLUMNS_MAX} that a table may have"
        ))));
    }
    for (at, column) in entity.columns.iter().enumerate() {
        check_column_name(&column.name).map_err(within)?;
        if entity.columns[..at].iter().any(|before| before.name == column.name) {
            return Err(within(SchemaError(format!("column {:?} is given twice", column.name))));
        }
    }
    for index in &entity.indexes {
        match entity.columns.iter().find(|column| column.name == *index) {
            None => return Err(within(SchemaError(format!("index on {index:?}, which is not one of its columns")))),
            Some(column) if !has_order(column.kind) => {
                return Err(within(SchemaError(format!(
                    "index on {index:?}: a {} column has no order to find rows by; keep what is looked for in a column of its own",
                    column.kind
                ))));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Refuses a name of an entity that a store or a script could not carry.
///
/// # Errors
/// The name, and what is expected of one.
pub fn check_entity_name(name: &str) -> Result<(), SchemaError> {
    check_name("entity", name)?;
    if name.starts_with("forebay") || name.starts_with("sqlite") || name.starts_with("pg_") {
        return Err(SchemaError(format!("entity {name:?}: names that begin with forebay, sqlite or pg_ are reserved")));
    }
    if name == "region" || name == "block" {
        return Err(SchemaError(format!("entity {name:?}: ctx.{name} has a meaning of its own; choose another name")));
    }
    Ok(())
}

/// Refuses a name of a column that a store could not carry.
///
/// # Errors
/// The name, and what is expected of one.
pub fn check_column_name(name: &str) -> Result<(), SchemaError> {
    check_name("column", name)?;
    if name == "region" || name == "id" {
        return Err(SchemaError(format!("column {name:?}: every entity has it already, as part of its key")));
    }
    Ok(())
}

fn check_name(what: &str, name: &str) -> Result<(), SchemaError> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let rest = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if first && rest && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(SchemaError(format!(
        "{what} {name:?}: expected a lower-case letter or _, then lower-case letters, digits and _, {NAME_BYTES_MAX} bytes at most"
    )))
}

/// Refuses a name of a pipeline that is not `[a-z][a-z0-9_]{0,39}`.
///
/// # Errors
/// The name, and what is expected of one.
pub fn check_pipeline_name(name: &str) -> Result<(), SchemaError> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    let rest = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if first && rest && name.len() <= PIPELINE_NAME_BYTES_MAX {
        return Ok(());
    }
    Err(SchemaError(format!(
        "pipeline name {name:?}: expected a lower-case letter, then lower-case letters, digits and _, \
         {PIPELINE_NAME_BYTES_MAX} bytes at most"
    )))
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.name)?;
        for (at, column) in self.columns.iter().enumerate() {
            write!(f, "{}{} {}", if at == 0 { "" } else { ", " }, column.name, column.kind)?;
        }
        f.write_str(")")
    }
}
