//! Publishing ready documents: what is in Redis then, over every kind of server.

use std::path::Path;
use std::time::{Duration, Instant};

use forebay::publish::{Extent, Publication, PublishPlan, PublishStatus, Publisher, TargetUrl};
use serde_json::{Value as Json, json};

use crate::support::project::{Outcome, Project};
use crate::support::publishing::{pairs, statuses};
use crate::support::redis_proxy::{Break, Wire};
use crate::support::redis_server::{Redis, RedisCluster};

/// A server and how it is reached.
pub struct Target {
    pub url: String,
    server: Kind,
    pub project: Project,
}

enum Kind {
    One(Redis),
    Cluster(RedisCluster),
}

impl Target {
    pub fn plain() -> Self {
        let server = Redis::start(&[]);
        Self { url: server.url(), server: Kind::One(server), project: Project::new() }
    }

    /// A password, and a user of the access control list who may do no more than is needed.
    pub fn with_user() -> Self {
        let server = Redis::start(&[]);
        let commands = "+get +mget +exists +set +zadd +zscore +zrangebyscore +zrevrangebyscore +zrem +pexpire +del +eval +evalsha +hsetnx +hlen +hgetall +publish +select";
        let rights: Vec<&str> = commands.split(' ').collect();
        let user = [&["ACL", "SETUSER", "pub", "on", ">s3:cr@t", "~forebay:*", "&forebay:*"][..], &rights].concat();
        let _: String = server.ask(&user);
        let url = format!("redis://pub:s3%3Acr%40t@127.0.0.1:{}", server.port);
        Self { url, server: Kind::One(server), project: Project::new() }
    }

    pub fn with_tls() -> Self {
        let project = Project::new();
        let authority = Authority::new();
        project.write("ca.crt", authority.certificate.pem());
        let (certificate, key) = authority.issue("localhost");
        let server = Redis::start_with(&["--tls-port", "0", "--tls-auth-clients", "no"], |dir| {
            let file = |name: &str, text: &str| {
                std::fs::write(dir.join(name), text).expect(name);
                dir.join(name).to_string_lossy().into_owned()
            };
            let files =
                [file("s.crt", &certificate), file("s.key", &key), file("ca.crt", &authority.certificate.pem())];
            let names = ["--tls-cert-file", "--tls-key-file", "--tls-ca-cert-file"];
            names.iter().zip(files).flat_map(|(name, file)| [(*name).to_owned(), file]).collect()
        });
        // The plain port stays for what the test itself asks.
        let port = crate::support::postgres_server::free_port();
        let _: String = server.ask(&["CONFIG", "SET", "tls-port", &port.to_string()]);
        let url = format!("rediss://localhost:{port}?sslrootcert={}", project.path("ca.crt").display());
        Self { url, server: Kind::One(server), project }
    }

    pub fn cluster() -> Self {
        let cluster = RedisCluster::start(&[]);
        Self { url: cluster.url(), server: Kind::Cluster(cluster), project: Project::new() }
    }

    pub fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        match &self.server {
            Kind::One(server) => server.ask(command),
            Kind::Cluster(cluster) => cluster.ask(command),
        }
    }

    pub fn publish_with(&self, docs: &str, args: &[&str]) -> Outcome {
        let all = [&["publish", "-", "--pipeline", "p", "--snapshots", &self.url, "--json"], args].concat();
        self.project.forebay_with_input(&all, docs)
    }

    /// Publishes; each region's status, and the summary line.
    pub fn publish(&self, docs: &str) -> (Vec<(String, String)>, Json) {
        statuses(&self.publish_with(docs, &[]).ok())
    }

    fn latest(&self, region: &str) -> Json {
        let id: String = self.ask(&["GET", &format!("forebay:{{p:{region}}}:latest")]);
        let doc: String = self.ask(&["GET", &format!("forebay:{{p:{region}}}:doc:{id}")]);
        serde_json::from_str(&doc).expect("a document")
    }
}

/// Certificates of our own.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

/// The time to live of a key, in seconds.
fn ttl(target: &Target, key: &str) -> i64 {
    let millis: i64 = target.ask(&["PTTL", key]);
    (millis + 500) / 1000
}

