//! Telling a wrapper to end: first to drain, then at once.

use std::time::Duration;

use tokio::{runtime::Runtime, sync::watch};

/// How long threads that still wait when all else is done, for a disk that hangs say, may keep the process.
const LEFT_BEHIND: Duration = Duration::from_secs(2);

/// Runs what a process is for to its end. A thread that waits for ever does not keep it from ending.
pub fn run_to_end<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(LEFT_BEHIND);
    done
}

/// How urgently a wrapper is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ShutdownLevel {
    /// It is not.
    #[default]
    None,
    /// After the turn that runs.
    Drain,
    /// At once; the agent is still stopped and nothing of it is left behind.
    Now,
}

/// The wrapper's end of a shutdown. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<ShutdownLevel>);

/// The caller's end of a shutdown. Dropping it without a word does not end the wrapper.
#[derive(Debug, Clone)]
pub struct ShutdownTrigger(watch::Sender<ShutdownLevel>);

impl Shutdown {
    /// A shutdown and what triggers it.
    #[must_use]
    pub fn new() -> (ShutdownTrigger, Self) {
        let (sender, receiver) = watch::channel(ShutdownLevel::None);
        (ShutdownTrigger(sender), Self(receiver))
    }

    /// The level by now.
    #[must_use]
    pub fn level(&self) -> ShutdownLevel {
        *self.0.borrow()
    }

    /// Waits for a level above this one; for ever if the trigger is gone. Cancel-safe.
    pub async fn above(&mut self, level: ShutdownLevel) -> ShutdownLevel {
        // The guard is let go before anything else is awaited.
        let asked = self.0.wait_for(|asked| *asked > level).await.map(|asked| *asked);
        match asked {
            Ok(asked) => asked,
            Err(_) => std::future::pending().await,
        }
    }
}

impl ShutdownTrigger {
    /// Asks for this level; a lower one than before is ignored.
    pub fn ask(&self, level: ShutdownLevel) {
        self.0.send_if_modified(|asked| {
            let higher = level > *asked;
            *asked = (*asked).max(level);
            higher
        });
    }

    /// Follows SIGTERM and SIGINT until the process ends: the first one drains, the second one ends at once.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub async fn follow_signals(self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let asked = *self.0.borrow();
            self.ask(if asked == ShutdownLevel::None { ShutdownLevel::Drain } else { ShutdownLevel::Now });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn a_thread_that_waits_for_ever_does_not_keep_the_process() {
        let (keep, waits) = mpsc::channel::<()>();
        let (done, told) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let work = async {
                // It is not waited for.
                drop(tokio::task::spawn_blocking(move || waits.recv()));
                "done"
            };
            done.send(run_to_end(runtime, work))
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok("done"));
        drop(keep);
    }

    #[tokio::test]
    async fn a_drain_can_become_now_but_not_the_other_way_round() {
        let (trigger, mut shutdown) = Shutdown::new();
        trigger.ask(ShutdownLevel::Drain);
        assert_eq!(shutdown.above(ShutdownLevel::None).await, ShutdownLevel::Drain);
        trigger.ask(ShutdownLevel::Now);
        trigger.ask(ShutdownLevel::Drain);
        assert_eq!(shutdown.above(ShutdownLevel::Drain).await, ShutdownLevel::Now);
    }
}
