//! The variables of libpq: what the address leaves out, they say. One that is set and cannot be heeded is refused by its
//! name, so that nobody takes a connection for safer, or for another one, than it is.
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-envars.html>. The password is looked up where one connects
//! (`address`). Not heeded, and harmless: what sets formats, and time zones, which a connection of ours sets itself.

use crate::store::StoreUrlError;

/// A variable, and the option of an address that says the same.
const OPTIONS: [(&str, &str); 11] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGDATABASE", "dbname"),
    ("PGOPTIONS", "options"),
    ("PGAPPNAME", "application_name"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
];

/// The same of TLS.
const TLS_OPTIONS: [(&str, &str); 4] =
    [("PGSSLMODE", "sslmode"), ("PGSSLROOTCERT", "sslrootcert"), ("PGSSLCERT", "sslcert"), ("PGSSLKEY", "sslkey")];

/// Variables that cannot be heeded: with which value (none: any), and what to do instead.
const REFUSED: [(&str, Option<&str>, &str); 9] = [
    ("PGSERVICE", None, "files of services are not read: write what they say into the address"),
    ("PGREQUIREAUTH", None, "how the server asks for the password cannot be demanded: sslmode=verify-full protects it"),
    ("PGREQUIREPEER", None, "whose the socket is cannot be looked at"),
    ("PGSSLCRL", None, "lists of revoked certificates are not read"),
    ("PGSSLCRLDIR", None, "lists of revoked certificates are not read"),
    ("PGGSSENCMODE", Some("require"), "GSSAPI is not built in: use TLS, with sslmode=verify-full"),
    ("PGSSLCERTMODE", Some("require"), "whether the server has asked for a certificate cannot be demanded"),
    ("PGSSLMINPROTOCOLVERSION", Some("TLSv1.3"), "TLS 1.2 is taken too"),
    ("PGSSLNEGOTIATION", Some("direct"), "TLS is asked for in the protocol of Postgres"),
];

/// The environment, by which names are looked up; a test has one of its own.
pub(super) type Variables<'v> = &'v dyn Fn(&str) -> Option<String>;

/// What the environment of this process says; blank is nothing.
pub(super) fn of_process(name: &str) -> Option<String> {
    // What is not UTF-8 is refused where it is used.
    std::env::var_os(name).map(|value| value.to_string_lossy().trim().to_owned())
}

/// What a variable says, unless it is blank.
fn value(variables: Variables<'_>, name: &str) -> Option<String> {
    variables(name).filter(|value| !value.is_empty())
}

/// The options that variables add to those of an address that has the ones for which `has` says so: variable, option,
/// value. Those of TLS come last.
///
/// # Errors
/// A variable cannot be heeded.
pub(super) fn options(
    variables: Variables<'_>,
    has: impl Fn(&str) -> bool,
) -> Result<Vec<(&'static str, &'static str, String)>, StoreUrlError> {
    for (name, refused, advice) in REFUSED {
        if value(variables, name).is_some_and(|value| refused.is_none_or(|refused| refused == value)) {
            return Err(StoreUrlError::Postgres(format!("{name} is set, and is not heeded: {advice}; unset it")));
        }
    }
    let mut found = Vec::new();
    for (name, option) in OPTIONS.into_iter().chain(TLS_OPTIONS) {
        if let Some(value) = value(variables, name).filter(|_| !has(option)) {
            found.push((name, option, value));
        }
    }
    if found.iter().any(|(_, option, _)| *option == "hostaddr") && has("host") {
        return Err(StoreUrlError::Postgres(
            "PGHOSTADDR is set, and the address names a host: write hostaddr=… into the address, or unset it".into(),
        ));
    }
    // The variable that was there before PGSSLMODE.
    let has_mode = has("sslmode") || found.iter().any(|(_, option, _)| *option == "sslmode");
    if !has_mode && value(variables, "PGREQUIRESSL").is_some_and(|value| value == "1") {
        found.push(("PGREQUIRESSL", "sslmode", "require".into()));
    }
    Ok(found)
}
