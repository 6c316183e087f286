//! Private PostgreSQL servers: each in a folder of its own, on a port of its own, never the system's. A guardian process
//! stops the server and removes the folder when the tests end, however they end.

#![allow(dead_code, reason = "tests and benches share it, and use different parts")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use postgres::{Client, NoTls};

/// Whom the server runs as where the tests run as root, which it refuses: nobody.
pub const UNPRIVILEGED: u32 = 65_534;

/// A running server.
pub struct Server {
    bin: PathBuf,
    data: PathBuf,
    pub port: u16,
    settings: String,
    // Its end is what the guardian waits for.
    _life: ChildStdin,
    _guardian: Child,
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// Where the server's programs are.
fn bin() -> PathBuf {
    let listed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = listed.map(|version| version.path().join("bin")).collect();
    found.sort_by_key(|bin| {
        let version = bin.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        version.and_then(|version| version.parse::<u32>().ok())
    });
    if let Ok(answer) = Command::new("pg_config").arg("--bindir").output() {
        found.insert(0, String::from_utf8_lossy(&answer.stdout).trim().into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    let has_all = |bin: &PathBuf| {
        ["initdb", "pg_ctl", "pg_basebackup", "pg_dump", "psql"].iter().all(|name| bin.join(name).exists())
    };
    found.into_iter().rev().find(has_all).expect("PostgreSQL's programs initdb and pg_ctl; `make test` installs them")
}

/// A command as the user whom the server runs as.
fn as_server_user(program: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/tmp");
    command
}

pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map(|me| me.uid() == 0).unwrap_or(false)
}

/// Gives what was put into the server's folder to the server's user.
fn own_all(data: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for entry in std::fs::read_dir(data).expect("the folder").flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "key" || ending == "crt") {
            if is_root() {
                std::os::unix::fs::chown(entry.path(), Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("chown");
            }
            std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o600)).expect("chmod");
        }
    }
}

/// A port that nobody listens on, below those that the system gives to connections and to listeners without a wish: a
/// server that comes back must find its port free.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..10_000 {
        let place = std::process::id().wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 15_000 + u16::try_from(place % 15_000).expect("a port");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port between 15000 and 30000 is free");
}

