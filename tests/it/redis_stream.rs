//! A Redis stream as a source: what its entries become, that each counts once, and that what is gone unread is found.

use std::time::Duration;

use forebay::publish::RedisUrl;
use forebay::source::{EntryBlock, Fields, Next, Position, RedisStream, RedisStreamPlan, Resumed, Source, SourceEvent};

use crate::publish::Target;
use crate::support::project::Project;
use crate::support::redis_server::{Redis, RedisCluster};
use crate::support::{signal, wait_until};

const STREAM: &str = "events";

/// An event as it stands in an entry.
fn json(n: u64) -> String {
    format!("{{\"block\":{n},\"region\":\"r{}\",\"id\":\"k{}\",\"v\":{n}}}", n % 3, n % 7)
}

fn plan(url: &str) -> RedisStreamPlan {
    let url: RedisUrl = url.parse().expect("an address");
    RedisStreamPlan::new(url, STREAM).expect("a plan").with_field("data").expect("a field")
}

/// Adds entries with these ids.
fn add(server: &Redis, ids: impl IntoIterator<Item = (u64, u64)>) {
    let mut connection = server.connection();
    let mut pipe = redis::pipe();
    for (millis, number) in ids {
        pipe.cmd("XADD").arg(STREAM).arg(format!("{millis}-{number}")).arg("data").arg(json(millis)).ignore();
    }
    pipe.query::<()>(&mut connection).expect("entries");
}

/// What a source gives until it has nothing more, or says what is wrong.
struct Read {
    events: Vec<SourceEvent>,
    ended: Result<Next, String>,
}

fn read(source: &mut RedisStream, until: impl Fn(Next) -> bool) -> Read {
    let (mut events, mut event) = (Vec::new(), SourceEvent::default());
    loop {
        match source.next(&mut event) {
            Ok(Next::Event) => events.push(event.clone()),
            Ok(next) if until(next) => return Read { events, ended: Ok(next) },
            Ok(_) => {}
            Err(error) => return Read { events, ended: Err(error.to_string()) },
        }
    }
}

/// The blocks of the next events, which may be slow to come.
fn take(source: &mut RedisStream, count: usize) -> Vec<i64> {
    let (mut blocks, mut event) = (Vec::new(), SourceEvent::default());
    wait_until(|| {
        if source.next(&mut event).expect("it goes on") == Next::Event {
            blocks.push(event.block);
        }
        blocks.len() == count
    });
    blocks
}

fn read_all(plan: &RedisStreamPlan, after: Option<&Position>) -> Read {
    let mut source = RedisStream::new(plan.clone(), Fields::default());
    if let Some(after) = after {
        assert_eq!(source.resume(after).expect("a position"), Resumed::After);
    }
    read(&mut source, |next| next == Next::End)
}

fn blocks(read: &Read) -> Vec<i64> {
    read.events.iter().map(|event| event.block).collect()
}

/// The position behind each event.
fn positions(read: &Read) -> Vec<Position> {
    read.events.iter().map(|event| event.position.clone().expect("a position")).collect()
}

fn fails(read: &Read, says: &str) {
    let error = read.ended.as_ref().expect_err("it fails");
    assert!(error.contains(says) && error.contains(STREAM), "{error}");
}

#[test]
fn what_follows_a_position_is_read_and_nothing_twice() {
    let server = Redis::start(&[]);
    add(&server, (1..=500).map(|n| (n / 3 + 1, n % 3 + 1)));
    let plan = plan(&server.url());
    let whole = read_all(&plan, None);
    assert_eq!(whole.ended, Ok(Next::End));
    assert_eq!(whole.events.len(), 500);
    let behind = positions(&whole);
    for at in [0, 1, 63, 64, 65, 200, 498, 499] {
        let rest = read_all(&plan, Some(&behind[at]));
        assert_eq!(rest.ended, Ok(Next::End), "{at}");
        assert_eq!(rest.events, whole.events[at + 1..], "{at}");
    }
    // What comes later is read behind the last one.
    add(&server, [(900, 1)]);
    assert_eq!(blocks(&read_all(&plan, Some(&behind[499]))), [900]);
}

