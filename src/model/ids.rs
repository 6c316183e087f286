//! Numbers that must not be confused with one another.
//!
//! Inside the program each of them is a type of its own. At its borders (a source's event, a handler's context, the report,
//! SQL) a block is an `i64` and a batch a `u64`, as users write them.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// The number of that value.
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// Its value.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// A region's number: the place in the order in which the run first saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionNo(u32);

impl RegionNo {
    /// The region at that place of the order.
    pub fn at(place: usize) -> Self {
        Self(u32::try_from(place).unwrap_or(u32::MAX))
    }

    /// The regions in order.
    pub fn in_order() -> impl Iterator<Item = Self> {
        (0..).map(Self::at)
    }

    /// Its place, for a list of all regions.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl From<u32> for RegionNo {
    fn from(value: u32) -> Self {
        Self(value)
    }
}

/// The number of an entity: its place in the schema, which orders entities by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityNo(usize);

impl EntityNo {
    /// The entity at that place of the schema.
    pub const fn at(place: usize) -> Self {
        Self(place)
    }

    /// The entities in order, for a list that has one element for each.
    pub fn in_order() -> impl Iterator<Item = Self> {
        (0..).map(Self)
    }

    /// Its place, for a list that has one element for each entity.
    pub const fn index(self) -> usize {
        self.0
    }
}

number! {
    /// The number of a block of the data, as the source gives it. Numbers grow and may leave gaps.
    BlockNo(i64)
}

impl BlockNo {
    /// The number before this one, whether or not there is such a block.
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

number! {
    /// The number of a batch: 1 is the pipeline's first. 0 stands for none.
    BatchNo(u64)
}

impl BatchNo {
    /// No batch.
    pub const NONE: Self = Self(0);

    /// The batch after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Which batch new changes belong to, and which batch is committed. The engines get it with every order, so that an
/// uncommitted row is never evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchClock {
    /// The batch that handlers fill.
    pub open: BatchNo,
    /// Batches up to this one are committed. Later ones may be by now.
    pub committed: BatchNo,
}

impl BatchClock {
    /// The clock of the pipeline's first batch.
    pub const fn first() -> Self {
        Self { open: BatchNo(1), committed: BatchNo::NONE }
    }
}

number! {
    /// How many block numbers back a rollback may go: `rollback.depth`. With 0 nothing is kept.
    Depth(u64)
}

impl Depth {
    /// The oldest block that a rollback can go to when `tip` is the last one. What changed in it or before it needs no
    /// before-image any more. This is the only place that computes it: one off by one here would be a silent wrong undo.
    pub const fn oldest(self, tip: BlockNo) -> BlockNo {
        BlockNo(tip.0.saturating_sub_unsigned(self.0))
    }

    /// Whether anything is kept at all.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_block_of_a_depth() {
        for (depth, tip, oldest) in
            [(0, 7, 7), (1, 7, 6), (7, 7, 0), (10, 7, -3), (u64::MAX, 0, i64::MIN), (5, i64::MIN, i64::MIN)]
        {
            assert_eq!(Depth::new(depth).oldest(BlockNo::new(tip)), BlockNo::new(oldest), "{depth} behind {tip}");
        }
        assert!(Depth::new(0).is_none() && !Depth::new(1).is_none());
    }
}
