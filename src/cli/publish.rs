//! `forebay publish`: ready documents, or a store's newest snapshots, to Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay::config::SnapshotsConfig;
use forebay::limits::{OUTBOX_PAGE, PUBLISH_POOL_MAX};
use forebay::publish::{
    Documents, Extent, FieldPath, Publication, PublishError, PublishPlan, PublishReceipt, PublishStatus, Published,
    Publisher,
};
use forebay::store::{Outbox, open_outbox, open_snapshots};
use forebay::{Config, Timestamp};
use serde_json::{Value as Json, json};

use super::addresses;
use super::args::{Global, Publish};
use super::exit::{Code, Failure};
use super::out::{count, counted, plain, print_json, print_text};
use super::place::{DEFAULT_PIPELINE, check_name};
use super::usage;

pub(super) fn publish(args: &Publish, global: &Global) -> Result<Code, Failure> {
    let started = Instant::now();
    let config = args.config.as_ref().map(|file| Config::read(file)).transpose()?;
    let plan = plan(args, config.as_ref())?;
    let mut tally = Tally::default();
    match (&config, &args.docs) {
        (Some(config), None) => publish_store(args, config, plan, &mut tally)?,
        (_, docs) => publish_documents(args, docs.as_deref().unwrap_or("-"), config.as_ref(), plan, &mut tally)?,
    }
    tally.wall = started.elapsed();
    tally.tell(args, global)
}

/// How to publish: what is given here before what the pipeline file says.
fn plan(args: &Publish, config: Option<&Config>) -> Result<PublishPlan, Failure> {
    let snapshots = config.map_or_else(SnapshotsConfig::default, |config| config.snapshots.clone());
    let url = addresses::any_redis(args.snapshots.as_ref(), config)?.ok_or_else(|| {
        usage("publish where? give --snapshots redis://HOST, REDIS_URL, or --config with [snapshots] url")
    })?;
    let name = config.map(|config| config.name.as_str()).or(args.pipeline.as_deref()).unwrap_or(DEFAULT_PIPELINE);
    check_name(name)?;
    let mut plan = snapshots.publish_plan(name, url);
    if let Some(path) = &args.id_field {
        plan.id_field = Some(field(path, "--id-field")?);
    }
    if let Some(path) = &args.time_field {
        plan.time_field = Some(field(path, "--time-field")?);
    }
    plan.ttl = positive(args.ttl, "--ttl")?.unwrap_or(plan.ttl);
    plan.timeout = positive(args.timeout, "--timeout")?.unwrap_or(plan.timeout);
    plan.dedup = args.dedup.unwrap_or(plan.dedup);
    plan.pool = args.pool.map_or(plan.pool, std::num::NonZero::get);
    if plan.pool > PUBLISH_POOL_MAX {
        return Err(usage(format!("--pool: expected at most {PUBLISH_POOL_MAX}")));
    }
    Ok(plan)
}

fn field(path: &str, option: &str) -> Result<FieldPath, Failure> {
    FieldPath::new(path)
        .ok_or_else(|| usage(format!("{option}: expected the name of a field, or a path such as meta.id")))
}

fn positive(span: Option<Duration>, option: &str) -> Result<Option<Duration>, Failure> {
    match span {
        Some(Duration::ZERO) => Err(usage(format!("{option}: expected a duration above zero"))),
        span => Ok(span),
    }
}

fn publisher(plan: PublishPlan) -> Result<Publisher, Failure> {
    Publisher::new(plan).map_err(|error| usage(format!("snapshots: {error}")))
}

fn publish_documents(
    args: &Publish,
    docs: &str,
    config: Option<&Config>,
    plan: PublishPlan,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let region = field(&args.region_field, "--region-field")?;
    let in_file = config.map_or(&[][..], |config| &config.snapshots.dedup_ignore);
    let ignored = args.dedup_ignore.as_deref().unwrap_or(in_file);
    let mut publisher = publisher(plan)?;
    let (name, text) = read(docs)?;
    let found = Documents::parse(&text, &name, &publisher.plan().fields(), &region, ignored).map_err(usage)?;
    drop(text);
    let expected: BTreeSet<String> = args.expect.iter().map(|region| region.trim().to_owned()).collect();
    let missing: Vec<&String> = expected
        .iter()
        .filter(|region| !region.is_empty())
        .filter(|region| !found.documents.iter().any(|document| document.region.as_deref() == Some(region.as_str())))
        .collect();
    let (mut items, mut places) = (Vec::new(), Vec::new());
    for document in found.documents {
        match document.publication {
            Ok(publication) => {
                places.push(tally.lines.len());
                tally.lines.push(Line::pending(&publication));
                items.push(publication);
            }
            Err(error) => tally.lines.push(Line::failed(document.region.as_deref(), None, &error.to_string())),
        }
    }
    if tally.lines.is_empty() {
        tracing::warn!("{name} holds no document; nothing is published");
    }
    let is_clean = items.len() == tally.lines.len() && missing.is_empty();
    // A region whose document is bad keeps what it has, as one that is missing does.
    let published = publisher.publish(&items, Extent::Whole { is_clean });
    for (place, receipt) in places.into_iter().zip(&published.receipts) {
        tally.lines[place] = Line::of(receipt);
    }
    tally.take_kept(&published, &missing);
    tally.round_trips = published.round_trips;
    tally.warn(&published);
    Ok(())
}

