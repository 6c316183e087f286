//! What the live numbers say of a run: whether it lives, is ready, is well, and if not, why and what to do.
//!
//! Pure: it is given the numbers. A part that is not well shows at once; the run as a whole is unhealthy only when that has
//! lasted for `stall`, since a database that restarts is no reason to wake anybody.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::model::address::without_logins;
use crate::model::limits::SEED_GRACE;
use crate::publish::{Pass, PassResult, PassesReading, Publishing, SeedStep};
use crate::run::{PulseReading, RunPhase, Watched};
use crate::store::StoreOutage;

/// What is over sooner is no outage.
const BLIP: Duration = Duration::from_secs(1);

/// The loop of a run turns many times a second: one that has not for so long does not live.
const STILL_MAX: Duration = Duration::from_secs(15);

/// What a seeder reads or publishes at once: thousands of regions, over a cluster that moves, take minutes.
const EXCHANGE_MAX: Duration = Duration::from_secs(10 * 60);

/// The numbers that say how a run is.
#[derive(Debug, Clone, Default)]
pub(super) struct Vitals {
    pub(super) phase: RunPhase,
    pub(super) block: Option<i64>,
    pub(super) pulse: PulseReading,
    pub(super) outage: StoreOutage,
    pub(super) publishing: Publishing,
    /// Why the source gives nothing, where it says so, and for how long.
    pub(super) trouble: Option<(String, Duration)>,
    /// For how long handlers have waited for events.
    pub(super) waits_for_source: Option<Duration>,
    /// For how long the source has not answered.
    pub(super) source_still_for: Duration,
    /// For how long handlers have been at work.
    pub(super) works_for: Option<Duration>,
    pub(super) batches_waiting: u64,
}

impl Vitals {
    /// Those of a run now.
    pub(super) fn of(watched: &Watched, source_still_for: Duration) -> Self {
        let meter = &watched.meter;
        let reading = meter.read();
        Self {
            phase: reading.phase,
            block: reading.checkpoint.block,
            pulse: meter.pulse_reading(),
            outage: meter.outages().read(),
            publishing: meter.publishing(),
            trouble: meter.source_trouble(),
            waits_for_source: meter.waits_for_source(),
            source_still_for,
            works_for: meter.works_for(),
            batches_waiting: reading.batches_waiting,
        }
    }
}

/// Why a run is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    StoreOutage,
    Handler,
    Publish,
    Source,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::StoreOutage => "store_outage",
            Self::Handler => "handler",
            Self::Publish => "publish",
            Self::Source => "source",
        }
    }
}

/// A part that is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    reason: Reason,
    message: String,
    lasts: Duration,
    /// It is not waited for.
    is_final: bool,
}

impl Fault {
    /// As no log would show a password either, nobody is shown one here.
    fn new(reason: Reason, message: &str, lasts: Duration) -> Self {
        Self { reason, message: without_logins(message).into_owned(), lasts, is_final: false }
    }
}

/// How a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    coordinator: Option<Fault>,
    store: Option<Fault>,
    source: Option<Fault>,
    publish: Option<Fault>,
    /// A seeder has none.
    has_store: bool,
    stall: Duration,
    pub(super) is_live: bool,
    /// Why it is not ready; none if it is.
    pub(super) unready: Option<String>,
}

/// Judges.
pub(super) fn judge(vitals: &Vitals, stall: Duration) -> Health {
    let store = store_fault(vitals, stall);
    let coordinator = coordinator_fault(vitals, stall);
    let is_still = vitals.pulse.still_for.is_some_and(|still| still >= STILL_MAX);
    let block = vitals.block.map_or_else(|| "no block".to_owned(), |block| format!("block {block}"));
    let unready = match (vitals.phase, &coordinator, &store) {
        (_, Some(fault), _) | (_, None, Some(fault)) => Some(fault.message.clone()),
        (RunPhase::Starting, ..) => Some("it is starting: it opens its store and its source".into()),
        (RunPhase::Backfill, ..) => {
            Some(format!("it has committed {block} and has not reached the end of its source yet"))
        }
        (RunPhase::Draining, ..) => Some("it is ending: it takes no more events and commits what it has begun".into()),
        (RunPhase::Ended, ..) => Some("it has ended".into()),
        (RunPhase::Live, ..) => None,
    };
    Health {
        coordinator,
        store,
        source: source_fault(vitals, stall),
        publish: publish_fault(vitals, stall),
        has_store: true,
        stall,
        is_live: !is_still && !vitals.pulse.hangs,
        unready,
    }
}

