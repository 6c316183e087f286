//! What a connection is kept from: passwords in clear, variables that nobody heeds, servers that stop in the middle.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{PIPELINE, SCRIPT, count, events, on_postgres, run_at};
use crate::support::postgres_proxy::{Fault, Proxy};
use crate::support::postgres_server::Server;
use crate::support::project::{Outcome, Project};

/// This machine under a name that does not say so, so that it counts as another one.
const ELSEWHERE: &str = "127.1";

/// A server without TLS that asks for the password in clear, and what it has heard.
fn asks_in_clear() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&heard);
    let serve = move |mut stream: TcpStream| -> Option<()> {
        let mut len = [0; 4];
        loop {
            stream.read_exact(&mut len).ok()?;
            let mut body = vec![0; u32::from_be_bytes(len) as usize - 4];
            stream.read_exact(&mut body).ok()?;
            if body == [4, 210, 22, 47] {
                stream.write_all(b"N").ok()?;
                continue;
            }
            // In two pieces, as it may come.
            stream.write_all(&[b'R', 0, 0, 0]).ok()?;
            stream.write_all(&[8, 0, 0, 0, 3]).ok()?;
            break;
        }
        let mut kind = [0];
        stream.read_exact(&mut kind).ok()?;
        stream.read_exact(&mut len).ok()?;
        let mut body = vec![0; u32::from_be_bytes(len) as usize - 4];
        stream.read_exact(&mut body).ok()?;
        all.lock().expect("heard").extend(body);
        let said = b"SFATAL\0C28P01\0Mno\0\0";
        stream.write_all(&[&[b'E', 0, 0, 0, said.len() as u8 + 4][..], said].concat()).ok()
    };
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| serve(stream).unwrap_or_default()));
    (port, heard)
}

#[test]
fn a_password_goes_nowhere_in_clear_unless_the_address_says_so() {
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    for (host, options, is_sent) in [
        (ELSEWHERE, "", false),
        (ELSEWHERE, "?sslmode=prefer", false),
        (ELSEWHERE, "?sslmode=disable", true),
        ("127.0.0.1", "", true),
        ("localhost", "?hostaddr=127.0.0.1", true),
    ] {
        let (port, heard) = asks_in_clear();
        let url = format!("postgres://u:hunter2@{host}:{port}/d{options}");
        let says =
            if is_sent { "28P01" } else { "asks for the password in clear, and the connection is not encrypted" };
        for command in [&["run", "pipeline.toml"][..], &["status", "pipeline.toml"]] {
            let outcome = project.forebay(&[command, &["--store", &url]].concat()).fails(1, &[says]);
            assert!(!outcome.stderr().contains("hunter2") && !outcome.stderr().contains("trying again"), "{outcome}");
        }
        let heard = String::from_utf8_lossy(&heard.lock().expect("heard")).into_owned();
        assert_eq!(heard.contains("hunter2"), is_sent, "{url}: {heard:?}");
    }
}

#[test]
fn a_server_elsewhere_without_tls_is_taken_and_told_where_no_password_is_sent_in_clear() {
    let server = Server::start_with("", |data| {
        let rules = "host postgres forebay all trust\nhost all all all scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), rules).expect("rules");
    });
    server.execute("postgres", "CREATE ROLE app LOGIN PASSWORD 'hunter2' SUPERUSER");
    server.execute("postgres", "CREATE DATABASE d");
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    let outcome = run_at(&project, &format!("postgres://app:hunter2@{ELSEWHERE}:{}/d", server.port)).ok();
    assert!(outcome.stderr().contains("is not encrypted"), "{outcome}");
}

fn run_with(project: &Project, url: &str, variables: &[(&str, &str)]) -> Outcome {
    let args = ["run", "pipeline.toml", "--json", "--store", url];
    let child = project.command(&args).envs(variables.iter().copied()).spawn().expect("the binary starts");
    project.finish(child, &args)
}

