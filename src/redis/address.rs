//! Where Redis is.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use redis::io::tcp::TcpSettings;
use redis::{ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};

use crate::model::address::{cleaned, trimmed};
use crate::model::limits::FILE_BYTES_MAX;
use crate::model::text::nearest;
use crate::model::whole_text::read_bytes;

/// The port of Redis.
const PORT: u16 = 6379;

/// An address that names no Redis server. It never repeats what may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RedisUrlError(String);

const EXPECTED: &str = "expected redis://user:password@host:port/database, rediss:// for TLS, redis+cluster://host,host or \
                        redis+unix:///path, with special characters as %XX";

/// Where a Redis server or a Redis Cluster is: `redis://`, `rediss://` (TLS), `redis+unix://` (a socket's path),
/// `redis+cluster://a,b,c` and `rediss+cluster://`.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    place: Endpoint,
    is_cluster: bool,
    is_tls: bool,
    user: Option<String>,
    password: Option<String>,
    database: i64,
    tls: TlsFiles,
}

#[derive(Clone, PartialEq, Eq)]
enum Endpoint {
    /// Servers; of a cluster any number, else one.
    Hosts(Vec<(String, u16)>),
    Socket(PathBuf),
}

/// Certificates in files; none where the system's roots do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct TlsFiles {
    root: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

const TLS_OPTIONS: [&str; 3] = ["sslrootcert", "sslcert", "sslkey"];
const SOCKET_OPTIONS: [&str; 3] = ["user", "pass", "db"];

fn refused(message: impl Into<String>) -> RedisUrlError {
    RedisUrlError(format!("redis address: {}", message.into()))
}

impl RedisUrl {
    /// Whether a text begins as an address of Redis does.
    pub fn is_meant(text: &str) -> bool {
        Scheme::of(trimmed(text)).is_some()
    }

    /// Reads an address; the files of certificates (`?sslrootcert=FILE&sslcert=FILE&sslkey=FILE`) are taken from `base`.
    /// Blanks, line ends and invisible characters at both ends are left out; within they are refused.
    ///
    /// # Errors
    /// The text names no server; the message does not show what may hold a password.
    pub fn parse(text: &str, base: &Path) -> Result<Self, RedisUrlError> {
        let text = cleaned(text).map_err(RedisUrlError)?;
        let (scheme, rest) = Scheme::of(text).ok_or_else(|| RedisUrlError(EXPECTED.into()))?;
        if rest.contains('#') {
            return Err(refused("a # must be written as %23; a certificate is always checked"));
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut url = Self {
            place: Endpoint::Hosts(Vec::new()),
            is_cluster: scheme.is_cluster,
            is_tls: scheme.is_tls,
            user: None,
            password: None,
            database: 0,
            tls: TlsFiles::default(),
        };
        if scheme.is_socket {
            if !place.starts_with('/') {
                return Err(refused("expected the path of a socket, such as redis+unix:///run/redis.sock"));
            }
            url.place = Endpoint::Socket(PathBuf::from(decoded(place)?));
        } else {
            url.read_place(place)?;
        }
        url.read_query(query, scheme, base)?;
        if url.is_cluster && url.database != 0 {
            return Err(refused("a cluster has no database but 0"));
        }
        if url.user.is_some() && url.password.is_none() {
            return Err(refused("a user needs a password"));
        }
        if url.tls.certificate.is_some() != url.tls.key.is_some() {
            return Err(refused("sslcert and sslkey belong together"));
        }
        Ok(url)
    }

    fn read_place(&mut self, place: &str) -> Result<(), RedisUrlError> {
        if place.matches('@').count() > 1 {
            return Err(refused("an @ in a user or a password must be written as %40"));
        }
        let (user, hosts) = place.split_once('@').map_or((None, place), |(user, hosts)| (Some(user), hosts));
        if let Some(user) = user {
            let (name, password) = user.split_once(':').map_or((user, None), |(name, word)| (name, Some(word)));
            self.user = Some(decoded(name)?).filter(|name| !name.is_empty());
            self.password = password.map(decoded).transpose()?.filter(|password| !password.is_empty());
            if self.user.is_some() && self.password.is_none() {
                return Err(refused("a user needs a password: redis://user:password@host"));
            }
        }
        let (hosts, database) = hosts.split_once('/').unwrap_or((hosts, ""));
        self.database = read_database(database)?;
        let hosts: Vec<&str> = hosts.split(',').collect();
        if hosts.len() > 1 && !self.is_cluster {
            return Err(refused("more than one host: expected redis+cluster://host,host for a cluster"));
        }
        self.place = Endpoint::Hosts(hosts.into_iter().map(read_host).collect::<Result<_, _>>()?);
        Ok(())
    }

    fn read_query(&mut self, query: &str, scheme: Scheme, base: &Path) -> Result<(), RedisUrlError> {
        let known: &[&str] = match scheme {
            Scheme { is_tls: true, .. } => &TLS_OPTIONS,
            Scheme { is_socket: true, .. } => &SOCKET_OPTIONS,
            _ => &[],
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| refused("expected option=value after the ?"))?;
            if !known.contains(&name) {
                return Err(unknown_option(name, known));
            }
            let value = decoded(value)?;
            match name {
                "user" => self.user = Some(value),
                "pass" => self.password = Some(value),
                "db" => self.database = read_database(&value)?,
                "sslrootcert" => self.tls.root = Some(base.join(value)),
                "sslcert" => self.tls.certificate = Some(base.join(value)),
                _ => self.tls.key = Some(base.join(value)),
            }
        }
        Ok(())
    }