/// Makes of each function a test over every kind of server.
macro_rules! each_redis {
    ($($(#[$meta:meta])* fn $name:ident($target:ident) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;

            fn body($target: &Target) $body

            #[test]
            fn plain() {
                body(&Target::plain());
            }

            #[test]
            fn with_user() {
                body(&Target::with_user());
            }

            #[test]
            fn with_tls() {
                body(&Target::with_tls());
            }

            #[test]
            fn cluster() {
                body(&Target::cluster());
            }
        }
    )*};
}

const DOCS: &str = "{\"region\":\"a\",\"v\":1}\n{\"region\":\"b\",\"v\":2}\n{\"region\":\"c\",\"v\":3}\n";

each_redis! {
    fn documents_keys_and_summary_are_as_designed(target) {
        let (regions, summary) = target.publish(DOCS);
        assert_eq!(regions, pairs(&[("a", "published"), ("b", "published"), ("c", "published")]));
        assert_eq!((&summary["published"], &summary["duplicate"], &summary["failed"]), (&json!(3), &json!(0), &json!(0)));
        let id: String = target.ask(&["GET", "forebay:{p:a}:latest"]);
        let seq: u64 = target.ask(&["GET", "forebay:{p:a}:seq"]);
        // printf '%s' '{"region":"a","v":1}' | sha256sum
        let hash = "1afdd44faafb5f9fc792c65a6fcdbc0b32b15947adfa0212601c8a158f2d09bb";
        assert_eq!(id, format!("a.{seq}.{}", &hash[..16]));
        assert_eq!(target.ask::<String>(&["GET", &format!("forebay:{{p:a}}:doc:{id}")]), "{\"region\":\"a\",\"v\":1}");
        assert_eq!(target.ask::<Vec<(String, u64)>>(&["ZRANGE", "forebay:{p:a}:index", "0", "-1", "WITHSCORES"]), [(id.clone(), seq)]);
        assert_eq!(target.ask::<String>(&["GET", &format!("forebay:{{p:a}}:dedup:{hash}")]), id);
        for key in ["latest", "seq", "index", &format!("doc:{id}")] {
            assert_eq!(ttl(target, &format!("forebay:{{p:a}}:{key}")), 90 * 86_400, "{key}");
        }
        assert_eq!(ttl(target, &format!("forebay:{{p:a}}:dedup:{hash}")), 900);
        let summary: String = target.ask(&["GET", "forebay:p:summary"]);
        let summary: Json = serde_json::from_str(&summary).expect("JSON");
        assert_eq!(summary["pipeline"], "p");
        assert_eq!(summary["regions"][0], json!({"region": "a", "id": id, "seq": seq}));
        assert_eq!(summary["regions"].as_array().map(Vec::len), Some(3));
    }

    fn the_same_again_is_a_duplicate_that_lives_longer(target) {
        target.publish(DOCS);
        let id: String = target.ask(&["GET", "forebay:{p:a}:latest"]);
        let keys = ["latest".to_owned(), "seq".into(), "index".into(), format!("doc:{id}")].map(|key| format!("forebay:{{p:a}}:{key}"));
        for key in keys.iter().map(String::as_str).chain(["forebay:p:summary"]) {
            let _: i64 = target.ask(&["PEXPIRE", key, "60000"]);
        }
        let before: String = target.ask(&["GET", "forebay:p:summary"]);
        let (regions, _) = target.publish(DOCS);
        assert_eq!(regions, pairs(&[("a", "duplicate"), ("b", "duplicate"), ("c", "duplicate")]));
        for key in keys.iter().map(String::as_str).chain(["forebay:p:summary"]) {
            assert_eq!(ttl(target, key), 90 * 86_400, "{key}");
        }
        assert_eq!(target.ask::<String>(&["GET", "forebay:{p:a}:latest"]), id);
        assert_eq!(target.ask::<String>(&["GET", "forebay:p:summary"]), before, "nothing was published");
    }

    fn a_content_that_comes_back_is_a_change(target) {
        for value in [1, 2, 1] {
            let (regions, _) = target.publish(&format!("{{\"region\":\"a\",\"v\":{value}}}"));
            assert_eq!(regions, pairs(&[("a", "published")]), "{value}");
            assert_eq!(target.latest("a")["v"], value);
        }
    }

    fn latest_never_goes_back(target) {
        let doc = |v: i32, time: &str| format!("{{\"region\":\"a\",\"v\":{v},\"at\":\"{time}\"}}");
        let publish = |text: &str| statuses(&target.publish_with(text, &["--time-field", "at"]).ok()).0;
        assert_eq!(publish(&doc(1, "2026-01-02T00:00:00Z")), pairs(&[("a", "published")]));
        let outcome = target.publish_with(&doc(2, "2026-01-01T00:00:00Z"), &["--time-field", "at"]).ends_with(3);
        let (regions, last) = statuses(&outcome);
        assert_eq!(regions, pairs(&[("a", "stale")]));
        assert_eq!([&last["stale"], &last["duplicate"], &last["failed"]], [1, 0, 0]);
        let line = outcome.json_lines().remove(0);
        assert_eq!([&line["seq"], &line["newest_seq"]], [1_767_225_600_000_u64, 1_767_312_000_000]);
        let told = line["error"].as_str().expect("an error");
        assert!(told.contains("1767312000000 (2026-01-02T00:00:00.000Z)") && told.contains("1767225600000"), "{told}");
        // The content that readers have is no older one.
        assert_eq!(publish(&doc(1, "2026-01-02T00:00:00Z")), pairs(&[("a", "duplicate")]));
        let same = ["--time-field", "at", "--dedup-ignore", "at"];
        target.publish_with(&doc(1, "2026-01-02T12:00:00Z"), &same).ok();
        let outcome = target.publish_with(&doc(1, "2026-01-01T00:00:00Z"), &same).ok();
        assert_eq!(statuses(&outcome).0, pairs(&[("a", "duplicate")]));
        assert_eq!(target.latest("a")["v"], 1);
        assert_eq!(publish(&doc(3, "2026-01-03T00:00:00Z")), pairs(&[("a", "published")]));
        assert_eq!(target.latest("a")["v"], 3);
    }

    fn old_snapshots_go_with_their_index_entries_and_live_is_deleted(target) {
        let args = ["--ttl", "1h", "--time-field", "at"];
        let now = forebay::Timestamp::now();
        let at = |hours: u64| now.saturating_sub(Duration::from_secs(hours * 3600)).to_string();
        for hours in [3, 2, 0] {
            let _: String = target.ask(&["SET", "forebay:{p:a}:live", "cached"]);
            let doc = format!("{{\"region\":\"a\",\"at\":\"{}\"}}", at(hours));
            target.publish_with(&doc, &args).ok();
            assert!(!target.ask::<bool>(&["EXISTS", "forebay:{p:a}:live"]));
            // However old, a region's newest is there.
            assert_eq!(target.latest("a")["at"], at(hours));
        }
        let ids: Vec<String> = target.ask(&["ZRANGE", "forebay:{p:a}:index", "0", "-1"]);
        assert_eq!(ids.len(), 1, "{ids:?}");
        let seq = now.saturating_sub(Duration::from_secs(2 * 3600)).as_micros() / 1000;
        let kept = ids.iter().filter(|id| id.contains(&seq.to_string())).count();
        assert_eq!(kept, 0, "{ids:?}");
    }

    fn a_region_that_is_missing_is_kept(target) {
        target.publish(DOCS);
        let id: String = target.ask(&["GET", "forebay:{p:c}:latest"]);
        let _: i64 = target.ask(&["PEXPIRE", "forebay:{p:c}:latest", "60000"]);
        for value in [7, 8] {
            let (regions, summary) = target.publish(&format!("{{\"region\":\"a\",\"v\":{value}}}\n{{\"region\":\"b\",\"v\":2}}"));
            assert_eq!(regions, pairs(&[("a", "published"), ("b", "duplicate"), ("c", "kept")]));
            assert_eq!(summary["kept"], 1);
            assert_eq!(ttl(target, "forebay:{p:c}:latest"), 90 * 86_400);
        }
        let summary: Json = serde_json::from_str(&target.ask::<String>(&["GET", "forebay:p:summary"])).expect("JSON");
        assert_eq!(summary["regions"][2]["id"], json!(id), "it is in the next summary too");
        // What has gone is not kept.
        let _: i64 = target.ask(&["DEL", "forebay:{p:c}:latest"]);
        assert_eq!(target.publish("{\"region\":\"a\",\"v\":9}").0, pairs(&[("a", "published"), ("b", "kept")]));
    }

    fn a_key_of_another_type_fails_its_region_alone(target) {
        target.publish(DOCS);
        let before: String = target.ask(&["GET", "forebay:p:summary"]);
        for name in ["latest", "seq", "index"] {
            let key = format!("forebay:{{p:b}}:{name}");
            let wrong = if name == "index" { ["SET", &key, "x"] } else { ["LPUSH", &key, "x"] };
            let _: redis::Value = target.ask(&["DEL", &key]);
            let _: redis::Value = target.ask(&wrong);
            let docs = DOCS.replace(":1}", &format!(":\"{name}\"}}")).replace(":2}", ":22}");
            let outcome = target.publish_with(&docs, &[]).ends_with(3);
            let (regions, last) = statuses(&outcome);
            assert_eq!(regions, pairs(&[("a", "published"), ("b", "failed"), ("c", "duplicate")]), "{name}");
            assert_eq!(last["failed"], 1);
            let error = outcome.json_lines()[1]["error"].as_str().expect("an error").to_owned();
            assert!(error.contains("WRONGTYPE") && error.contains(&key), "{error}");
            assert_eq!(target.ask::<String>(&["GET", "forebay:p:summary"]), before, "{name}");
            // Nothing of it was written: once the key is gone, it is no duplicate.
            let _: i64 = target.ask(&["DEL", &key]);
            let (regions, _) = target.publish(&docs);
            assert_eq!(regions[1].1, "published", "{name}");
            let _: redis::Value = target.ask(&["DEL", "forebay:{p:b}:dedup:x"]);
            target.publish(DOCS);
            let _: redis::Value = target.ask(&["SET", "forebay:p:summary", &before]);
        }
    }

    fn a_full_memory_fails_what_it_must_and_nothing_by_half(target) {
        let Kind::One(server) = &target.server else { return };
        target.publish(DOCS);
        let keys = server.keys();
        let _: String = server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
        let (regions, _) = statuses(&target.publish_with(&DOCS.replace(":1}", ":11}"), &[]).ends_with(3));
        assert_eq!(regions, pairs(&[("a", "failed"), ("b", "duplicate"), ("c", "duplicate")]));
        let _: String = server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        assert_eq!(server.keys(), keys, "nothing was written");
        assert_eq!(target.publish(&DOCS.replace(":1}", ":11}")).0[0].1, "published");
    }
}

