//! Where snapshots are: a target or a store, from options, the environment and a pipeline file, in this order.

use std::collections::HashMap;
use std::path::Path;

use forebay::Timestamp;
use forebay::config::{PublishConfig, SnapshotsConfig, parse_duration};
use forebay::publish::{self, LatestInTarget, PublishError, TargetReader, TargetUrl};
use forebay::store::{SnapshotReader, StoreError, StoreUrl, StoreUrlError, StoredSnapshot, open_snapshots};

use super::addresses::{self, Given};
use super::args::SnapshotPlace;
use super::exit::{Code, Failure};
use super::out::{plain, shown_path};
use super::usage;

/// The name of a pipeline that was given none.
pub(super) const DEFAULT_PIPELINE: &str = "default";

/// Reads snapshots from wherever they are.
pub(super) enum SnapshotStore {
    Target(Box<dyn TargetReader>),
    Store(Box<dyn SnapshotReader>),
}

/// Is told of a region: its newest snapshot, none if it has none, or why it could not be read.
pub(super) type TellRegion<'a> = dyn FnMut(&str, Result<Option<StoredSnapshot>, String>) + Send + 'a;

/// Why snapshots could not be read.
pub(super) enum ReadError {
    Target(PublishError),
    Store(StoreError),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Target(error) => error.into(),
            ReadError::Store(error) => error.into(),
        }
    }
}

