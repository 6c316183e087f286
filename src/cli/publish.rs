//! `forebay publish`: ready documents, or a store's newest snapshots, to where readers look.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use forebay::Timestamp;
use forebay::config::PublishConfig;
use forebay::limits::{DOCUMENTS_BYTES_MAX, OUTBOX_PAGE};
use forebay::publish::{
    Documents, Extent, Publication, PublishError, PublishPlan, PublishReceipt, PublishStatus, Publisher,
};
use forebay::store::{Outbox, open_outbox, open_snapshots};

use super::addresses;
use super::args::{Global, Publish};
use super::exit::{Code, Failure};
use super::on_publish;
use super::out::{counted, plain, shown_path};
use super::publishing::{Settings, not_ready, positive};
use super::tally::{Line, Tally};
use super::usage;

pub(super) fn publish(args: &Publish, global: &Global) -> Result<Code, Failure> {
    let started = Instant::now();
    let config = args.how.config.as_ref().map(|file| PublishConfig::read(file)).transpose()?;
    let mut settings = Settings::new(&args.how, config.as_ref())?;
    settings.plan.timeout = positive(args.timeout, "--timeout")?.unwrap_or(settings.plan.timeout);
    settings.plan.takes_over = args.take_over;
    let told = on_publish::start(args.how.on_publish.as_ref(), &settings.plan.pipeline, args.how.on_publish_timeout)?;
    let mut tally = Tally::default();
    tally.on_publish = told;
    match (&config, &args.docs) {
        (Some(config), None) => publish_store(args, config, settings.plan, &mut tally)?,
        (_, docs) => publish_documents(args, docs.as_deref().unwrap_or("-"), settings, &mut tally)?,
    }
    tally.wall = started.elapsed();
    on_publish::finish(tally.on_publish.take());
    tally.tell(args.json, global)
}

fn publisher(plan: PublishPlan) -> Result<Publisher, Failure> {
    Publisher::new(plan).map_err(not_ready)
}

fn publish_documents(args: &Publish, docs: &str, settings: Settings, tally: &mut Tally) -> Result<(), Failure> {
    let Settings { plan, region_field, dedup } = settings;
    let mut publisher = publisher(plan)?;
    let (name, text) = read(docs)?;
    let found = Documents::parse(&text, &name, &publisher.plan().fields(), &region_field, &dedup).map_err(usage)?;
    drop(text);
    let given = tally.take_documents(found, &args.expect);
    let is_clean = given.is_clean && (!given.is_empty || args.allow_empty);
    // A region whose document is bad keeps what it has, as one that is missing does.
    let published = publisher.publish(&given.items, Extent::Whole { is_clean });
    tally.take_published(&given, &published, publisher.plan());
    if given.is_empty {
        tally.note_nothing(&name, &published, publisher.plan().url.name(), args.allow_empty);
    }
    Ok(())
}

/// The newest snapshot of each region of the pipeline's store.
fn publish_store(args: &Publish, config: &PublishConfig, plan: PublishPlan, tally: &mut Tally) -> Result<(), Failure> {
    if config.store.is_none() {
        let file = shown_path(&config.file);
        return Err(usage(format!("--all: {file} is no pipeline's file, so there is no store; give the documents")));
    }
    let url = addresses::store(args.store.as_ref(), config)?;
    // A clear word where there is no such store or pipeline.
    if !open_snapshots(&url)?.pipelines()?.contains(&config.name) {
        return Err(Failure::new(Code::Failed, format!("{url} knows no pipeline {}", config.name)));
    }
    let mut outbox = open_outbox(&url, &config.name)?;
    let mut publisher = publisher(plan)?;
    if let Some(signature) = outbox.signature()? {
        publisher.sign(&signature);
        // If the target is away, each region says so.
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
            "of {} {} has a higher number than this store, which was made anew: `forebay run` publishes them once it has caught up",
            counted(tally.count("stale") as u64, "region", "regions"),
            publisher.plan().url.name()
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
    on_publish::tell(tally.on_publish.as_ref(), &published);
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
pub(super) fn read_all(
    name: &str,
    from: impl Read,
    cannot: impl Fn(std::io::Error) -> Failure,
) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    from.take(DOCUMENTS_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(cannot)?;
    if text.len() > DOCUMENTS_BYTES_MAX {
        let line = text.iter().filter(|byte| **byte == b'\n').count() + 1;
        let most = DOCUMENTS_BYTES_MAX >> 20;
        return Err(usage(format!("{name}:{line}: the documents have more than {most} MiB; publish them in parts")));
    }
    Ok(text)
}