#[test]
fn a_document_that_redis_refuses_touches_no_other() {
    let target = Target::plain();
    let _: String = target.ask(&["CONFIG", "SET", "proto-max-bulk-len", "2000000"]);
    let large = "x".repeat(3_000_000);
    let docs = format!("{{\"region\":\"large\",\"v\":\"{large}\"}}\n{DOCS}");
    for pool in ["1", "8"] {
        let outcome =
            target.publish_with(&docs.replace(":1}", &format!(":\"{pool}\"}}")), &["--pool", pool]).ends_with(3);
        let (regions, _) = statuses(&outcome);
        assert_eq!(regions[0], ("large".to_owned(), "failed".to_owned()));
        assert!(regions[1..].iter().all(|(_, status)| status != "failed"), "{regions:?}");
    }
}

#[test]
fn ten_thousand_regions_and_their_summary() {
    let target = Target::plain();
    let docs = |v: i32| -> String { (0..10_000).map(|at| format!("{{\"region\":\"r{at}\",\"v\":{v}}}\n")).collect() };
    let (regions, last) = target.publish(&docs(1));
    assert_eq!((regions.len(), &last["published"]), (10_000, &json!(10_000)));
    let (_, last) = target.publish(&docs(1));
    assert_eq!(last["duplicate"], 10_000);
    let (_, last) = target.publish(docs(2).split_inclusive('\n').take(9_000).collect::<String>().as_str());
    assert_eq!((&last["published"], &last["kept"]), (&json!(9_000), &json!(1_000)));
    let summary: Json = serde_json::from_str(&target.ask::<String>(&["GET", "forebay:p:summary"])).expect("JSON");
    assert_eq!(summary["regions"].as_array().map(Vec::len), Some(10_000));
}

