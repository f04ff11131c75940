//! Which share links and user tokens count (§9): those that the journal of their town tells of.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use protocol::{AgentId, Epoch, LogId, Seq, Timestamp, TownId};
use serde::{Deserialize, de::DeserializeOwned};
use store::{EventStore, ReadError, ReadLimit, Record};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{AuthError, Lease, ShareClaims, lease::Withdrawal};

/// Wait before a journal that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// The share links and user tokens that were issued and not taken back. It follows the journals of towns; what it does not
/// find there is refused, and so is everything of a journal that cannot be read.
#[derive(Debug, Default)]
pub struct CredentialBook {
    /// The towns whose journals were looked for; nothing of one that is not there, or cannot be read.
    towns: watch::Sender<BTreeMap<TownId, Option<Issued>>>,
    /// Towns whose journals are to be followed.
    attended: watch::Sender<BTreeSet<TownId>>,
    /// Whether the store was asked which journals it has.
    listed: watch::Sender<bool>,
}

/// What one journal tells of, by id.
#[derive(Debug, Default)]
struct Issued {
    shares: BTreeMap<String, Share>,
    tokens: BTreeMap<String, Token>,
}

#[derive(Debug)]
struct Share {
    agent: AgentId,
    expires: Timestamp,
    withdrawn: Withdrawal,
}

/// A user token. What it is good for is the worker's to know.
#[derive(Debug)]
struct Token {
    expires: Option<Timestamp>,
    withdrawn: Withdrawal,
}

impl CredentialBook {
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
        self.listed.send_replace(true);
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

    /// Waits until every journal of the store, and of the towns that are attended to, was read, as far as it can be.
    pub async fn ready(&self) {
        // The book itself has the senders.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
        let attended = self.attended.borrow().clone();
        let are_read =
            |towns: &BTreeMap<TownId, Option<Issued>>| attended.iter().all(|town| towns.contains_key(town));
        let _ = self.towns.subscribe().wait_for(are_read).await;
    }

    /// Waits until a link or token is known: its journal was read so far.
    pub async fn known(&self, town: &TownId, id: &str) {
        let _ = self.towns.subscribe().wait_for(|towns| knows(towns, town, id)).await;
    }

    /// Waits until a link or token is not known any more, which ended what it opened.
    pub async fn gone(&self, town: &TownId, id: &str) {
        let _ = self.towns.subscribe().wait_for(|towns| !knows(towns, town, id)).await;
    }

    /// How long what a user token is shown for at `now` counts.
    ///
    /// # Errors
    /// When it was revoked or has expired, or its journal was not read.
    pub fn user_lease(&self, town: &TownId, token: &str, now: Timestamp) -> Result<Lease, AuthError> {
        let towns = self.towns.borrow();
        let issued = towns.get(town).and_then(Option::as_ref).ok_or(AuthError::NoJournal)?;
        let Token { expires, withdrawn } = issued.tokens.get(token).ok_or(AuthError::Revoked)?;
        if expires.is_some_and(|expires| expires <= now) {
            return Err(AuthError::Expired);
        }
        Ok(withdrawn.lease(expires.map(|expires| expires.since(now))))
    }

    /// What a link is good for at `now`.
    pub(super) fn share_lease(&self, claims: &ShareClaims, now: Timestamp) -> Result<Lease, AuthError> {
        let towns = self.towns.borrow();
        let issued = towns.get(&claims.town).and_then(Option::as_ref).ok_or(AuthError::Revoked)?;
        let share = issued.shares.get(&claims.jti).ok_or(AuthError::Revoked)?;
        if claims.log != LogId::Agent(share.agent.clone()) {
            return Err(AuthError::Invalid);
        }
        if share.expires <= now {
            return Err(AuthError::Expired);
        }
        Ok(share.withdrawn.lease(Some(share.expires.since(now))))
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
                    tracing::error!(%town, %error, "its journal cannot be read: its share links and user tokens are refused");
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
        self.towns.send_if_modified(|towns| !matches!(towns.insert(town.clone(), None), Some(None)));
    }

    fn take_in(&self, town: &TownId, said: Vec<Said>) {
        self.towns.send_if_modified(|towns| {
            let town = towns.entry(town.clone()).or_default();
            let is_news = town.is_none() || !said.is_empty();
            let issued = town.get_or_insert_default();
            said.into_iter().for_each(|said| said.apply(issued));
            is_news
        });
    }
}

fn knows(towns: &BTreeMap<TownId, Option<Issued>>, town: &TownId, id: &str) -> bool {
    let issued = towns.get(town).and_then(Option::as_ref);
    issued.is_some_and(|issued| issued.shares.contains_key(id) || issued.tokens.contains_key(id))
}

/// What a journal says that credentials depend on (§3.1). An agent that is removed takes its links along.
enum Said {
    ShareIssued(ShareIssued),
    ShareRevoked(ShareRevoked),
    AgentRemoved(AgentRemoved),
    TokenIssued(TokenIssued),
    TokenRevoked(TokenRevoked),
}

#[derive(Deserialize)]
struct ShareIssued {
    share: String,
    agent: AgentId,
    issued: Timestamp,
    expires: Timestamp,
}

#[derive(Deserialize)]
struct ShareRevoked {
    share: String,
}

#[derive(Deserialize)]
struct AgentRemoved {
    agent: AgentId,
}

#[derive(Deserialize)]
struct TokenIssued {
    token: String,
    issued: Timestamp,
    #[serde(default)]
    expires: Option<Timestamp>,
}

#[derive(Deserialize)]
struct TokenRevoked {
    token: String,
}

impl Said {
    fn read(record: &Record) -> Option<Self> {
        match &*record.kind {
            "town.share.issued" => change(record).map(Self::ShareIssued),
            "town.share.revoked" => change(record).map(Self::ShareRevoked),
            "town.agent.removed" => change(record).map(Self::AgentRemoved),
            "town.token.issued" => change(record).map(Self::TokenIssued),
            "town.token.revoked" => change(record).map(Self::TokenRevoked),
            _ => None,
        }
    }

    fn apply(self, Issued { shares, tokens }: &mut Issued) {
        match self {
            Self::ShareIssued(ShareIssued { share, agent, issued, expires }) => {
                shares.retain(|_, share| share.expires > issued);
                shares.insert(share, Share { agent, expires, withdrawn: Withdrawal::default() });
            }
            Self::ShareRevoked(ShareRevoked { share }) => drop(shares.remove(&share)),
            Self::AgentRemoved(AgentRemoved { agent }) => shares.retain(|_, share| share.agent != agent),
            Self::TokenIssued(TokenIssued { token, issued, expires }) => {
                tokens.retain(|_, token| token.expires.is_none_or(|expires| expires > issued));
                tokens.insert(token, Token { expires, withdrawn: Withdrawal::default() });
            }
            Self::TokenRevoked(TokenRevoked { token }) => drop(tokens.remove(&token)),
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
