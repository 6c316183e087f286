//! How documents are published: what is given as an option before what the file says.

use std::time::Duration;

use forebay::config::{PublishConfig, SnapshotsConfig};
use forebay::limits::PUBLISH_POOL_MAX;
use forebay::publish::{DedupRule, FieldPath, HealthFields, Keys, PublishError, PublishPlan, TargetUrl};
use serde_json::Value as Json;

use super::addresses;
use super::args::Publishing;
use super::exit::{Code, Failure};
use super::place::{DEFAULT_PIPELINE, check_name};
use super::usage;

/// What is to be published, and how.
pub(super) struct Settings {
    pub(super) plan: PublishPlan,
    pub(super) region_field: FieldPath,
    pub(super) dedup: DedupRule,
}

impl Settings {
    pub(super) fn new(args: &Publishing, config: Option<&PublishConfig>) -> Result<Self, Failure> {
        let mut snapshots = config.map_or_else(SnapshotsConfig::default, |config| config.snapshots.clone());
        let url = addresses::any_target(args.snapshots.as_ref(), config.map(Into::into))?.ok_or_else(|| {
            let form = TargetUrl::FORMS[0].full;
            usage(format!("publish where? give --snapshots {form}, REDIS_URL, or --config with [snapshots] url"))
        })?;
        let name = config.map(|config| config.name.as_str()).or(args.pipeline.as_deref()).unwrap_or(DEFAULT_PIPELINE);
        check_name(name)?;
        set_fields(&mut snapshots, args)?;
        set_keys(&mut snapshots, args)?;
        snapshots.dedup_rule = dedup_rule(snapshots.dedup_rule, args)?;
        snapshots.ttl = positive(args.ttl, "--ttl")?.unwrap_or(snapshots.ttl);
        snapshots.dedup = args.dedup.unwrap_or(snapshots.dedup);
        snapshots.pool = args.pool.map_or(snapshots.pool, std::num::NonZero::get);
        if snapshots.pool > PUBLISH_POOL_MAX {
            return Err(usage(format!("--pool: expected at most {PUBLISH_POOL_MAX}")));
        }
        let plan = snapshots.publish_plan(name, url);
        let fields = args.summary_field.iter().map(|given| {
            let (name, path) = pair(given, "--summary-field", "regime=meta.regime")?;
            Ok((name.to_owned(), field(path, "--summary-field")?))
        });
        let fields = fields.collect::<Result<Vec<_>, Failure>>()?;
        let plan = if fields.is_empty() { Ok(plan) } else { plan.with_summary_fields(fields) };
        let plan = plan.map_err(|error| usage(format!("--{error}")))?;
        Ok(Self { plan, region_field: snapshots.region_field, dedup: snapshots.dedup_rule })
    }
}

fn set_fields(snapshots: &mut SnapshotsConfig, args: &Publishing) -> Result<(), Failure> {
    if let Some(path) = &args.region_field {
        snapshots.region_field = field(path, "--region-field")?;
    }
    if let Some(path) = &args.id_field {
        snapshots.id_field = Some(field(path, "--id-field")?);
    }
    if let Some(path) = &args.time_field {
        snapshots.time_field = Some(field(path, "--time-field")?);
    }
    Ok(())
}

fn set_keys(snapshots: &mut SnapshotsConfig, args: &Publishing) -> Result<(), Failure> {
    let mut given = Vec::new();
    for key in &args.key {
        let (name, template) = pair(key, "--key", "latest=snapshot:<region>:latest")?;
        let known = Keys::NAMES.iter().find(|known| **known == name);
        let names = || usage(format!("--key: there is no key {name:?}; known are {}", Keys::NAMES.join(", ")));
        given.push((*known.ok_or_else(names)?, template));
    }
    if !given.is_empty() {
        let keys = std::mem::take(&mut snapshots.keys);
        snapshots.keys = keys.and(given).map_err(|error| usage(format!("--key {error}")))?;
    }
    let field = |given: &String| {
        let (name, value) = pair(given, "--health", "fetchedAt=@now_ms")?;
        // A number and a boolean are what they are; all else is a text.
        let json = serde_json::from_str(value).ok().filter(|json: &Json| json.is_number() || json.is_boolean());
        Ok((name.to_owned(), json.unwrap_or_else(|| value.into())))
    };
    let fields = args.health.iter().map(field).collect::<Result<Vec<_>, Failure>>()?;
    if !fields.is_empty() {
        snapshots.health = Some(HealthFields::new(fields).map_err(|error| usage(format!("--{error}")))?);
    }
    match (snapshots.keys.has_health(), snapshots.health.is_some()) {
        (true, false) => {
            Err(usage("--key health: it needs --health, the fields of that key, such as fetchedAt=@now_ms"))
        }
        (false, true) => Err(usage("--health: it needs --key health=…, the key that holds them")),
        _ => Ok(()),
    }
}

fn dedup_rule(mut rule: DedupRule, args: &Publishing) -> Result<DedupRule, Failure> {
    if let Some(ignore) = &args.dedup_ignore {
        rule = rule.with_ignore(ignore);
    }
    if let Some(by) = &args.dedup_by {
        rule = rule.with_by(by.iter().map(|path| field(path, "--dedup-by")).collect::<Result<Vec<_>, _>>()?);
    }
    if let Some(bucket) = positive(args.dedup_bucket, "--dedup-bucket")? {
        if rule.by.is_empty() {
            return Err(usage("--dedup-bucket: it needs --dedup-by, the fields that tell duplicates within a span"));
        }
        rule = rule.with_bucket(bucket);
    }
    Ok(rule)
}

fn pair<'g>(given: &'g str, option: &str, example: &str) -> Result<(&'g str, &'g str), Failure> {
    let pair = given.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.ok_or_else(|| usage(format!("{option}: expected a name, = and a value, such as {example}, got {given:?}")))
}

pub(super) fn field(path: &str, option: &str) -> Result<FieldPath, Failure> {
    FieldPath::new(path)
        .ok_or_else(|| usage(format!("{option}: expected the name of a field, or a path such as meta.id")))
}

pub(super) fn positive(span: Option<Duration>, option: &str) -> Result<Option<Duration>, Failure> {
    match span {
        Some(Duration::ZERO) => Err(usage(format!("{option}: expected a duration above zero"))),
        span => Ok(span),
    }
}

/// Why there is nobody to publish.
pub(super) fn not_ready(error: PublishError) -> Failure {
    match error {
        PublishError::Threads(_) => Failure::new(Code::Failed, error),
        error => usage(format!("snapshots: {error}")),
    }
}
