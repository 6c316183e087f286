//! Who may connect to Postgres and how: TLS, passwords, rights, poolers.

use std::fs;

use super::{PIPELINE, SCRIPT, count, events, on_postgres, run_at};
use crate::support::postgres_server::{Pooler, Server};
use crate::support::project::Project;

/// Certificates of two authorities: of the server (for localhost), of a client, and a stranger's.
struct Papers {
    dir: tempfile::TempDir,
}

impl Papers {
    fn make() -> Self {
        use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| fs::write(dir.path().join(name), text).expect(name);
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).expect("params");
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().expect("a key");
            (params.self_signed(&key).expect("a certificate").pem(), Issuer::new(params, key))
        };
        let (root, issuer) = authority("root");
        let (stranger, _) = authority("stranger");
        write("root.crt", root);
        write("stranger.crt", stranger);
        for (name, host, purpose) in [
            ("server", "localhost", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", "forebay", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let mut params = CertificateParams::new(vec![host.to_owned()]).expect("params");
            params.distinguished_name.push(DnType::CommonName, host);
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().expect("a key");
            write(&format!("{name}.crt"), params.signed_by(&key, &issuer).expect("a certificate").pem());
            write(&format!("{name}.key"), key.serialize_pem());
            use std::os::unix::fs::PermissionsExt;
            let private = fs::Permissions::from_mode(0o600);
            fs::set_permissions(dir.path().join(format!("{name}.key")), private).expect("chmod");
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }
}

#[test]
fn a_role_that_may_not_make_tables_can_run_once_they_are_made() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    let role = format!("small_{}", project.url().expect("url").rsplit('/').next().expect("name"));
    project.execute("", &format!("CREATE ROLE {role} LOGIN"));
    let url = project.url().expect("url").replace("forebay@", &format!("{role}@"));
    run_at(&project, &url).fails(1, &["42501", "let its owner make the schema and its tables once"]);
    project.run_json();
    project.execute("", &format!("GRANT USAGE ON SCHEMA things TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA things TO {role};"));
    project.write("events.ndjson", events(1..=2500));
    assert_eq!(run_at(&project, &url).ok().json()["events"], 2497);
    assert_eq!(count(&project), "2500");
}

#[test]
fn pgbouncer_in_transaction_mode_is_refused_and_in_session_mode_taken() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    let own = project.url().expect("url");
    for ignored in ["", "ignore_startup_parameters = options,extra_float_digits"] {
        for mode in ["transaction", "statement", "session"] {
            let pooler = Pooler::start(Server::shared(), &format!("pool_mode = {mode}\n{ignored}"));
            let url = own.replace(&format!(":{}/", Server::shared().port), &format!(":{}/", pooler.port));
            let outcome = run_at(&project, &url);
            match mode {
                "session" => drop(outcome.ok()),
                _ => drop(outcome.fails(1, &["a pooler stands before the database", "PgBouncer with pool_mode"])),
            }
        }
    }
}

