//! What a pipeline says of its store.
//!
//! `run` hands these settings on whole: a new key of `[store]` is one of this room and of `config`.

use std::path::Path;

use super::readers::Readers;
use super::url::{StoreUrl, StoreUrlError};
use crate::model::setting::SettingError;

/// Where state is stored, and what the store is asked for beside that.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreConfig {
    /// Where; none if nothing says so: see [`StoreConfig::url_of`].
    pub url: Option<StoreUrl>,
    /// Who may read the tables, in a store that has roles. Defaults to nobody else.
    pub readers: Readers,
    /// Whether who listens is told of each batch, in a store that can. Defaults to false.
    pub notify: bool,
}

impl StoreConfig {
    /// Where a pipeline of that name stores whose file lies in `folder`: at its address, else in `sqlite:<name>.db` there.
    ///
    /// # Errors
    /// It has no address, and this build has no SQLite.
    pub fn url_of(&self, pipeline: &str, folder: &Path) -> Result<StoreUrl, StoreUrlError> {
        match &self.url {
            Some(url) => Ok(url.clone()),
            None => StoreUrl::parse(&format!("sqlite:{pipeline}.db"), folder),
        }
    }

    /// Refuses what a store cannot do that the file names itself. If it names none, the environment may name one.
    pub(crate) fn check_file(&self) -> Result<(), SettingError> {
        self.url.as_ref().map_or(Ok(()), |url| self.check(url))
    }

    /// Refuses what the store at that address cannot do.
    pub(crate) fn check(&self, url: &StoreUrl) -> Result<(), SettingError> {
        self.readers.check_store(url)?;
        url.check_notify(self.notify)
    }
}
