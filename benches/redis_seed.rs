//! The whole of a cron job that computes one document a region (lock, previous documents, command, publish, health key,
//! lock given back), of eight regions, over a way of 100 ms: by hand, each step on a connection of its own and one command
//! after another; with `forebay latest` and `forebay publish` as processes of their own; and by `forebay seed`, cold and
//! with `--every`. Plain and over TLS. Each stands beside its bound: its round trips times 100 ms, and the command's own
//! time.
//!
//! `cargo bench --bench redis_seed`, or `make bench-all`. Starts a private server, and removes it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, dead_code, reason = "a benchmark")]

#[path = "../tests/it/support/postgres_server.rs"]
mod postgres_server;
#[path = "../tests/it/support/redis_server.rs"]
mod redis_server;
mod table;
#[path = "../tests/it/support/redis_proxy.rs"]
mod wire;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redis::Connection;
use redis_server::{Redis, ask};
use serde_json::Value as Json;
use wire::Wire;

const ROUND_TRIP: Duration = Duration::from_millis(100);
const REPEATS: usize = 5;
const REGIONS: usize = 8;

/// What is measured may take so much longer than its bound.
const SLACK: f64 = 1.1;

/// Reads what was there, and gives each region a document that nobody has yet.
const COMPUTE: &str = "cat >/dev/null; sed \"s/@/$(date +%s%N)/\" documents";

const CONFIG: &str =
    "name = \"bench\"\n[snapshots.keys]\nhealth = \"meta:bench\"\n[snapshots.health]\nat = \"@now_ms\"\n";

/// How a server is reached.
struct Target<'b> {
    name: &'static str,
    /// Round trips that a new connection takes.
    connecting: u32,
    url: String,
    /// The certificate that is trusted.
    authority: Option<&'b [u8]>,
    dir: &'b Path,
}

/// A way of doing the job.
struct Way {
    name: &'static str,
    trips: u32,
    times: Vec<f64>,
}

