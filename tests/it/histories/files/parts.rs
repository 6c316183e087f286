//! Parts of what may happen that are left out: there runs do not yet do what they promise. A part that is taken off the
//! list is lived from then on.

/// One such part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The name of a file that was removed is given to a new one.
    ReusedNames,
    /// A file was removed, and another one has grown, or was joined with others, under a name that it did not have.
    GrownUnderNewNames,
    /// A file is gone, and something comes late, or a replay goes back to before the blocks of that file.
    LateAndGone,
    /// A block lies in several files, and one of them is gone.
    PartsOfBlocks,
    /// A run ended within a file at the last block that was wanted, and that file is removed or has late lines.
    Until,
    /// Of a replay over lines out of order, or a file that ends with a late line, the files are removed.
    Unsettled,
    /// A file was renamed and has late lines.
    RenamedLate,
    /// Blocks with hashes come out of order.
    HashesOutOfOrder,
    /// A line was corrected, and left out: every run is to tell it.
    Corrections,
    /// As many late lines are counted as there are.
    LateCounts,
    /// What an error names of a replay, of a source whose last block is open, with hashes, or where file numbers are
    /// used again.
    Names,
    /// A line that is no event waits for an event of another file, begins a file, stands alone, or stands in a source
    /// that steps back.
    Headless,
}

const LEFT_OUT: &[Part] = &[Part::Unsettled, Part::LateCounts, Part::Headless, Part::RenamedLate, Part::Names];

impl Part {
    pub fn is_lived(self) -> bool {
        !LEFT_OUT.contains(&self)
    }
}
