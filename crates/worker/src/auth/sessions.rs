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
    limits::{SESSION_LIFE, SESSIONS, USER_SESSIONS},
};

/// Whose credentials a session was begun with: it is good for what they are good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The operator's.
    Operator,
    /// Those of the user token with this id.
    User(String),
}

/// Every session, by the digest of its secret. The file has a line for each: digest, unix milliseconds, and the id of the
/// user token, if it is a user's.
#[derive(Debug)]
pub(crate) struct Sessions {
    path: PathBuf,
    /// Held while the file is written, so that an older state never overwrites a newer one.
    writing: Mutex<()>,
    begun: Mutex<BTreeMap<Digest, Session>>,
}

#[derive(Debug)]
struct Session {
    begun: Timestamp,
    holder: Holder,
}

impl Sessions {
    /// Those of a file; none if it is not there. Lines that are none are passed over.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let begun = text.lines().filter_map(parse).collect();
        Ok(Self { path, writing: Mutex::default(), begun: Mutex::new(begun) })
    }

    /// Whose a browser's cookie is, if it is a session that has not ended.
    pub(crate) fn holder(&self, cookie: &str, now: Timestamp) -> Option<Holder> {
        let begun = self.begun();
        begun
            .get(&Digest::of(cookie))
            .filter(|session| session.lives(now))
            .map(|session| session.holder.clone())
    }

    /// Begins a session: the secret for the browser. Writes the file, and blocks while it does.
    pub(crate) fn begin(&self, holder: Holder, now: Timestamp) -> io::Result<Secret> {
        let secret = Secret::new(format!("{}{}", Secret::random().expose(), Secret::random().expose()));
        self.change(|sessions| {
            sessions.retain(|_, session| session.lives(now));
            make_room(sessions, &holder);
            sessions.insert(Digest::of(secret.expose()), Session { begun: now, holder });
        })?;
        Ok(secret)
    }

    /// Ends a session. Writes the file, and blocks while it does.
    pub(crate) fn end(&self, cookie: &str) -> io::Result<()> {
        self.change(|sessions| {
            sessions.remove(&Digest::of(cookie));
        })
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Digest, Session>)) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let text: String = {
            let mut begun = self.begun();
            change(&mut begun);
            begun.iter().map(|(digest, session)| session.line(digest)).collect()
        };
        replace(&self.path, &text)
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<Digest, Session>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn lives(&self, now: Timestamp) -> bool {
        now.since(self.begun) < SESSION_LIFE
    }

    fn line(&self, digest: &Digest) -> String {
        let (digest, begun) = (digest.to_text(), self.begun.unix_ms());
        match &self.holder {
            Holder::Operator => format!("{digest} {begun}\n"),
            Holder::User(token) => format!("{digest} {begun} {token}\n"),
        }
    }
}

fn parse(line: &str) -> Option<(Digest, Session)> {
    let mut words = line.split(' ');
    let (digest, begun) = (Digest::from_text(words.next()?)?, words.next()?.parse().ok()?);
    let holder = words.next().map_or(Holder::Operator, |token| Holder::User(token.to_owned()));
    Some((digest, Session { begun: Timestamp::from_unix_ms(begun), holder }))
}

/// Ends the oldest sessions of this holder as far as the next one needs their place: nobody pushes out somebody else.
fn make_room(sessions: &mut BTreeMap<Digest, Session>, holder: &Holder) {
    let limit = match holder {
        Holder::Operator => SESSIONS,
        Holder::User(_) => USER_SESSIONS,
    };
    let own = sessions.iter().filter(|(_, session)| session.holder == *holder);
    let mut own: Vec<_> = own.map(|(digest, session)| (session.begun, digest.clone())).collect();
    own.sort();
    let too_many = (own.len() + 1).saturating_sub(limit);
    own.iter().take(too_many).for_each(|(_, digest)| drop(sessions.remove(digest)));
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
        let secret = Sessions::open(path.clone()).unwrap().begin(Holder::Operator, at(0)).unwrap();
        let sessions = Sessions::open(path.clone()).unwrap();
        assert!(is_valid(&sessions, secret.expose(), at(1)));
        assert!(!is_valid(&sessions, "another", at(1)));
        sessions.end(secret.expose()).unwrap();
        assert!(!is_valid(&sessions, secret.expose(), at(1)));
        assert!(!is_valid(&Sessions::open(path).unwrap(), secret.expose(), at(1)));
    }

    #[test]
    fn a_session_ends_by_itself_exactly_when_its_life_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(folder.path().join("sessions")).unwrap();
        let secret = sessions.begin(Holder::Operator, at(0)).unwrap();
        let end = at(0).after(SESSION_LIFE);
        assert!(is_valid(&sessions, secret.expose(), Timestamp::from_unix_ms(end.unix_ms() - 1)));
        assert!(!is_valid(&sessions, secret.expose(), end));
    }

    #[test]
    fn p19_the_file_does_not_hold_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions");
        let secret = Sessions::open(path.clone()).unwrap().begin(Holder::Operator, at(0)).unwrap();
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
        assert!(is_valid(&sessions, "0", at(5_000)));
        sessions.begin(Holder::Operator, at(5_000)).unwrap();
        assert!(!is_valid(&sessions, "0", at(5_000)));
        assert!(is_valid(&sessions, "1", at(5_000)));
    }

    #[test]
    fn a_session_is_whose_token_it_was_begun_with_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions");
        let sessions = Sessions::open(path.clone()).unwrap();
        let operator = sessions.begin(Holder::Operator, at(0)).unwrap();
        let user = sessions.begin(Holder::User("t1".into()), at(0)).unwrap();
        for sessions in [sessions, Sessions::open(path).unwrap()] {
            assert_eq!(sessions.holder(operator.expose(), at(1)), Some(Holder::Operator));
            assert_eq!(sessions.holder(user.expose(), at(1)), Some(Holder::User("t1".into())));
        }
    }

    #[test]
    fn a_user_who_signs_in_again_and_again_pushes_out_their_own_sessions_only() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(folder.path().join("sessions")).unwrap();
        let operator = sessions.begin(Holder::Operator, at(0)).unwrap();
        let user = || Holder::User("t1".into());
        let first = sessions.begin(user(), at(1)).unwrap();
        let others = (1..USER_SESSIONS).map(|_| sessions.begin(user(), at(2)).unwrap()).collect::<Vec<_>>();
        assert!(is_valid(&sessions, first.expose(), at(3)));
        sessions.begin(user(), at(3)).unwrap();
        assert!(!is_valid(&sessions, first.expose(), at(3)));
        assert!(others.iter().all(|session| is_valid(&sessions, session.expose(), at(3))));
        assert!(is_valid(&sessions, operator.expose(), at(3)));
    }

    fn is_valid(sessions: &Sessions, cookie: &str, now: Timestamp) -> bool {
        sessions.holder(cookie, now).is_some()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::default().after(Duration::from_secs(seconds.unsigned_abs()))
    }
}
