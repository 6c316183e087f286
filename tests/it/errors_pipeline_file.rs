//! Pipeline files that are wrong: exit code 2, where it stands, what was expected, and nothing made.

use crate::support::cases::{PIPELINE, SCRIPT, assert_none, blocks, complaint_untouched, replaced};
use crate::support::project::Project;

/// Name, what is replaced in the pipeline file, by what, what is said.
pub type Case = (&'static str, &'static str, &'static str, &'static [&'static str]);

const RUN: [&str; 2] = ["run", "pipeline.toml"];

#[track_caller]
pub fn check(cases: &[Case]) {
    assert_none(cases.iter().map(|(name, old, new, says)| {
        let project = Project::with(&replaced(PIPELINE, old, new), SCRIPT, &blocks(1..=3));
        let outcome = project.forebay(&RUN);
        complaint_untouched(name, &project, &outcome, says)
    }));
}

const SYNTAX: &[Case] = &[
    ("text not closed", "\"p\"", "\"p", &["pipeline.toml:1:10:", "expected `\"`"]),
    ("section not closed", "[source]", "[source", &["pipeline.toml:2:8:", "expected `]`"]),
    ("a key twice", "events = 1", "events = 1\nevents = 2", &["pipeline.toml:13:1:", "duplicate key"]),
    ("no value", "events = 1", "events =", &["pipeline.toml:12:", "value"]),
    ("name missing", "name = \"p\"\n", "", &["pipeline.toml:1:1:", "missing key \"name\"", "such as \"quakes\""]),
    (
        "handlers missing",
        "[handlers]\nscript = \"handlers.lua\"\n",
        "",
        &["pipeline.toml:", "missing key \"handlers\"", "[handlers]"],
    ),
    (
        "script missing",
        "script = \"handlers.lua\"\n",
        "",
        &["pipeline.toml:9:2:", "missing key \"handlers.script\"", "handlers.lua"],
    ),
    ("columns missing", "columns =", "# columns =", &["pipeline.toml:6:", "missing key \"entities.thing.columns\""]),
];

#[test]
fn what_is_no_toml_or_lacks_a_key_is_refused() {
    check(SYNTAX);
}

const KEYS: &[Case] = &[
    ("at the top", "name =", "nmae =", &["pipeline.toml:1:1:", "unknown key \"nmae\"", "did you mean \"name\"?"]),
    (
        "a section",
        "[batch]",
        "[batches]",
        &["pipeline.toml:11:2:", "unknown key \"batches\"", "did you mean \"batch\"?"],
    ),
    (
        "another section",
        "[batch]",
        "[telemetry]\n[batch]",
        &["pipeline.toml:11:2:", "unknown key \"telemetry\"", "snapshots"],
    ),
    ("of source", "path =", "pth =", &["pipeline.toml:3:1:", "in [source]", "did you mean \"path\"?"]),
    ("of regions", "ids =", "idz =", &["pipeline.toml:5:1:", "in [regions]", "did you mean \"ids\"?"]),
    (
        "of an entity",
        "indexes =",
        "indices =",
        &["pipeline.toml:8:1:", "in [entities.thing]", "did you mean \"indexes\"?"],
    ),
    ("columns", "columns =", "colums =", &["pipeline.toml:7:1:", "in [entities.thing]", "did you mean \"columns\"?"]),
    ("of handlers", "script =", "scirpt =", &["pipeline.toml:10:1:", "in [handlers]", "did you mean \"script\"?"]),
    ("of batch", "events = 1", "event = 1", &["pipeline.toml:12:1:", "in [batch]", "did you mean \"events\"?"]),
    ("of rollback", "depth", "dept", &["pipeline.toml:14:1:", "in [rollback]", "did you mean \"depth\"?"]),
    ("of store", "url", "uri", &["pipeline.toml:16:1:", "in [store]", "did you mean \"url\"?"]),
    ("of snapshots", "every", "evry", &["pipeline.toml:18:1:", "in [snapshots]", "did you mean \"every\"?"]),
];

#[test]
fn a_misspelt_key_names_the_nearest() {
    check(KEYS);
}

const TYPES: &[Case] = &[
    ("name", "\"p\"", "5", &["pipeline.toml:1:8:", "name: expected a string, got an integer"]),
    (
        "section",
        "name = \"p\"\n[source]\npath = \"events.ndjson\"",
        "name = \"p\"\nsource = \"x\"",
        &["pipeline.toml:2:10:", "expected a table [source], got a string"],
    ),
    ("path", "\"events.ndjson\"", "1", &["pipeline.toml:3:8:", "source.path: expected a string, got an integer"]),
    ("position", "path =", "position = \"\"\npath =", &["pipeline.toml:3:12:", "source.position: "]),
    ("seq", "path =", "seq = true\npath =", &["pipeline.toml:3:7:", "source.seq: expected a string, got a boolean"]),
    (
        "ids",
        "[\"r\", \"s\"]",
        "\"r\"",
        &["pipeline.toml:5:7:", "regions.ids: expected a list of strings, got a string"],
    ),
    (
        "an id",
        "[\"r\", \"s\"]",
        "[\"r\", 5]",
        &["pipeline.toml:5:13:", "regions.ids: expected a list of strings, got an integer"],
    ),
    ("all", "ids =", "all = 3\nids =", &["pipeline.toml:5:7:", "regions.all: expected a string, got an integer"]),
    (
        "a column's type",
        "\"bigint\"",
        "7",
        &["pipeline.toml:7:", "entities.thing.columns.big: expected a type such as \"bigint\"", "got an integer"],
    ),
    (
        "a column's comment",
        "\"bigint\"",
        "{ type = \"bigint\", comment = 7 }",
        &["pipeline.toml:7:", "entities.thing.columns.big.comment: expected a string, got an integer"],
    ),
    (
        "a column without a type",
        "\"bigint\"",
        "{ comment = \"x\" }",
        &["pipeline.toml:7:", "missing key \"entities.thing.columns.big.type\"", "such as \"bigint\""],
    ),
    (
        "a key of a column",
        "\"bigint\"",
        "{ type = \"bigint\", coment = \"x\" }",
        &["pipeline.toml:7:", "unknown key \"coment\" in [entities.thing.columns.big]", "did you mean \"comment\"?"],
    ),
    (
        "a type in a table",
        "\"bigint\"",
        "{ type = \"bigit\" }",
        &["pipeline.toml:7:59:", "column big: \"bigit\" is not a type", "did you mean \"bigint\"?"],
    ),
    (
        "an entity's comment",
        "indexes =",
        "comment = [\"x\"]\nindexes =",
        &["pipeline.toml:8:11:", "entities.thing.comment: expected a string, got an array"],
    ),
    (
        "readers",
        "url = \"sqlite:p.db\"",
        "url = \"postgres://h/d\"\nreaders = 5",
        &["pipeline.toml:17:11:", "store.readers: expected a role, or a list of them, got an integer"],
    ),
    (
        "a reader",
        "url = \"sqlite:p.db\"",
        "url = \"postgres://h/d\"\nreaders = [\"a\", 5]",
        &["pipeline.toml:17:17:", "store.readers: expected a list of strings, got an integer"],
    ),
    ("indexes", "[\"big\"]", "\"big\"", &["pipeline.toml:8:11:", "indexes: expected a list of strings, got a string"]),
    ("script", "\"handlers.lua\"", "[]", &["pipeline.toml:10:10:", "handlers.script: expected a string, got an array"]),
    (
        "events",
        "events = 1",
        "events = \"1\"",
        &["pipeline.toml:12:10:", "batch.events: expected an integer, got a string"],
    ),
    (
        "memory",
        "events = 1",
        "memory = true",
        &["pipeline.toml:12:10:", "batch.memory: expected an amount of memory", "got a boolean"],
    ),
    (
        "depth",
        "depth = 0",
        "depth = \"0\"",
        &["pipeline.toml:14:9:", "rollback.depth: expected an integer, got a string"],
    ),
    ("url", "\"sqlite:p.db\"", "1", &["pipeline.toml:16:7:", "store.url: expected a string, got an integer"]),
    ("every", "\"end\"", "1.5", &["pipeline.toml:18:9:", "snapshots.every: expected", "got a float"]),
    (
        "dedup",
        "every = \"end\"",
        "dedup = 15",
        &["pipeline.toml:18:9:", "snapshots.dedup: expected a duration", "got an integer"],
    ),
    (
        "dedup_ignore",
        "every = \"end\"",
        "dedup_ignore = \"x\"",
        &["pipeline.toml:18:16:", "expected a list of strings, got a string"],
    ),
];

#[test]
fn a_wrong_type_says_what_was_expected() {
    check(TYPES);
}

const NAMES: &[Case] = &[
    ("pipeline", "\"p\"", "\"P-1\"", &["pipeline.toml:1:8:", "\"P-1\"", "expected a lower-case letter"]),
    ("pipeline empty", "\"p\"", "\"\"", &["pipeline.toml:1:8:", "expected a lower-case letter"]),
    (
        "pipeline too long",
        "\"p\"",
        "\"p2345678901234567890123456789012345678901\"",
        &["pipeline.toml:1:8:", "40 bytes at most"],
    ),
    (
        "entity upper-case",
        "entities.thing",
        "entities.Thing",
        &["pipeline.toml:6:11:", "entity \"Thing\"", "lower-case"],
    ),
    ("entity reserved", "entities.thing", "entities.forebay_x", &["pipeline.toml:6:11:", "\"forebay_x\"", "reserved"]),
    ("entity ours", "entities.thing", "entities._forebay_x", &["pipeline.toml:6:11:", "\"_forebay_x\"", "reserved"]),
    (
        "entity a view",
        "entities.thing",
        "entities._progress",
        &["pipeline.toml:6:11:", "\"_progress\"", "a view of that"],
    ),
    ("entity of SQLite", "entities.thing", "entities.sqlite_x", &["pipeline.toml:6:11:", "\"sqlite_x\"", "reserved"]),
    (
        "entity region",
        "entities.thing",
        "entities.region",
        &["pipeline.toml:6:11:", "ctx.region has a meaning of its own"],
    ),
    (
        "entity block",
        "entities.thing",
        "entities.block",
        &["pipeline.toml:6:11:", "ctx.block has a meaning of its own"],
    ),
    ("column upper-case", "txt =", "Txt =", &["pipeline.toml:7:13:", "column \"Txt\"", "lower-case"]),
    ("column id", "txt =", "id =", &["pipeline.toml:7:13:", "column \"id\"", "part of its key"]),
    ("column region", "txt =", "region =", &["pipeline.toml:7:13:", "column \"region\"", "part of its key"]),
    (
        "unknown type",
        "\"bigint\"",
        "\"bigin\"",
        &["pipeline.toml:7:", "\"bigin\" is not a type; did you mean \"bigint\"?", "timestamptz, jsonb"],
    ),
    (
        "far from any type",
        "\"bigint\"",
        "\"varchar(20)\"",
        &["pipeline.toml:7:", "is not a type; expected one of text, boolean, bigint"],
    ),
    (
        "index on nothing",
        "[\"big\"]",
        "[\"bgi\"]",
        &["pipeline.toml:8:11:", "\"bgi\" is not a column of thing; did you mean \"big\"?"],
    ),
];

#[test]
fn a_wrong_name_is_refused() {
    check(NAMES);
}

const VALUES: &[Case] = &[
    (
        "late",
        "path =",
        "late = \"ignore\"\npath =",
        &["pipeline.toml:3:8:", "late: expected \"error\", \"skip\" or \"replay\", got \"ignore\""],
    ),
    (
        "block",
        "path =",
        "block = \"\"\npath =",
        &["pipeline.toml:3:9:", "source.block: expected a text that is not empty"],
    ),
    ("no ids", "[\"r\", \"s\"]", "[]", &["pipeline.toml:5:7:", "at least one region"]),
    ("an id twice", "[\"r\", \"s\"]", "[\"r\", \"s\", \"r\"]", &["pipeline.toml:5:7:", "region \"r\" is given twice"]),
    ("an empty id", "[\"r\", \"s\"]", "[\"\"]", &["pipeline.toml:5:7:", "may not be empty"]),
    ("script not there", "\"handlers.lua\"", "\"nope.lua\"", &["pipeline.toml:10:10:", "there is no file", "nope.lua"]),
    ("script a folder", "\"handlers.lua\"", "\".\"", &["pipeline.toml:10:10:", "script: "]),
    (
        "timeout",
        "script =",
        "timeout = \"fast\"\nscript =",
        &["pipeline.toml:10:11:", "handlers.timeout: expected a duration such as", "\"fast\""],
    ),
    ("timeout zero", "script =", "timeout = \"0s\"\nscript =", &["pipeline.toml:10:11:", "above zero"]),
    ("zero events", "events = 1", "events = 0", &["pipeline.toml:12:10:", "events: expected at least 1, got 0"]),
    (
        "events below zero",
        "events = 1",
        "events = -1",
        &["pipeline.toml:12:10:", "events: expected at least 1, got -1"],
    ),
    ("events past 64 bits", "events = 1", "events = 99999999999999999999", &["pipeline.toml:12:10:", "64 bits"]),
    ("memory", "events = 1", "memory = \"lots\"", &["pipeline.toml:12:10:", "such as \"512MiB\"", "got \"lots\""]),
    (
        "memory too small",
        "events = 1",
        "memory = \"1MiB\"",
        &["pipeline.toml:12:10:", "memory: expected at least 16 MiB"],
    ),
    ("every", "\"end\"", "\"soon\"", &["pipeline.toml:18:9:", "\"batch\", \"end\", \"100 blocks\"", "got \"soon\""]),
    ("every 0 blocks", "\"end\"", "\"0 blocks\"", &["pipeline.toml:18:9:", "got \"0 blocks\""]),
    (
        "ttl",
        "every = \"end\"",
        "ttl = \"90 years\"",
        &["pipeline.toml:18:7:", "snapshots.ttl: expected a duration such as", "\"90 years\""],
    ),
    ("ttl zero", "every = \"end\"", "ttl = \"0s\"", &["pipeline.toml:18:7:", "above zero"]),
    (
        "dedup",
        "every = \"end\"",
        "dedup = \"-1s\"",
        &["pipeline.toml:18:9:", "snapshots.dedup: expected a duration", "\"-1s\""],
    ),
    (
        "stream without redis",
        "path =",
        "stream = \"s\"\npath =",
        &["pipeline.toml:3:1:", "stream belongs to a Redis stream: expected redis = \"redis://…\" too"],
    ),
    (
        "a path and redis",
        "path =",
        "redis = \"redis://h\"\nstream = \"s\"\npath =",
        &["pipeline.toml:3:1:", "redis: there is a path too"],
    ),
    ("redis without stream", "path = \"events.ndjson\"", "redis = \"redis://h\"", &["stream", "the key of the stream"]),
    (
        "no address of Redis",
        "path = \"events.ndjson\"",
        "stream = \"s\"\nredis = \"http://u:secret@h\"",
        &["pipeline.toml:4:9:", "expected redis://user:password@host"],
    ),
    (
        "block of an id",
        "path = \"events.ndjson\"",
        "redis = \"redis://h\"\nstream = \"s\"\nblock = \"@id\"",
        &["pipeline.toml:5:9:", "block: expected \"@time\", \"@offset\" or the name of a field, got \"@id\""],
    ),
    (
        "two places",
        "path = \"events.ndjson\"",
        "redis = \"redis://h\"\nstream = \"s\"\nblock = \"@time\"\nseq = \"n\"",
        &["pipeline.toml:6:1:", "the number in an entry's id is its place"],
    ),
    (
        "trim",
        "path = \"events.ndjson\"",
        "redis = \"redis://h\"\nstream = \"s\"\ntrim = true",
        &["pipeline.toml:5:8:", "source.trim: expected a string"],
    ),
    (
        "trim what",
        "path = \"events.ndjson\"",
        "redis = \"redis://h\"\nstream = \"s\"\ntrim = \"all\"",
        &["pipeline.toml:5:8:", "trim: expected \"committed\", got \"all\""],
    ),
    (
        "format of a stream",
        "path = \"events.ndjson\"",
        "redis = \"redis://h\"\nstream = \"s\"\nformat = \"csv\"",
        &["pipeline.toml:3:1:", "format is for files"],
    ),
    (
        "two positions",
        "path = \"events.ndjson\"",
        "redis = \"redis://h\"\nstream = \"s\"\nposition = \"at\"",
        &["pipeline.toml:5:1:", "the position in a Redis stream is the id of an entry"],
    ),
    ("pool", "every = \"end\"", "pool = 0", &["pipeline.toml:18:8:", "pool: expected at least 1, got 0"]),
];

#[test]
fn a_wrong_value_says_what_was_expected() {
    check(VALUES);
}

/// What a build without Kafka says.
#[cfg(not(feature = "kafka"))]
#[test]
fn kafka_is_refused_where_it_is_not_built() {
    let says: &[&str] = &["pipeline.toml:3:9:", "this build has no Kafka; build with --features kafka"];
    check(&[("kafka", "path = \"events.ndjson\"", "kafka = \"h:9092\"\ntopic = \"t\"", says)]);
}
