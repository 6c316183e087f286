//! Private Redis servers: each in a folder of its own, on a port of its own, never the system's. A guardian process stops
//! the server and removes the folder when the tests end, however they end.

#![allow(dead_code, reason = "tests and benches share it, and use different parts")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue, ToRedisArgs};

use super::postgres_server::free_port;

/// How long a server may take to do what it is asked.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
pub struct Redis {
    pub port: u16,
    dir: tempfile::TempDir,
    settings: Vec<String>,
    guardian: Option<(Child, ChildStdin)>,
}

impl Redis {
    /// A server with these settings on its command line besides ours.
    pub fn start(settings: &[&str]) -> Self {
        Self::start_with(settings, |_| Vec::new())
    }

    /// As [`Redis::start`], with files put into its folder before, which gives more settings.
    pub fn start_with(settings: &[&str], furnish: impl Fn(&Path) -> Vec<String>) -> Self {
        let dir = tempfile::Builder::new().prefix("forebay-redis-").tempdir().expect("a folder");
        let mut given: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        given.extend(furnish(dir.path()));
        let mut server = Self { port: 0, dir, settings: given, guardian: None };
        // Another program may take the port between our looking and the server's binding it.
        for _ in 0..5 {
            server.port = free_port();
            if server.try_start() {
                return server;
            }
        }
        panic!("redis-server does not start; see {}; `make test` installs it", server.log().display());
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn try_start(&mut self) -> bool {
        let mut guardian = Command::new("sh");
        // A server that is to come back leaves its folder.
        let script = "dir=$1; shift; redis-server \"$@\" & pid=$!; cat >/dev/null; kill -9 $pid 2>/dev/null; wait; \
                      [ -e \"$dir/stays\" ] || rm -rf \"$dir\"";
        let _ = std::fs::remove_file(self.dir.path().join("stays"));
        guardian.args(["-c", script, "sh"]).arg(self.dir.path());
        guardian.args(["--save", "", "--appendonly", "no", "--dir"]).arg(self.dir.path());
        guardian.arg("--logfile").arg(self.log()).args(["--bind", "127.0.0.1"]);
        let port = self.port.to_string();
        // A setting of the port replaces ours: with TLS there is no other.
        guardian.args(["--port", &port]);
        guardian.args(self.settings.iter().map(|setting| setting.replace("%port", &port)));
        let guardian = guardian
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/tmp")
            .process_group(0)
            .spawn();
        let mut guardian = guardian.expect("sh");
        let life = guardian.stdin.take().expect("stdin");
        self.guardian = Some((guardian, life));
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            if log.contains("Ready to accept connections") {
                return true;
            }
            if log.contains("Failed listening") || log.contains("FATAL") {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        false
    }

    /// Ends the server at once, as a crash does; what it held is gone.
    pub fn kill(&mut self) {
        std::fs::write(self.dir.path().join("stays"), "").expect("the folder");
        if let Some((mut guardian, life)) = self.guardian.take() {
            drop(life);
            guardian.wait().expect("the guardian");
        }
        std::fs::remove_file(self.log()).expect("the log");
    }

    /// Starts it again, on the same port.
    pub fn restart(&mut self) {
        assert!(self.try_start(), "redis-server does not start again; see {}", self.log().display());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn connection(&self) -> Connection {
        redis::Client::open(self.url()).expect("an address").get_connection().expect("a connection")
    }

    /// One command.
    pub fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        ask(&mut self.connection(), command)
    }

    /// All keys, ordered.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.ask(&["KEYS", "*"]);
        keys.sort();
        keys
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some((mut guardian, life)) = self.guardian.take() {
            drop(life);
            let _ = guardian.wait();
        }
    }
}

/// One command over a connection.
pub fn ask<T: FromRedisValue>(connection: &mut Connection, command: &[impl ToRedisArgs + std::fmt::Debug]) -> T {
    let mut packed = redis::Cmd::new();
    command.iter().for_each(|argument| {
        packed.arg(argument);
    });
    packed.query(connection).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// A Redis Cluster of three masters.
pub struct RedisCluster {
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    /// `settings` are for each of them.
    pub fn start(settings: &[&str]) -> Self {
        let nodes: Vec<Redis> = (0..3)
            .map(|_| {
                // The port of the servers among themselves would otherwise be ours plus 10,000, and may be taken.
                let bus = free_port().to_string();
                let own = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
                Redis::start(&[&own[..], settings].concat())
            })
            .collect();
        for (at, node) in nodes.iter().enumerate() {
            let (first, last) = (at * 16_384 / 3, (at + 1) * 16_384 / 3 - 1);
            let _: String = node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            let _: String = node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
        }
        for node in &nodes[1..] {
            let bus: Vec<String> = node.ask(&["CONFIG", "GET", "cluster-port"]);
            let _: String = nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &bus[1]]);
        }
        let cluster = Self { nodes };
        cluster.wait_until(|info| info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3"));
        cluster
    }

    fn wait_until(&self, is_so: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        while !self.nodes.iter().all(|node| is_so(&node.ask::<String>(&["CLUSTER", "INFO"]))) {
            assert!(begun.elapsed() < PATIENCE, "the cluster does not come together");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The place of the server that has a key.
    pub fn owner(&self, key: &str) -> usize {
        let slot: usize = self.nodes[0].ask(&["CLUSTER", "KEYSLOT", key]);
        // Each server knows of itself. The others may not have heard yet that a slot has moved.
        let owns = |node: &Redis| {
            let ranges: Vec<(usize, usize, Vec<redis::Value>)> = node.ask(&["CLUSTER", "SLOTS"]);
            let range = ranges.into_iter().find(|(first, last, _)| (first..=last).contains(&&slot));
            range.is_some_and(|(_, _, master)| master[1] == redis::Value::Int(i64::from(node.port)))
        };
        self.nodes.iter().position(owns).expect("a server that has the slot")
    }

    pub fn id(&self, node: usize) -> String {
        self.nodes[node].ask(&["CLUSTER", "MYID"])
    }

    /// One command to the server that has the key, its second word.
    pub fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.nodes[self.owner(command[1])].ask(command)
    }

    /// Begins to move a slot: new keys go to the other server.
    pub fn begin_move(&self, slot: usize, from: usize, to: usize) {
        let slot = slot.to_string();
        let _: String = self.nodes[to].ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)]);
        let _: String = self.nodes[from].ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)]);
    }

    /// Moves the keys of a slot, and says that it has moved.
    pub fn end_move(&self, slot: usize, from: usize, to: usize) {
        let keys: Vec<String> = self.nodes[from].ask(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "1000"]);
        for key in keys {
            let port = self.nodes[to].port.to_string();
            let _: String = self.nodes[from].ask(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]);
        }
        let owner = self.id(to);
        for node in [to, from] {
            let _: String = self.nodes[node].ask(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &owner]);
        }
    }
}
