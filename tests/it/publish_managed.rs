//! Redis as others run it: scripts that are not allowed, certificates that nobody can accept, replicas, a full memory. Each
//! is told in one line that says what to do, whatever the number of regions.

use std::time::Duration;

use crate::support::postgres_server::free_port;
use crate::support::project::{Outcome, Project};
use crate::support::redis_proxy::Wire;
use crate::support::redis_server::Redis;

const DOCS: &str = "{\"region\":\"a\",\"v\":1}\n{\"region\":\"b\",\"v\":2}\n{\"region\":\"c\",\"v\":3}\n";

/// What a command tells in one line.
fn tells(outcome: Outcome, code: i32, says: &[&str]) -> Outcome {
    let outcome = outcome.fails(code, says);
    assert_eq!(outcome.stderr().trim_end().lines().count(), 1, "{outcome}");
    outcome
}

struct Place {
    project: Project,
    url: String,
}

impl Place {
    fn at(url: &str) -> Self {
        Self { project: Project::new(), url: url.to_owned() }
    }

    fn publish(&self) -> Outcome {
        self.project.forebay_with_input(&["publish", "-", "--pipeline", "p", "--snapshots", &self.url], DOCS)
    }

    fn seed(&self) -> Outcome {
        self.project.write("docs", DOCS);
        self.project.forebay(&["seed", "--pipeline", "p", "--snapshots", &self.url, "--", "cat", "docs"])
    }

    fn latest(&self, regions: &[&str]) -> Outcome {
        self.project.forebay(&[&["latest", "--pipeline", "p", "--snapshots", &self.url], regions].concat())
    }
}

#[test]
fn scripts_that_are_not_allowed_are_told_by_name() {
    let says = ["does not allow the command EVAL", "allow it (ACL SETUSER", "proxy"];
    let forbidden = Redis::start(&["--rename-command", "EVAL", "", "--rename-command", "EVALSHA", ""]);
    let restricted = Redis::start(&[]);
    let _: String = restricted.ask(&["ACL", "SETUSER", "u", "on", ">x", "~*", "+@all", "-eval", "-evalsha"]);
    let url = format!("redis://u:x@127.0.0.1:{}", restricted.port);
    for (server, url) in [(&forbidden, forbidden.url()), (&restricted, url)] {
        let place = Place::at(&url);
        tells(place.publish(), 3, &[&says[..], &["a, b, c: redis://"]].concat());
        // Twice: the lock is not left behind.
        for _ in 0..2 {
            tells(place.seed(), 1, &says);
            assert!(server.keys().is_empty());
        }
        tells(place.latest(&[]), 1, &says);
        tells(place.latest(&["a", "b"]), 1, &says);
    }
}

/// A server with one certificate, and its port.
fn with_certificate(is_authority: bool) -> (Redis, u16, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority {is_authority}"));
    if is_authority {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let server = Redis::start_with(&["--tls-auth-clients", "no"], |dir| {
        let file = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).expect(name);
            dir.join(name).to_string_lossy().into_owned()
        };
        let files = [file("s.crt", &certificate), file("s.key", &key.serialize_pem()), file("ca.crt", &certificate)];
        let names = ["--tls-cert-file", "--tls-key-file", "--tls-ca-cert-file"];
        names.iter().zip(files).flat_map(|(name, file)| [(*name).to_owned(), file]).collect()
    });
    let port = free_port();
    let _: String = server.ask(&["CONFIG", "SET", "tls-port", &port.to_string()]);
    (server, port, certificate)
}

#[test]
fn a_certificate_that_cannot_be_accepted_is_told_once_and_not_tried_again() {
    let (_server, port, certificate) = with_certificate(true);
    let (_other, other_port, _) = with_certificate(false);
    for (port, says) in [
        (port, ["CaUsedAsEndEntity", "give the server one of its own that this authority has signed"]),
        (other_port, ["UnknownIssuer", "?sslrootcert=FILE"]),
    ] {
        let way = Wire::start(port);
        way.set_latency(Duration::from_millis(40));
        let mut place = Place::at("");
        place.project.write("ca.crt", &certificate);
        let file = place.project.path("ca.crt");
        place.url = format!("rediss://localhost:{}?sslrootcert={}", way.port, file.display());
        let told = tells(place.publish(), 3, &[&["a, b, c: rediss://"], &says[..]].concat());
        assert!(told.stdout().contains(" 3 round trips"), "{told}");
        tells(place.seed(), 1, &says);
        tells(place.latest(&["a", "b"]), 1, &says);
    }
}

#[test]
fn a_replica_and_a_full_memory_are_told_with_what_to_do() {
    let server = Redis::start(&[]);
    let place = Place::at(&server.url());
    let _: String = server.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let says = ["READONLY You can't write against a read only replica", "give the address of the primary"];
    tells(place.publish(), 3, &[&["a, b, c: "], &says[..]].concat());
    tells(place.seed(), 1, &says);
    let _: String = server.ask(&["REPLICAOF", "NO", "ONE"]);
    let _: String = server.ask(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let says = ["OOM command not allowed when used memory > 'maxmemory'; raise it", "noeviction"];
    tells(place.publish(), 3, &[&["a, b, c: "], &says[..]].concat());
    tells(place.seed(), 1, &says);
    let _: String = server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    place.publish().ok();
    // A key of something else is no summary: a seeder's own one is left alone.
    let _: String = server.ask(&["SET", "forebay:p:summary", "{\"regions\":[{\"region\":\"a\"}]}"]);
    tells(place.seed(), 1, &["forebay:p:summary holds no summary of forebay", "[snapshots.keys] summary"]);
}
