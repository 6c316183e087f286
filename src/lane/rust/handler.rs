//! Handlers in Rust: what an embedding program writes.

use std::any::TypeId;

use serde::Deserialize;
use serde_json::Value as Json;

use crate::model::ids::{BlockNo, EntityNo, RegionNo};
use crate::model::json_text::ExactJson;
use crate::model::limits::ID_BYTES_MAX;
use crate::model::numeric::Numeric;
use crate::model::query::{Comparison, Condition, OrderBy, Query};
use crate::model::schema::{Column, Entity, Schema, SchemaError};
use crate::model::timestamp::Timestamp;
use crate::model::value::{ColumnType, Row, Value};

use super::access::RowAccess;
pub use super::error::HandlerError;

/// Code that turns the events of a region into its entities.
///
/// A handler keeps no state of its own: everything lives in entities, or it would not survive a restart. Events of one
/// region come in order; events of different regions come at the same time. A call may be made again, when rows have to
/// be loaded first, and the writes of the abandoned call are gone. So a handler should do nothing but read and write
/// entities.
///
/// ```
/// use forebay::{Context, EntityRow, EntityTable, Find, Handler, HandlerError, Pipeline};
///
/// forebay::entity! {
///     /// What is known of one account.
///     struct Account in "account" {
///         balance: i64,
///         transfers: i64,
///     }
///     index balance
/// }
///
/// /// What serde takes from an event; other fields are passed by.
/// #[derive(serde::Deserialize)]
/// struct Transfer<'e> {
///     to: &'e str,
///     amount: i64,
/// }
///
/// struct Balances;
///
/// impl Handler for Balances {
///     type Event<'e> = Transfer<'e>;
///
///     fn entities(&self) -> Vec<EntityTable> {
///         vec![Account::table()]
///     }
///
///     fn on_event(&self, transfer: Transfer<'_>, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
///         let mut account = ctx.get(transfer.to)?.unwrap_or(Account { balance: 0, transfers: 0 });
///         account.balance += transfer.amount;
///         account.transfers += 1;
///         ctx.set(transfer.to, account)
///     }
///
///     fn has_snapshots(&self) -> bool {
///         true
///     }
///
///     fn on_snapshot(&self, ctx: &mut Context<'_>) -> Result<Option<serde_json::Value>, HandlerError> {
///         let richest = ctx.find::<Account>(&Find::all().descending("balance").limit(1))?;
///         let ids: Vec<&str> = richest.iter().map(|(id, _)| id.as_str()).collect();
///         Ok(Some(serde_json::json!({ "accounts": ctx.count::<Account>()?, "richest": ids })))
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let (events, store) = (folder.path().join("events.ndjson"), folder.path().join("bank.db"));
/// # let (events, store) = (events.to_string_lossy(), format!("sqlite:{}", store.display()));
/// std::fs::write(
///     &*events,
///     r#"{"block":1,"region":"eu","to":"ann","amount":5}
///        {"block":1,"region":"eu","to":"bob","amount":7}
///        {"block":2,"region":"eu","to":"ann","amount":4}"#,
/// )?;
/// let report = Pipeline::new("bank", Balances)?.source_path(&events).store_url(&store)?.run()?;
/// assert_eq!((report.events, report.checkpoint.block), (3, Some(2)));
///
/// let newest = forebay::store::open_snapshots(&store.parse()?)?.latest("bank", &[])?;
/// assert_eq!(newest[0].doc, r#"{"accounts":2,"richest":["ann"]}"#);
/// # Ok(())
/// # }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// An event, read from its JSON by serde. It may borrow from it. A field that a struct does not have, and passes by, is
    /// not offered to it again in later events.
    type Event<'e>: Deserialize<'e>;

    /// The tables: one [`EntityTable`] for each kind of entity, as [`crate::entity!`] makes them.
    fn entities(&self) -> Vec<EntityTable>;

    /// Handles one event.
    ///
    /// # Errors
    /// Ends the run; what is not committed is discarded. Errors of `ctx` must be passed on, with `?`.
    fn on_event(&self, event: Self::Event<'_>, ctx: &mut Context<'_>) -> Result<(), HandlerError>;

    /// The document of a region as of now; none for no snapshot. Must not write. Defaults to none.
    ///
    /// # Errors
    /// As [`Handler::on_event`].
    fn on_snapshot(&self, ctx: &mut Context<'_>) -> Result<Option<Json>, HandlerError> {
        let _ = ctx;
        Ok(None)
    }

    /// Whether [`Handler::on_snapshot`] ever returns a document. Defaults to false.
    fn has_snapshots(&self) -> bool {
        false
    }
}

