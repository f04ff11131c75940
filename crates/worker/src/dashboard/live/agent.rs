//! One agent's live page: a task that follows its log from the first viewer to a while after the last one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _};
use protocol::{
    AgentId, Epoch, LogId, Seq, Timestamp,
    frame::{GapReason, ToViewer, WrapperPresence},
    view::NoticeBody,
};
use relay::{Delivery, RelayApi};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::board::{Board, encode};
use crate::dashboard::{
    model::{Doing, Model},
    page::{regions, shell},
    part::Scope,
    transcript,
    tree::{ALWAYS, Node},
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
    /// Goes up with every change of any feed: the fleet page waits for it.
    pulse: watch::Sender<u64>,
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

/// What is known of an agent.
#[derive(Debug)]
pub(crate) struct State {
    agent: AgentId,
    name: String,
    epoch: Option<Epoch>,
    floor: Seq,
    /// History has been folded up to the head: pages are complete.
    live: bool,
    model: Model,
    /// The position of the last removal folded.
    removed: Seq,
    presence: Option<(WrapperPresence, Timestamp)>,
    /// Pages, by whether their reader may steer; made when there is a reader.
    pages: BTreeMap<bool, Page>,
}

#[derive(Debug)]
struct Page {
    board: Board,
    cache: transcript::Cache,
}

impl Feeds {
    /// None yet.
    pub(crate) fn new(relay: Arc<dyn RelayApi>, tasks: TaskTracker) -> Self {
        Self { relay, feeds: Arc::default(), tasks, pulse: watch::Sender::new(0) }
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

    /// Agents that wait for a person, of those that are followed.
    pub(crate) fn waiting(&self) -> usize {
        let feeds: Vec<Arc<Feed>> = lock(&self.feeds).values().cloned().collect();
        feeds.iter().filter(|feed| feed.state().model.doing() == Doing::Waiting).count()
    }

    async fn run(self, feed: Arc<Feed>) {
        let mut deliveries = self.relay.follow(LogId::Agent(feed.agent.clone()), None);
        loop {
            let first = tokio::select! {
                delivery = deliveries.next() => delivery,
                () = feed.unwatched() => {
                    let mut feeds = lock(&self.feeds);
                    if *feed.viewers.borrow() == 0 {
                        feeds.remove(&feed.agent);
                        return;
                    }
                    continue;
                }
            };
            let Some(first) = first else { break };
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Some(Some(delivery)) = deliveries.next().now_or_never()
            {
                batch.push(delivery);
            }
            feed.state().take(&batch);
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
        let state = State {
            agent: agent.clone(),
            name: name.to_owned(),
            epoch: None,
            floor: Seq::ZERO,
            live: false,
            model: Model::default(),
            removed: Seq::ZERO,
            presence: None,
            pages: BTreeMap::new(),
        };
        Self {
            agent: agent.clone(),
            state: Mutex::new(state),
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
        while !self.state().live {
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

impl State {
    /// The fold.
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// The wrapper's link.
    pub(crate) fn presence(&self) -> Option<(WrapperPresence, Timestamp)> {
        self.presence
    }

    /// The page for readers who may or may not steer.
    pub(crate) fn board(&mut self, steer: bool) -> &Board {
        if !self.pages.contains_key(&steer) {
            let mut cache = transcript::Cache::default();
            let regions = self.render(steer, &mut cache);
            let epoch = self.epoch.clone().unwrap_or_else(|| Epoch::new("none"));
            let board = Board::new(
                LogId::Agent(self.agent.clone()),
                epoch,
                self.model.view.seq(),
                self.floor.max(self.removed),
                regions,
            );
            self.pages.insert(steer, Page { board, cache });
        }
        &self.pages[&steer].board
    }

    /// Takes deliveries, and renders what came of them once.
    pub(crate) fn take(&mut self, deliveries: &[Delivery]) {
        let mut anew = false;
        for delivery in deliveries {
            match delivery {
                Delivery::Subscribed { epoch, floor, .. } => {
                    if self.epoch.as_ref() != Some(epoch) {
                        anew = true;
                        self.epoch = Some(epoch.clone());
                    }
                    self.floor = *floor;
                }
                Delivery::Event(event) => self.model.apply(event),
                Delivery::Gap { from, to, reason } => {
                    anew = true;
                    self.gap(*from, *to, *reason);
                }
                Delivery::Live { .. } => self.live = true,
                Delivery::Presence { wrapper, since } => {
                    self.presence = Some((*wrapper, *since));
                    let frame = ToViewer::Presence { log: self.log(), wrapper: *wrapper, since: *since };
                    self.announce(&frame);
                }
                Delivery::Ended { reason } => {
                    let frame = ToViewer::Ended { log: self.log(), reason: reason.clone() };
                    self.announce(&frame);
                }
                _ => {}
            }
        }
        self.removed = self.model.view.removed().map(|(_, removed)| removed.seq).fold(self.removed, Seq::max);
        if self.live {
            self.publish(anew);
        }
    }

    fn gap(&mut self, from: Option<Seq>, to: Option<Seq>, reason: GapReason) {
        let time = self.model.view.time().unwrap_or_default();
        self.model.restart_after_gap(NoticeBody::Gap { from, to, reason }, time);
    }

    fn publish(&mut self, anew: bool) {
        let mut pages = std::mem::take(&mut self.pages);
        for (steer, page) in &mut pages {
            if anew {
                page.cache = transcript::Cache::default();
            }
            let regions = self.render(*steer, &mut page.cache);
            let seq = self.model.view.seq();
            match &self.epoch {
                Some(epoch) if anew => page.board.restart(epoch.clone(), seq, regions),
                Some(_) | None => page.board.publish(regions, seq, self.removed),
            }
        }
        self.pages = pages;
    }

    fn render(&self, steer: bool, cache: &mut transcript::Cache) -> Vec<Node> {
        let directory =
            self.model.view.agent().started.as_ref().and_then(|started| started.directory.clone());
        let root =
            || self.model.view.roots().last().and_then(|root| root.info()).map(|info| info.directory.clone());
        let scope = Scope {
            agent: self.agent.clone(),
            steer,
            directory: directory.or_else(root).unwrap_or_default(),
        };
        let mut regions = regions::all(&self.model, &scope, cache);
        let title = shell::title(&regions::title(&self.name, &self.model));
        regions.push(Node::leaf("title", ALWAYS, title.into_string()));
        regions
    }

    fn log(&self) -> LogId {
        LogId::Agent(self.agent.clone())
    }

    fn announce(&mut self, frame: &ToViewer) {
        let (seq, frame) = (self.model.view.seq(), encode(frame));
        for page in self.pages.values_mut() {
            page.board.announce(seq, frame.clone());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An agent's page, for a viewer who may or may not steer.
#[derive(Debug)]
pub(crate) struct AgentSource {
    /// What is followed.
    pub viewing: Viewing,
    /// Whether the viewer may steer.
    pub steer: bool,
}

impl super::viewer::Source for AgentSource {
    async fn ready(&self) {
        self.viewing.feed().live().await;
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.viewing.feed().changes()
    }

    fn with_board<T>(&self, look: impl FnOnce(&Board) -> T) -> T {
        look(self.viewing.feed().state().board(self.steer))
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
    use protocol::{Command, CommandId, CommandResult, NewEvent, RawData, frame::StartAt};
    use relay::{ApiError, AppendedAt, Presence};
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
        let (_, place) = viewing.feed().state().board(true).join(None);
        let mut changes = viewing.feed().changes();
        changes.mark_unchanged();
        let deltas: Vec<_> = (1..=20).map(|seq| delta(seq, "word ")).collect();
        relay.deliver(&deltas);
        changes.changed().await.unwrap();
        let (frames, _) = viewing.feed().state().board(true).after(place).unwrap();
        assert_eq!(frames.len(), 1);
        let frame: ToViewer = serde_json::from_slice(&frames[0]).unwrap();
        assert!(matches!(frame, ToViewer::Patch { seq, .. } if seq == Seq::new(20)));
    }

    #[test]
    fn p3_another_epoch_replaces_the_page_without_a_reload() {
        let mut state = State::toast();
        state.take(&[subscribed("one"), delta(1, "old"), Delivery::Live { head: Seq::new(1) }]);
        let (_, place) = state.board(true).join(None);
        state.take(&[gap(GapReason::Epoch), subscribed("two"), delta(1, "new")]);
        let (frames, _) = state.board(true).after(place).unwrap();
        let frames: Vec<ToViewer> =
            frames.iter().map(|frame| serde_json::from_slice(frame).unwrap()).collect();
        let [ToViewer::Subscribed { epoch, .. }, ToViewer::Patch { ops, .. }] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert_eq!(epoch.as_str(), "two");
        let page = format!("{ops:?}");
        assert!(
            page.contains("new") && page.contains("The log began anew") && !page.contains(">old<"),
            "{page}"
        );
    }

    #[test]
    fn readers_who_may_not_steer_have_a_page_of_their_own() {
        let mut state = State::toast();
        state.take(&[subscribed("one"), delta(1, "x"), Delivery::Live { head: Seq::new(1) }]);
        let has_dock = |board: &Board| board.regions().iter().any(|region| &*region.id == "dock");
        assert!(has_dock(state.board(true)));
        assert!(!has_dock(state.board(false)));
    }

    impl State {
        fn toast() -> Self {
            let feed = Feed::new(&"toast".parse().unwrap(), "Toast");
            feed.state.into_inner().unwrap()
        }
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
        (Feeds::new(Arc::clone(&relay) as Arc<dyn RelayApi>, TaskTracker::new()), relay)
    }

    fn subscribed(epoch: &str) -> Delivery {
        Delivery::Subscribed { epoch: Epoch::new(epoch), floor: Seq::ZERO, head: Seq::ZERO }
    }

    fn gap(reason: GapReason) -> Delivery {
        Delivery::Gap { from: None, to: None, reason }
    }

    fn delta(seq: u64, text: &str) -> Delivery {
        let data = serde_json::json!({ "sessionID": "s", "messageID": "m", "partID": "p", "field": "text", "delta": text });
        let event = NewEvent {
            time: Timestamp::from_unix_ms(0),
            kind: "message.part.delta".into(),
            session: Some("s".into()),
            data: RawData::of(&data).unwrap(),
        };
        Delivery::Event(Arc::new(event.at(Seq::new(seq))))
    }
}
