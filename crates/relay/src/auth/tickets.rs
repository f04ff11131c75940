//! Stream tickets: made, counted, used once (§9).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use protocol::{LogId, Timestamp, TownId, limits};

use super::{AuthError, Capability, Claims, Grant, Keys, LogScope, Secret, TicketClaims, keys::random_hex};

/// Which tickets are outstanding and which were used. Shared by who makes tickets and who takes them where both are
/// one process; where they are not, each has its own: the maker's counts, the taker's remembers.
#[derive(Debug)]
pub struct TicketBook {
    /// Tickets made before this were made for an earlier run, whose uses nobody remembers.
    started: Timestamp,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// Tickets made here and neither used nor expired, with their end, by town: what the limit counts.
    outstanding: BTreeMap<TownId, BTreeMap<String, Timestamp>>,
    /// Tickets used, with their end: after that nobody needs to know.
    used: BTreeMap<String, Timestamp>,
}

impl TicketBook {
    /// An empty book. Tickets made before `started` are refused: what became of them is not known.
    #[must_use]
    pub fn new(started: Timestamp) -> Self {
        Self { started, entries: Mutex::default() }
    }

    /// Makes a ticket for one stream of `logs`, good for [`limits::TICKET_LIFE_MS`]. Its capabilities are those asked for
    /// that the issuer has; an issuer makes no ticket for a log it does not reach. One of a user token ends with that; any
    /// other issuer that may be taken back makes none at all, since its tickets could not be.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] beyond the issuer's scope, [`AuthError::TooManyTickets`].
    pub fn issue(
        &self,
        keys: &Keys,
        issuer: &Grant,
        logs: BTreeSet<LogId>,
        capabilities: &BTreeSet<Capability>,
        origin: Option<String>,
        now: Timestamp,
    ) -> Result<Secret, AuthError> {
        let reached = match &issuer.logs {
            LogScope::All => true,
            LogScope::Only(scope) => logs.is_subset(scope),
        };
        if !reached || !issuer.has(Capability::Read) || (issuer.lease.is_limited() && issuer.user.is_none()) {
            return Err(AuthError::Invalid);
        }
        let claims = TicketClaims {
            jti: random_hex(),
            town: issuer.town.clone(),
            logs,
            capabilities: capabilities & &issuer.capabilities,
            user: issuer.user.clone(),
            origin,
            issued_ms: now.unix_ms(),
            expires: now.after(Duration::from_millis(limits::TICKET_LIFE_MS)),
        };
        let mut entries = self.entries();
        let outstanding = entries.outstanding.entry(claims.town.clone()).or_default();
        outstanding.retain(|_, expires| *expires > now);
        if outstanding.len() >= limits::TICKETS_OUTSTANDING {
            return Err(AuthError::TooManyTickets);
        }
        outstanding.insert(claims.jti.clone(), claims.expires);
        drop(entries);
        Ok(keys.sign(&Claims::Stream(claims)))
    }

    /// Uses a ticket: of any number of calls at once, one succeeds.
    ///
    /// # Errors
    /// [`AuthError::Used`], [`AuthError::Expired`], [`AuthError::WrongOrigin`].
    pub fn consume(
        &self,
        ticket: &TicketClaims,
        origin: Option<&str>,
        now: Timestamp,
    ) -> Result<(), AuthError> {
        let issued = Timestamp::from_unix_ms(ticket.issued_ms);
        let life = Duration::from_millis(limits::TICKET_LIFE_MS);
        if issued < self.started || now >= ticket.expires.min(issued.after(life)) {
            return Err(AuthError::Expired);
        }
        if ticket.origin.is_some() && ticket.origin.as_deref() != origin {
            return Err(AuthError::WrongOrigin);
        }
        let mut entries = self.entries();
        entries.used.retain(|_, expires| *expires > now);
        if entries.used.insert(ticket.jti.clone(), ticket.expires).is_some() {
            return Err(AuthError::Used);
        }
        if let Some(outstanding) = entries.outstanding.get_mut(&ticket.town) {
            outstanding.remove(&ticket.jti);
        }
        Ok(())
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        // Every change of the entries is whole before anything can panic.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
