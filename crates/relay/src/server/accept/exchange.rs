//! How long a connection may keep its server waiting (RFC 9112 §9.8): for a request's header, for the next request, and
//! for room for an answer.
//!
//! hyper has one timer for the first two, which also runs while an answer is still being taken, and none for the third.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{StatusCode, response::Response},
};
use hyper::body::{Frame, SizeHint};
use protocol::limits;
use tokio::time::{Sleep, sleep};

use super::ServeLimits;

/// A header is being read.
const HEADER: u8 = 0;
/// A request is being served: its handler, and whoever reads the answer, take their own time.
const ANSWER: u8 = 1;
/// The answer has left, and the next request may come.
const REST: u8 = 2;
/// It speaks HTTP no more.
const UPGRADED: u8 = 3;

/// Time for which nothing of an answer may be taken, as of a stream of frames.
const STALLED: Duration = Duration::from_millis(limits::STALLED_MS);

/// Where a connection is, as its service says.
#[derive(Debug, Clone)]
pub(super) struct Exchange(Arc<AtomicU8>);

impl Exchange {
    /// Of a connection that was just accepted: a header is due.
    pub(super) fn begin() -> Self {
        Self(Arc::new(AtomicU8::new(HEADER)))
    }

    /// The header is there.
    pub(super) fn asked(&self) {
        self.set(ANSWER);
    }

    /// This is the answer: with the end of its body the connection rests.
    pub(super) fn answered(&self, response: Response<Body>) -> Response<Answer> {
        let upgrades = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if upgrades {
            self.set(UPGRADED);
        }
        let end = (!upgrades).then(|| End(self.clone()));
        response.map(|body| Answer { body, _end: end })
    }

    fn get(&self) -> u8 {
        self.0.load(Relaxed)
    }

    fn set(&self, phase: u8) {
        self.0.store(phase, Relaxed);
    }
}

/// The body of an answer.
pub(super) struct Answer {
    body: Body,
    _end: Option<End>,
}

struct End(Exchange);

impl Drop for End {
    fn drop(&mut self) {
        self.0.set(REST);
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The timer of a connection that is read.
#[derive(Debug)]
pub(super) struct Patience {
    exchange: Exchange,
    limits: ServeLimits,
    /// For which phase it is set.
    due: Option<(u8, Pin<Box<Sleep>>)>,
    /// There is no room for the rest of an answer.
    full: Option<Pin<Box<Sleep>>>,
}

/// What was waited for did not come in time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// A header has begun, or the first one is due.
    Header,
    /// There is no next request.
    Request,
}

impl Patience {
    pub(super) fn new(exchange: Exchange, limits: ServeLimits) -> Self {
        Self { exchange, limits, due: None, full: None }
    }

    /// Bytes came: after an answer they begin the next header.
    pub(super) fn heard(&mut self) {
        if self.exchange.get() == REST {
            self.exchange.set(HEADER);
        }
    }

    /// There was room for something of an answer.
    pub(super) fn took(&mut self, context: &Context<'_>) {
        if self.full.take().is_some() {
            // Who takes an answer slowly was not at rest: that is waited for anew.
            self.due = None;
            context.waker().wake_by_ref();
        }
    }

    /// Nothing of an answer is taken: whether that was so for too long. Streams see to that themselves.
    pub(super) fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.exchange.get() == UPGRADED {
            return Poll::Pending;
        }
        self.full.get_or_insert_with(|| Box::pin(sleep(STALLED))).as_mut().poll(context)
    }

    /// Nothing has come yet: whether that was for too long. If not, the task is woken when it is.
    pub(super) fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Late> {
        let phase = self.exchange.get();
        let (time, late) = match phase {
            _ if self.full.is_some() => return Poll::Pending,
            HEADER => (self.limits.header_timeout, Late::Header),
            REST => (self.limits.idle_timeout, Late::Request),
            _ => {
                self.due = None;
                return Poll::Pending;
            }
        };
        self.set(phase, time).poll(context).map(|()| late)
    }