#[test]
fn an_anchor_that_is_gone_stops_the_run() {
    let server = Redis::start(&[]);
    let again = || {
        let _: u64 = server.ask(&["DEL", STREAM]);
        add(&server, (1..=20).map(|n| (n, 1)));
        positions(&read_all(&plan(&server.url()), None))
    };
    let plan = plan(&server.url());
    // What is done to the stream once entry 7-1 was read.
    let changes: &[(&str, &[&str], &str)] = &[
        ("trimmed", &["XTRIM events MAXLEN 5"], "entry 7-1, the last one"),
        ("deleted", &["XDEL events 7-1"], "taken out unread"),
        ("all trimmed", &["XTRIM events MAXLEN 0"], "is gone"),
        ("no stream", &["DEL events"], "there is no stream of that name"),
        ("another key", &["DEL events", "SET events x"], "the key holds no stream"),
        ("made anew", &["DEL events", "XADD events 100-1 data {}"], "entry 7-1, the last one that was read, is gone"),
        ("made anew with smaller ids", &["DEL events", "XADD events 3-1 data {}"], "is gone"),
        ("made anew with that id", &["DEL events", "XADD events 7-1 data {}"], "entry 7-1 is another one"),
    ];
    for (name, commands, says) in changes {
        let behind = again();
        for command in *commands {
            let _: redis::Value = server.ask(&command.split(' ').collect::<Vec<_>>());
        }
        let read = read_all(&plan, Some(&behind[6]));
        assert_eq!(blocks(&read), [] as [i64; 0], "{name}");
        fails(&read, says);
    }
    // Entries before the anchor are nobody's concern.
    let behind = again();
    let _: u64 = server.ask(&["XTRIM", STREAM, "MINID", "7-1"]);
    assert_eq!(blocks(&read_all(&plan, Some(&behind[6]))), (8..=20).collect::<Vec<_>>());
    let foreign = Position::new("17").expect("a position");
    let error = RedisStream::new(plan, Fields::default()).resume(&foreign).expect_err("it is none");
    assert!(error.to_string().contains("another source"), "{error}");
}

/// A few answers are fetched ahead; what is taken out of the stream behind them was not read.
#[test]
fn entries_that_are_trimmed_while_it_reads_are_missed() {
    let server = Redis::start(&[]);
    add(&server, (1..=50_000).map(|n| (n, 1)));
    let mut source = RedisStream::new(plan(&server.url()), Fields::default());
    assert_eq!(take(&mut source, 1), [1]);
    let _: u64 = server.ask(&["XTRIM", STREAM, "MAXLEN", "10"]);
    let read = read(&mut source, |next| next == Next::End);
    fails(&read, "is gone: entries behind it may have been taken out unread");
    let (expected, last) = ((2..).take(read.events.len()).collect::<Vec<i64>>(), read.events.len());
    assert_eq!(blocks(&read), expected);
    assert!(last < 49_000, "{last}");
}

#[test]
fn it_ends_where_the_stream_ended_when_it_began() {
    let server = Redis::start(&[]);
    add(&server, (1..=20_000).map(|n| (n, 1)));
    let mut source = RedisStream::new(plan(&server.url()), Fields::default());
    assert_eq!(take(&mut source, 1), [1]);
    add(&server, (20_001..=20_100).map(|n| (n, 1)));
    let read = read(&mut source, |next| next == Next::End);
    assert_eq!((read.events.len(), read.ended), (19_999, Ok(Next::End)));
    // A stream without entries has no events; one that is not there is a mistake.
    let _: u64 = server.ask(&["XTRIM", STREAM, "MAXLEN", "0"]);
    assert_eq!(read_all(&plan(&server.url()), None).ended, Ok(Next::End));
    let _: u64 = server.ask(&["DEL", STREAM]);
    fails(&read_all(&plan(&server.url()), None), "there is no stream of that name");
}

#[test]
fn blocks_of_ids_are_exact() {
    let server = Redis::start(&[]);
    add(&server, [(0, 1), (5, 1), (5, 2), (5, 7), (1_526_919_030_474, 55)]);
    let of = |block| {
        let read = read_all(&plan(&server.url()).with_block(block), None);
        read.events.iter().map(|event| (event.block, event.seq)).collect::<Vec<_>>()
    };
    let places = [(0, Some(1)), (5, Some(1)), (5, Some(2)), (5, Some(7)), (1_526_919_030_474, Some(55))];
    assert_eq!(of(EntryBlock::Time), places);
    let numbers = [1, 5_000_001, 5_000_002, 5_000_007, 1_526_919_030_474_000_055];
    assert_eq!(of(EntryBlock::Offset), numbers.map(|number| (number, None)));
}

