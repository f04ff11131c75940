//! `GET …/events`: as server-sent events (WHATWG HTML §9.2), or as a page, as `Accept` says.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{ConnectInfo, Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use protocol::{
    Cursor, ErrorCode, ErrorDetail, LogId,
    codec::Frame as _,
    frame::{StartAt, ToViewer},
    limits,
};
use store::Bounds;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument as _, Span};

use super::{
    Relay,
    crowd::Place,
    follow::{Follower, Step},
    problem::Problem,
    read::{self, PageQuery},
    viewer_socket::StartQuery,
};
use crate::{
    auth::{Grant, Lease},
    subscription::Item,
};

/// `GET …/events`.
pub(super) async fn events(
    State(relay): State<Relay>,
    Extension(log): Extension<LogId>,
    Extension(grant): Extension<Grant>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    start: Result<Query<StartQuery>, QueryRejection>,
    page: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let bad = |error: QueryRejection| Problem::new(ErrorCode::BadRequest, error.body_text());
    let (Query(start), Query(page)) = (start.map_err(bad)?, page.map_err(bad)?);
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("text/event-stream") {
        let span = tracing::debug_span!("subscription", transport = "sse", %log);
        let place = relay.place(peer.as_deref()).inspect_err(|why| relay.metrics().refused(why.code))?;
        follow(&relay, log, grant.lease, place, start, &headers, span.clone()).instrument(span).await
    } else {
        let span = tracing::debug_span!("subscription", transport = "page", %log);
        read::page(&relay, log, &grant.lease, start, &page).instrument(span).await
    }
}

async fn follow(
    relay: &Relay,
    log: LogId,
    lease: Lease,
    place: Place,
    start: StartQuery,
    headers: &HeaderMap,
    span: Span,
) -> Result<Response, Problem> {
    if relay.draining().is_cancelled() {
        return Err(Problem::new(ErrorCode::Draining, "the relay goes down: come back"));
    }
    let current = relay.store().bounds(&log).await.ok().map(|bounds| bounds.epoch);
    let (mut from, filter) = start.parse(current.as_ref())?;
    // A browser that reconnects says where it was, and keeps the address it was opened with.
    if let Some(last) = headers.get("last-event-id") {
        let cursor = last.to_str().ok().and_then(|text| text.parse::<Cursor>().ok());
        let cursor =
            cursor.ok_or_else(|| Problem::new(ErrorCode::BadRequest, "Last-Event-ID is <epoch>:<seq>"))?;
        from = Some(StartAt::After(cursor));
    }
    let mut follower = Follower::new(relay, log, from, filter);
    // The first step tells whether the log can be had: after it the status is sent.
    let first = follower.next().await?;
    let token = relay.tracker().token();
    let draining = relay.draining().clone();
    let over = async move {
        tokio::select! {
            () = draining.cancelled() => {}
            () = lease.ended() => {}
        }
    };
    let text = render(&follower, first);
    let rest = stream::unfold(Sse { follower, ended: false, span, _place: place, _token: token }, Sse::next);
    let body = stream::iter([text]).chain(rest).take_until(Box::pin(over)).map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer would keep events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Sse {
    follower: Follower,
    ended: bool,
    span: Span,
    _place: Place,
    _token: TaskTrackerToken,
}

impl Sse {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if self.ended {
            return None;
        }
        let heartbeat = Duration::from_millis(limits::HEARTBEAT_MS);
        let step = self.follower.next().instrument(self.span.clone());
        let text = match tokio::time::timeout(heartbeat, step).await {
            Ok(Ok(step)) => render(&self.follower, step),
            Ok(Err(why)) => {
                self.ended = true;
                let ErrorDetail { code, message, retry_after_ms } = why;
                let log = Some(self.follower.log().clone());
                frame("error", &ToViewer::Error { code, message, log, retry_after_ms })
            }
            Err(_) => Bytes::from_static(b": heartbeat\n\n"),
        };
        Some((text, self))
    }
}

/// The text of a step: an event is `id: <epoch>:<seq>` and its envelope; what is not part of the log has no id, and its
/// type as `event:`.
fn render(follower: &Follower, step: Step) -> Bytes {
    let log = || follower.log().clone();
    let items = match step {
        Step::Items(items) => items,
        Step::Presence(wrapper, since) => {
            return frame("presence", &ToViewer::Presence { log: log(), wrapper, since });
        }
    };
    let mut text = Vec::new();
    for item in items {
        match item {
            Item::Events(segment) => {
                let Some((epoch, _)) = follower.position() else { continue };
                for record in segment.records() {
                    push(&mut text, &format!("id: {epoch}:{}\n", record.seq), &record.envelope);
                }
            }
            Item::Subscribed(Bounds { epoch, floor, head }) => {
                text.extend(frame("subscribed", &ToViewer::Subscribed { log: log(), epoch, floor, head }));
            }
            Item::Gap { from, to, reason } => {
                text.extend(frame("gap", &ToViewer::Gap { log: log(), from, to, reason }))
            }
            Item::Live(head) => text.extend(frame("live", &ToViewer::Live { log: log(), head })),
            Item::Ended(reason) => {
                text.extend(frame("ended", &ToViewer::Ended { log: log(), reason: reason.to_string() }))
            }
        }
    }
    text.into()
}

fn frame(kind: &str, frame: &ToViewer) -> Bytes {
    let mut text = Vec::new();
    push(&mut text, &format!("event: {kind}\n"), &frame.encode());
    text.into()
}

/// One server-sent event. A payload may hold line breaks between its tokens: each line is a `data:` of its own, which
/// the other side joins again.
fn push(text: &mut Vec<u8>, head: &str, data: &[u8]) {
    text.extend_from_slice(head.as_bytes());
    for line in data.split(|byte| *byte == b'\n') {
        text.extend_from_slice(b"data: ");
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.push(b'\n');
}
