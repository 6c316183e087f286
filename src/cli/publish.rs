//! `forebay publish`: ready documents, or a store's newest snapshots, to Redis.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay::config::SnapshotsConfig;
use forebay::limits::{DOCUMENTS_BYTES_MAX, OUTBOX_PAGE, PUBLISH_POOL_MAX, SEQ_AHEAD_MAX};
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

/// Regions that are named for one cause; the others are counted.
const REGIONS_NAMED_MAX: usize = 100;

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
    plan.takes_over = args.take_over;
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
    Publisher::new(plan).map_err(|error| match error {
        PublishError::Threads(_) => Failure::new(Code::Failed, error),
        error => usage(format!("snapshots: {error}")),
    })
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
    let is_empty = tally.lines.is_empty();
    let is_clean = items.len() == tally.lines.len() && missing.is_empty();
    // A region whose document is bad keeps what it has, as one that is missing does.
    let published = publisher.publish(&items, Extent::Whole { is_clean });
    for (place, receipt) in places.into_iter().zip(&published.receipts) {
        let seq = tally.lines[place].seq;
        tally.lines[place] = Line::of(receipt, seq.unwrap_or_default(), publisher.plan());
    }
    if is_empty {
        tally.note_nothing(&name, &published, args);
    }
    if let Some(region) = published.of_stores.first() {
        tracing::warn!(
            "a store publishes {} of these too ({} for one): its next run replaces what is given by hand",
            counted(published.of_stores.len() as u64, "region", "regions"),
            plain(region)
        );
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
    if let Some(signature) = outbox.signature()? {
        publisher.sign(&signature);
        // If Redis is away, each region says so.
        if let Err(error @ PublishError::OtherStore(_)) = publisher.read_summary() {
            return Err(Failure::new(Code::Usage, error));
        }
    }
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
    if tally.count("stale") > 0 {
        tracing::warn!(
            "of {} Redis has a higher number than this store, which was made anew: `forebay run` publishes them once it has caught up",
            counted(tally.count("stale") as u64, "region", "regions")
        );
    }
    if tally.lines.is_empty() && !args.allow_empty {
        tally.nothing = Some(format!(
            "{url} holds no snapshot of pipeline {}: nothing was published. If that was meant, give --allow-empty",
            config.name
        ));
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
    let line = |receipt: &PublishReceipt| {
        let seq = stored.get(&receipt.region).copied().unwrap_or_default();
        Line::of(receipt, seq, publisher.plan())
    };
    tally.lines.extend(published.receipts.iter().map(line));
    tally.lines.extend(refused.iter().map(|(region, error)| Line::failed(Some(region), None, &error.to_string())));
    tally.round_trips += published.round_trips;
    tally.warn(&published);
}

/// The documents, and how they are called in messages.
fn read(docs: &str) -> Result<(String, Vec<u8>), Failure> {
    let shown = plain(docs);
    if docs == "-" {
        let cannot = |error: std::io::Error| Failure::new(Code::Failed, format!("cannot read standard input: {error}"));
        return Ok(("stdin".into(), read_all("stdin", std::io::stdin().lock(), cannot)?));
    }
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => usage(format!("{shown}: there is no such file")),
        std::io::ErrorKind::IsADirectory => {
            usage(format!("{shown}: it is a folder; expected a file of JSON documents"))
        }
        _ => Failure::new(Code::Failed, format!("{shown}: it cannot be read: {error}")),
    };
    Ok((shown.clone().into_owned(), read_all(&shown, std::fs::File::open(docs).map_err(cannot)?, cannot)?))
}

/// All that is given, unless it does not end.
fn read_all(name: &str, from: impl Read, cannot: impl Fn(std::io::Error) -> Failure) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    from.take(DOCUMENTS_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(cannot)?;
    if text.len() > DOCUMENTS_BYTES_MAX {
        let line = text.iter().filter(|byte| **byte == b'\n').count() + 1;
        let most = DOCUMENTS_BYTES_MAX >> 20;
        return Err(usage(format!("{name}:{line}: the documents have more than {most} MiB; publish them in parts")));
    }
    Ok(text)
}

/// What is said of one region.
struct Line {
    region: Option<String>,
    status: &'static str,
    id: Option<String>,
    /// The number of what was to be published.
    seq: Option<u64>,
    /// The number of what is newer there.
    newest_seq: Option<u64>,
    took: Duration,
    error: Option<String>,
}

impl Line {
    fn pending(item: &Publication) -> Self {
        Self { seq: Some(item.seq), ..Self::failed(Some(&item.region), Some(&item.id), "it was not tried") }
    }

    fn failed(region: Option<&str>, id: Option<&str>, error: &str) -> Self {
        Self {
            region: region.map(str::to_owned),
            status: "failed",
            id: id.map(str::to_owned),
            seq: None,
            newest_seq: None,
            took: Duration::ZERO,
            error: Some(error.to_owned()),
        }
    }

