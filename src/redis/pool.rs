//! The connections to one server: so many at most.
//!
//! Each is made on a thread of its own, so that whoever waits for it waits no longer than he may, whatever a name server
//! does. Nothing is asked at check-out; a connection that is spoiled does not come back.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::wire::{Break, Wire};

/// Connections that are kept, and made when they are wanted.
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    connect: Box<dyn Fn() -> Wire + Send + Sync>,
    max: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    idle: VecDeque<Wire>,
    /// Connections that somebody has, or that are being made.
    taken: usize,
}

/// A connection in somebody's hands.
pub(crate) struct Taken {
    pub(crate) wire: Wire,
    slot: Slot,
}

/// One of the connections that there may be. Dropping it lets another one be.
struct Slot(Arc<Shared>);

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.state().taken -= 1;
        self.0.freed.notify_one();
    }
}

impl Taken {
    /// Gives it back, for the next one.
    pub(crate) fn give_back(self) {
        if !self.wire.is_spoiled() {
            self.slot.0.state().idle.push_back(self.wire);
        }
    }
}

impl Pool {
    /// At most `max` connections. Connects to nothing yet.
    pub(crate) fn new(max: usize, connect: impl Fn() -> Wire + Send + Sync + 'static) -> Self {
        let (state, freed) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { connect: Box::new(connect), max: max.max(1), state, freed }))
    }

    /// A connection that is free, or a new one. Blocks for `wait` at most.
    pub(crate) fn take(&self, wait: Duration) -> Result<Taken, Break> {
        let begun = Instant::now();
        let late = || Break::NoEntry(format!("no connection was free or could be made within {} s", wait.as_secs()));
        let mut state = self.0.state();
        let slot = loop {
            let free = state.idle.pop_front();
            if free.is_none() && state.taken >= self.0.max {
                let left = wait.checked_sub(begun.elapsed()).ok_or_else(late)?;
                state = self.0.freed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            state.taken += 1;
            drop(state);
            let slot = Slot(Arc::clone(&self.0));
            match free {
                Some(wire) => return Ok(Taken { wire, slot }),
                None => break slot,
            }
        };
        Self::make(slot, wait.saturating_sub(begun.elapsed())).map_err(|broke| broke.unwrap_or_else(late))
    }

    /// A new connection, beside those that there are; none if there may not be more. Blocks for `wait` at most.
    pub(crate) fn take_new(&self, wait: Duration) -> Option<Taken> {
        let mut state = self.0.state();
        if state.taken + state.idle.len() >= self.0.max {
            return None;
        }
        state.taken += 1;
        drop(state);
        Self::make(Slot(Arc::clone(&self.0)), wait).ok()
    }

    /// Makes a connection in a slot; none as the error is that it takes too long.
    fn make(slot: Slot, wait: Duration) -> Result<Taken, Option<Break>> {
        let (give, made) = bounded(1);
        // Contract of the thread. In: a slot. Out: a connection in it; if nobody waits any more, it is kept for the next one.
        // Ends: when it is made or has failed, each within the time-out, or when the system says what the host's name means.
        let connect = move || {
            let taken = Taken { wire: (slot.0.connect)(), slot };
            if let Err(unheard) = give.send(taken) {
                unheard.into_inner().give_back();
            }
        };
        std::thread::Builder::new()
            .name("forebay-redis".into())
            .spawn(connect)
            .map_err(|error| Some(Break::NoEntry(format!("cannot start a thread: {error}"))))?;
        match made.recv_timeout(wait) {
            Ok(taken) => Ok(taken),
            Err(RecvTimeoutError::Timeout) => Err(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Some(Break::NoEntry("the thread that connects has ended".into())))
            }
        }
    }
}