fn publication(region: &str, seq: u64, doc: &str) -> Publication {
    Publication::new(region, seq, serde_json::from_str(doc).expect("JSON"))
}

fn plan(url: &str) -> PublishPlan {
    PublishPlan::new("p", TargetUrl::parse(url, Path::new("")).expect("an address"))
}

#[test]
fn a_warm_publish_takes_one_round_trip() {
    let server = Redis::start(&[]);
    let way = Wire::start(server.port);
    // So far that no connection is free again before all are wanted.
    way.set_latency(Duration::from_millis(250));
    let mut publisher = Publisher::new(plan(&way.url())).expect("a publisher");
    for (seq, trips) in [(1, 2), (2, 1), (3, 1)] {
        let items: Vec<Publication> =
            (0..8).map(|at| publication(&format!("r{at}"), seq, &format!("{{\"v\":{seq}}}"))).collect();
        let before = way.steps();
        let published = publisher.publish(&items, Extent::Whole { is_clean: true });
        assert_eq!((published.published(), published.round_trips), (8, trips), "{published:?}");
        assert_eq!(way.steps() - before, 8, "each region in one request, the summary with them");
    }
    assert_eq!(way.connections(), 8);
    let summary: Json = serde_json::from_str(&server.ask::<String>(&["GET", "forebay:p:summary"])).expect("JSON");
    assert_eq!(summary["regions"][7]["seq"], 3);
}

