//! A topic of Kafka as a source: what its records become, that each counts once, and that what is gone unread is found.

use std::time::Duration;

use forebay::source::{EntryBlock, Fields, KafkaPlan, KafkaTopic, Next, Position, Resumed, Source, SourceEvent};
use rdkafka::producer::Producer;

use crate::both_stores;
use crate::killed_sources::survives_growing;
use crate::support::kafka::{Kafka, send};
use crate::support::project::Project;
use crate::support::{signal, wait_until};

/// An event as it stands in a record.
fn json(n: u64) -> String {
    format!("{{\"block\":{n},\"region\":\"r{}\",\"id\":\"k{}\",\"v\":{n}}}", n % 3, n % 7)
}

fn events(range: impl IntoIterator<Item = u64>) -> Vec<Option<String>> {
    range.into_iter().map(|n| Some(json(n))).collect()
}

/// A name that no other test has taken: brokers of others are shared.
fn topic(name: &str) -> String {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_nanos();
    format!("forebay.{name}.{time}")
}

fn plan(kafka: &Kafka, topic: &str) -> KafkaPlan {
    KafkaPlan::new(kafka.servers(), topic).expect("a plan").with_partition(0).expect("a partition")
}

/// What a source gives until it has nothing more, or says what is wrong.
struct Read {
    events: Vec<SourceEvent>,
    ended: Result<Next, String>,
}

fn read(source: &mut KafkaTopic) -> Read {
    let (mut events, mut event) = (Vec::new(), SourceEvent::default());
    loop {
        match source.next(&mut event) {
            Ok(Next::Event) => events.push(event.clone()),
            Ok(Next::End) => return Read { events, ended: Ok(Next::End) },
            Ok(_) => {}
            Err(error) => return Read { events, ended: Err(error.to_string()) },
        }
    }
}

fn read_all(plan: &KafkaPlan, after: Option<&Position>) -> Read {
    let mut source = KafkaTopic::new(plan.clone(), Fields::default());
    if let Some(after) = after {
        assert_eq!(source.resume(after).expect("a position"), Resumed::After);
    }
    read(&mut source)
}

/// The blocks of the next events, which may be slow to come.
fn take(source: &mut KafkaTopic, count: usize) -> Vec<i64> {
    let (mut blocks, mut event) = (Vec::new(), SourceEvent::default());
    wait_until(|| {
        if source.next(&mut event).expect("it goes on") == Next::Event {
            blocks.push(event.block);
        }
        blocks.len() == count
    });
    blocks
}

fn blocks(read: &Read) -> Vec<i64> {
    read.events.iter().map(|event| event.block).collect()
}

fn position(event: &SourceEvent) -> Position {
    event.position.clone().expect("a position")
}

fn fails(read: &Read, says: &[&str]) {
    let error = read.ended.as_ref().expect_err("it fails");
    for text in says {
        assert!(error.contains(text), "{text}: {error}");
    }
}

#[test]
fn what_follows_a_position_is_read_and_nothing_twice() {
    for kafka in Kafka::every() {
        let topic = topic("resume");
        kafka.make_topic(&topic, 1);
        kafka.add(&topic, events(1..=500));
        let plan = plan(&kafka, &topic);
        let whole = read_all(&plan, None);
        assert_eq!((whole.ended.clone(), whole.events.len()), (Ok(Next::End), 500));
        for at in [0, 1, 250, 498, 499] {
            let rest = read_all(&plan, Some(&position(&whole.events[at])));
            assert_eq!(rest.ended, Ok(Next::End), "{at}");
            assert_eq!(blocks(&rest), blocks(&whole)[at + 1..], "{at}");
        }
        // What comes later is read behind the last one.
        kafka.add(&topic, events([900]));
        assert_eq!(blocks(&read_all(&plan, Some(&position(&whole.events[499])))), [900]);
    }
}

#[test]
fn it_ends_where_the_partition_ended_when_it_began() {
    for kafka in Kafka::every() {
        let topic = topic("end");
        kafka.make_topic(&topic, 1);
        kafka.add(&topic, events(1..=20_000));
        let mut source = KafkaTopic::new(plan(&kafka, &topic), Fields::default());
        assert_eq!(take(&mut source, 1), [1]);
        kafka.add(&topic, events(20_001..=20_100));
        let rest = read(&mut source);
        assert_eq!((rest.events.len(), rest.ended), (19_999, Ok(Next::End)));
    }
}

