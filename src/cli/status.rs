//! `forebay status`: how a pipeline stands, in its store and in Redis.

use std::collections::BTreeMap;
use std::path::Path;

use forebay::Config;
use forebay::publish::{LatestInRedis, PublishError, RedisSnapshots};
use forebay::store::{PipelineStatus, RegionStatus, StoreError, StoreUrl, StoredSnapshot, open_snapshots};
use serde_json::{Value as Json, json};

use super::args::{Global, Status};
use super::exit::{Code, Failure};
use super::out::{age, count, counted, plain, print_lines, seconds_since, set};

/// How one region's snapshot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InRedisState {
    /// It holds all of the region's events, and is kept.
    Fresh,
    /// The region has had events since, or it is older than its time to live.
    Stale,
    /// There is none.
    Missing,
    /// Redis does not have it, or has an older one.
    Unpublished,
    /// The handlers make none.
    None,
}

impl InRedisState {
    fn of(region: &RegionStatus, has_snapshots: bool, ttl_seconds: i64, redis: Option<&InRedis>) -> Self {
        let is_unpublished = |snapshot: &StoredSnapshot| redis.is_some_and(|redis| redis.lacks(snapshot));
        match &region.snapshot {
            _ if !has_snapshots => Self::None,
            // A handler may have nothing to say of a region.
            None if region.snapshot_block.is_some_and(|covered| covered >= region.block) => Self::None,
            None => Self::Missing,
            Some(snapshot) if age_seconds(snapshot).is_some_and(|age| age > ttl_seconds) => Self::Stale,
            Some(snapshot) if is_unpublished(snapshot) => Self::Unpublished,
            Some(_) if region.snapshot_block.is_none_or(|covered| covered < region.block) => Self::Stale,
            Some(_) => Self::Fresh,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Missing => "missing",
            Self::Unpublished => "unpublished",
            Self::None => "none",
        }
    }

    fn is_healthy(self) -> bool {
        matches!(self, Self::Fresh | Self::None)
    }
}

fn age_seconds(snapshot: &StoredSnapshot) -> Option<i64> {
    snapshot.generated_at.as_deref().map(seconds_since)
}

/// What Redis has.
struct InRedis {
    newest: BTreeMap<String, StoredSnapshot>,
    /// Whether ids there are the store's, and can be compared.
    has_ids_of_store: bool,
    /// Whether it answered.
    is_known: bool,
}

pub(super) fn status(args: &Status, global: &Global) -> Result<Code, Failure> {
    let config = Config::read(&args.pipeline)?;
    let url = match set(args.servers.store.as_ref()) {
        Some(url) => StoreUrl::parse(url, Path::new("")),
        None => StoreUrl::parse(&config.store_url, config.folder()),
    };
    let redis = redis(args, &config)?;
    let reader = open_snapshots(&url.map_err(|error| super::usage(format!("--store or DATABASE_URL: {error}")))?);
    let mut reader = match (reader, &redis) {
        // Only readers' side of it is here.
        (Err(StoreError::Missing { .. }), Some(reader)) => return of_redis(reader, args, global, &config),
        (Err(StoreError::Missing { .. }), None) if args.json => {
            print_lines([nothing_as_json(&config.name)])?;
            return Ok(Code::Failed);
        }
        (opened, _) => opened?,
    };
    let found = reader.status(&config.name)?;
    let Some(status) = found.filter(|status| status.checkpoint.block.is_some()) else {
        if args.json {
            print_lines([nothing_as_json(&config.name)])?;
        }
        return Err(Failure::new(Code::Failed, format!("pipeline {} has not committed anything yet", config.name)));
    };
    let names: Vec<String> = status.regions.iter().map(|region| region.region.clone()).collect();
    let asked = redis.filter(|_| status.has_snapshots && !names.is_empty()).map(|redis| redis.latest(&names));
    let (in_redis, failure) = match asked {
        None => (None, None),
        Some(Ok(latest)) => (Some(InRedis::new(latest, config.snapshots.id_field.is_none())), None),
        Some(Err(error)) => (Some(InRedis::unknown()), Some(error)),
    };
    let ttl = ttl_seconds(&config);
    let states: Vec<InRedisState> = status
        .regions
        .iter()
        .map(|region| InRedisState::of(region, status.has_snapshots, ttl, in_redis.as_ref()))
        .collect();
    let is_healthy = failure.is_none() && states.iter().all(|state| state.is_healthy());
    let lines = if args.json {
        vec![as_json(&config.name, &status, &states, in_redis.as_ref(), is_healthy).to_string()]
    } else {
        as_lines(&config.name, &status, &states)
    };
    if args.json || !global.quiet {
        print_lines(lines)?;
    }
    tell(failure);
    Ok(if is_healthy { Code::Done } else { Code::Failed })
}

