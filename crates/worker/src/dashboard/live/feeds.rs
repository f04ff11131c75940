//! Every agent that is followed: a task per agent from its first viewer to a while after the last one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _};
use protocol::{AgentId, LogId, frame::ToViewer};
use relay::RelayApi;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::task::TaskTracker;

use super::{
    agent::State,
    board::{Board, encode},
    lock,
};
use crate::{
    Clock,
    dashboard::{page::shell::Headline, part::Reader},
};

/// How long an agent is followed after its last viewer: a page that is loaded again finds its fold.
const LINGER: Duration = Duration::from_secs(30);
/// Deliveries folded before the page is rendered.
const BATCH: usize = 512;

/// Every agent that is followed just now.
#[derive(Clone)]
pub(crate) struct Feeds {
    relay: Arc<dyn RelayApi>,
    /// By agent. A feed is here from its first viewer to [`LINGER`] after the last.
    feeds: Arc<Mutex<BTreeMap<AgentId, Arc<Feed>>>>,
    tasks: TaskTracker,
    clock: Clock,
    /// Goes up with every change of any feed: the fleet page waits for it.
    pulse: watch::Sender<u64>,
    /// What every page of the town shows at its top.
    headline: watch::Sender<Headline>,
}

impl std::fmt::Debug for Feeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feeds").finish_non_exhaustive()
    }
}

/// A viewer's hold on a feed: it goes on for as long as there is one.
#[derive(Debug)]
pub(crate) struct Viewing {
    feed: Arc<Feed>,
}

/// One agent, followed.
#[derive(Debug)]
pub(crate) struct Feed {
    agent: AgentId,
    state: Mutex<State>,
    /// Goes up with every change.
    changed: watch::Sender<u64>,
    viewers: watch::Sender<usize>,
}

impl Feeds {
    /// None yet.
    pub(crate) fn new(relay: Arc<dyn RelayApi>, tasks: TaskTracker, clock: Clock) -> Self {
        Self {
            relay,
            feeds: Arc::default(),
            tasks,
            clock,
            pulse: watch::Sender::new(0),
            headline: watch::Sender::new(Headline::default()),
        }
    }

    /// Follows an agent from now until the handle is dropped, and a little longer.
    pub(crate) fn follow(&self, agent: &AgentId, name: &str) -> Viewing {
        let mut feeds = lock(&self.feeds);
        let feed = feeds.entry(agent.clone()).or_insert_with(|| {
            let feed = Arc::new(Feed::new(agent, name));
            self.tasks.spawn(self.clone().run(Arc::clone(&feed)));
            feed
        });
        // Counted under the lock: the task that ends for want of viewers looks again under it.
        feed.viewers.send_modify(|viewers| *viewers += 1);
        Viewing { feed: Arc::clone(feed) }
    }

    /// Goes up with every change of any feed.
    pub(crate) fn pulse(&self) -> watch::Receiver<u64> {
        self.pulse.subscribe()
    }

    /// What every page of the town shows at its top, as far as it is known.
    pub(crate) fn headline(&self) -> Headline {
        *self.headline.borrow()
    }

    /// Tells every page what stands at its top.
    pub(crate) fn set_headline(&self, headline: Headline) {
        self.headline.send_if_modified(|known| std::mem::replace(known, headline) != headline);
    }

    async fn run(self, feed: Arc<Feed>) {
        let mut deliveries = self.relay.follow(LogId::Agent(feed.agent.clone()), None);
        let mut headline = self.headline.subscribe();
        headline.mark_changed();
        loop {
            let deadline = feed.state().next_deadline().map(|at| Instant::now() + at.since(self.clock.now()));
            let first = tokio::select! {
                delivery = deliveries.next() => match delivery {
                    Some(delivery) => Some(delivery),
                    None => break,
                },
                // The sender is in `self`.
                _ = headline.changed() => None,
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => None,
                () = feed.unwatched() => {
                    let mut feeds = lock(&self.feeds);
                    if *feed.viewers.borrow() == 0 {
                        feeds.remove(&feed.agent);
                        return;
                    }
                    continue;
                }
            };
            let mut batch: Vec<_> = first.into_iter().collect();
            while !batch.is_empty()
                && batch.len() < BATCH
                && let Some(Some(delivery)) = deliveries.next().now_or_never()
            {
                batch.push(delivery);
            }
            feed.state().take(&batch, *headline.borrow_and_update(), self.clock.now());
            feed.changed.send_modify(|n| *n += 1);
            self.pulse.send_modify(|n| *n += 1);
        }
        lock(&self.feeds).remove(&feed.agent);
    }
}

