//! What became of each region of a publish, and how it is told.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use forebay::Timestamp;
use forebay::limits::SEQ_AHEAD_MAX;
use forebay::publish::{
    Documents, OnPublish, Publication, PublishPlan, PublishReceipt, PublishStatus, Published, RegionPass, RegionResult,
};
use serde_json::{Value as Json, json};

use super::args::Global;
use super::exit::{Code, Failure};
use super::on_publish;
use super::out::{count, counted, plain, print_json, print_text};

/// Regions that are named for one cause; the others are counted.
const REGIONS_NAMED_MAX: usize = 100;

/// What is said of one region.
pub(super) struct Line {
    region: Option<String>,
    status: &'static str,
    id: Option<String>,
    /// The number of what was to be published.
    pub(super) seq: Option<u64>,
    /// The number of what is newer there.
    newest_seq: Option<u64>,
    took: Duration,
    error: Option<String>,
}

impl Line {
    pub(super) fn pending(item: &Publication) -> Self {
        Self { seq: Some(item.seq), ..Self::failed(Some(&item.region), Some(&item.id), "it was not tried") }
    }

    pub(super) fn failed(region: Option<&str>, id: Option<&str>, error: &str) -> Self {
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
    pub(super) fn of(receipt: &PublishReceipt, seq: u64, plan: &PublishPlan) -> Self {
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

/// What is said of a snapshot that is older than what is there.
fn stale_text(receipt: &PublishReceipt, seq: u64, plan: &PublishPlan) -> String {
    let target = plan.url.name();
    if plan.signature.is_some() {
        return format!("{target} has number {} of it, which is newer than {seq}: it stays", receipt.seq);
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
            "; its time is ahead of the clock (now {}), so it was wrong when it was written: delete the key {} in {target}, \
             then publish again",
            now.to_millis_text(),
            plain(&plan.seq_key(&receipt.region))
        ),
        false => String::new(),
    };
    format!("{target} has number {} of it, which is newer than {}: it stays{advice}", told(receipt.seq), told(seq))
}

fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// What is said of all.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) lines: Vec<Line>,
    /// Expected regions that were not given, though they have data.
    missing: usize,
    /// Why it is a failure that there was nothing to publish.
    pub(super) nothing: Option<String>,
    pub(super) round_trips: u32,
    pub(super) wall: Duration,
    /// What runs a command for each region that was published.
    pub(super) on_publish: Option<OnPublish>,
}

/// Documents that were given.
pub(super) struct Given {
    /// Those that can be published.
    pub(super) items: Vec<Publication>,
    /// The lines of those.
    places: Vec<usize>,
    /// Regions that were expected and are not among them.
    missing: Vec<String>,
    /// Whether each can be published, and none is missing.
    pub(super) is_clean: bool,
    /// Whether there was none.
    pub(super) is_empty: bool,
}

impl Tally {
    /// Takes in documents, of which those of the regions in `expect` must be there.
    pub(super) fn take_documents(&mut self, found: Documents, expect: &[String]) -> Given {
        let expected: BTreeSet<String> = expect.iter().map(|region| region.trim().to_owned()).collect();
        let is_given =
            |region: &String| found.documents.iter().any(|one| one.region.as_deref() == Some(region.as_str()));
        let missing: Vec<String> =
            expected.into_iter().filter(|region| !region.is_empty() && !is_given(region)).collect();
        let (mut items, mut places) = (Vec::new(), Vec::new());
        for document in found.documents {
            match document.publication {
                Ok(publication) => {
                    places.push(self.lines.len());
                    self.lines.push(Line::pending(&publication));
                    items.push(publication);
                }
                Err(error) => self.lines.push(Line::failed(document.region.as_deref(), None, &error.to_string())),
            }
        }
        let is_clean = items.len() == self.lines.len() && missing.is_empty();
        Given { items, places, missing, is_clean, is_empty: self.lines.is_empty() }
    }

