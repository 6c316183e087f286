//! Pipeline files that ask for what is not there, that cannot be read at all, or whose password must not come out.

use crate::errors_pipeline_file::{Case, check};
use crate::support::cases::{PIPELINE, SCRIPT, assert_none, blocks, complaint, complaint_untouched, replaced};
use crate::support::project::Project;

const VALUES: &[Case] = &[
    (
        "hash",
        "path =",
        "hash = \"\"\npath =",
        &["pipeline.toml:3:8:", "source.hash: expected a text that is not empty"],
    ),
    ("parent", "path =", "parent = \"h\"\npath =", &["pipeline.toml:3:10:", "parent: it needs hash"]),
    (
        "depth",
        "depth = 0",
        "depth = -5",
        &["pipeline.toml:14:9:", "depth: expected a number of blocks, 0 or more, got -5"],
    ),
    (
        "snapshots.url",
        "every = \"end\"",
        "url = \"http://h\"",
        &["pipeline.toml:18:7:", "url: expected redis://user:password@host:port/database"],
    ),
    (
        "snapshots.url with an option",
        "every = \"end\"",
        "url = \"rediss://h?sslrotcert=x\"",
        &["pipeline.toml:18:7:", "there is no option sslrotcert; did you mean \"sslrootcert\"?"],
    ),
    ("id_field", "every = \"end\"", "id_field = \"a..b\"", &["pipeline.toml:18:12:", "expected the name of a field"]),
    ("pool", "every = \"end\"", "pool = 257", &["pipeline.toml:18:8:", "pool: expected at most 256, got 257"]),
    ("timeout", "every = \"end\"", "timeout = \"0s\"", &["pipeline.toml:18:11:", "timeout", "above zero"]),
    (
        "keys",
        "every = \"end\"",
        "keys = { latest = \"x\" }",
        &["pipeline.toml:18:19:", "keys.latest: it must hold <region>"],
    ),
    (
        "a key's name",
        "every = \"end\"",
        "keys = { lates = \"x\" }",
        &["pipeline.toml:18:10:", "unknown key \"lates\"", "did you mean \"latest\"?"],
    ),
    (
        "a place in a key",
        "every = \"end\"",
        "keys = { latest = \"<regoin>\" }",
        &["pipeline.toml:18:19:", "<regoin> is not known; did you mean \"region\"?"],
    ),
    (
        "two keys that are one",
        "every = \"end\"",
        "keys = { latest = \"<region>\", seq = \"<region>\" }",
        &["pipeline.toml:18:37:", "keys.seq: it is the same key as latest"],
    ),
    (
        "postgres",
        "sqlite:p.db",
        "postgres://h/d?sslmod=require",
        &["pipeline.toml:16:7:", "there is no option sslmod; did you mean \"sslmode\"?"],
    ),
    (
        "mysql",
        "sqlite:p.db",
        "mysql://h/d",
        &[
            "pipeline.toml:16:7:",
            "expected a store such as sqlite:events.db",
            "expected a store such as sqlite:events.db",
        ],
    ),
    ("no scheme", "sqlite:p.db", "p.db", &["pipeline.toml:16:7:", "expected a store such as sqlite:events.db"]),
    ("in memory", "sqlite:p.db", "sqlite::memory:", &["pipeline.toml:16:7:", "could not be resumed"]),
    ("no url", "sqlite:p.db", "", &["pipeline.toml:16:7:", "store.url: expected a text that is not empty"]),
    (
        "readers of SQLite",
        "url = \"sqlite:p.db\"",
        "url = \"sqlite:p.db\"\nreaders = \"grafana\"",
        &[
            "pipeline.toml:17:11:",
            "[store] readers: SQLite knows no roles",
            "leave readers out, or store in a Postgres",
        ],
    ),
    (
        "readers of SQLite by default",
        "url = \"sqlite:p.db\"",
        "readers = [\"grafana\"]",
        &["[store] readers: SQLite knows no roles", "leave readers out, or store in a Postgres"],
    ),
    (
        "no readers",
        "url = \"sqlite:p.db\"",
        "url = \"postgres://h/d\"\nreaders = []",
        &["pipeline.toml:17:11:", "readers: expected at least one role"],
    ),
    (
        "everybody",
        "url = \"sqlite:p.db\"",
        "url = \"postgres://h/d\"\nreaders = \"public\"",
        &["pipeline.toml:17:11:", "readers: \"public\" is everybody"],
    ),
    (
        "a reader twice",
        "url = \"sqlite:p.db\"",
        "url = \"postgres://h/d\"\nreaders = [\"a\", \"b\", \"a\"]",
        &["pipeline.toml:17:11:", "readers: role \"a\" is given twice"],
    ),
    (
        "an empty comment",
        "indexes =",
        "comment = \" \"\nindexes =",
        &["pipeline.toml:8:11:", "comment: expected a text that is not empty"],
    ),
    (
        "a NUL in a comment",
        "\"bigint\"",
        "{ type = \"bigint\", comment = \"a\\u0000b\" }",
        &["pipeline.toml:7:", "comment: it holds a NUL, which no database keeps"],
    ),
    ("no file", "sqlite:p.db", "sqlite:", &["pipeline.toml:16:7:", "expected a file, such as sqlite:events.db"]),
];