/// The newest snapshot of each region of the pipeline's store.
fn publish_store(args: &Publish, config: &Config, plan: PublishPlan, tally: &mut Tally) -> Result<(), Failure> {
    let url = addresses::store(args.store.as_ref(), config)?;
    // A clear word where there is no such store or pipeline.
    if !open_snapshots(&url)?.pipelines()?.contains(&config.name) {
        return Err(Failure::new(Code::Failed, format!("{url} knows no pipeline {}", config.name)));
    }
    let mut outbox = open_outbox(&url, &config.name)?;
    let mut publisher = publisher(plan)?;
    let mut after = String::new();
    loop {
        let page = outbox.due(Timestamp::MAX, &after, OUTBOX_PAGE)?;
        let Some(last) = page.last() else { break };
        after = last.publication.region.to_string();
        publish_page(&mut publisher, outbox.as_mut(), page.into_iter().map(|due| due.publication).collect(), tally);
    }
    if let Some(warning) = publisher.flush_summary() {
        tracing::warn!("{warning}");
    }
    if tally.stale > 0 {
        tracing::warn!(
            "of {} Redis has a higher number than this store, which was made anew: `forebay run` publishes them once it has caught up",
            counted(tally.stale as u64, "region", "regions")
        );
    }
    Ok(())
}

fn publish_page(publisher: &mut Publisher, outbox: &mut dyn Outbox, page: Vec<Publication>, tally: &mut Tally) {
    let stored: BTreeMap<Arc<str>, u64> = page.iter().map(|item| (Arc::clone(&item.region), item.seq)).collect();
    let (items, refused) = publisher.plan().resolve(page);
    let published = publisher.publish(&items, Extent::Part);
    let is_done =
        |receipt: &&PublishReceipt| matches!(receipt.outcome, Ok(PublishStatus::Published | PublishStatus::Duplicate));
    let done = published.receipts.iter().filter(is_done);
    let done: Vec<(Arc<str>, u64)> = done
        .filter_map(|receipt| stored.get_key_value(&receipt.region))
        .map(|(region, seq)| (Arc::clone(region), *seq))
        .collect();
    if let Err(error) = outbox.mark(&done, Timestamp::now()) {
        tracing::warn!("what was published could not be marked, and is published again by the next run: {error}");
    }
    tally.stale += published.receipts.iter().filter(|receipt| receipt.outcome == Ok(PublishStatus::Stale)).count();
    tally.lines.extend(published.receipts.iter().map(Line::of));
    tally.lines.extend(refused.iter().map(|(region, error)| Line::failed(Some(region), None, &error.to_string())));
    tally.round_trips += published.round_trips;
    tally.warn(&published);
}

/// The documents, and how they are called in messages.
fn read(docs: &str) -> Result<(String, Vec<u8>), Failure> {
    let mut text = Vec::new();
    if docs == "-" {
        std::io::stdin()
            .lock()
            .read_to_end(&mut text)
            .map_err(|error| Failure::new(Code::Failed, format!("cannot read standard input: {error}")))?;
        return Ok(("stdin".into(), text));
    }
    text = std::fs::read(docs).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => usage(format!("{docs}: there is no such file")),
        std::io::ErrorKind::IsADirectory => usage(format!("{docs}: it is a folder; expected a file of JSON documents")),
        _ => Failure::new(Code::Failed, format!("{docs}: it cannot be read: {error}")),
    })?;
    Ok((docs.to_owned(), text))
}

/// What is said of one region.
struct Line {
    region: Option<String>,
    status: &'static str,
    id: Option<String>,
    took: Duration,
    error: Option<String>,
}

