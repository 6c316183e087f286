//! `forebay status`: how a pipeline stands, in its store and in Redis.

use std::collections::{BTreeMap, BTreeSet};

use forebay::Config;
use forebay::publish::{LatestInRedis, PublishError, RedisSnapshots, RedisUrl};
use forebay::source::Position;
use forebay::store::{PipelineStatus, RegionStatus, StoreError, StoredSnapshot, open_snapshots};
use serde_json::{Value as Json, json};

use super::addresses;
use super::args::{Global, Status};
use super::exit::{Code, Failure};
use super::out::{age, count, counted, plain, print_json, print_text, seconds_since};

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
    /// Redis has one that this store has not published, or not as its newest.
    Foreign,
    /// The handlers make none.
    None,
}

impl InRedisState {
    fn of(region: &RegionStatus, has_snapshots: bool, ttl_seconds: i64, redis: Option<&InRedis>) -> Self {
        let is_unpublished = |snapshot: &StoredSnapshot| redis.is_some_and(|redis| redis.lacks(snapshot));
        let is_foreign = |snapshot: &StoredSnapshot| redis.is_some_and(|redis| redis.has_foreign(snapshot));
        match &region.snapshot {
            _ if !has_snapshots => Self::None,
            // A handler may have nothing to say of a region.
            None if region.snapshot_block.is_some_and(|covered| covered >= region.block) => Self::None,
            None => Self::Missing,
            Some(snapshot) if is_foreign(snapshot) => Self::Foreign,
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
            Self::Foreign => "foreign",
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
    /// The stores that have signed them.
    signatures: BTreeMap<String, String>,
    /// The store that has signed the summary.
    owner: Option<String>,
    /// The signature of our store.
    ours: Option<String>,
    /// Regions that a run has published after the store was read.
    published_since: BTreeSet<String>,
    /// Whether ids there are the store's, and can be compared.
    has_ids_of_store: bool,
    /// Whether it answered.
    is_known: bool,
}

pub(super) fn status(args: &Status, global: &Global) -> Result<Code, Failure> {
    let config = Config::read(&args.pipeline)?;
    let url = addresses::store(args.servers.store.as_ref(), &config)?;
    let redis = reader_of(addresses::redis(args.servers.snapshots.as_ref(), &config)?, &config)?;
    let mut reader = match open_snapshots(&url) {
        Err(missing @ StoreError::Missing { .. }) => return without_store(missing, redis, args, global, &config),
        opened => opened?,
    };
    let found = reader.status(&config.name)?;
    let Some(status) = found.filter(|status| status.checkpoint.block.is_some()) else {
        if args.json {
            print_json([nothing_as_json(&config.name)])?;
        }
        return Err(Failure::new(Code::Failed, format!("pipeline {} has not committed anything yet", config.name)));
    };
    let names: Vec<String> = status.regions.iter().map(|region| region.region.clone()).collect();
    let asked = redis.filter(|_| status.has_snapshots && !names.is_empty());
    let asked = asked.map(|redis| Ok((redis.latest(&names)?, redis.signature()?)));
    let (mut in_redis, failure) = match asked {
        None => (None, None),
        Some(Ok((latest, owner))) => {
            let has_ids_of_store = config.snapshots.id_field.is_none();
            (Some(InRedis::new(latest, owner, status.signature.clone(), has_ids_of_store)), None)
        }
        Some(Err(error)) => (Some(InRedis::unknown()), Some(error)),
    };
    if let Some(redis) = in_redis.as_mut().filter(|redis| redis.has_newer(&status)) {
        redis.forgive(reader.status(&config.name)?.as_ref());
    }
    let ttl = ttl_seconds(&config);
    let states: Vec<InRedisState> = status
        .regions
        .iter()
        .map(|region| InRedisState::of(region, status.has_snapshots, ttl, in_redis.as_ref()))
        .collect();
    let other = in_redis.as_ref().and_then(InRedis::other_owner);
    let is_healthy = failure.is_none() && other.is_none() && states.iter().all(|state| state.is_healthy());
    if args.json {
        print_json([as_json(&config.name, &status, &states, in_redis.as_ref(), is_healthy)])?;
    } else if !global.quiet {
        print_text(as_lines(&config.name, &status, &states, in_redis.as_ref()))?;
    }
    tell(failure);
    if let Some((theirs, ours)) = other {
        tracing::error!(
            "another store publishes under the name {} there (store {}; this one is {ours}): readers may get what is not \
             this store's. Give one of the two pipelines another name, or let `forebay run --take-over` replace it",
            config.name,
            plain(theirs)
        );
    }
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
    fn new(latest: LatestInRedis, owner: Option<String>, ours: Option<String>, has_ids_of_store: bool) -> Self {
        for (region, error) in &latest.refused {
            tracing::error!("{}: {error}", plain(region));
        }
        let newest = latest.found.into_iter().map(|snapshot| (snapshot.region.clone(), snapshot)).collect();
        let (signatures, published_since) = (latest.signatures, BTreeSet::new());
        Self { newest, signatures, owner, ours, published_since, has_ids_of_store, is_known: true }
    }

    fn unknown() -> Self {
        Self {
            newest: BTreeMap::new(),
            signatures: BTreeMap::new(),
            owner: None,
            ours: None,
            published_since: BTreeSet::new(),
            has_ids_of_store: false,
            is_known: false,
        }
    }

    /// The store that publishes in place of ours, and ours.
    fn other_owner(&self) -> Option<(&str, &str)> {
        let (theirs, ours) = (self.owner.as_deref()?, self.ours.as_deref()?);
        (theirs != ours).then_some((theirs, ours))
    }

    /// The snapshot of a region that readers get, if it has a number that the store has not come to.
    fn newer(&self, stored: &StoredSnapshot) -> Option<&StoredSnapshot> {
        let there = self.newest.get(&stored.region).filter(|there| there.seq > stored.seq)?;
        (!self.published_since.contains(&stored.region)).then_some(there)
    }

    fn has_newer(&self, status: &PipelineStatus) -> bool {
        status.regions.iter().filter_map(|region| region.snapshot.as_ref()).any(|stored| self.newer(stored).is_some())
    }

    /// Notes what the store has by now: a run may have published after it was read first.
    fn forgive(&mut self, later: Option<&PipelineStatus>) {
        let stored = later.iter().flat_map(|status| &status.regions).filter_map(|region| region.snapshot.as_ref());
        let caught_up = stored.filter(|stored| self.newer(stored).is_none()).map(|stored| stored.region.clone());
        let caught_up: BTreeSet<String> = caught_up.collect();
        self.published_since = caught_up;
    }

    /// Whether readers get what another store has published, or a content under a number that the store gave to another
    /// one, or has not come to.
    fn has_foreign(&self, stored: &StoredSnapshot) -> bool {
        let Some(there) = self.newest.get(&stored.region) else { return false };
        let signature = self.signatures.get(&stored.region);
        if signature.zip(self.ours.as_ref()).is_some_and(|(theirs, ours)| theirs != ours) {
            return true;
        }
        match self.has_ids_of_store {
            true => {
                let is_above = self.newer(stored).is_some() || there.seq == stored.seq;
                is_above && content(there) != content(stored)
            }
            false => self.newer(stored).is_some(),
        }
    }

    /// What readers get of a region, where that is not its newest.
    fn told(&self, region: &RegionStatus, state: InRedisState) -> String {
        if !self.is_known || !matches!(state, InRedisState::Foreign | InRedisState::Unpublished) {
            return String::new();
        }
        let Some(there) = self.newest.get(&region.region) else { return "; readers get nothing".to_owned() };
        let signature = self.signatures.get(&region.region).filter(|theirs| Some(*theirs) != self.ours.as_ref());
        let by = signature.map_or_else(String::new, |theirs| format!(" of store {}", plain(theirs)));
        format!("; readers get {}{by}", plain(&there.id))
    }

    /// Whether readers see another content than that of the store's newest, or none.
    fn lacks(&self, stored: &StoredSnapshot) -> bool {
        if !self.is_known {
            return stored.published_at.is_none();
        }
        let Some(there) = self.newest.get(&stored.region) else { return true };
        stored.published_at.is_none()
            || (self.has_ids_of_store && there.seq < stored.seq && content(there) != content(stored))
    }
}

/// The end of an id is the content's hash: the same content may be there under another number.
fn content(snapshot: &StoredSnapshot) -> Option<&str> {
    snapshot.id.rsplit('.').next()
}

/// What reads from that Redis.
fn reader_of(url: Option<RedisUrl>, config: &Config) -> Result<Option<RedisSnapshots>, Failure> {
    let plan = url.map(|url| config.snapshots.publish_plan(&config.name, url));
    plan.map(RedisSnapshots::new).transpose().map_err(|error| super::usage(format!("snapshots: {error}")))
}

/// Only the readers' side of a pipeline is here, or nothing.
fn without_store(
    missing: StoreError,
    redis: Option<RedisSnapshots>,
    args: &Status,
    global: &Global,
    config: &Config,
) -> Result<Code, Failure> {
    let redis = match redis {
        Some(reader) => Some(reader),
        None => reader_of(addresses::any_redis(None, Some(config.into()))?, config)?,
    };
    match redis {
        Some(reader) => of_redis(&reader, args, global, config),
        None if args.json => {
            print_json([nothing_as_json(&config.name)])?;
            Ok(Code::Failed)
        }
        None => Err(missing.into()),
    }
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
        print_json([status])?;
    } else if !global.quiet {
        let line = |snapshot: &StoredSnapshot| {
            let old =
                age_seconds(snapshot).map_or_else(|| "of unknown age".to_owned(), |old| format!("{} old", age(old)));
            format!("  {:<11} {}  snapshot {}, {old}", state(snapshot), plain(&snapshot.region), plain(&snapshot.id))
        };
        let head = format!("{}  {} regions in Redis; there is no store here", config.name, count(found.len() as u64));
        print_text(std::iter::once(head).chain(found.iter().map(line)))?;
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
    json!({ "pipeline": name, "healthy": false, "checkpoint": { "block": null }, "lag": { "seconds": null }, "quarantined": 0, "fresh": null, "regions": [] })
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
            if let Some(signature) = redis.signatures.get(&region.region).filter(|_| stands["published"].is_object()) {
                stands["published"]["signature"] = signature.as_str().into();
            }
        }
        stands
    };
    let mut object = json!({
        "pipeline": name,
        "healthy": is_healthy,
        "signature": status.signature,
        "checkpoint": {
            "block": status.checkpoint.block,
            "position": status.position.as_ref().map(Position::as_str),
            "blocks": status.checkpoint.blocks,
            "events": status.checkpoint.events,
            "committed_at": status.committed_at,
        },
        "lag": { "seconds": lag_seconds(status) },
        "quarantined": status.quarantined,
        "fresh": status.fresh.map(|fresh| json!({ "block": fresh.block, "events": fresh.events })),
        "regions": status.regions.iter().zip(states).map(region).collect::<Vec<_>>(),
    });
    if let Some(redis) = redis {
        object["published_by"] = redis.owner.as_deref().into();
    }
    object
}

fn as_lines(name: &str, status: &PipelineStatus, states: &[InRedisState], redis: Option<&InRedis>) -> Vec<String> {
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
    if let Some(fresh) = status.fresh {
        let block = fresh.block.map_or_else(|| "no block yet".to_owned(), |block| format!("block {block}"));
        lines.push(format!("  beside      a fresh index, {block}, {}", counted(fresh.events, "event", "events")));
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
        let readers = redis.map_or_else(String::new, |redis| redis.told(region, *state));
        let (state, region) = (state.name(), (plain(&region.region), region.block));
        lines.push(format!("  {state:<11} {}  block {}, {snapshot}{readers}", region.0, region.1));
    }
    lines
}