const PIPELINE: &str = r#"name = "p"
[source]
redis = "URL"
stream = "events"
MORE
[entities.sum]
columns = { n = "bigint", v = "bigint", last = "bigint" }
[handlers]
script = "handlers.lua"
[errors]
on_event = "quarantine"
[store]
url = "sqlite:p.db"
"#;

const SCRIPT: &str = r#"function on_event(event, ctx)
  local row = ctx.sum:get(event.id) or { n = 0, v = 0 }
  ctx.sum:set(event.id, { n = row.n + 1, v = row.v * 3 % 1000003 + tonumber(event.v), last = ctx.block })
end
"#;

fn project(url: &str, more: &str) -> Project {
    let project = Project::new();
    furnish(&project, url, more);
    project
}

fn furnish(project: &Project, url: &str, more: &str) {
    project.write("pipeline.toml", PIPELINE.replace("URL", url).replace("MORE", more));
    project.write("handlers.lua", SCRIPT);
}

fn rows(project: &Project) -> Vec<Vec<String>> {
    project.query("p.db", "SELECT region, id, n, v, last FROM sum ORDER BY region, id")
}

/// What a run over a file with the same events comes to.
fn rows_of_file(events: impl IntoIterator<Item = u64>) -> Vec<Vec<String>> {
    let file = Project::new();
    let pipeline = PIPELINE.replace("redis = \"URL\"\nstream = \"events\"\nMORE", "path = \"events.ndjson\"");
    file.write("pipeline.toml", pipeline);
    file.write("handlers.lua", SCRIPT);
    file.write("events.ndjson", events.into_iter().map(|n| json(n) + "\n").collect::<String>());
    file.run_json();
    rows(&file)
}

/// Over every kind of server, and with a user who may do no more than is needed.
#[test]
fn a_stream_is_read_in_runs_that_go_on() {
    let expected = rows_of_file(1..=250);
    let mut with_user = Target::plain();
    let rights = ["+xrange", "+xrevrange", "+xread", "+type"];
    let user = [&["ACL", "SETUSER", "reader", "on", ">s3:cr@t", "%R~events"][..], &rights].concat();
    let _: String = with_user.ask(&user);
    with_user.url = with_user.url.replace("redis://", "redis://reader:s3%3Acr%40t@");
    for target in [Target::plain(), with_user, Target::with_tls(), Target::cluster()] {
        furnish(&target.project, &target.url, "field = \"data\"");
        for (from, to) in [(1, 100), (101, 101), (102, 250)] {
            for n in from..=to {
                let _: String = target.ask(&["XADD", STREAM, &format!("{n}-1"), "data", &json(n)]);
            }
            let report = target.project.run_json();
            assert_eq!(report["events"], to - from + 1, "{report}");
            assert_eq!(report["checkpoint"]["block"], to);
        }
        assert_eq!(target.project.run_json()["events"], 0);
        assert_eq!(rows(&target.project), expected, "{}", target.url);
    }
}

/// All fields of an entry are one event, an object of texts; fields may have types.
#[test]
fn all_fields_are_one_event() {
    let server = Redis::start(&[]);
    for n in 1..=30_u64 {
        let (id, block) = (format!("{n}-1"), n.to_string());
        let (region, key) = (format!("r{}", n % 3), format!("k{}", n % 7));
        let _: String = server.ask(&["XADD", STREAM, &id, "block", &block, "region", &region, "id", &key, "v", &block]);
    }
    for types in ["", "[source.fields]\nv = \"bigint\""] {
        let project = project(&server.url(), types);
        assert_eq!(project.run_json()["events"], 30);
        assert_eq!(rows(&project), rows_of_file(1..=30));
    }
}

