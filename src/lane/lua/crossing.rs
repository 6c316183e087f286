//! How ids and numbers cross between the VM and the host.

use crate::model::ids::{EntityNo, RegionNo};

/// A table and a region by the inner side's numbers, which begin at 1.
pub(super) fn numbers(kind: usize, region: usize) -> (EntityNo, RegionNo) {
    (EntityNo::at(kind - 1), RegionNo::at(region - 1))
}

/// Takes an id behind its length of 4 bytes off the front. Ids are checked where they come in.
pub(super) fn take_id<'p>(packed: &mut &'p [u8]) -> Option<&'p str> {
    let (len, rest) = packed.split_first_chunk::<4>()?;
    let (id, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *packed = rest;
    Some(std::str::from_utf8(id).unwrap_or(""))
}

/// Ids, each behind its length of 4 bytes.
pub(super) fn split_ids(mut packed: &[u8]) -> Vec<&str> {
    std::iter::from_fn(|| take_id(&mut packed)).collect()
}
