//! The sessions of browsers: made at login, kept hashed in a file, so that a restart logs nobody out.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::Timestamp;
use relay::auth::Secret;

use crate::{
    digest::Digest,
    limits::{SESSION_LIFE, SESSIONS},
};

/// Every session, by the digest of its secret, with when it was made. The file has a line for each: digest and unix
/// milliseconds.
#[derive(Debug)]
pub(crate) struct Sessions {
    path: PathBuf,
    /// Held while the file is written, so that an older state never overwrites a newer one.
    writing: Mutex<()>,
    made: Mutex<BTreeMap<Digest, Timestamp>>,
}

impl Sessions {
    /// Those of a file; none if it is not there. Lines that are none are passed over.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let made = text.lines().filter_map(parse).collect();
        Ok(Self { path, writing: Mutex::default(), made: Mutex::new(made) })
    }

    /// Whether a browser's cookie is a session that has not ended.
    pub(crate) fn is_valid(&self, cookie: &str, now: Timestamp) -> bool {
        self.made().get(&Digest::of(cookie)).is_some_and(|made| now.since(*made) < SESSION_LIFE)
    }

    /// Begins a session: the secret for the browser. Writes the file, and blocks while it does.
    pub(crate) fn begin(&self, now: Timestamp) -> io::Result<Secret> {
        let secret = Secret::new(format!("{}{}", Secret::random().expose(), Secret::random().expose()));
        self.change(|made| {
            made.retain(|_, at| now.since(*at) < SESSION_LIFE);
            while made.len() >= SESSIONS {
                let oldest = made.iter().min_by_key(|(_, at)| **at).map(|(digest, _)| digest.clone());
                made.remove(&oldest.expect("a map at its limit is not empty"));
            }
            made.insert(Digest::of(secret.expose()), now);
        })?;
        Ok(secret)
    }

    /// Ends a session. Writes the file, and blocks while it does.
    pub(crate) fn end(&self, cookie: &str) -> io::Result<()> {
        self.change(|made| {
            made.remove(&Digest::of(cookie));
        })
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Digest, Timestamp>)) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let text: String = {
            let mut made = self.made();
            change(&mut made);
            made.iter().map(|(digest, at)| format!("{} {}\n", digest.to_text(), at.unix_ms())).collect()
        };
        replace(&self.path, &text)
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<Digest, Timestamp>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(line: &str) -> Option<(Digest, Timestamp)> {
    let (digest, made) = line.split_once(' ')?;
    Some((Digest::from_text(digest)?, Timestamp::from_unix_ms(made.parse().ok()?)))
}

/// Replaces a file's content: whoever reads it, also after a crash, sees the old or the new one whole.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(next, path)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_session_survives_a_restart_and_ends_at_logout() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions");
        let secret = Sessions::open(path.clone()).unwrap().begin(at(0)).unwrap();
        let sessions = Sessions::open(path.clone()).unwrap();
        assert!(sessions.is_valid(secret.expose(), at(1)));
        assert!(!sessions.is_valid("another", at(1)));
        sessions.end(secret.expose()).unwrap();
        assert!(!sessions.is_valid(secret.expose(), at(1)));
        assert!(!Sessions::open(path).unwrap().is_valid(secret.expose(), at(1)));
    }

    #[test]
    fn a_session_ends_by_itself_exactly_when_its_life_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(folder.path().join("sessions")).unwrap();
        let secret = sessions.begin(at(0)).unwrap();
        let end = at(0).after(SESSION_LIFE);
        assert!(sessions.is_valid(secret.expose(), Timestamp::from_unix_ms(end.unix_ms() - 1)));
        assert!(!sessions.is_valid(secret.expose(), end));
    }

    #[test]
    fn p19_the_file_does_not_hold_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions");
        let secret = Sessions::open(path.clone()).unwrap().begin(at(0)).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(!text.is_empty() && !text.contains(secret.expose()));
    }

    #[test]
    fn the_oldest_session_gives_way_at_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions");
        let full: String = (0..SESSIONS as i64)
            .map(|n| format!("{} {}\n", Digest::of(&n.to_string()).to_text(), at(n).unix_ms()))
            .collect();
        std::fs::write(&path, full).unwrap();
        let sessions = Sessions::open(path).unwrap();
        assert!(sessions.is_valid("0", at(5_000)));
        sessions.begin(at(5_000)).unwrap();
        assert!(!sessions.is_valid("0", at(5_000)));
        assert!(sessions.is_valid("1", at(5_000)));
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::default().after(Duration::from_secs(seconds.unsigned_abs()))
    }
}