fn coordinator_fault(vitals: &Vitals, stall: Duration) -> Option<Fault> {
    let fault =
        |message: String, lasts, is_final| Some(Fault { is_final, ..Fault::new(Reason::Handler, &message, lasts) });
    let PulseReading { still_for, unmoved_for, hangs, .. } = vitals.pulse;
    if hangs {
        let message =
            "a handler has taken longer than handlers.timeout allows: the run ends; its last message names the event";
        return fault(message.into(), stall, true);
    }
    if let Some(still) = still_for.filter(|still| *still >= STILL_MAX) {
        return fault(format!("the run has not turned for {}: start it again", seconds(still)), still, true);
    }
    let works = vitals.works_for.filter(|_| vitals.outage.away_for.is_none())?.min(unmoved_for);
    if works < stall {
        return None;
    }
    let message = format!("a handler has been at one event for {}; handlers.timeout ends it", seconds(works));
    fault(message, works, false)
}

fn store_fault(vitals: &Vitals, stall: Duration) -> Option<Fault> {
    let fault = |message: String, lasts| Some(Fault::new(Reason::StoreOutage, &message, lasts));
    if let Some(away) = vitals.outage.away_for.filter(|away| *away >= BLIP) {
        let cause = &vitals.outage.cause;
        return fault(
            format!(
                "the store has been away for {}: {cause}; start it again, and the run goes on by itself",
                seconds(away)
            ),
            away,
        );
    }
    let unmoved = vitals.pulse.unmoved_for;
    let hangs = vitals.batches_waiting > 0 && vitals.works_for.is_none() && unmoved >= stall;
    if !hangs {
        return None;
    }
    fault(format!("a commit has taken {}: look at what the database is waiting for", seconds(unmoved)), unmoved)
}

fn source_fault(vitals: &Vitals, stall: Duration) -> Option<Fault> {
    let fault = |message: String, lasts| Some(Fault::new(Reason::Source, &message, lasts));
    if let Some((cause, lasts)) = vitals.trouble.as_ref().filter(|(_, lasts)| *lasts >= BLIP) {
        let for_ = seconds(*lasts);
        return fault(format!("the source has been away for {for_}: {cause}; the run goes on when it is back"), *lasts);
    }
    let silent = vitals.waits_for_source?.min(vitals.source_still_for);
    if silent < stall || vitals.phase != RunPhase::Backfill {
        return None;
    }
    fault(
        format!(
            "the source has given nothing for {} and has not ended; with --follow it may be silent",
            seconds(silent)
        ),
        silent,
    )
}

fn publish_fault(vitals: &Vitals, stall: Duration) -> Option<Fault> {
    let fault = |message: String, lasts| Some(Fault::new(Reason::Publish, &message, lasts));
    let Publishing { away, oldest, backlog, .. } = &vitals.publishing;
    if let Some((cause, lasts)) = away.as_ref().filter(|(_, lasts)| *lasts >= BLIP) {
        let for_ = seconds(*lasts);
        return fault(format!("nothing is published for {for_}: {cause}; snapshots wait in the store"), *lasts);
    }
    let oldest = oldest.filter(|oldest| *oldest >= stall)?;
    let regions = if *backlog == 1 { "1 region".to_owned() } else { format!("{backlog} regions") };
    fault(format!("{regions} not published, for {} by now; the log says why", seconds(oldest)), oldest)
}

