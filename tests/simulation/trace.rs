//! What happened in a run, one line each, with its virtual time: what two runs of a seed must agree on.

use std::{
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The lines so far.
#[derive(Debug, Default)]
pub(crate) struct Trace(Mutex<String>);

impl Trace {
    /// Says what happened, by the simulation's clock.
    pub(crate) fn say(&self, what: impl std::fmt::Display) {
        self.say_at(turmoil::sim_elapsed().unwrap_or_default(), what);
    }

    pub(crate) fn say_at(&self, at: Duration, what: impl std::fmt::Display) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(lines, "{:>7} {what}", at.as_millis()).expect("a string takes everything");
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
