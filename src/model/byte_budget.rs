//! A shared budget of bytes: taking from it waits until there is room.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Bytes that may be in use at once.
#[derive(Debug)]
pub struct ByteBudget {
    limit: AtomicUsize,
    used: Mutex<usize>,
    freed: Condvar,
    waiters: AtomicUsize,
}

/// Bytes taken from a budget; they go back when it is dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<ByteBudget>,
    bytes: usize,
}

impl ByteBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.into(), used: Mutex::new(0), freed: Condvar::new(), waiters: AtomicUsize::new(0) })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes may be in use from now on. What is taken already stays.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        self.freed.notify_all();
    }

    /// Whether someone waits for room.
    pub fn is_waited_for(&self) -> bool {
        self.waiters.load(Ordering::Relaxed) > 0
    }

    /// Takes bytes, and waits for `timeout` at most; none after that. A request above the limit is granted when nothing
    /// else is in use, or it would wait for ever.
    pub fn take(self: &Arc<Self>, bytes: usize, timeout: Duration) -> Option<Lease> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |used: &mut usize| *used > 0 && used.saturating_add(bytes) > self.limit.load(Ordering::Relaxed);
        self.waiters.fetch_add(1, Ordering::Relaxed);
        let waited = self.freed.wait_timeout_while(used, timeout, is_full);
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        let (mut used, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() && is_full(&mut used) {
            return None;
        }
        *used += bytes;
        Some(Lease { budget: Arc::clone(self), bytes })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.budget.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_waits_and_what_is_too_large_goes_alone() {
        let budget = ByteBudget::new(10);
        let seven = budget.take(7, Duration::ZERO).expect("room");
        assert!(budget.take(4, Duration::ZERO).is_none());
        let three = budget.take(3, Duration::ZERO).expect("room");
        drop((seven, three));
        let large = budget.take(50, Duration::ZERO).expect("alone");
        assert!(budget.take(1, Duration::ZERO).is_none());
        drop(large);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_waiter_is_woken_by_a_drop() {
        let budget = ByteBudget::new(10);
        let lease = budget.take(10, Duration::ZERO).expect("room");
        let other = Arc::clone(&budget);
        let waiter = std::thread::spawn(move || other.take(1, Duration::from_secs(60)).is_some());
        drop(lease);
        assert!(waiter.join().expect("joined"));
    }
}
