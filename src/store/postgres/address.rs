//! The address of a Postgres database: what the driver takes, and beside it what it does not know.
//!
//! The driver reads the address itself, but for the options of TLS, which are taken out before. A password that is not
//! in the address comes from `PGPASSWORD`, else from the password file (`PGPASSFILE`, else `~/.pgpass`). None of it is
//! ever shown: [`std::fmt::Display`] names user, host, port and database only, and so does `Debug`.

use std::borrow::Cow;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use postgres::Config;
use postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::model::limits::FILE_BYTES_MAX;
use crate::model::text::nearest;
use crate::model::whole_text::read_text;
use crate::store::StoreUrlError;

/// How the connection is kept from being read or rerouted by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum TlsMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server can; it is told if it cannot.
    #[default]
    Prefer,
    /// Encrypted; whoever answers is taken for the server, unless roots are given.
    Require,
    /// Encrypted, with a certificate of a trusted root.
    VerifyCa,
    /// Encrypted, with a certificate of a trusted root for this host.
    VerifyFull,
}

impl TlsMode {
    const NAMES: [(&'static str, Self); 5] = [
        ("disable", Self::Disable),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];
}

/// What TLS needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct TlsPlan {
    pub(super) mode: TlsMode,
    /// Roots in PEM; none: those of the system.
    pub(super) root_cert: Option<PathBuf>,
    /// The client's certificate and its key, in PEM.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

/// A database server, and how to reach it.
#[derive(Clone)]
pub struct PostgresAddress {
    /// As it was given: to tell two apart, and never shown.
    given: String,
    pub(super) config: Config,
    pub(super) tls: TlsPlan,
    /// Whether one that takes no writes will do, of several servers.
    takes_any: bool,
}

impl PartialEq for PostgresAddress {
    fn eq(&self, other: &Self) -> bool {
        (&self.given, &self.tls) == (&other.given, &other.tls)
    }
}

impl Eq for PostgresAddress {}

/// Options that the driver knows.
const DRIVER_OPTIONS: [&str; 17] = [
    "user",
    "password",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "options",
    "application_name",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// Options of TLS, which are ours.
const TLS_OPTIONS: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

impl PostgresAddress {
    /// Reads `postgres://user:password@host:port/database?option=value`; files of TLS are taken from `base`.
    pub(in crate::store) fn parse(text: &str, base: &Path) -> Result<Self, StoreUrlError> {
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        if text.contains('#') {
            // The driver would take it for a part of the last value.
            return Err(refused("a # in the address must be written as %23"));
        }
        if place.matches('@').count() > 1 {
            // The driver would take the end of the password for the host.
            return Err(refused("an @ in a user, a password or a database must be written as %40"));
        }
        let mut kept = Vec::new();
        let mut given: [Option<String>; TLS_OPTIONS.len()] = Default::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| refused("expected option=value after the ?"))?;
            if let Some(at) = TLS_OPTIONS.iter().position(|option| *option == name) {
                given[at] = Some(decoded(value)?);
            } else if DRIVER_OPTIONS.contains(&name) {
                kept.push(pair);
            } else {
                return Err(unknown_option(name));
            }
        }
        let kept = if kept.is_empty() { place.to_owned() } else { format!("{place}?{}", kept.join("&")) };
        // What the driver says may repeat a part of the address.
        let mut config = Config::from_str(&kept).map_err(|_| {
            refused("expected postgres://user:password@host:port/database, with special characters as %XX")
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host("localhost");
        }
        if config.get_hosts().is_empty() {
            return Err(refused("hostaddr needs a host beside it"));
        }
        let tls = tls_plan(given, base)?;
        config.ssl_mode(match tls.mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        Ok(Self { given: text.to_owned(), config, tls, takes_any: false })
    }

    /// What the driver connects with: the password looked up, and every wait bounded.
    pub(super) fn driver_config(&self) -> Result<Config, String> {
        let mut config = self.config.clone();
        if config.get_password().is_none()
            && let Some(password) = self.password()?
        {
            config.password(password);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(super::CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(super::TCP_USER_TIMEOUT);
        }
        if config.get_hosts().len().max(config.get_hostaddrs().len()) > 1
            && config.get_target_session_attrs() == TargetSessionAttrs::Any
            && !self.takes_any
        {
            // Of several servers the one that takes writes, which may be another one by now.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_idle(super::KEEPALIVE_IDLE);
            config.keepalives_interval(super::KEEPALIVE_INTERVAL);
            config.keepalives_retries(super::KEEPALIVE_RETRIES);
        }
        Ok(config)
    }

    /// The same servers, if there are several and the address does not say which of them: any will do.
    pub(super) fn to_any_host(&self) -> Option<Self> {
        let has_several = self.config.get_hosts().len().max(self.config.get_hostaddrs().len()) > 1;
        let is_open = self.config.get_target_session_attrs() == TargetSessionAttrs::Any && !self.takes_any;
        (has_several && is_open).then(|| Self { takes_any: true, ..self.clone() })
    }

    /// How long connecting may take in all, over all hosts, and the server's first answer with it.
    pub(super) fn connect_timeout(&self) -> Duration {
        let one = self.config.get_connect_timeout().copied().unwrap_or(super::CONNECT_TIMEOUT);
        let hosts = self.config.get_hosts().len().max(1);
        one.saturating_mul(u32::try_from(hosts).unwrap_or(1).saturating_add(1))
    }

    /// Whether all hosts are this machine.
    pub(super) fn is_local(&self) -> bool {
        self.config.get_hosts().iter().all(|host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => {
                name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        })
    }

    fn password(&self) -> Result<Option<String>, String> {
        // A file of secrets leaves a line end behind.
        let given = std::env::var("PGPASSWORD").ok().map(|password| password.trim_end_matches(['\r', '\n']).to_owned());
        if let Some(password) = given.filter(|password| !password.is_empty()) {
            return Ok(Some(password));
        }
        let in_home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".pgpass"));
        let given = std::env::var_os("PGPASSFILE").filter(|file| !file.is_empty()).map(PathBuf::from);
        let Some(file) = given.or_else(in_home) else { return Ok(None) };
        let Ok(described) = std::fs::metadata(&file) else { return Ok(None) };
        if described.mode() & 0o077 != 0 {
            tracing::warn!("{} is not used: others may read it; chmod 0600 makes it private", file.display());
            return Ok(None);
        }
        let text = std::fs::File::open(&file)
            .and_then(|open| read_text(open, FILE_BYTES_MAX))
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Ok(self.password_in(&text))
    }

    /// The password of a password file's text: the first line that fits.
    fn password_in(&self, text: &str) -> Option<String> {
        let host = self.config.get_hosts().first().map(host_text)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = self.config.get_ports().first().copied().unwrap_or(5432).to_string();
        let user = self.user();
        let database = self.config.get_dbname().unwrap_or(&user);
        let is_local = self.is_local();
        text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let fields = pass_fields(line);
            let [hosts, ports, databases, users, password] = &fields[..] else { return None };
            let fits = |pattern: &str, value: &str| pattern == "*" || pattern == value;
            let fits_host = fits(hosts, &host) || (is_local && hosts == "localhost");
            (fits_host && fits(ports, &port) && fits(databases, database) && fits(users, &user))
                .then(|| password.clone())
        })
    }

    fn user(&self) -> Cow<'_, str> {
        match self.config.get_user() {
            Some(user) => user.into(),
            None => std::env::var("USER").unwrap_or_default().into(),
        }
    }
}