#[test]
fn a_partition_without_records_has_no_events() {
    let kafka = Kafka::mock();
    kafka.make_topic("empty", 1);
    assert_eq!(read_all(&plan(&kafka, "empty"), None).ended, Ok(Next::End));
    fails(&read_all(&plan(&kafka, "missing"), None), &["missing/0", "there is no topic of that name"]);
}

#[test]
fn one_partition_is_read_and_of_several_it_must_be_said_which() {
    let kafka = Kafka::mock();
    kafka.make_topic("several", 3);
    kafka.add("several", events(1..=5));
    let unsaid = KafkaPlan::new(kafka.servers(), "several").expect("a plan");
    fails(&read_all(&unsaid, None), &["the topic has 3 partitions", "partition = 0"]);
    assert_eq!(blocks(&read_all(&plan(&kafka, "several"), None)), [1, 2, 3, 4, 5]);
    for (partition, count) in [(1, Ok(Next::End)), (3, Err(()))] {
        let plan = unsaid.clone().with_partition(partition).expect("a partition");
        assert_eq!(read_all(&plan, None).ended.map_err(drop), count);
    }
    let plan = unsaid.with_partition(3).expect("a partition");
    fails(&read_all(&plan, None), &["there is no partition 3", "has 3, from 0"]);
    assert!(plan.with_partition(-1).is_err());
}

