//! The default of `batch.memory`: 512 MiB, or a half of what the system lets this process have, if that is less.
//!
//! A container or a systemd unit limits memory by a control group
//! (<https://docs.kernel.org/admin-guide/cgroup-v2.html>, `memory.max` and `memory.high`;
//! <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>, `memory.limit_in_bytes`). A group cannot have more than
//! those above it, so the least of them counts. The other half is for what the budget does not count: the program, the
//! page cache, what the allocator keeps.

use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use crate::model::limits::{MEMORY_BYTES_DEFAULT_MAX, MEMORY_BYTES_MIN};

/// What version 1 says for no limit is near the largest number; nobody has as much.
const LIMIT_BYTES_MAX: u64 = 1 << 60;

/// The default, in bytes. Asks the system once.
pub(super) fn default_bytes() -> u64 {
    static DEFAULT: OnceLock<u64> = OnceLock::new();
    *DEFAULT.get_or_init(|| default_within(limit_bytes()))
}

/// What the control groups of this process let it have, in bytes; none if they set no limit.
pub(super) fn limit_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_of(&groups, Path::new("/sys/fs/cgroup"))
}

fn default_within(limit: Option<u64>) -> u64 {
    limit.map_or(MEMORY_BYTES_DEFAULT_MAX, |limit| (limit / 2).clamp(MEMORY_BYTES_MIN, MEMORY_BYTES_DEFAULT_MAX))
}

/// The least limit of the groups that a text as in `/proc/self/cgroup` names, and of those above them, below `root`.
fn limit_of(groups: &str, root: &Path) -> Option<u64> {
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        match (number, controllers) {
            // Version 2 stands alone, or beside version 1 in a folder of its own.
            ("0", "") => [root.to_owned(), root.join("unified")]
                .iter()
                .filter_map(|root| least(root, group, &["memory.max", "memory.high"]))
                .min(),
            _ if controllers.split(',').any(|name| name == "memory") => {
                least(&root.join("memory"), group, &["memory.limit_in_bytes"])
            }
            _ => None,
        }
    };
    groups.lines().filter_map(of_line).min()
}

/// The least number in those files of a group and of all above it. In a container the group's own folder may not be
/// there, because the root is the container's.
fn least(root: &Path, group: &str, files: &[&str]) -> Option<u64> {
    let parts = Path::new(group).components().filter(|part| matches!(part, Component::Normal(_)));
    let mut folder: PathBuf = root.to_owned();
    let mut folders = vec![folder.clone()];
    for part in parts {
        folder.push(part);
        folders.push(folder.clone());
    }
    let number = |file: PathBuf| -> Option<u64> { std::fs::read_to_string(file).ok()?.trim().parse().ok() };
    let all = folders.iter().flat_map(|folder| files.iter().map(|file| folder.join(file)));
    all.filter_map(number).filter(|limit| *limit < LIMIT_BYTES_MAX).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Its name, the groups, files with their texts, and the limit.
    type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], Option<u64>);

    /// A tree of files with their texts.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (file, text) in files {
            let file = root.path().join(file);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            std::fs::write(file, text).expect("a file");
        }
        root
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_above_it_counts() {
        let cases: &[Case] = &[
            ("no limit", "0::/a", &[("a/memory.max", "max\n"), ("a/memory.high", "max\n")], None),
            ("a limit", "0::/a\n", &[("a/memory.max", "268435456\n")], Some(256 * MIB)),
            ("the parent's", "0::/a/b", &[("a/memory.max", "1048576\n"), ("a/b/memory.max", "max\n")], Some(MIB)),
            ("high below max", "0::/a", &[("a/memory.max", "4194304"), ("a/memory.high", "2097152")], Some(2 * MIB)),
            ("the root of a container", "0::/", &[("memory.max", "1048576")], Some(MIB)),
            ("a group out of sight", "0::/../../x", &[("memory.max", "1048576")], Some(MIB)),
            ("a folder that is not there", "0::/docker/1", &[("memory.max", "1048576")], Some(MIB)),
            ("no files at all", "0::/a", &[], None),
            (
                "version 1",
                "9:name=systemd:/x\n4:cpu,memory:/a/b\n",
                &[
                    ("memory/a/memory.limit_in_bytes", "3145728\n"),
                    ("memory/a/b/memory.limit_in_bytes", "9223372036854771712"),
                ],
                Some(3 * MIB),
            ),
            (
                "version 1 without a limit",
                "4:memory:/",
                &[("memory/memory.limit_in_bytes", "9223372036854771712")],
                None,
            ),
            (
                "both",
                "4:memory:/a\n0::/b\n",
                &[("memory/a/memory.limit_in_bytes", "2097152"), ("unified/b/memory.max", "1048576")],
                Some(MIB),
            ),
            ("not for memory", "4:cpu:/a", &[("memory/a/memory.limit_in_bytes", "1048576")], None),
            ("nonsense", "what\n:\n0:\n0::", &[("memory.max", "much")], None),
        ];
        for (name, groups, files, limit) in cases {
            let root = tree(files);
            assert_eq!(limit_of(groups, root.path()), *limit, "{name}");
        }
    }

    #[test]
    fn the_default_is_a_half_of_it_within_bounds() {
        for (limit, bytes) in [
            (None, 512 * MIB),
            (Some(u64::MAX / 4), 512 * MIB),
            (Some(1025 * MIB), 512 * MIB),
            (Some(512 * MIB), 256 * MIB),
            (Some(40 * MIB), 20 * MIB),
            (Some(8 * MIB), 16 * MIB),
            (Some(0), 16 * MIB),
        ] {
            assert_eq!(default_within(limit), bytes, "{limit:?}");
        }
        assert!((MEMORY_BYTES_MIN..=MEMORY_BYTES_DEFAULT_MAX).contains(&default_bytes()));
    }
}
