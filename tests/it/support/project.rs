//! A project in a folder of its own, the built binary, and what came of it. A failed expectation prints everything.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crossbeam_channel::bounded;
use serde_json::Value as Json;

use super::postgres_server::{self, Server};
use super::signal;

/// How long a command may take before the test gives up on it.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);

/// Where a test's pipelines store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    Sqlite,
    Postgres,
}

thread_local! {
    static STORES: std::cell::Cell<Stores> = const { std::cell::Cell::new(Stores::Sqlite) };
}

/// Runs a test's body with that store under every [`Project`].
pub fn with_store(stores: Stores, body: impl FnOnce()) {
    STORES.set(stores);
    body();
    STORES.set(Stores::Sqlite);
}

/// Makes of each function a test over SQLite and one over Postgres.
#[macro_export]
macro_rules! both_stores {
    ($($(#[$meta:meta])* fn $name:ident() $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use $crate::support::project::{Stores, with_store};

            fn body() $body

            #[test]
            fn sqlite() {
                with_store(Stores::Sqlite, body);
            }

            #[test]
            fn postgres() {
                with_store(Stores::Postgres, body);
            }
        }
    )*};
}

/// A folder with a pipeline in it; removed when it is dropped.
pub struct Project {
    dir: tempfile::TempDir,
    /// The database, where the pipeline stores to Postgres.
    database: Option<String>,
}

/// How a command ended.
pub struct Outcome {
    command: String,
    dir: PathBuf,
    output: Output,
}

impl Project {
    pub fn new() -> Self {
        let database = (STORES.get() == Stores::Postgres).then(|| Server::shared().make_database());
        Self { dir: tempfile::tempdir().expect("a folder for the test"), database }
    }

    /// A project with this pipeline file, script and events.
    pub fn with(pipeline: &str, script: &str, events: &str) -> Self {
        let project = Self::new();
        project.write("pipeline.toml", pipeline);
        project.write("handlers.lua", script);
        project.write("events.ndjson", events);
        project
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).expect(name);
    }

    /// The binary with these arguments, in the project's folder, without the caller's environment of ours.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(args).current_dir(self.dir.path()).env_remove("DATABASE_URL").env_remove("REDIS_URL");
        let of_libpq =
            std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("PG"));
        for name in of_libpq {
            command.env_remove(name);
        }
        if let Some(url) = self.url() {
            command.env("DATABASE_URL", url);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The address of the project's own database, where it has one.
    pub fn url(&self) -> Option<String> {
        self.database.as_ref().map(|database| Server::shared().url(database))
    }

    /// A connection to it.
    pub fn client(&self) -> postgres::Client {
        Server::shared().client(self.database.as_deref().expect("a project over Postgres"))
    }

    pub fn forebay(&self, args: &[&str]) -> Outcome {
        self.finish(self.command(args).spawn().expect("the binary starts"), args)
    }

    /// As [`Project::forebay`], with something on standard input.
    pub fn forebay_with_input(&self, args: &[&str], input: &str) -> Outcome {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("stdin");
        // It may end before it has read all.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        self.finish(child, args)
    }

    /// The binary where a user may start it who has no rights here.
    pub fn unprivileged(&self) -> PathBuf {
        let copy = self.path("forebay");
        if !copy.exists() {
            // By a program: a child that another test forks meanwhile would inherit the open file, and keep it busy.
            let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_forebay")).arg(&copy).status();
            assert!(copied.expect("cp").success(), "a copy of the binary");
        }
        copy
    }

    /// As [`Project::forebay`], as a user to whom nothing belongs: to root everything is allowed.
    pub fn forebay_as(&self, reader: &Path, args: &[&str]) -> Outcome {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(reader);
        command.args(args).current_dir(self.dir.path()).env_remove("DATABASE_URL").env_remove("REDIS_URL");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if postgres_server::is_root() {
            command.uid(postgres_server::UNPRIVILEGED).gid(postgres_server::UNPRIVILEGED);
        }
        self.finish(command.spawn().expect("the binary starts"), args)
    }

    /// Waits for a child, with an upper bound.
    pub fn finish(&self, child: Child, args: &[&str]) -> Outcome {
        let pid = child.id();
        let (sender, ended) = bounded(1);
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let output = ended.recv_timeout(COMMAND_TIMEOUT).unwrap_or_else(|_| {
            signal::send("KILL", pid);
            panic!("forebay {args:?} did not end within {COMMAND_TIMEOUT:?}")
        });
        let output = output.expect("the output of the binary");
        Outcome { command: format!("forebay {}", args.join(" ")), dir: self.dir.path().to_owned(), output }
    }

    /// `forebay run pipeline.toml --json`, which must succeed.
    pub fn run_json(&self) -> Json {
        self.forebay(&["run", "pipeline.toml", "--json"]).ok().json()
    }

    /// Statements on the project's store, for what a test has to change behind the program's back.
    pub fn execute(&self, database: &str, sql: &str) {
        match &self.database {
            None => execute(&self.path(database), sql),
            Some(name) => {
                let sql = postgres_server::names_in_postgres(sql);
                Server::shared().execute(name, &format!("SET search_path = \"{}\"; {sql}", self.pipeline()));
            }
        }
    }

    /// The address of the project's store.
    pub fn store(&self, database: &str) -> String {
        self.url().unwrap_or_else(|| format!("sqlite:{}", self.path(database).display()))
    }

    /// A query on the project's store; each row as text. `database` is the file over SQLite, and any name over Postgres.
    pub fn query(&self, database: &str, sql: &str) -> Vec<Vec<String>> {
        if self.database.is_none() {
            return query(&self.path(database), sql);
        }
        postgres_server::query(&mut self.client(), &self.pipeline(), sql)
    }

    /// The name of the pipeline.
    fn pipeline(&self) -> String {
        let file = std::fs::read_to_string(self.path("pipeline.toml")).unwrap_or_default();
        let name = file.lines().find_map(|line| line.strip_prefix("name = ")).unwrap_or("\"public\"");
        name.trim_matches('"').to_owned()
    }
}