#[test]
fn a_position_of_another_topic_or_source_is_refused() {
    let kafka = Kafka::mock();
    for (text, says) in [
        ("17", "none of a topic of Kafka"),
        ("5-1 0123456789abcdef", "none of a topic of Kafka"),
        ("other/0 1 2 0", "one of another partition"),
        ("events/1 1 2 0", "one of another partition"),
    ] {
        let mut source = KafkaTopic::new(plan(&kafka, "events"), Fields::default());
        let error = source.resume(&Position::new(text).expect("a position")).expect_err("it is none");
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// A mock cluster keeps 5 MiB of a partition.
fn fill(kafka: &Kafka, topic: &str, from: u64) {
    let large = |n: u64| Some(json(n).replacen('{', &format!("{{\"pad\":\"{}\",", "x".repeat(900_000)), 1));
    for n in from..from + 12 {
        kafka.add(topic, [large(n)]);
    }
}

#[test]
fn records_that_are_gone_unread_stop_the_run() {
    let kafka = Kafka::mock();
    kafka.make_topic("short", 1);
    kafka.add("short", events(1..=10));
    let whole = read_all(&plan(&kafka, "short"), None);
    let last = position(&whole.events[9]);
    fill(&kafka, "short", 11);
    let rest = read_all(&plan(&kafka, "short"), Some(&last));
    assert!(rest.events.is_empty());
    fails(&rest, &["short/0", "was read up to offset 9", "taken out unread", "retention.ms"]);
    // A pipeline of another name begins with what there is.
    let left = read_all(&plan(&kafka, "short"), None);
    assert!(left.events.len() < 10 && left.ended == Ok(Next::End), "{}", left.events.len());
    // What was read may go.
    let last = position(left.events.last().expect("an event"));
    assert_eq!(blocks(&read_all(&plan(&kafka, "short"), Some(&last))), [] as [i64; 0]);
}

#[test]
fn a_topic_that_was_made_anew_is_found() {
    let (first, second) = (Kafka::mock(), Kafka::mock());
    for (kafka, from) in [(&first, 1), (&second, 101)] {
        kafka.make_topic("anew", 1);
        kafka.add("anew", events(from..from + 10));
    }
    let whole = read_all(&plan(&first, "anew"), None);
    let other = read_all(&plan(&second, "anew"), Some(&position(&whole.events[4])));
    assert!(other.events.is_empty());
    fails(&other, &["the record at offset 4 is another one", "made anew"]);
    let empty = Kafka::mock();
    empty.make_topic("anew", 1);
    let other = read_all(&plan(&empty, "anew"), Some(&position(&whole.events[4])));
    fails(&other, &["ends before offset 0", "was read up to offset 4", "made anew"]);
}

#[test]
fn blocks_of_records_are_exact() {
    for kafka in Kafka::every() {
        let topic = topic("blocks");
        kafka.make_topic(&topic, 1);
        kafka.add(&topic, events(1..=20));
        let of = |block| {
            let read = read_all(&plan(&kafka, &topic).with_block(block), None);
            read.events.iter().map(|event| (event.block, event.seq)).collect::<Vec<_>>()
        };
        assert_eq!(of(EntryBlock::Offset), (0..20).map(|n| (n, None)).collect::<Vec<_>>());
        let times = of(EntryBlock::Time);
        assert!(times.is_sorted() && times[0].0 > 1_700_000_000_000, "{times:?}");
        assert_eq!(times.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), (0..20).map(Some).collect::<Vec<_>>());
    }
}

const PIPELINE: &str = r#"name = "p"
[source]
SOURCE
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

/// A project over a source of that many lines.
fn project_of(source: &str) -> Project {
    let project = Project::new();
    project.write("pipeline.toml", PIPELINE.replace("SOURCE", source));
    project.write("handlers.lua", SCRIPT);
    project
}

fn project(kafka: &Kafka, topic: &str, more: &str) -> Project {
    project_of(&format!("kafka = \"{}\"\ntopic = \"{topic}\"\npartition = 0\n{more}", kafka.servers()))
}

fn rows(project: &Project) -> Vec<Vec<String>> {
    project.query("p.db", "SELECT region, id, n, v, last FROM sum ORDER BY region, id")
}

/// What a run over a file with the same events comes to.
fn rows_of_file(events: impl IntoIterator<Item = u64>) -> Vec<Vec<String>> {
    let file = project_of("path = \"events.ndjson\"");
    file.write("events.ndjson", events.into_iter().map(|n| json(n) + "\n").collect::<String>());
    file.run_json();
    rows(&file)
}

#[test]
fn a_topic_is_read_in_runs_that_go_on() {
    let expected = rows_of_file(1..=250);
    for kafka in Kafka::every() {
        let topic = topic("runs");
        kafka.make_topic(&topic, 1);
        let project = project(&kafka, &topic, "");
        for (from, to) in [(1, 100), (101, 101), (102, 250)] {
            kafka.add(&topic, events(from..=to));
            let report = project.run_json();
            assert_eq!(report["events"], to - from + 1, "{report}");
            assert_eq!(report["checkpoint"]["block"], to);
        }
        assert_eq!(project.run_json()["events"], 0);
        assert_eq!(rows(&project), expected);
    }
}

#[test]
fn records_that_are_no_events_are_put_aside() {
    for kafka in Kafka::every() {
        let topic = topic("aside");
        kafka.make_topic(&topic, 1);
        let text = |text: &str| Some(text.to_owned());
        let bad = [None, text("[1]"), text("{\"region\":\"r\",\"id\":\"a\""), text("")];
        kafka.add(&topic, events([1]).into_iter().chain(bad).chain(events([2])));
        for block in ["", "block = \"@offset\""] {
            let project = project(&kafka, &topic, block);
            let report = project.run_json();
            assert_eq!((&report["events"], &report["quarantined"]), (&6.into(), &4.into()), "{report}");
            let aside = project.query("p.db", "SELECT line, error FROM forebay_quarantine ORDER BY line");
            for (row, says) in aside.iter().zip([
                "partition 0, offset 1: the record has no value",
                "partition 0, offset 2: expected a JSON object, got a list",
                "partition 0, offset 3: expected a JSON object; the record breaks off",
                "partition 0, offset 4: ",
            ]) {
                assert!(row[1].contains(says), "{row:?}");
            }
            assert_eq!(aside.iter().map(|row| &*row[0]).collect::<Vec<_>>(), ["1", "2", "3", "4"]);
            assert_eq!(project.run_json()["events"], 0);
        }
        // Or they end the run.
        let project = project(&kafka, &topic, "block = \"@offset\"");
        project.write(
            "pipeline.toml",
            std::fs::read_to_string(project.path("pipeline.toml")).expect("a file").replace("quarantine", "stop"),
        );
        project.forebay(&["run", "pipeline.toml"]).fails(2, &["partition 0, offset 1: the record has no value"]);
        assert_eq!(project.query("p.db", "SELECT sum(n) FROM sum"), [["1"]]);
    }
}

/// Whatever moment a run is killed at, nothing is lost, and the group knows of nothing that the database does not have.
#[test]
fn runs_that_are_killed_lose_nothing() {
    for kafka in Kafka::every() {
        let topic = topic("killed");
        kafka.make_topic(&topic, 1);
        kafka.add(&topic, events(1..=4000));
        let source = format!(
            "topic = \"{topic}\"\npartition = 0\n[source.kafka]\nbootstrap.servers = \"{}\"\ngroup.id = \"{topic}\"",
            kafka.servers()
        );
        let project = project_of(&(source + "\n[batch]\nevents = 40"));
        let handled = || match project.path("p.db").exists() {
            true => {
                project.query("p.db", "SELECT coalesce(sum(n), 0) FROM sum")[0][0].parse::<i64>().expect("a number")
            }
            false => 0,
        };
        for least in [100, 700, 1500, 2800, 3700] {
            let child = project.command(&["run", "pipeline.toml"]).spawn().expect("the binary starts");
            wait_until(|| kafka.told(&topic, &topic).unwrap_or_default() >= least);
            signal::send("KILL", child.id());
            let _ = child.wait_with_output();
            let (told, handled) = (kafka.told(&topic, &topic).expect("an offset"), handled());
            assert!(told <= handled && handled >= least, "{told} {handled}");
        }
        project.forebay(&["run", "pipeline.toml"]).ok();
        assert_eq!(rows(&project), rows_of_file(1..=4000));
        assert_eq!(kafka.told(&topic, &topic), Some(4000));
    }
}

both_stores! {
    fn a_topic_survives_kills() {
        for kafka in Kafka::every() {
            let topic = topic("kills");
            kafka.make_topic(&topic, 1);
            let source = format!("kafka = \"{}\"\ntopic = \"{topic}\"\npartition = 0", kafka.servers());
            survives_growing("topic of Kafka", &source, |events| kafka.add(&topic, events.iter().cloned().map(Some)));
        }
    }
}

#[test]
fn a_group_is_told_only_if_one_is_set() {
    let kafka = Kafka::mock();
    kafka.make_topic("quiet", 1);
    kafka.add("quiet", events(1..=10));
    project(&kafka, "quiet", "").run_json();
    assert_eq!(kafka.told("forebay", "quiet"), None);
}

#[test]
fn behind_a_rollback_the_topic_is_read_again() {
    let kafka = Kafka::mock();
    kafka.make_topic("back", 1);
    kafka.add("back", events(1..=120));
    for (block, to) in [("", "100"), ("block = \"@offset\"", "99")] {
        let project = project(&kafka, "back", &format!("{block}\n[rollback]\ndepth = 1000"));
        project.run_json();
        let before = rows(&project);
        project.forebay(&["rollback", "pipeline.toml", "--to", to]).ok();
        assert_ne!(rows(&project), before);
        assert_eq!(project.run_json()["events"], 20, "{block}");
        assert_eq!(rows(&project), before, "{block}");
    }
}

#[test]
fn a_followed_topic_is_read_on() {
    for kafka in Kafka::every() {
        let topic = topic("follow");
        kafka.make_topic(&topic, 1);
        kafka.add(&topic, events(1..=10));
        let project = project(&kafka, &topic, "block = \"@offset\"\nfollow = true");
        let block = |n: u64| {
            wait_until(|| {
                let status = project.forebay(&["status", "pipeline.toml", "--json"]);
                status.json_lines().first().is_some_and(|status| status["checkpoint"]["block"] == n - 1)
            });
        };
        for first in [10, 30] {
            let child = project.command(&["run", "pipeline.toml"]).spawn().expect("the binary starts");
            block(first);
            for n in first + 1..=first + 3 {
                kafka.add(&topic, events([n]));
                block(n);
            }
            signal::send("TERM", child.id());
            project.finish(child, &["run"]).fails(130, &[]);
            kafka.add(&topic, events(first + 4..=first + 20));
        }
        assert_eq!(project.query("p.db", "SELECT sum(n) FROM sum"), [["33"]]);
    }
}

/// What a producer has taken back is no event, and what stands between records is no gap.
#[test]
fn transactions_are_read_once_they_are_committed() {
    for kafka in Kafka::every() {
        if !matches!(kafka, Kafka::There(_)) {
            // The others give out what was taken back.
            continue;
        }
        let topic = topic("transactions");
        kafka.make_topic(&topic, 1);
        let producer = kafka.producer(&[("transactional.id", &topic)]);
        let patience = Duration::from_secs(30);
        producer.init_transactions(patience).expect("transactions");
        let project = project(&kafka, &topic, "");
        for (from, is_kept) in [(1, true), (11, false), (21, true), (31, false)] {
            producer.begin_transaction().expect("it begins");
            send(&producer, &topic, events(from..from + 10));
            match is_kept {
                true => producer.commit_transaction(patience).expect("it commits"),
                false => producer.abort_transaction(patience).expect("it is taken back"),
            }
            assert_eq!(project.run_json()["events"], if is_kept { 10 } else { 0 });
        }
        assert_eq!(rows(&project), rows_of_file((1..=10).chain(21..=30)));
    }
}

#[test]
fn what_cannot_be_reached_is_told() {
    let nobody = KafkaPlan::new("127.0.0.1:1", "events").expect("a plan");
    fails(&read_all(&nobody, None), &["kafka 127.0.0.1:1 events/0", "refused", "it was tried for"]);
    let kafka = Kafka::mock();
    kafka.make_topic("tls", 1);
    let tls = plan(&kafka, "tls").with_setting("security.protocol", "ssl").expect("TLS is there");
    assert!(read_all(&tls, None).ended.is_err());
}

#[test]
fn settings_are_passed_through_but_for_ours() {
    let plan = || KafkaPlan::new("h:1", "t").expect("a plan");
    for name in ["enable.auto.commit", "isolation.level", "auto.offset.reset", "enable.partition.eof", "client.rack"] {
        for name in [name.to_owned(), format!("topic.{name}")] {
            let error = plan().with_setting(&name, "false").expect_err("it is ours").to_string();
            assert!(error.contains(&name) && error.contains("cannot be set: "), "{error}");
        }
    }
    let error = plan().with_setting("no.such.thing", "1").expect_err("there is none").to_string();
    assert!(error.contains("no.such.thing"), "{error}");
    let error = plan().with_setting("fetch.wait.max.ms", "soon").expect_err("no number").to_string();
    assert!(error.contains("fetch.wait.max.ms"), "{error}");
    let secret = [
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", "u"),
        ("sasl.password", "s3cret"),
        ("group.id", "g"),
        ("compression.type", "zstd"),
    ];
    let whole = secret.iter().fold(plan(), |plan, (name, value)| plan.with_setting(*name, *value).expect(name));
    assert_eq!(whole.group(), Some("g"));
    assert!(!format!("{whole:?}").contains("s3cret"), "{whole:?}");
}

/// What a pipeline file may not say.
#[test]
fn pipeline_files_are_refused_with_the_reason() {
    for (source, says) in [
        ("kafka = \"h:1\"", "missing key \"source.topic\""),
        ("kafka = \"\"\ntopic = \"t\"", "kafka: expected a text that is not empty"),
        ("kafka = 1\ntopic = \"t\"", "source.kafka: expected servers such as"),
        ("kafka = \"h:1\"\ntopic = \"a/b\"", "topic: expected up to 249 letters"),
        ("kafka = \"h:1\"\ntopic = \"t\"\npartition = -1", "pipeline.toml:5:13: partition: expected the number"),
        ("kafka = \"h:1\"\ntopic = \"t\"\npath = \"x\"", "kafka: there is a path too"),
        ("kafka = \"h:1\"\ntopic = \"t\"\nredis = \"redis://h\"", "kafka: there is a Redis stream too"),
        ("kafka = \"h:1\"\ntopic = \"t\"\ncommand = [\"x\"]", "command: there is a topic of Kafka too"),
        ("kafka = \"h:1\"\ntopic = \"t\"\nformat = \"csv\"", "format is for files"),
        ("kafka = \"h:1\"\ntopic = \"t\"\nlate = \"replay\"\n[rollback]\ndepth = 5", "late = \"replay\" is for files"),
        ("kafka = \"h:1\"\ntopic = \"t\"\nposition = \"p\"", "position: the position in a topic of Kafka"),
        ("kafka = \"h:1\"\ntopic = \"t\"\nfield = \"d\"", "field belongs to a Redis stream"),
        ("kafka = \"h:1\"\ntopic = \"t\"\nblock = \"@x\"", "block: expected \"@time\""),
        ("kafka = \"h:1\"\ntopic = \"t\"\nblock = \"@time\"\nseq = \"s\"", "the offset of a record is its place"),
        ("path = \"x\"\ntopic = \"t\"", "topic belongs to a topic of Kafka"),
        ("topic = \"t\"\n[source.kafka]\ngroup.id = \"g\"", "expected servers such as"),
        (
            "topic = \"t\"\n[source.kafka]\nbootstrap.servers = \"h:1\"\nenable.auto.commit = true",
            "enable.auto.commit: it cannot be set: it is false",
        ),
        (
            "topic = \"t\"\n[source.kafka]\n\"bootstrap.servers\" = \"h:1\"\n\"isolation.level\" = \"x\"",
            "it is read_committed",
        ),
        (
            "topic = \"t\"\n[source.kafka]\nbootstrap.servers = \"h:1\"\nno.such = 1",
            "pipeline.toml:6:4: No such configuration property: \"no.such\"",
        ),
    ] {
        let project = project_of(source);
        project.forebay(&["run", "pipeline.toml"]).fails(2, &[says]);
    }
}
