//! `[snapshots]`: when snapshots are computed, and how they are published.

use std::path::Path;

use super::SnapshotsConfig;
use super::reading::{ConfigError, Item, Section};
use crate::model::limits::PUBLISH_POOL_MAX;
use crate::publish::{DedupRule, FieldPath, HealthFields, Keys, KeysError, TargetUrl, check_summary_field};
use crate::snapshot::Integers;

/// The keys of `[snapshots]`.
pub(super) const KEYS: [&str; 16] = [
    "url",
    "every",
    "ttl",
    "dedup",
    "dedup_ignore",
    "dedup_by",
    "dedup_bucket",
    "integers",
    "keys",
    "health",
    "summary_fields",
    "region_field",
    "id_field",
    "time_field",
    "pool",
    "timeout",
];

/// Reads `[snapshots]`; `is_pipeline`: of a pipeline with handlers, whose documents the store compares.
pub(super) fn read_snapshots(
    mut section: Section<'_, '_>,
    folder: &Path,
    is_pipeline: bool,
) -> Result<SnapshotsConfig, ConfigError> {
    let default = SnapshotsConfig::default();
    let url_at = section.optional("url");
    let url = url_at.as_ref().map(|value| read_url(value, folder)).transpose()?;
    let keys_at = section.optional("keys");
    let keys = keys_at.clone().map_or(Ok(default.keys), read_keys)?;
    let health = section.optional("health").map(|value| read_health(&value, &keys)).transpose()?;
    if let Some(at) = keys_at.as_ref().filter(|_| keys.has_health() && health.is_none()) {
        return Err(at.error("keys.health: it needs [snapshots.health], the fields of that key"));
    }
    let config = SnapshotsConfig {
        url,
        keys,
        health,
        summary_fields: section
            .optional("summary_fields")
            .map_or(Ok(Vec::new()), |value| read_summary_fields(&value))?,
        every: section.optional("every").map_or(Ok(default.every), |value| value.every())?,
        ttl: section.optional("ttl").map_or(Ok(default.ttl), |value| value.duration())?,
        dedup: section.optional("dedup").map_or(Ok(default.dedup), |value| value.duration_or_zero())?,
        dedup_rule: read_dedup_rule(&mut section, is_pipeline)?,
        integers: section.optional("integers").map_or(Ok(default.integers), |value| read_integers(&value))?,
        region_field: section.optional("region_field").map_or(Ok(default.region_field), |value| read_field(&value))?,
        id_field: section.optional("id_field").map(|value| read_field(&value)).transpose()?,
        time_field: section.optional("time_field").map(|value| read_field(&value)).transpose()?,
        pool: section.optional("pool").map_or(Ok(default.pool), |value| read_pool(&value))?,
        timeout: section.optional("timeout").map_or(Ok(default.timeout), |value| value.duration())?,
    };
    if let Some(Err(error)) = config.url.as_ref().map(|url| url.check_keys(&config.keys))
        && let Some(at) = &keys_at
    {
        return Err(at.error(format!("keys: {error}")));
    }
    section.finish()?;
    Ok(config)
}

fn read_integers(value: &Item<'_, '_>) -> Result<Integers, ConfigError> {
    match value.text()?.as_str() {
        "text" => Ok(Integers::Text),
        "number" => Ok(Integers::Number),
        other => Err(value.error(format!("integers: expected \"text\" or \"number\", got {other:?}"))),
    }
}

fn read_url(value: &Item<'_, '_>, folder: &Path) -> Result<TargetUrl, ConfigError> {
    TargetUrl::parse(&value.non_empty()?, folder).map_err(|error| value.error(format!("url: {error}")))
}

fn read_keys(value: Item<'_, '_>) -> Result<Keys, ConfigError> {
    let mut section = value
        .clone()
        .section("a table [snapshots.keys] of names such as latest = \"latest:<region>\"", &Keys::NAMES)?;
    let mut given = Vec::new();
    for name in Keys::NAMES {
        if let Some(item) = section.optional(name) {
            given.push((name, item.text()?, item));
        }
    }
    section.finish()?;
    Keys::with(given.iter().map(|(name, template, _)| (*name, template.as_str()))).map_err(|error: KeysError| {
        let at = given.iter().find(|(name, ..)| *name == error.name).map_or(&value, |(_, _, item)| item);
        at.error(format!("keys.{error}"))
    })
}

fn read_field(value: &Item<'_, '_>) -> Result<FieldPath, ConfigError> {
    FieldPath::new(&value.text()?)
        .ok_or_else(|| value.error("expected the name of a field, or a path to it such as \"meta.snapshot_id\""))
}

fn read_pool(value: &Item<'_, '_>) -> Result<usize, ConfigError> {
    let count = value.count("pool")?;
    let fits = usize::try_from(count).ok().filter(|count| *count <= PUBLISH_POOL_MAX);
    fits.ok_or_else(|| value.error(format!("pool: expected at most {PUBLISH_POOL_MAX}, got {count}")))
}

fn read_dedup_rule(section: &mut Section<'_, '_>, is_pipeline: bool) -> Result<DedupRule, ConfigError> {
    let mut rule = DedupRule::default();
    if let Some(value) = section.optional("dedup_ignore") {
        rule = rule.with_ignore(value.texts()?);
    }
    if let Some(value) = section.optional("dedup_by") {
        if is_pipeline {
            return Err(value.error(
                "dedup_by: the documents of a pipeline with handlers are compared as a whole; expected a file of name and \
                 [snapshots] alone, for publish and seed",
            ));
        }
        let field = |path: &String| {
            FieldPath::new(path).ok_or_else(|| {
                value.error(format!(
                    "dedup_by: expected names of fields, or paths such as \"meta.reason\", got {path:?}"
                ))
            })
        };
        rule = rule.with_by(value.texts()?.iter().map(field).collect::<Result<Vec<_>, _>>()?);
    }
    if let Some(value) = section.optional("dedup_bucket") {
        if rule.by.is_empty() {
            return Err(value.error("dedup_bucket: it needs dedup_by, the fields that tell duplicates within a span"));
        }
        rule = rule.with_bucket(value.duration()?);
    }
    Ok(rule)
}

fn read_health(value: &Item<'_, '_>, keys: &Keys) -> Result<HealthFields, ConfigError> {
    if !keys.has_health() {
        return Err(value.error("health: it needs a key: [snapshots.keys] health"));
    }
    let pairs = value.pairs("a table [snapshots.health] of fields such as fetchedAt = \"@now_ms\"")?;
    let fields = pairs.iter().map(|(name, item)| Ok((name.clone(), item.json()?))).collect::<Result<Vec<_>, _>>()?;
    HealthFields::new(fields).map_err(|error| value.error(error))
}

fn read_summary_fields(value: &Item<'_, '_>) -> Result<Vec<(String, FieldPath)>, ConfigError> {
    let pairs = value.pairs("a table [snapshots.summary_fields] such as regime = \"meta.regime\"")?;
    let field = |(name, item): &(String, Item<'_, '_>)| {
        check_summary_field(name).map_err(|error| item.key_error(error))?;
        Ok((name.clone(), read_field(item)?))
    };
    pairs.iter().map(field).collect()
}
