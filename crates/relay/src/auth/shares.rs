//! Share links (§9): which of them count is what the journal of their town says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use protocol::{AgentId, Epoch, LogId, Seq, Timestamp, TownId};
use serde::{Deserialize, de::DeserializeOwned};
use store::{EventStore, ReadError, ReadLimit, Record};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{AuthError, ShareClaims};

/// Wait before a journal that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// The share links that were issued and not taken back. It follows the journals of towns; a link that it does not find
/// there is refused, and so is every link of a journal that cannot be read.
#[derive(Debug, Default)]
pub struct ShareBook {
    towns: watch::Sender<BTreeMap<TownId, Shares>>,
    /// Towns whose journals are to be followed.
    attended: watch::Sender<BTreeSet<TownId>>,
}

/// Keyed by the link's id.
type Shares = BTreeMap<String, Share>;

#[derive(Debug)]
struct Share {
    agent: AgentId,
    expires: Timestamp,
    withdrawn: Withdrawal,
}

/// Ends the leases of a link when it is forgotten, for whatever reason.
#[derive(Debug, Default)]
struct Withdrawal(CancellationToken);

impl Drop for Withdrawal {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// How long what somebody was let in for counts. Most credentials are looked at once, when a stream begins; a share link
/// ends the streams that it opened.
#[derive(Debug, Clone, Default)]
pub struct Lease(Option<Arc<Limited>>);

#[derive(Debug)]
struct Limited {
    until: Instant,
    withdrawn: CancellationToken,
}

impl Lease {
    /// Waits until it is over; for ever, if it never is.
    pub async fn ended(&self) {
        match &self.0 {
            Some(limited) => {
                tokio::select! {
                    () = limited.withdrawn.cancelled() => {}
                    () = tokio::time::sleep_until(limited.until) => {}
                }
            }
            None => std::future::pending().await,
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|limited| limited.withdrawn.is_cancelled() || limited.until <= Instant::now())
    }

    /// Whether it can be over one day.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.0.is_some()
    }
}

impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

impl Eq for Lease {}

impl ShareBook {
    /// Makes [`Self::follow`] follow the journal of this town too.
    pub fn attend(&self, town: &TownId) {
        self.attended.send_if_modified(|towns| !towns.contains(town) && towns.insert(town.clone()));
    }

    /// Follows the journals in this store until `shutdown`: those that are there, and those of the towns that are
    /// attended to.
    pub async fn follow(&self, store: Arc<dyn EventStore>, shutdown: CancellationToken) {
        match store.list().await {
            Ok(logs) => logs.iter().filter_map(|log| log.log.town()).for_each(|town| self.attend(town)),
            Err(error) => tracing::error!(%error, "the towns of the store cannot be listed"),
        }
        let mut attended = self.attended.subscribe();
        let mut begun = BTreeSet::new();
        let mut journals = FuturesUnordered::new();
        loop {
            for town in attended.borrow_and_update().difference(&begun.clone()) {
                begun.insert(town.clone());
                journals.push(self.follow_town(&store, town.clone()));
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                Ok(()) = attended.changed() => {}
                Some(()) = journals.next() => {}
            }
        }
    }

    /// Waits until a link is known: its journal was read so far.
    pub async fn known(&self, town: &TownId, id: &str) {
        let is_known =
            |towns: &BTreeMap<TownId, Shares>| towns.get(town).is_some_and(|shares| shares.contains_key(id));
        // The book itself has the sender.
        let _ = self.towns.subscribe().wait_for(is_known).await;
    }

    /// What a link is good for at `now`.
    pub(super) fn lease(&self, claims: &ShareClaims, now: Timestamp) -> Result<Lease, AuthError> {
        let towns = self.towns.borrow();
        let share = towns.get(&claims.town).and_then(|shares| shares.get(&claims.jti));
        let share = share.ok_or(AuthError::Revoked)?;
        if claims.log != LogId::Agent(share.agent.clone()) {
            return Err(AuthError::Invalid);
        }
        if share.expires <= now {
            return Err(AuthError::Expired);
        }
        let until = Instant::now() + share.expires.since(now);
        Ok(Lease(Some(Arc::new(Limited { until, withdrawn: share.withdrawn.0.clone() }))))
    }

