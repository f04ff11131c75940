//! One line on stderr while something takes longer than a second.

use std::{
    future::Future,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use tokio::time::{Instant, interval_at, sleep};

/// Nothing is shown before.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the seconds are counted on.
const TICK: Duration = Duration::from_secs(1);

/// Does something, and says what on stderr once it takes longer than a second: counted on in place in a terminal, one
/// line elsewhere.
pub(super) async fn shown<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = sleep(PATIENCE) => {}
    }
    let terminal = io::stderr().is_terminal();
    if !terminal {
        say(&format!("{what} …\n"));
        return work.await;
    }
    let begun = Instant::now();
    let mut tick = interval_at(begun, TICK);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                say("\r\x1b[K");
                return done;
            }
            _ = tick.tick() => say(&format!("\r\x1b[K{what} … {} s", (begun.elapsed() + PATIENCE).as_secs())),
        }
    }
}

/// Progress that cannot be shown is no reason to stop.
pub(super) fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_is_given_back_however_long_it_takes() {
        assert_eq!(shown("at once", async { 1 }).await, 1);
        let long = async {
            sleep(Duration::from_secs(90)).await;
            2
        };
        assert_eq!(shown("a test waits", long).await, 2);
    }
}
