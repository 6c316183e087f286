//! Clients that are slow, many, or hostile: each of them costs the run nothing, and is ended.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::support::http::{self, connect, send};
use crate::support::project::Project;
use crate::support::served::Served;
use crate::support::{WAIT, wait_until};

const PIPELINE: &str = "name = \"p\"\n[source]\npath = \"events.ndjson\"\nsettle = \"100ms\"\n[entities.e]\ncolumns = { n = \"bigint\" }\n[handlers]\nscript = \"handlers.lua\"\n";
const SCRIPT: &str = "function on_event(e, ctx) ctx.e:add(e.region, { n = 1 }) end";

fn project(events: i64) -> Project {
    let line = |block: i64| format!("{{\"block\":{block},\"region\":\"r{}\"}}\n", block % 7);
    Project::with(PIPELINE, SCRIPT, &(1..=events).map(line).collect::<String>())
}

/// Whether the other side has ended the connection.
fn is_ended(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(5))).expect("a setting");
    match stream.read(&mut [0; 4096]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

#[test]
fn requests_that_are_none_get_an_answer_and_no_second_one() {
    let project = project(3);
    let run = Served::start(&project, &["--follow"]);
    let host = "Host: localhost\r\n";
    for (request, status) in [
        (format!("POST /status HTTP/1.1\r\n{host}\r\n"), 405),
        (format!("DELETE / HTTP/1.1\r\n{host}\r\n"), 405),
        (format!("OPTIONS * HTTP/1.1\r\n{host}\r\n"), 405),
        (format!("BREW /live HTTP/1.1\r\n{host}\r\n"), 405),
        (format!("GET /live HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 413),
        (format!("GET /live HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nhello"), 413),
        (format!("GET /live HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(20_000)), 431),
        (format!("GET /{} HTTP/1.1\r\n{host}\r\n", "x".repeat(20_000)), 431),
        (format!("GET /live HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(100)), 431),
        ("GET /live HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}".to_owned(), 400),
        ("hello\r\n\r\n".to_owned(), 400),
    ] {
        let reply = send(run.address, request.as_bytes());
        assert_eq!(reply.status, status, "{request:.60}");
        assert_eq!(reply.header("connection"), Some("close"), "{request:.60}");
    }
    let allow = send(run.address, format!("PUT / HTTP/1.1\r\n{host}\r\n").as_bytes());
    assert_eq!(allow.header("allow"), Some("GET, HEAD"));
    run.stop(&project).0.ends_with(130);
}

#[test]
fn many_requests_of_one_connection_are_answered_in_order() {
    let project = project(3);
    let run = Served::start(&project, &["--follow"]);
    let mut stream = connect(run.address);
    let requests: String = (0..100).map(|at| format!("GET /{at} HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    let requests = requests + "GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(requests.as_bytes()).expect("requests");
    // Half of the connection is closed, and the answers come all the same.
    stream.shutdown(Shutdown::Write).expect("half of it");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("answers");
    let (mut rest, mut statuses) = (&bytes[..], Vec::new());
    while let Some((reply, len)) = http::parse(rest) {
        statuses.push(reply.status);
        rest = &rest[len..];
    }
    assert_eq!(statuses.len(), 101);
    assert!(statuses[..100].iter().all(|status| *status == 404) && statuses[100] == 200);
    run.stop(&project).0.ends_with(130);
}

#[test]
fn a_head_that_never_ends_is_ended() {
    let project = project(3);
    let run = Served::start(&project, &["--follow"]);
    // As fast as it can: a gigabyte, if it were let.
    let mut stream = connect(run.address);
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
    let (block, mut sent) = ([b'x'; 64 * 1024], 0_usize);
    while sent < 1 << 30 && stream.write_all(&block).is_ok() {
        sent += block.len();
    }
    assert!(sent < 64 << 20, "it took {sent} bytes");
    // A byte now and then.
    let mut stream = connect(run.address);
    let begun = Instant::now();
    let mut is_over = false;
    for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
        if stream.write_all(&[*byte]).is_err() || is_ended(&mut stream) {
            is_over = true;
            break;
        }
        assert!(begun.elapsed() < WAIT, "it is never ended");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert!(is_over && begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    run.stop(&project).0.ends_with(130);
}

#[test]
fn a_thousand_clients_that_say_nothing_keep_nobody_out_and_the_run_goes_on() {
    let project = project(60_000);
    let run = Served::start(&project, &["--json", "--follow"]);
    let mut clients = Vec::new();
    for at in 0..1000 {
        // Its backlog may be full for a moment.
        let Ok(mut stream) = TcpStream::connect(run.address) else { continue };
        if at % 2 == 0 {
            let _ = stream.write_all(b"GET /status HTTP/1.1\r\nHost: local");
        }
        clients.push(stream);
        if at % 50 == 0 {
            assert_eq!(run.get("/live").status, 200, "after {at}");
        }
    }
    assert!(clients.len() > 500, "{}", clients.len());
    wait_until(|| run.get("/ready").status == 200);
    let open = std::fs::read_dir(format!("/proc/{}/fd", run.pid())).expect("descriptors").count();
    assert!(open < 200, "{open} descriptors");
    wait_until(|| {
        clients.iter_mut().filter_map(|client| is_ended(client).then_some(())).count() >= clients.len() - 128
    });
    assert_eq!(run.status()["counts"]["events"], 60_000);
    let (outcome, _) = run.stop(&project);
    outcome.ends_with(130);
    let rows = project.query("p.db", "SELECT sum(n), count(*) FROM e");
    assert_eq!(rows, [["60000", "7"]]);
}

#[test]
fn who_takes_no_answer_holds_up_nobody_and_not_the_end() {
    let project = project(50);
    let run = Served::start(&project, &["--follow"]);
    wait_until(|| run.get("/ready").status == 200);
    let mut greedy = Vec::new();
    for _ in 0..40 {
        let mut stream = connect(run.address);
        let many = "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(300);
        stream.set_write_timeout(Some(Duration::from_millis(20))).expect("a setting");
        let _ = stream.write_all(many.as_bytes());
        greedy.push(stream);
    }
    assert_eq!(run.get("/live").status, 200);
    let begun = Instant::now();
    run.stop(&project).0.ends_with(130);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