    /// Until the store is gone.
    async fn follow_town(&self, store: &Arc<dyn EventStore>, town: TownId) {
        let log = LogId::Town(town.clone());
        // Before the first read: what is committed after it wakes the tail.
        let mut tail = store.tail(&log);
        let mut read: Option<(Epoch, Seq)> = None;
        let mut said = Vec::new();
        loop {
            let after = read.as_ref().map_or(Seq::ZERO, |(_, seq)| *seq);
            match store.read(&log, after, ReadLimit::default()).await {
                Ok(page) if read.as_ref().is_some_and(|(epoch, _)| *epoch != page.bounds.epoch) => {
                    self.forget(&town);
                    (read, said) = (None, Vec::new());
                    continue;
                }
                Ok(page) => {
                    said.extend(page.records.iter().filter_map(Said::read));
                    let last = page.records.last().map_or(after, |record| record.seq);
                    read = Some((page.bounds.epoch, last));
                    if page.more {
                        continue;
                    }
                    // Not before: what was issued on one page may be taken back on the next.
                    self.take_in(&town, std::mem::take(&mut said));
                }
                Err(ReadError::UnknownLog { .. }) => {
                    self.forget(&town);
                    read = None;
                }
                Err(error) => {
                    tracing::error!(%town, %error, "its journal cannot be read: its share links are refused");
                    self.forget(&town);
                    (read, said) = (None, Vec::new());
                    tokio::time::sleep(READ_AGAIN).await;
                    continue;
                }
            }
            if tail.changed().await.is_none() {
                return;
            }
        }
    }

    fn forget(&self, town: &TownId) {
        self.towns.send_if_modified(|towns| towns.remove(town).is_some());
    }

    fn take_in(&self, town: &TownId, said: Vec<Said>) {
        if said.is_empty() {
            return;
        }
        self.towns.send_modify(|towns| {
            let shares = towns.entry(town.clone()).or_default();
            said.into_iter().for_each(|said| said.apply(shares));
        });
    }
}

/// What a journal says that share links depend on (§3.1). An agent that is removed takes its links along.
enum Said {
    Issued(Issued),
    Revoked(Revoked),
    Removed(Removed),
}

#[derive(Deserialize)]
struct Issued {
    share: String,
    agent: AgentId,
    issued: Timestamp,
    expires: Timestamp,
}

#[derive(Deserialize)]
struct Revoked {
    share: String,
}

#[derive(Deserialize)]
struct Removed {
    agent: AgentId,
}

impl Said {
    fn read(record: &Record) -> Option<Self> {
        match &*record.kind {
            "town.share.issued" => change(record).map(Self::Issued),
            "town.share.revoked" => change(record).map(Self::Revoked),
            "town.agent.removed" => change(record).map(Self::Removed),
            _ => None,
        }
    }

    fn apply(self, shares: &mut Shares) {
        match self {
            Self::Issued(Issued { share, agent, issued, expires }) => {
                shares.retain(|_, share| share.expires > issued);
                shares.insert(share, Share { agent, expires, withdrawn: Withdrawal::default() });
            }
            Self::Revoked(Revoked { share }) => drop(shares.remove(&share)),
            Self::Removed(Removed { agent }) => shares.retain(|_, share| share.agent != agent),
        }
    }
}

/// The change that an event of a journal tells of. One that is not understood is let go by, and said.
fn change<T: DeserializeOwned>(record: &Record) -> Option<T> {
    #[derive(Deserialize)]
    struct Data<T> {
        change: T,
    }
    match record.event().and_then(|event| event.data.parse::<Data<T>>()) {
        Ok(Data { change }) => Some(change),
        Err(error) => {
            tracing::error!(seq = %record.seq, kind = %record.kind, %error, "an event of a journal is not understood");
            None
        }
    }
}
