//! Indexing anew beside the present tables, which readers go on to use until the fresh ones take their place.
//!
//! It is a run over a store beside, which publishes nothing and tells its source nothing; then the swap, which is the
//! store's; then a run over the new tables, which publishes and, with `follow`, goes on.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::start::Task;
use super::{NoEvents, Pipeline};
use crate::model::cause::Reason;
use crate::run::error::PipelineError;
use crate::run::report::{FreshIndex, Report};
use crate::store::{self, Beside, BesideStatus, StoreError};

/// How often a run that follows its source looks whether it has come as far as the present tables.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Pipeline {
    /// Indexes anew beside the present tables and lets the new ones take their place when they have come as far: at the end
    /// of the source, or with [`Pipeline::follow`] when there is nothing more for now. Defaults to false.
    ///
    /// A run that was interrupted is gone on with by the next one; by another script or other settings of what is indexed
    /// it begins anew. Where there are no tables yet it is as any run. With [`Pipeline::follow`] the source must be one that
    /// can be opened again. A store of one's own ([`Pipeline::store`]) cannot do it. Handlers in Rust say by
    /// [`Pipeline::version`] when they are others.
    #[must_use]
    pub fn fresh(mut self, is_fresh: bool) -> Self {
        self.is_fresh = is_fresh;
        self
    }

    /// Which handlers these are: a fresh index that was begun under another version begins anew. Defaults to the digest of
    /// the script; of handlers in Rust to nothing.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Gives up a fresh index that was begun and is not in place: removes what stands beside. Says how far it had come;
    /// none if there was none. May block.
    ///
    /// # Errors
    /// A run is under way that makes it, or the store does not answer.
    pub fn abort_fresh(&self) -> Result<Option<BesideStatus>, PipelineError> {
        self.check_names()?;
        let url = self.url_of_store().ok_or_else(no_store)?;
        Ok(store::remove_beside(url, &self.name, &self.stop.flag())?)
    }

    /// Runs beside the present tables, and then over the new ones.
    pub(super) fn run_fresh(&mut self) -> Result<Report, PipelineError> {
        let url = self.url_of_store().cloned().ok_or_else(no_store)?;
        self.check_follow()?;
        self.try_handlers()?;
        // What is wrong with where snapshots go is said before hours are spent.
        self.target = self.take_target()?;
        if self.target.is_none() {
            self.snapshots.url = None;
        }
        let Some(mut beside) = store::open_beside(&url, self.store_plan(), &self.stamp())? else {
            let source = self.take_source()?;
            return self.coordinate(source, Task::Run);
        };
        let mut report = self.run_beside(beside.as_mut())?;
        report.fresh = Some(FreshIndex::Beside);
        if report.was_stopped || !self.put_in_place(beside.as_mut(), &report)? {
            return Ok(report);
        }
        drop(beside);
        report.fresh = Some(FreshIndex::InPlace);
        self.go_on_in_place(report)
    }

    /// A source is opened twice where it is followed.
    fn check_follow(&self) -> Result<(), PipelineError> {
        let is_once = self.source.is_some() || self.source_config.path.as_deref() == Some("-");
        match self.source_config.follow && is_once {
            true => Err(PipelineError::Incomplete(
                "--fresh opens a followed source twice, and this one can be read only once: expected a file, a folder, a \
                 program, a stream or a topic, or a run without --follow"
                    .into(),
            )),
            false => Ok(()),
        }
    }

    /// Indexes beside until it has come as far as it can.
    fn run_beside(&mut self, beside: &mut dyn Beside) -> Result<Report, PipelineError> {
        let store = beside.open()?;
        let source = self.take_source()?;
        if !self.source_config.follow {
            return self.coordinate(source, Task::Beside { store, is_far: None });
        }
        let mut look = Look { beside, is_told: false, looked: None };
        self.coordinate(source, Task::Beside { store, is_far: Some(&mut |block| look.is_far(block)) })
    }

    /// Puts the index in place if it has come as far as the present tables; whether it did.
    fn put_in_place(&self, beside: &mut dyn Beside, report: &Report) -> Result<bool, PipelineError> {
        let (block, here) = (report.checkpoint.block, block_text(report.checkpoint.block));
        let not_in_place = |cause: Box<Reason>| Err(PipelineError::NotInPlace { block, cause });
        // Nobody writes to the present tables from here on.
        match beside.reserve() {
            Err(StoreError::Held { holder, .. }) => {
                let cause = format!("the present tables are being written by {holder}; stop it, and run --fresh again");
                return not_in_place(cause.into());
            }
            reserved => reserved?,
        }
        let present = beside.present()?.block;
        if present > block && self.until.is_some() {
            tracing::info!(
                "the fresh index stands beside at {here}; the present tables are at {}",
                block_text(present)
            );
            return Ok(false);
        }
        if present > block {
            let cause = format!("its source ends there, and the present tables are at {}", block_text(present));
            return not_in_place(cause.into());
        }
        match beside.replace(&report.checkpoint) {
            Ok(()) => {
                tracing::info!("the fresh index is in place, at {here}");
                Ok(true)
            }
            Err(stopped @ StoreError::Stopped { .. }) => Err(stopped.into()),
            Err(error) => not_in_place(Reason::new(error.to_string(), error)),
        }
    }

    /// Publishes what is in place, and goes on where the source is followed.
    fn go_on_in_place(&mut self, report: Report) -> Result<Report, PipelineError> {
        let goes_on = self.source_config.follow
            && self.until.is_none_or(|until| report.checkpoint.block.is_none_or(|at| at < until));
        let ended = match goes_on {
            true => self.take_source().and_then(|source| self.coordinate(source, Task::Run)),
            false => self.coordinate(Box::new(NoEvents), Task::Publish),
        };
        match ended {
            Err(PipelineError::Store(StoreError::Held { holder, .. })) if !goes_on => {
                tracing::warn!("{holder} goes on with the new tables already, and publishes what is in them");
                Ok(report)
            }
            ended => Ok(report.and_then(ended?)),
        }
    }

    /// What the index is made by: everything that rows depend on. What bounds time and memory does not count, nor where
    /// snapshots go.
    fn stamp(&self) -> String {
        let (source, snapshots) = (&self.source_config, &self.snapshots);
        let mut made_by = format!(
            "{}\n{:?}\n{:?}\n{:?}\n{:?}\n{}",
            self.version,
            self.schema.entities(),
            (&source.format, &source.places, &source.fields),
            (source.late, source.end, source.settle, &self.regions, self.errors.puts_aside(), self.rollback_depth),
            (snapshots.every, snapshots.dedup, &snapshots.dedup_rule, snapshots.integers),
            source.stamp(),
        );
        let _ = write!(made_by, "\n{}", self.name);
        hex(&made_by)
    }
}