#[test]
fn entries_that_are_no_events_are_put_aside() {
    let server = Redis::start(&[]);
    let entry = |id: &str, fields: &[&[u8]]| {
        let mut connection = server.connection();
        let mut command = redis::cmd("XADD");
        command.arg(STREAM).arg(id).arg(fields);
        command.query::<String>(&mut connection).expect("an entry");
    };
    let good = json(1);
    entry("1-1", &[b"data", good.as_bytes()]);
    entry("2-1", &[b"dta", b"x", b"y", b"z"]);
    entry("3-1", &[b"data", b"{}", b"data", b"{}"]);
    entry("4-1", &[b"data", b"{\"region\":\"r\xff\"}"]);
    entry("5-1", &[b"data", b"[1]"]);
    entry("6-1", &[b"data", b"{\"region\":\"r\",\"id\":\"a\""]);
    entry("7-2000000", &[b"data", good.as_bytes()]);
    let project = project(&server.url(), "field = \"data\"\nblock = \"@time\"");
    let report = project.run_json();
    assert_eq!((&report["events"], &report["quarantined"]), (&7.into(), &5.into()), "{report}");
    let aside = project.query("p.db", "SELECT file, line, block, place, error FROM forebay_quarantine ORDER BY block");
    for (row, says) in aside.iter().zip([
        "entry 2-1: there is no field \"data\", which holds the event; it has dta, y",
        "entry 3-1: the field \"data\" is there more than once",
        "entry 4-1: the entry is not UTF-8 (byte 13)",
        "entry 5-1: expected a JSON object, got a list",
        "entry 6-1: expected a JSON object; the entry breaks off",
    ]) {
        assert!(row[4].contains(says), "{row:?}");
        assert_eq!(row[0], format!("{} events", server.url()));
        assert_eq!((&row[1], &*row[3]), (&row[2], "1"));
    }
    // Where each entry is a block, one whose number is too large has none of its own.
    let offsets = project_of(&server, "field = \"data\"\nblock = \"@offset\"");
    let report = offsets.run_json();
    assert_eq!((&report["events"], &report["quarantined"]), (&7.into(), &6.into()), "{report}");
    // And of all fields: names twice, and what is not UTF-8.
    let all = project_of(&server, "block = \"@time\"");
    entry("8-1", &[b"region", b"r", b"region", b"s"]);
    entry("9-1", &[b"region", b"r\xff"]);
    entry("10-1", &[b"\xffx", b"r"]);
    let report = all.run_json();
    assert_eq!((&report["events"], &report["quarantined"]), (&10.into(), &10.into()), "{report}");
    let errors = all.query("p.db", "SELECT error FROM forebay_quarantine WHERE block > 7 ORDER BY block");
    for (row, says) in
        errors.iter().zip(["\"region\" is there more than once", "\"region\" is not UTF-8 (byte 2)", "is not UTF-8"])
    {
        assert!(row[0].contains(says), "{row:?}");
    }
}

fn project_of(server: &Redis, more: &str) -> Project {
    project(&server.url(), more)
}

/// A millisecond goes on in the next run: the number in an id is its place.
#[test]
fn a_millisecond_goes_on_in_the_next_run() {
    let server = Redis::start(&[]);
    let project = project(&server.url(), "field = \"data\"\nblock = \"@time\"");
    for (ids, events) in [(&[(5, 1), (5, 2)][..], 2), (&[(5, 3)], 1), (&[(5, 4), (6, 1)], 2), (&[(6, 2)], 1)] {
        add(&server, ids.iter().copied());
        assert_eq!(project.run_json()["events"], events);
    }
    assert_eq!(project.query("p.db", "SELECT sum(n) FROM sum"), [["6"]]);
}

fn ids(server: &Redis) -> Vec<String> {
    let entries: Vec<(String, Vec<String>)> = server.ask(&["XRANGE", STREAM, "-", "+"]);
    entries.into_iter().map(|(id, _)| id).collect()
}

/// What is committed is taken out, but for the last entry: it is the anchor of the next run.
#[test]
fn committed_entries_are_trimmed() {
    let server = Redis::start(&[]);
    let project = project(&server.url(), "field = \"data\"\ntrim = \"committed\"\n[rollback]\ndepth = 100");
    for (from, to) in [(1, 50), (51, 51), (52, 120)] {
        add(&server, (from..=to).map(|n| (n, 1)));
        assert_eq!(project.run_json()["events"], to - from + 1);
        assert_eq!(ids(&server), [format!("{to}-1")]);
    }
    assert_eq!(rows(&project), rows_of_file(1..=120));
    // What was taken out cannot be handled again behind a rollback.
    project.forebay(&["rollback", "pipeline.toml", "--to", "100"]).ok();
    project.forebay(&["run", "pipeline.toml"]).fails(1, &["entry 100-1", "is gone"]);
    assert_eq!(ids(&server), ["120-1"]);
}

