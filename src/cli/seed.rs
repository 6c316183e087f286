//! `forebay seed`: the whole of a cron job that computes one document a region.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay::config::{PublishConfig, SeedConfig};
use forebay::limits::SEED_LOCK_MIN;
use forebay::publish::{
    Begun, Document, Documents, LatestInTarget, LockHolder, OnPublish, PassCounts, PassResult, Passes, PublishError,
    Published, SeedTurn, Seeder,
};
#[cfg(feature = "serve")]
use forebay::serve::WatchedSeeder;
use forebay::store::StoredSnapshot;
use serde_json::json;

use super::args::{Global, Seed};
use super::exit::{Code, Failure};
use super::on_publish;
use super::out::{plain, print_json, print_text};
use super::publishing::{Settings, not_ready, positive};
use super::read::one_line;
use super::run::stop_on_signals;
use super::subprocess::{self, Halt};
use super::tally::{Given, Tally, what_is_there};
use super::usage;

/// How often is looked whether a wait is to end.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn seed(args: &Seed, global: &Global) -> Result<Code, Failure> {
    let config = args.how.config.as_ref().map(|file| PublishConfig::read(file)).transpose()?;
    let mut settings = Settings::new(&args.how, config.as_ref())?;
    settings.plan.timeout = positive(args.redis_timeout, "--redis-timeout")?.unwrap_or(settings.plan.timeout);
    let SeedConfig { lock, timeout, .. } = config.map_or_else(SeedConfig::default, |config| config.seed);
    let lock = args.lock.unwrap_or(lock);
    if lock < SEED_LOCK_MIN {
        return Err(usage(format!("--lock: expected at least {} s", SEED_LOCK_MIN.as_secs())));
    }
    let timeout = positive(args.timeout, "--timeout")?.unwrap_or(timeout);
    let every = positive(args.every, "--every")?;
    #[cfg(feature = "serve")]
    if args.server.listen.is_some() && every.is_none() {
        return Err(usage("--listen: it needs --every, since a seeder that seeds once has ended before anybody asks"));
    }
    let is_stopped = Arc::new(AtomicBool::new(false));
    stop_on_signals(&is_stopped)?;
    #[cfg(feature = "serve")]
    let listening = super::serve::listen(&args.server)?;
    let told = on_publish::start(args.how.on_publish.as_ref(), &settings.plan.pipeline, args.how.on_publish_timeout)?;
    let seeder = Seeder::new(settings.plan.clone(), lock).map_err(not_ready)?;
    let passes = Passes::default();
    let mut job = Job { args, global, settings, timeout, seeder, is_stopped, on_publish: told, passes };
    if args.dry_run {
        return job.dry_run();
    }
    let Some(every) = every else {
        let ended = job.once();
        on_publish::finish(job.on_publish.take());
        return ended;
    };
    #[cfg(feature = "serve")]
    let _serving = listening.map(|one| super::serve::serve_seeder(one, job.watched(every), global)).transpose()?;
    job.again_and_again(every);
    on_publish::finish_soon(job.on_publish.take());
    Ok(Code::Stopped)
}

/// What is done, once or again and again.
struct Job<'a> {
    args: &'a Seed,
    global: &'a Global,
    settings: Settings,
    timeout: Duration,
    seeder: Seeder,
    is_stopped: Arc<AtomicBool>,
    on_publish: Option<OnPublish>,
    /// What it does, for who watches it.
    passes: Passes,
}

