//! Reading committed rows beside the writer.

use super::error::StoreError;
use super::region_query::{RegionCount, RegionQuery};
use crate::model::ids::EntityNo;

/// Opens readers of rows, one for each lane that misses any.
pub trait OpenReader: Send + Sync {
    /// Opens one. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn open(&self) -> Result<Box<dyn RowReader>, StoreError>;
}

/// How much of a region's table is worth loading whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionLimit {
    /// Rows at most.
    pub rows: usize,
    /// Bytes in packed form at most.
    pub bytes: usize,
}

/// Rows of one region.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RegionIds<'a> {
    /// The region.
    pub region: &'a str,
    /// The ids, each once.
    pub ids: &'a [&'a str],
}

impl<'a> RegionIds<'a> {
    /// Rows of a region by their ids, each once.
    pub fn new(region: &'a str, ids: &'a [&'a str]) -> Self {
        Self { region, ids }
    }
}

/// Reads committed rows. What it sees may be newer from one call to the next, never older.
pub trait RowReader: Send {
    /// Appends those of the rows that exist, in packed form and in any order, to the bytes of their region in `found`,
    /// which is as long as `wanted`. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn rows(&mut self, entity: EntityNo, wanted: &[RegionIds<'_>], found: &mut [Vec<u8>]) -> Result<(), StoreError>;

    /// Appends the rows of each region, in packed form, to its bytes in `found`, which is as long as `regions`; returns
    /// for each whether all of its rows were appended. Of a region with more than the limit any part may be. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn regions(
        &mut self,
        entity: EntityNo,
        regions: &[&str],
        limit: RegionLimit,
        found: &mut [Vec<u8>],
    ) -> Result<Vec<bool>, StoreError>;

    /// Appends the keys of rows that lie behind `after`, ordered by region and id byte by byte: `limit` of them, or
    /// fewer if there are no more. Asked one after another, these pages give the key of each row that is there all the
    /// while. Defaults to an error: then a run asks for each row that it does not know. May block.
    ///
    /// # Errors
    /// The store does not answer, or cannot do this.
    fn keys(
        &mut self,
        entity: EntityNo,
        after: Option<(&str, &str)>,
        limit: usize,
        page: &mut KeyPage,
    ) -> Result<(), StoreError> {
        let _ = (entity, after, limit, page);
        Err(StoreError::other("this store cannot give the keys of a table: RowReader::keys"))
    }

    /// Appends the first rows of each query, in packed form, to its bytes in `found`, which is as long as `wanted`: at
    /// least as many as its limit, if there are as many, and in any order. Those are among them that come first in the
    /// query's order. Defaults to an error. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn find(&mut self, entity: EntityNo, wanted: &[RegionQuery<'_>], found: &mut [Vec<u8>]) -> Result<(), StoreError> {
        let _ = (entity, wanted, found);
        Err(StoreError::other("this store cannot find rows by column: RowReader::find"))
    }

    /// Counts the rows of a region that match a query, whatever its order and limit, without those whose id is among
    /// `but`. Defaults to an error. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn count(&mut self, entity: EntityNo, wanted: RegionQuery<'_>, but: &[&str]) -> Result<u64, StoreError> {
        let _ = (entity, wanted, but);
        Err(StoreError::other("this store cannot count rows: RowReader::count"))
    }

    /// Counts as [`Self::count`] does, for each of `wanted`. Defaults to one count after another; a store that is far away
    /// answers all of them in a number of round trips that does not depend on how many they are. May block.
    ///
    /// # Errors
    /// The store does not answer.
    fn counts(&mut self, entity: EntityNo, wanted: &[RegionCount<'_>]) -> Result<Vec<u64>, StoreError> {
        wanted.iter().map(|RegionCount { of, but }| self.count(entity, *of, but)).collect()
    }
}

/// Keys of rows of one table, in order.
#[derive(Debug, Clone, Default)]
pub struct KeyPage {
    /// Each region, and the number of keys up to its end.
    regions: Vec<(Box<str>, usize)>,
    ids: String,
    /// Where each id ends.
    ends: Vec<usize>,
}

impl KeyPage {
    /// Appends a key. Keys of a region come one after another.
    pub fn push(&mut self, region: &str, id: &str) {
        if self.regions.last().is_none_or(|(last, _)| **last != *region) {
            self.regions.push((region.into(), 0));
        }
        self.ids.push_str(id);
        self.ends.push(self.ids.len());
        if let Some((_, end)) = self.regions.last_mut() {
            *end = self.ends.len();
        }
    }

    /// The regions and ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let starts = std::iter::once(0).chain(self.regions.iter().map(|(_, end)| *end));
        self.regions.iter().zip(starts).flat_map(|((region, end), start)| {
            (start..*end).map(|at| (&**region, &self.ids[self.start(at)..self.ends[at]]))
        })
    }

    /// The last key.
    pub fn last(&self) -> Option<(&str, &str)> {
        let (region, _) = self.regions.last()?;
        let at = self.ends.len() - 1;
        Some((region, &self.ids[self.start(at)..]))
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}