/// The fields of a line of a password file; a backslash keeps the character behind it.
fn pass_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' if fields.len() < 5 => fields.push(String::new()),
            '\\' => fields.iter_mut().last().into_iter().for_each(|field| field.extend(characters.next())),
            other => fields.iter_mut().last().into_iter().for_each(|field| field.push(other)),
        }
    }
    fields
}

fn tls_plan(given: [Option<String>; TLS_OPTIONS.len()], base: &Path) -> Result<TlsPlan, StoreUrlError> {
    let [mode, root_cert, cert, key] = given;
    let known: Vec<&str> = TlsMode::NAMES.iter().map(|(name, _)| *name).collect();
    let mode = match &mode {
        None => TlsMode::default(),
        Some(mode) => {
            let found = TlsMode::NAMES.iter().find(|(name, _)| name == mode);
            let expected = || refused(format!("sslmode: expected one of {}", known.join(", ")));
            found.map(|(_, mode)| *mode).ok_or_else(expected)?
        }
    };
    let client = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((base.join(cert), base.join(key))),
        _ => return Err(refused("sslcert and sslkey: expected both, or neither")),
    };
    let root_cert = root_cert.filter(|file| file != "system").map(|file| base.join(file));
    if mode == TlsMode::Disable && (root_cert.is_some() || client.is_some()) {
        return Err(refused("sslmode=disable takes no certificates; expected sslmode=verify-full"));
    }
    Ok(TlsPlan { mode, root_cert, client })
}

