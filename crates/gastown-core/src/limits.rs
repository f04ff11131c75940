//! Every limit of a town, with the reason for the number.

use std::time::Duration;

/// Restarts of one agent's wrapper within [`RESTART_WINDOW`]: a wrapper that dies more often will not be cured by a
/// fourth try, and a person should look at it.
pub const RESTARTS: usize = 3;
/// How far back restarts count.
pub const RESTART_WINDOW: Duration = Duration::from_secs(10 * 60);
/// Wait before the first restart: long enough for a port to be free again.
pub const RESTART_DELAY_MIN: Duration = Duration::from_secs(1);
/// Wait before a restart at most.
pub const RESTART_DELAY_MAX: Duration = Duration::from_secs(30);
/// How long a request's idempotency key is remembered: longer than any client retries.
pub const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Idempotency keys remembered at once; the oldest go first.
pub const KEYS: usize = 10_000;
/// Bytes of an idempotency key or an actor's name.
pub const KEY_BYTES: usize = 128;
/// Agents in one town: each costs a wrapper process, an agent server and a log.
pub const AGENTS: usize = 1_000;
/// Bytes of a path in a registration: the longest that Linux takes.
pub const PATH_BYTES: usize = 4096;
/// Bytes of a reason that is kept in the journal.
pub const REASON_BYTES: usize = 2_000;
/// How long a share link lasts at most: whoever got one for longer is a user, and should be given a token.
pub const SHARE_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Share links of one town that are good at the same time: few people keep track of more.
pub const SHARES: usize = 1_000;
/// Bytes of a share link's label: one line.
pub const LABEL_BYTES: usize = 200;
/// How long a user token lasts at most, if it is to end at all.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3_650 * 24 * 3600);
/// User tokens of one town that are good at the same time: one for each person and each program.
pub const TOKENS: usize = 1_000;
/// Bytes of a user token's name.
pub const TOKEN_NAME_BYTES: usize = 64;
