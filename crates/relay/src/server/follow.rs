//! Following a log in this process: what SSE and [`Relay`]'s own readers share.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{StreamExt as _, stream, stream::BoxStream};
use protocol::{
    Epoch, ErrorCode, ErrorDetail, LogId, Seq, Timestamp,
    frame::{StartAt, WrapperPresence},
};
use store::Bounds;

use super::{
    Relay,
    feed::{Next, Reader},
    metrics::Metrics,
};
use crate::{
    Delivery, Segment,
    filter::TypeFilter,
    subscription::{Item, Subscription},
};

/// Follows one log with a [`Subscription`]. It holds no more than what one read gave.
#[derive(Debug)]
pub(super) struct Follower {
    relay: Relay,
    reader: Reader,
    subscription: Subscription,
    presence: Option<(WrapperPresence, Timestamp)>,
}

/// What a follower comes upon.
#[derive(Debug)]
pub(super) enum Step {
    /// The subscription says this.
    Items(Vec<Item>),
    /// The wrapper's link changed, or this is how it is.
    Presence(WrapperPresence, Timestamp),
}

impl Follower {
    pub(super) fn new(relay: &Relay, log: LogId, from: Option<StartAt>, filter: TypeFilter) -> Self {
        let reader = Reader::new(relay.feeds().clone(), log.clone());
        Self {
            relay: relay.clone(),
            reader,
            subscription: Subscription::new(log, from, filter),
            presence: None,
        }
    }

    pub(super) fn log(&self) -> &LogId {
        self.subscription.log()
    }

    /// The incarnation and the position up to which everything was given.
    pub(super) fn position(&self) -> Option<(&Epoch, Seq)> {
        self.subscription.position()
    }

    /// What comes next; waits for it. Cancel-safe: what is not returned is read again.
    pub(super) async fn next(&mut self) -> Result<Step, ErrorDetail> {
        if self.subscription.position().is_none() {
            let bounds = self.reader.open().await?;
            return Ok(Step::Items(self.subscription.open(bounds)));
        }
        loop {
            if let Some((wrapper, since)) = self.new_presence() {
                return Ok(Step::Presence(wrapper, since));
            }
            let items = self.read().await?;
            if !items.is_empty() {
                return Ok(Step::Items(items));
            }
        }
    }

    /// Whether the wrapper's link is in another state than was said last.
    fn new_presence(&mut self) -> Option<(WrapperPresence, Timestamp)> {
        let presence = self.relay.links().presence(self.log().agent()?);
        let found = (presence.wrapper, presence.since);
        (self.presence.replace(found) != Some(found)).then_some(found)
    }

    async fn read(&mut self) -> Result<Vec<Item>, ErrorDetail> {
        let (epoch, after) = self.subscription.position().expect("it is open");
        let items = match self.reader.next(epoch, after).await? {
            Next::Segment(segment) => self.subscription.segment(&segment),
            Next::Page(page) => {
                let (more, epoch_stays) = (page.more, page.bounds.epoch == *epoch);
                Metrics::add(&self.relay.metrics().behind, 1);
                let items = self.subscription.page(&page);
                if items.is_empty() && !more && epoch_stays {
                    self.reader.woken().await;
                }
                items
            }
            Next::Nothing => {
                self.reader.woken().await;
                Vec::new()
            }
        };
        count(self.relay.metrics(), &items);
        Ok(items)
    }
}

/// Counts what a viewer is given.
pub(super) fn count(metrics: &Metrics, items: &[Item]) {
    for item in items {
        match item {
            Item::Events(segment) => {
                Metrics::add(&metrics.events_out, segment.records().len());
                Metrics::add(&metrics.bytes_out, segment.frame().len());
            }
            Item::Gap { .. } => Metrics::add(&metrics.gaps, 1),
            Item::Subscribed(_) | Item::Live(_) | Item::Ended(_) => {}
        }
    }
}

/// See [`crate::RelayApi::follow`].
pub(super) fn follow(relay: &Relay, log: LogId, from: Option<StartAt>) -> BoxStream<'static, Delivery> {
    let follower = Follower::new(relay, log, from, TypeFilter::default());
    let ends = relay.draining().clone().cancelled_owned();
    stream::unfold(Deliveries { follower, ready: VecDeque::new(), segment: None }, Deliveries::next)
        .take_until(Box::pin(ends))
        .boxed()
}

struct Deliveries {
    follower: Follower,
    ready: VecDeque<Item>,
    /// The events that are being given, and which of them is next.
    segment: Option<(Segment, usize)>,
}

impl Deliveries {
    async fn next(mut self) -> Option<(Delivery, Self)> {
        loop {
            if let Some(event) = self.next_event() {
                return Some((event, self));
            }
            match self.ready.pop_front() {
                Some(Item::Events(segment)) => self.segment = Some((segment, 0)),
                Some(item) => return delivery(item).map(|delivery| (delivery, self)),
                None => match self.follower.next().await {
                    Ok(Step::Items(items)) => self.ready.extend(items),
                    Ok(Step::Presence(wrapper, since)) => {
                        return Some((Delivery::Presence { wrapper, since }, self));
                    }
                    Err(error) if error.code == ErrorCode::UnknownLog => self.wait_for_log().await?,
                    Err(error) => {
                        tracing::error!(log = %self.follower.log(), error = %error.message, "a log cannot be followed");
                        return None;
                    }
                },
            }
        }
    }

    fn next_event(&mut self) -> Option<Delivery> {
        let (segment, index) = self.segment.as_mut()?;
        let Some(record) = segment.records().get(*index) else {
            self.segment = None;
            return None;
        };
        *index += 1;
        let event = record.event().expect("the store gives what it was given");
        Some(Delivery::Event(Arc::new(event)))
    }

    /// Waits until the log is there: for the first time, or again.
    async fn wait_for_log(&mut self) -> Option<()> {
        let mut head = self.follower.relay.store().tail(self.follower.log());
        while self.follower.relay.store().bounds(self.follower.log()).await.is_err() {
            head.changed().await?;
        }
        Some(())
    }
}

fn delivery(item: Item) -> Option<Delivery> {
    Some(match item {
        Item::Subscribed(Bounds { epoch, floor, head }) => Delivery::Subscribed { epoch, floor, head },
        Item::Gap { from, to, reason } => Delivery::Gap { from, to, reason },
        Item::Live(head) => Delivery::Live { head },
        Item::Ended(reason) => Delivery::Ended { reason: reason.to_string() },
        Item::Events(_) => return None,
    })
}
