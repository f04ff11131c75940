//! Finding out that events vanished: a checksum does not tell of a row that went with a damaged page.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use protocol::Epoch;
use rusqlite::Connection;

use super::rows::{self, LogRow};
use crate::ReadError;

/// Logs whose tables were found sound, by their epochs. Shared by the readers: each table is looked through once,
/// before anything in it is served from disk.
#[derive(Debug, Default)]
pub(super) struct Sound(Mutex<HashSet<Epoch>>);

impl Sound {
    /// More are not remembered at a time; they are only looked through again.
    const REMEMBERED: usize = 16 * 1024;

    /// Looks through a log, in the same snapshot of the database that its row is from.
    pub(super) fn check(&self, conn: &Connection, row: &LogRow) -> Result<(), ReadError> {
        let LogRow { log, header, .. } = row;
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&header.epoch) {
            return Ok(());
        }
        if !rows::is_sound(conn, row).map_err(rows::reading)? {
            return Err(ReadError::Store(rows::incomplete_log(log)));
        }
        let mut sound = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sound.len() >= Self::REMEMBERED {
            sound.clear();
        }
        sound.insert(header.epoch.clone());
        Ok(())
    }
}