/// The trap of pools: a reply that came too late must not be taken for the next command's.
#[test]
fn a_late_reply_is_not_taken_for_the_next_one() {
    let server = Redis::start(&[]);
    let way = Wire::start(server.port);
    let plan = plan(&way.url()).with_pool(1).and_then(|plan| plan.with_timeout(Duration::from_millis(500)));
    let plan = plan.expect("a plan");
    let mut publisher = Publisher::new(plan).expect("a publisher");
    let part =
        |publisher: &mut Publisher, item: Publication| publisher.publish(&[item], Extent::Part).receipts.remove(0);
    assert!(part(&mut publisher, publication("a", 1, "{\"v\":1}")).outcome.is_ok());
    let wait = Duration::from_millis(1200);
    let next = way.steps() + 1;
    way.break_at(next, Break::Late(wait));
    way.break_at(next + 1, Break::Late(wait));
    let late = part(&mut publisher, publication("a", 2, "{\"v\":2}"));
    assert!(late.outcome.is_err(), "{late:?}");
    // The late replies arrive while these ask: the second one was asked for before its `wait` begins here.
    let begun = Instant::now();
    for at in 0.. {
        let region = format!("r{at}");
        let receipt = part(&mut publisher, publication(&region, 7, "{\"v\":7}"));
        assert_eq!(receipt.outcome, Ok(PublishStatus::Published), "{receipt:?}");
        assert!(receipt.id.starts_with(&format!("{region}.7.")), "{receipt:?}");
        if begun.elapsed() > wait {
            break;
        }
    }
    assert!(way.is_spent());
}

/// The first two regions' connections are closed by the server while they are idle.
#[test]
fn a_connection_that_was_closed_costs_a_retry_and_no_region() {
    let mut server = Redis::start(&[]);
    let mut publisher = Publisher::new(plan(&server.url())).expect("a publisher");
    let items = |seq: u64| -> Vec<Publication> {
        (0..8).map(|at| publication(&format!("r{at}"), seq, &format!("{{\"v\":{seq}}}"))).collect()
    };
    assert_eq!(publisher.publish(&items(1), Extent::Part).published(), 8);
    server.kill();
    server.restart();
    let published = publisher.publish(&items(2), Extent::Part);
    assert_eq!(published.published(), 8, "{published:?}");
}

#[test]
fn a_user_without_a_right_fails_before_anything_is_written() {
    let target = Target::with_user();
    let _: String = target.ask(&["ACL", "SETUSER", "pub", "-del"]);
    let outcome = target.publish_with(DOCS, &[]).ends_with(3);
    assert!(outcome.stdout().contains("NOPERM the user may not DEL forebay:{p:a}:live"), "{outcome}");
    assert!(target.ask::<Vec<String>>(&["KEYS", "*"]).is_empty());
}

