//! Every limit of the worker, with the reason for the number.

use std::time::Duration;

/// Requests to the town that wait while one is committed: more than that means that the store hangs, and callers should
/// be told instead of piling up.
pub const ASKS: usize = 256;
/// How often a request is decided on again because another worker wrote to the journal in between: with two workers the
/// second try succeeds nearly always.
pub const CONFLICTS: usize = 16;
/// Life of a browser's session from its login.
pub const SESSION_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Browser sessions of the operator that are kept; the oldest go first.
pub const SESSIONS: usize = 1_000;
/// Browser sessions of one user token that are kept; the oldest go first. A person has a few browsers.
pub const USER_SESSIONS: usize = 20;
/// Life of a one-use login link: it is printed when the town is up, and clicked soon after.
pub const LOGIN_LINK_LIFE: Duration = Duration::from_secs(3600);
/// One-use login links that are not used yet; the oldest go first.
pub const LOGIN_LINKS: usize = 64;
/// Failed logins per address in [`LOGIN_WINDOW`]: a person who mistypes needs three, a guesser millions.
pub const LOGIN_FAILURES: usize = 10;
/// How far back failed logins count.
pub const LOGIN_WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose failed logins are counted; the oldest go first.
pub const LOGIN_ADDRESSES: usize = 1_000;
/// Bytes of a wrapper's log above which it is set aside (one older log is kept).
pub const WRAPPER_LOG_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes at the end of a wrapper's log that are searched for its last words.
pub const LAST_WORDS_BYTES: u64 = 4096;
/// Characters of its last words that are kept in the journal.
pub const LAST_WORDS_CHARS: usize = 300;
/// How long a wrapper may take to end after SIGTERM before it is killed: it fits into the ten seconds that the whole
/// worker has to go down.
pub const STOP_GRACE: Duration = Duration::from_secs(8);
/// How long an agent may take to finish its turn when it is drained.
pub const DRAIN_GRACE: Duration = Duration::from_secs(600);
/// How long a wrapper that outlived its worker may take to come back: longer than a try to connect that
/// hangs (15 s) and the wait after it (5 s × 1.5, `docs/protocol.md` §8), twice.
pub const RECONNECT_GRACE: Duration = Duration::from_secs(50);
/// Life of a wrapper's token. It is issued anew with every generation.
pub const WRAPPER_TOKEN_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Life of the token that a worker shows to a relay in another process. It is issued anew with every start.
pub const SERVICE_TOKEN_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Life of the token that the worker gives a client for the relay: far longer than a client keeps it, and short enough
/// that one that leaks is of little use.
pub const CLIENT_TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);
/// Replays of the past that one credential may watch at a time: each holds a whole log, and renders a page for one viewer.
pub const REPLAYS: usize = 8;
/// Life of a share link, if nobody says how long.
pub const SHARE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Life of a user token, if nobody says how long: one that nobody thinks of any more ends by itself.
pub const USER_TOKEN_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long the answer to whoever makes or revokes a credential waits for those who go by the journal to have read of it:
/// they read it within milliseconds, or are away.
pub const SETTLE_WITHIN: Duration = Duration::from_secs(2);
