//! A relay process under faults: producers with the real outbox and link, and viewers with the real client, load it over
//! loopback; the oracle judges what all of them sent and saw.

use tokio::sync::{Mutex, MutexGuard};

mod chaos;
mod disk_full;
mod drain;
pub(crate) mod fleet;
mod fsync;
mod herd;
mod kills;
pub(crate) mod process;
pub(crate) mod proxy;
mod stopped;

/// Each of these tests loads the machine, and some take times: one at a time.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}
