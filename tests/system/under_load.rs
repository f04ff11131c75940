//! A relay process under faults: producers with the real outbox and link, and viewers with the real client, load it over
//! loopback; the oracle judges what all of them sent and saw.

use tokio::sync::{Mutex, MutexGuard};

mod chaos;
mod disk_full;
mod drain;
mod fleet;
mod fsync;
mod herd;
mod kills;
mod process;
mod proxy;
mod stopped;

/// Each of these tests loads the machine, and some take times: one at a time.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}