/// A kind of entity: a struct whose fields are the columns of a table. Made by [`crate::entity!`].
pub trait EntityRow: Sized + 'static {
    /// The table.
    fn table() -> EntityTable;
    /// The values in the order of the fields.
    fn into_values(self) -> Vec<Value>;
    /// The struct from values in the order of the fields.
    fn from_values<'v>(values: impl Iterator<Item = &'v Value>) -> Self;
}

/// A table as a type of entity describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntityTable {
    /// The type.
    pub type_id: TypeId,
    /// Its table; the columns in the order of the fields.
    pub entity: Entity,
}

impl EntityTable {
    /// The table of a type of entity; the columns in the order of its fields.
    pub fn of<E: EntityRow>(entity: Entity) -> Self {
        Self { type_id: TypeId::of::<E>(), entity }
    }

    /// The same with a word about what its rows are, for people who read the table with SQL.
    #[must_use]
    pub fn with_comment(self, comment: impl Into<String>) -> Self {
        Self { entity: self.entity.with_comment(comment), ..self }
    }

    /// The same with a word about what a column holds.
    #[must_use]
    pub fn with_column_comment(self, column: impl Into<String>, comment: impl Into<String>) -> Self {
        Self { entity: self.entity.with_column_comment(column, comment), ..self }
    }
}

/// A type of Rust that a column can hold.
pub trait ColumnValue {
    /// The column's type.
    const KIND: ColumnType;
    /// The value for the row.
    fn into_value(self) -> Value;
    /// The value from the row; null reads as the type's default.
    fn from_value(value: &Value) -> Self;
}

macro_rules! column_value {
    ($type:ty, $kind:ident, $into:expr, $from:pat => $out:expr, $default:expr) => {
        impl ColumnValue for $type {
            const KIND: ColumnType = ColumnType::$kind;
            fn into_value(self) -> Value {
                #[allow(clippy::redundant_closure_call, reason = "one form for all types")]
                Value::$kind($into(self))
            }
            fn from_value(value: &Value) -> Self {
                match value {
                    Value::$kind($from) => $out,
                    _ => $default,
                }
            }
        }
    };
}

column_value!(i64, Bigint, |v| v, v => *v, 0);
column_value!(f64, Double, |v: f64| v + 0.0, v => *v, 0.0);
column_value!(bool, Boolean, |v| v, v => *v, false);
column_value!(String, Text, String::into_boxed_str, v => v.to_string(), Self::new());
column_value!(Numeric, Numeric, |v| v, v => v.clone(), Self::ZERO);
column_value!(Timestamp, Timestamptz, |v| v, v => *v, Self::default());
column_value!(Vec<u8>, Bytes, Vec::into_boxed_slice, v => v.to_vec(), Self::new());
column_value!(Json, Jsonb, |v: Json| v.to_string().into_boxed_str(), v => serde_json::from_str(v).unwrap_or_default(), Json::Null);
column_value!(ExactJson, Jsonb, |v: ExactJson| v.get().into(), v => ExactJson::from_canonical(v), ExactJson::default());

impl<T: ColumnValue> ColumnValue for Option<T> {
    const KIND: ColumnType = T::KIND;
    fn into_value(self) -> Value {
        self.map_or(Value::Null, T::into_value)
    }
    fn from_value(value: &Value) -> Self {
        match value {
            Value::Null => None,
            value => Some(T::from_value(value)),
        }
    }
}