fn seconds(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// Judges a seeder, whose command may take so long.
pub(super) fn judge_seeder(reading: &PassesReading, timeout: Duration, stall: Duration) -> Health {
    let last = reading.last();
    let ill_for = reading.ill_for.unwrap_or_default();
    let cause = last.and_then(|pass| pass.cause.as_deref()).unwrap_or("the log says more");
    let fault = |reason, message: &str| Some(Fault::new(reason, message, ill_for));
    let (mut source, mut publish) = (None, None);
    match last.map(|pass| (pass.result, pass.regions)) {
        Some((PassResult::NotComputed, _)) => {
            let message =
                format!("{cause}; nothing was published, what is there lives on, and the next pass tries again");
            source = fault(Reason::Source, &message);
        }
        Some((PassResult::NotPublished, _)) => {
            let message =
                format!("nothing was published: {cause}; readers keep what they have, and the next pass tries again");
            publish = fault(Reason::Publish, &message);
        }
        Some((PassResult::Incomplete, counts)) => {
            let regions = counts.failed + counts.stale;
            let regions = if regions == 1 { "1 region".to_owned() } else { format!("{regions} regions") };
            publish = fault(Reason::Publish, &format!("{regions} not published in the last pass: {cause}"));
        }
        _ => {}
    }
    let coordinator = seeder_fault(reading, timeout);
    let unready = match (&coordinator, last, reading.is_stopping) {
        (Some(fault), ..) => Some(fault.message.clone()),
        (None, _, true) => Some("it is ending: it gives the lock back".into()),
        (None, None, _) => Some("its first pass has not ended yet".into()),
        (None, Some(_), _) if source.is_some() => source.as_ref().map(|fault| fault.message.clone()),
        (None, Some(Pass { result: PassResult::NotPublished, .. }), _) => {
            publish.as_ref().map(|fault| fault.message.clone())
        }
        _ => None,
    };
    let is_live = coordinator.is_none();
    Health { coordinator, store: None, source, publish, has_store: false, stall, is_live, unready }
}

/// A seeder that does not come back: its loop turns while it waits and while its command computes, and within Redis each
/// wait has its end.
fn seeder_fault(reading: &PassesReading, timeout: Duration) -> Option<Fault> {
    let PassesReading { step, step_for, still_for, .. } = reading;
    let (is_over, span) = match step {
        SeedStep::Reading | SeedStep::Publishing => (*step_for >= EXCHANGE_MAX, step_for),
        SeedStep::Computing if *step_for >= timeout + SEED_GRACE + STILL_MAX => (true, step_for),
        _ => (*still_for >= STILL_MAX, still_for),
    };
    let doing = match step {
        SeedStep::Waiting => "the seeder has not turned",
        SeedStep::Reading => "Redis has been read",
        SeedStep::Computing => "the command has not come to its end",
        SeedStep::Publishing => "documents have been on their way to Redis",
    };
    let message = format!("{doing} for {}: start it again", seconds(*span));
    is_over.then(|| Fault { is_final: true, ..Fault::new(Reason::Handler, &message, *span) })
}

impl Health {
    /// The fault to tell first: what has lasted too long, then what comes first.
    fn worst(&self) -> Option<&Fault> {
        let all = [&self.coordinator, &self.store, &self.source, &self.publish];
        let mut faults = all.into_iter().flatten();
        faults.clone().find(|fault| self.is_too_long(fault)).or_else(|| faults.next())
    }

    fn is_too_long(&self, fault: &Fault) -> bool {
        fault.is_final || fault.lasts >= self.stall
    }

    /// Whether all is well, or has not been otherwise for long.
    pub(super) fn is_ok(&self) -> bool {
        self.worst().is_none_or(|fault| !self.is_too_long(fault))
    }

    /// The reason, if a part is not well.
    pub(super) fn reason(&self) -> Option<&'static str> {
        self.worst().map(|fault| fault.reason.name())
    }

    /// All of it.
    pub(super) fn to_json(&self, now: crate::Timestamp) -> Json {
        let part = |fault: &Option<Fault>| json!({ "ok": fault.is_none(), "message": fault.as_ref().map(|fault| &fault.message) });
        let worst = self.worst();
        let mut parts = json!({
            "coordinator": part(&self.coordinator),
            "publish": part(&self.publish),
            "source": part(&self.source),
        });
        if self.has_store {
            parts["store"] = part(&self.store);
        }
        json!({
            "ok": self.is_ok(),
            "reason": self.reason(),
            "message": worst.map(|fault| &fault.message),
            "since": worst.map(|fault| now.saturating_sub(fault.lasts).to_millis_text()),
            "parts": parts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::{PassCounts, Passes};

    const STALL: Duration = Duration::from_secs(60);

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn live() -> Vitals {
        let pulse = PulseReading { still_for: Some(s(0)), unmoved_for: s(600), hangs: false, uptime: s(700) };
        Vitals { phase: RunPhase::Live, pulse, source_still_for: s(0), ..Vitals::default() }
    }

    #[track_caller]
    fn seen(vitals: &Vitals) -> (bool, bool, bool, Option<&'static str>) {
        let health = judge(vitals, STALL);
        (health.is_live, health.unready.is_none(), health.is_ok(), health.reason())
    }

    #[test]
    fn a_quiet_source_is_well_and_each_phase_says_whether_it_is_ready() {
        assert_eq!(seen(&live()), (true, true, true, None));
        for phase in [RunPhase::Starting, RunPhase::Backfill, RunPhase::Draining, RunPhase::Ended] {
            assert_eq!(seen(&Vitals { phase, ..live() }), (true, false, true, None), "{phase:?}");
        }
    }

    #[test]
    fn an_outage_of_the_store_shows_at_once_and_is_unhealthy_after_a_while() {
        let away = |seconds| {
            let outage = StoreOutage { away_for: Some(s(seconds)), cause: "refused".into(), ..StoreOutage::default() };
            Vitals { outage, batches_waiting: 1, ..live() }
        };
        assert_eq!(seen(&away(0)), (true, false, false, Some("store_outage")), "the batch waits for long already");
        assert_eq!(seen(&Vitals { batches_waiting: 0, ..away(0) }), (true, true, true, None));
        assert_eq!(seen(&Vitals { batches_waiting: 0, ..away(5) }), (true, false, true, Some("store_outage")));
        assert_eq!(seen(&away(60)), (true, false, false, Some("store_outage")));
    }

    #[test]
    fn a_handler_that_hangs_is_not_live_and_one_that_is_slow_is_unhealthy() {
        let works = Vitals { works_for: Some(s(50)), ..live() };
        assert_eq!(seen(&works), (true, true, true, None));
        assert_eq!(seen(&Vitals { works_for: Some(s(70)), ..live() }), (true, false, false, Some("handler")));
        let hangs = PulseReading { hangs: true, ..live().pulse };
        assert_eq!(seen(&Vitals { pulse: hangs, ..live() }), (false, false, false, Some("handler")));
        let still = PulseReading { still_for: Some(s(20)), ..live().pulse };
        assert_eq!(seen(&Vitals { pulse: still, ..live() }), (false, false, false, Some("handler")));
        let before = PulseReading { still_for: None, ..live().pulse };
        assert!(seen(&Vitals { pulse: before, phase: RunPhase::Starting, ..live() }).0);
    }

    #[test]
    fn a_source_that_is_away_and_snapshots_that_are_not_published_have_their_reasons() {
        let trouble = |seconds| Vitals { trouble: Some(("refused".into(), s(seconds))), ..live() };
        assert_eq!(seen(&trouble(5)), (true, true, true, Some("source")));
        assert_eq!(seen(&trouble(90)), (true, true, false, Some("source")));
        let silent = Vitals { waits_for_source: Some(s(80)), source_still_for: s(70), ..live() };
        assert_eq!(seen(&silent), (true, true, true, None));
        let silent = Vitals { phase: RunPhase::Backfill, ..silent };
        assert_eq!(seen(&silent), (true, false, false, Some("source")));
        let publishing = |seconds| Publishing { backlog: 3, oldest: Some(s(seconds)), ..Publishing::default() };
        assert_eq!(seen(&Vitals { publishing: publishing(5), ..live() }), (true, true, true, None));
        assert_eq!(seen(&Vitals { publishing: publishing(61), ..live() }), (true, true, false, Some("publish")));
    }

    fn seen_of_seeder(passes: &Passes, timeout: Duration) -> (bool, bool, bool, Option<&'static str>) {
        let health = judge_seeder(&passes.read(), timeout, Duration::ZERO);
        (health.is_live, health.unready.is_none(), health.is_ok(), health.reason())
    }

    #[test]
    fn a_seeder_is_ready_after_a_pass_that_published_and_unwell_after_one_that_did_not() {
        let passes = Passes::default();
        let timeout = s(600);
        assert_eq!(seen_of_seeder(&passes, timeout), (true, false, true, None), "its first pass has not ended");
        for (result, expected) in [
            (PassResult::Done, (true, true, true, None)),
            (PassResult::NotComputed, (true, false, false, Some("source"))),
            (PassResult::NotPublished, (true, false, false, Some("publish"))),
            (PassResult::Incomplete, (true, true, false, Some("publish"))),
            (PassResult::Held, (true, true, true, None)),
        ] {
            passes.begin();
            passes.end(result, Some("refused".into()), PassCounts::default());
            assert_eq!(seen_of_seeder(&passes, timeout), expected, "{result:?}");
        }
        // What was not well lasts until a pass is.
        passes.begin();
        passes.end(PassResult::NotComputed, None, PassCounts::default());
        passes.begin();
        assert!(!seen_of_seeder(&passes, timeout).2);
        let health = judge_seeder(&passes.read(), timeout, STALL);
        assert!(health.is_ok() && health.reason() == Some("source"), "not for as long as --stall");
        let shown = health.to_json(crate::Timestamp::now());
        assert_eq!(shown["parts"].as_object().map(|parts| parts.contains_key("store")), Some(false));
        passes.stop();
        assert_eq!(
            judge_seeder(&passes.read(), timeout, STALL).unready.as_deref(),
            Some("it is ending: it gives the lock back")
        );
    }

    #[test]
    fn a_seeder_that_does_not_turn_is_not_live() {
        let reading = Passes::default().read();
        let is_live = |step, step_for, still_for| {
            let reading = PassesReading { step, step_for, still_for, ..reading.clone() };
            judge_seeder(&reading, s(100), STALL).is_live
        };
        assert!(is_live(SeedStep::Waiting, s(9000), s(1)) && !is_live(SeedStep::Waiting, s(20), s(20)));
        assert!(is_live(SeedStep::Computing, s(100), s(0)) && !is_live(SeedStep::Computing, s(150), s(0)));
        assert!(is_live(SeedStep::Publishing, s(300), s(300)) && !is_live(SeedStep::Publishing, s(700), s(700)));
    }

    #[test]
    fn what_is_told_says_what_to_do() {
        let outage = StoreOutage { away_for: Some(s(90)), cause: "refused".into(), ..StoreOutage::default() };
        let health = judge(&Vitals { outage, ..live() }, STALL);
        let shown = health.to_json(crate::Timestamp::now());
        assert_eq!(shown["parts"]["store"]["ok"], false);
        assert_eq!(shown["parts"]["source"], json!({ "ok": true, "message": null }));
        let message = shown["message"].as_str().expect("a message");
        assert!(message.contains("away for 90 s: refused; start it again"), "{message}");
        assert!(shown["since"].as_str().is_some_and(|since| since.ends_with('Z')));
    }
}
