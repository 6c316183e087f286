//! The address of a store.

use std::fmt;
use std::path::{Path, PathBuf};

use super::postgres::PostgresAddress;
use crate::model::address::{AddressForm, cleaned, has_login, one_of};
use crate::model::built::NotBuilt;
use crate::model::setting::SettingError;

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreUrl {
    /// A SQLite database in this file.
    Sqlite(PathBuf),
    /// A Postgres database.
    Postgres(Box<PostgresAddress>),
}

/// An address that names no store. It never repeats what may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreUrlError {
    /// No scheme that a store has.
    #[error("expected a store such as {}", examples())]
    Scheme,
    /// An address of Postgres that is not understood.
    #[error("postgres address: {0}")]
    Postgres(String),
    /// No file, or a database that is gone when the program ends.
    #[error("expected a file, such as sqlite:events.db: what is only in memory could not be resumed")]
    NoFile,
    /// Options, which are not known.
    #[error("expected a file without options, such as sqlite:events.db")]
    Options,
    /// A login and a host, where a file is expected.
    #[error(
        "sqlite: takes a file, and no user, password or host; expected {} (a file whose name has : or @ in it: \
         sqlite:./NAME)",
        examples()
    )]
    Login,
    /// It holds a character that nobody sees.
    #[error("{0}")]
    Hidden(String),
    /// This build has no such store.
    #[error(transparent)]
    NotBuilt(#[from] NotBuilt),
}

/// An address of each store, as messages name them.
fn examples() -> String {
    one_of(StoreUrl::FORMS.iter().map(|form| form.example))
}

impl StoreUrl {
    /// The forms of an address, as they are told to users: one for each store.
    pub const FORMS: [AddressForm; 2] = [
        AddressForm { full: "sqlite:PATH", brief: "sqlite:PATH", example: "sqlite:events.db" },
        AddressForm {
            full: "postgres://USER@HOST/DATABASE",
            brief: "postgres://…",
            example: "postgres://user@host/database",
        },
    ];

    /// Reads `sqlite:PATH` (also `sqlite://PATH`), or `postgres://…` (also `postgresql://…`); a relative path is taken
    /// from `base`. Blanks, line ends and invisible characters at both ends are left out; within they are refused.
    ///
    /// # Errors
    /// The text names no store.
    pub fn parse(text: &str, base: &Path) -> Result<Self, StoreUrlError> {
        let text = cleaned(text).map_err(StoreUrlError::Hidden)?;
        let Some((scheme, rest)) = text.split_once(':') else { return Err(StoreUrlError::Scheme) };
        match scheme {
            "sqlite" if cfg!(not(feature = "sqlite")) => Err(NotBuilt::new("SQLite", "sqlite").into()),
            "sqlite" => sqlite_path(rest, base),
            "postgres" | "postgresql" if rest.starts_with("//") => {
                PostgresAddress::parse(text, base).map(|address| Self::Postgres(Box::new(address)))
            }
            _ => Err(StoreUrlError::Scheme),
        }
    }
}

impl StoreUrl {
    /// Whether it is a file here, and no server.
    #[cfg(feature = "serve")]
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// Refuses to tell who listens, where nobody can.
    pub(crate) fn check_notify(&self, notify: bool) -> Result<(), SettingError> {
        match self {
            Self::Sqlite(_) if notify => Err(SettingError::new(
                "[store] notify: nobody can listen to SQLite; leave notify out, or store in a Postgres",
            )),
            _ => Ok(()),
        }
    }
}

fn sqlite_path(rest: &str, base: &Path) -> Result<StoreUrl, StoreUrlError> {
    let path = rest.strip_prefix("//").unwrap_or(rest).trim_start();
    if path.is_empty() || path.starts_with(":memory:") {
        return Err(StoreUrlError::NoFile);
    }
    if has_login(rest) {
        return Err(StoreUrlError::Login);
    }
    if path.contains('?') {
        return Err(StoreUrlError::Options);
    }
    Ok(StoreUrl::Sqlite(base.join(path)))
}

impl std::str::FromStr for StoreUrl {
    type Err = StoreUrlError;

    /// As [`StoreUrl::parse`], with relative paths taken from the current folder.
    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        Self::parse(text, Path::new(""))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_from_the_base() {
        let base = Path::new("/base");
        for (text, path) in [
            ("sqlite:a.db", "/base/a.db"),
            ("sqlite://a.db", "/base/a.db"),
            ("sqlite:/tmp/a.db", "/tmp/a.db"),
            ("sqlite:///tmp/a.db", "/tmp/a.db"),
            ("sqlite:/tmp/10:30/a@b.db", "/tmp/10:30/a@b.db"),
            ("sqlite:./u:a@b.db", "/base/./u:a@b.db"),
            ("sqlite://x/a@b.db", "/base/x/a@b.db"),
            ("\u{feff} sqlite: a.db\r\n", "/base/a.db"),
        ] {
            assert_eq!(StoreUrl::parse(text, base), Ok(StoreUrl::Sqlite(path.into())));
        }
    }

    #[test]
    fn what_is_no_store_is_refused_without_its_password() {
        for text in [
            "",
            "quakes.db",
            "sqlite:",
            "sqlite::memory:",
            "mysql://u:secret@h/d",
            "postgres:u:secret@h/d",
            "postgres://u:secret@h/d?what=1",
            "secret@h",
            "h=x password=secret",
            "sqlite:a.db?k=secret",
            "postgres://u:sec\u{200b}secret@h/d",
            "postgres://h/d\0?password=secret",
            "sqlite://u:secret@h/d",
            "sqlite://secret@h/d",
            "sqlite:///u:secret@h/d",
            "sqlite:u:secret@h",
            "sqlite:u:a/secret@h",
            "sqlite://u:secret",
            "sqlite://u:secret\u{200b}x@h",
            "postgres:/u:secret@h/d",
            "postgress://u:secret@h/d",
        ] {
            let error = StoreUrl::parse(text, Path::new(".")).expect_err(text);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