    /// Whether it is a cluster, and not one server.
    pub fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether all servers that are named are this machine.
    pub(crate) fn is_local(&self) -> bool {
        let is_here = |host: &str| {
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        };
        self.named().iter().all(|(host, _)| is_here(host))
    }

    /// The servers that are named: of a cluster, those to ask for the others.
    pub(crate) fn named(&self) -> Vec<(String, u16)> {
        match &self.place {
            Endpoint::Hosts(hosts) => hosts.clone(),
            Endpoint::Socket(_) => Vec::new(),
        }
    }

    pub(crate) fn credentials(&self) -> Option<(Option<&str>, &str)> {
        self.password.as_deref().map(|password| (self.user.as_deref(), password))
    }

    /// Who logs in, as the server calls him.
    pub(crate) fn user_name(&self) -> &str {
        self.credentials().and_then(|(user, _)| user).unwrap_or("default")
    }

    pub(crate) fn database(&self) -> i64 {
        self.database
    }

    /// How one server of it is called in messages: without a password.
    pub(crate) fn name_of(&self, host: Option<&(String, u16)>) -> String {
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        match (host, &self.place) {
            (Some((host, port)), _) if host.contains(':') => format!("{scheme}://[{host}]:{port}"),
            (Some((host, port)), _) => format!("{scheme}://{host}:{port}"),
            (None, Endpoint::Socket(path)) => format!("redis+unix://{}", path.display()),
            (None, Endpoint::Hosts(_)) => self.to_string(),
        }
    }

    /// What makes connections to one server; to the only one, if none is named. Login and database are left to the
    /// first request.
    ///
    /// # Errors
    /// A file of a certificate cannot be read or is none.
    pub(crate) fn client(&self, host: Option<&(String, u16)>) -> Result<redis::Client, String> {
        let named = self.named();
        let address = match (host.or(named.first()), &self.place) {
            (_, Endpoint::Socket(path)) => ConnectionAddr::Unix(path.clone()),
            (None, _) => return Err("no host is named".into()),
            (Some((host, port)), _) if self.is_tls => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
            (Some((host, port)), _) => ConnectionAddr::Tcp(host.clone(), *port),
        };
        let info = address.into_connection_info().map_err(|error| error.to_string())?;
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let info: ConnectionInfo =
            info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true));
        if !self.is_tls {
            return redis::Client::open(info).map_err(|error| error.to_string());
        }
        let read = |file: &PathBuf| {
            std::fs::File::open(file)
                .and_then(|open| read_bytes(open, FILE_BYTES_MAX))
                .map_err(|error| format!("cannot read the certificate {}: {error}", file.display()))
        };
        let client_tls = match (&self.tls.certificate, &self.tls.key) {
            (Some(certificate), Some(key)) => {
                Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
            }
            _ => None,
        };
        let root_cert = self.tls.root.as_ref().map(read).transpose()?;
        redis::Client::build_with_tls(info, TlsCertificates { client_tls, root_cert })
            .map_err(|error| error.to_string())
    }
}