    /// What became of the snapshot with the number `seq`.
    fn of(receipt: &PublishReceipt, seq: u64, plan: &PublishPlan) -> Self {
        let (status, error) = match &receipt.outcome {
            Ok(PublishStatus::Published) => ("published", None),
            Ok(PublishStatus::Stale) => ("stale", Some(stale_text(receipt, seq, plan))),
            Ok(_) => ("duplicate", None),
            Err(error) => ("failed", Some(error.to_string())),
        };
        Self {
            region: Some(receipt.region.to_string()),
            status,
            id: Some(receipt.id.clone()),
            seq: (status == "stale").then_some(seq),
            newest_seq: (status == "stale").then_some(receipt.seq),
            took: receipt.took,
            error,
        }
    }

    fn json(&self) -> Json {
        let mut line = json!({
            "region": self.region,
            "status": self.status,
            "id": self.id,
            "ms": millis(self.took),
        });
        if let (Some(seq), Some(newest)) = (self.seq, self.newest_seq) {
            (line["seq"], line["newest_seq"]) = (seq.into(), newest.into());
        }
        if let Some(error) = &self.error {
            line["error"] = error.as_str().into();
        }
        line
    }
}

/// What is said of a snapshot that is older than what Redis has.
fn stale_text(receipt: &PublishReceipt, seq: u64, plan: &PublishPlan) -> String {
    if plan.signature.is_some() {
        return format!("Redis has number {} of it, which is newer than {seq}: it stays", receipt.seq);
    }
    // The numbers of documents that are given by hand are times in milliseconds.
    let time = |seq: u64| i64::try_from(seq).ok()?.checked_mul(1000).and_then(Timestamp::from_micros);
    let told = |seq: u64| match time(seq) {
        Some(time) => format!("{seq} ({})", time.to_millis_text()),
        None => seq.to_string(),
    };
    let now = Timestamp::now();
    let is_ahead = time(receipt.seq).is_none_or(|there| there.saturating_sub(SEQ_AHEAD_MAX) > now);
    let advice = match is_ahead {
        true => format!(
            "; its time is ahead of the clock (now {}), so it was wrong when it was written: delete the key {} in Redis, \
             then publish again",
            now.to_millis_text(),
            plain(&plan.seq_key(&receipt.region))
        ),
        false => String::new(),
    };
    format!("Redis has number {} of it, which is newer than {}: it stays{advice}", told(receipt.seq), told(seq))
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
    /// Why it is a failure that there was nothing to publish.
    nothing: Option<String>,
    round_trips: u32,
    wall: Duration,
}

impl Tally {
    /// Notes that there was no document: somebody may have died before he wrote any.
    fn note_nothing(&mut self, name: &str, published: &Published, args: &Publish) {
        let there = match published.kept.len() + published.unkept.len() {
            _ if published.is_unreachable => "what Redis has is not known".to_owned(),
            _ if published.warning.is_some() => "what Redis has was left alone".to_owned(),
            0 => "Redis has nothing of this pipeline".to_owned(),
            kept => format!("what Redis has of {} lives on", counted(kept as u64, "region", "regions")),
        };
        self.nothing = match (args.allow_empty, published.is_unreachable) {
            (true, false) => None,
            (true, true) => Some(format!("{name} holds no document, and {there}")),
            (false, _) => Some(format!(
                "{name} holds no document: nothing was published, and {there}. If that was meant, give --allow-empty"
            )),
        };
    }

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
                seq: None,
                newest_seq: None,
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
                seq: None,
                newest_seq: None,
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
        if args.json {
            let mut total = json!({
                "published": self.count("published"),
                "duplicate": self.count("duplicate"),
                "stale": self.count("stale"),
                "kept": self.count("kept"),
                "failed": self.count("failed"),
                "wall_ms": millis(self.wall),
                "round_trips": self.round_trips,
            });
            if let Some(nothing) = &self.nothing {
                total["error"] = nothing.as_str().into();
            }
            print_json(self.lines.iter().map(Line::json).chain([total]))?;
        } else {
            self.tell_errors();
            if !global.quiet {
                print_text([self.sentence()])?;
            }
        }
        if let Some(nothing) = &self.nothing {
            tracing::error!("{nothing}");
        }
        let is_done = self.nothing.is_none() && self.count("failed") + self.count("stale") + self.missing == 0;
        Ok(if is_done { Code::Done } else { Code::Unpublished })
    }

    /// Names what went wrong, regions of one cause together.
    fn tell_errors(&self) {
        let mut of_cause: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (line, error) in self.lines.iter().filter_map(|line| Some((line, line.error.as_deref()?))) {
            let place = *places.entry(error).or_insert(of_cause.len());
            if place == of_cause.len() {
                of_cause.push((error, Vec::new()));
            }
            of_cause[place].1.extend(line.region.as_deref());
        }
        for (cause, regions) in of_cause {
            let named = regions.len().min(REGIONS_NAMED_MAX);
            let more = match regions.len() - named {
                0 => String::new(),
                more => format!(" and {} more", count(more as u64)),
            };
            match regions.is_empty() {
                true => tracing::error!("{}", plain(cause)),
                false => tracing::error!("{}{more}: {}", plain(&regions[..named].join(", ")), plain(cause)),
            }
        }
    }

    fn sentence(&self) -> String {
        let mut parts = vec![format!("{} published", count(self.count("published") as u64))];
        let others = [("duplicate", "unchanged"), ("stale", "stale"), ("kept", "kept"), ("failed", "failed")];
        for (number, what) in others.map(|(status, what)| (self.count(status), what)) {
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