impl Job<'_> {
    /// What is shown of it.
    #[cfg(feature = "serve")]
    fn watched(&self, every: Duration) -> WatchedSeeder {
        let mut watched = WatchedSeeder::new(&self.settings.plan.pipeline, self.passes.clone(), every, self.timeout);
        // Arguments may hold secrets, and everybody who may ask would see them.
        watched.command = self
            .args
            .command
            .first()
            .map_or_else(String::new, |program| plain(&program.to_string_lossy()).into_owned());
        watched.target = self.settings.plan.url.to_string();
        watched
    }

    /// Does it until it is stopped.
    fn again_and_again(&mut self, every: Duration) {
        loop {
            let begun = Instant::now();
            if let Err(failure) = self.once() {
                #[cfg(feature = "serve")]
                failure.note();
                let _ = failure.tell(self.global);
            }
            self.passes.wait(every.saturating_sub(begun.elapsed()));
            while begun.elapsed() < every && !self.is_stopped() {
                std::thread::park_timeout(LOOK.min(every.saturating_sub(begun.elapsed())));
                self.passes.turn();
            }
            if self.is_stopped() {
                return self.passes.stop();
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    fn once(&mut self) -> Result<Code, Failure> {
        let Self { args, global, settings, timeout, seeder, is_stopped, on_publish, passes } = self;
        let started = Instant::now();
        let ends = |result, cause: String| passes.end(result, Some(cause), PassCounts::default());
        passes.begin();
        let begun = seeder.begin();
        let turn = match begun.inspect_err(|error| ends(PassResult::NotPublished, shown(error)))? {
            Begun::Turn(turn) => turn,
            Begun::Held(holder) => {
                ends(PassResult::Held, shown(&holder));
                return held(&holder, args, global);
            }
        };
        tell_refused(turn.refused());
        passes.compute(turn.previous());
        let is_over = || {
            passes.turn();
            let stops = is_stopped.load(Ordering::Relaxed);
            if stops {
                passes.stop();
            }
            stops || turn.is_lost()
        };
        let written = subprocess::run(&args.command, lines(turn.previous()), *timeout, is_over);
        passes.publish();
        let documents = match written {
            Ok(text) => read(&text, settings),
            Err(Halt::Failed(cause)) => Err(cause),
            Err(Halt::Stopped) if is_stopped.load(Ordering::Relaxed) => {
                // The lock is given back with the turn.
                drop(turn);
                return Err(Failure::new(Code::Stopped, "stopped by a signal: nothing was published"));
            }
            Err(Halt::Stopped) => {
                let _ = turn.give_up();
                ends(PassResult::NotPublished, shown(&PublishError::Unlocked));
                return Err(Failure::new(Code::Failed, PublishError::Unlocked));
            }
        };
        let mut tally = Tally::default();
        match documents {
            Ok(found) => {
                let given = tally.take_documents(found, &args.expect);
                let published = turn.publish(&given.items, given.is_clean);
                on_publish::tell(on_publish.as_ref(), &published);
                tally.take_published(&given, &published, &settings.plan);
                tally.wall = started.elapsed();
                note(passes, &tally, &given, &published);
                tally.tell(args.json, global)
            }
            Err(cause) => {
                let failure = give_up(turn, &cause, settings.plan.url.name());
                ends(PassResult::NotComputed, shown(&cause));
                Err(failure)
            }
        }
    }

    /// Shows what would change.
    fn dry_run(&mut self) -> Result<Code, Failure> {
        let LatestInTarget { found: previous, refused, .. } = self.seeder.look()?;
        tell_refused(&refused);
        let written = subprocess::run(&self.args.command, lines(&previous), self.timeout, || self.is_stopped());
        let text = written.map_err(|halt| match halt {
            Halt::Failed(cause) => Failure::new(Code::Failed, cause),
            Halt::Stopped => Failure::new(Code::Stopped, "stopped by a signal"),
        })?;
        let found = read(&text, &self.settings).map_err(|cause| Failure::new(Code::Failed, cause))?;
        let before = read(&lines(&previous), &self.settings).unwrap_or_default();
        let changes = changes(&found, &before, &previous);
        match self.args.json {
            true => print_json(changes.iter().map(Change::json)),
            false => print_text(changes.iter().map(Change::text)),
        }?;
        let is_failed = changes.iter().any(|change| matches!(change.status, "failed" | "stale"));
        Ok(if is_failed { Code::Unpublished } else { Code::Done })
    }
}

/// Notes down what became of the documents of a pass.
fn note(passes: &Passes, tally: &Tally, given: &Given, published: &Published) {
    let counts = passes.published(published.wall, tally.regions(given));
    let result = match (tally.is_done(), counts.published + counts.unchanged) {
        (true, _) => PassResult::Done,
        (false, 0) => PassResult::NotPublished,
        (false, _) => PassResult::Incomplete,
    };
    passes.end(result, tally.first_error(), counts);
}

/// Fit for whoever watches.
fn shown(text: &dyn std::fmt::Display) -> String {
    plain(&text.to_string()).into_owned()
}

/// Another one is at it.
fn held(holder: &LockHolder, args: &Seed, global: &Global) -> Result<Code, Failure> {
    if args.json {
        print_json([json!({ "held_by": holder.by, "since": holder.since })])?;
    } else if !global.quiet {
        print_text([format!("another one has the lock: {}", plain(&holder.to_string()))])?;
    }
    Ok(if args.lock_fail { Code::Locked } else { Code::Done })
}

fn tell_refused(refused: &[(String, PublishError)]) {
    for (region, error) in refused {
        tracing::warn!("{}: its newest document cannot be read: {}", plain(region), plain(&error.to_string()));
    }
}

/// Documents, one a line.
fn lines(documents: &[StoredSnapshot]) -> Vec<u8> {
    let mut text = String::new();
    for snapshot in documents {
        let _ = writeln!(text, "{}", one_line(&snapshot.doc));
    }
    text.into_bytes()
}

/// The documents that a command wrote; or why there is nothing to publish.
fn read(text: &[u8], settings: &Settings) -> Result<Documents, String> {
    let Settings { plan, region_field, dedup } = settings;
    let found = Documents::parse(text, "stdout", &plan.fields(), region_field, dedup);
    let found = found.map_err(|error| error.to_string())?;
    let mut errors = found.documents.iter().map(|document| document.publication.as_ref().err());
    match (found.documents.is_empty(), errors.clone().all(|error| error.is_some())) {
        (true, _) => Err("the command wrote no document".to_owned()),
        (_, true) => {
            let first = errors.find_map(|error| error.map(PublishError::to_string)).unwrap_or_default();
            Err(format!("the command wrote no document that can be published: {first}"))
        }
        _ => Ok(found),
    }
}

/// Publishes nothing, and says what lives on.
fn give_up(turn: SeedTurn<'_>, cause: &str, target: &str) -> Failure {
    let published = turn.give_up();
    if let Some(warning) = &published.warning {
        tracing::warn!("{warning}");
    }
    for (region, cause) in &published.unkept {
        tracing::error!("{}: it was not kept: {}", plain(region), plain(cause));
    }
    let rest = match published.is_unlocked {
        true => "the lock was lost besides".to_owned(),
        false => what_is_there(&published, target),
    };
    Failure::new(Code::Failed, format!("{}: nothing was published, and {rest}", plain(cause)))
}

/// What would become of a region.
struct Change {
    region: String,
    status: &'static str,
    id: Option<String>,
    before: Option<String>,
    error: Option<String>,
}

impl Change {
    fn json(&self) -> serde_json::Value {
        let Self { region, status, id, before, error } = self;
        let mut line = json!({ "region": region, "status": status, "id": id, "previous_id": before });
        if let Some(error) = error {
            line["error"] = error.as_str().into();
        }
        line
    }

    fn text(&self) -> String {
        let Self { region, status, id, before, error } = self;
        let id = id.as_deref().map_or_else(String::new, |id| format!("  {id}"));
        let before = before.as_deref().map_or_else(String::new, |before| format!("  (now {before})"));
        let error = error.as_deref().map_or_else(String::new, |error| format!("  {error}"));
        plain(&format!("{status:<10} {region}{id}{before}{error}")).into_owned()
    }
}

fn changes(found: &Documents, before: &Documents, previous: &[StoredSnapshot]) -> Vec<Change> {
    let hash = |document: &Document| document.publication.as_ref().ok().map(|publication| publication.hash.clone());
    let hashes: BTreeMap<String, Option<String>> = before
        .documents
        .iter()
        .filter_map(|document| Some((document.region.as_ref()?.to_string(), hash(document))))
        .collect();
    let mut there: BTreeMap<&str, &StoredSnapshot> =
        previous.iter().map(|snapshot| (snapshot.region.as_str(), snapshot)).collect();
    let mut changes = Vec::new();
    for document in &found.documents {
        let region = document.region.as_deref().unwrap_or_default().to_owned();
        let newest = there.remove(region.as_str());
        let is_same = hashes.get(&region).is_some_and(|there| there.is_some() && *there == hash(document));
        let (status, id, error) = match (&document.publication, newest) {
            (Err(error), _) => ("failed", None, Some(error.to_string())),
            (Ok(new), None) => ("new", Some(new.id.clone()), None),
            (Ok(_), Some(_)) if is_same => ("unchanged", None, None),
            (Ok(new), Some(there)) if there.seq.is_some_and(|there| there > new.seq) => {
                ("stale", Some(new.id.clone()), None)
            }
            (Ok(new), Some(_)) => ("changed", Some(new.id.clone()), None),
        };
        changes.push(Change { region, status, id, before: newest.map(|newest| newest.id.clone()), error });
    }
    let kept = |(region, newest): (&str, &StoredSnapshot)| Change {
        region: region.to_owned(),
        status: "kept",
        id: None,
        before: Some(newest.id.clone()),
        error: None,
    };
    changes.extend(there.into_iter().map(kept));
    changes
}