fn decoded(value: &str) -> Result<String, StoreUrlError> {
    percent_decode_str(value).decode_utf8().map(Cow::into_owned).map_err(|_| refused("an option is not UTF-8"))
}

fn refused(what: impl Into<String>) -> StoreUrlError {
    StoreUrlError::Postgres(what.into())
}

/// A name that is no option. It is shown only if it is nearly one: it might be a part of a password.
fn unknown_option(name: &str) -> StoreUrlError {
    let known: Vec<&str> = DRIVER_OPTIONS.iter().chain(&TLS_OPTIONS).copied().collect();
    let near = nearest(name, &known);
    match near.is_empty() {
        false => refused(format!("there is no option {name}{near}")),
        true => refused(format!("an option that is not known after the ?; expected one of {}", known.join(", "))),
    }
}

fn host_text(host: &Host) -> String {
    match host {
        Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

impl fmt::Display for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let hosts: Vec<String> = self
            .config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(at, host)| match port(at) {
                5432 => host_text(host),
                port => format!("{}:{port}", host_text(host)),
            })
            .collect();
        f.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            write!(f, "{user}@")?;
        }
        write!(f, "{}/{}", hosts.join(","), self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PostgresAddress, StoreUrlError> {
        PostgresAddress::parse(text, Path::new("/base"))
    }

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        for (given, shown) in [
            ("postgres://u:secret@db.example/x", "postgres://u@db.example/x"),
            ("postgresql://u:se%63ret@h:6543/x?sslmode=require", "postgres://u@h:6543/x"),
            ("postgres:///x?host=/run/pg&password=secret", "postgres:///run/pg/x"),
            ("postgres://h1,h2:5433/x", "postgres://h1,h2:5433/x"),
            ("postgres:///x", "postgres://localhost/x"),
            ("postgres://u:se%40cret@[::1]:5433/x?connect_timeout=9223372036854775807", "postgres://u@[::1]:5433/x"),
        ] {
            let address = parse(given).expect(given);
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()), "{given}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_not_repeated() {
        for (given, says) in [
            ("postgres://u:secret@h/x?sslmod=require", "there is no option sslmod; did you mean \"sslmode\"?"),
            ("postgres://u:secret@h/x?sslmode=allow", "sslmode: expected one of disable, prefer"),
            ("postgres://u:p?secret@h/x", "expected option=value"),
            ("postgres://u:p?secret=two@h/x", "an option that is not known"),
            ("postgres://u:secret@h:port/x", "expected postgres://user"),
            ("postgres://u:sec#ret@h/x", "%23"),
            ("postgres://u:sec@ret/secret@h/x", "%40"),
            ("postgres://u:secret@h/x?sslcert=a", "expected both"),
            ("postgres://u:secret@h/x?sslmode=disable&sslrootcert=r.pem", "takes no certificates"),
        ] {
            let error = parse(given).expect_err(given).to_string();
            assert!(error.contains(says), "{given}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn tls_is_read_from_the_options() {
        let address =
            parse("postgres://h/x?sslmode=verify-full&sslrootcert=ca.pem&sslcert=c.pem&sslkey=/k.pem").expect("ok");
        let tls = TlsPlan {
            mode: TlsMode::VerifyFull,
            root_cert: Some("/base/ca.pem".into()),
            client: Some(("/base/c.pem".into(), "/k.pem".into())),
        };
        assert_eq!((address.tls, address.config.get_ssl_mode()), (tls, SslMode::Require));
        assert_eq!(parse("postgres://h/x?sslrootcert=system").expect("ok").tls, TlsPlan::default());
    }

    #[test]
    fn the_password_file_is_read_as_psql_does() {
        let address = parse("postgres://me@db:6000/x").expect("ok");
        let file = "# me\ndb:5432:x:me:no\ndb:6000:y:me:no\n*:6000:x:me:a\\:b\\\\c:d\ndb:6000:x:me:late\n";
        assert_eq!(address.password_in(file), Some("a:b\\c:d".into()));
        assert_eq!(address.password_in("other:*:*:*:no\n"), None);
    }
}