impl Viewing {
    /// What is followed.
    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }
}

impl Drop for Viewing {
    fn drop(&mut self) {
        self.feed.viewers.send_modify(|viewers| *viewers -= 1);
    }
}

impl Feed {
    fn new(agent: &AgentId, name: &str) -> Self {
        Self {
            agent: agent.clone(),
            state: Mutex::new(State::new(agent, name)),
            changed: watch::Sender::new(0),
            viewers: watch::Sender::new(0),
        }
    }

    /// What is known by now.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Goes up with every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Until history has been folded.
    pub(crate) async fn live(&self) {
        let mut changes = self.changes();
        while !self.state().is_live() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Until nobody has watched for a while.
    async fn unwatched(&self) {
        let mut viewers = self.viewers.subscribe();
        loop {
            // The sender is in `self`: neither wait can fail.
            let _ = viewers.wait_for(|viewers| *viewers == 0).await;
            tokio::select! {
                () = tokio::time::sleep(LINGER) => return,
                _ = viewers.wait_for(|viewers| *viewers > 0) => {}
            }
        }
    }
}

/// An agent's page, for one kind of reader.
pub(crate) struct AgentSource {
    /// What is followed.
    pub viewing: Viewing,
    /// Who reads.
    pub reader: Reader,
    /// The town, whose headline is kept true for as long as this is held; a guest's page has none.
    #[expect(dead_code, reason = "it is held, and that is all")]
    pub town: Option<super::fleet::FleetSource>,
}

impl super::viewer::Source for AgentSource {
    async fn ready(&self) {
        self.viewing.feed().live().await;
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.viewing.feed().changes()
    }

    fn with_board<T>(&self, look: impl FnOnce(&Board) -> T) -> T {
        look(self.viewing.feed().state().board(self.reader))
    }

