//! What only looks like a Postgres, what stands before one, and a stop while it is connected to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{PIPELINE, SCRIPT, count, events, on_postgres, run_at};
use crate::support::postgres_server::Server;
use crate::support::project::Project;
use crate::support::redis_server::Redis;
use crate::support::signal;

/// Serves each connection on a thread of its own, until the tests end.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

/// Reads until the other side ends or says nothing more for long.
fn hear_out(mut stream: &TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn a_port_that_speaks_something_else_is_told_within_the_time_limit_of_one_connection() {
    // The two bytes of an alert of TLS, version, length, fatal, "record overflow".
    let alert = |mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 64]).and_then(|_| stream.write_all(&[21, 3, 1, 0, 2, 2, 22]));
        hear_out(&stream);
    };
    let web = |mut stream: TcpStream| {
        let mut heard = Vec::new();
        let mut byte = [0];
        while !heard.ends_with(b"\r\n") && stream.read(&mut byte).is_ok_and(|bytes| bytes == 1) {
            heard.push(byte[0]);
        }
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    };
    let greets = |mut stream: TcpStream| {
        let _ = stream.write_all(b"J\0\0\0\n8.0.33\0");
        hear_out(&stream);
    };
    let redis = Redis::start(&[]);
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    for (port, says) in [
        (listen(alert), "it speaks TLS from the first byte"),
        (listen(web), "it answered \"HTTP/1.1 400 Bad Request\""),
        (listen(greets), "it answered \"J\\0\\0\\0\""),
        (redis.port, "it answered \"+PONG\""),
    ] {
        for mode in ["prefer", "disable", "require"] {
            let url = format!("postgres://u:hunter2@127.0.0.1:{port}/d?sslmode={mode}");
            let begun = Instant::now();
            let place = format!("what listens at 127.0.0.1:{port} is no Postgres");
            let outcome = run_at(&project, &url).fails(1, &["cannot open postgres://u@", &place, says]);
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}\n{outcome}", begun.elapsed());
            let lines = outcome.stderr().lines().filter(|line| line.contains("no Postgres")).count();
            assert_eq!(lines, 1, "it is told in one line\n{outcome}");
        }
    }
}

#[test]
fn a_stop_is_heard_while_it_is_connected_to() {
    let silent = listen(|stream| hear_out(&stream));
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    let url = format!("postgres://u:hunter2@127.0.0.1:{silent}/d");
    for (name, args) in [
        ("TERM", &["run", "pipeline.toml", "-vv", "--store", &url][..]),
        ("INT", &["run", "pipeline.toml", "-vv", "--store", &url]),
        ("TERM", &["rollback", "pipeline.toml", "-vv", "--to", "1", "--store", &url]),
    ] {
        let child = project.command(args).spawn().expect("the binary starts");
        // It has a connection, and waits for an answer.
        crate::support::wait_until(|| has_connection(child.id()));
        let begun = Instant::now();
        signal::send(name, child.id());
        let outcome = project.finish(child, args).fails(130, &["stopped while waiting for postgres://u@127.0.0.1"]);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}\n{outcome}", begun.elapsed());
        assert!(!outcome.stderr().contains("hunter2"), "{outcome}");
    }
}

/// Whether a process has a socket open.
fn has_connection(pid: u32) -> bool {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.into_iter().any(|target| target.to_string_lossy().starts_with("socket:"))
}

#[test]
fn a_stop_does_not_wait_for_a_redis_that_never_answers() {
    let silent = listen(|stream| hear_out(&stream));
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    let redis = format!("redis://127.0.0.1:{silent}");
    let args = ["run", "pipeline.toml", "--snapshots", &redis, "--store", "sqlite:s.db"];
    let child = project.command(&args).spawn().expect("the binary starts");
    crate::support::wait_until(|| has_connection(child.id()));
    let begun = Instant::now();
    signal::send("TERM", child.id());
    let outcome = project.finish(child, &args).fails(130, &["not published"]);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}\n{outcome}", begun.elapsed());
}

#[test]
fn a_database_that_only_speaks_the_protocol_is_refused_in_one_sentence() {
    for (version, name) in [
        ("CockroachDB CCL v26.1.0 (x86_64-pc-linux-gnu, built 2026/02/01 10:00:00, go1.25)", "CockroachDB"),
        ("PostgreSQL 16", "Aurora DSQL"),
    ] {
        let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
        let url = project.url().expect("url");
        let database = url.rsplit('/').next().expect("a name");
        // A schema before the system's answers for it.
        project.execute(
            "",
            &format!(
                "CREATE SCHEMA fake; ALTER DATABASE {database} SET search_path = fake, pg_catalog;
            CREATE FUNCTION fake.version() RETURNS text LANGUAGE sql AS $$ SELECT '{version}' $$"
            ),
        );
        let says = [&format!("the server is {name}"), "expected a PostgreSQL"];
        let outcome = run_at(&project, &url).fails(1, &says);
        assert_eq!(outcome.stderr().lines().filter(|line| line.contains(name)).count(), 1, "{outcome}");
        project.forebay(&["status", "pipeline.toml", "--store", &url]).fails(1, &says);
    }
}

/// Amazon's RDS Proxy takes no options at start-up, and says so in words of its own.
#[test]
fn a_proxy_that_takes_no_options_is_connected_to_without() {
    let server = Server::shared().port;
    let proxy = listen(move |client| drop(relay_without_options(&client, server)));
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    let own = project.url().expect("url");
    let url = own.replace(&format!(":{server}/"), &format!(":{proxy}/"));
    let url = format!("{url}?sslmode=disable");
    assert_eq!(run_at(&project, &url).ok().json()["events"], 3);
    assert_eq!(count(&project), "3");
    // Options of the user's own are not left out silently.
    let url = format!("{url}&options=-c%20work_mem%3D8MB");
    run_at(&project, &url).fails(1, &["0A000", "RDS Proxy currently doesn't support command-line options"]);
}

fn relay_without_options(mut client: &TcpStream, server: u16) -> std::io::Result<()> {
    let mut head = [0; 4];
    client.read_exact(&mut head)?;
    let mut rest = vec![0; u32::from_be_bytes(head) as usize - 4];
    client.read_exact(&mut rest)?;
    if rest.windows(9).any(|part| part == b"\0options\0") {
        let said =
            b"SFATAL\0C0A000\0MFeature not supported: RDS Proxy currently doesn't support command-line options.\0\0";
        let mut error = vec![b'E'];
        error.extend(u32::try_from(said.len() + 4).expect("a length").to_be_bytes());
        error.extend(said);
        client.write_all(&error)?;
        return client.shutdown(Shutdown::Both);
    }
    let mut server = TcpStream::connect(("127.0.0.1", server))?;
    server.write_all(&[&head[..], &rest].concat())?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut client, &mut server);
    server.shutdown(Shutdown::Both)
}