/// A text's digest.
pub(super) fn hex(text: impl AsRef<[u8]>) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn no_store() -> PipelineError {
    PipelineError::Incomplete("a fresh index needs a SQLite file or a Postgres: this store can make none beside".into())
}

fn block_text(block: Option<i64>) -> String {
    block.map_or_else(|| "no block".to_owned(), |block| format!("block {block}"))
}

/// Looks whether an index that follows its source may take the place of the present tables.
struct Look<'b> {
    beside: &'b mut dyn Beside,
    /// Whether it was told who keeps it from that.
    is_told: bool,
    looked: Option<Instant>,
}

impl Look<'_> {
    /// Whether an index at that block, whose source has nothing for now, has come as far, and nobody else writes to the
    /// present tables any more.
    fn is_far(&mut self, block: Option<i64>) -> Result<bool, StoreError> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(false);
        }
        self.looked = Some(Instant::now());
        if self.beside.present()?.block > block {
            return Ok(false);
        }
        match self.beside.reserve() {
            // It may have gone on until just now.
            Ok(()) => Ok(self.beside.present()?.block <= block),
            Err(StoreError::Held { holder, .. }) => {
                if !std::mem::replace(&mut self.is_told, true) {
                    tracing::info!(
                        "the fresh index has come as far as the present tables ({}) and goes on beside them; it takes their place when {holder} has ended: stop it",
                        block_text(block)
                    );
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