impl std::str::FromStr for RedisUrl {
    type Err = RedisUrlError;

    /// As [`RedisUrl::parse`], with relative paths taken from the current folder.
    fn from_str(text: &str) -> Result<Self, RedisUrlError> {
        Self::parse(text, Path::new(""))
    }
}

impl fmt::Display for RedisUrl {
    /// The address without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = match &self.place {
            Endpoint::Socket(path) => return write!(f, "redis+unix://{}", path.display()),
            Endpoint::Hosts(hosts) => hosts,
        };
        let names: Vec<String> = hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        let cluster = if self.is_cluster { "+cluster" } else { "" };
        write!(f, "{scheme}{cluster}://{}", names.join(","))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[derive(Clone, Copy)]
struct Scheme {
    is_cluster: bool,
    is_tls: bool,
    is_socket: bool,
}

impl Scheme {
    /// The scheme of a text, and what follows `://`.
    fn of(text: &str) -> Option<(Self, &str)> {
        let (name, rest) = text.split_once("://")?;
        let (is_cluster, is_tls, is_socket) = match name {
            "redis" | "valkey" => (false, false, false),
            "rediss" | "valkeys" => (false, true, false),
            "redis+cluster" => (true, false, false),
            "rediss+cluster" => (true, true, false),
            "redis+unix" | "unix" => (false, false, true),
            _ => return None,
        };
        Some((Self { is_cluster, is_tls, is_socket }, rest))
    }
}

fn decoded(text: &str) -> Result<String, RedisUrlError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(|text| text.into_owned()).map_err(|_| refused("what %XX stands for is not UTF-8"))
}

fn read_database(text: &str) -> Result<i64, RedisUrlError> {
    if text.is_empty() {
        return Ok(0);
    }
    let number = text.parse().ok().filter(|number| (0..=i64::from(u16::MAX)).contains(number));
    number.ok_or_else(|| refused("expected the number of a database after the host, such as redis://host/0"))
}

fn read_host(text: &str) -> Result<(String, u16), RedisUrlError> {
    let wrong = || refused("expected host or host:port, or [address]:port");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| wrong()))?;
    let host = decoded(host)?;
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(wrong());
    }
    Ok((host, port))
}

fn unknown_option(name: &str, known: &[&str]) -> RedisUrlError {
    // What is not a plain word may be a part of a password.
    let is_word =
        !name.is_empty() && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
    let known_are =
        if known.is_empty() { "it has none here".to_owned() } else { format!("known are {}", known.join(", ")) };
    match is_word {
        true => refused(format!("there is no option {name}{}; {known_are}", nearest(name, known))),
        false => refused(format!("an option that is not known; {known_are}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_their_password() {
        for (text, shown) in [
            ("redis://localhost", "redis://localhost:6379"),
            ("redis://:s%40cret@h:1/3", "redis://h:1"),
            ("rediss://me:secret@[::1]:7", "rediss://::1:7"),
            ("redis+cluster://a,b:2,c", "redis+cluster://a:6379,b:2,c:6379"),
            ("redis+unix:///run/redis.sock?db=2&pass=secret", "redis+unix:///run/redis.sock"),
        ] {
            let url = RedisUrl::parse(text, Path::new("")).expect(text);
            assert_eq!(url.to_string(), shown);
        }
        let url = RedisUrl::parse(" redis://:s%40cret@h/3\r\n", Path::new("")).expect("an address");
        assert_eq!((url.credentials(), url.database()), (Some((None, "s@cret")), 3));
    }

    #[test]
    fn what_names_no_server_is_refused_without_its_password() {
        for text in [
            "",
            "localhost",
            "redis:secret@h",
            "http://u:secret@h",
            "redis://",
            "redis://u:secret@h:x",
            "redis://u:secret@h/x",
            "redis://secret@h",
            "redis://u:sec@ret@h",
            "redis://u:secret@a,b",
            "redis+cluster://u:secret@a,b/1",
            "redis://u:secret@h?sslmode=x",
            "rediss://u:secret@h?sslrotcert=x",
            "rediss://u:secret@h?sslcert=x",
            "rediss://u:secret@h/#insecure",
            "redis+unix://secret",
            "redis://u:secret\r@h",
            "redis://h\u{200b}/?secret",
        ] {
            let error = RedisUrl::parse(text, Path::new("")).expect_err(text);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
