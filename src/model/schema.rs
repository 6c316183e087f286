//! The tables of a pipeline: entities and their typed columns.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Index;

use crate::model::ids::EntityNo;
use crate::model::limits::{COLUMNS_MAX, COMMENT_BYTES_MAX, NAME_BYTES_MAX, PIPELINE_NAME_BYTES_MAX};
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
    /// What its rows are, for people who read the table with SQL.
    pub comment: Option<String>,
    /// The same of columns, by name.
    pub(crate) column_comments: Vec<(String, String)>,
    /// The names of the columns in the order in which they were given. A new table has it. Whatever is packed or
    /// encoded goes by `columns`: databases of any age agree on that.
    pub(crate) order: Vec<String>,
}

impl Entity {
    /// An entity of these columns, without an index. A new table has them in this order. [`Schema::new`] says whether it
    /// can be a table.
    pub fn new(name: impl Into<String>, columns: impl IntoIterator<Item = Column>) -> Self {
        let columns: Vec<Column> = columns.into_iter().collect();
        let order = columns.iter().map(|column| column.name.clone()).collect();
        Self { name: name.into(), columns, indexes: Vec::new(), comment: None, column_comments: Vec::new(), order }
    }

    /// The same with columns that a query may filter or order by.
    #[must_use]
    pub fn with_indexes(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.indexes = columns.into_iter().map(Into::into).collect();
        self
    }

    /// The same with a word about what its rows are, for people who read the table with SQL.
    #[must_use]
    pub fn with_comment(self, comment: impl Into<String>) -> Self {
        Self { comment: Some(comment.into()), ..self }
    }

    /// The same with a word about what a column holds.
    #[must_use]
    pub fn with_column_comment(mut self, column: impl Into<String>, comment: impl Into<String>) -> Self {
        self.column_comments.push((column.into(), comment.into()));
        self
    }

    /// What is said of a column.
    pub fn column_comment(&self, column: &str) -> Option<&str> {
        self.column_comments.iter().rfind(|(name, _)| name == column).map(|(_, comment)| comment.as_str())
    }

    /// The columns in the order in which they were given.
    pub fn columns_as_given(&self) -> impl Iterator<Item = &Column> {
        let given = self.order.iter().filter_map(|name| self.columns.iter().find(|column| column.name == *name));
        given.chain(self.columns.iter().filter(|column| !self.order.contains(&column.name)))
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
    /// A schema of these entities; columns and indexes are put in order. [`Entity::columns_as_given`] stays as it is.
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
    check_comments(entity).map_err(within)?;
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

fn check_comments(entity: &Entity) -> Result<(), SchemaError> {
    if let Some(comment) = &entity.comment {
        check_comment(comment)?;
    }
    for (column, comment) in &entity.column_comments {
        if entity.column(column).is_none() {
            return Err(SchemaError(format!("comment on {column:?}, which is not one of its columns")));
        }
        check_comment(comment).map_err(|error| SchemaError(format!("column {column:?}: {error}")))?;
    }
    Ok(())
}

/// Refuses a comment that says nothing, or that no store could carry.
///
/// # Errors
/// What is expected of one.
pub fn check_comment(comment: &str) -> Result<(), SchemaError> {
    let problem = match comment {
        _ if comment.trim().is_empty() => "expected a text that is not empty".to_owned(),
        _ if comment.contains('\0') => "it holds a NUL, which no database keeps".to_owned(),
        _ if comment.len() > COMMENT_BYTES_MAX => {
            format!("{} bytes are more than the {COMMENT_BYTES_MAX} that it may have", comment.len())
        }
        _ => return Ok(()),
    };
    Err(SchemaError(format!("comment: {problem}")))
}

/// Refuses a name of an entity that a store or a script could not carry.
///
/// # Errors
/// The name, and what is expected of one.
pub fn check_entity_name(name: &str) -> Result<(), SchemaError> {
    check_name("entity", name)?;
    if ["forebay", "_forebay", "sqlite", "pg_"].iter().any(|begin| name.starts_with(begin)) {
        return Err(SchemaError(format!(
            "entity {name:?}: names that begin with forebay, _forebay, sqlite or pg_ are reserved"
        )));
    }
    if name == "_progress" {
        return Err(SchemaError(format!(
            "entity {name:?}: a view of that name says how far a pipeline has come; choose another name"
        )));
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
        for (at, column) in self.columns_as_given().enumerate() {
            write!(f, "{}{} {}", if at == 0 { "" } else { ", " }, column.name, column.kind)?;
        }
        f.write_str(")")
    }
}
