//! How a run stands: a bar on a terminal, or a line of state where it goes on at the end of its source; a plain line now and
//! then elsewhere, as long as something moves. Each phase is told once.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay::{Meter, Reading, RunPhase};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::{Global, LogFormat};
use super::out::{age, count};

/// How often a plain line is printed.
const LINE_STEP: Duration = Duration::from_secs(10);

/// Over how long a rate is: it follows what happens, and does not flicker.
const RATE_STEP: Duration = Duration::from_secs(2);

/// Parts of the bar: the share of the source that is read, in thousandths.
const PARTS: u64 = 1000;

#[derive(Clone)]
pub(super) struct Bar(Arc<Mutex<BarState>>);

struct BarState {
    bar: Option<ProgressBar>,
    meter: Meter,
    follows: bool,
    phase: RunPhase,
    rate: Rate,
    lines: Lines,
}

/// When a plain line is printed.
struct Lines {
    at: Instant,
    /// What was handled and committed when one was printed last.
    of: (u64, u64),
}

/// Events a second.
struct Rate {
    at: Instant,
    events: u64,
    per_second: u64,
}

impl Bar {
    pub(super) fn new(global: &Global, meter: Meter, follows: bool) -> Self {
        let is_shown = !global.quiet && global.log_format == LogFormat::Text && std::io::stderr().is_terminal();
        let now = Instant::now();
        Self(Arc::new(Mutex::new(BarState {
            bar: is_shown.then(|| make_bar(follows)),
            meter,
            follows,
            phase: RunPhase::Starting,
            rate: Rate { at: now, events: 0, per_second: 0 },
            lines: Lines { at: now, of: (0, 0) },
        })))
    }

    /// Shows how the run stands now.
    pub(super) fn show(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = state.meter.read();
        state.rate.note(reading.events, reading.phase);
        state.tell_phase(&reading);
        let message = state.message(&reading);
        if state.bar.is_none() && state.lines.is_due(&reading, Instant::now()) {
            tracing::info!("{} events, {message}", count(reading.events));
            return;
        }
        if let Some(bar) = &state.bar {
            if let Some(total) = reading.source_bytes_total.filter(|total| *total > 0 && !state.follows) {
                bar.set_length(PARTS);
                bar.set_position(reading.source_bytes_read.min(total) * PARTS / total);
            }
            bar.set_message(message);
            bar.tick();
        }
    }

    pub(super) fn clear(&self) {
        if let Some(bar) = &self.0.lock().unwrap_or_else(PoisonError::into_inner).bar {
            bar.finish_and_clear();
        }
    }
}

impl Lines {
    /// Whether the last one was long enough ago, and anything was handled or committed since.
    fn is_due(&mut self, reading: &Reading, now: Instant) -> bool {
        let of = (reading.events, reading.batches);
        let is_due =
            now.saturating_duration_since(self.at) >= LINE_STEP && (self.of != of || reading.batches_waiting > 0);
        if is_due {
            (self.at, self.of) = (now, of);
        }
        is_due
    }
}

impl BarState {
    /// Tells a phase when it begins, where a run has more than one.
    fn tell_phase(&mut self, reading: &Reading) {
        if !self.follows || std::mem::replace(&mut self.phase, reading.phase) == reading.phase {
            return;
        }
        let block = block(reading.checkpoint.block);
        let line = match reading.phase {
            // It may have committed something by the time that it is looked at.
            RunPhase::Backfill => match (reading.checkpoint.batch.saturating_sub(reading.batches), reading.batches) {
                (0, _) => "backfill: from the beginning of the source".to_owned(),
                (_, 0) => format!("backfill: going on behind block {block}"),
                _ => "backfill: going on behind what the last run committed".to_owned(),
            },
            RunPhase::Live => format!("live: the end of the source is reached, block {block}"),
            RunPhase::Draining => "draining: what was begun is being committed".to_owned(),
            _ => return,
        };
        match &self.bar {
            Some(bar) => bar.suspend(|| tracing::info!("{line}")),
            None => tracing::info!("{line}"),
        }
    }

    fn message(&self, reading: &Reading) -> String {
        let (rate, waiting) = (count(self.rate.per_second), reading.batches_waiting);
        let handled = block(reading.block);
        if !self.follows {
            let batches = if waiting == 1 { "batch" } else { "batches" };
            return format!("block {handled}  {rate} events/s  {waiting} {batches} waiting");
        }
        let blocks = reading.source_block.zip(reading.checkpoint.block).map(|(read, done)| read.saturating_sub(done));
        let seconds = reading
            .source_time
            .map(|time| (forebay::Timestamp::now().as_micros() - time.as_micros()).max(0) / 1_000_000);
        let behind = match (seconds, blocks.filter(|blocks| *blocks > 0)) {
            (Some(seconds), _) => format!(", {} behind", age(seconds)),
            (None, Some(blocks)) => {
                format!(", {} behind", super::out::counted(blocks.unsigned_abs(), "block", "blocks"))
            }
            (None, None) => String::new(),
        };
        let away = self.meter.outages().read().away_for.filter(|away| away.as_secs() > 0);
        let limit = match away {
            Some(away) => format!(", the store is away for {} s", away.as_secs()),
            None => reading
                .limit()
                .map_or_else(String::new, |limit| format!(", {}", limit.split([':', ';']).next().unwrap_or_default())),
        };
        format!("{}  block {}{behind}, {rate} events/s{limit}", reading.phase.name(), block(reading.checkpoint.block))
    }
}

fn block(block: Option<i64>) -> String {
    block.map_or_else(|| "none".to_owned(), |block| block.to_string())
}

impl Rate {
    fn note(&mut self, events: u64, phase: RunPhase) {
        let passed = self.at.elapsed();
        // The first one comes early: nobody likes to see a zero.
        let step = if self.events == 0 && phase < RunPhase::Live { Duration::from_millis(200) } else { RATE_STEP };
        if passed >= step {
            self.per_second = (events.saturating_sub(self.events) as f64 / passed.as_secs_f64()) as u64;
            (self.at, self.events) = (Instant::now(), events);
        }
    }
}

fn make_bar(follows: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    let template = match follows {
        true => "{spinner} {wide_msg}",
        false => "{spinner} {wide_bar:.cyan/blue} {percent:>3} %  {msg}  ETA {eta}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_every_ten_seconds_as_long_as_something_moves() {
        let begun = Instant::now();
        let mut lines = Lines { at: begun, of: (0, 0) };
        let mut reading = Reading::default();
        let mut is_due = |events, batches, waiting, seconds| {
            (reading.events, reading.batches, reading.batches_waiting) = (events, batches, waiting);
            lines.is_due(&reading, begun + Duration::from_secs(seconds))
        };
        assert!(!is_due(0, 0, 0, 11), "nothing has moved yet");
        assert!(!is_due(5, 0, 0, 9) && is_due(5, 0, 0, 12), "events were handled");
        assert!(!is_due(9, 1, 0, 21) && is_due(9, 1, 0, 22));
        assert!(!is_due(9, 1, 0, 3600), "nothing has moved since");
        assert!(is_due(9, 1, 1, 3601), "a batch waits for its commit");
        assert!(!is_due(9, 2, 0, 3610) && is_due(9, 2, 0, 3611), "it was committed");
    }
}
