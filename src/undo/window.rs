//! How far back a pipeline can go, and which blocks it still knows by number and hash.

use std::sync::Arc;

use super::error::UndoError;
use super::log::{BlockMark, Logged, UndoBase, UndoRecord};
use crate::model::checkpoint::Checkpoint;
use crate::model::ids::{BlockNo, Depth};

/// How far back a pipeline can go, and which blocks it holds.
#[derive(Debug, Clone, Default)]
pub struct Window {
    checkpoint: Checkpoint,
    depth: Depth,
    /// The records that follow each other up to the checkpoint, newest first.
    logged: Vec<Logged>,
}

impl Window {
    /// The window at a checkpoint, from the heads that are stored, newest first.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn new(checkpoint: Checkpoint, depth: Depth, records: &[UndoRecord]) -> Result<Self, UndoError> {
        let mut logged: Vec<Logged> = Vec::new();
        let mut next = checkpoint.batch;
        for record in records {
            if record.batch != next || next == 0 {
                break;
            }
            next = record.before;
            let older = Logged::read(record)?;
            // A batch of more blocks than `depth` logs none of its first ones: nothing before them can be reached.
            if logged.last().is_some_and(|newer| !newer.follows(&older)) {
                break;
            }
            logged.push(older);
        }
        Ok(Self { checkpoint, depth, logged })
    }

    /// The oldest block that can be rolled back to: the checkpoint's own if there is no undo log, none if nothing is
    /// committed.
    pub fn oldest(&self) -> Option<BlockNo> {
        let tip = BlockNo::new(self.checkpoint.block?);
        let by_depth = self.depth.oldest(tip);
        Some(match self.logged.last() {
            Some(last) => last.head.base.block.map_or(by_depth, |base| by_depth.max(base)),
            None => tip,
        })
    }

    /// The blocks that are held, in order, from the last one that can be gone back to.
    pub fn blocks(&self) -> Vec<BlockMark> {
        let mut blocks = Vec::new();
        if let Some(first) = self.logged.last() {
            let UndoBase { block, block_events, hash, position, source, .. } = &first.head.base;
            let (sum, place) = (source.block_digest, source.place);
            blocks.extend(block.map(|block| BlockMark {
                block,
                events: *block_events,
                hash: hash.clone(),
                sum,
                place,
                position: position.clone(),
            }));
        }
        for mark in self.logged.iter().rev().flat_map(|logged| &logged.head.blocks) {
            match blocks.last_mut() {
                // The next batch went on within the block.
                Some(last) if last.block == mark.block => last.go_on(mark),
                _ => blocks.push(mark.clone()),
            }
        }
        blocks
    }

    /// Whether blocks before the first one that is held are unknown.
    pub fn begins_later(&self) -> bool {
        self.logged.last().is_none_or(|first| first.head.base.block.is_some())
    }

    /// Regions that had events in the window.
    pub fn regions(&self) -> impl Iterator<Item = &Arc<str>> {
        self.logged.iter().flat_map(|logged| &logged.head.touches).map(|touch| &touch.region)
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// The records that a rollback to block `to` needs, newest first; none if the checkpoint is not past it.
    ///
    /// # Errors
    /// The undo log does not reach that far back.
    pub(super) fn records_to(&self, to: BlockNo) -> Result<Option<&[Logged]>, UndoError> {
        if self.checkpoint.block.is_some_and(|tip| tip <= to.get()) {
            return Ok(None);
        }
        let oldest = self.oldest();
        let reach = self.logged.iter().position(|logged| logged.reaches(to));
        match reach.filter(|_| oldest.is_some_and(|oldest| oldest <= to)) {
            Some(reach) => Ok(Some(&self.logged[..=reach])),
            None => {
                let oldest = oldest.map(BlockNo::get);
                Err(UndoError::Beyond { to: to.get(), oldest, depth: self.depth.get() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::UndoHead;
    use super::super::test_samples::{checkpoint, entity, records};
    use super::*;

    fn window(depth: u64, records: &[UndoRecord]) -> Window {
        Window::new(checkpoint(), Depth::new(depth), records).expect("a window")
    }

    fn numbers(window: &Window) -> Vec<i64> {
        window.blocks().iter().map(|mark| mark.block.get()).collect()
    }

    #[test]
    fn what_is_logged_can_be_gone_back_to() {
        let window = window(100, &records(&entity(&["v"])));
        assert_eq!(
            window.records_to(BlockNo::new(4)).err(),
            Some(UndoError::Beyond { to: 4, oldest: Some(5), depth: 100 })
        );
        let needed = |to| window.records_to(BlockNo::new(to)).expect("kept").map(<[Logged]>::len);
        for (to, records) in [(5, Some(2)), (11, Some(2)), (12, Some(1)), (19, Some(1)), (20, None), (99, None)] {
            assert_eq!(needed(to), records, "to block {to}");
        }
        assert_eq!(numbers(&window), [5, 10, 12, 15, 20]);
        assert!(window.begins_later());
    }

    #[test]
    fn history_begins_anew_where_a_batch_left_none() {
        let mut records = records(&entity(&["v"]));
        records[1].batch = 3;
        let later = window(100, &records);
        assert_eq!(later.oldest(), Some(BlockNo::new(12)));
        assert!(
            later.records_to(BlockNo::new(11)).is_err() && later.records_to(BlockNo::new(12)).expect("kept").is_some()
        );
        records[0].batch = 4;
        assert_eq!(window(100, &records).oldest(), Some(BlockNo::new(20)));
    }

    #[test]
    fn blocks_that_a_large_batch_did_not_keep_end_the_history() {
        let mut records = records(&entity(&["v"]));
        let mut head: UndoHead = serde_json::from_str(&records[0].head).expect("a head");
        head.base =
            UndoBase { block: Some(BlockNo::new(14)), block_events: 1, blocks: 9, events: 20, ..UndoBase::default() };
        records[0].head = serde_json::to_string(&head).expect("a head");
        let window = window(100, &records);
        assert_eq!(window.oldest(), Some(BlockNo::new(14)));
        assert!(
            window.records_to(BlockNo::new(13)).is_err()
                && window.records_to(BlockNo::new(14)).expect("kept").is_some()
        );
        assert_eq!(numbers(&window), [14, 15, 20]);
    }

    #[test]
    fn depth_bounds_what_can_be_undone() {
        let window = window(6, &records(&entity(&["v"])));
        assert_eq!(window.oldest(), Some(BlockNo::new(14)));
        assert_eq!(
            window.records_to(BlockNo::new(13)).err(),
            Some(UndoError::Beyond { to: 13, oldest: Some(14), depth: 6 })
        );
        assert!(window.records_to(BlockNo::new(14)).is_ok());
    }

    #[test]
    fn nothing_committed_is_nothing_to_go_back_from() {
        let window = Window::new(Checkpoint::default(), Depth::new(6), &[]).expect("a window");
        assert_eq!((window.oldest(), window.blocks()), (None, Vec::new()));
        assert_eq!(window.records_to(BlockNo::new(3)).err(), Some(UndoError::Beyond { to: 3, oldest: None, depth: 6 }));
    }
}