/// Whatever moment a run is killed at, what is trimmed is committed.
#[test]
fn runs_that_are_killed_while_they_trim_lose_nothing() {
    let server = Redis::start(&[]);
    add(&server, (1..=4000).map(|n| (n, 1)));
    let project = project(&server.url(), "field = \"data\"\ntrim = \"committed\"\n[batch]\nevents = 40");
    let len = || server.ask::<u64>(&["XLEN", STREAM]);
    for left in [3900, 3300, 2500, 1200, 300] {
        let child = project.command(&["run", "pipeline.toml"]).spawn().expect("the binary starts");
        wait_until(|| len() < left);
        signal::send("KILL", child.id());
        let _ = child.wait_with_output();
    }
    project.forebay(&["run", "pipeline.toml"]).ok();
    assert_eq!(rows(&project), rows_of_file(1..=4000));
    assert_eq!(ids(&server), ["4000-1"]);
}

/// A user who may only read trims nothing: that is told, and no event is lost.
#[test]
fn a_stream_that_may_not_be_trimmed_is_told() {
    let server = Redis::start(&[]);
    add(&server, (1..=20).map(|n| (n, 1)));
    let _: String =
        server.ask(&["ACL", "SETUSER", "reader", "on", ">x", "%R~events", "+xrange", "+xrevrange", "+xread", "+type"]);
    let url = server.url().replace("redis://", "redis://reader:x@");
    let project = project(&url, "field = \"data\"\ntrim = \"committed\"");
    let run = project.forebay(&["run", "pipeline.toml"]).ok();
    assert!(run.stderr().contains("was not taken out of the stream") && run.stderr().contains("NOPERM"), "{run}");
    assert_eq!(ids(&server).len(), 20);
    assert_eq!(project.run_json()["events"], 0);
}

/// A rollback goes back in the stream too, which still holds what follows.
#[test]
fn behind_a_rollback_the_stream_is_read_again() {
    let server = Redis::start(&[]);
    add(&server, (1..=120).map(|n| (n, 1)));
    for block in ["", "block = \"@time\"", "block = \"@offset\""] {
        let project = project(&server.url(), &format!("field = \"data\"\n{block}\n[rollback]\ndepth = 100000000"));
        project.run_json();
        let before = rows(&project);
        let to = if block.contains("offset") { "100000001" } else { "100" };
        project.forebay(&["rollback", "pipeline.toml", "--to", to]).ok();
        assert_ne!(rows(&project), before);
        assert_eq!(project.run_json()["events"], 20, "{block}");
        assert_eq!(rows(&project), before, "{block}");
    }
}

#[test]
fn a_run_whose_anchor_is_gone_changes_nothing() {
    let server = Redis::start(&[]);
    add(&server, (1..=20).map(|n| (n, 1)));
    let project = project(&server.url(), "field = \"data\"");
    project.run_json();
    let before = rows(&project);
    add(&server, (21..=40).map(|n| (n, 1)));
    let _: u64 = server.ask(&["XTRIM", STREAM, "MAXLEN", "15"]);
    project.forebay(&["run", "pipeline.toml"]).fails(1, &["entry 20-1", "is gone", "trim = \"committed\""]);
    assert_eq!(rows(&project), before);
    // As many as are wanted of what there is: a pipeline of another name.
    let other = project_of(&server, "field = \"data\"");
    assert_eq!(other.run_json()["events"], 15);
}

