//! The model: the branches of a history, and the state as of the end of every block.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::items::{Event, Op, Region, handle, op_json};

/// The regions of the model by name.
pub type State = BTreeMap<String, Region>;

/// A block of the model, and the state as of its end.
#[derive(Debug, Clone)]
pub struct Block {
    pub number: i64,
    pub hash: String,
    pub parent: Option<String>,
    pub events: Vec<(String, String)>,
    pub state: Arc<State>,
    pub blocks: u64,
    pub total: u64,
}

/// The model: the branch that counts, the one that was left last, and all blocks in the order in which they came.
#[derive(Default)]
pub struct Model {
    pub chain: Vec<Block>,
    pub left: Vec<Block>,
    pub delivered: Vec<Block>,
    pub made: u64,
    /// No rollback can go below it any more.
    pub floor: i64,
    pub depth: u64,
    pub has_returned: bool,
}

impl Model {
    pub fn tip(&self) -> i64 {
        self.chain.last().map_or(0, |block| block.number)
    }

    pub fn push(&mut self, mut block: Block) {
        let mut state = self.chain.last().map_or_else(State::default, |last| (*last.state).clone());
        for (region, json) in &block.events {
            let event: Event = serde_json::from_str(json).expect("an event");
            let region = state.entry(region.clone()).or_default();
            let mut tried = region.clone();
            match handle(&event, &mut tried) {
                Ok(()) => *region = tried,
                Err(_) => region.aside += 1,
            }
            region.events += 1;
            region.last_block = block.number;
        }
        let before = self.chain.last().map_or((0, 0), |last| (last.blocks, last.total));
        (block.blocks, block.total) = (before.0 + 1, before.1 + block.events.len() as u64);
        block.state = Arc::new(state);
        self.floor = self.floor.max(block.number - self.depth as i64);
        self.delivered.push(block.clone());
        self.chain.push(block);
    }

    pub fn make(&mut self, gap: u8, ops: &[(u8, Op)]) {
        self.made += 1;
        let made = self.made;
        let event = |(at, (region, op)): (usize, &(u8, Op))| {
            let mut json = op_json(op);
            json["n"] = (made * 10 + at as u64).into();
            (format!("r{region}"), json.to_string())
        };
        self.push(Block {
            number: self.tip() + i64::from(gap),
            hash: format!("h{made}"),
            parent: self.chain.last().map(|block| block.hash.clone()),
            events: ops.iter().enumerate().map(event).collect(),
            state: Arc::default(),
            blocks: 0,
            total: 0,
        });
    }

    /// Goes back so many blocks, as far as a rollback can follow; whether it went back at all.
    pub fn fork(&mut self, blocks: u8) -> bool {
        let mut left = Vec::new();
        for _ in 0..blocks {
            let to = self.chain.len().checked_sub(2).map(|at| self.chain[at].number);
            if to.is_none_or(|to| to < self.floor) {
                break;
            }
            left.extend(self.chain.pop());
        }
        left.reverse();
        let has_left = !left.is_empty();
        if has_left {
            self.left = left;
        }
        has_left
    }
}