#[test]
fn variables_of_libpq_are_heeded_or_refused_by_name() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    let url = project.url().expect("url");
    let (port, database) = (Server::shared().port.to_string(), url.rsplit('/').next().expect("a name").to_owned());
    let place = [("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGUSER", "forebay"), ("PGDATABASE", &database)];
    run_with(&project, "postgres://", &place).ok();
    assert_eq!(count(&project), "3");
    run_with(&project, "postgres://forebay@127.0.0.1/postgres?dbname=x", &[("PGPORT", "1")])
        .fails(1, &["127.0.0.1:1/"]);
    // What the address says comes first.
    run_with(&project, &url, &[("PGHOST", "nowhere"), ("PGPORT", "1"), ("PGUSER", "x"), ("PGDATABASE", "x")]).ok();
    run_with(&project, &format!("{url}?sslmode=disable"), &[("PGSSLMODE", "verify-full")]).ok();
    run_with(&project, &url, &[("PGSSLMODE", ""), ("PGSERVICE", " "), ("PGGSSENCMODE", "prefer")]).ok();
    for (name, value, code, says) in [
        ("PGSSLMODE", "verify-full", 1, "TLS"),
        ("PGSSLMODE", "require", 1, "TLS"),
        ("PGREQUIRESSL", "1", 1, "TLS"),
        ("PGSSLMODE", "allow", 2, "PGSSLMODE: expected one of disable, prefer, require"),
        ("PGCHANNELBINDING", "require", 1, "channel binding"),
        ("PGCHANNELBINDING", "x", 2, "PGCHANNELBINDING: its value is not understood"),
        ("PGTARGETSESSIONATTRS", "read-only", 1, "read only"),
        ("PGTARGETSESSIONATTRS", "standby", 2, "PGTARGETSESSIONATTRS: its value is not understood"),
        ("PGOPTIONS", "-c default_transaction_read_only=on", 1, "read only"),
        ("PGSSLCERT", "x.crt", 2, "PGSSLCERT and PGSSLKEY"),
        ("PGHOSTADDR", "127.0.0.1", 2, "PGHOSTADDR is set, and the address names a host"),
        ("PGSERVICE", "mine", 2, "PGSERVICE is set, and is not heeded"),
        ("PGREQUIREAUTH", "scram-sha-256", 2, "PGREQUIREAUTH is set"),
        ("PGREQUIREPEER", "postgres", 2, "PGREQUIREPEER is set"),
        ("PGSSLCRL", "x", 2, "PGSSLCRL is set"),
        ("PGGSSENCMODE", "require", 2, "PGGSSENCMODE is set"),
        ("PGSSLMINPROTOCOLVERSION", "TLSv1.3", 2, "PGSSLMINPROTOCOLVERSION is set"),
    ] {
        run_with(&project, &url, &[(name, value)]).fails(code, &[says]);
    }
    let roots = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", "gone.crt")];
    run_with(&project, &url, &roots).fails(1, &["sslrootcert gone.crt cannot be used"]);
}

#[test]
fn a_server_that_stops_in_the_middle_of_an_answer_is_told_in_time() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    project.run_json();
    let own = project.url().expect("url");
    let args = |command: &[&str], proxy: &Proxy| -> Vec<String> {
        let own = own.replace(&format!(":{}/", Server::shared().port), &format!(":{}/", proxy.port));
        let url = format!("{own}?sslmode=disable&connect_timeout=1&options=-c%20statement_timeout%3D100ms");
        command.iter().map(|part| (*part).to_owned()).chain([url]).collect()
    };
    let forebay = |args: &[String]| project.forebay(&args.iter().map(String::as_str).collect::<Vec<_>>());
    for command in
        [&["latest", "--config", "pipeline.toml", "--snapshots"][..], &["status", "pipeline.toml", "--store"]]
    {
        let proxy = Proxy::start(Server::shared().port);
        forebay(&args(command, &proxy)).ok();
        assert!(proxy.steps() >= 3, "{}", proxy.steps());
        std::thread::scope(|scope| {
            for step in 1..=proxy.steps() {
                let broken = Proxy::start(Server::shared().port);
                broken.break_at(step, Fault::Half);
                scope.spawn(move || {
                    let begun = Instant::now();
                    forebay(&args(command, &broken)).fails(1, &["no answer within"]);
                    assert!(
                        begun.elapsed() < Duration::from_secs(20),
                        "{command:?}, step {step}: {:?}",
                        begun.elapsed()
                    );
                    assert!(!broken.is_armed());
                });
            }
        });
    }
}
