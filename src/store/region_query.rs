//! Queries over the rows of one region, as stores take them.

use crate::model::query::Query;

/// A query over the rows of one region.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RegionQuery<'a> {
    /// The region.
    pub region: &'a str,
    /// The query.
    pub query: &'a Query,
}

/// A count of the rows of one region.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RegionCount<'a> {
    /// Which rows count; order and limit of the query do not matter.
    pub of: RegionQuery<'a>,
    /// Ids of rows that do not count.
    pub but: &'a [&'a str],
}

impl<'a> RegionCount<'a> {
    /// A count of the rows that match the query, without those that have one of the ids.
    pub fn new(of: RegionQuery<'a>, but: &'a [&'a str]) -> Self {
        Self { of, but }
    }
}
