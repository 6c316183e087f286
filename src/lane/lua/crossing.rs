//! How ids, numbers and errors cross between the VM and the host.

use mlua::prelude::*;

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
pub(super) fn each_id(mut packed: &[u8]) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || take_id(&mut packed))
}

/// The same in a list.
pub(super) fn split_ids(packed: &[u8]) -> Vec<&str> {
    each_id(packed).collect()
}

/// How Lua says that its memory is used up.
pub(super) const OUT_OF_MEMORY: &str = "not enough memory";

/// What an error of the VM says, without the places in our own files that it came through.
pub(super) fn problem_of(error: &LuaError) -> String {
    let text = match error {
        LuaError::RuntimeError(text) => text.clone(),
        LuaError::MemoryError(_) => OUT_OF_MEMORY.to_owned(),
        LuaError::CallbackError { cause, .. } => problem_of(cause),
        other => other.to_string(),
    };
    text.split("\nstack traceback:").next().unwrap_or_default().to_owned()
}

/// Whether a call failed because the VM's memory is used up.
pub(super) fn is_out_of_memory(error: &LuaError) -> bool {
    match error {
        LuaError::MemoryError(_) => true,
        LuaError::CallbackError { cause, .. } => is_out_of_memory(cause),
        _ => false,
    }
}