/// A statement on a database.
fn execute(database: &Path, sql: &str) {
    rusqlite::Connection::open(database).and_then(|open| open.execute_batch(sql)).expect(sql);
}

/// A query on a database; each row as text, null as `NULL`.
pub fn query(database: &Path, sql: &str) -> Vec<Vec<String>> {
    use rusqlite::types::ValueRef;
    let connection = rusqlite::Connection::open(database).expect("the database");
    let mut statement = connection.prepare(sql).expect(sql);
    let columns = statement.column_count();
    let mut rows = statement.query([]).expect(sql);
    let mut found = Vec::new();
    while let Some(row) = rows.next().expect(sql) {
        let text = |at| match row.get_ref(at).expect("column") {
            ValueRef::Null => "NULL".to_owned(),
            ValueRef::Integer(value) => value.to_string(),
            ValueRef::Real(value) => format!("{value:?}"),
            ValueRef::Text(text) => String::from_utf8(text.to_vec()).expect("UTF-8"),
            ValueRef::Blob(bytes) => format!("{bytes:?}"),
        };
        found.push((0..columns).map(text).collect());
    }
    found
}

impl Outcome {
    pub fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The command must have ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.ends_with(0)
    }

    /// The command must have ended with that code, and without a panic.
    #[track_caller]
    pub fn ends_with(self, code: i32) -> Self {
        assert!(self.code() == Some(code), "expected exit code {code}\n{self}");
        assert!(!self.stderr().contains("panicked at"), "a panic\n{self}");
        self
    }

    /// The command must have failed with that code, and said each of these.
    #[track_caller]
    pub fn fails(self, code: i32, says: &[&str]) -> Self {
        let outcome = self.ends_with(code);
        for text in says {
            assert!(outcome.stderr().contains(text), "expected stderr to say {text:?}\n{outcome}");
        }
        outcome
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.stdout()).unwrap_or_else(|error| panic!("expected JSON on stdout: {error}\n{self}"))
    }

    /// Standard output as one JSON value a line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Json> {
        self.stdout()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{self}")))
            .collect()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "command: {}\nin:      {}\nstatus:  {}\nstdout:\n{}\nstderr:\n{}",
            self.command,
            self.dir.display(),
            self.output.status,
            self.stdout(),
            self.stderr()
        )
    }
}
