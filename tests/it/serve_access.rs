//! Who may ask a run: other machines, the token, names that lead elsewhere.

use crate::support::http::{get_with, send};
use crate::support::project::Project;
use crate::support::served::Served;

const PIPELINE: &str = "name = \"p\"\n[source]\npath = \"events.ndjson\"\nsettle = \"100ms\"\n[entities.e]\ncolumns = { n = \"bigint\" }\n[handlers]\nscript = \"handlers.lua\"\n";
const SCRIPT: &str = "function on_event(e, ctx) ctx.e:set(e.region, { n = e.block }) end";

fn project() -> Project {
    Project::with(PIPELINE, SCRIPT, "{\"block\":1,\"region\":\"secret-region\"}\n")
}

#[test]
fn without_a_word_only_this_machine_is_served() {
    let project = project();
    let run = ["run", "pipeline.toml"];
    for (listen, says) in [
        (&["--listen", "0.0.0.0:0"][..], "--listen-open"),
        (&["--listen", "[::]:0"], "--listen-token-file"),
        (&["--listen", "here"], "expected HOST:PORT"),
        (&["--listen", "127.0.0.1:0", "--listen-token-file", "none"], "none"),
        (&["--listen", "127.0.0.1:0", "--listen-token-file", "short"], "openssl rand -hex 32"),
        (&["--listen-open"], "--listen"),
        (&["--stall", "5s"], "--listen"),
        (&["--listen", "0.0.0.0:0", "--listen-open", "--listen-token-file", "short"], "cannot be used with"),
    ] {
        project.write("short", "1234\n");
        project.forebay(&[&run, listen].concat()).fails(2, &[says]);
    }
    assert!(!project.path("p.db").exists(), "the run has not begun");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    project.forebay(&["run", "pipeline.toml", "--listen", &address]).fails(1, &["another program listens there"]);
    assert!(!project.path("p.db").exists(), "the run has not begun");
}

#[test]
fn who_has_no_token_learns_whether_the_run_is_well_and_nothing_else() {
    let project = project();
    project.write("token", "  0123456789abcdef0123\n");
    let run = Served::start(&project, &["--follow", "--listen-token-file", "token"]);
    let with = |path: &str| get_with(run.address, path, "Authorization: Bearer 0123456789abcdef0123\r\n");
    crate::support::wait_until(|| with("/status").json()["regions"][0]["region"] == "secret-region");
    for path in ["/", "/status", "/metrics", "/snapshots", "/snapshots/secret-region", "/nothing"] {
        let reply = run.get(path);
        assert_eq!(reply.status, 401, "{path}");
        assert!(!reply.text().contains("secret-region") && reply.head.contains("WWW-Authenticate: Basic"), "{reply:?}");
        assert_ne!(with(path).status, 401, "{path}");
    }
    for path in ["/live", "/ready", "/health"] {
        let reply = run.get(path);
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.json().as_object().is_some_and(|object| object.len() == 1), "{reply:?}");
        assert!(with(path).json().as_object().is_some_and(|object| object.len() > 1));
    }
    for wrong in
        ["Bearer 0123456789abcdef0124", "Bearer 0123456789abcdef01234", "Bearer", "Basic Og==", "0123456789abcdef0123"]
    {
        assert_eq!(get_with(run.address, "/status", &format!("Authorization: {wrong}\r\n")).status, 401, "{wrong}");
    }
    // printf 'any:0123456789abcdef0123' | base64
    let basic = "Authorization: Basic YW55OjAxMjM0NTY3ODlhYmNkZWYwMTIz\r\n";
    assert_eq!(get_with(run.address, "/status", basic).status, 200);
    run.stop(&project).0.ends_with(130);
}

#[test]
fn a_page_of_another_site_is_not_answered() {
    let project = project();
    let run = Served::start(&project, &["--follow"]);
    let of = |host: &str| {
        send(run.address, format!("GET /status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
    };
    for host in ["evil.example", "evil.example:9464", "localhost.evil.example", "169.254.169.254"] {
        let reply = of(host);
        assert_eq!(reply.status, 421, "{host}");
        assert!(!reply.text().contains("secret-region"));
    }
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:9464"] {
        assert_eq!(of(host).status, 200, "{host}");
    }
    run.stop(&project).0.ends_with(130);
}

#[test]
fn an_open_one_is_served_under_any_name() {
    let project = project();
    let address = "0.0.0.0:0";
    let mut command = project.command(&["run", "pipeline.toml", "--follow", "--listen", address, "--listen-open"]);
    let mut child = command.spawn().expect("the binary starts");
    let mut stderr = std::io::BufReader::new(child.stderr.take().expect("stderr"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stderr, &mut line).expect("stderr");
    let port = line.trim().trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port.unwrap_or_else(|| panic!("{line}"))));
    let reply = send(address, b"GET /live HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n");
    assert_eq!(reply.status, 200);
    crate::support::signal::send("TERM", child.id());
    child.wait().expect("it ends");
}
