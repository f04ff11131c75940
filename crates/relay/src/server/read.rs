//! Reading over plain HTTP: pages and long polls, the folded view, presence, health.

use std::time::Duration;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use protocol::{ErrorCode, ErrorDetail, LogId, Seq, frame::GapReason, limits, view::SessionView};
use serde::{Deserialize, Serialize};
use store::{ReadLimit, Record};

use super::{
    Relay, clock,
    feed::Reader,
    metrics::Metrics,
    problem::{self, Problem},
    viewer_socket::StartQuery,
};
use crate::{
    EncodedPage, RelayApi as _,
    auth::{AuthError, Lease},
    filter::TypeFilter,
    subscription::{Item, Subscription},
};

/// Bytes of the events of one page.
const PAGE_BYTES: usize = 4 * limits::BATCH_BYTES;

/// The rest of a page's query.
#[derive(Debug, Deserialize)]
pub(super) struct PageQuery {
    limit: Option<usize>,
    wait: Option<u64>,
}

/// `GET …/events` as a page: what is there after the cursor, or, with `wait`, what comes within that time.
pub(super) async fn page(
    relay: &Relay,
    log: LogId,
    lease: &Lease,
    start: StartQuery,
    query: &PageQuery,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(limits::PAGE_EVENTS);
    let wait = query.wait.unwrap_or(0);
    if !(1..=limits::PAGE_EVENTS_MAX).contains(&limit) || wait > limits::LONG_POLL_S {
        let (most, longest) = (limits::PAGE_EVENTS_MAX, limits::LONG_POLL_S);
        let message = format!("`limit` is 1 to {most}, and `wait` at most {longest} seconds");
        return Err(Problem::new(ErrorCode::BadRequest, message));
    }
    let mut reader = Reader::new(relay.feeds().clone(), log.clone());
    let bounds = reader.open().await?;
    let (from, filter) = start.parse(Some(&bounds.epoch))?;
    let mut subscription = Subscription::new(log, from, TypeFilter::default());
    let mut gap = gap_in(subscription.open(bounds));
    let deadline = clock::instant() + Duration::from_secs(wait);
    loop {
        let (_, after) = subscription.position().expect("it is open");
        let read = relay
            .store()
            .read(subscription.log(), after, ReadLimit { events: limit, bytes: PAGE_BYTES })
            .await;
        let page = EncodedPage::of(subscription.log(), read.map_err(|error| problem::of_read(&error))?);
        gap = gap_in(subscription.page(&page)).or(gap);
        if subscription.position().is_some_and(|(_, position)| position < after) {
            // The log was made again: the page is read anew from its beginning.
            continue;
        }
        let records = page.records().iter().filter(|record| filter.passes(&record.kind)).collect::<Vec<_>>();
        if !records.is_empty() || (!page.more && clock::instant() >= deadline) {
            let text = render(&page.bounds, &records, page.more, gap.as_ref());
            let metrics = relay.metrics();
            Metrics::add(&metrics.events_out, records.len());
            Metrics::add(&metrics.bytes_out, text.len());
            Metrics::add(&metrics.gaps, usize::from(gap.is_some()));
            return Ok(json(text));
        }
        if !page.more {
            tokio::select! {
                () = reader.woken() => {}
                () = clock::sleep_until(deadline) => {}
                () = lease.ended() => {
                    let over = AuthError::Revoked;
                    return Err(Problem::new(over.code(), over.to_string()));
                }
                () = relay.draining().cancelled() => {
                    let retry_after_ms = Some(relay.retry_after_ms());
                    let detail = ErrorDetail::new(ErrorCode::Draining, "the relay goes down: come back");
                    return Err(Problem(ErrorDetail { retry_after_ms, ..detail }));
                }
            }
        }
    }
}

/// A gap, as a page names it.
#[derive(Debug, Serialize)]
struct Gap {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Seq>,
    reason: GapReason,
}

