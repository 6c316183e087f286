//! The pipeline file, read and checked.
//!
//! Every error names the file, the line and the column, and says what was expected; a misspelt key names the nearest
//! known one. Paths in the file are taken from the file's folder.

mod command;
mod entities;
mod examine;
mod field_types;
mod kafka;
mod log;
mod memory;
mod publishing;
mod reading;
mod reload;
mod snapshots;
mod source;
mod stream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::model::field_type::{FieldType, FieldTypes, TimeUnit};
pub use crate::model::quarantine::{ErrorsConfig, OnEvent};
pub use crate::model::units::{parse_bytes, parse_duration};
use entities::read_entities;
pub use log::LogLevel;
use log::read_log;
pub use publishing::{PublishConfig, SeedConfig};
use publishing::{SEED_KEYS, read_seed};
pub use reading::{ConfigError, folder_of};
use reading::{PipelineText, Section};
pub use reload::ReloadRefused;
use snapshots::read_snapshots;
use source::{SOURCE_KEYS, read_source};

use crate::model::limits::{BATCH_EVENTS, FILE_BYTES_MAX, HANDLER_TIMEOUT, MEMORY_BYTES_MIN};
use crate::model::schema::{Schema, check_pipeline_name};
use crate::model::setting::SettingError;
use crate::model::text::shown_path;
use crate::model::whole_text::read_text;
pub use crate::publish::SnapshotsConfig;
pub use crate::source::{RegionsConfig, SourceConfig};
pub use crate::store::StoreConfig;
use crate::store::{Readers, StoreUrl};

/// The handlers of a pipeline file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlersConfig {
    /// The script.
    pub script: PathBuf,
    /// How long one call may take. Defaults to 5 s.
    pub timeout: Duration,
}

/// When a batch is sealed, and how much memory may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchConfig {
    /// Events of a batch to aim for. Defaults to 10,000.
    pub events: u64,
    /// Bytes for staged and cached rows and what is read ahead. Defaults to 512 MiB, or to a half of what the control
    /// group of the process lets it have, if that is less; but to 16 MiB at least.
    pub memory_bytes: u64,
}

impl BatchConfig {
    /// Events of a batch to aim for.
    ///
    /// # Errors
    /// None are not enough.
    pub fn with_events(self, events: u64) -> Result<Self, SettingError> {
        Ok(Self { events: SettingError::unless_zero("events", events)?, ..self })
    }

    /// Bytes for staged and cached rows and what is read ahead. A script needs 16 MiB of them; handlers in
    /// Rust are slower with fewer, and no batch is wrong.
    ///
    /// # Errors
    /// None are not enough.
    pub fn with_memory_bytes(self, bytes: u64) -> Result<Self, SettingError> {
        Ok(Self { memory_bytes: SettingError::unless_zero("memory", bytes)?, ..self })
    }
}

/// What the control groups of this process let it have, in bytes; none if they set no limit. For messages.
#[doc(hidden)]
pub fn memory_limit_bytes() -> Option<u64> {
    memory::limit_bytes()
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { events: BATCH_EVENTS, memory_bytes: memory::default_bytes() }
    }
}

/// A pipeline file, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The file itself.
    pub file: PathBuf,
    /// The pipeline's name.
    pub name: String,
    /// `[source]`.
    pub source: SourceConfig,
    /// `[regions]`.
    pub regions: RegionsConfig,
    /// `[entities.*]`.
    pub schema: Schema,
    /// `[handlers]`.
    pub handlers: HandlersConfig,
    /// `[batch]`.
    pub batch: BatchConfig,
    /// `[errors]`.
    pub errors: ErrorsConfig,
    /// `[rollback] depth`: how many block numbers back a rollback can go. Defaults to 0.
    pub rollback_depth: u64,
    /// `[store]`.
    pub store: StoreConfig,
    /// `[snapshots]`.
    pub snapshots: SnapshotsConfig,
    /// `[seed]`.
    pub seed: SeedConfig,
    /// `[log] level`: how much a run tells. Defaults to what the command line says.
    pub log_level: Option<LogLevel>,
    /// Every key of the file, with its value.
    keys: BTreeMap<String, String>,
}

impl Config {
    /// Reads and checks a pipeline file.
    ///
    /// # Errors
    /// The file cannot be read, or says something that is not understood.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(file, &read_file(file)?)
    }

    /// Checks the text of a pipeline file that would lie at `file`.
    ///
    /// # Errors
    /// The text says something that is not understood.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let document = PipelineText::new(file, text);
        let mut root = document.root(&[
            "name",
            "source",
            "regions",
            "entities",
            "handlers",
            "batch",
            "errors",
            "rollback",
            "store",
            "snapshots",
            "seed",
            "log",
        ])?;
        let name_at = root.required("name", "a name such as \"quakes\"")?;
        let name = name_at.text()?;
        check_pipeline_name(&name).map_err(|error| name_at.error(error))?;
        let rollback_depth = read_rollback(root.section("rollback", &["depth"])?)?;
        let store = read_store(root.section("store", &["url", "readers", "notify"])?, document.folder())?;
        let config = Self {
            file: file.to_owned(),
            source: read_source(root.section("source", &SOURCE_KEYS)?, document.folder(), rollback_depth)?,
            regions: read_regions(root.section("regions", &["ids", "all"])?)?,
            schema: read_entities(&mut root)?,
            handlers: read_handlers(root.required_section("handlers", &["script", "timeout"])?, document.folder())?,
            batch: read_batch(root.section("batch", &["events", "memory"])?)?,
            errors: read_errors(root.section("errors", &["on_event", "max"])?)?,
            rollback_depth,
            store,
            snapshots: read_snapshots(root.section("snapshots", &snapshots::KEYS)?, document.folder(), true)?,
            seed: read_seed(root.section("seed", &SEED_KEYS)?)?,
            log_level: read_log(root.section("log", &["level"])?)?,
            keys: document.keys(),
            name,
        };
        root.finish()?;
        Ok(config)
    }

    /// The folder that relative paths of the file are taken from.
    pub fn folder(&self) -> &Path {
        reading::folder_of(&self.file)
    }
}