    fn standing(&self) -> Vec<bytes::Bytes> {
        let state = self.viewing.feed().state();
        let presence =
            state.presence().map(|(wrapper, since)| ToViewer::Presence { log: state.log(), wrapper, since });
        presence.iter().map(encode).collect()
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use futures_util::stream::{self, BoxStream};
    use protocol::{
        Command, CommandId, CommandResult, Epoch, NewEvent, RawData, Seq, Timestamp, config::SealedConfig,
        frame::StartAt,
    };
    use relay::{ApiError, AppendedAt, Delivery, Presence};
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_followed_once_however_many_look() {
        let (feeds, relay) = feeds();
        let agent: AgentId = "toast".parse().unwrap();
        let (one, other) = (feeds.follow(&agent, "Toast"), feeds.follow(&agent, "Toast"));
        one.feed().live().await;
        other.feed().live().await;
        assert!(Arc::ptr_eq(one.feed(), other.feed()));
        assert_eq!(relay.follows(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_a_while_after_the_last_viewer() {
        let (feeds, relay) = feeds();
        let agent: AgentId = "toast".parse().unwrap();
        let viewing = feeds.follow(&agent, "Toast");
        viewing.feed().live().await;
        drop(viewing);
        let again = feeds.follow(&agent, "Toast");
        assert_eq!(relay.follows(), 1, "a page that is loaded again finds its fold");
        drop(again);
        feeds.tasks.close();
        feeds.tasks.wait().await;
        assert!(lock(&feeds.feeds).is_empty());
        let anew = feeds.follow(&agent, "Toast");
        anew.feed().live().await;
        assert_eq!(relay.follows(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_delivered_together_is_one_change_of_the_page() {
        let (feeds, relay) = feeds();
        let viewing = feeds.follow(&"toast".parse().unwrap(), "Toast");
        viewing.feed().live().await;
        let (_, place) = viewing.feed().state().board(Reader::Steers).join(None);
        let mut changes = viewing.feed().changes();
        changes.mark_unchanged();
        let deltas: Vec<_> = (1..=20).map(|seq| delta(seq, "word ")).collect();
        relay.deliver(&deltas);
        changes.changed().await.unwrap();
        let (frames, _) = viewing.feed().state().board(Reader::Steers).after(place).unwrap();
        assert_eq!(frames.len(), 1);
        let frame: ToViewer = serde_json::from_slice(&frames[0]).unwrap();
        assert!(matches!(frame, ToViewer::Patch { seq, .. } if seq == Seq::new(20)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_turn_that_is_silent_for_too_long_is_shown_as_stalled() {
        let (feeds, relay) = feeds();
        let viewing = feeds.follow(&"toast".parse().unwrap(), "Toast");
        viewing.feed().live().await;
        let mut changes = viewing.feed().changes();
        let busy = |seq| {
            let data = serde_json::json!({ "sessionID": "s", "status": { "type": "busy" } });
            event(seq, feeds.clock.now(), "session.status", &data)
        };
        let shows = |word: &str| {
            let mut state = viewing.feed().state();
            let regions = state.board(Reader::Steers).regions();
            regions.iter().any(|region| &*region.id == "agent-state" && region.html().contains(word))
        };
        relay.deliver(&[busy(1)]);
        changes.wait_for(|_| shows("Working")).await.unwrap();
        // Nothing is delivered: time alone makes it so.
        changes.wait_for(|_| shows("Stalled")).await.unwrap();
        assert!(feeds.clock.now() >= Timestamp::from_unix_ms(300_000), "{}", feeds.clock.now());
        relay.deliver(&[busy(2)]);
        changes.wait_for(|_| shows("Working")).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_stands_at_the_top_reaches_every_page() {
        let (feeds, _relay) = feeds();
        let viewing = feeds.follow(&"toast".parse().unwrap(), "Toast");
        viewing.feed().live().await;
        feeds.set_headline(Headline { needs: 2, tokens: 1_200, cost: 3.5 });
        let mut changes = viewing.feed().changes();
        let spend = |reader| {
            let mut state = viewing.feed().state();
            let regions = state.board(reader).regions();
            regions.iter().find(|region| &*region.id == "spend").map(crate::dashboard::tree::Node::html)
        };
        changes.wait_for(|_| spend(Reader::Reads).is_some_and(|html| html.contains("$3.50"))).await.unwrap();
        assert_eq!(spend(Reader::Guest), None, "who has a link learns nothing of the town");
    }

    /// Delivers what the test says, to whoever follows.
    #[derive(Default)]
    struct Script {
        follows: Mutex<Vec<mpsc::Sender<Delivery>>>,
    }

    impl Script {
        fn follows(&self) -> usize {
            lock(&self.follows).len()
        }

        fn deliver(&self, deliveries: &[Delivery]) {
            for delivery in deliveries {
                lock(&self.follows).last().unwrap().try_send(delivery.clone()).unwrap();
            }
        }
    }

    #[async_trait]
    impl RelayApi for Script {
        fn follow(&self, _: LogId, _: Option<StartAt>) -> BoxStream<'static, Delivery> {
            let (sender, receiver) = mpsc::channel(64);
            lock(&self.follows).push(sender);
            let first = stream::iter([subscribed("e"), Delivery::Live { head: Seq::ZERO }]);
            let rest =
                stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
            first.chain(rest).boxed()
        }

        async fn command(&self, _: &AgentId, _: CommandId, _: Command) -> Result<CommandResult, ApiError> {
            unreachable!("a page does not steer by itself")
        }

        async fn configure(&self, _: &AgentId, _: SealedConfig) -> Result<(), ApiError> {
            unreachable!("a page configures nobody")
        }

        async fn append(&self, _: &LogId, _: Vec<NewEvent>) -> Result<AppendedAt, ApiError> {
            unreachable!("a page does not write")
        }

        async fn presence(&self, _: &AgentId) -> Result<Presence, ApiError> {
            unreachable!("presence comes with the stream")
        }

        async fn remove_log(&self, _: &LogId) -> Result<(), ApiError> {
            unreachable!("a page removes nothing")
        }
    }

    fn feeds() -> (Feeds, Arc<Script>) {
        let relay = Arc::new(Script::default());
        let clock = Clock::of_runtime(Timestamp::from_unix_ms(0));
        (Feeds::new(Arc::clone(&relay) as Arc<dyn RelayApi>, TaskTracker::new(), clock), relay)
    }

    fn subscribed(epoch: &str) -> Delivery {
        Delivery::Subscribed { epoch: Epoch::new(epoch), floor: Seq::ZERO, head: Seq::ZERO }
    }

    fn delta(seq: u64, text: &str) -> Delivery {
        let data = serde_json::json!({ "sessionID": "s", "messageID": "m", "partID": "p", "field": "text", "delta": text });
        event(seq, Timestamp::from_unix_ms(0), "message.part.delta", &data)
    }

    fn event(seq: u64, time: Timestamp, kind: &str, data: &serde_json::Value) -> Delivery {
        let event =
            NewEvent { time, kind: kind.into(), session: Some("s".into()), data: RawData::of(data).unwrap() };
        Delivery::Event(Arc::new(event.at(Seq::new(seq))))
    }
}
