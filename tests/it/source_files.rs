//! Which files a path names, in what order, and what is said of the others.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::support::cases::{PIPELINE, SCRIPT, assert_none, blocks, complaint, complaint_untouched};
use crate::support::project::{Outcome, Project};

/// A project whose files are made by name: each holds one block, its number.
fn project(files: &[(&str, i64)]) -> Project {
    let project = Project::with(PIPELINE, SCRIPT, "");
    for (name, block) in files {
        put(&project, name, blocks([*block]));
    }
    project
}

fn put(project: &Project, name: &str, bytes: impl AsRef<[u8]>) {
    let path = project.path(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    let bytes = bytes.as_ref();
    std::fs::write(path, if name.ends_with(".gz") { gzip(bytes) } else { bytes.to_vec() }).expect(name);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

fn run(project: &Project, source: &str) -> Outcome {
    project.forebay(&["run", "pipeline.toml", "--source", source])
}

/// The blocks that were handled.
fn handled(project: &Project) -> String {
    let rows = project.query("p.db", "SELECT id FROM thing ORDER BY CAST(id AS INTEGER)");
    rows.into_iter().map(|row| row[0].clone()).collect::<Vec<_>>().join(" ")
}

/// The one warning of a run; empty if there is none.
fn warning(outcome: &Outcome) -> String {
    let stderr = outcome.stderr();
    let mut warnings = stderr.lines().filter(|line| line.contains("WARN"));
    let first = warnings.next().unwrap_or_default().to_owned();
    assert!(warnings.next().is_none(), "one warning a run\n{outcome}");
    first
}

/// What is wrong with a run that handles these blocks, and warns with each of these; without one if there are none.
fn wrong(name: &str, project: &Project, source: &str, expected: &str, says: &[&str]) -> Option<String> {
    let outcome = run(project, source);
    let warning = warning(&outcome);
    let found = if outcome.code() == Some(0) { handled(project) } else { "an error".to_owned() };
    let is_told = says.iter().all(|text| warning.contains(text)) && says.is_empty() == warning.is_empty();
    (found != expected || !is_told).then(|| format!("== {name}: expected {expected} and {says:?}\n{outcome}\n"))
}

/// Rotated files, as given oldest first. Blocks must not decrease, so another order is an error.
#[test]
fn rotated_files_are_read_oldest_first() {
    assert_none(
        [
            &["x.ndjson.2.gz", "x.ndjson.1", "x.ndjson"][..],
            &["x.ndjson.10", "x.ndjson.9.gz", "x.ndjson.1", "x.ndjson"],
            &["x.ndjson-20251231.gz", "x.ndjson-20260101", "x.ndjson"],
            &["x.ndjson.2026-01-01T09", "x.ndjson.2026-01-01T13", "x.ndjson"],
            &["x-20251231.ndjson", "x-20260101-13.ndjson.gz", "x.ndjson", "y.jsonl.1", "y.jsonl"],
            &["x_20251231.ndjson", "x.ndjson"],
            &["x.ndjson.00", "x.ndjson.01", "x.ndjson.10", "x.ndjson.11"],
        ]
        .map(|names| {
            let files: Vec<(String, i64)> =
                (1..).zip(names).map(|(block, name)| (format!("in/{name}"), block)).collect();
            let files: Vec<(&str, i64)> = files.iter().map(|(name, block)| (name.as_str(), *block)).collect();
            let expected: Vec<String> = (1..=names.len()).map(|block| block.to_string()).collect();
            let folder = wrong(&names.join(" "), &project(&files), "in", &expected.join(" "), &[]);
            let pattern = wrong(&names.join(" "), &project(&files), "in/*", &expected.join(" "), &[]);
            folder.or(pattern)
        }),
    );
}

/// Beside `in/a.ndjson` with block 1: files with block 2, the source, what is handled, what the warning says.
const FILES: &[(&[&str], &str, &str, &[&str])] = &[
    (&["in/b.ndjson.zstd"], "in", "1 2", &[]),
    (&["in/b.JSONL"], "in", "1 2", &[]),
    (&["in/b.log"], "in", "1", &["source in leaves out in/b.log (only names that end in .ndjson, .jsonl, .json"]),
    (&["in/part-00000"], "in", "1", &["in/part-00000 (only names"]),
    (&["in/b.ndjson.xz"], "in", "1", &["in/b.ndjson.xz (.xz is not read: unpack it"]),
    (&["in/b.ndjson.1.bz2"], "in", "1", &["in/b.ndjson.1.bz2 (.bz2 is not read"]),
    (&["in/b.lz4", "in/b.tar.gz"], "in", "1", &["in/b.lz4 (.lz4 is not read", "in/b.tar.gz (an archive"]),
    (&["in/b.ndjson.bak", "in/b.log"], "in", "1", &["in/b.log, in/b.ndjson.bak (only names"]),
    (&["in/.b.ndjson", "in/.DS_Store"], "in", "1", &[]),
    (&["in/.b.ndjson"], "in/*", "1", &[]),
    (&["in/.b.ndjson"], "in/.*", "2", &[]),
    (&["in/d/b.ndjson"], "in", "1", &["in/d (a folder: in/**/*.ndjson reads the folders below too)"]),
    (&["in/d/b.ndjson"], "in/*", "1", &["in/d (a folder: in/**/*.ndjson"]),
    (&["in/d/b.ndjson"], "in/**/*.ndjson", "1 2", &[]),
    (&["in/d/e/f/b.ndjson"], "in/**/*.ndjson", "1 2", &[]),
    (&["in/d/e/b.ndjson"], "in/**/e/*.ndjson", "2", &[]),
    (&["in/d/b.ndjson.gz"], "in/**", "1 2", &[]),
    (&["in/d/b.log"], "in/**", "1", &["in/d/b.log (only names"]),
    (&["in/.git/b.ndjson"], "in/**/*.ndjson", "1", &[]),
    (&["in[1]/b.ndjson"], "in[1]/*.ndjson", "2", &[]),
    (&["in[1]/b.ndjson"], "in[1]", "2", &[]),
    (&["in[1]/b.ndjson"], "./in[1]/b.ndjson", "2", &[]),
    (
        &["in[1]/b.ndjson", "in1/b.ndjson"],
        "in[1]/*.ndjson",
        "2",
        &["in1 (the pattern matches it, but \"in[1]\" is there"],
    ),
    (&["in1/b.ndjson"], "in[1]/*.ndjson", "2", &[]),
    (&["in/b[1].ndjson", "in/b1.ndjson"], "in/b[1].ndjson", "2", &["in/b1.ndjson (the pattern matches it, but"]),
];

#[test]
fn what_a_path_reads_and_what_it_names_as_left_out() {
    assert_none(FILES.iter().map(|(names, source, expected, says)| {
        let project = project(&[("in/a.ndjson", 1)]);
        names.iter().for_each(|name| put(&project, name, blocks([2])));
        wrong(&format!("{source} over {names:?}"), &project, source, expected, says)
    }));
}

#[test]
fn the_first_ten_are_named_and_the_rest_counted() {
    let project = project(&[("in/a.ndjson", 1)]);
    (10..23).for_each(|at| put(&project, &format!("in/{at}.log"), "x"));
    put(&project, "in/empty", "");
    std::fs::create_dir(project.path("in/nothing")).expect("a folder");
    let outcome = run(&project, "in").ok();
    let says = warning(&outcome);
    assert!(says.contains("in/10.log") && says.contains("in/19.log"), "{says}");
    assert!(says.ends_with("; and 3 more") && !says.contains("in/20.log"), "{says}");
}

#[test]
fn a_folder_or_pattern_that_leaves_out_everything_says_what_is_there() {
    for source in ["in", "in/*", "in/**"] {
        let project = Project::with(PIPELINE, SCRIPT, "");
        put(&project, "in/d/b.ndjson.xz", "x");
        if source != "in/*" {
            put(&project, "in/b.log", "x");
        }
        let says = match source {
            "in" => ["the folder holds no file", "in/b.log (only names", "in/d (a folder"],
            "in/*" => ["the pattern matches no file", "in/d (a folder", "reads the folders below"],
            _ => ["the pattern matches no file", "in/b.log (only names", "in/d/b.ndjson.xz (.xz is not read"],
        };
        let outcome = run(&project, source);
        assert_none([complaint_untouched(source, &project, &outcome, &says)]);
    }
}

#[test]
fn links_pipes_and_folders_that_lead_in_circles() {
    use std::os::unix::fs::symlink;
    let project = project(&[("in/a.ndjson", 1), ("in/d/b.ndjson", 2), ("elsewhere/c.ndjson", 3)]);
    symlink("/nowhere/x.ndjson", project.path("in/broken.ndjson")).expect("a link");
    symlink("loop.ndjson", project.path("in/loop.ndjson")).expect("a link");
    symlink("..", project.path("in/d/up")).expect("a link");
    symlink("../elsewhere/c.ndjson", project.path("in/e.ndjson")).expect("a link");
    let made = std::process::Command::new("mkfifo").arg(project.path("in/pipe.ndjson")).status();
    assert!(made.expect("mkfifo").success());
    let links = ["in/broken.ndjson, in/loop.ndjson (a link that leads nowhere)", "in/pipe.ndjson (a named pipe"];
    assert_none([wrong("a folder", &project, "in", "1 3", &[links[0], links[1], "in/d (a folder"]), {
        std::fs::remove_file(project.path("p.db")).expect("the database");
        let up = "in/d/up (a link to a folder, which ** does not follow: in/d/up/*.ndjson";
        wrong("a pattern", &project, "in/**/*.ndjson", "1 2 3", &[links[0], links[1], up])
    }]);
}

#[test]
fn a_name_that_is_not_utf_8_is_read() {
    for source in ["in", "in/*.ndjson", "in/**/*.ndjson", "in/b?.ndjson*"] {
        let project = project(&[("in/b.ndjson", 1)]);
        let name = std::ffi::OsStr::from_bytes(b"in/b\xe9.ndjson");
        std::fs::write(project.path("").join(name), blocks([2])).expect("a file");
        let expected = if source == "in/b?.ndjson*" { "2" } else { "1 2" };
        assert_none([wrong(source, &project, source, expected, &[])]);
    }
}

#[test]
fn a_file_that_may_not_be_read_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let project = project(&[("in/a.ndjson", 1), ("in/b.ndjson", 20), ("in/d/c.ndjson", 300)]);
    let forbid = |name: &str| std::fs::set_permissions(project.path(name), std::fs::Permissions::from_mode(0o000));
    forbid("in/b.ndjson").expect("permissions");
    if std::fs::File::open(project.path("in/b.ndjson")).is_ok() {
        return; // The superuser may read everything.
    }
    run(&project, "in").fails(2, &["in/b.ndjson", "denied"]);
    forbid("in/d").expect("permissions");
    run(&project, "in/**/a.ndjson").fails(2, &["in/d", "denied"]);
    std::fs::set_permissions(project.path("in/d"), std::fs::Permissions::from_mode(0o755)).expect("permissions");
}

#[test]
fn control_characters_of_a_name_reach_no_terminal() {
    let project = project(&[("in/a\u{1b}[31m.ndjson", 1), ("in/b\u{7}.log", 2)]);
    put(&project, "in/a\u{1b}[31m.ndjson", "nope\n");
    let outcome = run(&project, "in").fails(2, &["in/a\u{fffd}[31m.ndjson:1:", "in/b\u{fffd}.log"]);
    assert!(!outcome.stderr().contains("\u{1b}[31m.") && !outcome.stderr().contains('\u{7}'), "{outcome}");
}

#[test]
fn an_empty_file_with_the_name_of_a_compressed_one_was_cut_off() {
    for name in ["in/b.ndjson.gz", "in/b.ndjson.2.zst"] {
        let project = project(&[("in/a.ndjson", 1)]);
        std::fs::write(project.path(name), "").expect(name);
        for source in ["in", name] {
            let outcome = run(&project, source);
            assert_none([complaint_untouched(name, &project, &outcome, &[name, "is empty", "cut off"])]);
        }
    }
}

/// Two names of one file: how the second one, beside `in/6.ndjson`, is made, and what is said.
#[test]
fn two_names_of_one_file_are_refused_with_both() {
    type Make = fn(&PathBuf, &PathBuf) -> std::io::Result<()>;
    let cases: [(&str, Make, &str); 5] = [
        ("in/latest.ndjson", |file, to| std::os::unix::fs::symlink(file, to), "are two names of one file"),
        ("in/z.ndjson", |file, to| std::fs::hard_link(file, to), "are two names of one file"),
        ("in/d/6.ndjson", |file, to| std::os::unix::fs::symlink(file, to), "are two names of one file"),
        ("in/6.ndjson.gz", |file, to| std::fs::write(to, gzip(&std::fs::read(file)?)), "have one name"),
        ("in/6 (1).ndjson", |file, to| std::fs::copy(file, to).map(drop), "hold the same"),
    ];
    assert_none(cases.iter().flat_map(|(name, make, says)| {
        ["in", "in/**/*6*", "in/**/*.ndjson*"].map(|source| {
            let project = project(&[("in/5.ndjson", 5), ("in/6.ndjson", 6), ("in/d/7.jsonl", 7)]);
            make(&project.path("in/6.ndjson"), &project.path(name)).expect(name);
            let is_found = match source {
                "in" => !name.contains("/d/"),
                "in/**/*6*" => name.contains('6'),
                _ => true,
            };
            let outcome = run(&project, source);
            if is_found {
                complaint(name, &outcome, 2, &["in/6.ndjson", name, says, "count twice"])
            } else {
                complaint(name, &outcome, 0, &[])
            }
        })
    }));
}

/// Input that is no NDJSON: its bytes, and what is said.
fn foreign() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let text = blocks(1..=2);
    let wide = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let wider = |bytes: fn(u32) -> [u8; 4]| text.chars().flat_map(|c| bytes(u32::from(c))).collect::<Vec<u8>>();
    let mut tar = vec![0; 512];
    tar[..8].copy_from_slice(b"x.ndjson");
    tar[257..262].copy_from_slice(b"ustar");
    tar.extend(text.bytes());
    let parts = |parts: &[&[u8]]| parts.concat();
    vec![
        ("xz", parts(&[b"\xfd7zXZ\0", &[0, 4, 0xe6]]), &[":1: this is xz", "xz -dc"]),
        ("bzip2", b"BZh91AY&SY\x0a\x00".to_vec(), &[":1: this is bzip2", "bzip2 -dc"]),
        ("lz4", b"\x04\x22\x4d\x18\x64\x40\xa7\x0a".to_vec(), &[":1: this is lz4"]),
        ("zip", b"PK\x03\x04\x14\x00\x0a".to_vec(), &[":1: this is zip"]),
        ("tar", tar.clone(), &[":1: this is a tar", "tar -xOf"]),
        ("tar, gzipped", gzip(&tar), &[":1: this is a tar"]),
        ("gzip, twice", gzip(&gzip(text.as_bytes())), &[":1: compressed data begins here"]),
        ("text and gzip", parts(&[text.as_bytes(), &gzip(text.as_bytes())]), &[":3: compressed data begins here"]),
        ("UTF-16 LE", wide(u16::to_le_bytes), &[":1: this is UTF-16LE", "iconv"]),
        ("UTF-16 BE", wide(u16::to_be_bytes), &[":1: this is UTF-16BE"]),
        ("UTF-16 LE, mark", parts(&[b"\xff\xfe", &wide(u16::to_le_bytes)]), &[":1: this is UTF-16"]),
        ("UTF-16 BE, mark", parts(&[b"\xfe\xff", &wide(u16::to_be_bytes)]), &[":1: this is UTF-16"]),
        ("UTF-16, gzipped", gzip(&wide(u16::to_le_bytes)), &[":1: this is UTF-16LE"]),
        ("UTF-32 LE", wider(u32::to_le_bytes), &[":1: this is UTF-32LE"]),
        ("UTF-32 BE, mark", parts(&[&[0, 0, 0xfe, 0xff], &wider(u32::to_be_bytes)]), &[":1: this is UTF-32BE"]),
        ("a mark between", format!("{text}\u{feff}{text}").into_bytes(), &[":3: a byte-order mark", "in the middle"]),
        ("two marks", format!("\u{feff}\u{feff}{text}").into_bytes(), &[":1: a byte-order mark"]),
        ("zstd of 2014", b"\x25\xb5\x2f\xfd\x0a".to_vec(), &[":1: this is zstd of a format before 1.0"]),
        ("a text sequence", format!("\u{1e}{text}").into_bytes(), &[":1: this is a JSON text sequence", "tr -d"]),
        ("Parquet", b"PAR1\x15\x04\x15\x0a".to_vec(), &[":1: this is Parquet"]),
        ("SQLite", b"SQLite format 3\0\x10\0\x02\x02\0@ \n".to_vec(), &[":1: this is a SQLite database"]),
        ("NUL bytes behind", format!("{text}\0\0\0").into_bytes(), &[":3: the line holds 3 NUL bytes"]),
        ("NUL bytes within", text.replace("\"r\"}\n{", "\"r\"}\0\n{").into_bytes(), &[":1: the line holds 1 NUL"]),
        ("garbage behind gzip", parts(&[&gzip(text.as_bytes()), b"x"]), &["damaged or breaks off", "no gzip"]),
        ("a list", b"[\n{\"block\":1}]".to_vec(), &[":1: ", "got a list"]),
    ]
}

#[test]
fn input_that_is_no_ndjson_is_told_by_its_name() {
    assert_none(foreign().iter().flat_map(|(name, bytes, says)| {
        ["run", "check"].map(|command| {
            let project = Project::with(PIPELINE, SCRIPT, "");
            project.write("events.ndjson", bytes);
            let outcome = project.forebay(&[command, "pipeline.toml"]);
            complaint(name, &outcome, 2, &[&["events.ndjson:"], *says].concat())
        })
    }));
}

#[test]
fn a_source_that_never_ends_its_line_is_given_up() {
    let project = Project::with(PIPELINE, SCRIPT, "");
    for command in ["run", "check"] {
        let says = ["/dev/zero:1: the line is longer than 64 MiB", "one event a line"];
        project.forebay(&[command, "pipeline.toml", "--source", "/dev/zero"]).fails(2, &says);
    }
}