fn read_file(file: &Path) -> Result<String, ConfigError> {
    std::fs::File::open(file)
        .and_then(|open| read_text(open, FILE_BYTES_MAX))
        .map_err(|error| ConfigError::of_reading(file, cannot_read(&error), error))
}

fn cannot_read(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file; `forebay init DIR` makes a working one".into(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text; expected a pipeline file in TOML".into(),
        std::io::ErrorKind::IsADirectory => "it is a folder; expected a pipeline file in TOML".into(),
        std::io::ErrorKind::FileTooLarge => format!("{error}; expected a pipeline file in TOML"),
        _ => format!("it cannot be read: {error}"),
    }
}

fn read_regions(mut section: Section<'_, '_>) -> Result<RegionsConfig, ConfigError> {
    let mut config = RegionsConfig::default();
    if let Some(ids) = section.optional("ids") {
        config = config.with_ids(ids.texts()?).map_err(|error| ids.error(error))?;
    }
    config.all = section.optional("all").map(|value| value.non_empty()).transpose()?;
    section.finish()?;
    Ok(config)
}

fn read_handlers(mut section: Section<'_, '_>, folder: &Path) -> Result<HandlersConfig, ConfigError> {
    let script_at = section.required("script", "the handlers' script, such as \"handlers.lua\"")?;
    let script = folder.join(script_at.non_empty()?);
    if !script.is_file() {
        return Err(script_at.error(format!("script: there is no file {}", shown_path(&script))));
    }
    let timeout = section.optional("timeout").map_or(Ok(HANDLER_TIMEOUT), |value| value.duration())?;
    section.finish()?;
    Ok(HandlersConfig { script, timeout })
}

fn read_batch(mut section: Section<'_, '_>) -> Result<BatchConfig, ConfigError> {
    let events = section.optional("events").map_or(Ok(BATCH_EVENTS), |value| value.count("events"))?;
    let memory_bytes = match section.optional("memory") {
        None => memory::default_bytes(),
        Some(value) => {
            let bytes = value.bytes()?;
            if bytes < MEMORY_BYTES_MIN {
                return Err(value.error(format!("memory: expected at least {} MiB", MEMORY_BYTES_MIN >> 20)));
            }
            bytes
        }
    };
    section.finish()?;
    Ok(BatchConfig { events, memory_bytes })
}

fn read_errors(mut section: Section<'_, '_>) -> Result<ErrorsConfig, ConfigError> {
    let mut errors = ErrorsConfig::default();
    if let Some(value) = section.optional("on_event") {
        errors = errors.with_on_event(&value.text()?).map_err(|error| value.error(error))?;
    }
    if let Some(value) = section.optional("max") {
        let max = value.integer()?;
        errors.max = u64::try_from(max)
            .map_err(|_| value.error(format!("max: expected a number of events, 0 or more, got {max}")))?;
    }
    section.finish()?;
    Ok(errors)
}

fn read_rollback(mut section: Section<'_, '_>) -> Result<u64, ConfigError> {
    let depth = match section.optional("depth") {
        None => 0,
        Some(value) => {
            let depth = value.integer()?;
            u64::try_from(depth)
                .map_err(|_| value.error(format!("depth: expected a number of blocks, 0 or more, got {depth}")))?
        }
    };
    section.finish()?;
    Ok(depth)
}

fn read_store(mut section: Section<'_, '_>, folder: &Path) -> Result<StoreConfig, ConfigError> {
    let mut config = StoreConfig::default();
    if let Some(value) = section.optional("url") {
        let url = StoreUrl::parse(&value.non_empty()?, folder);
        config.url = Some(url.map_err(|error| value.error(format!("url: {error}")))?);
    }
    if let Some(value) = section.optional("readers") {
        let roles = if value.is_list() { value.texts()? } else { vec![value.text_or("a role, or a list of them")?] };
        config.readers = Readers::new(roles).map_err(|error| value.error(error))?;
        config.check_file().map_err(|error| value.error(error))?;
    }
    if let Some(value) = section.optional("notify") {
        config.notify = value.boolean()?;
        config.check_file().map_err(|error| value.error(error))?;
    }
    section.finish()?;
    Ok(config)
}
