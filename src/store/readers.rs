//! `[store] readers`: roles of the database that may read a pipeline's tables.

use super::url::StoreUrl;
use crate::model::limits::NAME_BYTES_MAX;
use crate::model::setting::SettingError;

/// Roles of the database that may read a pipeline's tables. Defaults to none beside those that may by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readers(Vec<String>);

impl Readers {
    /// These roles, each by the name that the database has for it: it is taken letter by letter.
    ///
    /// # Errors
    /// There is none, a name is given twice, or it is none that a role can have.
    pub fn new(roles: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, SettingError> {
        let roles: Vec<String> = roles.into_iter().map(Into::into).collect();
        if roles.is_empty() {
            return Err(SettingError::new("readers: expected at least one role; leave the key out for none"));
        }
        for (at, role) in roles.iter().enumerate() {
            let problem = match role.as_str() {
                "" => "the name of a role may not be empty".to_owned(),
                "public" => "\"public\" is everybody, and no role; name the roles that are to read".to_owned(),
                _ if role.contains('\0') => "the name of a role holds no NUL".to_owned(),
                _ if role.len() > NAME_BYTES_MAX => format!("role {role:?} has more than {NAME_BYTES_MAX} bytes"),
                _ if roles[..at].contains(role) => format!("role {role:?} is given twice"),
                _ => continue,
            };
            return Err(SettingError::new(format!("readers: {problem}")));
        }
        Ok(Self(roles))
    }

    /// The roles.
    pub fn roles(&self) -> &[String] {
        &self.0
    }

    /// Refuses roles for a store that has none.
    ///
    /// # Errors
    /// What to do instead.
    pub fn check_store(&self, url: &StoreUrl) -> Result<(), SettingError> {
        match url {
            StoreUrl::Sqlite(_) if !self.0.is_empty() => Err(SettingError::new(
                "[store] readers: SQLite knows no roles: who may read the file may read all of it; leave readers out, or store in a Postgres",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_role_has_are_refused() {
        let long = "r".repeat(64);
        for (roles, says) in [
            (&[][..], "expected at least one role"),
            (&[""], "may not be empty"),
            (&["a", "public"], "everybody"),
            (&["a\0"], "no NUL"),
            (&[&*long], "more than 63 bytes"),
            (&["a", "b", "a"], "role \"a\" is given twice"),
        ] {
            let refused = Readers::new(roles.iter().copied()).expect_err(says).to_string();
            assert!(refused.starts_with("readers: ") && refused.contains(says), "{refused}");
        }
        assert_eq!(Readers::new(["Grafana-1"]).expect("a role").roles(), ["Grafana-1"]);
    }
}