    /// The timer of this phase; it runs from when the phase was first waited in.
    fn set(&mut self, phase: u8, time: Duration) -> Pin<&mut Sleep> {
        let due = self.due.take().filter(|(set_for, _)| *set_for == phase);
        self.due.insert(due.unwrap_or_else(|| (phase, Box::pin(sleep(time))))).1.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::Instant;

    use super::*;

    const HEADER_S: u64 = 5;
    const IDLE_S: u64 = 15;

    #[tokio::test(start_paused = true)]
    async fn a_header_has_five_seconds_and_a_kept_connection_rests_for_fifteen() {
        let mut waiting = waiting();
        assert_eq!(waiting.waits().await, (HEADER_S, Late::Header), "the first header");
        waiting.serve();
        assert_eq!(waiting.waits().await, (IDLE_S, Late::Request), "the next request");
        waiting.patience.heard();
        assert_eq!(waiting.waits().await, (HEADER_S, Late::Header), "its header");
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_whole_time_and_a_byte_does_not_lengthen_it() {
        let mut waiting = waiting();
        for _ in 0..3 {
            assert!(waiting.is_patient_for(HEADER_S - 1).await);
            waiting.patience.heard();
            waiting.serve();
            assert!(waiting.is_patient_for(IDLE_S - 1).await);
            waiting.patience.heard();
        }
        assert!(waiting.is_patient_for(HEADER_S - 1).await);
        waiting.patience.heard();
        assert_eq!(waiting.waits().await, (1, Late::Header));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_an_answer_slowly_is_not_at_rest_and_who_takes_nothing_is_stalled() {
        let mut waiting = waiting();
        waiting.serve();
        for _ in 0..3 {
            assert!(!waiting.is_stalled_after(59).await);
            poll_fn(|context| {
                waiting.patience.took(context);
                Poll::Ready(())
            })
            .await;
            assert!(waiting.is_patient_for(IDLE_S - 1).await);
        }
        assert!(waiting.is_stalled_after(60).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_takes_its_time_and_so_does_what_follows_an_upgrade() {
        let mut waiting = waiting();
        waiting.exchange.asked();
        let answer = waiting.exchange.answered(Response::new(Body::from("a long poll")));
        waiting.patience.heard();
        assert!(waiting.is_patient_for(3600).await);
        drop(answer);
        waiting.exchange.asked();
        let mut upgrade = Response::new(Body::empty());
        *upgrade.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        drop(waiting.exchange.answered(upgrade));
        waiting.patience.heard();
        assert!(waiting.is_patient_for(3600).await);
        assert!(waiting.patience.due.is_none(), "a stream has no timer here");
    }

    struct Waiting {
        exchange: Exchange,
        patience: Patience,
    }

    fn waiting() -> Waiting {
        let exchange = Exchange::begin();
        let limits = ServeLimits {
            header_timeout: Duration::from_secs(HEADER_S),
            idle_timeout: Duration::from_secs(IDLE_S),
            ..ServeLimits::default()
        };
        Waiting { patience: Patience::new(exchange.clone(), limits), exchange }
    }

    impl Waiting {
        fn serve(&self) {
            self.exchange.asked();
            drop(self.exchange.answered(Response::new(Body::from("ok"))));
        }

        /// After how many seconds it is late, and for what.
        async fn waits(&mut self) -> (u64, Late) {
            let began = Instant::now();
            let late = poll_fn(|context| self.patience.poll_late(context)).await;
            (began.elapsed().as_secs(), late)
        }

        async fn is_stalled_after(&mut self, seconds: u64) -> bool {
            let stalled = poll_fn(|context| {
                assert!(self.patience.poll_late(context).is_pending(), "that is another timer's");
                self.patience.poll_stalled(context)
            });
            tokio::time::timeout(Duration::from_secs(seconds), stalled).await.is_ok()
        }

        async fn is_patient_for(&mut self, seconds: u64) -> bool {
            tokio::time::timeout(Duration::from_secs(seconds), self.waits()).await.is_err()
        }
    }
}