/// Makes a struct a kind of entity: a table with a column for each field.
///
/// ```
/// use forebay::{Numeric, Timestamp};
///
/// forebay::entity! {
///     /// What is known of one account.
///     pub struct Account in "account" {
///         balance: Numeric,
///         transfers: i64,
///         last_at: Option<Timestamp>,
///     }
///     index transfers
/// }
/// ```
#[macro_export]
macro_rules! entity {
    (
        $(#[$meta:meta])* $vis:vis struct $name:ident in $table:literal {
            $($(#[$field_meta:meta])* $field:ident : $type:ty),* $(,)?
        }
        $(index $($index:ident),+ $(,)?)?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name {
            $(#[allow(missing_docs)] $(#[$field_meta])* pub $field: $type),*
        }

        impl $crate::EntityRow for $name {
            fn table() -> $crate::EntityTable {
                let columns = [$($crate::Column::new(
                    ::std::stringify!($field),
                    <$type as $crate::ColumnValue>::KIND,
                )),*];
                let indexes: &[&str] = &[$($(::std::stringify!($index)),+)?];
                $crate::EntityTable::of::<Self>(
                    $crate::Entity::new($table, columns).with_indexes(indexes.iter().copied()),
                )
            }

            fn into_values(self) -> ::std::vec::Vec<$crate::Value> {
                ::std::vec![$($crate::ColumnValue::into_value(self.$field)),*]
            }

            #[allow(unused_mut, unused_variables)]
            fn from_values<'v>(mut values: impl ::std::iter::Iterator<Item = &'v $crate::Value>) -> Self {
                Self {
                    $($field: <$type as $crate::ColumnValue>::from_value(values.next().unwrap_or(&$crate::Value::Null))),*
                }
            }
        }
    };
}

/// How the types of entities map to the schema's tables.
#[derive(Debug, Clone)]
pub(super) struct TypeMap {
    types: Vec<TypeEntry>,
}

#[derive(Debug, Clone)]
struct TypeEntry {
    type_id: TypeId,
    entity: EntityNo,
    /// For each field, the place of its column in the row.
    places: Vec<usize>,
    /// Whether that is the place of the field.
    is_in_order: bool,
}

/// The schema of some types of entities.
pub(crate) fn schema_of(tables: &[EntityTable]) -> Result<Schema, SchemaError> {
    Schema::new(tables.iter().map(|table| table.entity.clone()))
}

impl TypeMap {
    pub(super) fn new(tables: &[EntityTable], schema: &Schema) -> Self {
        let entry = |table: &EntityTable| {
            let entity = schema.entity(&table.entity.name)?;
            let place = |column: &Column| schema[entity].column(&column.name);
            let places = table.entity.columns.iter().map(place).collect::<Option<Vec<_>>>()?;
            let is_in_order = places.iter().copied().eq(0..places.len());
            Some(TypeEntry { type_id: table.type_id, entity, places, is_in_order })
        };
        Self { types: tables.iter().filter_map(entry).collect() }
    }

    fn entry<E: EntityRow>(&self) -> Result<&TypeEntry, HandlerError> {
        let wanted = TypeId::of::<E>();
        self.types.iter().find(|entry| entry.type_id == wanted).ok_or_else(|| {
            HandlerError::new(format!("{} is not among the handler's entities()", std::any::type_name::<E>()))
        })
    }
}

/// What entities to look for, by columns that are among the entity's indexes.
///
/// Null matches no condition, and comes last in either order. Ties are ordered by id; so is what has no other order.
///
/// ```
/// use forebay::Find;
/// use forebay::query::Comparison;
///
/// let richest = Find::all().filter("transfers", Comparison::AtLeast, 10_i64).descending("balance").limit(5);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Find {
    conditions: Vec<(String, Comparison, Value)>,
    order: Option<(String, bool)>,
    limit: Option<usize>,
}

impl Find {
    /// All entities, by id.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those for which this holds, too.
    #[must_use]
    pub fn filter(mut self, column: &str, comparison: Comparison, value: impl ColumnValue) -> Self {
        self.conditions.push((column.to_owned(), comparison, value.into_value()));
        self
    }

    /// The smallest of that column first.
    #[must_use]
    pub fn ascending(mut self, column: &str) -> Self {
        self.order = Some((column.to_owned(), false));
        self
    }

    /// The largest of that column first.
    #[must_use]
    pub fn descending(mut self, column: &str) -> Self {
        self.order = Some((column.to_owned(), true));
        self
    }

    /// So many at most.
    #[must_use]
    pub fn limit(mut self, entities: usize) -> Self {
        self.limit = Some(entities);
        self
    }

    fn resolve(&self, entity: &Entity) -> Result<Query, HandlerError> {
        let name = &entity.name;
        let indexed = |column: &str, what: &str| match entity.column(column) {
            None => Err(HandlerError::new(format!("find: {name} has no column {column:?}"))),
            Some(_) if !entity.indexes.iter().any(|index| index == column) => Err(HandlerError::new(format!(
                "find: {what} by {name}.{column} needs the line `index {column}` at the end of entity! for {name}"
            ))),
            Some(place) => Ok(place),
        };
        let mut query = Query { limit: self.limit, ..Query::default() };
        for (column, comparison, value) in &self.conditions {
            let place = indexed(column, "a condition")?;
            let kind = entity.columns[place].kind;
            match value.kind() {
                Some(given) if given == kind => {}
                Some(given) => {
                    return Err(HandlerError::new(format!(
                        "find: {name}.{column} is {kind}, and is compared with {given}"
                    )));
                }
                None => {
                    return Err(HandlerError::new(format!(
                        "find: the condition on {name}.{column} compares with null, which nothing matches"
                    )));
                }
            }
            check_value(value).map_err(|problem| HandlerError::new(format!("find: {name}.{column}: {problem}")))?;
            query.conditions.push(Condition { column: place, comparison: *comparison, value: value.clone() });
        }
        if let Some((column, is_descending)) = &self.order {
            query.order = Some(OrderBy { column: indexed(column, "an order")?, is_descending: *is_descending });
        }
        Ok(query)
    }
}

/// What a handler works with: its region, its block, and the region's entities.
pub struct Context<'c> {
    pub(super) rows: &'c mut dyn RowAccess,
    pub(super) types: &'c TypeMap,
    pub(super) schema: &'c Schema,
    pub(super) region: &'c str,
    pub(super) region_no: RegionNo,
    pub(super) block: BlockNo,
}