    /// Takes in what became of them.
    pub(super) fn take_published(&mut self, given: &Given, published: &Published, plan: &PublishPlan) {
        for (place, receipt) in given.places.iter().zip(&published.receipts) {
            let seq = self.lines[*place].seq;
            self.lines[*place] = Line::of(receipt, seq.unwrap_or_default(), plan);
        }
        if let Some(region) = published.of_stores.first() {
            tracing::warn!(
                "a store publishes {} of these too ({} for one): its next run replaces what is given by hand",
                counted(published.of_stores.len() as u64, "region", "regions"),
                plain(region)
            );
        }
        self.take_kept(published, &given.missing);
        self.round_trips = published.round_trips;
        on_publish::tell(self.on_publish.as_ref(), published);
        self.warn(published);
    }

    /// Notes that there was no document: somebody may have died before he wrote any.
    pub(super) fn note_nothing(&mut self, name: &str, published: &Published, target: &str, allows_empty: bool) {
        let there = what_is_there(published, target);
        self.nothing = match (allows_empty, published.is_unreachable) {
            (true, false) => None,
            (true, true) => Some(format!("{name} holds no document, and {there}")),
            (false, _) => Some(format!(
                "{name} holds no document: nothing was published, and {there}. If that was meant, give --allow-empty"
            )),
        };
    }

    pub(super) fn take_kept(&mut self, published: &Published, missing: &[String]) {
        let given: Vec<String> = self.lines.iter().filter_map(|line| line.region.clone()).collect();
        let is_expected = |region: &String| missing.contains(region);
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
            .filter(|region| !published.kept.iter().any(|kept| kept.region == **region))
        {
            self.lines.push(Line {
                region: Some(region.clone()),
                status: "failed",
                id: None,
                seq: None,
                newest_seq: None,
                took: Duration::ZERO,
                error: absent(),
            });
        }
    }

    pub(super) fn warn(&self, published: &Published) {
        for warning in published.warning.iter().chain(&published.untold) {
            tracing::warn!("{warning}");
        }
    }

    pub(super) fn count(&self, status: &str) -> usize {
        self.lines.iter().filter(|line| line.status == status).count()
    }

    pub(super) fn tell(&self, is_json: bool, global: &Global) -> Result<Code, Failure> {
        if is_json {
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
        Ok(if self.is_done() { Code::Done } else { Code::Unpublished })
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

    /// Whether every region is where readers look.
    pub(super) fn is_done(&self) -> bool {
        self.nothing.is_none() && self.count("failed") + self.count("stale") + self.missing == 0
    }

    /// The first thing that went wrong, with its region; and how many more.
    pub(super) fn first_error(&self) -> Option<String> {
        let mut errors = self.lines.iter().filter_map(|line| Some((line, line.error.as_deref()?)));
        let (line, error) = errors.next()?;
        let region = line.region.as_ref().map_or_else(String::new, |region| format!("{}: ", plain(region)));
        let more = match errors.count() {
            0 => String::new(),
            more => format!(" (and {} more)", count(more as u64)),
        };
        Some(format!("{region}{}{more}", plain(error)))
    }

    /// What became of each region, for who watches.
    pub(super) fn regions(&self, given: &Given) -> Vec<RegionPass> {
        let made: HashMap<&str, Timestamp> = given.items.iter().map(|item| (item.region.as_ref(), item.time)).collect();
        let of = |line: &Line| {
            let region = line.region.clone()?;
            let result = match line.status {
                "published" => RegionResult::Published,
                "duplicate" => RegionResult::Unchanged,
                "stale" => RegionResult::Stale,
                "kept" => RegionResult::Kept,
                _ => RegionResult::Failed,
            };
            let mut pass = RegionPass::new(region, result);
            pass.made_at = made.get(pass.region.as_str()).copied();
            (pass.id, pass.error) = (line.id.clone(), line.error.as_ref().map(|error| plain(error).into_owned()));
            Some(pass)
        };
        self.lines.iter().filter_map(of).collect()
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

/// What the target has after a publish of nothing.
pub(super) fn what_is_there(published: &Published, target: &str) -> String {
    match published.kept.len() + published.unkept.len() {
        _ if published.is_unreachable => format!("what {target} has is not known"),
        _ if published.warning.is_some() => format!("what {target} has was left alone"),
        0 => format!("{target} has nothing of this pipeline"),
        kept => format!("what {target} has of {} lives on", counted(kept as u64, "region", "regions")),
    }
}
