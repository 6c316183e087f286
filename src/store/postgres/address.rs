//! The address of a Postgres database: what the driver takes, and beside it what it does not know.
//!
//! The driver reads the address itself, but for the options of TLS, which are taken out before. A password that is not
//! in the address comes from `PGPASSWORD`, else from the password file (`PGPASSFILE`, else `~/.pgpass`). None of it is
//! ever shown: [`std::fmt::Display`] names user, host, port and database only, and so does `Debug`. A user that may be a
//! password in the wrong place is left out.

use std::borrow::Cow;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use postgres::Config;
use postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::environment::{self, Variables};
use crate::model::address::is_plain_user;
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
    /// How long a call may take at most, however long the server lets a statement take.
    pub(super) answer_max: Option<Duration>,
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
    /// Reads `postgres://user:password@host:port/database?option=value`; files of TLS are taken from `base`. What the
    /// address leaves out, the variables of libpq say.
    pub(in crate::store) fn parse(text: &str, base: &Path) -> Result<Self, StoreUrlError> {
        Self::parse_with(text, base, &environment::of_process)
    }

    fn parse_with(text: &str, base: &Path, variables: Variables<'_>) -> Result<Self, StoreUrlError> {
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        if text.contains('#') {
            // The driver would take it for a part of the last value.
            return Err(refused("a # in the address must be written as %23"));
        }
        if place.matches('@').count() > 1 {
            // The driver would take the end of the password for the host.
            return Err(refused("an @ in a user, a password or a database must be written as %40"));
        }
        let mut place = Place::of(place);
        let mut given = Given::default();
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| refused("expected option=value after the ?"))?;
            if TLS_OPTIONS.contains(&name) {
                given.note(name, &decoded(value)?, base);
            } else if DRIVER_OPTIONS.contains(&name) {
                kept.push(pair.to_owned());
            } else {
                return Err(unknown_option(name));
            }
        }
        // What the driver says may repeat a part of the address.
        let mut config = place.config(&kept).map_err(|_| {
            refused("expected postgres://user:password@host:port/database, with special characters as %XX")
        })?;
        let has = |option: &str| {
            place.has(option) || given.has(option) || kept.iter().any(|pair| pair.split('=').next() == Some(option))
        };
        for (name, option, value) in environment::options(variables, has)? {
            if TLS_OPTIONS.contains(&option) {
                given.note_variable(name, option, &value)?;
                continue;
            }
            if option == "port" && place.has("host") {
                if !value.bytes().all(|digit| digit.is_ascii_digit()) {
                    return Err(refused("PGPORT: expected a number"));
                }
                place.set_port(&value);
            } else {
                // The driver takes one host an option.
                let is_list = matches!(option, "host" | "hostaddr" | "port");
                let parts = value.split(',').filter(|_| is_list);
                let values = parts.chain((!is_list).then_some(value.as_str()));
                kept.extend(values.map(|one| format!("{option}={}", utf8_percent_encode(one, NON_ALPHANUMERIC))));
            }
            config = place.config(&kept).map_err(|_| refused(format!("{name}: its value is not understood")))?;
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host("localhost");
        }
        if config.get_hosts().is_empty() {
            return Err(refused("hostaddr needs a host beside it"));
        }
        let tls = given.plan()?;
        config.ssl_mode(match tls.mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        Ok(Self { given: text.to_owned(), config, tls, takes_any: false, answer_max: None })
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

    /// The same, and one host may take no longer than that to accept a connection, and a statement to be answered.
    pub(super) fn hurried(&self, connect_max: Duration, answer_max: Duration) -> Self {
        let mut hurried = self.clone();
        let given = hurried.config.get_connect_timeout().copied().unwrap_or(connect_max);
        hurried.config.connect_timeout(given.min(connect_max));
        hurried.answer_max = Some(answer_max);
        hurried
    }

    /// How long connecting may take in all, over all hosts, and the server's first answer with it.
    pub(super) fn connect_timeout(&self) -> Duration {
        let one = self.config.get_connect_timeout().copied().unwrap_or(super::CONNECT_TIMEOUT);
        let hosts = self.config.get_hosts().len().max(1);
        one.saturating_mul(u32::try_from(hosts).unwrap_or(1).saturating_add(1))
    }

    /// Whether all hosts are this machine.
    pub(super) fn is_local(&self) -> bool {
        let addresses = self.config.get_hostaddrs();
        if !addresses.is_empty() {
            return addresses.iter().all(std::net::IpAddr::is_loopback);
        }
        self.config.get_hosts().iter().all(|host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => {
                name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        })
    }

    /// Whether a password must be kept from being sent in clear: the way may be unencrypted, and nobody has said so.
    pub(super) fn is_guarded(&self) -> bool {
        self.tls.mode == TlsMode::Prefer && !self.is_local()
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

/// An address up to its options, in parts.
struct Place<'a> {
    /// The scheme, and user and password.
    login: &'a str,
    hosts: String,
    /// The database, with the slash before it.
    database: &'a str,
}

impl<'a> Place<'a> {
    fn of(text: &'a str) -> Self {
        let scheme = text.find("://").map_or(0, |at| at + "://".len());
        let login = text[scheme..].find('@').map_or(scheme, |at| scheme + at + 1);
        let database = text[login..].find('/').map_or(text.len(), |at| login + at);
        Self { login: &text[..login], hosts: text[login..database].to_owned(), database: &text[database..] }
    }

    fn config(&self, options: &[String]) -> Result<Config, postgres::Error> {
        let Self { login, hosts, database } = self;
        let mark = if options.is_empty() { "" } else { "?" };
        Config::from_str(&format!("{login}{hosts}{database}{mark}{}", options.join("&")))
    }

    /// Whether it says what an option of that name would.
    fn has(&self, option: &str) -> bool {
        match option {
            "user" => self.login.ends_with('@'),
            "host" => !self.hosts.is_empty(),
            "port" => self.hosts.split(',').any(has_port),
            "dbname" => self.database.len() > 1,
            _ => false,
        }
    }

    fn set_port(&mut self, port: &str) {
        self.hosts = self.hosts.split(',').map(|host| format!("{host}:{port}")).collect::<Vec<_>>().join(",");
    }
}

fn has_port(host: &str) -> bool {
    host.rsplit(']').next().is_some_and(|behind| behind.contains(':'))
}

/// What was said of TLS.
#[derive(Default)]
struct Given {
    mode: Option<String>,
    root_cert: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    /// Whether the roots are to be the system's.
    is_system: bool,
}

impl Given {
    fn note(&mut self, option: &str, value: &str, base: &Path) {
        match option {
            "sslmode" => self.mode = Some(value.to_owned()),
            "sslrootcert" if value == "system" => self.is_system = true,
            "sslrootcert" => self.root_cert = Some(base.join(value)),
            "sslcert" => self.cert = Some(base.join(value)),
            _ => self.key = Some(base.join(value)),
        }
    }

    /// What a variable says; its files are taken from the current folder.
    fn note_variable(&mut self, name: &str, option: &str, value: &str) -> Result<(), StoreUrlError> {
        if option == "sslmode" {
            mode_of(name, value)?;
        }
        // Certificates are for whoever uses TLS.
        if self.mode.as_deref() != Some("disable") {
            self.note(option, value, Path::new(""));
        }
        Ok(())
    }

    fn has(&self, option: &str) -> bool {
        match option {
            "sslmode" => self.mode.is_some(),
            "sslrootcert" => self.is_system || self.root_cert.is_some(),
            "sslcert" => self.cert.is_some(),
            "sslkey" => self.key.is_some(),
            _ => false,
        }
    }

    fn plan(self) -> Result<TlsPlan, StoreUrlError> {
        let mode = self.mode.map_or_else(|| Ok(TlsMode::default()), |mode| mode_of("sslmode", &mode))?;
        let client = match (self.cert, self.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert, key)),
            _ => return Err(refused("sslcert and sslkey (PGSSLCERT and PGSSLKEY): expected both, or neither")),
        };
        if mode == TlsMode::Disable && (self.root_cert.is_some() || client.is_some()) {
            return Err(refused("sslmode=disable takes no certificates; expected sslmode=verify-full"));
        }
        Ok(TlsPlan { mode, root_cert: self.root_cert, client })
    }
}

