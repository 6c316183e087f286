//! What is found of any store, judged: ok, warning or problem, and what to do. Pure.

use crate::model::finding::Finding;

/// The format of our tables; none if no run has made them.
pub(super) fn format(found: Option<i64>, ours: i64) -> Finding {
    const NAME: &str = "store_format";
    match found {
        None => Finding::ok(NAME, "there are no tables of this pipeline yet; the first run makes them"),
        Some(found) if found > ours => Finding::problem(
            NAME,
            format!("the tables are of format {found}, of a later forebay; this one knows {ours}"),
            "use the forebay that wrote them, or a later one",
        ),
        Some(found) if found < ours => {
            Finding::ok(NAME, format!("the tables are of format {found}; the next run brings them to {ours}"))
        }
        Some(found) => Finding::ok(NAME, format!("the tables are of format {found}, which this forebay writes")),
    }
}

/// Who writes to the pipeline.
pub(super) fn lock(holder: Option<&str>) -> Finding {
    const NAME: &str = "store_lock";
    match holder {
        None => Finding::ok(NAME, "nobody writes to the pipeline"),
        Some(holder) => Finding::ok(NAME, format!("a run is under way: {holder}")),
    }
}

#[cfg(feature = "sqlite")]
pub(super) use of_files::{commit, file_system, space};

/// What only a store in a file has.
#[cfg(feature = "sqlite")]
mod of_files {
    use crate::model::finding::Finding;
    use crate::model::judgement::{bytes_text, millis_text};

    /// What bringing a commit to disk may take: a disk that turns takes 10 ms.
    const SYNC_MILLIS_MAX: f64 = 30.0;

    /// Free space below which a run is about to fail, and below which it is told. A log of SQLite grows to a few MiB, and a
    /// transaction to as much as `batch.memory`.
    const FREE_BYTES_LEAST: u64 = 16 << 20;
    const FREE_BYTES_MIN: u64 = 512 << 20;

    /// Of the database: so many parts of it must be free, as it grows by its use.
    const FREE_PART: u64 = 10;

    /// What bringing a commit to disk takes.
    pub(in crate::store) fn commit(millis: f64) -> Finding {
        let text = format!("bringing a commit to disk takes {}", millis_text(millis));
        let finding = match millis < SYNC_MILLIS_MAX {
            true => Finding::ok("store_commit", text),
            false => Finding::warning(
                "store_commit",
                text,
                "put the file on a faster disk; larger batches ([batch] events) pay it less often",
            ),
        };
        finding.with_millis(millis)
    }

    /// Free space in the folder, against the size of the database.
    pub(in crate::store) fn space(free_bytes: u64, database_bytes: u64) -> Finding {
        const NAME: &str = "store_space";
        let text = format!("{} are free, and the database has {}", bytes_text(free_bytes), bytes_text(database_bytes));
        let advice = "free some space on that disk, or move the database to a larger one";
        match free_bytes {
            ..FREE_BYTES_LEAST => Finding::problem(NAME, format!("the disk is full: {text}"), advice),
            free if free < FREE_BYTES_MIN.max(database_bytes / FREE_PART) => {
                Finding::warning(NAME, format!("the disk is nearly full: {text}"), advice)
            }
            _ => Finding::ok(NAME, text),
        }
    }

    /// The kind of file system, by the number that Linux has for it (`linux/magic.h`).
    pub(in crate::store) fn file_system(magic: u64) -> Finding {
        const NAME: &str = "store_file_system";
        let name = match magic {
            0x6969 => "NFS",
            0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
            0x0102_1997 => "9P",
            0x6573_5546 => "FUSE",
            0x0102_1994 => {
                return Finding::warning(
                    NAME,
                    "the file lies in memory (tmpfs): it is gone when the machine stops",
                    "put it on a disk, unless that is meant",
                );
            }
            _ => return Finding::ok(NAME, "the file lies on a file system of this machine"),
        };
        Finding::warning(
            NAME,
            format!(
                "the file lies on {name}: SQLite's log wants memory that all who open the file share, and a lock that holds"
            ),
            "put it on a disk of this machine, or use Postgres",
        )
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::model::finding::FindingState::{Ok, Problem, Warning};

        #[test]
        fn disks_are_judged() {
            for (free, database, state) in [
                (0, 0, Problem),
                ((16 << 20) - 1, 0, Problem),
                (16 << 20, 0, Warning),
                (512 << 20, 1 << 30, Ok),
                (1 << 30, 20 << 30, Warning),
                (2 << 30, 20 << 30, Ok),
                (u64::MAX, u64::MAX, Ok),
            ] {
                assert_eq!(space(free, database).state, state, "{free} of {database}");
            }
            assert_eq!((commit(29.0).state, commit(30.0).state), (Ok, Warning));
            for (magic, state, says) in [
                (0xef53, Ok, "of this machine"),
                (0x6969, Warning, "NFS"),
                (0xfe53_4d42, Warning, "SMB"),
                (0x0102_1994, Warning, "tmpfs"),
            ] {
                let found = file_system(magic);
                assert!(found.state == state && found.message.contains(says), "{found:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::finding::FindingState::{Ok, Problem};

    #[test]
    fn formats_and_locks_are_judged() {
        for (found, state, says) in [
            (None, Ok, "the first run makes them"),
            (Some(1), Ok, "the next run brings them to 2"),
            (Some(2), Ok, "which this forebay writes"),
            (Some(3), Problem, "of a later forebay; this one knows 2"),
        ] {
            let judged = format(found, 2);
            assert!(judged.state == state && judged.message.contains(says), "{judged:?}");
        }
        assert!(lock(None).message.contains("nobody"));
        assert!(lock(Some("forebay (pid 7)")).message.contains("forebay (pid 7)"));
    }
}