#[test]
fn who_is_not_let_in_is_told() {
    let target = Target::with_user();
    let port = target.url.rsplit(':').next().expect("a port");
    for (url, says) in [
        (format!("redis://pub:wrong@127.0.0.1:{port}"), "refused the login"),
        ("redis://127.0.0.1:1".to_owned(), "no connection"),
    ] {
        let args = ["publish", "-", "--pipeline", "p", "--snapshots", &url, "--json"];
        let outcome = target.project.forebay_with_input(&args, DOCS).ends_with(3);
        let (regions, _) = statuses(&outcome);
        assert!(regions.len() == 3 && regions.iter().all(|(_, status)| status == "failed"), "{outcome}");
        assert!(outcome.stdout().contains(says) && !outcome.stdout().contains("wrong@"), "{outcome}");
    }
}

/// TLS to a port without it, and the other way round: one line, one time-out, and what to write instead.
#[test]
fn tls_that_is_mixed_up_is_told_at_once() {
    let (plain, tls) = (Target::plain(), Target::with_tls());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (with_tls, without) = (tls.url.split_once('?').expect("options").0, plain.url.replace("redis://", "rediss://"));
    let docs: String = (0..30).map(|at| format!("{{\"region\":\"r{at}\"}}\n")).collect();
    for (url, says) in [
        (without, "write redis:// and not rediss://"),
        (format!("rediss://{}", silent.local_addr().expect("an address")), "write redis:// and not rediss://"),
        (with_tls.replace("rediss://", "redis://"), "write rediss://"),
    ] {
        let begun = Instant::now();
        let args = ["publish", "-", "--pipeline", "p", "--snapshots", &url, "--timeout", "2s", "--quiet"];
        let outcome = plain.project.forebay_with_input(&args, &docs).fails(3, &[says]);
        assert!(begun.elapsed() < Duration::from_millis(3900), "{:?}\n{outcome}", begun.elapsed());
        assert_eq!(outcome.stderr().lines().count(), 1, "{outcome}");
        let args = ["latest", "--pipeline", "p", "--snapshots", &url];
        let begun = Instant::now();
        plain.project.forebay(&args).fails(1, &[says]);
        assert!(begun.elapsed() < Duration::from_millis(9900), "{:?}: the default is 5 s", begun.elapsed());
    }
}

/// The clock that counts is that of Redis, which all hosts share.
#[test]
fn a_number_ahead_of_the_clock_of_redis_is_refused() {
    let server = Redis::start(&[]);
    let mut publisher = Publisher::new(plan(&server.url())).expect("a publisher");
    let ahead = u64::try_from(forebay::Timestamp::now().as_micros() / 1000).expect("a time") + 3_700_000;
    let items = [publication("a", ahead, "{}"), publication("b", ahead - 200_000, "{}")];
    let published = publisher.publish(&items, Extent::Part);
    let error = published.receipts[0].outcome.as_ref().expect_err("it is ahead").to_string();
    assert!(error.contains("more than an hour ahead of the clock of Redis"), "{error}");
    assert_eq!(published.receipts[1].outcome, Ok(PublishStatus::Published));
    // A store counts on from whatever readers have; its numbers are no times.
    let mut publisher = Publisher::new(plan(&server.url()).with_signature("s")).expect("a publisher");
    assert_eq!(publisher.publish(&items[..1], Extent::Part).published(), 1);
}

#[test]
fn a_certificate_is_checked() {
    let target = Target::with_tls();
    for (from, to) in [("localhost", "127.0.0.1"), ("?sslrootcert=", "?sslcert=")] {
        let url = target.url.replace(from, to);
        let args = ["publish", "-", "--pipeline", "p", "--snapshots", &url];
        let outcome = target.project.forebay_with_input(&args, DOCS);
        assert!(matches!(outcome.code(), Some(2 | 3)), "{outcome}");
    }
    let (plain, _) = target.url.split_once('?').expect("options");
    let args = ["publish", "-", "--pipeline", "p", "--snapshots", plain];
    target.project.forebay_with_input(&args, DOCS).fails(3, &["certificate"]);
}