fn tell(failure: Option<PublishError>) {
    if let Some(error) = failure {
        tracing::error!("what Redis has is not known: {error}");
    }
}

fn ttl_seconds(config: &Config) -> i64 {
    i64::try_from(config.snapshots.ttl.as_secs()).unwrap_or(i64::MAX)
}

impl InRedis {
    fn new(latest: LatestInRedis, has_ids_of_store: bool) -> Self {
        for (region, error) in &latest.refused {
            tracing::error!("{}: {error}", plain(region));
        }
        let newest = latest.found.into_iter().map(|snapshot| (snapshot.region.clone(), snapshot)).collect();
        Self { newest, has_ids_of_store, is_known: true }
    }

    fn unknown() -> Self {
        Self { newest: BTreeMap::new(), has_ids_of_store: false, is_known: false }
    }

    /// Whether readers see another content than that of the store's newest, or none.
    fn lacks(&self, stored: &StoredSnapshot) -> bool {
        if !self.is_known {
            return stored.published_at.is_none();
        }
        let Some(there) = self.newest.get(&stored.region) else { return true };
        // The end of an id is the content's hash: the same content may be there under an older number.
        let content = |snapshot: &StoredSnapshot| snapshot.id.rsplit('.').next().map(str::to_owned);
        stored.published_at.is_none()
            || (self.has_ids_of_store && there.seq < stored.seq && content(there) != content(stored))
    }
}

/// What reads from Redis, if snapshots are published.
fn redis(args: &Status, config: &Config) -> Result<Option<RedisSnapshots>, Failure> {
    let url = match set(args.servers.snapshots.as_ref()) {
        Some(url) => Some(super::place::redis(url)?),
        None => config.snapshots.url.clone(),
    };
    let plan = url.map(|url| config.snapshots.publish_plan(&config.name, url));
    plan.map(RedisSnapshots::new).transpose().map_err(|error| super::usage(format!("snapshots: {error}")))
}

/// How the regions stand in Redis alone, where there is no store.
fn of_redis(reader: &RedisSnapshots, args: &Status, global: &Global, config: &Config) -> Result<Code, Failure> {
    let LatestInRedis { found, refused, .. } = reader.latest(&[])?;
    for (region, error) in &refused {
        tracing::error!("{}: {error}", plain(region));
    }
    let ttl = ttl_seconds(config);
    let is_fresh = |snapshot: &StoredSnapshot| age_seconds(snapshot).is_some_and(|age| age <= ttl);
    let is_healthy = refused.is_empty() && !found.is_empty() && found.iter().all(is_fresh);
    let state = |snapshot: &StoredSnapshot| if is_fresh(snapshot) { "fresh" } else { "stale" };
    if args.json {
        let regions: Vec<Json> = found
            .iter()
            .map(|snapshot| {
                json!({ "region": snapshot.region, "state": state(snapshot), "published": published(snapshot) })
            })
            .collect();
        let mut status = nothing_as_json(&config.name);
        (status["healthy"], status["regions"]) = (is_healthy.into(), regions.into());
        print_lines([status])?;
    } else if !global.quiet {
        let line = |snapshot: &StoredSnapshot| {
            let old =
                age_seconds(snapshot).map_or_else(|| "of unknown age".to_owned(), |old| format!("{} old", age(old)));
            format!("  {:<11} {}  snapshot {}, {old}", state(snapshot), plain(&snapshot.region), plain(&snapshot.id))
        };
        let head = format!("{}  {} regions in Redis; there is no store here", config.name, count(found.len() as u64));
        print_lines(std::iter::once(head).chain(found.iter().map(line)))?;
    }
    Ok(if is_healthy { Code::Done } else { Code::Failed })
}

