//! What a handler's context reads and writes.

use super::error::HandlerError;
use crate::model::ids::{EntityNo, RegionNo};
use crate::model::query::Query;
use crate::model::value::Row;

/// What a context reads and writes.
pub(super) trait RowAccess {
    fn get(&mut self, entity: EntityNo, region: RegionNo, id: &str) -> Result<Option<&Row>, HandlerError>;
    fn write(&mut self, entity: EntityNo, region: RegionNo, id: &str, row: Option<Row>) -> Result<(), HandlerError>;
    fn find(&mut self, entity: EntityNo, region: RegionNo, query: &Query)
    -> Result<Vec<(Box<str>, Row)>, HandlerError>;
    fn count(&mut self, entity: EntityNo, region: RegionNo, query: &Query) -> Result<u64, HandlerError>;
}