impl Target<'_> {
    fn connect(&self) -> Connection {
        let plain = self.url.split('?').next().unwrap();
        let client = match self.authority {
            None => redis::Client::open(plain).unwrap(),
            Some(pem) => {
                let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) };
                redis::Client::build_with_tls(plain, certificates).unwrap()
            }
        };
        let info = client.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        let client = match self.authority {
            None => redis::Client::open(info),
            Some(pem) => redis::Client::build_with_tls(
                info,
                redis::TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) },
            ),
        };
        client.unwrap().get_connection().unwrap()
    }

    /// Runs the command by hand; what it wrote.
    fn compute(&self, previous: &str) -> String {
        let mut child = Command::new("sh")
            .args(["-c", COMPUTE])
            .current_dir(self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(previous.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }

    fn forebay(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(args).args(["--config", "seed.toml", "--snapshots", &self.url]).current_dir(self.dir);
        command.env_remove("REDIS_URL").stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    /// Each step on a connection of its own, one command after another.
    fn by_hand(&self) {
        let locked: Option<String> = ask(&mut self.connect(), &["SET", "hand:lock", "me", "NX", "PX", "900000"]);
        assert!(locked.is_some());
        let mut previous = String::new();
        let mut reading = self.connect();
        for at in 0..REGIONS {
            let id: Option<String> = ask(&mut reading, &["GET", &format!("hand:r{at}:latest")]);
            let id = id.unwrap_or_default();
            let text: Option<String> = ask(&mut reading, &["GET", &format!("hand:doc:{id}")]);
            previous.extend([&text.unwrap_or_default(), "\n"]);
        }
        let documents = self.compute(&previous);
        let mut writing = self.connect();
        for (at, document) in documents.lines().enumerate() {
            let id = format!("r{at}.{}", serde_json::from_str::<Json>(document).unwrap()["n"]);
            let claim = format!("hand:r{at}:dedup:{id}");
            let claimed: Option<String> = ask(&mut writing, &["SET", &claim, &id, "NX", "EX", "900"]);
            assert!(claimed.is_some());
            let mut pipe = redis::pipe();
            pipe.cmd("SET").arg(format!("hand:doc:{id}")).arg(document).arg("EX").arg(9000).ignore();
            pipe.cmd("SET").arg(format!("hand:r{at}:latest")).arg(&id).arg("EX").arg(9000).ignore();
            pipe.cmd("ZADD").arg(format!("hand:r{at}:index")).arg(1).arg(&id).ignore();
            pipe.exec(&mut writing).unwrap();
        }
        let mut ending = self.connect();
        let _: String = ask(&mut ending, &["SET", "hand:meta", "{}", "EX", "9000"]);
        let _: u64 = ask(&mut ending, &["DEL", "hand:lock"]);
    }

    /// The lock and the health key by hand, the documents by processes.
    fn by_processes(&self) {
        let locked: Option<String> = ask(&mut self.connect(), &["SET", "hand:lock", "me", "NX", "PX", "900000"]);
        assert!(locked.is_some());
        let previous = self.forebay(&["latest"]).output().unwrap();
        assert!(previous.status.success());
        let documents = self.compute(&String::from_utf8(previous.stdout).unwrap());
        let mut publishing = self.forebay(&["publish", "-", "--quiet"]).spawn().unwrap();
        publishing.stdin.take().unwrap().write_all(documents.as_bytes()).unwrap();
        assert!(publishing.wait().unwrap().success());
        let _: u64 = ask(&mut self.connect(), &["DEL", "hand:lock"]);
    }

    fn seed(&self) {
        let output = self.forebay(&["seed", "--json"]).args(["--", "sh", "-c", COMPUTE]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let total: Json =
            serde_json::from_slice(output.stdout.split(|byte| *byte == b'\n').nth(REGIONS).unwrap()).unwrap();
        assert_eq!((&total["published"], &total["round_trips"]), (&REGIONS.into(), &(2 + self.connecting).into()));
    }

    /// The times of a process that stays, but for the first.
    fn seed_warm(&self) -> Vec<f64> {
        let mut command = self.forebay(&["seed", "--json", "--every", "1s"]);
        let mut child = command.args(["--", "sh", "-c", COMPUTE]).spawn().unwrap();
        let mut times = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line: Json = serde_json::from_str(&line.unwrap()).unwrap();
            if let Some(wall) = line["wall_ms"].as_f64() {
                assert_eq!(line["published"], REGIONS);
                assert!(times.is_empty() || line["round_trips"] == 2, "{line}");
                times.push(wall);
            }
            if times.len() > REPEATS {
                break;
            }
        }
        let ended = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(ended.success());
        child.wait().unwrap();
        times.split_off(1)
    }

    fn compare(&self, own: f64, table: &mut table::Table) {
        let connecting = self.connecting;
        let regions = REGIONS as u32;
        let trips = [4 * connecting + 3 + 4 * regions, 4 * (connecting + 1), 2 + connecting, 2];
        let names = ["by hand, one command after another", "latest and publish as processes", "seed", "seed --every"];
        let [mut hand, mut processes, mut seed, mut every] =
            std::array::from_fn(|at| Way { name: names[at], trips: trips[at], times: Vec::new() });
        // Fills the keys, so that each way has something to read.
        self.by_hand();
        self.seed();
        for _ in 0..REPEATS {
            hand.times.push(timed(|| self.by_hand()));
            processes.times.push(timed(|| self.by_processes()));
            seed.times.push(timed(|| self.seed()));
        }
        every.times = self.seed_warm();
        let ours = table::median(seed.times.clone());
        for way in [hand, processes, seed, every] {
            let Way { name, trips, times } = way;
            let (time, bound) = (table::median(times), f64::from(trips) * ROUND_TRIP.as_secs_f64() * 1e3 + own);
            println!(
                "{:<6} {name:<36} {trips:>5} {bound:>8.0} {time:>8.0} {:>8.2} {:>10.1}",
                self.name,
                time / bound,
                time / ours
            );
            if name.starts_with("seed") && time > bound * SLACK {
                println!("       it takes more than {SLACK} times its bound");
            }
            let row = table::Row::new(format!("{} regions, {}: {name}", REGIONS, self.name), time, "ms");
            table.note(row.against(format!("{trips} round trips of 100 ms, and the command"), bound));
        }
    }
}

fn timed(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64() * 1e3
}

/// A server with TLS too: its port for that, and who has signed its certificate.
fn server() -> (Redis, u16, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    let server = Redis::start_with(&["--tls-auth-clients", "no"], |dir| {
        let texts = [("s.crt", &certificate), ("s.key", &key.serialize_pem()), ("ca.crt", &authority)];
        let names = ["--tls-cert-file", "--tls-key-file", "--tls-ca-cert-file"];
        let file = |(name, (file, text)): (&&str, (&str, &String))| {
            std::fs::write(dir.join(file), text).unwrap();
            [(*name).to_owned(), dir.join(file).to_string_lossy().into_owned()]
        };
        names.iter().zip(texts).flat_map(file).collect()
    });
    let port = postgres_server::free_port();
    let _: String = server.ask(&["CONFIG", "SET", "tls-port", &port.to_string()]);
    (server, port, authority)
}

fn main() {
    let (server, tls_port, authority) = server();
    let dir = tempfile::tempdir().unwrap();
    let documents =
        (0..REGIONS).map(|at| format!("{{\"region\":\"r{at}\",\"n\":@,\"pad\":\"{}\"}}\n", "x".repeat(2000)));
    std::fs::write(dir.path().join("documents"), documents.collect::<String>()).unwrap();
    std::fs::write(dir.path().join("seed.toml"), CONFIG).unwrap();
    std::fs::write(dir.path().join("ca.crt"), &authority).unwrap();
    let (plain, tls) = (Wire::start(server.port), Wire::start(tls_port));
    for way in [&plain, &tls] {
        way.set_latency(ROUND_TRIP);
    }
    let file = dir.path().join("ca.crt");
    let tls_url = format!("rediss://localhost:{}?sslrootcert={}", tls.port, file.display());
    let targets = [
        Target { name: "plain", connecting: 1, url: plain.url(), authority: None, dir: dir.path() },
        Target { name: "tls", connecting: 2, url: tls_url, authority: Some(authority.as_bytes()), dir: dir.path() },
    ];
    let own = table::median((0..9).map(|_| timed(|| drop(targets[0].compute("")))).collect());
    println!(
        "{REGIONS} regions of 2 KB, a round trip of 100 ms; milliseconds, median of {REPEATS}; the command alone: {own:.0}"
    );
    println!(
        "{:<6} {:<36} {:>5} {:>8} {:>8} {:>8} {:>10}",
        "", "", "trips", "bound", "measured", "of bound", "of seed"
    );
    let mut table = table::Table::silent("redis_seed");
    for target in &targets {
        target.compare(own, &mut table);
    }
    table.save();
}