fn gap_in(items: Vec<Item>) -> Option<Gap> {
    items.into_iter().find_map(|item| match item {
        Item::Gap { from, to, reason } => Some(Gap { from, to, reason }),
        Item::Subscribed(_) | Item::Events(_) | Item::Live(_) | Item::Ended(_) => None,
    })
}

/// The page's JSON text: the events are the bytes that were stored.
fn render(bounds: &store::Bounds, records: &[&Record], more: bool, gap: Option<&Gap>) -> Bytes {
    let epoch = serde_json::to_string(&bounds.epoch).expect("a text serialises");
    let (floor, head) = (bounds.floor, bounds.head);
    let mut text = format!(r#"{{"epoch":{epoch},"floor":{floor},"head":{head},"events":["#).into_bytes();
    for (i, record) in records.iter().enumerate() {
        if i > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&record.envelope);
    }
    text.extend_from_slice(format!(r#"],"more":{more}"#).as_bytes());
    if let Some(gap) = gap {
        text.extend_from_slice(br#","gap":"#);
        text.extend(serde_json::to_vec(gap).expect("a gap serialises"));
    }
    text.push(b'}');
    text.into()
}

fn json(text: Bytes) -> Response {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Up to where a view is folded.
#[derive(Debug, Deserialize)]
pub(super) struct ViewQuery {
    at: Option<Seq>,
}

/// `GET …/view`: the fold of what is kept, up to the head or `at`.
pub(super) async fn view(
    State(relay): State<Relay>,
    Extension(log): Extension<LogId>,
    query: Result<Query<ViewQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::new(ErrorCode::BadRequest, error.body_text()))?;
    let at = query.at.unwrap_or(Seq::MAX);
    let (mut view, mut after) = (SessionView::default(), Seq::ZERO);
    loop {
        let page = relay.store().read(&log, after, ReadLimit::default()).await;
        let page = page.map_err(|error| problem::of_read(&error))?;
        let rest = page.records.last().map(|record| record.seq).filter(|last| page.more && *last < at);
        let log = log.clone();
        view = aside(move || fold(view, &log, &page.records, at)).await?;
        match rest {
            Some(last) => after = last,
            None => break,
        }
    }
    let text = aside(move || serde_json::to_vec(&view).expect("a view serialises")).await;
    Ok(json(text.into()))
}

/// Applies what lies up to a position.
fn fold(mut view: SessionView, log: &LogId, records: &[Record], at: Seq) -> Result<SessionView, Problem> {
    for record in records.iter().filter(|record| record.seq <= at) {
        let event = record.event().map_err(|error| {
            tracing::error!(%log, seq = %record.seq, %error, "a stored event is no event");
            Problem::new(ErrorCode::Corrupt, format!("event {} of {log} is damaged", record.seq))
        })?;
        view.apply(&event);
    }
    Ok(view)
}

/// Does what takes a processor for long where no socket waits for it.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("folding does not panic")
}

/// `GET /v1/agents/{agent}/presence`.
pub(super) async fn presence(
    State(relay): State<Relay>,
    Extension(log): Extension<LogId>,
) -> Result<Response, Problem> {
    let agent = log.agent().ok_or_else(|| Problem::new(ErrorCode::NotFound, "a town has no wrapper"))?;
    match relay.presence(agent).await {
        Ok(presence) => Ok(Json(presence).into_response()),
        Err(error) => Err(Problem::new(ErrorCode::Internal, error.to_string())),
    }
}

/// `GET /healthz`: the process runs.
pub(super) async fn health() -> &'static str {
    std::future::ready("ok\n").await
}

/// `GET /readyz`: it takes streams and links, and the store answers.
pub(super) async fn ready(State(relay): State<Relay>) -> Response {
    if relay.draining().is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    match relay.store().list().await {
        Ok(_) => "ready\n".into_response(),
        Err(error) => {
            tracing::error!(%error, "the store does not answer");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n").into_response()
        }
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(State(relay): State<Relay>) -> impl IntoResponse {
    let (figures, tasks) = (relay.store().figures(), relay.tracker().len());
    let text = std::future::ready(relay.metrics().render(figures, tasks)).await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