#[test]
fn values_that_cannot_be_are_refused() {
    check(VALUES);
}

/// Files that are no pipeline files: name, what it holds, what is said.
const FILES: &[(&str, &[u8], &[&str])] = &[
    ("not UTF-8", b"name = \"\xff\"\n", &["other.toml", "not UTF-8"]),
    ("empty", b"", &["other.toml:1:1:", "missing key \"name\""]),
    ("JSON", b"{\"name\":\"p\"}\n", &["other.toml:1:1:"]),
    ("binary", b"\x00\x01\x02", &["other.toml:1:"]),
];

#[test]
fn a_file_that_is_no_pipeline_file_is_refused() {
    let project = Project::with(PIPELINE, SCRIPT, &blocks(1..=3));
    assert_none(FILES.iter().map(|(name, content, says)| {
        project.write("other.toml", content);
        complaint_untouched(name, &project, &project.forebay(&["run", "other.toml"]), says)
    }));
    for command in ["run", "check", "status"] {
        project.forebay(&[command, "nope.toml"]).fails(2, &["nope.toml: there is no such file", "forebay init"]);
        project.forebay(&[command, "."]).fails(2, &[".: it is a folder", "TOML"]);
    }
}

#[test]
fn a_password_is_never_shown() {
    const URLS: [&str; 7] = [
        "mysql://user:hunter2@host/db",
        "postgres://user:hunter2@host/db?sslmode=best",
        "postgresql://user:hunter2@ho st:x/db",
        "user:hunter2@host/db",
        "//user:hunter2@host/db",
        "host=h user=u password=hunter2",
        "hunter2@host",
    ];
    let project = Project::with(PIPELINE, SCRIPT, &blocks(1..=3));
    let mut complaints = Vec::new();
    for url in URLS {
        project.write("other.toml", replaced(PIPELINE, "sqlite:p.db", url));
        let args = ["run", "pipeline.toml"];
        let with_environment = project.command(&args).env("DATABASE_URL", url).spawn().expect("the binary starts");
        for outcome in [
            project.forebay(&["run", "other.toml"]),
            project.forebay(&["run", "pipeline.toml", "--store", url]),
            project.forebay(&["latest", "--pipeline", "p", "--snapshots", url]),
            project.finish(with_environment, &args),
        ] {
            let is_shown = format!("{}{}", outcome.stdout(), outcome.stderr()).contains("hunter2");
            let says = if url.starts_with("postgres") { "postgres address: " } else { "sqlite:events.db" };
            complaints.push(complaint(url, &outcome, 2, &[says]));
            complaints.push(is_shown.then(|| format!("== {url}: the password is shown\n{outcome}\n")));
        }
    }
    assert_none(complaints);
    for url in ["redis://user:hunter2@host:x", "redis://user:hun@ter2@host", "redis://user:hunter2@host?hunter2"] {
        project.write("other.toml", replaced(PIPELINE, "every = \"end\"", &format!("url = \"{url}\"")));
        let in_file = project.forebay(&["run", "other.toml"]).fails(2, &["other.toml:18:7:"]);
        let given = project.forebay(&["publish", "-", "--snapshots", url]).fails(2, &["--snapshots: redis"]);
        for outcome in [in_file, given] {
            assert!(!outcome.stderr().contains("hunter2") && !outcome.stderr().contains("ter2"), "{outcome}");
        }
    }
}
