//! The handle.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{Router, extract::ConnectInfo};
use futures_util::stream::BoxStream;
use protocol::{
    AgentId, Command, CommandId, CommandResult, ErrorCode, ErrorDetail, LogId, NewEvent, Timestamp,
    agent::Lost,
    config::SealedConfig,
    frame::{StartAt, WrapperPresence},
    limits,
    search::{Found, Search},
};
use rand::RngExt as _;
use store::{Append, EventStore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, field::Empty};

use super::{
    clock,
    crowd::{Crowd, Full, Place},
    feed::Feeds,
    follow,
    links::Links,
    metrics::Metrics,
    problem, routes, search,
    writer::Writers,
};
use crate::{ApiError, AppendedAt, Delivery, Presence, RelayApi, auth::Authority};

/// Between two looks for logs that nobody writes to any more. They are kept for days: an hour more is nothing.
const SWEEP: Duration = Duration::from_secs(3600);

/// When who found no place for its stream may try again.
const RETRY_CROWDED_MS: u64 = 5_000;

/// How a relay behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayConfig {
    /// Host names (without port) that requests may name in `Host` and `Origin`.
    pub allowed_hosts: Vec<String>,
    /// Time without a link after which `wrapper.lost` is appended to the agent's log (§10).
    pub lost_after: Duration,
    /// Whether `/metrics` needs no credentials. If it does, they must reach every log.
    pub open_metrics: bool,
    /// Streams that may be open.
    pub viewers: ViewerLimits,
    /// Time for the body of a request to arrive.
    pub body_timeout: Duration,
    /// Time that [`Relay::drain`] waits for streams and links to end.
    pub drain: Duration,
}

/// How many streams may be open (§11): one more is refused (4429).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewerLimits {
    /// Of one log.
    pub per_log: usize,
    /// In all.
    pub in_all: usize,
    /// From one address that is not loopback, where [`axum::extract::ConnectInfo`] says the address, as in
    /// [`super::serve`].
    pub per_address: usize,
}

impl Default for ViewerLimits {
    fn default() -> Self {
        Self {
            per_log: limits::VIEWERS_PER_LOG,
            in_all: limits::VIEWERS,
            per_address: limits::VIEWERS_PER_ADDRESS,
        }
    }
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            allowed_hosts: ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).into(),
            lost_after: Duration::from_secs(90),
            open_metrics: false,
            viewers: ViewerLimits::default(),
            body_timeout: Duration::from_millis(limits::BODY_MS),
            drain: Duration::from_secs(9),
        }
    }
}

impl RelayConfig {
    /// The same, reached also under this host name.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.allowed_hosts.push(host.into());
        self
    }

    /// The same, with another time until a wrapper counts as lost.
    #[must_use]
    pub fn with_lost_after(mut self, lost_after: Duration) -> Self {
        self.lost_after = lost_after;
        self
    }

    /// The same, with other limits to the streams.
    #[must_use]
    pub fn with_viewers(mut self, viewers: ViewerLimits) -> Self {
        self.viewers = viewers;
        self
    }

    /// The same, with metrics for everyone.
    #[must_use]
    pub fn with_open_metrics(mut self) -> Self {
        self.open_metrics = true;
        self
    }
}

/// A relay in this process. Cheap to clone; all clones are one relay.
#[derive(Debug, Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn EventStore>,
    authority: Arc<dyn Authority>,
    config: RelayConfig,
    feeds: Arc<Feeds>,
    crowd: Crowd,
    writers: Writers,
    links: Links,
    metrics: Metrics,
    /// Everything that runs beside a request: streams, links, feeds, timers of lost wrappers.
    tracker: TaskTracker,
    /// Streams and links end when this is cancelled, and no others begin.
    draining: CancellationToken,
    /// Feeds and timers end when this is cancelled: after the streams.
    stopped: CancellationToken,
}

