//! Queries that the inner side asks of the store besides rows by id: the first rows of a query, or a count.

use mlua::prelude::*;

use super::crossing::{numbers, split_ids};
use super::regions::KnownRegions;
use crate::model::ids::{EntityNo, RegionNo};
use crate::model::query::{Comparison, Condition, OrderBy, Query};
use crate::model::schema::{Entity, Schema};
use crate::rows::codec::{Decoder, ValueRef};
use crate::store::RegionQuery;

/// A question. Its number is the inner side's.
pub(super) struct Question {
    pub(super) number: u64,
    pub(super) entity: EntityNo,
    /// Whether a call asks that counts, and not a dry run.
    pub(super) is_sure: bool,
    region: RegionNo,
    query: Query,
    /// Of a count, the ids that do not count, each behind its length of 4 bytes; none of a search.
    but: Option<Vec<u8>>,
}

/// As `find.lua` gives it: number, kind, region, whether it is a count, conditions, the column of the order (0 for none),
/// whether it is descending, the limit (-1 for none), the ids that a count leaves out, whether a call asks that counts.
type Given = (u64, usize, usize, bool, LuaString, usize, bool, i64, LuaString, bool);

impl Question {
    /// Takes what the inner side gave.
    pub(super) fn new(schema: &Schema, given: LuaMultiValue, lua: &Lua) -> LuaResult<Self> {
        let given = Given::from_lua_multi(given, lua)?;
        let (number, kind, region, is_count, conditions, place, is_descending, limit, but, is_sure) = given;
        let (entity, region) = numbers(kind, region);
        let query = Query {
            conditions: read_conditions(&schema[entity], &conditions.as_bytes())?,
            order: place.checked_sub(1).map(|column| OrderBy { column, is_descending }),
            limit: usize::try_from(limit).ok(),
        };
        let but = is_count.then(|| but.as_bytes().to_vec());
        Ok(Self { number, entity, is_sure, region, query, but })
    }

    /// As the store takes it.
    pub(super) fn of<'q>(&'q self, regions: &'q KnownRegions) -> RegionQuery<'q> {
        let region = regions.name(self.region).map_or("", |name| &**name);
        RegionQuery { region, query: &self.query }
    }

    /// Of a count, the ids that do not count.
    pub(super) fn but(&self) -> Option<Vec<&str>> {
        self.but.as_deref().map(split_ids)
    }
}

/// Conditions: place (2 bytes), comparison (1 byte), and a packed row that holds the value, behind its length of 4 bytes.
fn read_conditions(entity: &Entity, mut packed: &[u8]) -> LuaResult<Vec<Condition>> {
    let broken = || LuaError::runtime("the conditions of a query break off");
    let mut conditions = Vec::new();
    while !packed.is_empty() {
        let (head, rest) = packed.split_first_chunk::<7>().ok_or_else(broken)?;
        let [low, high, comparison, len @ ..] = *head;
        let (row, rest) = rest.split_at_checked(u32::from_le_bytes(len) as usize).ok_or_else(broken)?;
        packed = rest;
        let column = usize::from(u16::from_le_bytes([low, high]));
        let mut values = Vec::new();
        Decoder::new(entity, row, 0).row(&mut values).map_err(LuaError::external)?;
        let value = values.get(column).map(ValueRef::to_value).ok_or_else(broken)?;
        let comparison = Comparison::ALL.get(usize::from(comparison)).copied().ok_or_else(broken)?;
        conditions.push(Condition { column, comparison, value });
    }
    Ok(conditions)
}