impl From<PublishError> for ReadError {
    fn from(error: PublishError) -> Self {
        Self::Target(error)
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl SnapshotStore {
    /// The newest snapshots, and what is said of regions that could not be read.
    pub(super) fn latest(
        &mut self,
        pipeline: &str,
        regions: &[String],
    ) -> Result<(Vec<StoredSnapshot>, Vec<String>), ReadError> {
        Ok(match self {
            Self::Target(reader) => {
                let LatestInTarget { found, refused, .. } = reader.latest(regions)?;
                (found, refused.into_iter().map(|(region, error)| format!("{}: {error}", plain(&region))).collect())
            }
            Self::Store(reader) => (reader.latest(pipeline, regions)?, Vec::new()),
        })
    }

    /// The newest snapshots of those regions, in their order, each handed on as soon as it is there: or what is said of one
    /// that could not be read.
    pub(super) fn latest_in_order(
        &mut self,
        pipeline: &str,
        regions: &[String],
        tell: &mut TellRegion<'_>,
    ) -> Result<(), ReadError> {
        match self {
            Self::Target(reader) => reader.latest_in_order(regions, &mut |region, outcome| {
                tell(region, outcome.map_err(|error| error.to_string()));
            })?,
            Self::Store(reader) => {
                let found = reader.latest(pipeline, regions)?;
                let of_region: HashMap<&str, &StoredSnapshot> =
                    found.iter().map(|snapshot| (snapshot.region.as_str(), snapshot)).collect();
                for region in regions {
                    tell(region, Ok(of_region.get(region.as_str()).copied().cloned()));
                }
            }
        }
        Ok(())
    }

    pub(super) fn history(
        &mut self,
        pipeline: &str,
        region: &str,
        limit: usize,
        since: Option<Timestamp>,
    ) -> Result<Vec<StoredSnapshot>, ReadError> {
        Ok(match self {
            Self::Target(reader) => reader.history(region, limit, since)?,
            Self::Store(reader) => {
                reader.history(pipeline, region, limit, since.map(Timestamp::to_millis_text).as_deref())?
            }
        })
    }

    pub(super) fn show(&mut self, pipeline: &str, id: &str) -> Result<Option<StoredSnapshot>, ReadError> {
        Ok(match self {
            Self::Target(reader) => reader.show(id)?,
            Self::Store(reader) => reader.show(pipeline, id)?,
        })
    }
}

/// Opens the place that the arguments name; returns the pipeline too.
pub(super) fn open(place: &SnapshotPlace) -> Result<(SnapshotStore, String), Failure> {
    let config = place.config.as_ref().map(|file| PublishConfig::read(file)).transpose()?;
    match addresses::of_option(place.snapshots.as_ref(), "--snapshots") {
        Some(given) if TargetUrl::is_meant(&given.text) => open_target(given.target()?, place, config.as_ref()),
        Some(given) => open_store(&store_or_target(&given)?, place, config.as_ref()),
        None => match &config {
            Some(config) => open_of_config(place, config),
            None => open_of_environment(place),
        },
    }
}

/// Where a pipeline file says that its snapshots are. `REDIS_URL` counts if the file has an address in [snapshots], or if
/// its store is not here.
fn open_of_config(place: &SnapshotPlace, config: &PublishConfig) -> Result<(SnapshotStore, String), Failure> {
    if let Some(url) = addresses::target(None, config)? {
        return open_target(url, place, Some(config));
    }
    if config.store.is_none() && addresses::database_variable()?.is_none() {
        // A file for those who publish, without an address in it.
        return match addresses::target_variable()? {
            Some(given) => open_target(given.target()?, place, Some(config)),
            None => {
                let file = shown_path(&config.file);
                let form = TargetUrl::FORMS[0].full;
                Err(usage(format!("{file}: it names no [snapshots] url; give --snapshots {form}, or REDIS_URL")))
            }
        };
    }
    let url = addresses::store(None, config)?;
    match (open_snapshots(&url), addresses::target_variable()?) {
        (Err(StoreError::Missing { store }), Some(given)) => {
            let target = given.target()?;
            tracing::info!("there is no {store}; reading from {target} ({})", given.by);
            open_target(target, place, Some(config))
        }
        (opened, _) => of_store(opened?, place, Some(config)),
    }
}

fn open_of_environment(place: &SnapshotPlace) -> Result<(SnapshotStore, String), Failure> {
    match (addresses::target_variable()?, addresses::database_variable()?) {
        (Some(target), _) => open_target(target.target()?, place, None),
        (None, Some(database)) => open_store(&database.store()?, place, None),
        (None, None) => {
            Err(usage("where are the snapshots? give --config PIPELINE.toml, or --snapshots URL and --pipeline NAME"))
        }
    }
}

/// The store of an address that may have been meant for a target.
fn store_or_target(given: &Given) -> Result<StoreUrl, Failure> {
    StoreUrl::parse(&given.text, Path::new("")).map_err(|error| {
        let or_target = match error {
            StoreUrlError::Scheme => format!(", or {}", TargetUrl::FORMS[0].example),
            _ => String::new(),
        };
        usage(format!("{}: {error}{or_target}", given.by))
    })
}

/// Refuses a name that would not be told apart in the keys.
pub(super) fn check_name(name: &str) -> Result<(), Failure> {
    let is_fit = |character: char| !character.is_control() && !"{}:".contains(character);
    match !name.is_empty() && name.chars().all(is_fit) {
        true => Ok(()),
        false => Err(usage(format!("--pipeline: expected a name without braces and colons, got {name:?}"))),
    }
}

fn open_target(
    url: TargetUrl,
    place: &SnapshotPlace,
    config: Option<&PublishConfig>,
) -> Result<(SnapshotStore, String), Failure> {
    let name = config.map(|config| config.name.clone()).or_else(|| place.pipeline.clone());
    let name = name.unwrap_or_else(|| DEFAULT_PIPELINE.to_owned());
    check_name(&name)?;
    let snapshots = config.map_or_else(SnapshotsConfig::default, |config| config.snapshots.clone());
    let reader = publish::open_reader(snapshots.publish_plan(&name, url));
    Ok((SnapshotStore::Target(reader.map_err(|error| usage(format!("snapshots: {error}")))?), name))
}

fn open_store(
    url: &StoreUrl,
    place: &SnapshotPlace,
    config: Option<&PublishConfig>,
) -> Result<(SnapshotStore, String), Failure> {
    of_store(open_snapshots(url)?, place, config)
}

fn of_store(
    mut reader: Box<dyn SnapshotReader>,
    place: &SnapshotPlace,
    config: Option<&PublishConfig>,
) -> Result<(SnapshotStore, String), Failure> {
    let name = match config.map(|config| config.name.clone()).or_else(|| place.pipeline.clone()) {
        Some(name) => known(reader.as_mut(), name)?,
        None => only(reader.as_mut())?,
    };
    Ok((SnapshotStore::Store(reader), name))
}

fn known(reader: &mut dyn SnapshotReader, name: String) -> Result<String, Failure> {
    let pipelines = reader.pipelines()?;
    if pipelines.contains(&name) {
        return Ok(name);
    }
    Err(Failure::new(Code::Failed, format!("the store knows no pipeline {name}; it has {}", list(&pipelines))))
}

fn only(reader: &mut dyn SnapshotReader) -> Result<String, Failure> {
    let mut pipelines = reader.pipelines()?;
    match (pipelines.pop(), pipelines.is_empty()) {
        (Some(name), true) => Ok(name),
        (Some(last), false) => {
            pipelines.push(last);
            Err(usage(format!("which pipeline? give --pipeline NAME; the store has {}", list(&pipelines))))
        }
        (None, _) => Err(Failure::new(Code::Failed, "the store has no pipeline yet")),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// The time that `--since` names.
pub(super) fn since(text: &str) -> Result<Timestamp, Failure> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let refused = || {
        usage(format!("--since: expected a time such as 2026-01-31T12:00:00Z or a duration such as 2h, got {text:?}"))
    };
    let span = parse_duration(text).map_err(|_| refused())?;
    Ok(Timestamp::now().saturating_sub(span))
}
