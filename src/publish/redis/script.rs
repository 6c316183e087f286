//! Scripts that run in Redis.
//!
//! A request sends the text of a script once and its digest after that: on one connection a script that has run is
//! known to the commands behind it, so no round trip is spent on loading it.

use redis::Cmd;

/// A script and its digest.
pub(super) struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, digest: redis::Script::new(text).get_hash().to_owned() }
    }

    /// What publishes one region.
    pub(super) fn publish() -> Self {
        Self::new(include_str!("scripts/publish.lua"))
    }

    /// What begins a region's time to live anew.
    pub(super) fn refresh() -> Self {
        Self::new(include_str!("scripts/keep.lua"))
    }

    /// What writes the summary, if it is what was read.
    pub(super) fn replace() -> Self {
        Self::new(include_str!("scripts/replace.lua"))
    }

    /// What writes the health key and gives the lock back.
    pub(super) fn settle() -> Self {
        Self::new(include_str!("scripts/settle.lua"))
    }

    /// What renews the lock.
    pub(super) fn renew() -> Self {
        Self::new(include_str!("scripts/renew.lua"))
    }

    /// What reads a region's newest.
    pub(super) fn latest() -> Self {
        Self::new(include_str!("scripts/latest.lua"))
    }

    /// What reads every region's newest.
    pub(super) fn all() -> Self {
        Self::new(include_str!("scripts/all.lua"))
    }

    /// What says which commands the user may not run.
    pub(super) fn examine() -> Self {
        Self::new(include_str!("scripts/examine.lua"))
    }

    /// What reads a region's snapshots.
    pub(super) fn history() -> Self {
        Self::new(include_str!("scripts/history.lua"))
    }

    /// A call of it; `is_known` if a call before it on the same connection has sent its text.
    pub(super) fn call<'a>(
        &self,
        is_known: bool,
        keys: impl IntoIterator<Item = &'a str>,
        arguments: impl IntoIterator<Item = &'a [u8]>,
    ) -> Cmd {
        let keys: Vec<&str> = keys.into_iter().collect();
        let mut command = redis::cmd(if is_known { "EVALSHA" } else { "EVAL" });
        command.arg(if is_known { self.digest.as_str() } else { self.text }).arg(keys.len());
        keys.into_iter().for_each(|key| {
            command.arg(key);
        });
        arguments.into_iter().for_each(|argument| {
            command.arg(argument);
        });
        command
    }
}