/// A mode by its name; `by` is who says it.
fn mode_of(by: &str, mode: &str) -> Result<TlsMode, StoreUrlError> {
    let known: Vec<&str> = TlsMode::NAMES.iter().map(|(name, _)| *name).collect();
    let found = TlsMode::NAMES.iter().find(|(name, _)| *name == mode);
    found.map(|(_, mode)| *mode).ok_or_else(|| refused(format!("{by}: expected one of {}", known.join(", "))))
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
            write!(f, "{}@", if is_plain_user(user) { user } else { "…" })?;
        }
        let database = self.config.get_dbname().unwrap_or_default();
        // A login that stands behind a slash.
        let database = if database.contains([':', '@']) { "…" } else { database };
        write!(f, "{}/{database}", hosts.join(","))
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
        PostgresAddress::parse_with(text, Path::new("/base"), &|_| None)
    }

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        for (given, shown) in [
            ("postgres://u:secret@db.example/x", "postgres://u@db.example/x"),
            ("postgresql://u:se%63ret@h:6543/x?sslmode=require", "postgres://u@h:6543/x"),
            ("postgres:///x?host=/run/pg&password=secret", "postgres:///run/pg/x"),
            ("postgres://h1,h2:5433/x", "postgres://h1,h2:5433/x"),
            ("postgres://Secret-1@h/x", "postgres://…@h/x"),
            ("postgres://h/u:secret", "postgres://h/…"),
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

    #[test]
    fn variables_fill_in_what_the_address_leaves_out() {
        let variables = |name: &str| {
            let value = match name {
                "PGHOST" => "h1,/run/pg",
                "PGPORT" => "6432",
                "PGUSER" => "me",
                "PGDATABASE" => "a/b",
                "PGSSLMODE" => "verify-full",
                "PGSSLROOTCERT" => "root.crt",
                "PGOPTIONS" => "-c x=1 -c y=2",
                "PGCONNECT_TIMEOUT" => "7",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let full = TlsPlan { mode: TlsMode::VerifyFull, root_cert: Some("root.crt".into()), client: None };
        let off = TlsPlan { mode: TlsMode::Disable, ..TlsPlan::default() };
        for (given, shown, tls) in [
            ("postgres://", "postgres://me@h1:6432,/run/pg:6432/a/b", &full),
            ("postgres:///x", "postgres://me@h1:6432,/run/pg:6432/x", &full),
            ("postgres://h", "postgres://me@h:6432/a/b", &full),
            ("postgres://u:p@[::1],h:7/x", "postgres://u@[::1],h:7/x", &full),
            ("postgres://u@h,g/x", "postgres://u@h:6432,g:6432/x", &full),
            ("postgres://u@h/x?port=8&sslmode=disable", "postgres://u@h/x", &off),
            ("postgres:///x?host=/s&port=8&user=u&sslmode=disable", "postgres://u@/s:8/x", &off),
        ] {
            let address = PostgresAddress::parse_with(given, Path::new("/base"), &variables).expect(given);
            assert_eq!((address.to_string().as_str(), &address.tls), (shown, tls), "{given}");
            assert_eq!(address.config.get_options(), Some("-c x=1 -c y=2"));
            assert_eq!(address.config.get_connect_timeout(), Some(&Duration::from_secs(7)));
        }
    }

    #[test]
    fn a_password_is_guarded_where_the_way_may_be_open() {
        for (given, is_guarded) in [
            ("postgres://u:p@h/x", true),
            ("postgres://u:p@h/x?sslmode=prefer", true),
            ("postgres://u:p@h/x?sslmode=disable", false),
            ("postgres://u:p@h/x?sslmode=require", false),
            ("postgres://u:p@localhost/x", false),
            ("postgres://u:p@127.0.0.9,[::1]/x", false),
            ("postgres://u:p@localhost,h/x", true),
            ("postgres://u:p@localhost/x?hostaddr=10.0.0.1", true),
            ("postgres://u:p@h/x?hostaddr=127.0.0.1", false),
            ("postgres:///x?host=/run/pg", false),
        ] {
            assert_eq!(parse(given).expect(given).is_guarded(), is_guarded, "{given}");
        }
    }
}