impl Line {
    fn pending(item: &Publication) -> Self {
        Self::failed(Some(&item.region), Some(&item.id), "it was not tried")
    }

    fn failed(region: Option<&str>, id: Option<&str>, error: &str) -> Self {
        Self {
            region: region.map(str::to_owned),
            status: "failed",
            id: id.map(str::to_owned),
            took: Duration::ZERO,
            error: Some(error.to_owned()),
        }
    }

    fn of(receipt: &PublishReceipt) -> Self {
        let status = match &receipt.outcome {
            Ok(PublishStatus::Published) => "published",
            Ok(_) => "duplicate",
            Err(_) => "failed",
        };
        Self {
            region: Some(receipt.region.to_string()),
            status,
            id: Some(receipt.id.clone()),
            took: receipt.took,
            error: receipt.outcome.as_ref().err().map(PublishError::to_string),
        }
    }

    fn json(&self) -> Json {
        let mut line = json!({
            "region": self.region,
            "status": self.status,
            "id": self.id,
            "ms": millis(self.took),
        });
        if let Some(error) = &self.error {
            line["error"] = error.as_str().into();
        }
        line
    }
}

fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// What is said of all.
#[derive(Default)]
struct Tally {
    lines: Vec<Line>,
    /// Expected regions that were not given, though they have data.
    missing: usize,
    /// Regions of which Redis has a higher number than the store.
    stale: usize,
    round_trips: u32,
    wall: Duration,
}

impl Tally {
    fn take_kept(&mut self, published: &Published, missing: &[&String]) {
        let given: Vec<String> = self.lines.iter().filter_map(|line| line.region.clone()).collect();
        let is_expected = |region: &String| missing.contains(&region);
        let absent = || Some("it was expected, and no document of it was given".to_owned());
        for kept in published.kept.iter().filter(|kept| !given.contains(&kept.region)) {
            let error = if is_expected(&kept.region) { absent() } else { None };
            self.missing += usize::from(error.is_some());
            self.lines.push(Line {
                region: Some(kept.region.clone()),
                status: "kept",
                id: Some(kept.id.clone()),
                took: published.wall,
                error,
            });
        }
        for (region, cause) in published.unkept.iter().filter(|(region, _)| !given.contains(region)) {
            self.lines.push(Line::failed(Some(region), None, &format!("it was not kept: {cause}")));
        }
        let is_told = |region: &String| published.unkept.iter().any(|(unkept, _)| unkept == region);
        for region in missing
            .iter()
            .filter(|region| !is_told(region))
            .filter(|region| !published.kept.iter().any(|kept| kept.region == ***region))
        {
            self.lines.push(Line {
                region: Some((*region).clone()),
                status: "failed",
                id: None,
                took: Duration::ZERO,
                error: absent(),
            });
        }
    }

    fn warn(&self, published: &Published) {
        if let Some(warning) = &published.warning {
            tracing::warn!("{warning}");
        }
    }

    fn count(&self, status: &str) -> usize {
        self.lines.iter().filter(|line| line.status == status).count()
    }

    fn tell(&self, args: &Publish, global: &Global) -> Result<Code, Failure> {
        let [published, duplicate, failed, kept] =
            ["published", "duplicate", "failed", "kept"].map(|status| self.count(status));
        if args.json {
            let total = json!({
                "published": published,
                "duplicate": duplicate,
                "failed": failed,
                "kept": kept,
                "wall_ms": millis(self.wall),
                "round_trips": self.round_trips,
            });
            print_json(self.lines.iter().map(Line::json).chain([total]))?;
        } else {
            for line in self.lines.iter().filter(|line| line.error.is_some()) {
                let region = line.region.as_deref().map_or_else(String::new, |region| format!("{}: ", plain(region)));
                tracing::error!("{region}{}", line.error.as_deref().unwrap_or_default());
            }
            if !global.quiet {
                print_text([self.sentence(published, duplicate, failed, kept)])?;
            }
        }
        Ok(if failed + self.missing > 0 { Code::Unpublished } else { Code::Done })
    }

    fn sentence(&self, published: usize, duplicate: usize, failed: usize, kept: usize) -> String {
        let mut parts = vec![format!("{} published", count(published as u64))];
        for (number, what) in [(duplicate, "unchanged"), (kept, "kept"), (failed, "failed")] {
            if number > 0 {
                parts.push(format!("{} {what}", count(number as u64)));
            }
        }
        format!(
            "{} in {:.0} ms, {} round trips one after another",
            parts.join(", "),
            self.wall.as_secs_f64() * 1e3,
            self.round_trips
        )
    }
}