impl Relay {
    /// A relay over this store, for whom this authority lets in.
    #[must_use]
    pub fn new(store: Arc<dyn EventStore>, authority: Arc<dyn Authority>, config: RelayConfig) -> Self {
        let tracker = TaskTracker::new();
        let stopped = CancellationToken::new();
        let feeds = Feeds::new(store.clone(), tracker.clone(), stopped.clone(), config.viewers.per_log);
        let crowd = Crowd::new(config.viewers.in_all, config.viewers.per_address);
        let (writers, links, metrics) = (Writers::new(), Links::new(clock::now()), Metrics::new());
        let draining = CancellationToken::new();
        let inner = Inner {
            store,
            authority,
            config,
            feeds,
            crowd,
            writers,
            links,
            metrics,
            tracker,
            draining,
            stopped,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Its routes (§4), to be served or merged into another router. Every one but the health checks asks the authority.
    pub fn router(&self) -> Router {
        routes::router(self)
    }

    /// Keeps the store to its retention by time (§11): empties logs that nobody wrote to for too long, now and once an hour, until
    /// the relay is [drained](Self::drain). Of relays that share one store, one is enough.
    pub async fn sweep(&self) {
        let sweep = async {
            loop {
                match self.store().prune_idle(clock::now()).await {
                    Ok(0) => {}
                    Ok(events) => tracing::info!(events, "logs that nobody wrote to are emptied"),
                    Err(error) => tracing::warn!(%error, "logs that nobody wrote to could not be emptied"),
                }
                tokio::time::sleep(SWEEP).await;
            }
        };
        self.inner.stopped.run_until_cancelled(sweep).await;
    }

    /// Refuses new streams and links, ends those that are open, telling each when to come back (the times are spread,
    /// so that not all come at once), and waits for them, at most [`RelayConfig::drain`].
    pub async fn drain(&self) {
        self.inner.draining.cancel();
        self.inner.stopped.cancel();
        self.inner.tracker.close();
        if tokio::time::timeout(self.inner.config.drain, self.inner.tracker.wait()).await.is_err() {
            tracing::warn!(left = self.inner.tracker.len(), "some streams did not end in time");
        }
    }

    pub(super) fn store(&self) -> &Arc<dyn EventStore> {
        &self.inner.store
    }

    pub(super) fn authority(&self) -> &dyn Authority {
        &*self.inner.authority
    }

    pub(super) fn config(&self) -> &RelayConfig {
        &self.inner.config
    }

    pub(super) fn feeds(&self) -> &Arc<Feeds> {
        &self.inner.feeds
    }

    /// A place for one more stream, from this address.
    pub(super) fn place(&self, peer: Option<&ConnectInfo<SocketAddr>>) -> Result<Place, ErrorDetail> {
        self.inner.crowd.admit(peer.map(|ConnectInfo(peer)| peer.ip())).map_err(|full| {
            let message = match full {
                Full::InAll(most) => format!("{most} streams are open already"),
                Full::OfAddress(most) => format!("{most} streams are open from your address already"),
            };
            let retry_after_ms = Some(RETRY_CROWDED_MS);
            ErrorDetail { retry_after_ms, ..ErrorDetail::new(ErrorCode::RateLimited, message) }
        })
    }

    pub(super) fn writers(&self) -> &Writers {
        &self.inner.writers
    }

    pub(super) fn links(&self) -> &Links {
        &self.inner.links
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(super) fn tracker(&self) -> &TaskTracker {
        &self.inner.tracker
    }

    /// Cancelled when streams and links are to end.
    pub(super) fn draining(&self) -> &CancellationToken {
        &self.inner.draining
    }

    /// When one of those that are sent away is to come back: spread over two seconds.
    pub(super) fn retry_after_ms(&self) -> u64 {
        rand::rng().random_range(500..2_500)
    }

    /// Appends `wrapper.lost` if the agent's wrapper, whose link has ended, does not come back in time.
    pub(super) fn expect_back(&self, agent: AgentId, since: Timestamp) {
        let relay = self.clone();
        self.inner.tracker.spawn(async move {
            let timer = tokio::time::sleep(relay.config().lost_after);
            if relay.inner.stopped.run_until_cancelled(timer).await.is_none() {
                return;
            }
            let presence = relay.links().presence(&agent);
            // A link that came and went meanwhile has a timer of its own.
            if presence.wrapper != WrapperPresence::Disconnected || presence.since != since {
                return;
            }
            let lost =
                NewEvent::of(clock::now(), "wrapper.lost", &Lost { since }).expect("a time serialises");
            if let Err(error) = relay.append(&LogId::Agent(agent), vec![lost]).await {
                tracing::error!(%error, "a lost wrapper could not be recorded");
            }
        });
    }
}

#[async_trait]
impl RelayApi for Relay {
    fn follow(&self, log: LogId, from: Option<StartAt>) -> BoxStream<'static, Delivery> {
        follow::follow(self, log, from)
    }

    async fn command(
        &self,
        agent: &AgentId,
        id: CommandId,
        command: Command,
    ) -> Result<CommandResult, ApiError> {
        Metrics::add(&self.metrics().commands, 1);
        Ok(self.links().command(agent, id, command).await)
    }

    async fn configure(&self, agent: &AgentId, config: SealedConfig) -> Result<(), ApiError> {
        self.links().configure(agent, config);
        Ok(())
    }

    async fn append(&self, log: &LogId, events: Vec<NewEvent>) -> Result<AppendedAt, ApiError> {
        let appended =
            self.commit(log, Append::of(events)).await.map_err(|error| problem::of_append(&error))?;
        Ok(AppendedAt { epoch: appended.epoch, head: appended.head })
    }

    async fn presence(&self, agent: &AgentId) -> Result<Presence, ApiError> {
        Ok(self.links().presence(agent))
    }

    async fn remove_log(&self, log: &LogId) -> Result<(), ApiError> {
        self.store().remove(log).await.map_err(|error| problem::of_store(&error))?;
        if let LogId::Agent(agent) = log {
            self.links().forget(agent);
        }
        self.feeds().wake(log);
        Ok(())
    }

    async fn search(&self, search: &Search) -> Result<Found, ApiError> {
        Ok(search::look(&**self.store(), search).await?)
    }
}

impl Relay {
    /// Appends, and counts.
    pub(super) async fn commit(
        &self,
        log: &LogId,
        batch: Append,
    ) -> Result<store::Appended, store::AppendError> {
        let events = batch.events.len();
        let bytes = batch.events.iter().map(|event| event.data.json().len()).sum::<usize>();
        let span = tracing::debug_span!("append", %log, events, bytes, head = Empty);
        let began = clock::instant();
        let appended = self.store().append(log, batch).instrument(span.clone()).await;
        let appended = appended.inspect_err(|_| self.metrics().append_failed())?;
        span.record("head", appended.head.get());
        if events > 0 {
            self.metrics().appended(appended.appended, bytes, clock::instant() - began);
        }
        Ok(appended)
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Seq, limits};
    use store::{Append, MemoryStore, RetentionPolicy};

    use super::*;
    use crate::auth::{JwtAuthority, Keys, TicketBook};

    #[tokio::test(start_paused = true)]
    async fn logs_that_nobody_writes_to_are_emptied_again_and_again_until_the_drain() {
        let (relay, store) = relay();
        let sweeping = tokio::spawn({
            let relay = relay.clone();
            async move { relay.sweep().await }
        });
        for log in ["agent/first", "agent/second"] {
            let log: LogId = log.parse().unwrap();
            let old = NewEvent::of(Timestamp::from_unix_ms(0), "file.edited", &"a").unwrap();
            store.append(&log, Append::of(vec![old])).await.unwrap();
            // The clock is paused: this is as long as it takes until nothing else is due.
            tokio::time::sleep(SWEEP).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(store.bounds(&log).await.unwrap().floor, Seq::new(1), "{log} is empty");
        }
        relay.drain().await;
        sweeping.await.unwrap();
    }

    #[tokio::test]
    async fn as_many_streams_are_taken_as_the_limits_say_and_one_more_is_told_to_wait() {
        let (relay, _) = relay();
        let [near, far] = ["127.0.0.1:1", "192.0.2.1:1"].map(|peer| ConnectInfo(peer.parse().unwrap()));
        let refused = |stream: Result<Place, ErrorDetail>| {
            stream.is_err_and(|why| why.code == ErrorCode::RateLimited && why.retry_after_ms.is_some())
        };
        let of_address = (0..limits::VIEWERS_PER_ADDRESS).map(|_| relay.place(Some(&far)).unwrap());
        let mut all = of_address.collect::<Vec<_>>();
        assert!(refused(relay.place(Some(&far))), "one more of that address");
        all.extend((all.len()..limits::VIEWERS).map(|_| relay.place(Some(&near)).unwrap()));
        assert!(refused(relay.place(Some(&near))) && refused(relay.place(None)), "one more in all");
        all.truncate(1);
        assert!(relay.place(Some(&far)).is_ok());
        let log = "agent/a1".parse().unwrap();
        let of_log = (0..limits::VIEWERS_PER_LOG).map(|_| relay.feeds().seat(&log).unwrap());
        let of_log = of_log.collect::<Vec<_>>();
        assert!(relay.feeds().seat(&log).is_err_and(|why| why.code == ErrorCode::RateLimited));
        drop(of_log);
        assert!(relay.feeds().seat(&log).is_ok());
    }

    fn relay() -> (Relay, Arc<MemoryStore>) {
        let store = Arc::new(MemoryStore::new(RetentionPolicy::default()));
        let authority = JwtAuthority::new(Keys::random(), Arc::new(TicketBook::new(clock::now())));
        (Relay::new(store.clone(), Arc::new(authority), RelayConfig::default()), store)
    }
}
