//! What a run may take over of a pipeline file that has changed: what cannot change data.

use std::collections::BTreeSet;

use super::Config;

/// The keys that a run takes over.
const TAKEN: [&str; 9] = [
    "batch.events",
    "batch.memory",
    "log.level",
    "snapshots.dedup",
    "snapshots.every",
    "snapshots.pool",
    "snapshots.timeout",
    "snapshots.ttl",
    "source.settle",
];

/// A pipeline file that has changed in more than a run may take over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot change while a run goes on; what can: {}", keys.join(", "), TAKEN.join(", "))]
#[non_exhaustive]
pub struct ReloadRefused {
    /// The keys that have changed, and may not.
    pub keys: Vec<String>,
}

impl Config {
    /// The keys in which a newer text of the file differs, in order, if a run may take them all over
    /// ([`crate::ReloadHandle`]).
    ///
    /// # Errors
    /// Another key differs too.
    pub fn changes_to(&self, newer: &Self) -> Result<Vec<String>, ReloadRefused> {
        let names: BTreeSet<&String> = self.keys.keys().chain(newer.keys.keys()).collect();
        let changed = names.into_iter().filter(|name| self.keys.get(*name) != newer.keys.get(*name)).cloned();
        let (taken, keys): (Vec<String>, Vec<String>) = changed.partition(|name| TAKEN.contains(&name.as_str()));
        if keys.is_empty() { Ok(taken) } else { Err(ReloadRefused { keys }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipeline file with these lines beside what it needs.
    fn config(more: &str) -> Config {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("h.lua"), "function on_event() end").expect("a script");
        let text =
            format!("name = \"p\"\nhandlers.script = \"h.lua\"\nentities.a.columns = {{ n = \"bigint\" }}\n{more}");
        Config::parse(&folder.path().join("p.toml"), &text).expect("a pipeline")
    }

    #[test]
    fn what_cannot_change_data_is_taken_over_and_the_rest_is_named() {
        let old = config("[source]\nsettle = \"2s\"\n[snapshots]\nevery = \"1s\"\n");
        let same = config("\n# moved\n[snapshots]\nevery = \"1s\"\n[source]\nsettle = '2s'\n");
        assert_eq!(old.changes_to(&same), Ok(Vec::new()));
        let new =
            config("[batch]\nevents = 1_000\n[log]\nlevel = \"debug\"\n[snapshots]\nttl = \"9d\"\nevery = \"batch\"\n");
        let taken = ["batch.events", "log.level", "snapshots.every", "snapshots.ttl", "source.settle"];
        assert_eq!(old.changes_to(&new).as_deref(), Ok(&taken.map(str::to_owned)[..]));
        let other = config(
            "[snapshots]\nevery = \"2s\"\n[entities.b]\ncolumns = { n = \"bigint\" }\n[snapshots.keys]\nlive = \"l:<region>\"\n",
        );
        let refused = old.changes_to(&other).expect_err("refused");
        assert_eq!(refused.keys, ["entities.b.columns.n", "snapshots.keys.live"]);
        assert!(
            refused.to_string().starts_with("entities.b.columns.n, snapshots.keys.live cannot change"),
            "{refused}"
        );
    }
}
