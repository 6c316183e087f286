//! What happens to events that come out of order.

/// What to do with an event whose place has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Late {
    /// End the run.
    #[default]
    Error,
    /// Leave it out and count it.
    Skip,
}