#[test]
fn tls_is_as_strict_as_it_is_asked_to_be() {
    let papers = Papers::make();
    let server = Server::start_with("-c ssl=on -c ssl_ca_file=root.crt", |data| {
        for name in ["server.crt", "server.key", "root.crt"] {
            fs::copy(papers.path(name), data.join(name)).expect(name);
        }
        let rules = "local all all trust\nhost postgres all 127.0.0.1/32 trust\nhostssl t_open all all trust\nhostssl t_closed all all trust clientcert=verify-full\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("rules");
    });
    server.execute("postgres", "CREATE DATABASE t_open");
    server.execute("postgres", "CREATE DATABASE t_closed");
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    let (root, stranger) = (papers.path("root.crt"), papers.path("stranger.crt"));
    let (cert, key) = (papers.path("client.crt"), papers.path("client.key"));
    let client = format!("sslcert={cert}&sslkey={key}");
    // Host, database, options, and what is said if it is refused.
    let cases: &[(&str, &str, String, Option<&str>)] = &[
        ("localhost", "t_open", format!("sslmode=verify-full&sslrootcert={root}"), None),
        ("127.0.0.1", "t_open", format!("sslmode=verify-full&sslrootcert={root}"), Some("not valid for name")),
        ("127.0.0.1", "t_open", format!("sslmode=verify-ca&sslrootcert={root}"), None),
        ("localhost", "t_open", format!("sslmode=verify-ca&sslrootcert={stranger}"), Some("certificate")),
        ("localhost", "t_open", format!("sslmode=verify-full&sslrootcert={stranger}"), Some("certificate")),
        // The system's roots do not know it.
        ("localhost", "t_open", "sslmode=verify-full".into(), Some("certificate")),
        ("localhost", "t_open", format!("sslmode=require&sslrootcert={stranger}"), Some("certificate")),
        ("localhost", "t_open", "sslmode=require".into(), None),
        ("localhost", "t_open", String::new(), None),
        // Not taken for this machine: it is looked first whether there is TLS.
        ("LOCALHOST", "t_open", String::new(), None),
        ("localhost", "t_open", "sslmode=disable".into(), Some("28000")),
        ("localhost", "t_closed", format!("sslmode=verify-full&sslrootcert={root}&{client}"), None),
        ("localhost", "t_closed", format!("sslmode=verify-full&sslrootcert={root}"), Some("28000")),
        (
            "localhost",
            "t_open",
            format!("sslmode=verify-full&sslrootcert={root}.gone"),
            Some("root.crt.gone cannot be used"),
        ),
        ("localhost", "t_open", format!("sslmode=verify-full&sslrootcert={key}"), Some("holds no certificate")),
    ];
    for (host, database, options, refused) in cases {
        let url = format!("postgres://forebay@{host}:{}/{database}?{options}", server.port);
        let outcome = run_at(&project, &url);
        match refused {
            None => drop(outcome.ok()),
            Some(says) => drop(outcome.fails(1, &["cannot open", says])),
        }
    }
    // A server without TLS is not taken for one with it.
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("{}?sslmode={mode}&sslrootcert={root}", Server::shared().url("postgres"));
        run_at(&project, &url).fails(1, &["cannot open", "TLS"]);
    }
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
    let url = format!(
        "postgres://forebay@localhost:{}/t_closed?sslmode=verify-full&sslrootcert={root}&{client}",
        server.port
    );
    run_at(&project, &url).fails(1, &["sslkey", "others may read it"]);
}

#[test]
fn a_password_comes_from_where_psql_looks_and_is_never_shown() {
    let server = Server::start_with("", |data| {
        let rules = "host postgres forebay all trust\nhost all all all scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("rules");
    });
    server.execute("postgres", "CREATE ROLE app LOGIN PASSWORD 'hunt:er2' SUPERUSER");
    server.execute("postgres", "CREATE DATABASE d");
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    let url = |password: &str| format!("postgres://app{password}@127.0.0.1:{}/d", server.port);
    let run = |url: &str, name: &str, value: &str| {
        let args = ["run", "pipeline.toml", "-v", "--store", url];
        let mut command = project.command(&args);
        command.env_remove("PGPASSWORD").env("PGPASSFILE", "none").env(name, value);
        let outcome = project.finish(command.spawn().expect("the binary starts"), &args);
        assert!(!format!("{}{}", outcome.stdout(), outcome.stderr()).contains("hunt"), "{outcome}");
        outcome
    };
    let pass = project.path("pass");
    project.write("pass", format!("# mine\n*:*:*:other:no\n127.0.0.1:{}:d:app:hunt\\:er2\n", server.port));
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&pass, fs::Permissions::from_mode(0o600)).expect("chmod");
    let file = pass.to_string_lossy().into_owned();
    run(&url(":hunt%3Aer2"), "X", "").ok();
    run(&url(""), "PGPASSWORD", "hunt:er2").ok();
    run(&url(""), "PGPASSFILE", &file).ok();
    run(&url(""), "X", "").fails(1, &["password missing"]);
    run(&url(":hunter3"), "PGPASSWORD", "hunt:er2").fails(1, &["28P01", "PGPASSWORD or ~/.pgpass"]);
    fs::set_permissions(&pass, fs::Permissions::from_mode(0o644)).expect("chmod");
    run(&url(""), "PGPASSFILE", &file).fails(1, &["is not used: others may read it"]);
}