/// What Redis has of a region.
fn published(snapshot: &StoredSnapshot) -> Json {
    json!({
        "id": snapshot.id,
        "seq": snapshot.seq,
        "generated_at": snapshot.generated_at,
        "age_seconds": age_seconds(snapshot),
    })
}

/// What is said of a pipeline that never ran.
fn nothing_as_json(name: &str) -> Json {
    json!({ "pipeline": name, "healthy": false, "checkpoint": { "block": null }, "lag": { "seconds": null }, "quarantined": 0, "regions": [] })
}

fn lag_seconds(status: &PipelineStatus) -> Option<i64> {
    status.committed_at.as_deref().map(seconds_since)
}

fn as_json(
    name: &str,
    status: &PipelineStatus,
    states: &[InRedisState],
    redis: Option<&InRedis>,
    is_healthy: bool,
) -> Json {
    let region = |(region, state): (&RegionStatus, &InRedisState)| {
        let snapshot = region.snapshot.as_ref();
        let mut stands = json!({
            "region": region.region,
            "state": state.name(),
            "block": region.block,
            "events": region.events,
            "id": snapshot.map(|snapshot| &snapshot.id),
            "seq": snapshot.and_then(|snapshot| snapshot.seq),
            "snapshot_block": region.snapshot_block,
            "generated_at": snapshot.and_then(|snapshot| snapshot.generated_at.as_ref()),
            "age_seconds": snapshot.and_then(age_seconds),
        });
        if let Some(redis) = redis {
            stands["published"] = redis.newest.get(&region.region).map_or(Json::Null, published);
        }
        stands
    };
    json!({
        "pipeline": name,
        "healthy": is_healthy,
        "checkpoint": {
            "block": status.checkpoint.block,
            "blocks": status.checkpoint.blocks,
            "events": status.checkpoint.events,
            "committed_at": status.committed_at,
        },
        "lag": { "seconds": lag_seconds(status) },
        "quarantined": status.quarantined,
        "regions": status.regions.iter().zip(states).map(region).collect::<Vec<_>>(),
    })
}

fn as_lines(name: &str, status: &PipelineStatus, states: &[InRedisState]) -> Vec<String> {
    let checkpoint = &status.checkpoint;
    let block = checkpoint.block.unwrap_or(0);
    let mut lines = vec![format!(
        "{name}  block {block}, {} events of {} blocks, last commit {} ago",
        count(checkpoint.events),
        count(checkpoint.blocks),
        lag_seconds(status).map_or_else(|| "long".to_owned(), age)
    )];
    if status.quarantined > 0 {
        let events = counted(status.quarantined, "event", "events");
        lines.push(format!("  put aside   {events}; `forebay quarantine` shows what is wrong with them"));
    }
    for (region, state) in status.regions.iter().zip(states) {
        let snapshot = region.snapshot.as_ref().map_or_else(
            || "no snapshot".to_owned(),
            |snapshot| {
                format!(
                    "snapshot {} of block {}, {} old",
                    snapshot.seq.unwrap_or_default(),
                    snapshot.block.unwrap_or_default(),
                    age(age_seconds(snapshot).unwrap_or_default())
                )
            },
        );
        lines.push(format!("  {:<11} {}  block {}, {snapshot}", state.name(), plain(&region.region), region.block));
    }
    lines
}
