//! How a run stands: a bar on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::{Global, LogFormat};
use super::out::count;

/// How often a plain line is printed.
const LINE_STEP: Duration = Duration::from_secs(10);

/// Parts of the bar: the share of the source that is read, in thousandths.
const PARTS: u64 = 1000;

#[derive(Clone)]
pub(super) struct Bar(Arc<Mutex<BarState>>);

struct BarState {
    bar: Option<ProgressBar>,
    started: Instant,
    line_at: Instant,
}

impl Bar {
    pub(super) fn new(global: &Global) -> Self {
        let is_shown = !global.quiet && global.log_format == LogFormat::Text && std::io::stderr().is_terminal();
        let now = Instant::now();
        Self(Arc::new(Mutex::new(BarState { bar: is_shown.then(make_bar), started: now, line_at: now })))
    }

    pub(super) fn show(&self, progress: &Progress) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = (progress.events as f64 / state.started.elapsed().as_secs_f64().max(0.001)) as u64;
        let block = progress.block.map_or_else(|| "none".to_owned(), |block| block.to_string());
        let waiting = progress.batches_waiting;
        let message = format!(
            "block {block}  {} events/s  {waiting} {} waiting",
            count(rate),
            if waiting == 1 { "batch" } else { "batches" }
        );
        match &state.bar {
            Some(bar) => {
                if let Some(total) = progress.source_bytes_total.filter(|total| *total > 0) {
                    bar.set_length(PARTS);
                    bar.set_position(progress.source_bytes_read.min(total) * PARTS / total);
                }
                bar.set_message(message);
                bar.tick();
            }
            None if state.line_at.elapsed() >= LINE_STEP => {
                state.line_at = Instant::now();
                tracing::info!("{} events, {message}", count(progress.events));
            }
            None => {}
        }
    }

    pub(super) fn clear(&self) {
        if let Some(bar) = &self.0.lock().unwrap_or_else(PoisonError::into_inner).bar {
            bar.finish_and_clear();
        }
    }
}

fn make_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_bar:.cyan/blue} {percent:>3} %  {msg}  ETA {eta}")
    {
        bar.set_style(style);
    }
    bar
}