#[test]
fn a_followed_stream_is_read_on() {
    let server = Redis::start(&[]);
    add(&server, (1..=10).map(|n| (n, 1)));
    let project = project(&server.url(), "field = \"data\"\nblock = \"@offset\"\nfollow = true");
    let block = |n: u64| {
        let number = i64::try_from(n * 1_000_000 + 1).expect("a block");
        wait_until(|| {
            let status = project.forebay(&["status", "pipeline.toml", "--json"]);
            status.json_lines().first().is_some_and(|status| status["checkpoint"]["block"] == number)
        });
    };
    for first in [10, 30] {
        let child = project.command(&["run", "pipeline.toml"]).spawn().expect("the binary starts");
        block(first);
        for n in first + 1..=first + 3 {
            add(&server, [(n, 1)]);
            block(n);
        }
        signal::send("TERM", child.id());
        project.finish(child, &["run"]).fails(130, &[]);
        add(&server, (first + 4..=first + 20).map(|n| (n, 1)));
    }
    assert_eq!(project.query("p.db", "SELECT sum(n) FROM sum"), [["33"]]);
}

/// The server goes and comes back with what it had: nothing is lost, and nothing read twice.
#[test]
fn a_server_that_restarts_is_waited_for() {
    let mut server = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    add(&server, (1..=10).map(|n| (n, 1)));
    let mut source = RedisStream::new(plan(&server.url()).with_follow(true), Fields::default());
    assert_eq!(take(&mut source, 10), (1..=10).collect::<Vec<_>>());
    server.kill();
    let mut event = SourceEvent::default();
    assert_eq!(source.next(&mut event).expect("it waits"), Next::Pending);
    server.restart();
    add(&server, (11..=12).map(|n| (n, 1)));
    assert_eq!(take(&mut source, 2), [11, 12]);
}

/// It comes back without what was read: as after a failover to a replica that lagged behind.
#[test]
fn a_server_that_has_lost_what_was_read_is_told() {
    let mut server = Redis::start(&[]);
    add(&server, (1..=10).map(|n| (n, 1)));
    let mut source = RedisStream::new(plan(&server.url()).with_follow(true), Fields::default());
    take(&mut source, 10);
    server.kill();
    server.restart();
    add(&server, (1..=9).chain([11, 12]).map(|n| (n, 1)));
    let after = read(&mut source, |_| false);
    assert!(after.events.is_empty());
    fails(&after, "entry 10-1, the last one that was read, is gone");
}

/// A slot moves to another server while the stream is read.
#[test]
fn a_stream_that_moves_within_a_cluster_is_followed() {
    let cluster = RedisCluster::start(&[]);
    let owner = cluster.owner(STREAM);
    let other = (owner + 1) % 3;
    let slot: usize = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", STREAM]);
    add(&cluster.nodes[owner], (1..=10).map(|n| (n, 1)));
    let mut source = RedisStream::new(plan(&cluster.url()).with_follow(true), Fields::default());
    assert_eq!(take(&mut source, 10).len(), 10);
    cluster.begin_move(slot, owner, other);
    let key = STREAM.to_owned();
    let port = cluster.nodes[other].port.to_string();
    // The key is there, and the slot is not yet.
    let _: String = cluster.nodes[owner].ask(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]);
    let mut asking = cluster.nodes[other].connection();
    for n in 11..=12 {
        let (id, json) = (format!("{n}-1"), json(n));
        redis::pipe()
            .cmd("ASKING")
            .ignore()
            .cmd("XADD")
            .arg(&[STREAM, &id, "data", &json])
            .ignore()
            .query::<()>(&mut asking)
            .expect("an entry");
    }
    assert_eq!(take(&mut source, 2), [11, 12]);
    cluster.end_move(slot, owner, other);
    add(&cluster.nodes[other], [(13, 1), (14, 1)]);
    assert_eq!(take(&mut source, 2), [13, 14]);
}

/// What a user who may not read it, and an address that is none, are told.
#[test]
fn what_cannot_be_read_is_told_at_once() {
    let server = Redis::start(&[]);
    add(&server, [(1, 1)]);
    let _: String = server.ask(&["ACL", "SETUSER", "few", "on", ">secret", "~*", "+ping"]);
    for (url, says) in [
        (format!("redis://few:secret@127.0.0.1:{}", server.port), "NOPERM"),
        (format!("redis://few:wrong@127.0.0.1:{}", server.port), "WRONGPASS"),
    ] {
        let mut plan = plan(&url);
        plan.timeout = Duration::from_millis(500);
        let read = read_all(&plan, None);
        fails(&read, says);
        let text = read.ended.expect_err("it fails");
        assert!(!text.contains("secret") && !text.contains("wrong@"), "{text}");
    }
}