impl Server {
    /// The server that tests share which do it no harm.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(""))
    }

    /// Its folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A server of one's own; `settings` as on its command line.
    pub fn start(settings: &str) -> Self {
        Self::start_with(settings, |_| {})
    }

    /// As [`Server::start`], with files put into its folder before.
    pub fn start_with(settings: &str, furnish: impl FnOnce(&Path)) -> Self {
        let bin = bin();
        let mut initdb = as_server_user(&bin.join("initdb"));
        initdb.args(["--no-sync", "-A", "trust", "-U", "forebay", "-E", "UTF8", "--locale=C", "-D"]);
        Self::start_from(bin, initdb, settings, furnish)
    }

    /// A standby that follows this server.
    pub fn standby(&self) -> Self {
        let mut backup = as_server_user(&self.bin.join("pg_basebackup"));
        backup.args(["-h", "127.0.0.1", "-U", "forebay", "-R", "-X", "stream", "-c", "fast", "--no-sync", "-p"]);
        backup.arg(self.port.to_string()).arg("-D");
        Self::start_from(self.bin.clone(), backup, &self.settings, |_| {})
    }

    /// Starts a server in the folder that a command makes, whose last argument it is.
    fn start_from(bin: PathBuf, mut make: Command, settings: &str, furnish: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::Builder::new().prefix("forebay-pg-").tempdir().expect("a folder").keep();
        let data = dir.join("data");
        if is_root() {
            std::os::unix::fs::chown(&dir, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("chown");
        }
        let ended = "cat >/dev/null; \"$0\" -D \"$1\" -m immediate -w stop >/dev/null 2>&1; rm -rf \"$2\"";
        let mut guardian = Command::new("sh");
        guardian.args(["-c", ended]).arg(bin.join("pg_ctl")).arg(&data).arg(&dir).process_group(0);
        if is_root() {
            guardian.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        let mut guardian = guardian
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/tmp")
            .spawn()
            .expect("sh");
        let life = guardian.stdin.take().expect("stdin");
        assert!(make.arg(&data).status().expect("a folder for the server").success());
        furnish(&data);
        own_all(&data);
        let mut server = Self { bin, data, port: 0, settings: settings.to_owned(), _life: life, _guardian: guardian };
        // Another program may take the port between our looking and the server's binding it.
        for _ in 0..5 {
            server.port = free_port();
            if server.try_start() {
                return server;
            }
        }
        panic!("PostgreSQL does not start; see {}", server.data.join("log").display());
    }

    /// Makes a standby the server that takes writes.
    pub fn promote(&self) {
        let mut promote = as_server_user(&self.bin.join("pg_ctl"));
        promote.arg("-D").arg(&self.data).args(["-w", "promote"]);
        assert!(promote.status().expect("pg_ctl").success());
    }

    fn try_start(&self) -> bool {
        let dir = self.data.parent().expect("a folder").display();
        // What a server of tests may do without: it is never the machine that fails.
        let options = format!(
            "-p {} -k {dir} -c listen_addresses=127.0.0.1 -c fsync=off -c full_page_writes=off -c shared_buffers=64MB -c max_connections=60 {}",
            self.port, self.settings
        );
        let mut start = as_server_user(&self.bin.join("pg_ctl"));
        start
            .arg("-D")
            .arg(&self.data)
            .arg("-l")
            .arg(self.data.join("log"))
            .args(["-w", "-t", "60", "-o", &options, "start"]);
        start.stderr(Stdio::null());
        start.status().expect("pg_ctl").success()
    }

    /// Ends the server at once, as a crash does: nothing is written down first.
    pub fn crash(&self) {
        let mut stop = as_server_user(&self.bin.join("pg_ctl"));
        stop.arg("-D").arg(&self.data).args(["-m", "immediate", "-w", "stop"]);
        assert!(stop.status().expect("pg_ctl").success());
    }

    /// Starts it again, on the same port.
    pub fn restart(&self) {
        assert!(self.try_start(), "PostgreSQL does not start again; see {}", self.data.join("log").display());
    }

    /// Makes an empty database; returns its name.
    pub fn make_database(&self) -> String {
        let name = format!("t{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        self.client("postgres").batch_execute(&format!("CREATE DATABASE {name}")).expect("a database");
        name
    }

    /// `pg_dump -n SCHEMA`: a text of SQL.
    pub fn dump(&self, database: &str, schema: &str) -> Vec<u8> {
        let mut dump = as_server_user(&self.bin.join("pg_dump"));
        let dump = dump.args(["-n", schema, "-d", &self.url(database)]).stdout(Stdio::piped()).output();
        let dump = dump.expect("pg_dump");
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        dump.stdout
    }

    /// Reads such a text with `psql`.
    pub fn restore(&self, database: &str, dump: &[u8]) {
        use std::io::Write;
        let mut psql = as_server_user(&self.bin.join("psql"));
        psql.args(["-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database)]).stdin(Stdio::piped());
        let mut psql = psql.spawn().expect("psql");
        psql.stdin.take().expect("stdin").write_all(dump).expect("the dump");
        assert!(psql.wait().expect("psql").success());
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://forebay@127.0.0.1:{}/{database}", self.port)
    }

    pub fn client(&self, database: &str) -> Client {
        Client::connect(&self.url(database), NoTls).expect("a connection")
    }

    /// Runs statements in a database.
    pub fn execute(&self, database: &str, sql: &str) {
        self.client(database).batch_execute(sql).expect(sql);
    }
}

/// A PgBouncer before a server.
pub struct Pooler {
    pub port: u16,
    _dir: tempfile::TempDir,
    // Its end is what ends the pooler.
    _life: ChildStdin,
    _guardian: Child,
}

impl Pooler {
    /// Starts one with these lines in its settings.
    pub fn start(server: &Server, settings: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("forebay-bouncer-").tempdir().expect("a folder");
        if is_root() {
            std::os::unix::fs::chown(dir.path(), Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("chown");
        }
        let users = dir.path().join("users");
        std::fs::write(&users, "\"forebay\" \"\"\n").expect("users");
        let file = dir.path().join("pgbouncer.ini");
        for _ in 0..5 {
            let port = free_port();
            // Only this pooler knows this database.
            let own = format!("own_{}_{port}", std::process::id());
            let text = format!(
                "[databases]\n{own} = host=127.0.0.1 port={0} dbname=postgres\n* = host=127.0.0.1 port={0}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = trust\nauth_file = {1}\nunix_socket_dir =\n{settings}\n",
                server.port,
                users.display()
            );
            std::fs::write(&file, text).expect("settings");
            let (mut guardian, life) = Self::run(&file);
            let url = format!("postgres://forebay@127.0.0.1:{port}/{own}");
            let begun = std::time::Instant::now();
            while begun.elapsed().as_secs() < 10 && guardian.try_wait().expect("the pooler").is_none() {
                if Client::connect(&url, NoTls).is_ok() {
                    return Self { port, _dir: dir, _life: life, _guardian: guardian };
                }
                std::thread::yield_now();
            }
        }
        panic!("pgbouncer does not start; `make test` installs it");
    }

    /// A process that runs the pooler until its standard input ends.
    fn run(file: &Path) -> (Child, ChildStdin) {
        let mut guardian = Command::new("sh");
        let script = "PATH=$PATH:/usr/sbin pgbouncer -q \"$0\" & cat >/dev/null; kill $!; wait $!";
        guardian.args(["-c", script]).arg(file).process_group(0).current_dir("/tmp");
        if is_root() {
            guardian.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        let guardian = guardian.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut guardian = guardian.expect("sh");
        let life = guardian.stdin.take().expect("stdin");
        (guardian, life)
    }
}

/// A statement on our tables of SQLite as one on those of Postgres.
pub fn names_in_postgres(sql: &str) -> String {
    let sql =
        sql.replace("forebay_pipelines", "_forebay_checkpoint").replace("forebay_signatures", "_forebay_pipeline");
    // Some are given as they are there.
    sql.replace("_forebay_", "forebay_").replace("forebay_", "_forebay_")
}

/// A query on a database; each row as text, in the form that the SQLite store would give: null as `NULL`, a time as
/// RFC 3339, a boolean as 0 or 1. Tables without a schema are those of `pipeline`, and so are ours, by their names in SQLite.
pub fn query(client: &mut Client, pipeline: &str, sql: &str) -> Vec<Vec<String>> {
    use postgres::types::Type;
    let sql = names_in_postgres(sql);
    client.batch_execute(&format!("SET search_path = \"{pipeline}\"; SET TimeZone = 'UTC'")).expect("settings");
    let kinds: Vec<Type> =
        client.prepare(&sql).expect(&sql).columns().iter().map(|column| column.type_().clone()).collect();
    let text = |kind: &Type, value: Option<&str>| match (value, kind) {
        (None, _) => "NULL".to_owned(),
        (Some(value), &Type::FLOAT8) => format!("{:?}", value.parse::<f64>().expect("a number")),
        (Some(value), &Type::BOOL) => if value == "t" { "1" } else { "0" }.to_owned(),
        (Some(value), &Type::TIMESTAMPTZ) => {
            let iso = value.replacen(' ', "T", 1).replace("+00", "Z");
            iso.parse::<forebay::Timestamp>().expect("a time").to_string()
        }
        (Some(value), _) => value.to_owned(),
    };
    let rows = client.simple_query(&sql).expect(&sql);
    let rows = rows.iter().filter_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| kinds.iter().enumerate().map(|(at, kind)| text(kind, row.get(at))).collect()).collect()
}
