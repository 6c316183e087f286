//! `forebay status`: how a pipeline stands, in its store and where it is published.

use forebay::Config;
use forebay::publish::{self, LatestInTarget, PublishError, TargetReader, TargetUrl};
use forebay::status::{InTarget, Standing, age_seconds, nothing_as_json, published_as_json, seconds_since};
use forebay::store::{PipelineStatus, StoreError, StoredSnapshot, open_snapshots};
use serde_json::{Value as Json, json};

use super::addresses;
use super::args::{Global, Status};
use super::exit::{Code, Failure};
use super::out::{age, count, counted, plain, print_json, print_text};

pub(super) fn status(args: &Status, global: &Global) -> Result<Code, Failure> {
    let config = Config::read(&args.pipeline)?;
    let url = addresses::store(args.servers.store.as_ref(), &config)?;
    let target = reader_of(addresses::target(args.servers.snapshots.as_ref(), &config)?, &config)?;
    let mut reader = match open_snapshots(&url) {
        Err(missing @ StoreError::Missing { .. }) => return without_store(missing, target, args, global, &config),
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
    let asked = target.filter(|_| status.has_snapshots && !names.is_empty());
    let ask = |target: &dyn TargetReader| Ok((target.latest(&names)?, target.signature()?));
    let asked = asked.map(|target| ask(&*target).map_err(|error| (target.name().to_owned(), error)));
    let (mut in_target, failure) = match asked {
        None => (None, None),
        Some(Ok((latest, owner))) => {
            let has_ids_of_store = config.snapshots.id_field.is_none();
            tell_refused(&latest);
            (Some(InTarget::new(latest, owner, status.signature.clone(), has_ids_of_store)), None)
        }
        Some(Err(error)) => (Some(InTarget::unknown()), Some(error)),
    };
    if let Some(there) = in_target.as_mut().filter(|there| there.has_newer(&status)) {
        there.forgive(reader.status(&config.name)?.as_ref());
    }
    let standing = Standing::new(&config.name, &status, config.snapshots.ttl, in_target.as_ref());
    let is_well = failure.is_none();
    if args.json {
        print_json([standing.to_json(is_well)])?;
    } else if !global.quiet {
        print_text(as_lines(&config.name, &status, &standing, in_target.as_ref()))?;
    }
    tell(failure);
    if let Some((theirs, ours)) = in_target.as_ref().and_then(InTarget::other_owner) {
        tracing::error!(
            "another store publishes under the name {} there (store {}; this one is {ours}): readers may get what is not \
             this store's. Give one of the two pipelines another name, or let `forebay run --take-over` replace it",
            config.name,
            plain(theirs)
        );
    }
    Ok(if is_well && standing.is_healthy() { Code::Done } else { Code::Failed })
}

fn tell_refused(latest: &LatestInTarget) {
    for (region, error) in &latest.refused {
        tracing::error!("{}: {error}", plain(region));
    }
}

fn tell(failure: Option<(String, PublishError)>) {
    if let Some((target, error)) = failure {
        tracing::error!("what {target} has is not known: {error}");
    }
}

fn ttl_seconds(config: &Config) -> i64 {
    i64::try_from(config.snapshots.ttl.as_secs()).unwrap_or(i64::MAX)
}

/// What reads from there.
fn reader_of(url: Option<TargetUrl>, config: &Config) -> Result<Option<Box<dyn TargetReader>>, Failure> {
    let plan = url.map(|url| config.snapshots.publish_plan(&config.name, url));
    plan.map(publish::open_reader).transpose().map_err(|error| super::usage(format!("snapshots: {error}")))
}

/// Only the readers' side of a pipeline is here, or nothing.
fn without_store(
    missing: StoreError,
    target: Option<Box<dyn TargetReader>>,
    args: &Status,
    global: &Global,
    config: &Config,
) -> Result<Code, Failure> {
    let target = match target {
        Some(reader) => Some(reader),
        None => reader_of(addresses::any_target(None, Some(config.into()))?, config)?,
    };
    match target {
        Some(reader) => of_target(&*reader, args, global, config),
        None if args.json => {
            print_json([nothing_as_json(&config.name)])?;
            Ok(Code::Failed)
        }
        None => Err(missing.into()),
    }
}

/// How the regions stand in the target alone, where there is no store.
fn of_target(reader: &dyn TargetReader, args: &Status, global: &Global, config: &Config) -> Result<Code, Failure> {
    let latest = reader.latest(&[])?;
    tell_refused(&latest);
    let LatestInTarget { found, refused, .. } = latest;
    let ttl = ttl_seconds(config);
    let is_fresh = |snapshot: &StoredSnapshot| age_seconds(snapshot).is_some_and(|age| age <= ttl);
    let is_healthy = refused.is_empty() && !found.is_empty() && found.iter().all(is_fresh);
    let state = |snapshot: &StoredSnapshot| if is_fresh(snapshot) { "fresh" } else { "stale" };
    if args.json {
        let regions: Vec<Json> = found
            .iter()
            .map(|snapshot| {
                json!({ "region": snapshot.region, "state": state(snapshot), "published": published_as_json(snapshot) })
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
        let regions = count(found.len() as u64);
        let head = format!("{}  {regions} regions in {}; there is no store here", config.name, reader.name());
        print_text(std::iter::once(head).chain(found.iter().map(line)))?;
    }
    Ok(if is_healthy { Code::Done } else { Code::Failed })
}

fn as_lines(name: &str, status: &PipelineStatus, standing: &Standing<'_>, target: Option<&InTarget>) -> Vec<String> {
    let checkpoint = &status.checkpoint;
    let block = checkpoint.block.unwrap_or(0);
    let mut lines = vec![format!(
        "{name}  block {block}, {} events of {} blocks, last commit {} ago",
        count(checkpoint.events),
        count(checkpoint.blocks),
        status.committed_at.as_deref().and_then(seconds_since).map_or_else(|| "long".to_owned(), age)
    )];
    if status.quarantined > 0 {
        let events = counted(status.quarantined, "event", "events");
        lines.push(format!("  put aside   {events}; `forebay quarantine` shows what is wrong with them"));
    }
    if let Some(fresh) = status.fresh {
        let block = fresh.block.map_or_else(|| "no block yet".to_owned(), |block| format!("block {block}"));
        lines.push(format!("  beside      a fresh index, {block}, {}", counted(fresh.events, "event", "events")));
    }
    for (region, state) in standing.regions() {
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
        let readers = target.map_or_else(String::new, |there| there.told(region, state));
        let (state, region) = (state.name(), (plain(&region.region), region.block));
        lines.push(format!("  {state:<11} {}  block {}, {snapshot}{readers}", region.0, region.1));
    }
    lines
}
