//! The changed rows of one region in one table, as a batch carries them.

use std::sync::Arc;

use super::codec::{CHANGE_AT, Change, CodecError, Decoder, RowHead, Writer};
use crate::model::schema::Entity;

/// Where one changed row lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowAt {
    /// Where it begins in the bytes of its region.
    pub start: usize,
    /// What the batch did to it.
    pub change: Change,
    /// The event that wrote it.
    pub writer: Writer,
}

/// The changed rows of one region in one table, sorted by id byte by byte, one row an id.
#[derive(Debug, Clone)]
pub struct RegionChanges {
    /// The region.
    pub region: Arc<str>,
    /// The rows in packed form ([`crate::store::batch::codec`]), or in that of the store, if it has an encoder
    /// ([`crate::store::RowEncoder`]).
    pub packed: Vec<u8>,
    /// Where the rows lie in `packed`, ordered by id.
    pub rows: Vec<RowAt>,
}

/// How many rows of a table were changed in each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ChangeCounts {
    pub(crate) deleted: usize,
    pub(crate) written: usize,
    pub(crate) new: usize,
}

impl ChangeCounts {
    pub(crate) fn of(regions: &[RegionChanges]) -> Self {
        let mut counts = Self::default();
        for row in regions.iter().flat_map(|region| &region.rows) {
            match row.change {
                Change::Deleted => counts.deleted += 1,
                Change::Written => counts.written += 1,
                Change::New => counts.new += 1,
            }
        }
        counts
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn all(self) -> usize {
        self.deleted + self.written + self.new
    }
}

impl RegionChanges {
    /// Takes packed rows in any order and sorts them by id, byte by byte.
    ///
    /// # Errors
    /// The bytes do not follow the packed format.
    pub fn new(entity: &Entity, region: Arc<str>, packed: Vec<u8>) -> Result<Self, CodecError> {
        Self::checked(entity, region, packed, |_, change| change == Change::New)
    }

    /// As [`RegionChanges::new`]. `is_new` gets the id and the change of each written row; a row stays `New` only if it
    /// returns true for it.
    ///
    /// # Errors
    /// As [`RegionChanges::new`].
    pub fn checked(
        entity: &Entity,
        region: Arc<str>,
        mut packed: Vec<u8>,
        mut is_new: impl FnMut(&str, Change) -> bool,
    ) -> Result<Self, CodecError> {
        let mut keyed = Vec::new();
        let mut not_new = Vec::new();
        let mut decoder = Decoder::new(entity, &packed, 0);
        while !decoder.is_at_end() {
            let start = decoder.at();
            let RowHead { id, mut change, writer } = decoder.skip()?;
            if change != Change::Deleted && !is_new(id, change) && change == Change::New {
                change = Change::Written;
                not_new.push(start + CHANGE_AT + id.len());
            }
            keyed.push((id, RowAt { start, change, writer }));
        }
        keyed.sort_unstable_by_key(|(id, _)| *id);
        let rows = keyed.into_iter().map(|(_, row)| row).collect();
        for at in not_new {
            packed[at] = Change::Written as u8;
        }
        Ok(Self { region, packed, rows })
    }

    /// Bytes of memory it takes, about.
    pub fn memory_bytes(&self) -> usize {
        self.packed.capacity() + self.rows.capacity() * size_of::<RowAt>()
    }
}
