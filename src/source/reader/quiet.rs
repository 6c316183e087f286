//! When nothing comes: what has come so far is handed on, and after a while the last block is whole.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::super::SourceEvent;
use super::super::page_writer::{FromReader, Stop};
use super::super::stats::ReadStats;
use super::Reader;
use crate::model::ids::BlockNo;

/// After so many answers of the source it is shared that it answers: with each event it would cost.
const TURNS_STEP: u64 = 1024;

/// Since when nothing comes.
#[derive(Debug)]
pub(super) struct Quiet {
    /// Says how long it may last; that may change.
    stats: Arc<ReadStats>,
    since: Option<Instant>,
    /// The last block was found to be whole since.
    has_settled: bool,
}

impl Quiet {
    pub(super) fn new(stats: Arc<ReadStats>) -> Self {
        Self { stats, since: None, has_settled: false }
    }

    /// Something has come; whether nothing had come before.
    pub(super) fn end(&mut self) -> bool {
        self.has_settled = false;
        self.since.take().is_some()
    }

    /// Nothing has come; whether it is so since this call.
    fn begin(&mut self) -> bool {
        let begins = self.since.is_none();
        self.since.get_or_insert_with(Instant::now);
        begins
    }

    /// Whether nothing has come for so long that the last block is whole; says so once.
    fn settles(&mut self) -> bool {
        let is_settled = self.stats.settle().zip(self.since).is_some_and(|(settle, since)| since.elapsed() >= settle);
        is_settled && !std::mem::replace(&mut self.has_settled, true)
    }
}

impl Reader {
    /// The source is asked for more: shares now and then that it answers.
    pub(super) fn note_turn(&mut self, is_ready: bool) {
        self.turns += 1;
        if !is_ready || self.turns.is_multiple_of(TURNS_STEP) {
            self.share_turn();
        }
    }

    fn share_turn(&self) {
        self.stats.turn(self.turns);
        self.stats.bytes.store(self.source.bytes_read(), Ordering::Relaxed);
        self.stats.note_trouble(self.source.trouble());
    }

    /// The source has nothing for now: hands on what has come. True if nothing more is wanted.
    pub(super) fn wait(&mut self) -> Result<bool, Stop> {
        self.pages.check_wanted()?;
        self.share_turn();
        self.stats.note_total(self.source.bytes_total());
        let begins = self.quiet.begin();
        if begins {
            self.settle(false)?;
            self.pass_left_out();
            if !self.resume.is_past() && self.resume.has_reached_end() {
                self.finish_skipping(None)?;
                if let Some(tip) = self.chain.tip() {
                    self.order.note_whole(tip.block);
                }
            }
            self.pages.note_busy();
            self.flush()?;
        }
        let last = self.order.last_block().filter(|_| self.resume.is_past());
        let settled = last.filter(|_| self.quiet.settles());
        if begins || settled.is_some() {
            self.tell_state(settled.is_some() || last.is_some_and(|last| self.order.is_whole(last)))?;
        }
        let is_last = settled.map_or(Ok(false), |last| self.take_whole(last.into()))?;
        if begins {
            self.pages.send(FromReader::Idle)?;
            self.pages.begin_idle(Instant::now());
        }
        Ok(is_last)
    }

    /// This block and all before it are whole. True if nothing more is wanted then.
    pub(super) fn take_whole(&mut self, block: BlockNo) -> Result<bool, Stop> {
        if self.order.note_whole(block) && self.resume.is_past() {
            self.flush()?;
            self.pages.send(FromReader::Whole { block })?;
        }
        Ok(self.until.is_some_and(|until| until <= block))
    }

    /// Whether the block of an event is not whole yet.
    pub(super) fn is_open(&self, event: &SourceEvent) -> Result<bool, Stop> {
        match self.order.whole_to(event) {
            Some(whole) => self.order.late_after_whole(event, whole).map(|()| false),
            None => Ok(true),
        }
    }
}
