//! `[entities.*]`: the tables, their columns in the order of the file, and what is said of them.

use super::reading::{ConfigError, Item, Section};
use crate::model::schema::{Column, Entity, Schema, check_column_name, check_comment, check_entity_name};
use crate::model::text::nearest;
use crate::model::value::ColumnType;

/// Reads all tables.
pub(super) fn read_entities(root: &mut Section<'_, '_>) -> Result<Schema, ConfigError> {
    let Some(entities) = root.optional("entities") else { return Ok(Schema::default()) };
    let mut found = Vec::new();
    let expected = "a table of entities, such as [entities.country]";
    for (name, section) in entities.sections(expected, &["columns", "indexes", "comment"])? {
        found.push(read_entity(name, section)?);
    }
    Schema::new(found).map_err(|error| entities.error(error))
}

fn read_entity(name: String, mut section: Section<'_, '_>) -> Result<Entity, ConfigError> {
    check_entity_name(&name).map_err(|error| section.error(error))?;
    let comment = section.optional("comment").map(|value| read_comment(&value)).transpose()?;
    let (mut columns, mut comments) = (Vec::new(), Vec::new());
    let expected = "the columns, such as { quakes = \"bigint\" }";
    for (column, kind_at) in section.required("columns", expected)?.pairs(expected)? {
        check_column_name(&column).map_err(|error| kind_at.key_error(error))?;
        let (kind, comment) = read_column(&column, kind_at)?;
        comments.extend(comment.map(|comment| (column.clone(), comment)));
        columns.push(Column { name: column, kind });
    }
    let indexes = section.optional("indexes").map(|value| read_indexes(&name, &columns, &value)).transpose()?;
    section.finish()?;
    let mut entity = Entity::new(name, columns).with_indexes(indexes.unwrap_or_default());
    entity.comment = comment;
    entity.column_comments = comments;
    Ok(entity)
}

/// A column: its type, or a table of its type and a comment.
fn read_column(column: &str, value: Item<'_, '_>) -> Result<(ColumnType, Option<String>), ConfigError> {
    if !value.is_table() {
        return Ok((read_type(column, &value)?, None));
    }
    let expected = "a type such as { type = \"bigint\", comment = \"pieces sold\" }";
    let mut section = value.section(expected, &["type", "comment"])?;
    let kind = read_type(column, &section.required("type", "the type of the column, such as \"bigint\"")?)?;
    let comment = section.optional("comment").map(|value| read_comment(&value)).transpose()?;
    section.finish()?;
    Ok((kind, comment))
}

fn read_type(column: &str, value: &Item<'_, '_>) -> Result<ColumnType, ConfigError> {
    let kind = value.text_or("a type such as \"bigint\", or a table of type and comment")?;
    ColumnType::from_name(&kind).ok_or_else(|| value.error(unknown_type(column, &kind)))
}

fn read_comment(value: &Item<'_, '_>) -> Result<String, ConfigError> {
    let comment = value.text()?;
    check_comment(&comment).map_err(|error| value.error(error))?;
    Ok(comment)
}

fn read_indexes(entity: &str, columns: &[Column], value: &Item<'_, '_>) -> Result<Vec<String>, ConfigError> {
    let indexes = value.texts()?;
    match indexes.iter().find(|index| !columns.iter().any(|column| column.name == **index)) {
        None => Ok(indexes),
        Some(unknown) => {
            let known: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            let hint = nearest(unknown, &known);
            Err(value.error(format!("indexes: {unknown:?} is not a column of {entity}{hint}")))
        }
    }
}

fn unknown_type(column: &str, kind: &str) -> String {
    let known: Vec<&str> = ColumnType::ALL.iter().map(|kind| kind.name()).collect();
    format!("column {column}: {kind:?} is not a type{}; expected one of {}", nearest(kind, &known), known.join(", "))
}
