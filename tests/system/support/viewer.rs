//! A viewer that keeps all it was given, and waits for what its fold shows.

use std::time::Duration;

use futures_util::StreamExt as _;
use protocol::{
    Cursor, Epoch, Event, LogId, Seq,
    frame::{GapReason, StartAt, WrapperPresence},
    view::SessionView,
};
use relay::{
    Delivery,
    client::{Client, Follow},
};
use tokio::time::timeout;

use super::server::PATIENCE;
use crate::oracle::{History, Seen, Viewer as ViewerHistory, shown};

/// Follows one log over all its reconnects.
pub(crate) struct Viewer {
    client: Client,
    log: LogId,
    follow: Follow,
    epoch: Option<Epoch>,
    pub(crate) view: SessionView,
    pub(crate) history: ViewerHistory,
    pub(crate) live: bool,
}

impl Viewer {
    /// From the beginning of what is kept.
    pub(crate) fn of(client: &Client, log: LogId) -> Self {
        Self::after(client, log, None)
    }

    pub(crate) fn after(client: &Client, log: LogId, from: Option<StartAt>) -> Self {
        let start = match &from {
            Some(StartAt::After(cursor)) => cursor.seq,
            Some(StartAt::Head) | None => Seq::ZERO,
        };
        let history = ViewerHistory { name: format!("viewer of {log}"), start, ..ViewerHistory::default() };
        let follow = client.follow_when_there(log.clone(), from);
        let view = SessionView::default();
        Self { client: client.clone(), log, follow, epoch: None, view, history, live: false }
    }

    /// Leaves, and comes back with its cursor on another connection.
    pub(crate) fn reconnect(&mut self) {
        let cursor = self.epoch.clone().map(|epoch| StartAt::After(Cursor { epoch, seq: self.view.seq() }));
        self.follow = self.client.follow_when_there(self.log.clone(), cursor);
    }

    /// Judges what this and other viewers saw by what the store holds, once all of them have read to its end.
    pub(crate) async fn assert_history_holds(client: &Client, mut viewers: Vec<Self>) {
        let log = viewers.first().expect("a viewer").log.clone();
        let mut history = stored(client, &log).await;
        loop {
            let head = history.stored.last().map_or(Seq::ZERO, |event| event.seq);
            for viewer in &mut viewers {
                viewer.until_seq(head).await;
            }
            history = stored(client, &log).await;
            if history.stored.last().is_none_or(|event| event.seq == head) {
                break;
            }
        }
        history.viewers =
            viewers.into_iter().map(|viewer| ViewerHistory { stayed: true, ..viewer.history }).collect();
        history.verdict().unwrap_or_else(|broken| panic!("{broken}"));
    }

    /// Reads on until the fold is as wanted; panics with `what` if that does not come.
    pub(crate) async fn until(&mut self, what: &str, mut wanted: impl FnMut(&SessionView) -> bool) {
        let reading = async {
            while !wanted(&self.view) {
                self.step().await;
            }
        };
        if timeout(PATIENCE, reading).await.is_err() {
            let shown = shown(&self.view);
            panic!("waited in vain for: {what}\nlast event {}\n{shown:#}", self.view.seq());
        }
    }

    /// Reads on until everything up to a position was seen.
    pub(crate) async fn until_seq(&mut self, seq: Seq) {
        self.until(&format!("event {seq}"), |view| view.seq() >= seq).await;
    }

    /// Reads on until an event is as wanted, and gives it back.
    pub(crate) async fn until_event(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let reading = async {
            loop {
                if let Some(Seen::Event(event)) = self.step().await
                    && wanted(&event)
                {
                    return event;
                }
            }
        };
        timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("waited in vain for: {what}"))
    }

    /// Reads on until a gap is said, which must have this reason.
    pub(crate) async fn until_gap(&mut self, expected: GapReason) {
        let reading = async {
            loop {
                if let Some(Seen::Gap { reason, .. }) = self.step().await {
                    return reason;
                }
            }
        };
        let reason = timeout(PATIENCE, reading).await.expect("a gap is said");
        assert_eq!(reason, expected);
    }

    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.epoch.clone()
    }

    /// Takes one delivery.
    async fn step(&mut self) -> Option<Seen> {
        let delivery =
            self.follow.next().await.expect("the stream goes on").expect("no reconnect was refused");
        let seen = match delivery {
            Delivery::Event(event) => {
                self.view.apply(&event);
                Some(Seen::Event((*event).clone()))
            }
            Delivery::Gap { from, to, reason } => {
                self.view = SessionView::default();
                Some(Seen::Gap { from, to, reason })
            }
            Delivery::Subscribed { epoch, .. } => {
                self.epoch = Some(epoch);
                None
            }
            Delivery::Live { .. } => {
                self.live = true;
                None
            }
            Delivery::Presence { .. } | Delivery::Ended { .. } | _ => None,
        };
        self.history.seen.extend(seen.clone());
        seen
    }
}

/// Waits until the relay has an agent's wrapper (again), so that commands reach it.
pub(crate) async fn wrapper_is_back(client: &Client, log: LogId) {
    let mut log = client.follow_when_there(log, Some(StartAt::Head));
    let back = async {
        loop {
            let delivery = log.next().await.expect("the stream goes on").expect("it is let in");
            if matches!(delivery, Delivery::Presence { wrapper: WrapperPresence::Connected, .. }) {
                return;
            }
        }
    };
    timeout(PATIENCE, back).await.expect("the wrapper comes back");
}

/// What the store holds of a log.
pub(crate) async fn stored(client: &Client, log: &LogId) -> History {
    let mut history = History::default();
    let mut after = None;
    loop {
        let page =
            client.page(log, after.as_ref(), 1_000, Duration::ZERO).await.expect("the log can be read");
        after = Some(page.cursor());
        history.floor = page.floor;
        history.stored.extend(page.events);
        if !page.more {
            return history;
        }
    }
}
