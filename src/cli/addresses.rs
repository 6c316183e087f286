//! Addresses as they are given: by an option, by a variable of the environment, by the pipeline file, in this order.
//!
//! A variable that wins over the file is told. `REDIS_URL` replaces an address that the file has; it never makes a
//! pipeline publish whose file has none.

use std::path::Path;

use forebay::Config;
use forebay::address::trimmed;
use forebay::config::{PublishConfig, folder_of};
use forebay::publish::TargetUrl;
use forebay::store::{StoreConfig, StoreUrl, StoreUrlError};

use super::exit::Failure;
use super::out::shown_path;
use super::usage;

const STORE: Names = Names { option: "--store", variable: "DATABASE_URL" };
const TARGET: Names = Names { option: "--snapshots", variable: "REDIS_URL" };

struct Names {
    option: &'static str,
    variable: &'static str,
}

/// An address that was given, and by what.
pub(super) struct Given {
    pub(super) text: String,
    pub(super) by: &'static str,
}

impl Given {
    pub(super) fn store(&self) -> Result<StoreUrl, Failure> {
        StoreUrl::parse(&self.text, Path::new("")).map_err(|error| usage(format!("{}: {error}", self.by)))
    }

    pub(super) fn target(&self) -> Result<TargetUrl, Failure> {
        TargetUrl::parse(&self.text, Path::new("")).map_err(|error| usage(format!("{}: {error}", self.by)))
    }
}

/// What an option holds, unless it is blank.
pub(super) fn of_option(value: Option<&String>, by: &'static str) -> Option<Given> {
    let text = value.map(|value| trimmed(value)).filter(|text| !text.is_empty())?;
    Some(Given { text: text.to_owned(), by })
}

/// What a variable of the environment holds, unless it is blank.
fn of_variable(by: &'static str) -> Result<Option<Given>, Failure> {
    match std::env::var(by) {
        Ok(text) => Ok(of_option(Some(&text), by)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(usage(format!("{by}: it is not UTF-8; expected an address"))),
    }
}

/// `DATABASE_URL`.
pub(super) fn database_variable() -> Result<Option<Given>, Failure> {
    of_variable(STORE.variable)
}

/// `REDIS_URL`.
pub(super) fn target_variable() -> Result<Option<Given>, Failure> {
    of_variable(TARGET.variable)
}

/// The addresses that a file names.
#[derive(Clone, Copy)]
pub(super) struct InFile<'c> {
    file: &'c Path,
    name: &'c str,
    store: Option<&'c StoreConfig>,
    target: Option<&'c TargetUrl>,
}

impl<'c> From<&'c Config> for InFile<'c> {
    fn from(config: &'c Config) -> Self {
        let Config { file, name, store, snapshots, .. } = config;
        Self { file, name, store: Some(store), target: snapshots.url.as_ref() }
    }
}

impl<'c> From<&'c PublishConfig> for InFile<'c> {
    fn from(config: &'c PublishConfig) -> Self {
        let PublishConfig { file, name, store, snapshots, .. } = config;
        Self { file, name, store: store.as_ref(), target: snapshots.url.as_ref() }
    }
}

impl InFile<'_> {
    fn store(&self) -> Result<StoreUrl, StoreUrlError> {
        self.store.ok_or(StoreUrlError::Scheme)?.url_of(self.name, folder_of(self.file))
    }
}

/// The store of a pipeline.
pub(super) fn store<'c>(option: Option<&String>, config: impl Into<InFile<'c>>) -> Result<StoreUrl, Failure> {
    let config = config.into();
    let in_file = config.store();
    if let Some(given) = of_option(option, STORE.option) {
        return given.store();
    }
    match database_variable()? {
        Some(given) => {
            let url = given.store()?;
            if in_file.as_ref().is_ok_and(|in_file| *in_file != url) {
                tell_replaced(&given, &url, &in_file.map_or_else(|_| String::new(), |in_file| in_file.to_string()));
            }
            Ok(url)
        }
        None => in_file.map_err(|error| usage(format!("{}: store.url: {error}", shown_path(config.file)))),
    }
}

/// The store that is named without a file: by the option, else by the environment.
pub(super) fn any_store(option: Option<&String>) -> Result<Option<StoreUrl>, Failure> {
    match of_option(option, STORE.option) {
        Some(given) => given.store().map(Some),
        None => database_variable()?.map(|given| given.store()).transpose(),
    }
}

/// Where a pipeline publishes; none if neither an option nor its file names one.
pub(super) fn target<'c>(option: Option<&String>, config: impl Into<InFile<'c>>) -> Result<Option<TargetUrl>, Failure> {
    if let Some(given) = of_option(option, TARGET.option) {
        return given.target().map(Some);
    }
    let Some(in_file) = config.into().target else { return Ok(None) };
    match target_variable()? {
        Some(given) => Ok(Some(target_instead(&given, in_file)?)),
        None => Ok(Some(in_file.clone())),
    }
}

/// Where to publish, where that is needed: at the address of [`target()`], else at that of the environment.
pub(super) fn any_target(option: Option<&String>, config: Option<InFile<'_>>) -> Result<Option<TargetUrl>, Failure> {
    let of_config = config.map(|config| target(option, config)).transpose()?.flatten();
    match of_config {
        Some(url) => Ok(Some(url)),
        None => match of_option(option, TARGET.option) {
            Some(given) => given.target().map(Some),
            None => target_variable()?.map(|given| given.target()).transpose(),
        },
    }
}

fn target_instead(given: &Given, in_file: &TargetUrl) -> Result<TargetUrl, Failure> {
    let url = given.target()?;
    if url != *in_file {
        tell_replaced(given, &url, &in_file.to_string());
    }
    Ok(url)
}

/// Says that a variable wins over the pipeline file. No address shows its password.
fn tell_replaced(given: &Given, url: &impl std::fmt::Display, in_file: &str) {
    tracing::info!("{} is set: {url} instead of {in_file}, which the pipeline file says", given.by);
}

/// Says that `REDIS_URL` alone publishes nothing, where somebody may expect it.
pub(super) fn tell_unused_variable(option: Option<&String>, config: &Config) {
    let is_given = || target_variable().is_ok_and(|given| given.is_some());
    if of_option(option, TARGET.option).is_none() && config.snapshots.url.is_none() && is_given() {
        tracing::info!(
            "REDIS_URL is set, and nothing is published: the pipeline file has no [snapshots] url; give it there, or --snapshots"
        );
    }
}
