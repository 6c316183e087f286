//! A file for those who only publish: `name`, `[snapshots]` and `[seed]`. A pipeline file will do too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::log::read_log;
use super::reading::{ConfigError, Section};
use super::snapshots::{self, read_snapshots};
use super::{Config, PipelineText, SnapshotsConfig, StoreConfig, read_file};
use crate::model::limits::{SEED_LOCK, SEED_LOCK_MIN, SEED_TIMEOUT};
use crate::model::schema::check_pipeline_name;
use crate::model::setting::SettingError;

/// `[seed]`: how `forebay seed` runs its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeedConfig {
    /// How long the lock lasts if nobody renews it. Defaults to 15 minutes.
    pub lock: Duration,
    /// How long the command may take. Defaults to 10 minutes.
    pub timeout: Duration,
}

impl Default for SeedConfig {
    fn default() -> Self {
        Self { lock: SEED_LOCK, timeout: SEED_TIMEOUT }
    }
}

/// What publishing needs of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishConfig {
    /// The file itself.
    pub file: PathBuf,
    /// The pipeline's name.
    pub name: String,
    /// `[snapshots]`.
    pub snapshots: SnapshotsConfig,
    /// `[seed]`.
    pub seed: SeedConfig,
    /// `[store]` of a pipeline file; none if the file is no pipeline's.
    pub store: Option<StoreConfig>,
}

impl PublishConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, or says something that is not understood.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(file, &read_file(file)?)
    }

    /// Checks the text of a file that would lie at `file`.
    ///
    /// # Errors
    /// The text says something that is not understood.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let document = PipelineText::new(file, text);
        let mut root = document.root(&["name", "snapshots", "seed", "log"])?;
        if ["source", "entities", "handlers", "store"].iter().any(|key| root.has(key)) {
            let Config { file, name, snapshots, seed, store, .. } = Config::parse(file, text)?;
            return Ok(Self { file, name, snapshots, seed, store: Some(store) });
        }
        let name_at = root.required("name", "a name such as \"risk\"")?;
        let name = name_at.text()?;
        check_pipeline_name(&name).map_err(|error| name_at.error(error))?;
        let config = Self {
            file: file.to_owned(),
            name,
            snapshots: read_snapshots(root.section("snapshots", &snapshots::KEYS)?, document.folder(), false)?,
            seed: read_seed(root.section("seed", &SEED_KEYS)?)?,
            store: None,
        };
        read_log(root.section("log", &["level"])?)?;
        root.finish()?;
        Ok(config)
    }
}

/// The keys of `[seed]`.
pub(super) const SEED_KEYS: [&str; 2] = ["lock", "timeout"];

pub(super) fn read_seed(mut section: Section<'_, '_>) -> Result<SeedConfig, ConfigError> {
    let default = SeedConfig::default();
    let seed = SeedConfig {
        lock: section.optional("lock").map_or(Ok(default.lock), |value| {
            let span = value.duration()?;
            SettingError::unless_short("lock", span, SEED_LOCK_MIN).map_err(|error| value.error(error))
        })?,
        timeout: section.optional("timeout").map_or(Ok(default.timeout), |value| value.duration())?,
    };
    section.finish()?;
    Ok(seed)
}