impl Context<'_> {
    /// The region whose lane this is.
    pub fn region(&self) -> &str {
        self.region
    }

    /// The block of the event, or as of which the snapshot is.
    pub fn block(&self) -> i64 {
        self.block.get()
    }

    /// The entity of that id, with everything written so far. Does not wait for a commit.
    ///
    /// # Errors
    /// To be passed on with `?`: the row may have to be loaded first, and then the handler is called again.
    pub fn get<E: EntityRow>(&mut self, id: &str) -> Result<Option<E>, HandlerError> {
        let entry = self.types.entry::<E>()?;
        let row = self.rows.get(entry.entity, self.region_no, id)?;
        Ok(row.map(|row| E::from_values(entry.places.iter().filter_map(|place| row.get(*place)))))
    }

    /// Writes the entity of that id.
    ///
    /// # Errors
    /// A value that no database would keep (a text with NUL, a number that is NaN, an id of more than 2,048 bytes), or in
    /// a snapshot.
    pub fn set<E: EntityRow>(&mut self, id: &str, entity: E) -> Result<(), HandlerError> {
        let entry = self.types.entry::<E>()?;
        let row = self.row_of(entry, entity)?;
        self.write(entry.entity, id, Some(row))
    }

    /// Changes the entity of that id where it stands. `change` gets it with everything written so far, or none; it makes
    /// one by filling that in, and deletes it by taking it out. Returns what `change` returns. What it leaves as none is
    /// not written.
    ///
    /// ```
    /// # forebay::entity! { struct Account in "account" { balance: i64 } }
    /// # fn on_event(ctx: &mut forebay::Context<'_>) -> Result<(), forebay::HandlerError> {
    /// ctx.update("ann", |account| {
    ///     let account = account.get_or_insert(Account { balance: 0 });
    ///     account.balance += 5;
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Context::get`] and [`Context::set`].
    pub fn update<E: EntityRow, R>(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut Option<E>) -> R,
    ) -> Result<R, HandlerError> {
        let entry = self.types.entry::<E>()?;
        let row = self.rows.get(entry.entity, self.region_no, id)?;
        let was_there = row.is_some();
        let mut entity = row.map(|row| E::from_values(entry.places.iter().filter_map(|place| row.get(*place))));
        let answer = change(&mut entity);
        match entity {
            Some(entity) => {
                let row = self.row_of(entry, entity)?;
                self.write(entry.entity, id, Some(row))?;
            }
            None if was_there => self.write(entry.entity, id, None)?,
            None => {}
        }
        Ok(answer)
    }

    /// The values of an entity in the order of its table's columns.
    fn row_of<E: EntityRow>(&self, entry: &TypeEntry, entity: E) -> Result<Row, HandlerError> {
        let values = entity.into_values();
        for (value, place) in values.iter().zip(&entry.places) {
            check_value(value).map_err(|problem| self.refused(entry, *place, problem))?;
        }
        if entry.is_in_order {
            return Ok(values.into());
        }
        let mut row: Vec<Value> = vec![Value::Null; values.len()];
        for (value, place) in values.into_iter().zip(&entry.places) {
            row[*place] = value;
        }
        Ok(row.into())
    }

    /// Deletes the entity of that id, if there is one.
    ///
    /// # Errors
    /// In a snapshot.
    pub fn delete<E: EntityRow>(&mut self, id: &str) -> Result<(), HandlerError> {
        let entry = self.types.entry::<E>()?;
        self.write(entry.entity, id, None)
    }

    /// The entities that match `find`, with their ids and in its order, with everything written so far. Does not wait
    /// for a commit.
    ///
    /// # Errors
    /// As [`Context::get`]; or a column is not among the entity's indexes.
    pub fn find<E: EntityRow>(&mut self, find: &Find) -> Result<Vec<(String, E)>, HandlerError> {
        let entry = self.types.entry::<E>()?;
        let query = find.resolve(&self.schema[entry.entity])?;
        let found = self.rows.find(entry.entity, self.region_no, &query)?;
        let entity = |(id, row): (Box<str>, Row)| {
            (id.into_string(), E::from_values(entry.places.iter().filter_map(|place| row.get(*place))))
        };
        Ok(found.into_iter().map(entity).collect())
    }

    /// How many entities of that kind the region has.
    ///
    /// # Errors
    /// As [`Context::get`].
    pub fn count<E: EntityRow>(&mut self) -> Result<u64, HandlerError> {
        self.count_where::<E>(&Find::all())
    }

    /// How many entities the conditions of `find` hold for, whatever its order and limit.
    ///
    /// # Errors
    /// As [`Context::find`].
    pub fn count_where<E: EntityRow>(&mut self, find: &Find) -> Result<u64, HandlerError> {
        let entry = self.types.entry::<E>()?;
        let query = find.resolve(&self.schema[entry.entity])?;
        self.rows.count(entry.entity, self.region_no, &Query { order: None, limit: None, ..query })
    }

    fn write(&mut self, entity: EntityNo, id: &str, row: Option<Row>) -> Result<(), HandlerError> {
        if id.contains('\0') {
            return Err(HandlerError::new(format!("id {id:?}: a text with a NUL, which no database keeps")));
        }
        if id.len() > ID_BYTES_MAX {
            let (name, len) = (&self.schema[entity].name, id.len());
            return Err(HandlerError::new(format!(
                "{name}: an id of {len} bytes; expected at most {ID_BYTES_MAX}, which is what an index takes"
            )));
        }
        self.rows.write(entity, self.region_no, id, row)
    }

    fn refused(&self, entry: &TypeEntry, place: usize, problem: &str) -> HandlerError {
        let entity = &self.schema[entry.entity];
        HandlerError::new(format!("{}.{}: {problem}", entity.name, entity.columns[place].name))
    }
}

/// Whether a JSON text holds a NUL: the escape itself, and not a backslash before the letters.
fn has_nul(json: &str) -> bool {
    let mut rest = json;
    while let Some((_, escape)) = rest.split_once('\\') {
        if escape.starts_with("u0000") {
            return true;
        }
        rest = escape.get(1..).unwrap_or("");
    }
    false
}

fn check_value(value: &Value) -> Result<(), &'static str> {
    match value {
        Value::Text(text) if text.contains('\0') => Err("a text with a NUL, which no database keeps"),
        Value::Jsonb(text) if has_nul(text) => Err("a text with a NUL, which no database keeps"),
        Value::Double(number) if number.is_nan() => Err("expected a number, got NaN"),
        Value::Numeric(number) if number.clone().checked_len().is_err() => Err("the number has too many digits"),
        _ => Ok(()),
    }
}
