//! Live pages: one fold per agent, rendered once per change, shared by all viewers. Only a replay of the past is a page for
//! one viewer.

pub(crate) mod agent;
pub(crate) mod board;
pub(crate) mod feeds;
pub(crate) mod fleet;
pub(crate) mod replay;
pub(crate) mod viewer;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a panic left behind is whole all the same: nothing here panics between two changes that belong together.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
